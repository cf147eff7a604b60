//! Signed records: what a node or a publisher says of itself, passed on by others.
//!
//! A record is canonical CBOR (RFC 8949 §4.2: maps in key order, shortest
//! numbers) and an Ed25519 signature over it. Records are ordered by `seq`; a
//! receiver keeps the highest it has seen. The lease runs on the *receiver's*
//! clock from the first sight of a `seq`, so a wrong clock at the sender locks
//! nobody out, and repeating an old record prolongs nothing.

#[cfg(feature = "sim")]
pub(crate) mod memo;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::ids::{Domain, NodeId, PublicKey, SecretKey, Signature, StreamId};
use crate::limits::{
    ADDRESSES_MAX, DESCRIPTION_CHARS_MAX, LOAD_STREAMS_MAX, NAME_CHARS_MAX, RECORD_BYTES_MAX,
    TRACK_MAX,
};

/// An IP address and port as 4 + 2 or 16 + 2 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(pub SocketAddr);

impl Address {
    /// The address with an IPv4-mapped IPv6 address turned back into IPv4, and no
    /// scope or flow label.
    pub fn canonical(address: SocketAddr) -> Self {
        Self(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Whether it is reachable on this machine only.
    pub fn is_loopback(&self) -> bool {
        self.0.ip().to_canonical().is_loopback()
    }
}

impl<C> Encode<C> for Address {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let mut bytes = match self.0.ip() {
            std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
            std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        bytes.extend(self.0.port().to_be_bytes());
        e.bytes(&bytes)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Address {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let at = d.position();
        let bytes = d.bytes()?;
        let port = |tail: &[u8]| u16::from_be_bytes([tail[0], tail[1]]);
        match bytes.len() {
            6 => {
                let ip: [u8; 4] = [bytes[0], bytes[1], bytes[2], bytes[3]];
                Ok(Self(SocketAddr::new(ip.into(), port(&bytes[4..]))))
            }
            18 => {
                let mut ip = [0u8; 16];
                ip.copy_from_slice(&bytes[..16]);
                Ok(Self(SocketAddr::new(ip.into(), port(&bytes[16..]))))
            }
            _ => Err(minicbor::decode::Error::message("an address has 6 or 18 bytes").at(at)),
        }
    }
}

/// What a node does for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// Forwards what it watches.
    #[n(0)]
    Node,
    /// Also registers nodes and fetches streams for them.
    #[n(1)]
    Supernode,
}

/// How one listed stream goes through a supernode: counts, never who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StreamLoad {
    /// The stream.
    #[n(0)]
    pub stream: StreamId,
    /// Nodes that watch in the part of the tree below and with the supernode.
    #[n(1)]
    pub viewers: u32,
    /// Nodes that the supernode feeds itself.
    #[n(2)]
    pub children: u32,
    /// Hops from the publisher to the supernode.
    #[n(3)]
    pub depth: u8,
    /// Expected delay from the source to the supernode, in milliseconds.
    #[n(4)]
    pub delay_ms: u32,
}

/// How busy a supernode is: counts, never who.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeLoad {
    /// Nodes that are registered with it.
    #[n(0)]
    pub registered: u32,
    /// Nodes that it can still register.
    #[n(1)]
    pub room: u32,
    /// Tickets that it feeds, over all streams.
    #[n(2)]
    pub children: u32,
    /// The listed streams with the most viewers, those first; at most
    /// [`LOAD_STREAMS_MAX`].
    #[n(3)]
    pub streams: Vec<StreamLoad>,
}

/// What a node says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct NodeRecord {
    /// Its key; its id follows from it.
    #[n(0)]
    pub key: PublicKey,
    /// Order among the node's records: max(last + 1, Unix ms).
    #[n(1)]
    pub seq: u64,
    /// Where it can be reached, best first.
    #[n(2)]
    pub addresses: Vec<Address>,
    /// What it does for others.
    #[n(3)]
    pub role: Role,
    /// Another id to go by, honoured between loopback addresses only (`--uuid`).
    #[n(4)]
    pub alias: Option<NodeId>,
    /// Name for people.
    #[n(5)]
    pub name: Option<String>,
    /// Version of its software.
    #[n(6)]
    pub software: Option<String>,
    /// Where strangers' browsers may play streams from it.
    #[n(7)]
    pub public_http: Option<String>,
    /// Its owner has withdrawn it: a tombstone.
    #[n(8)]
    pub removed: Option<bool>,
    /// How busy it is; of supernodes.
    #[n(9)]
    pub load: Option<NodeLoad>,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum StreamState {
    /// Its encoder sends.
    #[n(0)]
    Live,
    /// Its encoder is away, or has not come yet.
    #[n(1)]
    Waiting,
    /// Its owner has paused it.
    #[n(2)]
    Paused,
    /// It is over.
    #[n(3)]
    Ended,
}

