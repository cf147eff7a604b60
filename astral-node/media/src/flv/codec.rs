//! The one place where tag bodies meet the codecs.
//!
//! A further codec is a variant of [`Decoding`] and of [`CodecConfig`], and a FourCC
//! in `tag`.

use bytes::Bytes;

use super::{FlvError, VIDEO_TIMESCALE};
use crate::aac::AudioSpecificConfig;
use crate::h264::{AvcConfig, clean_access_unit};
use crate::track::{CodecConfig, TrackKind};

/// What is needed to read a track's coded frames.
#[derive(Debug)]
pub(super) enum Decoding {
    H264(Box<AvcConfig>),
    Aac,
}

/// One access unit or audio frame, cleaned; owns its memory.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) data: Bytes,
    pub(super) keyframe: bool,
    pub(super) discardable: bool,
}

/// Reads a configuration; without the track's if parameter sets are missing in it.
pub(super) fn configure(
    kind: TrackKind,
    record: &[u8],
) -> Result<(Option<CodecConfig>, Decoding), FlvError> {
    match kind {
        TrackKind::Video => {
            let config = AvcConfig::parse(record).map_err(FlvError::VideoConfiguration)?;
            Ok((config.codec_config(), Decoding::H264(Box::new(config))))
        }
        TrackKind::Audio => {
            let config =
                AudioSpecificConfig::parse(record).map_err(FlvError::AudioConfiguration)?;
            Ok((Some(config.codec_config(record)), Decoding::Aac))
        }
    }
}

/// Ticks per second: the sample rate for audio.
pub(super) fn timescale(config: &CodecConfig) -> u32 {
    let sample_rate = config.sound().map(|(sample_rate, _)| sample_rate);
    sample_rate.unwrap_or(VIDEO_TIMESCALE)
}

impl Decoding {
    /// Reads one coded frame: a configuration that begins with it, and what is to be
    /// kept of it, if anything.
    pub(super) fn unit(
        &mut self,
        data: &[u8],
    ) -> Result<(Option<CodecConfig>, Option<Unit>), FlvError> {
        match self {
            Self::H264(config) => picture(config, data).map_err(FlvError::Picture),
            Self::Aac => Ok((None, sound(data))),
        }
    }
}

fn picture(
    config: &mut AvcConfig,
    data: &[u8],
) -> Result<(Option<CodecConfig>, Option<Unit>), crate::h264::H264Error> {
    let clean = clean_access_unit(config, data)?;
    let mut changed = None;
    if !clean.changed.is_empty() {
        *config = config.with_parameter_sets(&clean.changed)?;
        changed = config.codec_config();
    }
    let unit = clean.has_slices.then_some(Unit {
        data: clean.data,
        keyframe: clean.keyframe,
        discardable: clean.discardable,
    });
    Ok((changed, unit))
}

fn sound(data: &[u8]) -> Option<Unit> {
    (!data.is_empty()).then(|| Unit {
        data: Bytes::copy_from_slice(data),
        keyframe: true,
        discardable: false,
    })
}
