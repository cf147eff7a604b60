//! Records on their way: announced, asked for, found.

use std::collections::BTreeSet;
use std::time::Duration;

use super::event::{Change, ConnId, Time};
use super::records::{Insert, LEASE};
use super::{Action, Overlay, Timer};
use crate::ids::StreamId;
use crate::limits::{RECORDS_PER_MESSAGE, STREAM_RECORDS_MAX};
use crate::record::{SignedStream, StreamRecord, StreamState};
use crate::slug;
use crate::wire::CloseCode;
use crate::wire::control::{Announce, Find, Found, RecordBytes};

/// Bytes of records in one message, so that it stays under 64 KiB.
const RECORD_BYTES_PER_MESSAGE: usize = 48 * 1024;
/// Messages with records that a new peer gets: half of what its queue holds.
const INTRODUCED_MAX: usize = 128;
/// News are gathered for this long before they are passed on.
const SPREAD_EVERY: Duration = Duration::from_millis(20);
/// A record that was only signed anew is passed on within this, jittered: meanwhile it
/// comes from most of those who would else be told. Seven hops take half a lease at most.
const RENEWED_WITHIN: Duration = Duration::from_secs(1);
/// What a node knows of others' streams it says to a new peer only after this, jittered, and
/// only what the peer has not told or asked for itself: most nodes know the same.
const GREET_AFTER: Duration = Duration::from_millis(250);
/// Who dialled waits for twice as long, so that not both say it.
const DIALLER_WAITS: u32 = 2;
/// Streams of which news are passed on at a time: eight messages to each peer.
const SPREAD_AT_ONCE: usize = 8 * RECORDS_PER_MESSAGE;