/// A track as lists show it; a player takes the catalog.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TrackSummary {
    /// Track number.
    #[n(0)]
    pub id: u8,
    /// Codec string (RFC 6381).
    #[n(1)]
    pub codec: String,
    /// Pixels; video only.
    #[n(2)]
    pub width: Option<u32>,
    /// Pixels; video only.
    #[n(3)]
    pub height: Option<u32>,
    /// Samples per second; audio only.
    #[n(4)]
    pub sample_rate: Option<u32>,
    /// Channels; audio only.
    #[n(5)]
    pub channels: Option<u8>,
}

/// What a publisher says of its stream.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct StreamRecord {
    /// The stream's key; its id follows from it.
    #[n(0)]
    pub key: PublicKey,
    /// Order among the stream's records: max(last + 1, Unix ms).
    #[n(1)]
    pub seq: u64,
    /// Name for people, 1 to 100 characters.
    #[n(2)]
    pub name: String,
    /// More words, up to 1,000 characters.
    #[n(3)]
    pub description: Option<String>,
    /// The node that publishes it.
    #[n(4)]
    pub publisher: NodeId,
    /// Not listed anywhere; found by id only.
    #[n(5)]
    pub unlisted: Option<bool>,
    /// Current epoch; frames of an older one are refused.
    #[n(6)]
    pub epoch: u32,
    /// When the stream was first published, Unix milliseconds.
    #[n(7)]
    pub started_at_ms: u64,
    /// Where it stands.
    #[n(8)]
    pub state: StreamState,
    /// Rate over all tracks in bit/s, measured by the publisher.
    #[n(9)]
    pub bitrate_bps: Option<u64>,
    /// Tracks, without the catalog.
    #[n(10)]
    pub tracks: Vec<TrackSummary>,
    /// Viewers that the publisher knows of.
    #[n(11)]
    pub viewers: Option<u64>,
}

impl StreamRecord {
    /// The stream's id.
    pub fn id(&self) -> StreamId {
        StreamId::of(&self.key)
    }

    /// Whether it may be shown in lists.
    pub fn is_listed(&self) -> bool {
        self.unlisted != Some(true)
    }
}

impl NodeRecord {
    /// The id that the key gives, aliases apart.
    pub fn id(&self) -> NodeId {
        NodeId::of(&self.key)
    }

    /// The id it goes by for a peer at `remote`: the alias counts on loopback only.
    pub fn id_for(&self, remote: Address) -> NodeId {
        match self.alias {
            Some(alias) if remote.is_loopback() => alias,
            _ => self.id(),
        }
    }
}

/// Why a record is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Longer than [`RECORD_BYTES_MAX`].
    #[error("record of {0} bytes: the limit is {RECORD_BYTES_MAX}")]
    TooLarge(usize),
    /// Not the CBOR it should be.
    #[error("record is malformed: {0}")]
    Malformed(String),
    /// Not in the one canonical encoding.
    #[error("record is not in canonical form")]
    NotCanonical,
    /// Signed by another key, or altered.
    #[error("record's signature does not verify")]
    Signature,
    /// A field beyond its limit.
    #[error("record's {0}")]
    Field(&'static str),
}

/// A record's kind: what is signed, and what its fields may hold.
pub trait Record: Sized + Clone + 'static + for<'b> Decode<'b, ()> + Encode<()> {
    /// What its signature is about.
    const DOMAIN: Domain;
    /// The key that must have signed it.
    fn key(&self) -> &PublicKey;
    /// Checks each field against its limit.
    ///
    /// # Errors
    /// [`RecordError::Field`] with the first that is over.
    fn check(&self) -> Result<(), RecordError>;
}

fn field(ok: bool, what: &'static str) -> Result<(), RecordError> {
    if ok {
        Ok(())
    } else {
        Err(RecordError::Field(what))
    }
}

