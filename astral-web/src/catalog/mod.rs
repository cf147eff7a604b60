//! What is listed, and the rules by which records get in (DESIGN §3, §7).
//!
//! Pure logic: the time and the caller's address come in as arguments. Records are
//! verified before they come here.

mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use astral_proto::ids::StreamId;
use astral_proto::record::{
    Address, NodeRecord, SignedNode, SignedStream, StreamRecord, StreamState,
};
use astral_proto::slug::{full_slug, slug_of};
use uuid::Uuid;

pub(crate) use table::{Kind, LEASE_MS, Row, Table, Taken, prefix};

/// Why a record is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("a record with this seq or a higher one is known already")]
    Stale,
    #[error("every address of a node's record must be the caller's, which is {0}")]
    Foreign(IpAddr),
    #[error("this network has {0} live records already")]
    Crowded(usize),
    #[error("the directory is full")]
    Full,
}

impl Kind for NodeRecord {
    const PER_PREFIX: usize = 16;

    fn uuid(&self) -> Uuid {
        self.id().0
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("")
    }

    fn is_tombstone(&self) -> bool {
        self.removed == Some(true)
    }
}

impl Kind for StreamRecord {
    /// Sixteen nodes of a network with four streams each.
    const PER_PREFIX: usize = 64;

    fn uuid(&self) -> Uuid {
        self.id().0
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn is_tombstone(&self) -> bool {
        self.state == StreamState::Ended
    }
}

/// What a slug leads to.
#[derive(Debug)]
pub(crate) enum Found<'a> {
    One(&'a Row<StreamRecord>),
    Many(Vec<String>),
    Nothing,
}

/// Nodes and streams.
#[derive(Debug, Default)]
pub(crate) struct Catalog {
    pub(crate) nodes: Table<NodeRecord>,
    pub(crate) streams: Table<StreamRecord>,
}

impl Catalog {
    /// Takes in a node's record from a caller at `ip`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn submit_node(
        &mut self,
        record: SignedNode,
        ip: IpAddr,
        now: u64,
    ) -> Result<(Taken, Vec<Uuid>), Refusal> {
        let own = |address: &Address| address.0.ip().to_canonical() == ip && address.0.port() != 0;
        if !record.value().addresses.iter().all(own) {
            return Err(Refusal::Foreign(ip));
        }
        self.nodes.submit(record, prefix(ip), now)
    }

    /// Takes in a stream's record from a caller at `ip`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn submit_stream(
        &mut self,
        record: SignedStream,
        ip: IpAddr,
        now: u64,
    ) -> Result<(Taken, Vec<Uuid>), Refusal> {
        self.streams.submit(record, prefix(ip), now)
    }

    /// Nodes that a caller may be told of: loopback addresses lead elsewhere from elsewhere.
    pub(crate) fn nodes_for(
        &self,
        local: bool,
        after: Option<(String, Uuid)>,
        now: u64,
    ) -> impl Iterator<Item = &Row<NodeRecord>> {
        self.nodes.live_after(after, now).filter(move |row| {
            local
                || !row
                    .record
                    .value()
                    .addresses
                    .iter()
                    .any(Address::is_loopback)
        })
    }

    /// Listed streams.
    pub(crate) fn streams(
        &self,
        after: Option<(String, Uuid)>,
        now: u64,
    ) -> impl Iterator<Item = &Row<StreamRecord>> {
        let rows = self.streams.live_after(after, now);
        rows.filter(|row| row.record.value().is_listed())
    }

    /// Which stream each bare slug belongs to: the one seen first.
    pub(crate) fn owners(&self, now: u64) -> BTreeMap<String, StreamId> {
        let mut owners = BTreeMap::new();
        for row in self.streams(None, now) {
            let id = row.record.value().id();
            let claim = (row.since, id);
            let bare = slug_of(&row.record.value().name, id);
            let owner = owners.entry(bare).or_insert(claim);
            *owner = claim.min(*owner);
        }
        owners
            .into_iter()
            .map(|(slug, (_, id))| (slug, id))
            .collect()
    }

    /// The stream that `text` names: an id, a slug, or a slug with a suffix.
    pub(crate) fn find(&self, text: &str, now: u64) -> Found<'_> {
        if let Ok(id) = text.parse::<StreamId>() {
            let row = self.streams.row(id.0).filter(|row| row.is_live(now));
            return row.map_or(Found::Nothing, Found::One);
        }
        let full = |row: &&Row<StreamRecord>| {
            let record = row.record.value();
            full_slug(&record.name, record.id()) == text
        };
        let exact: Vec<_> = self.streams(None, now).filter(full).collect();
        match exact.as_slice() {
            [row] => Found::One(row),
            [] => self.owners(now).get(text).map_or(Found::Nothing, |id| {
                self.streams.row(id.0).map_or(Found::Nothing, Found::One)
            }),
            many => {
                let id = |row: &&Row<StreamRecord>| row.record.value().id().to_string();
                Found::Many(many.iter().map(id).collect())
            }
        }
    }
}
