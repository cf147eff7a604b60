//! QUIC variable-length integers (RFC 9000 §16) and a bounded reader over bytes.

use bytes::BufMut;

use super::WireError;

/// Largest value that a varint holds.
pub(crate) const VARINT_MAX: u64 = (1 << 62) - 1;

/// Appends `value` in the shortest form.
///
/// # Panics
/// If `value` is 2⁶² or more: no field of ours can be.
pub fn put_varint(out: &mut impl BufMut, value: u64) {
    match varint_len(value) {
        1 => out.put_u8(value as u8),
        2 => out.put_u16(0x4000 | value as u16),
        4 => out.put_u32(0x8000_0000 | value as u32),
        _ => {
            assert!(value <= VARINT_MAX, "a varint holds 62 bits");
            out.put_u64(0xc000_0000_0000_0000 | value);
        }
    }
}

/// Bytes that [`put_varint`] takes for `value`.
pub fn varint_len(value: u64) -> usize {
    match value {
        0..0x40 => 1,
        0x40..0x4000 => 2,
        0x4000..0x4000_0000 => 4,
        _ => 8,
    }
}

/// Reads values off a slice and says where it stopped.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if there are fewer.
    pub fn take(&mut self, what: &'static str, count: usize) -> Result<&'a [u8], WireError> {
        let rest = self.rest();
        if rest.len() < count {
            return Err(WireError::Truncated {
                what,
                at: self.bytes.len(),
            });
        }
        self.at += count;
        Ok(&rest[..count])
    }

    /// The next byte.
    ///
    /// # Errors
    /// [`WireError::Truncated`] at the end.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, WireError> {
        Ok(self.take(what, 1)?[0])
    }

    /// The next varint.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if it is cut off.
    pub fn varint(&mut self, what: &'static str) -> Result<u64, WireError> {
        let first = self.u8(what)?;
        let more = (1usize << (first >> 6)) - 1;
        let tail = self.take(what, more)?;
        let start = u64::from(first & 0x3f);
        Ok(tail
            .iter()
            .fold(start, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// The next varint, which must not pass `limit`.
    ///
    /// # Errors
    /// [`WireError::Truncated`], or [`WireError::TooLarge`] beyond the limit.
    pub fn varint_up_to(&mut self, what: &'static str, limit: u64) -> Result<u64, WireError> {
        let value = self.varint(what)?;
        if value > limit {
            return Err(WireError::TooLarge { what, value, limit });
        }
        Ok(value)
    }

    /// The next varint as a 32-bit number.
    ///
    /// # Errors
    /// As [`Reader::varint_up_to`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, WireError> {
        self.varint_up_to(what, u64::from(u32::MAX))
            .map(|value| value as u32)
    }

    /// The next signed number: zigzag in a varint.
    ///
    /// # Errors
    /// As [`Reader::varint`].
    pub fn signed(&mut self, what: &'static str) -> Result<i64, WireError> {
        let value = self.varint(what)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// [`WireError::Trailing`] if something is.
    pub fn end(&self, what: &'static str) -> Result<(), WireError> {
        match self.rest().len() {
            0 => Ok(()),
            count => Err(WireError::Trailing { what, count }),
        }
    }
}

/// Appends a signed number as zigzag in a varint (|value| < 2⁶¹).
pub(crate) fn put_signed(out: &mut impl BufMut, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)) as u64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(value in 0..=VARINT_MAX, signed in -(1i64 << 60)..(1i64 << 60)) {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            put_signed(&mut out, signed);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.varint("value"), Ok(value));
            prop_assert_eq!(reader.signed("signed"), Ok(signed));
            prop_assert_eq!(reader.end("both"), Ok(()));
        }
    }

    #[test]
    fn rfc_9000_examples_decode() {
        let cases: [(&[u8], u64); 4] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
        ];
        for (bytes, value) in cases {
            assert_eq!(Reader::new(bytes).varint("example"), Ok(value));
        }
    }
}