fn text_fits(text: Option<&String>, chars: usize) -> bool {
    text.is_none_or(|text| text.chars().count() <= chars && !text.chars().any(char::is_control))
}

impl Record for NodeRecord {
    const DOMAIN: Domain = Domain::NodeRecord;

    fn key(&self) -> &PublicKey {
        &self.key
    }

    fn check(&self) -> Result<(), RecordError> {
        field(
            self.addresses.len() <= ADDRESSES_MAX,
            "addresses are too many",
        )?;
        field(
            text_fits(self.name.as_ref(), NAME_CHARS_MAX),
            "name is too long",
        )?;
        field(
            text_fits(self.software.as_ref(), NAME_CHARS_MAX),
            "software version is too long",
        )?;
        field(
            text_fits(self.public_http.as_ref(), 500),
            "public URL is too long",
        )?;
        let counted = self.load.as_ref().map_or(0, |load| load.streams.len());
        field(counted <= LOAD_STREAMS_MAX, "counted streams are too many")
    }
}

impl Record for StreamRecord {
    const DOMAIN: Domain = Domain::StreamRecord;

    fn key(&self) -> &PublicKey {
        &self.key
    }

    fn check(&self) -> Result<(), RecordError> {
        field(!self.name.trim().is_empty(), "name is empty")?;
        field(
            text_fits(Some(&self.name), NAME_CHARS_MAX),
            "name is too long",
        )?;
        let description = self.description.as_ref();
        field(
            description.is_none_or(|text| text.chars().count() <= DESCRIPTION_CHARS_MAX),
            "description is too long",
        )?;
        field(self.tracks.len() <= TRACK_MAX.into(), "tracks are too many")?;
        let codecs = self
            .tracks
            .iter()
            .all(|track| text_fits(Some(&track.codec), 64));
        field(codecs, "codec is too long")
    }
}

/// A record, its bytes and its signature, all known to fit together.
///
/// Copies share both: a node holds the record of a peer in several places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedRecord<T> {
    value: Arc<T>,
    wire: Bytes,
}

#[derive(Encode, Decode)]
struct Envelope<'a> {
    #[b(0)]
    #[cbor(with = "minicbor::bytes")]
    body: &'a [u8],
    #[n(1)]
    signature: Signature,
}

fn to_cbor<T: Encode<()>>(value: &T) -> Vec<u8> {
    minicbor::to_vec(value).expect("writing to memory does not fail")
}

impl<T: Record> SignedRecord<T> {
    /// Signs a record with the key that it names.
    ///
    /// # Panics
    /// If the record breaks its limits or names another key: the caller's error.
    pub fn sign(value: T, key: &SecretKey) -> Self {
        assert_eq!(
            *value.key(),
            key.public(),
            "a record is signed with its own key"
        );
        assert_eq!(value.check(), Ok(()), "a record of ours keeps its limits");
        let body = to_cbor(&value);
        let signature = key.sign(T::DOMAIN, &body);
        let wire = to_cbor(&Envelope {
            body: &body,
            signature,
        })
        .into();
        let signed = Self {
            value: Arc::new(value),
            wire,
        };
        #[cfg(feature = "sim")]
        memo::remember(&signed);
        signed
    }

    /// Reads and verifies a record.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(wire: &[u8]) -> Result<Self, RecordError> {
        if wire.len() > RECORD_BYTES_MAX {
            return Err(RecordError::TooLarge(wire.len()));
        }
        #[cfg(feature = "sim")]
        if let Some(known) = memo::recall(wire) {
            return Ok(known);
        }
        let malformed = |error: minicbor::decode::Error| RecordError::Malformed(error.to_string());
        let envelope: Envelope<'_> = minicbor::decode(wire).map_err(malformed)?;
        let value: T = minicbor::decode(envelope.body).map_err(malformed)?;
        if !value
            .key()
            .verifies(T::DOMAIN, envelope.body, &envelope.signature)
        {
            return Err(RecordError::Signature);
        }
        if to_cbor(&Envelope {
            body: envelope.body,
            signature: envelope.signature,
        }) != wire
        {
            return Err(RecordError::NotCanonical);
        }
        value.check()?;
        let signed = Self {
            value: Arc::new(value),
            wire: Bytes::copy_from_slice(wire),
        };
        #[cfg(feature = "sim")]
        memo::remember(&signed);
        Ok(signed)
    }

    /// What a record claims, unverified: good for not looking at it further, and for
    /// nothing else.
    pub fn glance(wire: &[u8]) -> Option<T> {
        if wire.len() > RECORD_BYTES_MAX {
            return None;
        }
        let envelope: Envelope<'_> = minicbor::decode(wire).ok()?;
        minicbor::decode(envelope.body).ok()
    }

    /// What the record says.
    pub fn value(&self) -> &T {
        &self.value
    }

    /// The record as it travels.
    pub fn wire(&self) -> &Bytes {
        &self.wire
    }
}

