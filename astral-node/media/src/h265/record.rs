//! `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §8.3.3.1), read and written.

use bytes::{BufMut, Bytes, BytesMut};

use super::sps::{self, Sps};
use super::{H265Error, Header, PPS, PREFIX_SEI, ParameterSets, SPS, VPS};
use crate::bits::Bits;
use crate::nal::trimmed;
use crate::track::CodecConfig;

/// Longest record that is written, in bytes: what the catalog takes.
///
/// Real ones have 90 to 300 without the encoder's own words.
pub const MAX_RECORD: usize = 4096;
/// Longest record that is read, in bytes; x265 adds 2 KiB of words, others little.
pub const MAX_SOURCE_RECORD: usize = 64 << 10;

/// Bytes of a record before its arrays.
const HEAD: usize = 23;
/// SEI payload type of an encoder's words about itself.
const USER_DATA_UNREGISTERED: u8 = 5;
/// Set on arrays of a record whose sets do not also come within pictures.
const COMPLETE: u8 = 0x80;

/// A decoder configuration, checked, with the record that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HevcConfig {
    record: Bytes,
    head: [u8; HEAD],
    length_size: u8,
    sets: ParameterSets,
    /// SEI of the whole stream, such as the colours of its mastering display.
    sei: Vec<Bytes>,
    first: Option<Sps>,
}

impl HevcConfig {
    /// A configuration without parameter sets, for access units with four-byte NAL
    /// lengths: they are to come within the first picture.
    pub fn empty() -> Self {
        let mut head = [0; HEAD];
        head[0] = 1;
        Self::new(head, 4, ParameterSets::default(), Vec::new())
            .expect("a record without sets is neither long nor broken")
    }

    /// Reads an `HEVCDecoderConfigurationRecord` (the body of `hvcC`).
    ///
    /// A record without parameter sets (`hev1`) is taken; it is not
    /// [complete](Self::is_complete) until [`Self::with_parameter_sets`].
    ///
    /// # Errors
    /// See [`H265Error`]; the record's length is checked first.
    pub fn parse(record: &[u8]) -> Result<Self, H265Error> {
        if record.len() > MAX_SOURCE_RECORD {
            return Err(H265Error::RecordTooLong(record.len()));
        }
        let short = H265Error::Truncated("configuration record");
        let (head, arrays) = record.split_first_chunk::<HEAD>().ok_or(short)?;
        // Encoders of the first years wrote 0.
        if head[0] > 1 {
            return Err(H265Error::Version(head[0]));
        }
        let length_size = (head[21] & 3) + 1;
        if length_size == 3 {
            return Err(H265Error::LengthSize(length_size));
        }
        let (sets, sei) = read_arrays(arrays, head[22])?;
        Self::new(*head, length_size, sets, sei)
    }

    fn new(
        head: [u8; HEAD],
        length_size: u8,
        sets: ParameterSets,
        sei: Vec<Bytes>,
    ) -> Result<Self, H265Error> {
        let first = sets.sps.first().map(|nal| Sps::parse(nal)).transpose()?;
        let mut config = Self {
            record: Bytes::new(),
            head,
            length_size,
            sets,
            sei,
            first,
        };
        config.record = config.write()?;
        Ok(config)
    }

    /// The record as `hvc1` wants it: four-byte lengths, complete arrays of parameter
    /// sets, and of the SEI what is not an encoder's words about itself.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// Bytes of each NAL length in the source's access units: 1, 2 or 4.
    pub fn length_size(&self) -> u8 {
        self.length_size
    }

    /// Whether a decoder can start with the record alone.
    pub fn is_complete(&self) -> bool {
        let sets = &self.sets;
        !sets.vps.is_empty() && self.first.is_some() && !sets.pps.is_empty()
    }

    /// Picture width and height in pixels after cropping; none without an SPS.
    pub fn size(&self) -> Option<(u32, u32)> {
        self.first.map(|sps| (sps.width, sps.height))
    }

    /// Temporal sub-layers at most, 1 to 7; 1 without an SPS.
    pub fn temporal_layers(&self) -> u8 {
        self.first.map_or(1, |sps| sps.temporal_layers)
    }

    /// The parameter sets, as NAL units without length: for containers that want them
    /// within pictures.
    pub fn parameter_sets(&self) -> &ParameterSets {
        &self.sets
    }

    /// ISO/IEC 14496-15 §E.3, such as `hvc1.1.6.L93.90`.
    pub fn codec_string(&self) -> String {
        let [_, profile, a, b, c, d, constraints @ .., level] = self.profile();
        let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
        let compatibility = u32::from_be_bytes([a, b, c, d]).reverse_bits();
        let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
        let mut name = format!(
            "hvc1.{space}{}.{compatibility:x}.{tier}{level}",
            profile & 0x1f
        );
        let end = constraints.iter().rposition(|&byte| byte != 0);
        for byte in end.map_or(&[][..], |end| &constraints[..=end]) {
            name.push_str(&format!(".{byte:x}"));
        }
        name
    }

    /// The record's first 13 bytes: version, profile, compatibility, constraints, level.
    fn profile(&self) -> [u8; 13] {
        let mut profile = [0; 13];
        profile.copy_from_slice(&self.head[..13]);
        profile
    }

