//! Tag bodies of FLV and RTMP to [`SourceEvent`]s, and whole FLV files on top.
//!
//! Follows "Adobe Flash Video File Format Specification" 10.1, Annex E, and Enhanced
//! RTMP v2 (the FourCC form). H.264 and AAC are taken in both forms; other codecs
//! give [`FlvError::UnsupportedCodec`] with a sentence for whoever runs the encoder.
//! Multitrack packets are refused.
//!
//! Everything is taken from the decoder configurations, nothing from metadata, which
//! encoders fill as they like; metadata only say which tracks to wait for.

mod codec;
mod file;
mod tag;

pub use file::FlvFile;

use bytes::Bytes;
use thiserror::Error;

use crate::rtmp::Metadata;
use crate::source::{Sample, SourceEvent, SourceTrack};
use crate::track::TrackKind;
use codec::{Decoding, Unit};
use tag::Packet;

/// Number of the video track in [`SourceTrack::id`].
pub const VIDEO_TRACK: u32 = 1;
/// Number of the audio track in [`SourceTrack::id`].
pub const AUDIO_TRACK: u32 = 2;
/// Ticks per second of the video track; a millisecond is 90 of them.
pub const VIDEO_TIMESCALE: u32 = 90_000;

/// Why a tag cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FlvError {
    /// A codec that is not carried; the sentence tells the encoder's user what to do.
    #[error("{0} is not supported: set the encoder to H.264 video and AAC audio")]
    UnsupportedCodec(String),
    /// Several tracks of one kind in one connection.
    #[error("several video or audio tracks in one connection are not supported: send one of each")]
    Multitrack,
    /// The tag ends within its header.
    #[error("FLV tag is cut short")]
    Truncated,
    /// The codec's configuration cannot be read.
    #[error("broken {codec} configuration: {reason}")]
    Configuration {
        /// Its codec.
        codec: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// An access unit cannot be read. The next one may be whole.
    #[error("broken H.264 picture: {0}")]
    Picture(String),
    /// Not an FLV file, or a header that no writer makes.
    #[error("not an FLV file")]
    NotFlv,
    /// The file's tags are encrypted.
    #[error("encrypted FLV tags are not supported")]
    Encrypted,
    /// A tag longer than 4 MiB; carries its length in bytes.
    #[error("FLV tag of {0} bytes is too long")]
    TagTooLong(usize),
}

impl FlvError {
    /// Whether the source is of no use after this; else only one tag is lost.
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Truncated | Self::Picture(_))
    }
}

/// Turns the tag bodies of one connection or file into events.
///
/// Time stamps are unwrapped here: the difference of two neighbours counts as a
/// signed 32-bit number. Jumps are left to the timeline.
#[derive(Debug, Default)]
pub struct FlvDemuxer {
    /// The last stamp as it came and unwrapped, milliseconds.
    clock: Option<(u32, i64)>,
    video: Option<Configured>,
    audio: Option<Configured>,
    promised: bool,
}

/// A track whose configuration has come.
#[derive(Debug)]
struct Configured {
    record: Bytes,
    timescale: u32,
    decoding: Decoding,
}

impl FlvDemuxer {
    /// A demuxer of a new connection or file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes one tag body and appends what it amounts to, often nothing.
    ///
    /// `timestamp_ms` is the message's stamp modulo 2³².
    ///
    /// # Errors
    /// [`FlvError`]; see [`FlvError::is_fatal`]. Nothing was appended.
    pub fn push(
        &mut self,
        kind: TrackKind,
        timestamp_ms: u32,
        payload: &[u8],
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), FlvError> {
        let dts_ms = self.unwrap(timestamp_ms);
        let packet = match kind {
            TrackKind::Video => tag::video(payload)?,
            TrackKind::Audio => tag::audio(payload)?,
        };
        out.extend(self.event(kind, dts_ms, packet)?);
        Ok(())
    }

    /// Takes the encoder's metadata: the first tell which tracks to expect.
    pub fn metadata(&mut self, metadata: &Metadata, out: &mut Vec<SourceEvent>) {
        let promise = metadata.video || metadata.audio;
        if promise && !self.promised {
            self.promised = true;
            out.push(SourceEvent::Promised {
                video: metadata.video,
                audio: metadata.audio,
            });
        }
    }

    fn unwrap(&mut self, stamp: u32) -> i64 {
        let unwrapped = match self.clock {
            // The cast makes a signed difference of a modular one.
            Some((last, unwrapped)) => {
                unwrapped.saturating_add((stamp.wrapping_sub(last) as i32).into())
            }
            None => stamp.into(),
        };
        self.clock = Some((stamp, unwrapped));
        unwrapped
    }

    fn event(
        &mut self,
        kind: TrackKind,
        dts_ms: i64,
        packet: Packet<'_>,
    ) -> Result<Option<SourceEvent>, FlvError> {
        match packet {
            // The end of a sequence is not the end of the stream: encoders go on after it.
            Packet::Ignored | Packet::SequenceEnd => Ok(None),
            Packet::Configuration(record) => self.configure(kind, record),
            Packet::Coded { cts_ms, data } => self.sample(kind, dts_ms, cts_ms, data),
        }
    }

    fn configure(
        &mut self,
        kind: TrackKind,
        record: &[u8],
    ) -> Result<Option<SourceEvent>, FlvError> {
        let (slot, id) = match kind {
            TrackKind::Video => (&mut self.video, VIDEO_TRACK),
            TrackKind::Audio => (&mut self.audio, AUDIO_TRACK),
        };
        let same = slot.as_ref().is_some_and(|last| last.record == record);
        if same || record.is_empty() {
            return Ok(None);
        }
        let (config, decoding) = codec::configure(kind, record)?;
        let timescale = codec::timescale(&config);
        *slot = Some(Configured {
            record: Bytes::copy_from_slice(record),
            timescale,
            decoding,
        });
        Ok(Some(SourceEvent::Track(SourceTrack {
            id,
            timescale,
            config,
        })))
    }

    fn sample(
        &self,
        kind: TrackKind,
        dts_ms: i64,
        cts_ms: i32,
        data: &[u8],
    ) -> Result<Option<SourceEvent>, FlvError> {
        let (slot, track) = match kind {
            TrackKind::Video => (&self.video, VIDEO_TRACK),
            TrackKind::Audio => (&self.audio, AUDIO_TRACK),
        };
        let Some(configured) = slot else {
            return Ok(None);
        };
        let Some(unit) = configured.decoding.unit(data)? else {
            return Ok(None);
        };
        let Unit {
            data,
            keyframe,
            discardable,
        } = unit;
        Ok(Some(SourceEvent::Sample(Sample {
            track,
            dts: ticks(dts_ms, configured.timescale),
            // 24 signed bits of milliseconds at 90 kHz fit into 32.
            cts: cts_ms * 90,
            duration: None,
            keyframe,
            discardable,
            data,
        })))
    }
}

/// Milliseconds as ticks, rounded to the nearest; saturates where no real stamp is.
fn ticks(ms: i64, timescale: u32) -> i64 {
    let ticks = (i128::from(ms) * i128::from(timescale) + 500).div_euclid(1000);
    i64::try_from(ticks).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
