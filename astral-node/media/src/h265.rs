//! H.265 as containers carry it: configuration records and length-prefixed access units.
//!
//! Follows ISO/IEC 14496-15 §8.3 (record, lengths) and ITU-T H.265 §7.3 (NAL units).
//! Everything that leaves here has four-byte NAL lengths and its parameter sets in
//! the record only, as sample entry `hvc1` wants (some players refuse `hev1`). Only
//! the base layer is carried. Slices are never decoded.

mod record;
mod sps;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::nal::{MAX_NAL_UNITS, NalLength, NalUnits, trimmed};
pub use record::{HevcConfig, MAX_RECORD, MAX_SOURCE_RECORD};
pub use sps::Sps;

const SLICES: std::ops::RangeInclusive<u8> = 0..=31;
/// Pictures at which decoding can start: BLA, IDR, CRA and those reserved for such.
const IRAP: std::ops::RangeInclusive<u8> = 16..=23;
/// Up to here even types are pictures that nothing of their own sub-layer refers to.
const LAST_SUB_LAYER_TYPE: u8 = 14;
const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const AUD: u8 = 35;
const FILLER: u8 = 38;
const PREFIX_SEI: u8 = 39;

/// Why H.265 bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum H265Error {
    /// The record or a parameter set ends too early.
    #[error("H.265 {0} is cut short")]
    Truncated(&'static str),
    /// `configurationVersion` is neither 1 nor the 0 of early writers.
    #[error("H.265 configuration record has version {0}, only 1 is known")]
    Version(u8),
    /// NAL lengths of three bytes are not allowed by the standard.
    #[error("H.265 configuration record asks for NAL lengths of {0} bytes")]
    LengthSize(u8),
    /// The record passes [`MAX_SOURCE_RECORD`], or [`MAX_RECORD`] when written.
    #[error("H.265 configuration record of {0} bytes is too long")]
    RecordTooLong(usize),
    /// A parameter set holds a value that the standard or our limits exclude.
    #[error("H.265 parameter set has a bad {0}")]
    ParameterSet(&'static str),
    /// A NAL unit claims more bytes than its access unit has.
    #[error("H.265 {0}")]
    NalLength(#[from] NalLength),
    /// The access unit has more than [`MAX_NAL_UNITS`] NAL units.
    #[error("H.265 access unit has more than 8192 NAL units")]
    TooManyNalUnits,
}

/// Parameter sets found inside an access unit, as NAL units without length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    /// Video parameter sets.
    pub vps: Vec<Bytes>,
    /// Sequence parameter sets.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets.
    pub pps: Vec<Bytes>,
}

impl ParameterSets {
    /// Whether there is none of any kind.
    pub fn is_empty(&self) -> bool {
        self.vps.is_empty() && self.sps.is_empty() && self.pps.is_empty()
    }
}

/// One access unit, fit for an `hvc1` track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanAu {
    /// NAL units behind four-byte lengths, in memory of their own.
    pub data: Bytes,
    /// It has an IRAP picture: a decoder can start here.
    pub keyframe: bool,
    /// No other picture refers to it: its slices are non-reference pictures of the
    /// highest temporal sub-layer.
    pub discardable: bool,
    /// It has a slice at all; without one there is nothing to show or to send.
    pub has_slices: bool,
    /// Parameter sets that differ from the record's and were taken out: make a new
    /// record of them ([`HevcConfig::with_parameter_sets`]) before this picture.
    pub changed: ParameterSets,
}

/// Takes out of an access unit what does not belong in an `hvc1` sample.
///
/// Delimiters, filler, parameter sets, NAL units of other layers and empty ones go;
/// what remains keeps its bytes. Ends of a sequence stay: they tell the decoder how
/// to read the next CRA picture.
///
/// # Errors
/// [`H265Error::NalLength`] if lengths do not add up, [`H265Error::TooManyNalUnits`].
pub fn clean_access_unit(config: &HevcConfig, data: &[u8]) -> Result<CleanAu, H265Error> {
    let mut out = BytesMut::with_capacity(data.len());
    let mut unit = CleanAu {
        data: Bytes::new(),
        keyframe: false,
        discardable: true,
        has_slices: false,
        changed: ParameterSets::default(),
    };
    for (index, nal) in NalUnits::new(data, config.length_size()).enumerate() {
        if index >= MAX_NAL_UNITS {
            return Err(H265Error::TooManyNalUnits);
        }
        let nal = nal?;
        if unit.keeps(config, nal) {
            // A NAL unit is shorter than its access unit, which fits its 32-bit size.
            out.put_u32(u32::try_from(nal.len()).unwrap_or(u32::MAX));
            out.put_slice(nal);
        }
    }
    unit.discardable &= unit.has_slices;
    unit.data = out.freeze();
    Ok(unit)
}

impl CleanAu {
    /// Notes what a NAL unit means for the picture; says whether it stays.
    fn keeps(&mut self, config: &HevcConfig, nal: &[u8]) -> bool {
        let Some(header) = Header::of(nal) else {
            return false;
        };
        if header.layer != 0 {
            return false;
        }
        if SLICES.contains(&header.kind) {
            self.has_slices = true;
            self.keyframe |= IRAP.contains(&header.kind);
            self.discardable &= header.is_unreferenced(config.temporal_layers());
        }
        match header.kind {
            AUD | FILLER => false,
            VPS | SPS | PPS => {
                self.note_set(config, header.kind, nal);
                false
            }
            _ => true,
        }
    }

    fn note_set(&mut self, config: &HevcConfig, kind: u8, nal: &[u8]) {
        if config.knows(kind, nal) {
            return;
        }
        let sets = match kind {
            VPS => &mut self.changed.vps,
            SPS => &mut self.changed.sps,
            _ => &mut self.changed.pps,
        };
        sets.push(Bytes::copy_from_slice(trimmed(nal)));
    }
}

/// The two bytes that begin a NAL unit (ITU-T H.265 §7.3.1.2).
#[derive(Clone, Copy)]
struct Header {
    kind: u8,
    layer: u8,
    temporal_id: u8,
}

impl Header {
    fn of(nal: &[u8]) -> Option<Self> {
        let &[first, second, ..] = nal else {
            return None;
        };
        Some(Self {
            kind: first >> 1 & 0x3f,
            layer: (first & 1) << 5 | second >> 3,
            temporal_id: (second & 7).saturating_sub(1),
        })
    }

    /// Non-reference pictures may still be referred to from a higher sub-layer.
    fn is_unreferenced(self, temporal_layers: u8) -> bool {
        self.kind <= LAST_SUB_LAYER_TYPE
            && self.kind.is_multiple_of(2)
            && self.temporal_id + 1 >= temporal_layers
    }
}

#[cfg(test)]
pub(crate) mod tests;