    /// The track's configuration, once [complete](Self::is_complete).
    pub fn codec_config(&self) -> Option<CodecConfig> {
        let (width, height) = self.size().filter(|_| self.is_complete())?;
        Some(CodecConfig::H265 {
            hvcc: self.record.clone(),
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
    /// [`H265Error`] if a set does not parse or the record gets too long.
    pub fn with_parameter_sets(&self, sets: &ParameterSets) -> Result<Self, H265Error> {
        let mut next = self.sets.clone();
        for vps in &sets.vps {
            replace(&mut next.vps, vps, vps_id)?;
        }
        for sps in &sets.sps {
            replace(&mut next.sps, sps, sps_id)?;
        }
        for pps in &sets.pps {
            replace(&mut next.pps, pps, pps_id)?;
        }
        let mut head = self.head;
        if let (false, Some(first)) = (sets.sps.is_empty(), next.sps.first()) {
            head = head_of(&Sps::parse(first)?);
        }
        Self::new(head, self.length_size, next, self.sei.clone())
    }

    /// Whether the record has this NAL unit, trailing zeros aside.
    pub(super) fn knows(&self, kind: u8, nal: &[u8]) -> bool {
        let sets = match kind {
            VPS => &self.sets.vps,
            SPS => &self.sets.sps,
            _ => &self.sets.pps,
        };
        sets.iter().any(|set| trimmed(set) == trimmed(nal))
    }

    fn write(&self) -> Result<Bytes, H265Error> {
        let arrays = [
            (VPS | COMPLETE, &self.sets.vps),
            (SPS | COMPLETE, &self.sets.sps),
            (PPS | COMPLETE, &self.sets.pps),
            (PREFIX_SEI, &self.sei),
        ];
        let arrays: Vec<_> = arrays.iter().filter(|(_, nals)| !nals.is_empty()).collect();
        let mut out = BytesMut::new();
        out.put_slice(&self.head);
        out[0] = 1;
        out[21] |= 3;
        out[22] = arrays.len() as u8;
        for (kind, nals) in arrays {
            out.put_u8(*kind);
            out.put_u16(u16::try_from(nals.len()).unwrap_or(u16::MAX));
            for nal in *nals {
                let bad = H265Error::ParameterSet("length");
                out.put_u16(u16::try_from(nal.len()).map_err(|_| bad)?);
                out.put_slice(nal);
            }
        }
        // So counts and lengths, too, were small enough for their fields.
        if out.len() > MAX_RECORD {
            return Err(H265Error::RecordTooLong(out.len()));
        }
        Ok(out.freeze())
    }
}

/// The arrays behind the head: parameter sets, and the SEI to keep.
fn read_arrays(mut rest: &[u8], count: u8) -> Result<(ParameterSets, Vec<Bytes>), H265Error> {
    let short = H265Error::Truncated("configuration record");
    let (mut sets, mut sei) = (ParameterSets::default(), Vec::new());
    for _ in 0..count {
        let (&[_, high, low], tail) = rest.split_first_chunk::<3>().ok_or(short)?;
        rest = tail;
        for _ in 0..u16::from_be_bytes([high, low]) {
            let (&length, tail) = rest.split_first_chunk::<2>().ok_or(short)?;
            let length = usize::from(u16::from_be_bytes(length));
            let (nal, tail) = tail.split_at_checked(length).ok_or(short)?;
            rest = tail;
            // The NAL unit says better than the array what it is.
            let Some(header) = Header::of(nal).filter(|header| header.layer == 0) else {
                continue;
            };
            let list = match header.kind {
                VPS => &mut sets.vps,
                SPS => &mut sets.sps,
                PPS => &mut sets.pps,
                PREFIX_SEI if nal.get(2) != Some(&USER_DATA_UNREGISTERED) => &mut sei,
                _ => continue,
            };
            list.push(Bytes::copy_from_slice(nal));
        }
    }
    Ok((sets, sei))
}

/// A record's head as an SPS has it; what only the encoder could know is unknown (0).
fn head_of(sps: &Sps) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[0] = 1;
    head[1..13].copy_from_slice(&sps.profile);
    // Reserved bits are ones; segmentation and parallelism are not known.
    head[13] = 0xf0;
    head[15] = 0xfc;
    head[16] = 0xfc | sps.chroma_format;
    head[17] = 0xf8 | sps.bit_depth_luma.saturating_sub(8);
    head[18] = 0xf8 | sps.bit_depth_chroma.saturating_sub(8);
    head[21] = sps.temporal_layers << 3 | u8::from(sps.temporal_id_nesting) << 2 | 3;
    head
}

fn vps_id(nal: &[u8]) -> Result<u32, H265Error> {
    let first = nal.get(2).ok_or(H265Error::Truncated("parameter set"))?;
    Ok(u32::from(first >> 4))
}

fn sps_id(nal: &[u8]) -> Result<u32, H265Error> {
    Sps::parse(nal).map(|sps| sps.id)
}

fn pps_id(nal: &[u8]) -> Result<u32, H265Error> {
    let id = nal.get(2..).and_then(|body| Bits::new(body).golomb());
    id.filter(|&id| id <= sps::MAX_PPS_ID)
        .ok_or(H265Error::ParameterSet("picture parameter set id"))
}

fn replace(
    sets: &mut Vec<Bytes>,
    set: &Bytes,
    id_of: fn(&[u8]) -> Result<u32, H265Error>,
) -> Result<(), H265Error> {
    let id = id_of(set)?;
    match sets.iter_mut().find(|old| id_of(old) == Ok(id)) {
        Some(old) => *old = set.clone(),
        None => sets.push(set.clone()),
    }
    Ok(())
}
