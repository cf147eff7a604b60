//! Coded frames one by one, as a browser's own encoder (WebCodecs) hands them out.
//!
//! ```text
//!  u8 track │ u8 flags │ u16 0 │ i64 pts, µs │ u32 duration, µs │ one coded frame      big-endian
//! ```
//!
//! H.264 frames have length-prefixed NAL units (`avc: {format: "avc"}`), Opus frames are
//! single packets. Decoding order is that of the messages, and browsers reorder nothing,
//! so a frame's decoding time is its presentation time. Flags are hints: whether a
//! picture is a keyframe, its bytes tell, and jumps in time are the timeline's business.
//!
//! Decides what a message is; not how a track is announced (that is JSON, and the
//! caller's), nor when a frame is too late.

use std::collections::BTreeMap;

use bytes::Bytes;
use thiserror::Error;

use crate::codec::{Codec, CodecError, CodecKind, Unit};
use crate::opus;
use crate::source::{Sample, SourceEvent, SourceTrack};
use crate::track::TrackKind;

/// Bytes before the coded frame.
pub const HEADER: usize = 16;
/// Most tracks of one source.
pub const MAX_TRACKS: usize = 4;
/// Longest coded frame, bytes: what a frame on the wire may have (DESIGN §5).
pub const MAX_FRAME: usize = 8 * 1024 * 1024;
/// Longest decoder configuration, bytes.
pub const MAX_CONFIG: usize = 4 * 1024;
/// Furthest stamp from zero, µs: what a JavaScript number counts exactly.
pub const MAX_PTS_US: i64 = 1 << 53;
/// Ticks per second of pictures.
const VIDEO_TIMESCALE: u32 = 90_000;

/// Why a track or a message was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PacketError {
    /// A codec that is not taken from browsers.
    #[error("the codec `{0}` cannot be taken here: send H.264 (avc1) and Opus")]
    UnsupportedCodec(String),
    /// A decoder configuration that does not parse, or is not complete.
    #[error("the configuration of track {track} cannot be used: {reason}")]
    Configuration {
        /// The track's number.
        track: u8,
        /// What is wrong with it.
        reason: String,
    },
    /// More tracks than [`MAX_TRACKS`].
    #[error("more than {MAX_TRACKS} tracks")]
    TooManyTracks,
    /// A message that ends within its header, or with it.
    #[error("a frame of {0} bytes is too short")]
    Truncated(usize),
    /// A coded frame longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is too long")]
    TooLong(usize),
    /// A frame of a track that was not announced.
    #[error("track {0} has not been announced")]
    UnknownTrack(u8),
    /// A stamp that no clock shows.
    #[error("the time {0} µs cannot be")]
    Time(i64),
    /// A coded frame that does not parse: only this one is lost.
    #[error("a frame of track {track} is broken: {error}")]
    Broken {
        /// The track's number.
        track: u8,
        /// What is wrong with it.
        error: CodecError,
    },
}

impl PacketError {
    /// Whether the source is of no use after this; else one frame is lost.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Broken { .. })
    }
}

/// The tracks of one source.
#[derive(Debug, Default)]
pub struct PacketSource {
    tracks: BTreeMap<u8, Configured>,
}

#[derive(Debug)]
struct Configured {
    codec: Codec,
    timescale: u32,
}

impl PacketSource {
    /// A source whose tracks are still to come.
    pub fn new() -> Self {
        Self::default()
    }

    /// Announces a track, or configures it anew from its next keyframe on.
    ///
    /// `codec` is a codec string (RFC 6381); `config` an `avcC`, or an `OpusHead` that may
    /// be missing where `channels` says enough.
    ///
    /// # Errors
    /// [`PacketError`]; nothing has changed.
    pub fn configure(
        &mut self,
        track: u8,
        codec: &str,
        config: &[u8],
        channels: u8,
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), PacketError> {
        if self.tracks.len() >= MAX_TRACKS && !self.tracks.contains_key(&track) {
            return Err(PacketError::TooManyTracks);
        }
        let bad = |reason: String| PacketError::Configuration { track, reason };
        if config.len() > MAX_CONFIG {
            return Err(bad(format!("{} bytes are too many", config.len())));
        }
        let kind = kind_of(codec)?;
        let record = match (kind, config) {
            (CodecKind::Opus, []) => opus_head(channels),
            (_, config) => config.to_vec(),
        };
        let codec = Codec::parse(kind, &record).map_err(|error| bad(error.to_string()))?;
        let config = codec
            .config()
            .ok_or_else(|| bad("it has no parameter sets".to_owned()))?;
        let timescale = match kind.track() {
            TrackKind::Video => VIDEO_TIMESCALE,
            TrackKind::Audio => opus::SAMPLE_RATE,
        };
        self.tracks.insert(track, Configured { codec, timescale });
        out.push(SourceEvent::Track(SourceTrack {
            id: track.into(),
            timescale,
            config,
        }));
        Ok(())
    }

