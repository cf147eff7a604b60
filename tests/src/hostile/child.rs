//! The child's side of a ticket: asks, confirms, and takes in what is sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use astral_proto::ids::{PublicKey, StreamId, TicketId};
use astral_proto::limits::FRAME_HEADER_BYTES_MAX;
use astral_proto::record::SignedStream;
use astral_proto::wire::control::{
    Confirm, Find, Have, Message, TicketAccepted, TicketConfirm, TicketRequest,
};
use astral_proto::wire::media::{GroupHeader, Item, item_len};
use astral_proto::wire::{Reader, WireError};
use bytes::{Buf as _, Bytes, BytesMut};

use super::link::{Link, LinkError};
use super::shelf::{Entry, Shelf};

/// Bytes asked of the transport at a time.
const READ_BYTES: usize = 64 * 1024;

impl Link {
    /// The record of a stream, asked for by id.
    pub async fn find(&mut self, stream: StreamId) -> Result<SignedStream, LinkError> {
        let find = Find {
            query: 1,
            id: Some(stream),
            slug: None,
            limit: 1,
        };
        self.say(find).await?;
        self.expect(|message| match message {
            Message::Found(found) => {
                let mut records = found.streams.iter();
                records.find_map(|bytes| SignedStream::decode(&bytes.0).ok())
            }
            _ => None,
        })
        .await
    }

    /// The next stream that the peer announces.
    pub async fn announced(&mut self) -> Result<SignedStream, LinkError> {
        self.expect(|message| match message {
            Message::Announce(announce) => {
                let mut records = announce.records.iter();
                records.find_map(|bytes| SignedStream::decode(&bytes.0).ok())
            }
            _ => None,
        })
        .await
    }

    /// Gets a ticket for a stream.
    pub async fn ticket(&mut self, stream: StreamId) -> Result<TicketAccepted, LinkError> {
        self.say(TicketRequest {
            stream,
            carries: None,
            places: None,
        })
        .await?;
        self.expect(|message| match message {
            Message::TicketOffer(offer) => Some(Ok(offer.clone())),
            _ => refused(message).map(Err),
        })
        .await??;
        let confirm = TicketConfirm {
            stream,
            confirm: Confirm::Active,
            have: Have::default(),
        };
        self.say(confirm).await?;
        self.expect(|message| match message {
            Message::TicketAccepted(accepted) => Some(Ok(accepted.clone())),
            _ => refused(message).map(Err),
        })
        .await?
    }
}

fn refused(message: &Message) -> Option<LinkError> {
    match message {
        Message::TicketRefused(refused) => {
            let words = refused.reason.words();
            Some(LinkError::Other(format!("ticket refused: {words}")))
        }
        _ => None,
    }
}

/// A uni stream from its beginning.
pub struct Incoming {
    recv: quinn::RecvStream,
    buffer: BytesMut,
}

/// Why a uni stream is not read to its end.
#[derive(Debug)]
pub struct Ended(pub String);

fn ended(error: impl std::fmt::Display) -> Ended {
    Ended(error.to_string())
}

impl Incoming {
    /// Reads from this stream.
    pub fn new(recv: quinn::RecvStream) -> Self {
        Self {
            recv,
            buffer: BytesMut::new(),
        }
    }

    async fn fill(&mut self) -> Result<bool, Ended> {
        let chunk = self.recv.read_chunk(READ_BYTES, true).await;
        let Some(chunk) = chunk.map_err(ended)? else {
            return Ok(false);
        };
        self.buffer.extend_from_slice(&chunk.bytes);
        Ok(true)
    }

    /// The group header.
    pub async fn header(&mut self) -> Result<GroupHeader, Ended> {
        loop {
            let mut reader = Reader::new(&self.buffer);
            match GroupHeader::decode(&mut reader) {
                Ok(header) => {
                    let len = reader.position();
                    self.buffer.advance(len);
                    return Ok(header);
                }
                Err(WireError::Truncated { .. }) => {}
                Err(error) => return Err(ended(error)),
            }
            if !self.fill().await? {
                return Err(ended("no group header"));
            }
        }
    }

