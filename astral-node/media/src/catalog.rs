//! The catalog: what a viewer must know before the first frame.
//!
//! It is track 0 of a stream, signed like any frame. On the wire it is one CBOR map
//! with integer keys (RFC 8949); unknown keys, and tracks of unknown codecs, are
//! passed over, so that older nodes go on when fields are added. Relays pass on the
//! publisher's bytes: decoding and encoding again is for publishers and tests.
//!
//! What decodes here is safe for the muxers: identifiers are unique, time scales are
//! not zero, decoder configurations parse.

use std::num::TryFromIntError;

use bytes::Bytes;
use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};
use thiserror::Error;

use crate::codec::{Codec, CodecError, CodecKind};
use crate::h264::MAX_DIMENSION;
use crate::track::{CodecConfig, Track, TrackKind};

/// Most bytes of an encoded catalog, as of any control message.
pub const MAX_CATALOG: usize = 64 * 1024;
/// Most tracks of a stream; two are usual, more are languages and sizes.
pub const MAX_TRACKS: usize = 8;
/// Highest track number: priorities and stream headers have six bits for it.
pub const MAX_TRACK_ID: u8 = 63;
/// Longest decoder configuration, in bytes.
pub const MAX_CONFIG: usize = 4096;
/// Highest time scale, in ticks per second: that of clocks of 100 ns.
pub const MAX_TIMESCALE: u32 = 10_000_000;

const CODEC_H264: u32 = 1;
const CODEC_AAC: u32 = 2;
const CODEC_H265: u32 = 3;
const CODEC_AV1: u32 = 4;
const CODEC_OPUS: u32 = 5;

/// A stream's tracks, and where its current epoch stands on the stream's timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// Goes up by one with each change, from 1.
    pub version: u32,
    /// The epoch it describes.
    pub epoch: u32,
    /// First group of the epoch.
    pub first_group: u64,
    /// Media sequence number of that group.
    pub first_sequence: u64,
    /// Target duration of groups in milliseconds, once it is fixed.
    pub target_duration_ms: Option<u32>,
    /// Target duration of parts in milliseconds.
    pub part_target_ms: u32,
    /// Where the epoch starts on the stream's timeline, in milliseconds: its first picture,
    /// or sound where there is none. Sound that goes on from the epoch before may lie up to
    /// a second earlier.
    pub timeline_start_ms: i64,
    /// The publisher's clock at that point: Unix time in milliseconds.
    pub wall_clock_start_ms: u64,
    /// Bits per second that the publisher declared.
    pub bitrate_bps: Option<u32>,
    /// The tracks, in the publisher's order: one to [`MAX_TRACKS`].
    pub tracks: Vec<Track>,
}

/// Why a catalog was refused.
#[derive(Debug, Error)]
pub enum CatalogError {
    /// Longer than [`MAX_CATALOG`].
    #[error("catalog of {0} bytes is longer than 65536")]
    TooLong(usize),
    /// Not the CBOR that was agreed on.
    #[error("catalog is not valid CBOR: {0}")]
    Cbor(#[from] minicbor::decode::Error),
    /// Bytes follow the catalog.
    #[error("catalog is followed by {0} more bytes")]
    Trailing(usize),
    /// None that is known, or more than [`MAX_TRACKS`].
    #[error("catalog has {0} usable tracks, it must be 1 to 8")]
    TrackCount(usize),
    /// A number outside 1 to [`MAX_TRACK_ID`], or one that was there already.
    #[error("catalog has track number {0}, which is out of range or doubled")]
    TrackId(u8),
    /// Outside 1 to [`MAX_TIMESCALE`].
    #[error("track {track} has time scale {timescale}")]
    Timescale {
        /// Track number.
        track: u8,
        /// Ticks per second.
        timescale: u32,
    },
    /// A picture size, sample rate or number of channels that cannot be.
    #[error("track {track} has a bad {field}")]
    Value {
        /// Track number.
        track: u8,
        /// Which value.
        field: &'static str,
    },
    /// A decoder configuration longer than [`MAX_CONFIG`].
    #[error("track {track} has a decoder configuration of {size} bytes")]
    ConfigTooLong {
        /// Track number.
        track: u8,
        /// Bytes.
        size: usize,
    },
    /// A decoder configuration that does not parse.
    #[error("track {track}: {error}")]
    Codec {
        /// Track number.
        track: u8,
        /// What is wrong with it.
        error: CodecError,
    },
}

impl Catalog {
    /// The catalog's bytes; the same catalog always gives the same ones.
    ///
    /// # Errors
    /// [`CatalogError`] if what it holds would be refused by [`Self::decode`].
    pub fn encode(&self) -> Result<Bytes, CatalogError> {
        check_tracks(&self.tracks)?;
        let mut out = Vec::new();
        minicbor::encode(Wire::from(self), &mut out)
            .expect("writing to a Vec, of types that always encode, cannot fail");
        if out.len() > MAX_CATALOG {
            return Err(CatalogError::TooLong(out.len()));
        }
        Ok(out.into())
    }

