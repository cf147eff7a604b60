//! A track's codec while its source is read: the one place where containers meet codecs.
//!
//! A demuxer hands over configuration and coded frames as they stand in the
//! container, and gets them fit to be carried. A further codec is a variant of
//! `Codec` and of [`CodecConfig`].

use bytes::Bytes;
use thiserror::Error;

use crate::aac::{AacError, AudioSpecificConfig};
use crate::av1::{self, Av1Config, Av1Error};
use crate::h264::{self, AvcConfig, H264Error};
use crate::h265::{self, H265Error, HevcConfig};
use crate::opus::{self, OpusError, OpusHead};
use crate::track::{CodecConfig, TrackKind};

/// Why a configuration or a coded frame was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// H.264 that does not parse.
    #[error(transparent)]
    H264(#[from] H264Error),
    /// H.265 that does not parse.
    #[error(transparent)]
    H265(#[from] H265Error),
    /// AV1 that does not parse.
    #[error(transparent)]
    Av1(#[from] Av1Error),
    /// An AAC configuration that does not parse.
    #[error(transparent)]
    Aac(#[from] AacError),
    /// An Opus header that does not parse.
    #[error(transparent)]
    Opus(#[from] OpusError),
}

/// Which codec, before its configuration is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CodecKind {
    H264,
    H265,
    Av1,
    Aac,
    Opus,
}

impl CodecKind {
    pub(crate) fn track(self) -> TrackKind {
        match self {
            Self::H264 | Self::H265 | Self::Av1 => TrackKind::Video,
            Self::Aac | Self::Opus => TrackKind::Audio,
        }
    }
}

/// A codec and its newest configuration.
#[derive(Clone, Debug)]
pub(crate) enum Codec {
    H264(Box<AvcConfig>),
    H265(Box<HevcConfig>),
    Av1(Box<Av1Config>),
    Aac {
        config: AudioSpecificConfig,
        asc: Bytes,
    },
    Opus(OpusHead),
}

/// One access unit, temporal unit or audio frame, cleaned; owns its memory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unit {
    pub(crate) data: Bytes,
    pub(crate) keyframe: bool,
    pub(crate) discardable: bool,
}

impl Codec {
    /// Reads a configuration: `avcC`, `hvcC`, `av1C`, `AudioSpecificConfig` or `OpusHead`.
    pub(crate) fn parse(kind: CodecKind, record: &[u8]) -> Result<Self, CodecError> {
        Ok(match kind {
            CodecKind::H264 => Self::H264(Box::new(AvcConfig::parse(record)?)),
            CodecKind::H265 => Self::H265(Box::new(HevcConfig::parse(record)?)),
            CodecKind::Av1 => Self::Av1(Box::new(Av1Config::parse(record)?)),
            CodecKind::Aac => Self::Aac {
                config: AudioSpecificConfig::parse(record)?,
                asc: Bytes::copy_from_slice(record),
            },
            CodecKind::Opus => Self::Opus(OpusHead::parse(record)?),
        })
    }

    /// A picture's codec whose configuration is to come within the first picture, in
    /// NAL units behind four-byte lengths, or in OBUs; none for sound.
    pub(crate) fn in_band(kind: CodecKind) -> Option<Self> {
        match kind {
            CodecKind::H264 => Some(Self::H264(Box::new(AvcConfig::empty()))),
            CodecKind::H265 => Some(Self::H265(Box::new(HevcConfig::empty()))),
            CodecKind::Av1 => Some(Self::Av1(Box::new(Av1Config::empty()))),
            CodecKind::Aac | CodecKind::Opus => None,
        }
    }

    pub(crate) fn kind(&self) -> CodecKind {
        match self {
            Self::H264(_) => CodecKind::H264,
            Self::H265(_) => CodecKind::H265,
            Self::Av1(_) => CodecKind::Av1,
            Self::Aac { .. } => CodecKind::Aac,
            Self::Opus(_) => CodecKind::Opus,
        }
    }

    /// The track's configuration; none while parameter sets are still to come, within
    /// a picture.
    pub(crate) fn config(&self) -> Option<CodecConfig> {
        match self {
            Self::H264(config) => config.codec_config(),
            Self::H265(config) => config.codec_config(),
            Self::Av1(config) => config.codec_config(),
            Self::Aac { config, asc } => Some(config.codec_config(asc)),
            Self::Opus(head) => Some(head.codec_config()),
        }
    }

    /// Bytes of each NAL length in the source's pictures, for codecs that have NAL units.
    pub(crate) fn length_size(&self) -> Option<u8> {
        match self {
            Self::H264(config) => Some(config.length_size()),
            Self::H265(config) => Some(config.length_size()),
            Self::Av1(_) | Self::Aac { .. } | Self::Opus(_) => None,
        }
    }

    /// Reads one coded frame: whether its parameter sets changed the configuration,
    /// and what is to be carried of it, if anything.
    ///
    /// Nothing is while the configuration is not complete.
    pub(crate) fn unit(&mut self, data: &[u8]) -> Result<(bool, Option<Unit>), CodecError> {
        Ok(match self {
            Self::H264(config) => h264_unit(config, data)?,
            Self::H265(config) => h265_unit(config, data)?,
            Self::Av1(config) => av1_unit(config, data)?,
            Self::Aac { .. } => (false, (!data.is_empty()).then(|| sound(data))),
            Self::Opus(_) => {
                let packet = opus::packet_samples(data).map(|_| sound(data));
                (false, packet)
            }
        })
    }
}

fn h264_unit(config: &mut AvcConfig, data: &[u8]) -> Result<(bool, Option<Unit>), H264Error> {
    let clean = h264::clean_access_unit(config, data)?;
    let changed = !clean.changed.is_empty();
    if changed {
        *config = config.with_parameter_sets(&clean.changed)?;
    }
    let carried = clean.has_slices && config.is_complete();
    let unit = carried.then_some(Unit {
        data: clean.data,
        keyframe: clean.keyframe,
        discardable: clean.discardable,
    });
    Ok((changed, unit))
}

fn h265_unit(config: &mut HevcConfig, data: &[u8]) -> Result<(bool, Option<Unit>), H265Error> {
    let clean = h265::clean_access_unit(config, data)?;
    let changed = !clean.changed.is_empty();
    if changed {
        *config = config.with_parameter_sets(&clean.changed)?;
    }
    let carried = clean.has_slices && config.is_complete();
    let unit = carried.then_some(Unit {
        data: clean.data,
        keyframe: clean.keyframe,
        discardable: clean.discardable,
    });
    Ok((changed, unit))
}

fn av1_unit(config: &mut Av1Config, data: &[u8]) -> Result<(bool, Option<Unit>), Av1Error> {
    let clean = av1::clean_temporal_unit(config, data)?;
    if let Some(sequence) = &clean.changed {
        *config = config.with_sequence(sequence)?;
    }
    let carried = clean.has_frames && config.is_complete();
    let unit = carried.then_some(Unit {
        data: clean.data,
        keyframe: clean.keyframe,
        discardable: false,
    });
    Ok((clean.changed.is_some(), unit))
}

fn sound(data: &[u8]) -> Unit {
    Unit {
        data: Bytes::copy_from_slice(data),
        keyframe: true,
        discardable: false,
    }
}
