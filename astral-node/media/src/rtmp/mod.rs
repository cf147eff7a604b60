//! The server's half of RTMP for publishers, without any I/O.
//!
//! Follows "Adobe's Real Time Messaging Protocol" 1.0 (21 Dec 2012) and the parts
//! of Enhanced RTMP v2 that an ingest needs. Only publishing is spoken: a client
//! that wants to play is refused with a sentence.
//!
//! ```text
//!  bytes ─► Handshake ─► ChunkReader ─► Session ─► Event
//!                             ▲            │
//!                   Limits ───┘            └─► ChunkWriter ─► take_output()
//!
//!  Session:  connect ─► createStream ─► publish ─► (accept) ─► media … ─► FCUnpublish
//!                                          └─► (refuse) ─► deaf until the socket closes
//! ```
//!
//! The shell around it owns sockets, timeouts and the answer to "may this key
//! publish?". Four things it has to know: a clean end is [`Event::Unpublish`]
//! (`deleteStream` may be lost in a reset); after it, and after a refusal, write
//! what is left and read until the end of the stream, at most some seconds, or the
//! client reports a broken connection; the end of the bytes without an `Unpublish`
//! may be followed by a reconnect; media that arrive before
//! [`Session::accept_publish`] are dropped.
//!
//! Every length that the peer names is a hint only: memory grows with the bytes
//! that arrived, up to [`Limits`].

pub mod amf0;
pub mod chunk;
mod command;
mod handshake;
mod metadata;
mod session;

pub use metadata::Metadata;
pub use session::{Event, Refusal, RefusalCode, RtmpError, Session};

/// What one connection may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest message before a publisher is accepted, bytes; default 64 KiB.
    pub message_before_publish: usize,
    /// Longest message of an accepted publisher, bytes; default 4 MiB
    /// (a keyframe of a 100 Mbit/s encoder is about 2 MiB).
    pub message: usize,
    /// Chunk streams in use at a time; default 16 (encoders use up to 6).
    pub chunk_streams: usize,
    /// Bytes of unfinished messages over all chunk streams; default 6 MiB:
    /// one message of the longest kind and room for what is interleaved with it.
    pub held: usize,
    /// Replies that wait for [`Session::take_output`], bytes; default 256 KiB.
    pub output: usize,
    /// Depth and count of AMF0 values in one message.
    pub amf: amf0::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_before_publish: 64 << 10,
            message: 4 << 20,
            chunk_streams: 16,
            held: 6 << 20,
            output: 256 << 10,
            amf: amf0::Limits::default(),
        }
    }
}
