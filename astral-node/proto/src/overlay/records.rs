//! What is known of streams and nodes, with leases on this node's own clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::Time;
use crate::ids::{NodeId, StreamId};
use crate::limits::{NODE_RECORDS_MAX, STREAM_RECORDS_MAX};
use crate::record::{Address, SignedNode, SignedStream, StreamState};
use crate::slug;

/// How long a record counts after a new `seq` was first seen.
///
/// Publishers sign anew at a third of it.
pub const LEASE: Duration = Duration::from_secs(30);
/// How long the highest `seq` is remembered after the lease, so that an old
/// record cannot come back.
pub(super) const SEQ_MEMORY: Duration = Duration::from_secs(24 * 3600);

/// A stream that is known.
#[derive(Clone, Debug)]
pub struct KnownStream {
    /// Its newest record.
    pub record: SignedStream,
    /// When this `seq` was first seen.
    pub renewed: Time,
    /// Order in which streams were first seen here.
    pub first_seen: u64,
}

/// A node that is known.
#[derive(Clone, Debug)]
pub struct KnownNode {
    /// Its newest record.
    pub record: SignedNode,
    /// Where it was seen or said to be.
    pub addresses: Vec<Address>,
    /// When it was last heard of.
    pub seen: Time,
}

/// What became of a stream record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Insert {
    /// Newer than what was known.
    New,
    /// Known, or older.
    Old,
    /// No room: the table is full of live records.
    Full,
}

/// Who a text means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// This stream.
    One(StreamId),
    /// One of these: the text alone does not decide.
    Many(Vec<StreamId>),
    /// Nothing that is known here.
    Unknown,
}

/// All records that a node holds.
#[derive(Debug, Default)]
pub struct Records {
    streams: BTreeMap<StreamId, KnownStream>,
    nodes: BTreeMap<NodeId, KnownNode>,
    count: u64,
}

impl Records {
    pub(crate) fn insert_stream(&mut self, now: Time, record: SignedStream) -> Insert {
        let id = record.value().id();
        if let Some(known) = self.streams.get_mut(&id) {
            if record.value().seq <= known.record.value().seq {
                return Insert::Old;
            }
            known.record = record;
            known.renewed = now;
            return Insert::New;
        }
        if self.streams.len() >= STREAM_RECORDS_MAX && !self.evict_stream(now) {
            return Insert::Full;
        }
        self.count += 1;
        self.streams.insert(
            id,
            KnownStream {
                record,
                renewed: now,
                first_seen: self.count,
            },
        );
        Insert::New
    }

    fn evict_stream(&mut self, now: Time) -> bool {
        let oldest = self
            .streams
            .iter()
            .filter(|(_, known)| !is_fresh(known, now))
            .min_by_key(|(_, known)| known.renewed)
            .map(|(id, _)| *id);
        oldest.is_some_and(|id| self.streams.remove(&id).is_some())
    }

    pub(crate) fn insert_node(
        &mut self,
        now: Time,
        id: NodeId,
        record: SignedNode,
        at: &[Address],
    ) {
        if let Some(known) = self.nodes.get_mut(&id) {
            if record.value().seq >= known.record.value().seq {
                known.record = record;
            }
            known.seen = now;
            for address in at {
                if !known.addresses.contains(address) {
                    known.addresses.insert(0, *address);
                    known.addresses.truncate(crate::limits::ADDRESSES_MAX);
                }
            }
            return;
        }
        if self.nodes.len() >= NODE_RECORDS_MAX {
            let oldest = self
                .nodes
                .iter()
                .min_by_key(|(_, node)| node.seen)
                .map(|(id, _)| *id);
            oldest.map(|id| self.nodes.remove(&id));
        }
        self.nodes.insert(
            id,
            KnownNode {
                record,
                addresses: at.to_vec(),
                seen: now,
            },
        );
    }

    pub(crate) fn forget_node(&mut self, id: NodeId) -> bool {
        self.nodes.remove(&id).is_some()
    }

    /// Lets go of what has been silent for longer than [`SEQ_MEMORY`].
    pub(crate) fn sweep(&mut self, now: Time) {
        self.streams
            .retain(|_, known| now.since(known.renewed) < SEQ_MEMORY);
        self.nodes
            .retain(|_, known| now.since(known.seen) < SEQ_MEMORY);
    }

    /// A stream's record, whether its lease runs or not.
    pub fn stream(&self, id: StreamId) -> Option<&KnownStream> {
        self.streams.get(&id)
    }

    /// What is known of a node.
    pub fn node(&self, id: NodeId) -> Option<&KnownNode> {
        self.nodes.get(&id)
    }

    /// All nodes that are known.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &KnownNode)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// Streams whose lease runs and that are not over.
    pub fn fresh(&self, now: Time) -> impl Iterator<Item = (StreamId, &KnownStream)> {
        self.streams
            .iter()
            .filter(move |(_, known)| is_fresh(known, now))
            .map(|(id, k)| (*id, k))
    }

    /// Who `text` means among the streams for which `counts` holds: by id, full
    /// slug or bare slug; with a bare one the own stream, else the one seen first.
    pub fn resolve(
        &self,
        text: &str,
        own: &dyn Fn(StreamId) -> bool,
        counts: &dyn Fn(StreamId, &KnownStream) -> bool,
    ) -> Resolved {
        let mut hits: Vec<_> = self
            .streams
            .iter()
            .filter(|(id, known)| {
                slug::names(text, &known.record.value().name, **id) && counts(**id, known)
            })
            .map(|(id, known)| (!own(*id), known.first_seen, *id))
            .collect();
        hits.sort_unstable();
        let exact = text.parse::<StreamId>().is_ok() || !text.contains('~');
        match hits.as_slice() {
            [] => Resolved::Unknown,
            [one] => Resolved::One(one.2),
            [first, ..] if exact => Resolved::One(first.2),
            many => Resolved::Many(many.iter().map(|hit| hit.2).collect()),
        }
    }

    /// The slug under which a stream is shown: bare if it is what the bare one means.
    pub fn shown_slug(&self, id: StreamId, resolved: &Resolved) -> String {
        let name = self
            .streams
            .get(&id)
            .map_or("", |known| known.record.value().name.as_str());
        if *resolved == Resolved::One(id) {
            slug::slug_of(name, id)
        } else {
            slug::full_slug(name, id)
        }
    }
}

fn is_fresh(known: &KnownStream, now: Time) -> bool {
    now.since(known.renewed) < LEASE && known.record.value().state != StreamState::Ended
}
