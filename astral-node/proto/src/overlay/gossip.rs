//! Records on their way: announced, asked for, found.

use super::event::{Change, ConnId, Time};
use super::records::Insert;
use super::{Action, Overlay};
use crate::ids::StreamId;
use crate::limits::RECORDS_PER_MESSAGE;
use crate::record::{SignedNode, SignedStream, StreamState};
use crate::slug;
use crate::wire::CloseCode;
use crate::wire::control::{Announce, Find, Found, RecordBytes};

/// Bytes of records in one message, so that it stays under 64 KiB.
const RECORD_BYTES_PER_MESSAGE: usize = 48 * 1024;

impl Overlay {
    /// Tells a new peer of the listed streams that are live here.
    pub(super) fn introduce_records(&mut self, now: Time, conn: ConnId) {
        let records: Vec<RecordBytes> = self
            .records
            .fresh(now)
            .filter(|(_, known)| known.record.value().is_listed())
            .map(|(_, known)| RecordBytes(known.record.wire().clone()))
            .collect();
        for batch in batches(records) {
            self.send(conn, Announce { records: batch });
        }
    }

    pub(super) fn announced(&mut self, now: Time, conn: ConnId, records: &[RecordBytes]) {
        for bytes in records {
            match SignedStream::decode(&bytes.0) {
                Ok(record) => self.learn(now, Some(conn), record),
                Err(error) => {
                    self.close(conn, CloseCode::Protocol, format!("Announce: {error}"));
                    return;
                }
            }
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
        if (is_own && from.is_some())
            || self.records.insert_stream(now, record.clone()) != Insert::New
        {
            return;
        }
        self.changed(Change::Stream(id));
        if self.streams.contains_key(&id) {
            self.act(Action::Open {
                record: record.clone(),
            });
        }
        if record.value().is_listed() {
            self.spread(from, &record);
        }
        if record.value().state == StreamState::Ended {
            self.stream_over(id);
        }
    }

    fn spread(&mut self, from: Option<ConnId>, record: &SignedStream) {
        let conns: Vec<ConnId> = self
            .peers
            .keys()
            .copied()
            .filter(|c| Some(*c) != from)
            .collect();
        for conn in conns {
            let records = vec![RecordBytes(record.wire().clone())];
            self.send(conn, Announce { records });
        }
    }

    pub(super) fn peers_told(&mut self, now: Time, conn: ConnId, records: &[RecordBytes]) {
        let Some(remote) = self.peers.get(&conn).map(|peer| peer.remote) else {
            return;
        };
        for bytes in records {
            match SignedNode::decode(&bytes.0) {
                Ok(record) => {
                    let id = record.value().id_for(remote);
                    let addresses = Self::tellable(&record.value().addresses, remote);
                    if id != self.id {
                        self.records.insert_node(now, id, record, &addresses);
                    }
                }
                Err(error) => {
                    self.close(conn, CloseCode::Protocol, format!("Peers: {error}"));
                    return;
                }
            }
        }
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
        let Some(remote) = self.peers.get(&conn).map(|peer| peer.remote) else {
            return;
        };
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