/// A signed node record.
pub type SignedNode = SignedRecord<NodeRecord>;
/// A signed stream record.
pub type SignedStream = SignedRecord<StreamRecord>;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn stream_record(key: &SecretKey) -> StreamRecord {
        StreamRecord {
            key: key.public(),
            seq: 1,
            name: "My show".into(),
            description: None,
            publisher: NodeId::of(&SecretKey::from_seed([1; 32]).public()),
            unlisted: None,
            epoch: 3,
            started_at_ms: 1_700_000_000_000,
            state: StreamState::Live,
            bitrate_bps: Some(4_000_000),
            tracks: vec![],
            viewers: None,
        }
    }

    #[test]
    fn record_survives_the_wire_and_a_flipped_bit_is_refused() {
        let key = SecretKey::from_seed([9; 32]);
        let signed = SignedStream::sign(stream_record(&key), &key);
        assert_eq!(SignedStream::decode(signed.wire()).as_ref(), Ok(&signed));
        for at in 0..signed.wire().len() {
            let mut bytes = signed.wire().to_vec();
            bytes[at] ^= 1;
            assert!(SignedStream::decode(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn record_signed_by_another_key_is_refused() {
        let (key, thief) = (SecretKey::from_seed([9; 32]), SecretKey::from_seed([8; 32]));
        let body = to_cbor(&stream_record(&key));
        let signature = thief.sign(Domain::StreamRecord, &body);
        let wire = to_cbor(&Envelope {
            body: &body,
            signature,
        });
        assert_eq!(SignedStream::decode(&wire), Err(RecordError::Signature));
    }

    #[test]
    fn alias_counts_between_loopback_addresses_only() {
        let key = SecretKey::from_seed([9; 32]);
        let alias = NodeId(uuid::Uuid::from_u128(5));
        let record = NodeRecord {
            key: key.public(),
            seq: 1,
            addresses: vec![],
            role: Role::Node,
            alias: Some(alias),
            name: None,
            software: None,
            public_http: None,
            removed: None,
            load: None,
        };
        let at = |text: &str| Address::canonical(text.parse().unwrap());
        assert_eq!(record.id_for(at("[::ffff:127.0.0.1]:8000")), alias);
        assert_eq!(record.id_for(at("203.0.113.5:8000")), record.id());
    }

    #[test]
    fn longest_record_of_a_node_stays_within_the_limit() {
        let key = SecretKey::from_seed([9; 32]);
        let long = |chars| Some("\u{10ffff}".repeat(chars));
        let load = StreamLoad {
            stream: StreamId(uuid::Uuid::from_u128(u128::MAX)),
            viewers: u32::MAX,
            children: u32::MAX,
            depth: u8::MAX,
            delay_ms: u32::MAX,
        };
        let mut record = NodeRecord {
            key: key.public(),
            seq: u64::MAX,
            addresses: vec![Address("[2001:db8::5]:8000".parse().unwrap()); ADDRESSES_MAX],
            role: Role::Supernode,
            alias: Some(NodeId(uuid::Uuid::from_u128(u128::MAX))),
            name: long(NAME_CHARS_MAX),
            software: long(NAME_CHARS_MAX),
            public_http: long(500),
            removed: Some(true),
            load: Some(NodeLoad {
                registered: u32::MAX,
                room: u32::MAX,
                children: u32::MAX,
                streams: vec![load; LOAD_STREAMS_MAX],
            }),
        };
        let signed = SignedNode::sign(record.clone(), &key);
        assert_eq!(SignedNode::decode(signed.wire()).as_ref(), Ok(&signed));
        record.load.as_mut().unwrap().streams.push(load);
        assert!(record.check().is_err(), "one stream more");
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = SignedStream::decode(&bytes);
            let _ = SignedNode::decode(&bytes);
        }
    }
}
