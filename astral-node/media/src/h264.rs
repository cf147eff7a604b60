//! H.264 as containers carry it: configuration records and length-prefixed access units.
//!
//! Follows ISO/IEC 14496-15 §5.3 (record, lengths) and ITU-T H.264 §7.3 (NAL units).
//! Everything that leaves here has four-byte NAL lengths and its parameter sets in
//! the record only, as sample entry `avc1` wants. Slices are never decoded.

mod sps;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::bits::Bits;
pub use crate::nal::{MAX_NAL_UNITS, NalUnits};
use crate::nal::{NalLength, trimmed};
use crate::track::CodecConfig;
pub use sps::{MAX_DIMENSION, Sps};

/// Longest `AVCDecoderConfigurationRecord` taken, in bytes.
///
/// Real ones have 30 to 200; the catalog that carries it has 64 KiB in all.
pub const MAX_RECORD: usize = 4096;

const SLICES: std::ops::RangeInclusive<u8> = 1..=5;
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const AUD: u8 = 9;
const END_OF_SEQUENCE: u8 = 10;
const END_OF_STREAM: u8 = 11;
const FILLER: u8 = 12;
const SPS_EXTENSION: u8 = 13;

/// Why H.264 bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum H264Error {
    /// The record or a parameter set ends too early.
    #[error("H.264 {0} is cut short")]
    Truncated(&'static str),
    /// `configurationVersion` is not 1.
    #[error("H.264 configuration record has version {0}, only 1 is known")]
    Version(u8),
    /// NAL lengths of three bytes are not allowed by the standard.
    #[error("H.264 configuration record asks for NAL lengths of {0} bytes")]
    LengthSize(u8),
    /// The record passes [`MAX_RECORD`].
    #[error("H.264 configuration record of {0} bytes is longer than 4096")]
    RecordTooLong(usize),
    /// A parameter set holds a value that the standard or our limits exclude.
    #[error("H.264 parameter set has a bad {0}")]
    ParameterSet(&'static str),
    /// A NAL unit claims more bytes than its access unit has.
    #[error("H.264 {0}")]
    NalLength(#[from] NalLength),
    /// The access unit has more than [`MAX_NAL_UNITS`] NAL units.
    #[error("H.264 access unit has more than 8192 NAL units")]
    TooManyNalUnits,
}

/// A decoder configuration, checked, with the record that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AvcConfig {
    record: Bytes,
    length_size: u8,
    sps: Vec<Bytes>,
    pps: Vec<Bytes>,
    extension: Bytes,
    extension_sets: Vec<Bytes>,
    size: Option<(u32, u32)>,
}

impl AvcConfig {
    /// Reads an `AVCDecoderConfigurationRecord` (the body of `avcC`).
    ///
    /// A record without parameter sets (`avc3`) is taken; it is not
    /// [complete](Self::is_complete) until [`Self::with_parameter_sets`].
    ///
    /// # Errors
    /// See [`H264Error`]; the record's length is checked first.
    pub fn parse(record: &[u8]) -> Result<Self, H264Error> {
        if record.len() > MAX_RECORD {
            return Err(H264Error::RecordTooLong(record.len()));
        }
        let [version, _, _, _, lengths, sps_count, rest @ ..] = record else {
            return Err(H264Error::Truncated("configuration record"));
        };
        if *version != 1 {
            return Err(H264Error::Version(*version));
        }
        let length_size = (lengths & 3) + 1;
        if length_size == 3 {
            return Err(H264Error::LengthSize(length_size));
        }
        let (sps, rest) = parameter_sets(rest, sps_count & 0x1f)?;
        let (&pps_count, rest) = rest
            .split_first()
            .ok_or(H264Error::Truncated("configuration record"))?;
        let (pps, rest) = parameter_sets(rest, pps_count)?;
        let mut config = Self {
            record: four_byte_lengths(record),
            length_size,
            size: picture_size(&sps)?,
            sps,
            pps,
            extension: Bytes::copy_from_slice(rest),
            extension_sets: Vec::new(),
        };
        config.extension_sets = config.parse_extension();
        Ok(config)
    }

    /// The record, always saying four-byte lengths; otherwise as it was parsed.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// A configuration without parameter sets, for access units with four-byte NAL
    /// lengths: they are to come within the first picture.
    pub fn empty() -> Self {
        Self::parse(&[1, 0, 0, 0, 0xff, 0xe0, 0])
            .expect("a record without sets is neither long nor broken")
    }

    /// The parameter sets, as NAL units without length: for containers that want them
    /// within pictures. Those of auxiliary pictures are not among them.
    pub fn parameter_sets(&self) -> ParameterSets {
        ParameterSets {
            sps: self.sps.clone(),
            pps: self.pps.clone(),
        }
    }

    /// Bytes of each NAL length in the source's access units: 1, 2 or 4.
    pub fn length_size(&self) -> u8 {
        self.length_size
    }

    /// Whether a decoder can start with the record alone.
    pub fn is_complete(&self) -> bool {
        self.size.is_some() && !self.pps.is_empty()
    }

    /// Picture width and height in pixels after cropping; none without an SPS.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.size
    }

    /// RFC 6381 §3.3: `avc1.` and profile, constraints and level in hexadecimal.
    pub fn codec_string(&self) -> String {
        let [profile, constraints, level] = self.profile();
        format!("avc1.{profile:02x}{constraints:02x}{level:02x}")
    }

    /// `profile_idc`, constraint flags and `level_idc` of the record.
    pub fn profile(&self) -> [u8; 3] {
        match self.record.get(1..4) {
            Some(&[profile, constraints, level]) => [profile, constraints, level],
            Some(_) | None => [0; 3],
        }
    }

    /// The track's configuration, once [complete](Self::is_complete).
    pub fn codec_config(&self) -> Option<CodecConfig> {
        let (width, height) = self.size.filter(|_| self.is_complete())?;
        Some(CodecConfig::H264 {
            avcc: self.record.clone(),
            width,
            height,
        })
    }

    /// A configuration with these parameter sets in place of those with the same
    /// id, and after the others.
    ///
    /// The source's length size is kept, for the access units to come.
    ///
    /// # Errors
    /// [`H264Error`] if a set does not parse or the record gets too long.
    pub fn with_parameter_sets(&self, sets: &ParameterSets) -> Result<Self, H264Error> {
        let mut next = self.clone();
        for sps in &sets.sps {
            replace(&mut next.sps, sps, sps_id)?;
        }
        for pps in &sets.pps {
            replace(&mut next.pps, pps, pps_id)?;
        }
        next.size = picture_size(&next.sps)?;
        if !sets.sps.is_empty() {
            next.extension = extension_of(&next.sps)?;
            next.extension_sets = Vec::new();
        }
        next.record = next.write_record()?;
        Ok(next)
    }

    fn write_record(&self) -> Result<Bytes, H264Error> {
        let profile = match self.sps.first().and_then(|sps| sps.get(1..4)) {
            Some(&[profile, constraints, level]) => [profile, constraints, level],
            Some(_) | None => self.profile(),
        };
        let count = |sets: &[Bytes], most: u8| {
            u8::try_from(sets.len())
                .ok()
                .filter(|&count| count <= most)
                .ok_or(H264Error::ParameterSet("count"))
        };
        let mut out = BytesMut::new();
        out.put_u8(1);
        out.put_slice(&profile);
        out.put_u8(0xff);
        out.put_u8(0xe0 | count(&self.sps, 31)?);
        put_sets(&mut out, &self.sps)?;
        out.put_u8(count(&self.pps, 255)?);
        put_sets(&mut out, &self.pps)?;
        out.put_slice(&self.extension);
        if out.len() > MAX_RECORD {
            return Err(H264Error::RecordTooLong(out.len()));
        }
        Ok(out.freeze())
    }

    /// The SPS extensions behind the bit depths; writers leave them out or pad.
    fn parse_extension(&self) -> Vec<Bytes> {
        let sets = match self.extension.as_ref() {
            [_, _, _, count, rest @ ..] => parameter_sets(rest, *count).ok(),
            _ => None,
        };
        sets.map(|(sets, _)| sets).unwrap_or_default()
    }

    fn knows(&self, kind: u8, nal: &[u8]) -> bool {
        let sets = match kind {
            SPS => &self.sps,
            PPS => &self.pps,
            _ => &self.extension_sets,
        };
        sets.iter().any(|set| trimmed(set) == trimmed(nal))
    }
}

