//! The wire protocol `astral/1` (DESIGN §5), byte by byte in `WIRE.md`.
//!
//! Decoding takes bytes from strangers: it never panics, and what it allocates
//! is bounded by the limits in [`crate::limits`].

pub mod control;
pub mod heartbeat;
pub mod media;
mod shape;
mod varint;

pub use varint::{Reader, put_varint, varint_len};

/// ALPN protocol name (RFC 7301) of the node-to-node protocol.
pub const ALPN: &[u8] = b"astral/1";
/// Version in `Hello`.
pub const VERSION: u32 = 1;

/// Why bytes are not what the protocol says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The input ended inside a value.
    #[error("{what}: input ends at byte {at}")]
    Truncated {
        /// The value that was being read.
        what: &'static str,
        /// Byte offset.
        at: usize,
    },
    /// A length or count is over its limit.
    #[error("{what}: {value} is over the limit of {limit}")]
    TooLarge {
        /// The value.
        what: &'static str,
        /// What was said.
        value: u64,
        /// What is allowed.
        limit: u64,
    },
    /// A value that has no meaning here.
    #[error("{what}: {value} is not valid")]
    Invalid {
        /// The value.
        what: &'static str,
        /// What was said.
        value: u64,
    },
    /// Bytes behind the end of a value.
    #[error("{what}: {count} bytes too many")]
    Trailing {
        /// The value.
        what: &'static str,
        /// How many.
        count: usize,
    },
    /// A message body that is not the CBOR it should be.
    #[error("{what}: {detail}")]
    Cbor {
        /// The message.
        what: &'static str,
        /// What the decoder said.
        detail: String,
    },
    /// A signature that does not fit its bytes.
    #[error("{what}: the signature does not verify")]
    Signature {
        /// What was signed.
        what: &'static str,
    },
}

/// QUIC application error codes (RFC 9000 §20.2), for connections and streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum CloseCode {
    /// Nothing is wrong; the connection is not needed.
    Done = 0,
    /// The node is shutting down.
    Leaving = 1,
    /// A message broke the protocol or a limit.
    Protocol = 2,
    /// The `Hello` does not fit the TLS key, or came too late.
    Identity = 3,
    /// Video that did not verify.
    BadMedia = 4,
    /// A newer connection of the same pair took over.
    DuplicateKey = 5,
    /// Too many connections.
    Busy = 6,
    /// This peer is not served for a time, since it sent bad bytes.
    Banned = 7,
    /// A uni stream: the group is too late to be of use.
    Late = 16,
    /// A uni stream: its ticket has ended.
    TicketEnded = 17,
}

impl CloseCode {
    /// The code of this number, if it is known.
    pub fn of(code: u64) -> Option<Self> {
        [
            Self::Done,
            Self::Leaving,
            Self::Protocol,
            Self::Identity,
            Self::BadMedia,
            Self::DuplicateKey,
            Self::Busy,
            Self::Banned,
            Self::Late,
            Self::TicketEnded,
        ]
        .into_iter()
        .find(|known| *known as u64 == code)
    }
}
