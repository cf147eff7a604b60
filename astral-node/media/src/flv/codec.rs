//! The one place where tag bodies meet the codecs.
//!
//! A further codec is a variant of [`Decoding`] and of [`CodecConfig`].

use bytes::Bytes;

use super::{FlvError, VIDEO_TIMESCALE};
use crate::track::{CodecConfig, TrackKind};

/// What is needed to read a track's coded frames.
#[derive(Debug)]
pub(super) enum Decoding {
    H264 { length_size: usize },
    Aac,
}

/// One access unit or audio frame, cleaned; owns its memory.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) data: Bytes,
    pub(super) keyframe: bool,
    pub(super) discardable: bool,
}

pub(super) fn configure(
    kind: TrackKind,
    record: &[u8],
) -> Result<(CodecConfig, Decoding), FlvError> {
    match kind {
        TrackKind::Video => h264(record),
        TrackKind::Audio => aac(record),
    }
}

/// Ticks per second: the sample rate for audio.
pub(super) fn timescale(config: &CodecConfig) -> u32 {
    match config {
        CodecConfig::H264 { .. } => VIDEO_TIMESCALE,
        CodecConfig::Aac { sample_rate, .. } => *sample_rate,
    }
}

fn h264(record: &[u8]) -> Result<(CodecConfig, Decoding), FlvError> {
    let broken = |reason: &str| FlvError::Configuration {
        codec: "H.264",
        reason: reason.into(),
    };
    if record.len() < 7 || record[0] != 1 {
        return Err(broken("not an AVCDecoderConfigurationRecord"));
    }
    let config = CodecConfig::H264 {
        avcc: Bytes::copy_from_slice(record),
        width: 0,
        height: 0,
    };
    let length_size = usize::from(record[4] & 3) + 1;
    Ok((config, Decoding::H264 { length_size }))
}

fn aac(record: &[u8]) -> Result<(CodecConfig, Decoding), FlvError> {
    const RATES: [u32; 13] = [
        96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350,
    ];
    let broken = |reason: &str| FlvError::Configuration {
        codec: "AAC",
        reason: reason.into(),
    };
    let &[first, second, ..] = record else {
        return Err(broken("cut short"));
    };
    let index = usize::from((first & 7) << 1 | second >> 7);
    let rate = RATES.get(index).ok_or_else(|| broken("sample rate"))?;
    let config = CodecConfig::Aac {
        asc: Bytes::copy_from_slice(record),
        sample_rate: *rate,
        channels: (second >> 3) & 0x0f,
    };
    Ok((config, Decoding::Aac))
}

impl Decoding {
    /// Reads one coded frame; `None` if nothing of it is to be kept.
    pub(super) fn unit(&self, data: &[u8]) -> Result<Option<Unit>, FlvError> {
        match self {
            Self::H264 { length_size } => picture(data, *length_size),
            Self::Aac => Ok((!data.is_empty()).then(|| Unit {
                data: Bytes::copy_from_slice(data),
                keyframe: true,
                discardable: false,
            })),
        }
    }
}

fn picture(mut data: &[u8], length_size: usize) -> Result<Option<Unit>, FlvError> {
    let whole = data;
    let (mut keyframe, mut slices, mut discardable) = (false, 0, true);
    while !data.is_empty() {
        let broken = || FlvError::Picture("NAL unit is cut short".into());
        let (length, rest) = data.split_at_checked(length_size).ok_or_else(broken)?;
        let length = length
            .iter()
            .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
        let (nal, rest) = rest.split_at_checked(length).ok_or_else(broken)?;
        data = rest;
        if let Some(&header) = nal.first()
            && (1..=5).contains(&(header & 0x1f))
        {
            slices += 1;
            keyframe |= header & 0x1f == 5;
            discardable &= header & 0x60 == 0;
        }
    }
    Ok((slices > 0).then(|| Unit {
        data: Bytes::copy_from_slice(whole),
        keyframe,
        discardable,
    }))
}