impl Overlay {
    /// Tells a new peer of the listed streams that are live here: of its own at once, and of
    /// others' once it has heard what the peer knows.
    pub(super) fn introduce_records(&mut self, now: Time, conn: ConnId) {
        let outbound = self.peers.get(&conn).is_some_and(|peer| peer.outbound);
        let owned = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.own.is_some());
        let owned: BTreeSet<StreamId> = owned.map(|(id, _)| *id).collect();
        self.tell_records(now, conn, |id| owned.contains(id));
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.told_of = Some(owned);
        }
        let wait = self
            .random
            .jitter(GREET_AFTER * if outbound { DIALLER_WAITS } else { 1 });
        self.timers.set(Timer::Greet(conn), now.after(wait));
    }

    /// Tells a new peer what it has not told itself.
    pub(super) fn greet(&mut self, now: Time, conn: ConnId) {
        let peer = self.peers.get_mut(&conn);
        if let Some(told) = peer.and_then(|peer| peer.told_of.take()) {
            self.tell_records(now, conn, |id| !told.contains(id));
        }
    }

    fn tell_records(&mut self, now: Time, conn: ConnId, which: impl Fn(&StreamId) -> bool) {
        let records: Vec<RecordBytes> = self
            .records
            .fresh(now)
            .filter(|(id, known)| known.record.value().is_listed() && which(id))
            .map(|(_, known)| RecordBytes(known.record.wire().clone()))
            .collect();
        for batch in batches(records).into_iter().take(INTRODUCED_MAX) {
            self.send(conn, Announce { records: batch });
        }
    }

    pub(super) fn announced(&mut self, now: Time, conn: ConnId, records: &[RecordBytes]) {
        for bytes in records {
            // What is known already need not be verified once more.
            if let Some(said) = SignedStream::glance(&bytes.0) {
                let known = self.records.stream(said.id());
                let known = known.map(|known| known.record.value().seq);
                if known <= Some(said.seq) {
                    self.peer_has(conn, said.id());
                }
                if known >= Some(said.seq) {
                    continue;
                }
            }
            match SignedStream::decode(&bytes.0) {
                Ok(record) => self.learn(now, Some(conn), record),
                Err(error) => {
                    self.close(conn, CloseCode::Protocol, format!("Announce: {error}"));
                    return;
                }
            }
        }
    }

    /// A peer has told of a stream what is newest: it need not be told.
    fn peer_has(&mut self, conn: ConnId, id: StreamId) {
        if let Some(told) = self.news.get_mut(&id) {
            told.insert(conn);
        }
        self.peer_knows(conn, id);
    }

    /// A new peer knows of a stream, and need not be told that it is there.
    pub(super) fn peer_knows(&mut self, conn: ConnId, id: StreamId) {
        let greeted = self.peers.get_mut(&conn).and_then(|p| p.told_of.as_mut());
        if let Some(told) = greeted.filter(|told| told.len() < STREAM_RECORDS_MAX) {
            told.insert(id);
        }
    }

    /// Keeps a record if it is new, and passes it on to every other peer.
    ///
    /// A record comes back to nobody twice: the second time its `seq` is known.
    pub(super) fn learn(&mut self, now: Time, from: Option<ConnId>, record: SignedStream) {
        let id = record.value().id();
        let is_own = self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.own.is_some());
        if is_own && from.is_some() {
            return;
        }
        let held = self.streams.contains_key(&id);
        let known = self.records.stream(id);
        let renewed = known.is_some_and(|known| {
            let lasts = now.since(known.renewed) < LEASE * 2 / 3;
            lasts && says_the_same(known.record.value(), record.value())
        });
        let is_live = |record: &StreamRecord| record.state == StreamState::Live;
        let was_live = known.is_some_and(|known| is_live(known.record.value()));
        if self.records.insert_stream(now, record.clone(), from, held) != Insert::New {
            return;
        }
        if let Some(stream) = self.streams.get_mut(&id)
            && is_live(record.value())
            && !was_live
        {
            // The record may overtake what the parent says: nobody has kept anything back yet.
            stream.progressed = now;
            stream.service.resumed(now);
        }
        self.changed(Change::Stream(id));
        if self.streams.contains_key(&id) {
            self.act(Action::Open {
                record: record.clone(),
            });
        }
        // Who told what was newest before knows nothing of this.
        self.news.insert(id, from.into_iter().collect());
        if record.value().state == StreamState::Ended {
            // While its children are still known.
            self.spread(now);
            self.stream_over(id);
            return;
        }
        let wait = if renewed {
            self.random.jitter(RENEWED_WITHIN)
        } else {
            SPREAD_EVERY
        };
        let due = self.timers.get(Timer::Spread);
        if due.is_none_or(|due| due > now.after(wait)) {
            self.timers.set(Timer::Spread, now.after(wait));
        }
    }

    /// Passes on what is new since the last time: listed streams to every peer,
    /// unlisted ones to those that are fed.
    pub(super) fn spread(&mut self, now: Time) {
        let mut news = std::mem::take(&mut self.news);
        let later = news.keys().nth(SPREAD_AT_ONCE).copied();
        self.news = later.map(|id| news.split_off(&id)).unwrap_or_default();
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            let records = news
                .iter()
                .filter(|(id, told)| !told.contains(&conn) && self.may_hear(conn, **id))
                .filter_map(|(id, _)| self.records.stream(*id))
                .map(|known| RecordBytes(known.record.wire().clone()));
            for batch in batches(records.collect()) {
                self.send(conn, Announce { records: batch });
            }
        }
        if !self.news.is_empty() {
            self.timers.set(Timer::Spread, now.after(SPREAD_EVERY));
        }
    }

    fn may_hear(&self, conn: ConnId, id: StreamId) -> bool {
        let known = self.records.stream(id);
        let listed = known.is_some_and(|known| known.record.value().is_listed());
        let fed = |feed: &super::feeds::Feed| feed.conn == conn && feed.stream == id;
        listed || self.feeds.values().any(fed)
    }

    /// Asks every peer for a stream.
    pub(super) fn find(&mut self, id: Option<StreamId>, slug: Option<String>) {
        self.query_count += 1;
        let query = self.query_count;
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            self.send(
                conn,
                Find {
                    query,
                    id,
                    slug: slug.clone(),
                    limit: 8,
                },
            );
        }
    }

    /// An unlisted stream is given to those only who know its id.
    pub(super) fn asked_to_find(&mut self, now: Time, conn: ConnId, find: &Find) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        let remote = peer.remote;
        if !peer.may_find(now) {
            return;
        }
        let wanted = |id: StreamId, name: &str, listed: bool| {
            find.id == Some(id)
                || (listed
                    && find
                        .slug
                        .as_ref()
                        .is_some_and(|text| slug::names(text, name, id)))
        };
        let hits: Vec<_> = self
            .records
            .fresh(now)
            .filter(|(id, known)| {
                let record = known.record.value();
                wanted(*id, &record.name, record.is_listed())
            })
            .take((find.limit as usize).min(8))
            .collect();
        let over = find.id.and_then(|id| Some((id, self.records.stream(id)?)));
        let over = over.filter(|(id, _)| hits.is_empty() && self.is_over(*id));
        let hits: Vec<_> = hits.into_iter().chain(over).collect();
        let streams = hits
            .iter()
            .map(|(_, known)| RecordBytes(known.record.wire().clone()));
        let nodes = hits.iter().filter_map(|(_, known)| {
            let node = self.records.node(known.record.value().publisher)?;
            let tellable = Self::tellable(&node.addresses, remote);
            (!tellable.is_empty()).then(|| RecordBytes(node.record.wire().clone()))
        });
        let answer = Found {
            query: find.query,
            streams: streams.collect(),
            nodes: nodes.collect(),
        };
        self.send(conn, answer);
    }

    pub(super) fn found(&mut self, now: Time, conn: ConnId, found: &Found) {
        self.announced(now, conn, &found.streams);
        self.peers_told(now, conn, &found.nodes);
    }
}

/// Whether a record says nothing but what an older one did, or how many watch.
fn says_the_same(old: &StreamRecord, new: &StreamRecord) -> bool {
    let mut as_new = old.clone();
    (as_new.seq, as_new.viewers) = (new.seq, new.viewers);
    as_new == *new
}

fn batches(records: Vec<RecordBytes>) -> Vec<Vec<RecordBytes>> {
    let mut batches: Vec<Vec<RecordBytes>> = Vec::new();
    let mut bytes = usize::MAX;
    for record in records {
        let full = batches
            .last()
            .is_none_or(|batch| batch.len() >= RECORDS_PER_MESSAGE);
        if full || bytes + record.0.len() > RECORD_BYTES_PER_MESSAGE {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += record.0.len();
        batches.last_mut().expect("one was pushed").push(record);
    }
    batches
}
