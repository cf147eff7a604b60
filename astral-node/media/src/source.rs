//! What a demuxer finds in an encoder's bytes, before anything has a name.

use bytes::Bytes;

use crate::track::CodecConfig;

/// A track as its container announces it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTrack {
    /// The container's number for it; unique within one connection.
    pub id: u32,
    /// Ticks per second of this track's stamps.
    pub timescale: u32,
    /// Decoder configuration.
    pub config: CodecConfig,
}

/// One coded frame as it stands in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// The container's track number.
    pub track: u32,
    /// Decoding time in the track's ticks, absolute within this connection,
    /// already unwrapped (never modulo 2³² or 2³³).
    pub dts: i64,
    /// Presentation time minus decoding time, in ticks.
    pub cts: i32,
    /// Duration in ticks where the container says it (fMP4), not believed for audio.
    pub duration: Option<u32>,
    /// A decoder can start here (by the picture's type, not by the container's flag alone).
    pub keyframe: bool,
    /// No other frame refers to it (H.264: every slice has `nal_ref_idc` 0).
    pub discardable: bool,
    /// One access unit or one audio frame; owns its memory (no slice of a read buffer).
    pub data: Bytes,
}

/// A demuxer's output, in the order of the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceEvent {
    /// A track, new or configured differently; sent before its first sample.
    Track(SourceTrack),
    /// One coded frame.
    Sample(Sample),
    /// Which kinds of track the source says it will send (`onMetaData`): a hint for
    /// how long to wait for a track, sent at most once.
    Promised {
        /// Video will come.
        video: bool,
        /// Audio will come.
        audio: bool,
    },
    /// The source said that it is over (RTMP `FCUnpublish`, end of a PUT).
    End,
}