/// Parameter sets found inside an access unit, as NAL units without length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterSets {
    /// Sequence parameter sets.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets.
    pub pps: Vec<Bytes>,
}

impl ParameterSets {
    /// Whether there is neither kind.
    pub fn is_empty(&self) -> bool {
        self.sps.is_empty() && self.pps.is_empty()
    }
}

/// One access unit, fit for an `avc1` track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanAu {
    /// NAL units behind four-byte lengths, in memory of their own.
    pub data: Bytes,
    /// It has an IDR slice: a decoder can start here.
    pub keyframe: bool,
    /// No other picture refers to it: all slices have `nal_ref_idc` 0.
    pub discardable: bool,
    /// It has a slice at all; without one there is nothing to show or to send.
    pub has_slices: bool,
    /// Parameter sets that differ from the record's and were taken out: make a new
    /// record of them ([`AvcConfig::with_parameter_sets`]) before this picture.
    pub changed: ParameterSets,
}

/// Takes out of an access unit what does not belong in an `avc1` sample.
///
/// Delimiters, filler, ends of sequence and stream, parameter sets and empty NAL
/// units go; what remains keeps its bytes, so that an access unit from which nothing
/// had to go comes out as it went in (apart from lengths of one or two bytes).
///
/// # Errors
/// [`H264Error::NalLength`] if lengths do not add up, [`H264Error::TooManyNalUnits`].
pub fn clean_access_unit(config: &AvcConfig, data: &[u8]) -> Result<CleanAu, H264Error> {
    let mut out = BytesMut::with_capacity(data.len());
    let mut unit = CleanAu {
        data: Bytes::new(),
        keyframe: false,
        discardable: true,
        has_slices: false,
        changed: ParameterSets::default(),
    };
    for (index, nal) in NalUnits::new(data, config.length_size).enumerate() {
        if index >= MAX_NAL_UNITS {
            return Err(H264Error::TooManyNalUnits);
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
    fn keeps(&mut self, config: &AvcConfig, nal: &[u8]) -> bool {
        let Some(&header) = nal.first() else {
            return false;
        };
        let kind = header & 0x1f;
        if SLICES.contains(&kind) {
            self.has_slices = true;
            self.keyframe |= kind == IDR;
            self.discardable &= header & 0x60 == 0;
        }
        match kind {
            AUD | END_OF_SEQUENCE | END_OF_STREAM | FILLER => false,
            SPS | PPS => {
                self.note_set(config, kind, nal);
                false
            }
            SPS_EXTENSION => !config.knows(kind, nal),
            _ => true,
        }
    }

    fn note_set(&mut self, config: &AvcConfig, kind: u8, nal: &[u8]) {
        if config.knows(kind, nal) {
            return;
        }
        let sets = if kind == SPS {
            &mut self.changed.sps
        } else {
            &mut self.changed.pps
        };
        sets.push(Bytes::copy_from_slice(trimmed(nal)));
    }
}

fn four_byte_lengths(record: &[u8]) -> Bytes {
    let mut record = record.to_vec();
    if let Some(lengths) = record.get_mut(4) {
        *lengths |= 3;
    }
    Bytes::from(record)
}

fn parameter_sets(mut rest: &[u8], count: u8) -> Result<(Vec<Bytes>, &[u8]), H264Error> {
    let short = H264Error::Truncated("configuration record");
    let mut sets = Vec::new();
    for _ in 0..count {
        let (length, tail) = rest.split_first_chunk::<2>().ok_or(short)?;
        let (set, tail) = tail
            .split_at_checked(usize::from(u16::from_be_bytes(*length)))
            .ok_or(short)?;
        sets.push(Bytes::copy_from_slice(set));
        rest = tail;
    }
    Ok((sets, rest))
}

fn put_sets(out: &mut BytesMut, sets: &[Bytes]) -> Result<(), H264Error> {
    for set in sets {
        let length = u16::try_from(set.len()).map_err(|_| H264Error::ParameterSet("length"))?;
        out.put_u16(length);
        out.put_slice(set);
    }
    Ok(())
}

fn picture_size(sps: &[Bytes]) -> Result<Option<(u32, u32)>, H264Error> {
    let first = sps.first().map(|nal| Sps::parse(nal)).transpose()?;
    Ok(first.map(|sps| (sps.width, sps.height)))
}

/// Chroma format and bit depths, which the record repeats for the high profiles.
fn extension_of(sps: &[Bytes]) -> Result<Bytes, H264Error> {
    let Some(sps) = sps.first().map(|nal| Sps::parse(nal)).transpose()? else {
        return Ok(Bytes::new());
    };
    if !matches!(sps.profile, 100 | 110 | 122 | 144) {
        return Ok(Bytes::new());
    }
    let depths = [
        0xfc | sps.chroma_format,
        0xf8 | sps.bit_depth_luma.saturating_sub(8),
        0xf8 | sps.bit_depth_chroma.saturating_sub(8),
        0,
    ];
    Ok(Bytes::copy_from_slice(&depths))
}

fn sps_id(nal: &[u8]) -> Result<u32, H264Error> {
    Sps::parse(nal).map(|sps| sps.id)
}

fn pps_id(nal: &[u8]) -> Result<u32, H264Error> {
    let id = nal.get(1..).and_then(|body| Bits::new(body).golomb());
    id.filter(|&id| id <= 255)
        .ok_or(H264Error::ParameterSet("picture parameter set id"))
}

fn replace(
    sets: &mut Vec<Bytes>,
    set: &Bytes,
    id_of: fn(&[u8]) -> Result<u32, H264Error>,
) -> Result<(), H264Error> {
    let id = id_of(set)?;
    match sets.iter_mut().find(|old| id_of(old) == Ok(id)) {
        Some(old) => *old = set.clone(),
        None => sets.push(set.clone()),
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests;
