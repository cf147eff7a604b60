//! Control messages: one bidirectional stream per connection.
//!
//! A message is a varint type, a varint length and a body: a CBOR map (RFC 8949)
//! with integer keys. An older node skips types and fields that it does not
//! know, so both may be added; none is ever reused.

use bytes::{Buf, Bytes, BytesMut};
use minicbor::{Decode, Encode};

use super::varint::put_varint;
use super::{Reader, WireError};
use crate::ids::{NodeId, SIGNATURE_LEN, StreamId, TicketId};
use crate::limits::{
    ADDRESSES_MAX, DELAY_CLASSES, FETCH_FRAMES_MAX, GROUP_FRAMES_MAX, HAVE_GROUPS_MAX,
    MESSAGE_BYTES_MAX, PATH_MAX, RECORD_BYTES_MAX, RECORDS_PER_MESSAGE, REFERRALS_MAX, TRACK_MAX,
};
use crate::record::Address;

/// A node to turn to, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Referral {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Where it can be dialled; empty if it is known to be connected to the asker.
    #[n(1)]
    pub addresses: Vec<Address>,
}

/// Why something is refused or ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum Reason {
    /// No room within the upload limit.
    #[n(0)]
    Full,
    /// The stream is not known, or not held, here.
    #[n(1)]
    NoStream,
    /// The path would lead back to the asker.
    #[n(2)]
    Loop,
    /// The node is shutting down.
    #[n(3)]
    Leaving,
    /// No longer wanted.
    #[n(4)]
    Unwanted,
    /// Another offer was better.
    #[n(5)]
    OtherChosen,
    /// Bytes that do not verify.
    #[n(6)]
    BadMedia,
    /// Heartbeats stayed away.
    #[n(7)]
    Expired,
    /// The connection is gone.
    #[n(8)]
    Disconnected,
    /// The stream is over.
    #[n(9)]
    Ended,
    /// The owner of the node has taken it back.
    #[n(10)]
    Revoked,
    /// This node never forwards (`--upstream-limit 0`).
    #[n(11)]
    NotForwarding,
    /// Too many requests or tickets.
    #[n(12)]
    Limit,
    /// Nothing newer came for too long.
    #[n(13)]
    Stalled,
}

impl Reason {
    /// A sentence's part for people: "refused: …".
    pub fn words(self) -> &'static str {
        match self {
            Self::Full => "no upload to spare",
            Self::NoStream => "does not have the stream",
            Self::Loop => "would form a loop",
            Self::Leaving => "is shutting down",
            Self::Unwanted => "no longer wanted",
            Self::OtherChosen => "another offer was better",
            Self::BadMedia => "sent bytes that do not verify",
            Self::Expired => "heartbeats stayed away",
            Self::Disconnected => "connection lost",
            Self::Ended => "the stream is over",
            Self::Revoked => "revoked by its owner",
            Self::NotForwarding => "never forwards",
            Self::Limit => "too many requests",
            Self::Stalled => "nothing newer arrived",
        }
    }
}

/// What the receiver of a track already holds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HaveGroup {
    /// Track number.
    #[n(0)]
    pub track: u8,
    /// Group number.
    #[n(1)]
    pub group: u64,
    /// First frame that is missing.
    #[n(2)]
    pub frame: u32,
    /// First chunk of it that is missing.
    #[n(3)]
    pub chunk: u32,
}

/// Where a sender is to go on: open groups, and everything after.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Have {
    /// Per track at most four open groups, in ascending order.
    #[n(0)]
    pub groups: Vec<HaveGroup>,
    /// Groups before this one are not wanted; without it the sender chooses where to start.
    #[n(1)]
    pub from_group: Option<u64>,
}

/// What a confirmed ticket is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Confirm {
    /// Send now.
    #[n(0)]
    Active,
    /// Be ready to, should this parent fail.
    #[n(1)]
    Standby(#[n(0)] NodeId),
}

