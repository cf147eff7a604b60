//! Tag bodies of FLV and RTMP to [`SourceEvent`]s, and whole FLV files on top.
//!
//! Follows "Adobe Flash Video File Format Specification" 10.1, Annex E, and Enhanced
//! RTMP v2 (the FourCC form). H.264 and AAC are taken in both forms, H.265, AV1 and
//! Opus in the FourCC form, and H.265 also under the number 12 that older encoders
//! gave it. Other codecs give [`FlvError::UnsupportedCodec`] with a sentence for
//! whoever runs the encoder. Of multitrack packets, track 0 is taken.
//!
//! Everything is taken from the decoder configurations, nothing from metadata, which
//! encoders fill as they like; metadata only say which tracks to wait for.

mod file;
mod tag;

pub use file::FlvFile;

use bytes::Bytes;
use thiserror::Error;

use crate::codec::{Codec, CodecError, CodecKind, Unit};
use crate::rtmp::Metadata;
use crate::source::{Sample, SourceEvent, SourceTrack};
use crate::track::{CodecConfig, TrackKind};
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
    #[error(
        "{0} is not supported: set the encoder to H.264, H.265 or AV1 video and AAC or Opus audio"
    )]
    UnsupportedCodec(String),
    /// The tag ends within its header.
    #[error("FLV tag is cut short")]
    Truncated,
    /// The picture's configuration cannot be taken.
    #[error("broken video configuration: {0}")]
    VideoConfiguration(CodecError),
    /// The sound's configuration cannot be taken.
    #[error("broken audio configuration: {0}")]
    AudioConfiguration(CodecError),
    /// A picture, or a parameter set within it, cannot be read. The next one may be whole.
    #[error("broken picture: {0}")]
    Picture(CodecError),
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
    /// The last coded frame's stamp as it came and unwrapped, milliseconds.
    clock: Option<(u32, i64)>,
    video: Option<Configured>,
    audio: Option<Configured>,
    promised: bool,
}

/// A track whose configuration has come.
#[derive(Debug)]
struct Configured {
    /// The configuration as the encoder sent it.
    record: Bytes,
    /// `None` while the parameter sets are still to come, within a picture.
    timescale: Option<u32>,
    codec: Codec,
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
        let packet = match kind {
            TrackKind::Video => tag::video(payload)?,
            TrackKind::Audio => tag::audio(payload)?,
        };
        match packet {
            // The end of a sequence is not the end of the stream: encoders go on after it.
            Packet::Ignored | Packet::SequenceEnd => Ok(()),
            Packet::Configuration { codec, record } => self.configure(kind, codec, record, out),
            Packet::Coded {
                codec,
                cts_ms,
                data,
            } => {
                // Configurations come with stamp 0 whatever the media's.
                let dts_ms = self.unwrap(timestamp_ms);
                let configured = self.slot(kind).0.as_ref();
                // A codec whose configuration did not come.
                if configured.is_none_or(|configured| configured.codec.kind() != codec) {
                    return Ok(());
                }
                self.coded(kind, (dts_ms, cts_ms), data, out)
            }
        }
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

    fn configure(
        &mut self,
        kind: TrackKind,
        codec: CodecKind,
        record: &[u8],
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), FlvError> {
        let (slot, id) = self.slot(kind);
        let same = |last: &Configured| last.codec.kind() == codec && last.record == record;
        if slot.as_ref().is_some_and(same) || record.is_empty() {
            return Ok(());
        }
        let codec = Codec::parse(codec, record).map_err(|error| match kind {
            TrackKind::Video => FlvError::VideoConfiguration(error),
            TrackKind::Audio => FlvError::AudioConfiguration(error),
        })?;
        let configured = slot.insert(Configured {
            record: Bytes::copy_from_slice(record),
            timescale: None,
            codec,
        });
        out.extend(configured.announce(id));
        Ok(())
    }

    fn coded(
        &mut self,
        kind: TrackKind,
        (dts_ms, cts_ms): (i64, i32),
        data: &[u8],
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), FlvError> {
        let (Some(configured), track) = self.slot(kind) else {
            return Ok(());
        };
        let (changed, unit) = configured.codec.unit(data).map_err(FlvError::Picture)?;
        if changed {
            out.extend(configured.announce(track));
        }
        let (Some(timescale), Some(unit)) = (configured.timescale, unit) else {
            return Ok(());
        };
        let Unit {
            data,
            keyframe,
            discardable,
        } = unit;
        out.push(SourceEvent::Sample(Sample {
            track,
            dts: ticks(dts_ms, timescale),
            // 24 signed bits of milliseconds at 90 kHz fit into 32; 0 for sound.
            cts: cts_ms * 90,
            duration: None,
            keyframe,
            discardable,
            data,
        }));
        Ok(())
    }

    fn slot(&mut self, kind: TrackKind) -> (&mut Option<Configured>, u32) {
        match kind {
            TrackKind::Video => (&mut self.video, VIDEO_TRACK),
            TrackKind::Audio => (&mut self.audio, AUDIO_TRACK),
        }
    }
}

impl Configured {
    /// The track, if its configuration is complete.
    fn announce(&mut self, id: u32) -> Option<SourceEvent> {
        let config = self.codec.config()?;
        let timescale = timescale(&config);
        self.timescale = Some(timescale);
        Some(SourceEvent::Track(SourceTrack {
            id,
            timescale,
            config,
        }))
    }
}

/// Ticks per second: the sample rate for audio.
fn timescale(config: &CodecConfig) -> u32 {
    let sound = config.sound();
    sound.map_or(VIDEO_TIMESCALE, |(sample_rate, _)| sample_rate)
}

/// Milliseconds as ticks, rounded to the nearest; saturates where no real stamp is.
fn ticks(ms: i64, timescale: u32) -> i64 {
    let ticks = (i128::from(ms) * i128::from(timescale) + 500).div_euclid(1000);
    i64::try_from(ticks).unwrap_or(if ms < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
