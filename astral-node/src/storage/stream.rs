//! A stream of this node, as it is kept.

use std::fmt;

use astral_proto::ids::{SecretKey, StreamId};
use minicbor::{Decode, Encode};

/// First byte of a row: how the rest is laid out.
const ROW_VERSION: u8 = 1;

/// A stream that this node publishes.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct OwnStream {
    /// Seed of the stream's key: whoever has it is the stream.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub(crate) seed: [u8; 32],
    /// Name for people.
    #[n(1)]
    pub(crate) name: String,
    /// What it is about.
    #[n(2)]
    pub(crate) description: Option<String>,
    /// Whether it is found only by who knows its id.
    #[n(3)]
    pub(crate) unlisted: bool,
    /// The secret that an encoder gives.
    #[n(4)]
    pub(crate) stream_key: String,
    /// When it was published: Unix time in milliseconds.
    #[n(5)]
    pub(crate) started_at_ms: u64,
    /// Whether its publisher holds it back.
    #[n(6)]
    pub(crate) paused: bool,
    /// Last `seq` of its record.
    #[n(7)]
    pub(crate) record_seq: u64,
    /// What may have been signed.
    #[n(8)]
    pub(crate) marks: Marks,
}

/// How far a publisher's signatures may have gone: everything signed so far has an
/// epoch, a group and a time at or below these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Marks {
    /// Highest epoch.
    #[n(0)]
    pub(crate) epoch: u32,
    /// Highest group.
    #[n(1)]
    pub(crate) group: u64,
    /// Latest time on the stream's timeline, in nanoseconds.
    #[n(2)]
    pub(crate) time_ns: i64,
}

impl OwnStream {
    /// The stream's key.
    pub(crate) fn key(&self) -> SecretKey {
        SecretKey::from_seed(self.seed)
    }

    /// The stream's id.
    pub(crate) fn id(&self) -> StreamId {
        StreamId::of(&self.key().public())
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut row = vec![ROW_VERSION];
        minicbor::encode(self, &mut row).expect("a Vec takes all that is written");
        row
    }

    pub(super) fn decode(row: &[u8]) -> Result<Self, String> {
        match row {
            [ROW_VERSION, value @ ..] => minicbor::decode(value).map_err(|e| e.to_string()),
            [version, ..] => Err(format!("a stream is kept in the unknown form {version}")),
            [] => Err("a stream's row is empty".to_owned()),
        }
    }
}

impl fmt::Debug for OwnStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Its seed and stream key are secrets.
        f.debug_struct("OwnStream")
            .field("id", &self.id())
            .field("name", &self.name)
            .field("marks", &self.marks)
            .finish_non_exhaustive()
    }
}

impl Marks {
    /// Raises each mark to that of `other` where it is lower.
    pub(crate) fn raise(&mut self, other: Self) {
        self.epoch = self.epoch.max(other.epoch);
        self.group = self.group.max(other.group);
        self.time_ns = self.time_ns.max(other.time_ns);
    }
}
