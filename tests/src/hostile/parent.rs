//! The parent's side of tickets: offers everything, and forwards from the shelf.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use astral_proto::ids::{NodeId, StreamId, TicketId};
use astral_proto::wire::control::{
    Announce, Find, Found, Message, RecordBytes, TicketAccepted, TicketOffer,
};
use astral_proto::wire::media::GroupHeader;
use bytes::{Bytes, BytesMut};
use tokio::task::JoinSet;

use super::link::{Link, LinkError};
use super::shelf::{Name, Shelf};
use super::tamper::{Tamper, Then};

/// Says it could feed a hundred.
const SPARE_BPS: u64 = 1_000_000_000;
/// What a ticket is said to be charged with.
const RATE_BPS: u64 = 4_600_000;
/// Zeros written at a time by a header that never ends.
const ZEROS: Bytes = Bytes::from_static(&[0; 1024]);

/// A node that feeds others.
pub struct Parent {
    /// What it feeds them from.
    pub shelf: Shelf,
    /// Nodes from the publisher to this one.
    pub path: Vec<NodeId>,
    /// What it does to their frames.
    pub tamper: Tamper,
    /// Requests for tickets so far.
    pub requests: AtomicU64,
}

impl Parent {
    /// Serves a peer until its connection is gone; the peer's close code and words.
    pub async fn serve(self: Arc<Self>, mut link: Link) -> Option<(u64, String)> {
        let mut changes = self.shelf.watch();
        let mut feeds: BTreeMap<TicketId, JoinSet<()>> = BTreeMap::new();
        let mut announced = BTreeMap::new();
        loop {
            changes.borrow_and_update();
            if self.announce(&mut link, &mut announced).await.is_err() {
                break;
            }
            let message = tokio::select! {
                message = link.hear() => message,
                _ = changes.changed() => continue,
            };
            let Ok(message) = message else { break };
            if self.answer(&mut link, message, &mut feeds).await.is_err() {
                break;
            }
        }
        link.closed().await
    }

    async fn announce(
        &self,
        link: &mut Link,
        announced: &mut BTreeMap<StreamId, u64>,
    ) -> Result<(), LinkError> {
        for record in self.shelf.records() {
            let (id, seq) = (record.value().id(), record.value().seq);
            if announced.insert(id, seq) != Some(seq) {
                let records = vec![RecordBytes(record.wire().clone())];
                link.say(Announce { records }).await?;
            }
        }
        Ok(())
    }