macro_rules! messages {
    ($($(#[$doc:meta])* $number:literal $name:ident { $($(#[$fdoc:meta])* $key:literal $field:ident: $type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
            #[cbor(map)]
            pub struct $name {
                $($(#[$fdoc])* #[n($key)] pub $field: $type,)*
            }

            impl From<$name> for Message {
                fn from(body: $name) -> Self {
                    Self::$name(body)
                }
            }
        )*

        /// A control message.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Message {
            $($(#[$doc])* $name($name),)*
        }

        impl Message {
            /// Name of the message, for logs.
            pub fn name(&self) -> &'static str {
                match self { $(Self::$name(_) => stringify!($name),)* }
            }

            fn body(&self) -> (u64, Vec<u8>) {
                match self {
                    $(Self::$name(body) => (
                        $number,
                        minicbor::to_vec(body).expect("writing to memory does not fail"),
                    ),)*
                }
            }

            fn parse(number: u64, body: &[u8]) -> Result<Option<Self>, WireError> {
                match number {
                    $($number => {
                        super::shape::check(stringify!($name), body)?;
                        minicbor::decode::<$name>(body)
                            .map(|body| Some(Self::$name(body)))
                            .map_err(|error| WireError::Cbor {
                                what: stringify!($name),
                                detail: error.to_string(),
                            })
                    })*
                    _ => Ok(None),
                }
            }
        }
    };
}

/// A signed record as it travels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordBytes(pub Bytes);

impl<C> Encode<C> for RecordBytes {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for RecordBytes {
    /// A record of fewer bytes than its signature, or of more than any may have, is
    /// refused here: else a message of empty ones would take 32 times its size.
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        let bytes = d.bytes()?;
        if !(SIGNATURE_LEN..=RECORD_BYTES_MAX).contains(&bytes.len()) {
            return Err(minicbor::decode::Error::message("a record has 64 to 4096 bytes").at(at));
        }
        Ok(Self(Bytes::copy_from_slice(bytes)))
    }
}

messages! {
    /// First message each way: who is speaking, and how the other looks from here.
    1 Hello {
        /// Protocol version.
        0 version: u32,
        /// Signed node record; its key must be that of the TLS certificate.
        1 record: RecordBytes,
        /// The address at which the other side is seen.
        2 observed: Option<Address>,
    }
    /// Asks a supernode to take this node in.
    2 Register {
        /// Whether this is the node's primary or its backup.
        0 primary: bool,
        /// Whether the registration is over instead.
        1 over: Option<bool>,
    }
    /// The supernode has taken the node in.
    3 Registered {
        /// Nodes that it can still take.
        0 room: u32,
    }
    /// The supernode has not.
    4 Refused {
        /// Why.
        0 reason: Reason,
        /// Whom to ask instead.
        1 referrals: Vec<Referral>,
    }
    /// Signed records of nodes.
    5 Peers {
        /// The records.
        0 records: Vec<RecordBytes>,
    }
    /// Signed records of streams, tombstones among them.
    6 Announce {
        /// The records.
        0 records: Vec<RecordBytes>,
    }
    /// Asks for a stream's record, by id or by slug.
    7 Find {
        /// Number of the question, for the answer.
        0 query: u64,
        /// The stream's id.
        1 id: Option<StreamId>,
        /// Or its slug.
        2 slug: Option<String>,
        /// Most records wanted.
        3 limit: u32,
    }
    /// Answers `Find`; empty if nothing is known.
    8 Found {
        /// Number of the question.
        0 query: u64,
        /// Records of streams.
        1 streams: Vec<RecordBytes>,
        /// Records of their publishers, if known.
        2 nodes: Vec<RecordBytes>,
    }
    /// Asks whether the peer would forward a stream.
    9 TicketRequest {
        /// The stream.
        0 stream: StreamId,
        /// Nodes that get it by way of the sender and lack it with it: if they are many,
        /// they go before a child that carries nobody.
        1 carries: Option<u32>,
        /// Further nodes that the sender could feed: if they are more than such a child could,
        /// it gets that place, too.
        2 places: Option<u32>,
    }
    /// It would; nothing is reserved yet.
    10 TicketOffer {
        /// The stream.
        0 stream: StreamId,
        /// Nodes from the publisher to the sender, both included.
        1 path: Vec<NodeId>,
        /// Expected delay from the source to the sender, in microseconds.
        2 delay_us: u32,
        /// Upload that could still be promised, in bit/s.
        3 spare_bps: u64,
    }
    /// Takes the offer up.
    11 TicketConfirm {
        /// The stream.
        0 stream: StreamId,
        /// Active, or standby of a parent.
        1 confirm: Confirm,
        /// What the child holds already.
        2 have: Have,
    }
    /// The promise: media will follow under this ticket.
    12 TicketAccepted {
        /// The stream.
        0 stream: StreamId,
        /// The ticket.
        1 id: TicketId,
        /// Nodes from the publisher to the parent, both included.
        2 path: Vec<NodeId>,
        /// What the ticket is charged with, in bit/s.
        3 rate_bps: u64,
        /// The stream's signed record.
        4 record: RecordBytes,
        /// Others that hold the stream and do not get it from the sender: where the
        /// child may find a standby.
        5 others: Option<Vec<Referral>>,
    }
    /// No promise.
    13 TicketRefused {
        /// The stream.
        0 stream: StreamId,
        /// Why.
        1 reason: Reason,
        /// Whom to ask instead.
        2 referrals: Vec<Referral>,
    }
    /// A standby is to send now.
    14 TicketActivate {
        /// The ticket.
        0 id: TicketId,
        /// What the child holds already.
        1 have: Have,
    }
    /// Ends a ticket, from either side.
    15 TicketCancel {
        /// The ticket.
        0 id: TicketId,
        /// Why.
        1 reason: Reason,
        /// Whom to ask instead.
        2 referrals: Vec<Referral>,
    }
    /// The way from the publisher to the parent has changed.
    16 PathUpdate {
        /// The ticket.
        0 id: TicketId,
        /// Nodes from the publisher to the parent, both included.
        1 path: Vec<NodeId>,
        /// Expected delay from the source to the parent, in microseconds.
        2 delay_us: u32,
        /// Others that hold the stream and do not get it from the sender, if they have
        /// changed: who feeds it now, first of all.
        3 others: Option<Vec<Referral>>,
    }
    /// Asks for frames that were missed.
    17 Fetch {
        /// The ticket.
        0 id: TicketId,
        /// Track number.
        1 track: u8,
        /// Group number.
        2 group: u64,
        /// First frame.
        3 first: u32,
        /// How many.
        4 count: u32,
    }
    /// Asks the receiver to dial a node that cannot dial it.
    18 Introduce {
        /// The node.
        0 peer: NodeId,
        /// Where it is; empty on the way to the supernode, which fills in what it sees and
        /// knows.
        1 addresses: Vec<Address>,
        /// Who is to dial, if that is not the receiver but somebody connected to it, to
        /// whom it passes this on.
        2 to: Option<NodeId>,
    }
    /// Asks the receiver to dial back, to see whether the sender can be reached.
    19 Probe {
        /// Number of the question.
        0 query: u64,
        /// The address to dial.
        1 address: Address,
    }
    /// What came of it.
    20 Probed {
        /// Number of the question.
        0 query: u64,
        /// Whether the address answered with the right key.
        1 reachable: bool,
    }
    /// The sender is about to go.
    21 Leaving {
        /// Whom to turn to instead.
        0 referrals: Vec<Referral>,
    }
    /// How those are served who have the stream by way of the sender, itself included.
    22 Audience {
        /// The ticket under which the stream comes to the sender.
        0 id: TicketId,
        /// Viewers by class of expected delay from the source.
        1 delays: Vec<u32>,
        /// Most nodes between the source and any of them.
        2 depth: u32,
        /// Pauses of over a second in the last minute, of all of them.
        3 stalls: u32,
        /// Frames lost in the last minute, of all of them.
        4 lost: u32,
    }
    /// Offers a stream to a node that did not ask for it: whether it would carry it.
    23 Seed {
        /// Number of the offer, for the answer.
        0 query: u64,
        /// The stream's signed record.
        1 record: RecordBytes,
    }
    /// Whether the stream is carried; it is asked for then as any other.
    24 Seeded {
        /// Number of the offer.
        0 query: u64,
        /// Why not; absent if it is.
        1 reason: Option<Reason>,
    }
}

impl Message {
    /// Type, length and body.
    ///
    /// # Panics
    /// If the body is over [`MESSAGE_BYTES_MAX`]: whoever builds a message keeps the limits.
    pub fn encode(&self) -> Bytes {
        let (number, body) = self.body();
        assert!(
            body.len() <= MESSAGE_BYTES_MAX,
            "{} of {} bytes",
            self.name(),
            body.len()
        );
        let mut out = BytesMut::with_capacity(body.len() + 9);
        put_varint(&mut out, number);
        put_varint(&mut out, body.len() as u64);
        out.extend_from_slice(&body);
        out.freeze()
    }

    /// Takes the next message off the front of `buffer`; `Ok(None)` if more bytes
    /// are needed. Messages of unknown types are skipped.
    ///
    /// # Errors
    /// What is wrong with the bytes; the connection cannot go on after it.
    pub fn decode(buffer: &mut BytesMut) -> Result<Option<Self>, WireError> {
        loop {
            let Some((number, start, len)) = head(buffer)? else {
                return Ok(None);
            };
            if buffer.len() < start + len {
                return Ok(None);
            }
            buffer.advance(start);
            let body = buffer.split_to(len);
            if let Some(message) = Self::parse(number, &body)? {
                message.check()?;
                return Ok(Some(message));
            }
        }
    }

    fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Refused(m) => referrals(&m.referrals),
            Self::Peers(m) => at_most("Peers: records", m.records.len(), RECORDS_PER_MESSAGE),
            Self::Announce(m) => at_most("Announce: records", m.records.len(), RECORDS_PER_MESSAGE),
            Self::Find(m) => at_most("Find: slug", m.slug.as_ref().map_or(0, String::len), 600),
            Self::Found(m) => at_most(
                "Found: records",
                m.streams.len() + m.nodes.len(),
                2 * RECORDS_PER_MESSAGE,
            ),
            Self::TicketOffer(m) => at_most("TicketOffer: path", m.path.len(), PATH_MAX),
            Self::TicketConfirm(m) => have(&m.have),
            Self::TicketAccepted(m) => at_most("TicketAccepted: path", m.path.len(), PATH_MAX),
            Self::TicketRefused(m) => referrals(&m.referrals),
            Self::TicketActivate(m) => have(&m.have),
            Self::TicketCancel(m) => referrals(&m.referrals),
            Self::PathUpdate(m) => {
                at_most("PathUpdate: path", m.path.len(), PATH_MAX)?;
                referrals(m.others.as_deref().unwrap_or_default())
            }
            Self::Fetch(m) => at_most("Fetch: frames", m.count as usize, FETCH_FRAMES_MAX as usize),
            Self::Introduce(m) => at_most("Introduce: addresses", m.addresses.len(), ADDRESSES_MAX),
            Self::Leaving(m) => referrals(&m.referrals),
            Self::Audience(m) => at_most("Audience: delays", m.delays.len(), DELAY_CLASSES),
            Self::Hello(_)
            | Self::Register(_)
            | Self::Registered(_)
            | Self::TicketRequest(_)
            | Self::Probe(_)
            | Self::Probed(_)
            | Self::Seed(_)
            | Self::Seeded(_) => Ok(()),
        }
    }
}

fn at_most(what: &'static str, value: usize, limit: usize) -> Result<(), WireError> {
    if value > limit {
        return Err(WireError::TooLarge {
            what,
            value: value as u64,
            limit: limit as u64,
        });
    }
    Ok(())
}

fn referrals(list: &[Referral]) -> Result<(), WireError> {
    at_most("referrals", list.len(), REFERRALS_MAX)?;
    let longest = list.iter().map(|referral| referral.addresses.len()).max();
    at_most("referral: addresses", longest.unwrap_or(0), ADDRESSES_MAX)
}

fn have(have: &Have) -> Result<(), WireError> {
    let furthest = have.groups.iter().map(|held| held.frame as usize).max();
    at_most(
        "have: frame",
        furthest.unwrap_or(0),
        GROUP_FRAMES_MAX as usize,
    )?;
    at_most(
        "have: groups",
        have.groups.len(),
        HAVE_GROUPS_MAX * usize::from(TRACK_MAX),
    )
}

fn head(buffer: &[u8]) -> Result<Option<(u64, usize, usize)>, WireError> {
    let mut reader = Reader::new(buffer);
    let Ok(number) = reader.varint("message type") else {
        return Ok(None);
    };
    match reader.varint_up_to("message length", MESSAGE_BYTES_MAX as u64) {
        Ok(len) => Ok(Some((number, reader.position(), len as usize))),
        Err(WireError::Truncated { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round_trip(message: Message) {
        let mut buffer = BytesMut::from(&message.encode()[..]);
        assert_eq!(Message::decode(&mut buffer), Ok(Some(message)));
        assert!(buffer.is_empty());
    }

    #[test]
    fn messages_survive_the_wire() {
        let (node, stream) = (
            NodeId(uuid::Uuid::from_u128(1)),
            StreamId(uuid::Uuid::from_u128(2)),
        );
        let address = Address("[2001:db8::1]:8000".parse().unwrap());
        let referral = Referral {
            node,
            addresses: vec![address],
        };
        let have = Have {
            groups: vec![HaveGroup {
                track: 1,
                group: 7,
                frame: 3,
                chunk: 1,
            }],
            from_group: Some(7),
        };
        round_trip(
            Find {
                query: 1,
                id: None,
                slug: Some("my-show".into()),
                limit: 4,
            }
            .into(),
        );
        round_trip(
            TicketConfirm {
                stream,
                confirm: Confirm::Standby(node),
                have: have.clone(),
            }
            .into(),
        );
        round_trip(
            TicketConfirm {
                stream,
                confirm: Confirm::Active,
                have,
            }
            .into(),
        );
        round_trip(
            TicketRefused {
                stream,
                reason: Reason::Full,
                referrals: vec![referral],
            }
            .into(),
        );
    }

    #[test]
    fn unknown_types_and_fields_are_skipped() {
        let mut buffer = BytesMut::new();
        put_varint(&mut buffer, 9_999);
        put_varint(&mut buffer, 3);
        buffer.extend_from_slice(b"xyz");
        // Register {0: true, 99: "new"}
        buffer.extend_from_slice(&[2, 9, 0xa2, 0x00, 0xf5, 0x18, 99, 0x63, b'n', b'e', b'w']);
        assert_eq!(
            Message::decode(&mut buffer),
            Ok(Some(
                Register {
                    primary: true,
                    over: None,
                }
                .into()
            ))
        );
    }

    #[test]
    fn message_beyond_the_limit_is_refused_before_it_is_buffered() {
        let mut buffer = BytesMut::new();
        put_varint(&mut buffer, 1);
        put_varint(&mut buffer, MESSAGE_BYTES_MAX as u64 + 1);
        assert!(matches!(
            Message::decode(&mut buffer),
            Err(WireError::TooLarge { .. })
        ));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(number in 0u8..30, body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut buffer = BytesMut::new();
            put_varint(&mut buffer, number.into());
            put_varint(&mut buffer, body.len() as u64);
            buffer.extend_from_slice(&body);
            while let Ok(Some(_)) = Message::decode(&mut buffer) {}
        }
    }
}