    /// Reads and checks a catalog.
    ///
    /// # Errors
    /// See [`CatalogError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, CatalogError> {
        if bytes.len() > MAX_CATALOG {
            return Err(CatalogError::TooLong(bytes.len()));
        }
        let mut decoder = minicbor::Decoder::new(bytes);
        let wire: Wire = decoder.decode()?;
        let trailing = bytes.len() - decoder.position();
        if trailing > 0 {
            return Err(CatalogError::Trailing(trailing));
        }
        wire.check()
    }

    /// The type for `MediaSource.addSourceBuffer` and HTTP, such as
    /// `video/mp4; codecs="avc1.64001f,mp4a.40.2"`.
    pub fn mime(&self) -> String {
        let codecs: Vec<_> = self
            .tracks
            .iter()
            .map(|track| track.config.codec_string())
            .collect();
        let kind = match self.video() {
            Some(_) => "video",
            None => "audio",
        };
        format!("{kind}/mp4; codecs=\"{}\"", codecs.join(","))
    }

    /// The track of this number.
    pub fn track(&self, id: u8) -> Option<&Track> {
        self.tracks.iter().find(|track| track.id == id)
    }

    /// The track whose keyframes cut the groups: the first of pictures, else the first.
    pub fn main(&self) -> Option<&Track> {
        self.video().or(self.tracks.first())
    }