    /// The next item, signature and all; none at the end.
    pub async fn item(&mut self) -> Result<Option<Bytes>, Ended> {
        loop {
            if let Some(len) = item_len(&self.buffer).map_err(ended)? {
                return self.take(len).await.map(Some);
            }
            if !self.fill().await? {
                let clean = self.buffer.is_empty();
                return if clean { Ok(None) } else { Err(ended("cut")) };
            }
        }
    }

    /// So many bytes.
    pub async fn take(&mut self, count: usize) -> Result<Bytes, Ended> {
        while self.buffer.len() < count {
            if !self.fill().await? {
                return Err(ended("cut"));
            }
        }
        Ok(self.buffer.split_to(count).freeze())
    }

    /// Reads so many bytes and forgets them, but for the first `keep`.
    pub async fn pass(&mut self, mut count: usize, keep: usize) -> Result<Bytes, Ended> {
        let kept = self.take(keep.min(count)).await?;
        count -= kept.len();
        while count > 0 {
            if self.buffer.is_empty() && !self.fill().await? {
                return Err(ended("cut"));
            }
            let step = count.min(self.buffer.len());
            self.buffer.advance(step);
            count -= step;
        }
        Ok(kept)
    }
}

/// Track and payload length of a frame's item, read without checking its signature:
/// measuring many children must not cost more than the node that is measured.
pub fn glance(item: &[u8]) -> Option<(u8, u32)> {
    let mut reader = Reader::new(item);
    if reader.u8("kind").ok()? != astral_proto::wire::media::ITEM_FRAME {
        return None;
    }
    let len = FRAME_HEADER_BYTES_MAX as u64;
    reader.varint_up_to("length", len).ok()?;
    let track = reader.u8("track").ok()?;
    for _ in ["epoch", "group", "index", "order", "dts", "cts", "duration"] {
        reader.varint("field").ok()?;
    }
    reader.u8("flags").ok()?;
    Some((track, reader.u32("payload").ok()?))
}

/// Which stream a ticket is for, and the key that its frames are signed with.
pub type Tickets = Arc<Mutex<BTreeMap<TicketId, (StreamId, PublicKey)>>>;

/// Takes in everything that comes under these tickets, until the connection is gone.
pub async fn keep(conn: quinn::Connection, tickets: Tickets, shelf: Shelf) {
    while let Ok(recv) = conn.accept_uni().await {
        let (shelf, tickets) = (shelf.clone(), tickets.clone());
        tokio::spawn(async move {
            let mut incoming = Incoming::new(recv);
            let Ok(header) = incoming.header().await else {
                return;
            };
            let known = known(&tickets, header.ticket).await;
            if let Some((stream, key)) = known {
                let name = (stream, header.track, header.epoch, header.group);
                shelf.open(name, header.catalog);
                let end = keep_part(&mut incoming, name, key, &shelf).await;
                shelf.end(name, end);
            }
        });
    }
}

/// Media may overtake the acceptance of its ticket.
async fn known(tickets: &Tickets, ticket: TicketId) -> Option<(StreamId, PublicKey)> {
    for _ in 0..50 {
        let known = tickets.lock().expect("no panic").get(&ticket).copied();
        if known.is_some() {
            return known;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

async fn keep_part(
    incoming: &mut Incoming,
    name: super::shelf::Name,
    key: PublicKey,
    shelf: &Shelf,
) -> Option<Bytes> {
    while let Ok(Some(wire)) = incoming.item().await {
        match Item::decode(wire, name.0, &key).ok()? {
            Item::Frame(frame) => {
                let payload = incoming.take(frame.value.len as usize).await.ok()?;
                let entry = Entry {
                    header: frame.value,
                    wire: frame.wire,
                    payload,
                };
                shelf.push(name, entry);
            }
            Item::End(end) => return Some(end.wire),
        }
    }
    None
}