    async fn answer(
        self: &Arc<Self>,
        link: &mut Link,
        message: Message,
        feeds: &mut BTreeMap<TicketId, JoinSet<()>>,
    ) -> Result<(), LinkError> {
        match message {
            Message::Find(find) => self.found(link, &find).await,
            Message::TicketRequest(request) => {
                self.requests.fetch_add(1, Ordering::Relaxed);
                let offer = TicketOffer {
                    stream: request.stream,
                    path: self.path.clone(),
                    delay_us: 0,
                    spare_bps: SPARE_BPS,
                };
                link.say(offer).await
            }
            Message::TicketConfirm(confirm) => {
                let stream = confirm.stream;
                let Some(record) = self.shelf.record_of(stream) else {
                    return Ok(());
                };
                let id = TicketId(super::link::unix_ns());
                let accepted = TicketAccepted {
                    stream,
                    id,
                    path: self.path.clone(),
                    rate_bps: RATE_BPS,
                    record: RecordBytes(record.wire().clone()),
                    others: None,
                };
                link.say(accepted).await?;
                let mut feed = JoinSet::new();
                feed.spawn(self.clone().feed(link.conn.clone(), stream, id));
                feeds.insert(id, feed);
                Ok(())
            }
            Message::TicketCancel(cancel) => {
                feeds.remove(&cancel.id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn found(&self, link: &mut Link, find: &Find) -> Result<(), LinkError> {
        let records = self.shelf.records().into_iter();
        let wanted = records.filter(|record| {
            let value = record.value();
            let slug = find.slug.as_ref();
            find.id == Some(value.id())
                || slug.is_some_and(|text| astral_proto::slug::names(text, &value.name, value.id()))
        });
        let streams = wanted
            .map(|record| RecordBytes(record.wire().clone()))
            .collect();
        let found = Found {
            query: find.query,
            streams,
            nodes: vec![],
        };
        link.say(found).await
    }

    /// Forwards a stream: its newest catalog, its newest group, and all that follow.
    async fn feed(self: Arc<Self>, conn: quinn::Connection, stream: StreamId, ticket: TicketId) {
        let mut changes = self.shelf.watch();
        let mut begun = BTreeSet::new();
        let mut parts = JoinSet::new();
        loop {
            changes.borrow_and_update();
            let names = self.shelf.names(stream);
            if begun.is_empty() && names.iter().any(|name| name.1 != 0) {
                begun.extend(history(&names));
            }
            for name in names {
                if !begun.is_empty() && begun.insert(name) {
                    parts.spawn(self.clone().part(conn.clone(), ticket, name));
                }
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                Some(_) = parts.join_next() => {}
                _ = conn.closed() => return,
            }
        }
    }

    async fn part(self: Arc<Self>, conn: quinn::Connection, ticket: TicketId, name: Name) {
        if let Some(old) = self.tamper.replays_group(name, &self.shelf) {
            let _ = self.send(&conn, ticket, old, false).await;
        }
        // A child that stops listening says so on its connection.
        let _ = self.send(&conn, ticket, name, true).await;
    }

    async fn send(
        &self,
        conn: &quinn::Connection,
        ticket: TicketId,
        name: Name,
        tampers: bool,
    ) -> Result<(), quinn::WriteError> {
        let mut stream = conn.open_uni().await?;
        stream.write_chunk(self.header(ticket, name)).await?;
        let mut changes = self.shelf.watch();
        let mut index = 0;
        loop {
            changes.borrow_and_update();
            let entry = match self.shelf.entry(name, index) {
                Ok(entry) => entry,
                Err(None) if changes.changed().await.is_ok() => continue,
                Err(end) => {
                    if let Some(end) = end.flatten() {
                        stream.write_chunk(end).await?;
                    }
                    let _ = stream.finish();
                    let _ = stream.stopped().await;
                    return Ok(());
                }
            };
            index += 1;
            while tampers
                && self.tamper.waits(name, &entry)
                && self
                    .shelf
                    .entry(name, index)
                    .is_err_and(|end| end.is_none())
                && changes.changed().await.is_ok()
            {}
            let next = self.shelf.entry(name, index).ok();
            let deed = tampers
                .then(|| self.tamper.turn(name, &entry, next, &self.shelf))
                .flatten();
            let Some(deed) = deed else {
                stream.write_chunk(entry.wire).await?;
                stream.write_chunk(entry.payload).await?;
                continue;
            };
            for bytes in deed.bytes {
                stream.write_chunk(bytes).await?;
            }
            match deed.then {
                Then::GoOn => {}
                Then::Skip => index += 1,
                Then::Finish => {
                    let _ = stream.finish();
                    let _ = stream.stopped().await;
                    return Ok(());
                }
                Then::Zeros => loop {
                    stream.write_chunk(ZEROS).await?;
                },
            }
        }
    }

    fn header(&self, ticket: TicketId, name: Name) -> Bytes {
        let header = GroupHeader {
            ticket,
            track: name.1,
            epoch: name.2,
            group: name.3,
            first_frame: 0,
            first_chunk: 0,
            catalog: self.shelf.catalog_of(name),
        };
        let mut bytes = BytesMut::new();
        header.encode(&mut bytes);
        if self.tamper.spoils_group(name) {
            bytes[8] = 0xff;
        }
        bytes.freeze()
    }
}

/// What a new child is not sent: all but the newest catalog and the newest group.
fn history(names: &[Name]) -> Vec<Name> {
    let newest = |is_catalog: bool| {
        let of_kind = names.iter().filter(move |name| (name.1 == 0) == is_catalog);
        of_kind.map(|name| (name.2, name.3)).max()
    };
    let (catalog, media) = (newest(true), newest(false));
    names
        .iter()
        .filter(|name| {
            let newest = if name.1 == 0 { catalog } else { media };
            Some((name.2, name.3)) != newest
        })
        .copied()
        .chain([(StreamId(Default::default()), 0, 0, 0)])
        .collect()
}