    /// The first track of pictures.
    pub fn video(&self) -> Option<&Track> {
        let is_video = |track: &&Track| track.config.kind() == TrackKind::Video;
        self.tracks.iter().find(is_video)
    }
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct Wire {
    #[n(0)]
    version: u32,
    #[n(1)]
    epoch: u32,
    #[n(2)]
    first_group: u64,
    #[n(3)]
    first_sequence: u64,
    #[n(4)]
    target_duration_ms: Option<u32>,
    #[n(5)]
    part_target_ms: u32,
    #[n(6)]
    timeline_start_ms: i64,
    #[n(7)]
    wall_clock_start_ms: u64,
    #[n(8)]
    bitrate_bps: Option<u32>,
    #[n(9)]
    tracks: Vec<WireTrack>,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct WireTrack {
    #[n(0)]
    id: u8,
    #[n(1)]
    timescale: u32,
    #[n(2)]
    codec: u32,
    #[n(3)]
    config: ByteVec,
    #[n(4)]
    width: Option<u32>,
    #[n(5)]
    height: Option<u32>,
    #[n(6)]
    sample_rate: Option<u32>,
    #[n(7)]
    channels: Option<u32>,
}

impl From<&Catalog> for Wire {
    fn from(catalog: &Catalog) -> Self {
        Self {
            version: catalog.version,
            epoch: catalog.epoch,
            first_group: catalog.first_group,
            first_sequence: catalog.first_sequence,
            target_duration_ms: catalog.target_duration_ms,
            part_target_ms: catalog.part_target_ms,
            timeline_start_ms: catalog.timeline_start_ms,
            wall_clock_start_ms: catalog.wall_clock_start_ms,
            bitrate_bps: catalog.bitrate_bps,
            tracks: catalog.tracks.iter().map(WireTrack::from).collect(),
        }
    }
}

impl From<&Track> for WireTrack {
    fn from(track: &Track) -> Self {
        let (codec, config) = match &track.config {
            CodecConfig::H264 { avcc, .. } => (CODEC_H264, avcc),
            CodecConfig::Aac { asc, .. } => (CODEC_AAC, asc),
            CodecConfig::H265 { hvcc, .. } => (CODEC_H265, hvcc),
            CodecConfig::Av1 { av1c, .. } => (CODEC_AV1, av1c),
            CodecConfig::Opus { head, .. } => (CODEC_OPUS, head),
        };
        let (size, sound) = (track.config.size(), track.config.sound());
        Self {
            id: track.id,
            timescale: track.timescale,
            codec,
            config: config.to_vec().into(),
            width: size.map(|(width, _)| width),
            height: size.map(|(_, height)| height),
            sample_rate: sound.map(|(rate, _)| rate),
            channels: sound.map(|(_, channels)| channels.into()),
        }
    }
}

impl Wire {
    fn check(self) -> Result<Catalog, CatalogError> {
        let mut tracks = Vec::new();
        for wire in self.tracks {
            tracks.extend(wire.check()?);
        }
        check_tracks(&tracks)?;
        Ok(Catalog {
            version: self.version,
            epoch: self.epoch,
            first_group: self.first_group,
            first_sequence: self.first_sequence,
            target_duration_ms: self.target_duration_ms,
            part_target_ms: self.part_target_ms,
            timeline_start_ms: self.timeline_start_ms,
            wall_clock_start_ms: self.wall_clock_start_ms,
            bitrate_bps: self.bitrate_bps,
            tracks,
        })
    }
}

impl WireTrack {
    /// The track, or none if its codec is not known here.
    fn check(self) -> Result<Option<Track>, CatalogError> {
        let track = self.id;
        let missing = |field| CatalogError::Value { track, field };
        let config = Bytes::from(Vec::from(self.config));
        let width = || self.width.ok_or(missing("width"));
        let height = || self.height.ok_or(missing("height"));
        let sample_rate = || self.sample_rate.ok_or(missing("sample rate"));
        let channels = || narrow(self.channels).map_err(|_| missing("number of channels"));
        let config = match self.codec {
            CODEC_H264 => CodecConfig::H264 {
                avcc: config,
                width: width()?,
                height: height()?,
            },
            CODEC_AAC => CodecConfig::Aac {
                asc: config,
                sample_rate: sample_rate()?,
                channels: channels()?,
            },
            CODEC_H265 => CodecConfig::H265 {
                hvcc: config,
                width: width()?,
                height: height()?,
            },
            CODEC_AV1 => CodecConfig::Av1 {
                av1c: config,
                width: width()?,
                height: height()?,
            },
            CODEC_OPUS => CodecConfig::Opus {
                head: config,
                sample_rate: sample_rate()?,
                channels: channels()?,
            },
            _ => return Ok(None),
        };
        Ok(Some(Track {
            id: self.id,
            timescale: self.timescale,
            config,
        }))
    }
}

fn narrow(channels: Option<u32>) -> Result<u8, TryFromIntError> {
    u8::try_from(channels.unwrap_or(0))
}

fn check_tracks(tracks: &[Track]) -> Result<(), CatalogError> {
    if !(1..=MAX_TRACKS).contains(&tracks.len()) {
        return Err(CatalogError::TrackCount(tracks.len()));
    }
    for (index, track) in tracks.iter().enumerate() {
        let doubled = tracks[..index].iter().any(|other| other.id == track.id);
        if doubled || !(1..=MAX_TRACK_ID).contains(&track.id) {
            return Err(CatalogError::TrackId(track.id));
        }
        check_track(track)?;
    }
    Ok(())
}

fn check_track(track: &Track) -> Result<(), CatalogError> {
    if !(1..=MAX_TIMESCALE).contains(&track.timescale) {
        return Err(CatalogError::Timescale {
            track: track.id,
            timescale: track.timescale,
        });
    }
    check_values(track)?;
    match &track.config {
        CodecConfig::H264 { avcc, .. } => check_config(track.id, CodecKind::H264, avcc),
        CodecConfig::H265 { hvcc, .. } => check_config(track.id, CodecKind::H265, hvcc),
        CodecConfig::Av1 { av1c, .. } => check_config(track.id, CodecKind::Av1, av1c),
        CodecConfig::Aac { asc, .. } => check_config(track.id, CodecKind::Aac, asc),
        CodecConfig::Opus { head, .. } => check_config(track.id, CodecKind::Opus, head),
    }
}

/// Sizes, rates and counts that muxers write down.
fn check_values(track: &Track) -> Result<(), CatalogError> {
    let bad = |field| {
        let track = track.id;
        Err(CatalogError::Value { track, field })
    };
    let sides = 1..=MAX_DIMENSION;
    if let Some((width, height)) = track.config.size()
        && !(sides.contains(&width) && sides.contains(&height))
    {
        return bad("picture size");
    }
    let Some((sample_rate, channels)) = track.config.sound() else {
        return Ok(());
    };
    if !(1..=192_000).contains(&sample_rate) {
        return bad("sample rate");
    }
    if !(1..=8).contains(&channels) {
        return bad("number of channels");
    }
    Ok(())
}

fn check_config(track: u8, kind: CodecKind, config: &[u8]) -> Result<(), CatalogError> {
    check_length(track, config)?;
    let codec = Codec::parse(kind, config).map_err(|error| CatalogError::Codec { track, error })?;
    let bad = |field| Err(CatalogError::Value { track, field });
    if codec.config().is_none() {
        return bad("decoder configuration: it has no parameter sets");
    }
    if codec.length_size().is_some_and(|size| size != 4) {
        return bad("decoder configuration: its NAL lengths are not of four bytes");
    }
    Ok(())
}

fn check_length(track: u8, config: &[u8]) -> Result<(), CatalogError> {
    let size = config.len();
    if size > MAX_CONFIG {
        return Err(CatalogError::ConfigTooLong { track, size });
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
