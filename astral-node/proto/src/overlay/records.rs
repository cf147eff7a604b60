//! What is known of streams and nodes, with leases on this node's own clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::{ConnId, Time};
use super::supernodes::serves;
use crate::ids::{NodeId, StreamId};
use crate::limits::{ADDRESSES_MAX, NODE_RECORDS_MAX, STREAM_RECORDS_MAX};
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
    /// Connection it was first heard of on; none for this node's own.
    from: Option<ConnId>,
    /// Connection on which its newest record came first.
    pub(super) told_by: Option<ConnId>,
    /// Bare slug of its name.
    slug: String,
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
    /// When this `seq` was first seen: the same one prolongs nothing.
    pub renewed: Time,
    /// Connection on which it was told; none if it was met itself.
    from: Option<ConnId>,
}

/// Nodes that one connection can make this node remember.
const NODES_PER_PEER: usize = 256;

/// Streams that one connection can make this node remember: no peer fills the table.
const STREAMS_PER_PEER: usize = 512;

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
    by_slug: BTreeMap<String, BTreeSet<StreamId>>,
    nodes: BTreeMap<NodeId, KnownNode>,
    /// Those of them that say that they are supernodes: few among many.
    serving: BTreeSet<NodeId>,
    /// What bare slugs meant first in an earlier life.
    first: BTreeMap<String, StreamId>,
    count: u64,
}

impl Records {
    /// Takes over what bare slugs meant first in an earlier life.
    pub(crate) fn name_first(&mut self, slugs: Vec<(String, StreamId)>) {
        self.first = slugs.into_iter().take(STREAM_RECORDS_MAX).collect();
    }

    /// What each bare slug meant first, of the slugs that are known now.
    pub(crate) fn first_named(&self) -> impl Iterator<Item = (&str, StreamId)> {
        self.by_slug.iter().filter_map(|(slug, ids)| {
            let seen = ids
                .iter()
                .filter_map(|id| Some((self.streams.get(id)?.first_seen, *id)));
            let first = self.first.get(slug).copied();
            Some((slug.as_str(), first.or_else(|| Some(seen.min()?.1))?))
        })
    }

    /// Keeps a record. One that is `held` here always finds room.
    pub(crate) fn insert_stream(
        &mut self,
        now: Time,
        record: SignedStream,
        from: Option<ConnId>,
        held: bool,
    ) -> Insert {
        let id = record.value().id();
        let slug = slug::slug_of(&record.value().name, id);
        if let Some(known) = self.streams.get_mut(&id) {
            if record.value().seq <= known.record.value().seq {
                return Insert::Old;
            }
            known.record = record;
            known.told_by = from;
            known.renewed = now;
            let before = std::mem::replace(&mut known.slug, slug.clone());
            self.unindex(&before, id);
            self.by_slug.entry(slug).or_default().insert(id);
            return Insert::New;
        }
        let told = self
            .streams
            .values()
            .filter(|known| from.is_some() && known.from == from);
        let refused = told.count() >= STREAMS_PER_PEER && !held;
        if refused || (self.streams.len() >= STREAM_RECORDS_MAX && !self.evict_stream(now, held)) {
            return Insert::Full;
        }
        self.count += 1;
        let known = KnownStream {
            record,
            renewed: now,
            first_seen: self.count,
            from,
            told_by: from,
            slug: slug.clone(),
        };
        self.streams.insert(id, known);
        self.by_slug.entry(slug).or_default().insert(id);
        Insert::New
    }

