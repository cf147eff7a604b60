//! Sequence parameter sets (ITU-T H.264 §7.3.2.1), as far as the cropping rectangle.

use crate::bits::Bits;
use crate::nal::without_emulation_prevention;

use super::H264Error;

/// Largest picture width or height, in pixels.
///
/// Level 6.2, the highest, ends at 16,888 in theory; no encoder goes beyond 16,384.
pub const MAX_DIMENSION: u32 = 16_384;

/// What a sequence parameter set says about its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sps {
    /// `seq_parameter_set_id`, 0 to 31.
    pub id: u32,
    /// `profile_idc`.
    pub profile: u8,
    /// `chroma_format_idc`, 0 (grey) to 3 (4:4:4).
    pub chroma_format: u8,
    /// Bits per luma sample, 8 to 14.
    pub bit_depth_luma: u8,
    /// Bits per chroma sample, 8 to 14.
    pub bit_depth_chroma: u8,
    /// Picture width in pixels after cropping, 1 to [`MAX_DIMENSION`].
    pub width: u32,
    /// Picture height in pixels after cropping, 1 to [`MAX_DIMENSION`].
    pub height: u32,
}

impl Sps {
    /// Reads an SPS NAL unit, header byte included.
    ///
    /// # Errors
    /// [`H264Error::Truncated`] or [`H264Error::ParameterSet`].
    pub fn parse(nal: &[u8]) -> Result<Self, H264Error> {
        let body = nal
            .get(1..)
            .ok_or(H264Error::Truncated("sequence parameter set"))?;
        let body = without_emulation_prevention(body);
        let mut bits = Bits::new(&body);
        let mut sps =
            parse_head(&mut bits).ok_or(H264Error::Truncated("sequence parameter set"))?;
        if sps.id > 31
            || sps.chroma_format > 3
            || sps.bit_depth_luma > 14
            || sps.bit_depth_chroma > 14
        {
            return Err(H264Error::ParameterSet("id or sample format"));
        }
        skip_picture_order(&mut bits)?;
        let frame =
            Geometry::parse(&mut bits).ok_or(H264Error::Truncated("sequence parameter set"))?;
        (sps.width, sps.height) = frame
            .cropped(sps.chroma_format)
            .ok_or(H264Error::ParameterSet("picture size"))?;
        Ok(sps)
    }
}

fn parse_head(bits: &mut Bits<'_>) -> Option<Sps> {
    let profile = u8::try_from(bits.take(8)?).ok()?;
    bits.skip(16)?;
    let mut sps = Sps {
        id: bits.golomb()?,
        profile,
        chroma_format: 1,
        bit_depth_luma: 8,
        bit_depth_chroma: 8,
        width: 0,
        height: 0,
    };
    if has_sample_format(profile) {
        sps.chroma_format = u8::try_from(bits.golomb()?).unwrap_or(u8::MAX);
        if sps.chroma_format == 3 {
            bits.flag()?;
        }
        sps.bit_depth_luma = bit_depth(bits)?;
        sps.bit_depth_chroma = bit_depth(bits)?;
        bits.flag()?;
        skip_scaling_matrix(bits, sps.chroma_format)?;
    }
    Some(sps)
}

fn has_sample_format(profile: u8) -> bool {
    matches!(
        profile,
        44 | 83 | 86 | 100 | 110 | 118 | 122 | 128 | 134 | 135 | 138 | 139 | 244
    )
}

fn bit_depth(bits: &mut Bits<'_>) -> Option<u8> {
    let depth = u8::try_from(bits.golomb()?).unwrap_or(u8::MAX);
    Some(depth.saturating_add(8))
}

fn skip_scaling_matrix(bits: &mut Bits<'_>, chroma_format: u8) -> Option<()> {
    if !bits.flag()? {
        return Some(());
    }
    let lists = if chroma_format == 3 { 12 } else { 8 };
    for list in 0..lists {
        if bits.flag()? {
            skip_scaling_list(bits, if list < 6 { 16 } else { 64 })?;
        }
    }
    Some(())
}

fn skip_scaling_list(bits: &mut Bits<'_>, size: u32) -> Option<()> {
    let (mut last, mut next) = (8i64, 8i64);
    for _ in 0..size {
        if next != 0 {
            next = (last + bits.signed_golomb()?).rem_euclid(256);
        }
        last = if next == 0 { last } else { next };
    }
    Some(())
}

/// From `log2_max_frame_num` to `gaps_in_frame_num_value_allowed_flag`.
fn skip_picture_order(bits: &mut Bits<'_>) -> Result<(), H264Error> {
    let short = H264Error::Truncated("sequence parameter set");
    bits.golomb().ok_or(short)?;
    match bits.golomb().ok_or(short)? {
        0 => bits.golomb().map(|_| ()).ok_or(short)?,
        1 => skip_order_cycle(bits)?,
        2 => {}
        _ => return Err(H264Error::ParameterSet("picture order count type")),
    }
    bits.golomb().ok_or(short)?;
    bits.skip(1).ok_or(short)
}

fn skip_order_cycle(bits: &mut Bits<'_>) -> Result<(), H264Error> {
    let short = H264Error::Truncated("sequence parameter set");
    bits.skip(1).ok_or(short)?;
    bits.signed_golomb().ok_or(short)?;
    bits.signed_golomb().ok_or(short)?;
    let length = bits.golomb().ok_or(short)?;
    if length > 255 {
        return Err(H264Error::ParameterSet("picture order count cycle"));
    }
    for _ in 0..length {
        bits.signed_golomb().ok_or(short)?;
    }
    Ok(())
}

/// Size in macroblocks, and the cropping rectangle in crop units.
struct Geometry {
    columns: u32,
    map_rows: u32,
    frames_only: bool,
    crop: [u32; 4],
}

impl Geometry {
    fn parse(bits: &mut Bits<'_>) -> Option<Self> {
        let columns = bits.golomb()?.checked_add(1)?;
        let map_rows = bits.golomb()?.checked_add(1)?;
        let frames_only = bits.flag()?;
        if !frames_only {
            bits.flag()?;
        }
        bits.flag()?;
        let mut crop = [0; 4];
        if bits.flag()? {
            for side in &mut crop {
                *side = bits.golomb()?;
            }
        }
        Some(Self {
            columns,
            map_rows,
            frames_only,
            crop,
        })
    }

    /// Width and height in pixels (ITU-T H.264 §7.4.2.1.1, equations 7-19 to 7-22).
    fn cropped(&self, chroma_format: u8) -> Option<(u32, u32)> {
        let fields = if self.frames_only { 1 } else { 2 };
        let (unit_x, unit_y) = match chroma_format {
            1 => (2, 2 * fields),
            2 => (2, fields),
            _ => (1, fields),
        };
        let [left, right, top, bottom] = self.crop;
        let width = side(self.columns, 1, unit_x, left, right)?;
        let height = side(self.map_rows, fields, unit_y, top, bottom)?;
        Some((width, height))
    }
}

fn side(blocks: u32, fields: u32, unit: u32, before: u32, after: u32) -> Option<u32> {
    let full = blocks.checked_mul(16)?.checked_mul(fields)?;
    let crop = before.checked_add(after)?.checked_mul(unit)?;
    let pixels = full.checked_sub(crop)?;
    (1..=MAX_DIMENSION).contains(&pixels).then_some(pixels)
}
