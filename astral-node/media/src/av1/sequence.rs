//! Sequence headers (AV1 §5.5), as far as the colours.

use super::Av1Error;
use crate::bits::Bits;
use crate::h264::MAX_DIMENSION;

/// `seq_force_screen_content_tools` and its like: each picture says it itself.
const SELECT: u32 = 2;
/// Identity matrix with sRGB's primaries and transfer: 4:4:4 without saying so.
const SRGB: [u32; 3] = [1, 13, 0];

/// What a sequence header says about its pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SequenceHeader {
    /// `seq_profile`: 0 Main, 1 High, 2 Professional.
    pub profile: u8,
    /// `seq_level_idx` of the first operating point; 31 if there is no limit.
    pub level: u8,
    /// `seq_tier` of the first operating point.
    pub high_tier: bool,
    /// Bits per sample: 8, 10 or 12.
    pub bit_depth: u8,
    /// Grey pictures.
    pub monochrome: bool,
    /// Chroma has half the columns, half the rows.
    pub subsampling: (bool, bool),
    /// `chroma_sample_position`, 0 to 3.
    pub chroma_position: u8,
    /// Still pictures with the shortest headers: each one is a key frame.
    pub reduced_still_picture: bool,
    /// Largest picture width in pixels, 1 to [`MAX_DIMENSION`].
    pub width: u32,
    /// Largest picture height in pixels, 1 to [`MAX_DIMENSION`].
    pub height: u32,
}

impl Default for SequenceHeader {
    fn default() -> Self {
        Self {
            profile: 0,
            level: 0,
            high_tier: false,
            bit_depth: 8,
            monochrome: false,
            subsampling: (true, true),
            chroma_position: 0,
            reduced_still_picture: false,
            width: 0,
            height: 0,
        }
    }
}

impl SequenceHeader {
    /// Reads the payload of a sequence header OBU.
    ///
    /// # Errors
    /// [`Av1Error::Truncated`] or [`Av1Error::SequenceHeader`].
    pub fn parse(payload: &[u8]) -> Result<Self, Av1Error> {
        let mut header = Self::default();
        let mut bits = Bits::new(payload);
        let read = header.read(&mut bits);
        read.ok_or(Av1Error::Truncated("sequence header"))?;
        let sides = 1..=MAX_DIMENSION;
        if header.profile > 2 {
            return Err(Av1Error::SequenceHeader("profile"));
        }
        if !sides.contains(&header.width) || !sides.contains(&header.height) {
            return Err(Av1Error::SequenceHeader("picture size"));
        }
        Ok(header)
    }

    /// The three bytes behind the version in a configuration record.
    pub(super) fn record_fields(&self) -> [u8; 3] {
        let bit = |flag: bool, shift: u8| u8::from(flag) << shift;
        let format = bit(self.high_tier, 7)
            | bit(self.bit_depth > 8, 6)
            | bit(self.bit_depth > 10, 5)
            | bit(self.monochrome, 4)
            | bit(self.subsampling.0, 3)
            | bit(self.subsampling.1, 2)
            | self.chroma_position;
        [self.profile << 5 | self.level, format, 0]
    }

    fn read(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        self.profile = bits.take(3)? as u8;
        bits.skip(1)?;
        self.reduced_still_picture = bits.flag()?;
        if self.reduced_still_picture {
            self.level = bits.take(5)? as u8;
        } else {
            self.read_operating_points(bits)?;
        }
        self.read_size(bits)?;
        // 128x128 superblocks, filter intra, intra edge filter.
        bits.skip(3)?;
        if !self.reduced_still_picture {
            skip_tools(bits)?;
        }
        // Superresolution, CDEF, restoration.
        bits.skip(3)?;
        self.read_colours(bits)
    }

    fn read_operating_points(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let mut delay_bits = None;
        if bits.flag()? {
            skip_timing(bits)?;
            if bits.flag()? {
                delay_bits = Some(bits.take(5)? + 1);
                bits.skip(32 + 5 + 5)?;
            }
        }
        let display_delay = bits.flag()?;
        let points = bits.take(5)? + 1;
        for point in 0..points {
            bits.skip(12)?;
            let level = bits.take(5)? as u8;
            let high_tier = level > 7 && bits.flag()?;
            if point == 0 {
                (self.level, self.high_tier) = (level, high_tier);
            }
            if let Some(size) = delay_bits
                && bits.flag()?
            {
                bits.skip(2 * size + 1)?;
            }
            if display_delay && bits.flag()? {
                bits.skip(4)?;
            }
        }
        Some(())
    }

    fn read_size(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let (width_bits, height_bits) = (bits.take(4)? + 1, bits.take(4)? + 1);
        self.width = bits.take(width_bits)? + 1;
        self.height = bits.take(height_bits)? + 1;
        if !self.reduced_still_picture && bits.flag()? {
            bits.skip(4 + 3)?;
        }
        Some(())
    }

    /// `color_config` (§5.5.2).
    fn read_colours(&mut self, bits: &mut Bits<'_>) -> Option<()> {
        let high = bits.flag()?;
        let twelve = self.profile == 2 && high && bits.flag()?;
        self.bit_depth = 8 + 2 * u8::from(high) + 2 * u8::from(twelve);
        self.monochrome = self.profile != 1 && bits.flag()?;
        let mut colours = [2; 3];
        if bits.flag()? {
            for field in &mut colours {
                *field = bits.take(8)?;
            }
        }
        if self.monochrome {
            return Some(());
        }
        if colours == SRGB {
            self.subsampling = (false, false);
            return Some(());
        }
        bits.skip(1)?;
        self.subsampling = match self.profile {
            0 => (true, true),
            1 => (false, false),
            _ if self.bit_depth == 12 => {
                let columns = bits.flag()?;
                (columns, columns && bits.flag()?)
            }
            _ => (true, false),
        };
        if self.subsampling == (true, true) {
            self.chroma_position = bits.take(2)? as u8;
        }
        Some(())
    }
}

/// `timing_info` (§5.5.3).
fn skip_timing(bits: &mut Bits<'_>) -> Option<()> {
    bits.skip(64)?;
    if bits.flag()? {
        skip_uvlc(bits)?;
    }
    Some(())
}

/// `uvlc` (§4.10.3): up to 32 zeros, and as many bits behind a one.
fn skip_uvlc(bits: &mut Bits<'_>) -> Option<()> {
    let mut zeros = 0;
    while !bits.flag()? {
        zeros += 1;
    }
    if zeros < 32 {
        bits.skip(zeros)
    } else {
        Some(())
    }
}

/// From `enable_interintra_compound` to `order_hint_bits_minus_1`.
fn skip_tools(bits: &mut Bits<'_>) -> Option<()> {
    bits.skip(4)?;
    let order_hint = bits.flag()?;
    if order_hint {
        bits.skip(2)?;
    }
    let screen_content = if bits.flag()? { SELECT } else { bits.take(1)? };
    if screen_content > 0 && !bits.flag()? {
        bits.skip(1)?;
    }
    if order_hint {
        bits.skip(3)?;
    }
    Some(())
}