    fn unindex(&mut self, slug: &str, id: StreamId) {
        if let Some(ids) = self.by_slug.get_mut(slug) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_slug.remove(slug);
            }
        }
    }

    /// Makes room: the longest silent goes, one that lives only if it must.
    fn evict_stream(&mut self, now: Time, held: bool) -> bool {
        let oldest = self
            .streams
            .iter()
            .filter(|(_, known)| known.from.is_some() && (held || !is_fresh(known, now)))
            .min_by_key(|(_, known)| known.renewed)
            .map(|(id, known)| (*id, known.slug.clone()));
        let Some((id, slug)) = oldest else {
            return false;
        };
        self.unindex(&slug, id);
        self.streams.remove(&id).is_some()
    }

    /// Keeps a node's record and where it is: as somebody told, or, with no `from`, as it
    /// said itself when it was met.
    pub(crate) fn insert_node(
        &mut self,
        now: Time,
        id: NodeId,
        record: SignedNode,
        at: &[Address],
        from: Option<ConnId>,
    ) {
        if let Some(known) = self.nodes.get_mut(&id) {
            let (new, old) = (record.value().seq, known.record.value().seq);
            if new < old || (new == old && from.is_some()) {
                return;
            }
            if new > old {
                if serves(&record) {
                    self.serving.insert(id);
                } else {
                    self.serving.remove(&id);
                }
                (known.record, known.renewed) = (record, now);
            }
            if from.is_none() {
                (known.seen, known.from) = (now, None);
            }
            known.place(at, from.is_none());
            return;
        }
        if from.is_some() {
            self.evict_told(from);
        }
        if self.nodes.len() >= NODE_RECORDS_MAX {
            // Who was met stays longer than who was only heard of.
            let last = |node: &KnownNode| (node.from.is_none(), node.seen);
            let oldest = self.nodes.iter().min_by_key(|(_, node)| last(node));
            let oldest = oldest.map(|(id, _)| *id);
            oldest.map(|id| self.forget_node(id));
        }
        if serves(&record) {
            self.serving.insert(id);
        }
        let known = KnownNode {
            record,
            addresses: at.iter().copied().take(ADDRESSES_MAX).collect(),
            seen: now,
            renewed: now,
            from,
        };
        self.nodes.insert(id, known);
    }

    /// Somebody who tells of many nodes pushes out those only that he told of before.
    fn evict_told(&mut self, from: Option<ConnId>) {
        let told = self.nodes.iter().filter(|(_, known)| known.from == from);
        if told.clone().count() < NODES_PER_PEER {
            return;
        }
        let oldest = told.min_by_key(|(_, known)| known.renewed);
        let oldest = oldest.map(|(id, _)| *id);
        oldest.map(|id| self.forget_node(id));
    }

    /// Adds addresses that a node says itself.
    pub(crate) fn add_addresses(&mut self, id: NodeId, at: &[Address]) {
        if let Some(known) = self.nodes.get_mut(&id) {
            known.place(at, false);
        }
    }

    /// A connected node is heard of all the time.
    pub(crate) fn node_heard(&mut self, now: Time, id: NodeId) {
        if let Some(known) = self.nodes.get_mut(&id) {
            known.seen = now;
        }
    }

    pub(crate) fn forget_node(&mut self, id: NodeId) -> bool {
        self.serving.remove(&id);
        self.nodes.remove(&id).is_some()
    }

    /// Lets go of what has been silent for longer than [`SEQ_MEMORY`].
    pub(crate) fn sweep(&mut self, now: Time) {
        let silent = |known: &KnownStream| now.since(known.renewed) >= SEQ_MEMORY;
        let gone: Vec<(StreamId, String)> = self
            .streams
            .iter()
            .filter(|(_, known)| silent(known))
            .map(|(id, known)| (*id, known.slug.clone()))
            .collect();
        for (id, slug) in gone {
            self.unindex(&slug, id);
            self.streams.remove(&id);
        }
        self.nodes
            .retain(|_, known| now.since(known.seen) < SEQ_MEMORY);
        self.serving.retain(|id| self.nodes.contains_key(id));
    }

    /// A stream's record, whether its lease runs or not.
    pub fn stream(&self, id: StreamId) -> Option<&KnownStream> {
        self.streams.get(&id)
    }

    /// What is known of a node.
    pub fn node(&self, id: NodeId) -> Option<&KnownNode> {
        self.nodes.get(&id)
    }

    /// Nodes that say that they are supernodes.
    pub(crate) fn serving(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.serving.iter().copied()
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
        let id = text.parse::<StreamId>().ok();
        let bare = text.rsplit_once('~').map(|(bare, _)| bare);
        let mut hits: Vec<_> = [Some(text), bare]
            .into_iter()
            .flatten()
            .filter_map(|slug| self.by_slug.get(slug))
            .flatten()
            .copied()
            .chain(id)
            .filter_map(|id| Some((id, self.streams.get(&id)?)))
            .filter(|(id, known)| {
                slug::names(text, &known.record.value().name, *id) && counts(*id, known)
            })
            .map(|(id, known)| {
                let is_first = self.first.get(text) == Some(&id);
                (!own(id), !is_first, known.first_seen, id)
            })
            .collect();
        hits.sort_unstable();
        hits.dedup();
        let exact = id.is_some() || bare.is_none();
        match hits.as_slice() {
            [] => Resolved::Unknown,
            [one] => Resolved::One(one.3),
            [first, ..] if exact => Resolved::One(first.3),
            many => Resolved::Many(many.iter().map(|hit| hit.3).collect()),
        }
    }

    /// Whether the lease of a stream's record runs and the stream is not over.
    pub fn is_live(&self, now: Time, id: StreamId) -> bool {
        self.streams
            .get(&id)
            .is_some_and(|known| is_fresh(known, now))
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

impl KnownNode {
    /// Whether it may still be there: met within `met`, or heard anew within `heard`.
    pub(crate) fn may_live(&self, now: Time, met: Duration, heard: Duration) -> bool {
        let seen = self.from.is_none() && now.since(self.seen) < met;
        seen || now.since(self.renewed) < heard
    }

    /// Adds addresses: where it was met goes first, what was said last.
    fn place(&mut self, at: &[Address], first: bool) {
        for address in at {
            if self.addresses.contains(address) {
                continue;
            }
            if first {
                self.addresses.insert(0, *address);
            } else {
                // The newest of what was said, in the place of the oldest.
                self.addresses.truncate(ADDRESSES_MAX - 1);
                self.addresses.push(*address);
            }
            self.addresses.truncate(ADDRESSES_MAX);
        }
    }
}

fn is_fresh(known: &KnownStream, now: Time) -> bool {
    now.since(known.renewed) < LEASE && known.record.value().state != StreamState::Ended
}
