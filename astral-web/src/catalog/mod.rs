//! What is listed, and the rules by which records get in (DESIGN §3, §7).
//!
//! Pure logic: the time and the caller's address come in as arguments. Records are
//! verified before they come here.

mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use astral_proto::record::{
    Address, NodeRecord, Role, SignedNode, SignedStream, StreamRecord, StreamState,
};
use astral_proto::slug::{full_slug, slug_of};
use uuid::Uuid;

#[cfg(test)]
pub(crate) use table::REMEMBERED_MS;
pub(crate) use table::{Entry, Kind, LEASE_MS, Mark, Place, Row, Table, Taken, prefix};

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

    /// Supernodes first.
    fn rank(&self) -> u64 {
        u64::from(self.role == Role::Supernode)
    }

    fn slug(&self) -> Option<String> {
        None
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

    /// By viewers; unlisted ones are in no list, so last.
    fn rank(&self) -> u64 {
        let viewers = self.viewers.unwrap_or(0).saturating_add(1);
        if self.is_listed() { viewers } else { 0 }
    }

    fn slug(&self) -> Option<String> {
        self.is_listed().then(|| slug_of(&self.name, self.id()))
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
    /// Lets go of what is over at `now`.
    pub(crate) fn expire(&mut self, now: u64) {
        self.nodes.expire(now);
        self.streams.expire(now);
    }

    /// Takes in a node's record from a caller at `ip`.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn submit_node(
        &mut self,
        record: SignedNode,
        ip: IpAddr,
        now: u64,
    ) -> Result<Taken, Refusal> {
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
    ) -> Result<Taken, Refusal> {
        self.streams.submit(record, prefix(ip), now)
    }

    /// Nodes that a caller may be told of, by name.
    pub(crate) fn nodes_for(
        &self,
        local: bool,
        after: Option<Place>,
    ) -> impl Iterator<Item = &Row<NodeRecord>> {
        let rows = self.nodes.after(after);
        rows.filter(move |row| is_for(local, row))
    }

    /// Supernodes that a caller may be told of.
    pub(crate) fn supernodes_for(&self, local: bool) -> impl Iterator<Item = &Row<NodeRecord>> {
        self.nodes.ranked(1).filter(move |row| is_for(local, row))
    }

    /// Listed streams, by name.
    pub(crate) fn streams(&self, after: Option<Place>) -> impl Iterator<Item = &Row<StreamRecord>> {
        let rows = self.streams.after(after);
        rows.filter(|row| row.record.value().is_listed())
    }

    /// Listed streams, those with the most viewers first.
    pub(crate) fn top_streams(&self) -> impl Iterator<Item = &Row<StreamRecord>> {
        self.streams.ranked(1)
    }

    /// The slug under which a stream is shown: bare for the one seen first.
    pub(crate) fn slug(&self, record: &StreamRecord) -> String {
        let bare = slug_of(&record.name, record.id());
        let first = self.streams.of_slug(&bare).next();
        if first.is_some_and(|row| row.record.value().id() == record.id()) {
            bare
        } else {
            full_slug(&record.name, record.id())
        }
    }

    /// The stream that `text` names: an id, a slug, or a slug with a suffix.
    pub(crate) fn find(&self, text: &str) -> Found<'_> {
        if let Ok(id) = text.parse::<Uuid>() {
            return self.streams.row(id).map_or(Found::Nothing, Found::One);
        }
        let is_it = |row: &&Row<StreamRecord>| {
            let record = row.record.value();
            full_slug(&record.name, record.id()) == text
        };
        // Of a name without ASCII letters the bare slug has a suffix already.
        let bare = text.rsplit_once('~').map_or(text, |(bare, _)| bare);
        let rows = self.streams.of_slug(bare).chain(self.streams.of_slug(text));
        let exact: Vec<_> = rows.filter(is_it).collect();
        match exact.as_slice() {
            [row] => Found::One(row),
            [] => match self.streams.of_slug(text).next() {
                Some(row) => Found::One(row),
                None => Found::Nothing,
            },
            many => {
                let id = |row: &&Row<StreamRecord>| row.record.value().id().to_string();
                Found::Many(many.iter().map(id).collect())
            }
        }
    }

    /// Slugs that a person may have meant.
    pub(crate) fn near(&self, text: &str, most: usize) -> Vec<String> {
        let wanted = text.to_lowercase();
        let wanted = wanted.split('~').next().unwrap_or("");
        if wanted.is_empty() {
            return Vec::new();
        }
        let near = self.top_streams().take(NEAR_OUT_OF).filter(|row| {
            let record = row.record.value();
            let slug = slug_of(&record.name, record.id());
            slug.contains(wanted) || wanted.contains(&*slug)
        });
        near.take(most)
            .map(|row| self.slug(row.record.value()))
            .collect()
    }
}

/// Streams that are looked through for a name which is not known.
const NEAR_OUT_OF: usize = 1_000;

/// Whether a caller may be told of a node: loopback addresses lead elsewhere from elsewhere.
fn is_for(local: bool, row: &Row<NodeRecord>) -> bool {
    let addresses = &row.record.value().addresses;
    local || !addresses.iter().any(Address::is_loopback)
}
