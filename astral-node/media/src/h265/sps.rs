//! Sequence parameter sets (ITU-T H.265 §7.3.2.2), as far as the bit depths.

use super::H265Error;
use crate::bits::Bits;
use crate::h264::MAX_DIMENSION;
use crate::nal::without_emulation_prevention;

/// Highest `sps_seq_parameter_set_id`.
const MAX_SPS_ID: u32 = 15;
/// Highest `pps_pic_parameter_set_id`.
pub(super) const MAX_PPS_ID: u32 = 63;
/// Bytes of a NAL unit that are read at most: what is wanted ends far before.
const READ_MAX: usize = 256;

/// What a sequence parameter set says about its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    /// `sps_seq_parameter_set_id`, 0 to 15.
    pub id: u32,
    /// Temporal sub-layers at most, 1 to 7.
    pub temporal_layers: u8,
    /// `sps_temporal_id_nesting_flag`.
    pub temporal_id_nesting: bool,
    /// General profile, compatibility, constraints and level, as a record has them.
    pub profile: [u8; 12],
    /// `chroma_format_idc`, 0 (grey) to 3 (4:4:4).
    pub chroma_format: u8,
    /// Bits per luma sample, 8 to 16.
    pub bit_depth_luma: u8,
    /// Bits per chroma sample, 8 to 16.
    pub bit_depth_chroma: u8,
    /// Picture width in pixels after cropping, 1 to [`MAX_DIMENSION`].
    pub width: u32,
    /// Picture height in pixels after cropping, 1 to [`MAX_DIMENSION`].
    pub height: u32,
}

impl Sps {
    /// Reads an SPS NAL unit, its two header bytes included.
    ///
    /// # Errors
    /// [`H265Error::Truncated`] or [`H265Error::ParameterSet`].
    pub fn parse(nal: &[u8]) -> Result<Self, H265Error> {
        let short = H265Error::Truncated("sequence parameter set");
        let body = nal.get(2..nal.len().min(READ_MAX)).ok_or(short)?;
        let body = without_emulation_prevention(body);
        let mut bits = Bits::new(&body);
        let mut sps = head(&mut bits).ok_or(short)?;
        let picture = Picture::parse(&mut bits).ok_or(short)?;
        let depths = [picture.bit_depth_luma, picture.bit_depth_chroma];
        if sps.id > MAX_SPS_ID || picture.chroma_format > 3 || depths.iter().any(|&bits| bits > 8) {
            return Err(H265Error::ParameterSet("id or sample format"));
        }
        // At most 3 and 8, so they fit.
        sps.chroma_format = picture.chroma_format as u8;
        sps.bit_depth_luma = 8 + picture.bit_depth_luma as u8;
        sps.bit_depth_chroma = 8 + picture.bit_depth_chroma as u8;
        (sps.width, sps.height) = picture
            .cropped()
            .ok_or(H265Error::ParameterSet("picture size"))?;
        Ok(sps)
    }
}

/// Everything up to the id.
fn head(bits: &mut Bits<'_>) -> Option<Sps> {
    bits.skip(4)?;
    let sub_layers = bits.take(3)?.min(6);
    let temporal_id_nesting = bits.flag()?;
    let mut profile = [0; 12];
    for byte in &mut profile {
        *byte = bits.take(8)? as u8;
    }
    skip_sub_layers(bits, sub_layers)?;
    Some(Sps {
        id: bits.golomb()?,
        temporal_layers: sub_layers as u8 + 1,
        temporal_id_nesting,
        profile,
        chroma_format: 0,
        bit_depth_luma: 8,
        bit_depth_chroma: 8,
        width: 0,
        height: 0,
    })
}

/// Profiles and levels of the lower temporal sub-layers (§7.3.3).
fn skip_sub_layers(bits: &mut Bits<'_>, sub_layers: u32) -> Option<()> {
    if sub_layers == 0 {
        return Some(());
    }
    let mut skipped = 0;
    for layer in 0..8 {
        let (profile, level) = (bits.flag()?, bits.flag()?);
        if layer < sub_layers {
            skipped += if profile { 88 } else { 0 } + if level { 8 } else { 0 };
        }
    }
    bits.skip(skipped)
}

/// Size in pixels, conformance window in chroma units, and sample format.
struct Picture {
    chroma_format: u32,
    width: u32,
    height: u32,
    crop: [u32; 4],
    bit_depth_luma: u32,
    bit_depth_chroma: u32,
}

impl Picture {
    fn parse(bits: &mut Bits<'_>) -> Option<Self> {
        let chroma_format = bits.golomb()?;
        if chroma_format == 3 {
            bits.flag()?;
        }
        let (width, height) = (bits.golomb()?, bits.golomb()?);
        let mut crop = [0; 4];
        if bits.flag()? {
            for side in &mut crop {
                *side = bits.golomb()?;
            }
        }
        Some(Self {
            chroma_format,
            width,
            height,
            crop,
            bit_depth_luma: bits.golomb()?,
            bit_depth_chroma: bits.golomb()?,
        })
    }

    fn cropped(&self) -> Option<(u32, u32)> {
        let (unit_x, unit_y) = match self.chroma_format {
            1 => (2, 2),
            2 => (2, 1),
            _ => (1, 1),
        };
        let [left, right, top, bottom] = self.crop;
        let width = side(self.width, unit_x, left, right)?;
        let height = side(self.height, unit_y, top, bottom)?;
        Some((width, height))
    }
}

fn side(full: u32, unit: u32, before: u32, after: u32) -> Option<u32> {
    let crop = before.checked_add(after)?.checked_mul(unit)?;
    let pixels = full.checked_sub(crop)?;
    (1..=MAX_DIMENSION).contains(&pixels).then_some(pixels)
}
