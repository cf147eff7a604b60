//! MPEG transport streams, read and written.
//!
//! Follows ISO/IEC 13818-1 (packets §2.4.3, PES §2.4.3.6, PSI §2.4.4), ADTS of
//! ISO/IEC 14496-3 §1.A.2, and ETSI TS 103 491 Annex B for Opus, as ffmpeg has it.
//! H.264, H.265, AAC in ADTS and Opus are carried. AV1 is not: no player knows it here.
//!
//! The reader takes the first program, of it the first picture and the first sound that
//! are carried. It needs no program clock: decoding times are in the PES headers, and
//! jumps are left to the timeline. A picture that lost a packet is dropped, with those
//! behind it up to the next keyframe.

mod adts;
mod annexb;
mod clock;
mod demux;
pub mod mux;
mod opus;
mod packet;
mod pes;
mod psi;
mod stream;
mod sync;

pub use demux::{Counts, TsDemuxer};
pub use sync::looks_like_ts;

use thiserror::Error;

/// Number of the picture in [`SourceTrack::id`](crate::source::SourceTrack::id), whatever its PID.
pub const VIDEO_TRACK: u32 = 1;
/// Number of the sound in [`SourceTrack::id`](crate::source::SourceTrack::id), whatever its PID.
pub const AUDIO_TRACK: u32 = 2;
/// Ticks per second of all stamps in a transport stream.
pub const TIMESCALE: u32 = 90_000;
/// Bytes of a packet.
pub const PACKET: usize = 188;
/// Longest PES packet, bytes: as long as a picture may be, and its header.
pub const PES_BYTES_MAX: usize = (8 << 20) + 1024;

/// Why a transport stream was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TsError {
    /// A megabyte without packets.
    #[error("not an MPEG-TS: no packets of 188 bytes among {0} bytes")]
    NotTs(usize),
    /// Packets with time codes or checksums around them.
    #[error("MPEG-TS with packets of {0} bytes is not supported, only 188; with ffmpeg: -f mpegts")]
    PacketSize(usize),
    /// Megabytes of packets that no table explains.
    #[error("MPEG-TS without a program: no PAT and PMT in {0} packets")]
    NoProgram(usize),
    /// A codec that is not carried; the sentence tells the encoder's user what to do.
    #[error(
        "{0} in MPEG-TS is not supported: send H.264 or H.265 video and AAC (ADTS) or Opus audio"
    )]
    UnsupportedCodec(&'static str),
    /// Scrambled packets, or a stream type that is encrypted.
    #[error("encrypted MPEG-TS is not supported")]
    Encrypted,
    /// A picture longer than [`PES_BYTES_MAX`].
    #[error("MPEG-TS has a PES packet of more than 8 MiB")]
    PesTooLong,
}
