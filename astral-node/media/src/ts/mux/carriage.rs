//! How a codec's frames stand in a transport stream.

use bytes::{Bytes, BytesMut};

use super::super::psi::{self, Entry};
use super::super::{adts, annexb, opus};
use super::{MuxError, SOUND_BYTES_MAX};
use crate::h264::AvcConfig;
use crate::h265::HevcConfig;
use crate::nal::NalUnits;
use crate::opus::OpusHead;
use crate::track::CodecConfig;

/// Delimiters that begin an access unit: any kind of slice may follow.
const AUD_H264: [u8; 2] = [0x09, 0xf0];
const AUD_H265: [u8; 3] = [0x46, 0x01, 0x50];

/// A track's codec and what its frames need around them.
#[derive(Debug)]
pub(super) enum Carriage {
    H264 { sets: Vec<Bytes> },
    H265 { sets: Vec<Bytes> },
    Aac(adts::Writer),
    Opus { descriptors: Vec<u8> },
}

impl Carriage {
    pub(super) fn of(config: &CodecConfig) -> Result<Self, MuxError> {
        let carriage = match config {
            CodecConfig::H264 { avcc, .. } => AvcConfig::parse(avcc).ok().map(|config| {
                let sets = config.parameter_sets();
                let sets = [sets.sps, sets.pps].concat();
                Self::H264 { sets }
            }),
            CodecConfig::H265 { hvcc, .. } => HevcConfig::parse(hvcc).ok().map(|config| {
                let sets = config.parameter_sets().clone();
                let sets = [sets.vps, sets.sps, sets.pps].concat();
                Self::H265 { sets }
            }),
            CodecConfig::Av1 { .. } => None,
            CodecConfig::Aac { asc, .. } => adts::Writer::new(asc).map(Self::Aac),
            CodecConfig::Opus { head, .. } => {
                let head = OpusHead::parse(head).ok();
                let descriptors = head.and_then(|head| opus::descriptors(&head));
                descriptors.map(|descriptors| Self::Opus { descriptors })
            }
        };
        carriage.ok_or_else(|| MuxError::NotCarried {
            codec: config.codec_string(),
        })
    }

    /// The codec's own: another codec is another stream to players.
    pub(super) fn pid(&self) -> u16 {
        match self {
            Self::H264 { .. } => 0x100,
            Self::H265 { .. } => 0x101,
            Self::Aac(_) => 0x110,
            Self::Opus { .. } => 0x111,
        }
    }

    /// The stream id in PES headers.
    pub(super) fn stream_id(&self) -> u8 {
        match self {
            Self::H264 { .. } | Self::H265 { .. } => 0xe0,
            Self::Aac(_) => 0xc0,
            Self::Opus { .. } => 0xbd,
        }
    }

    /// Its line in the PMT.
    pub(super) fn entry(&self) -> Entry {
        let (kind, descriptors) = match self {
            Self::H264 { .. } => (psi::TYPE_H264, Vec::new()),
            Self::H265 { .. } => (psi::TYPE_H265, b"\x05\x04HEVC".to_vec()),
            Self::Aac(_) => (psi::TYPE_AAC, Vec::new()),
            Self::Opus { descriptors } => (psi::TYPE_PRIVATE, descriptors.clone()),
        };
        Entry {
            pid: self.pid(),
            kind,
            descriptors,
        }
    }

    /// An access unit with start codes; at a keyframe, its parameter sets first.
    pub(super) fn picture(&self, payload: &[u8], keyframe: bool) -> Result<BytesMut, MuxError> {
        let (aud, sets) = match self {
            Self::H264 { sets } => (&AUD_H264[..], &sets[..]),
            Self::H265 { sets } => (&AUD_H265[..], &sets[..]),
            Self::Aac(_) | Self::Opus { .. } => (&[][..], &[][..]),
        };
        let mut out = BytesMut::with_capacity(payload.len() + 256);
        annexb::put(&mut out, aud);
        for set in sets.iter().filter(|_| keyframe) {
            annexb::put(&mut out, set);
        }
        for nal in NalUnits::new(payload, 4) {
            annexb::put(&mut out, nal?);
        }
        Ok(out)
    }

    /// A coded frame of sound behind its header.
    pub(super) fn sound(&self, unit: &[u8]) -> Result<BytesMut, MuxError> {
        let mut out = BytesMut::with_capacity(unit.len() + 16);
        let fits = match self {
            Self::Aac(writer) => writer.put(&mut out, unit),
            Self::Opus { .. } => {
                opus::put(&mut out, unit);
                out.len() <= SOUND_BYTES_MAX
            }
            Self::H264 { .. } | Self::H265 { .. } => false,
        };
        match fits {
            true => Ok(out),
            false => Err(MuxError::SoundTooLong(unit.len())),
        }
    }
}