    /// Whether this track carries sound.
    pub fn is_sound(&self, track: u8) -> bool {
        let configured = self.tracks.get(&track);
        configured.is_some_and(|configured| configured.codec.kind().track() == TrackKind::Audio)
    }

    /// Takes one message and appends what it amounts to, sometimes nothing.
    ///
    /// # Errors
    /// [`PacketError`]; see [`PacketError::is_fatal`]. Nothing was appended.
    pub fn message(
        &mut self,
        message: &[u8],
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), PacketError> {
        let short = PacketError::Truncated(message.len());
        let (header, data) = message.split_first_chunk::<HEADER>().ok_or(short.clone())?;
        let [
            track,
            _flags,
            _,
            _,
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            p6,
            p7,
            d0,
            d1,
            d2,
            d3,
        ] = *header;
        if data.is_empty() {
            return Err(short);
        }
        if data.len() > MAX_FRAME {
            return Err(PacketError::TooLong(data.len()));
        }
        let pts_us = i64::from_be_bytes([p0, p1, p2, p3, p4, p5, p6, p7]);
        if !(-MAX_PTS_US..=MAX_PTS_US).contains(&pts_us) {
            return Err(PacketError::Time(pts_us));
        }
        let duration_us = u32::from_be_bytes([d0, d1, d2, d3]);
        let configured = self
            .tracks
            .get_mut(&track)
            .ok_or(PacketError::UnknownTrack(track))?;
        let timescale = configured.timescale;
        let (changed, unit) = configured
            .codec
            .unit(data)
            .map_err(|error| PacketError::Broken { track, error })?;
        if changed && let Some(config) = configured.codec.config() {
            out.push(SourceEvent::Track(SourceTrack {
                id: track.into(),
                timescale,
                config,
            }));
        }
        if let Some(unit) = unit {
            let times = (pts_us, duration_us);
            out.push(SourceEvent::Sample(sample(track, times, timescale, unit)));
        }
        Ok(())
    }
}

fn sample(track: u8, (pts_us, duration_us): (i64, u32), timescale: u32, unit: Unit) -> Sample {
    Sample {
        track: track.into(),
        dts: ticks(pts_us, timescale),
        cts: 0,
        // Four bytes of microseconds are 72 minutes: 387 million ticks at 90 kHz.
        duration: (duration_us > 0).then(|| ticks(duration_us.into(), timescale) as u32),
        keyframe: unit.keyframe,
        discardable: unit.discardable,
        data: unit.data,
    }
}

/// Microseconds as ticks, rounded to the nearest; [`MAX_PTS_US`] keeps it far from overflow.
fn ticks(us: i64, timescale: u32) -> i64 {
    let ticks = (i128::from(us) * i128::from(timescale) + 500_000).div_euclid(1_000_000);
    ticks as i64
}

fn kind_of(codec: &str) -> Result<CodecKind, PacketError> {
    let family = codec.split('.').next().unwrap_or("");
    match family {
        "avc1" | "avc3" => Ok(CodecKind::H264),
        "opus" => Ok(CodecKind::Opus),
        _ => Err(PacketError::UnsupportedCodec(
            codec.chars().take(32).collect(),
        )),
    }
}

/// An `OpusHead` for mono or stereo (RFC 7845 §5.1), with the pre-skip of libopus.
fn opus_head(channels: u8) -> Vec<u8> {
    let mut head = b"OpusHead\x01".to_vec();
    head.push(channels);
    head.extend_from_slice(&312_u16.to_le_bytes());
    head.extend_from_slice(&opus::SAMPLE_RATE.to_le_bytes());
    head.extend_from_slice(&[0, 0, 0]);
    head
}

/// One message, as a browser's page writes it; for tests and clients.
pub fn message(track: u8, keyframe: bool, pts_us: i64, duration_us: u32, frame: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEADER + frame.len());
    out.extend_from_slice(&[track, u8::from(keyframe), 0, 0]);
    out.extend_from_slice(&pts_us.to_be_bytes());
    out.extend_from_slice(&duration_us.to_be_bytes());
    out.extend_from_slice(frame);
    out.into()
}

#[cfg(test)]
mod tests;
