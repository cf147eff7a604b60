//! Bits out of a byte slice, most significant first; never past its end.

/// A cursor over bits. Every read answers `None` once the slice is used up.
pub(crate) struct Bits<'a> {
    bytes: &'a [u8],
    next: usize,
}

impl<'a> Bits<'a> {
    /// Starts at the first bit of `bytes`.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, next: 0 }
    }

    /// Bits not yet read.
    pub(crate) fn left(&self) -> usize {
        (self.bytes.len() * 8).saturating_sub(self.next)
    }

    /// One bit.
    pub(crate) fn flag(&mut self) -> Option<bool> {
        let byte = self.bytes.get(self.next / 8)?;
        let bit = byte >> (7 - self.next % 8) & 1;
        self.next += 1;
        Some(bit == 1)
    }

    /// An unsigned number of `count` bits, at most 32.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        debug_assert!(count <= 32, "a number of at most 32 bits");
        let mut value = 0;
        for _ in 0..count {
            value = value << 1 | u32::from(self.flag()?);
        }
        Some(value)
    }

    /// Passes over `count` bits.
    pub(crate) fn skip(&mut self, count: u32) -> Option<()> {
        for _ in 0..count {
            self.flag()?;
        }
        Some(())
    }

    /// An unsigned Exp-Golomb number (ITU-T H.264 §9.1).
    pub(crate) fn golomb(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.take(zeros)?)
    }

    /// A signed Exp-Golomb number (ITU-T H.264 §9.1.1).
    pub(crate) fn signed_golomb(&mut self) -> Option<i64> {
        let code = i64::from(self.golomb()?);
        Some(if code % 2 == 1 {
            (code + 1) / 2
        } else {
            -code / 2
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golomb_numbers_follow_the_table_of_the_standard() {
        let bytes = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut bits = Bits::new(&bytes);
        let codes: Vec<_> = (0..5).map(|_| bits.golomb()).collect();
        assert_eq!(codes, [Some(0), Some(1), Some(2), Some(3), Some(4)]);
    }

    #[test]
    fn signed_golomb_alternates_in_sign() {
        let bytes = [0b1010_0110, 0b0100_0010, 0b1000_0000];
        let mut bits = Bits::new(&bytes);
        let codes: Vec<_> = (0..5).filter_map(|_| bits.signed_golomb()).collect();
        assert_eq!(codes, [0, 1, -1, 2, -2]);
    }

    #[test]
    fn nothing_is_read_past_the_end() {
        let mut bits = Bits::new(&[0xff]);
        assert_eq!(bits.take(9), None);
        assert_eq!(Bits::new(&[0; 16]).golomb(), None);
    }
}
