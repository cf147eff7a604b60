//! NAL units, as H.264 and H.265 share them (ISO/IEC 14496-15 §4.3, ITU-T H.264 and
//! H.265 §7.3.1).

use thiserror::Error;

/// Most NAL units in one access unit.
///
/// A picture of 8,160 macroblocks (1080p) may have as many slices; more is an attack.
pub const MAX_NAL_UNITS: usize = 8192;

/// A NAL unit claims more bytes than its access unit has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("NAL unit at byte {at} of an access unit of {size} bytes runs past its end")]
pub struct NalLength {
    /// Where the NAL unit's length field stands.
    pub at: usize,
    /// Size of the access unit.
    pub size: usize,
}

/// The NAL units of a length-prefixed access unit; stops after the first error.
#[derive(Clone, Debug)]
pub struct NalUnits<'a> {
    data: &'a [u8],
    at: usize,
    length_size: u8,
}

impl<'a> NalUnits<'a> {
    /// `length_size` is the configuration record's: bytes of each length, 1 to 4.
    pub fn new(data: &'a [u8], length_size: u8) -> Self {
        Self {
            data,
            at: 0,
            length_size,
        }
    }

    fn step(&mut self) -> Option<&'a [u8]> {
        let start = self.at.checked_add(usize::from(self.length_size))?;
        let prefix = self.data.get(self.at..start)?;
        let length = prefix
            .iter()
            .fold(0usize, |length, &byte| length << 8 | usize::from(byte));
        let end = start.checked_add(length)?;
        let nal = self.data.get(start..end)?;
        self.at = end;
        Some(nal)
    }
}

impl<'a> Iterator for NalUnits<'a> {
    type Item = Result<&'a [u8], NalLength>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.data.len() {
            return None;
        }
        let (at, size) = (self.at, self.data.len());
        let nal = self.step();
        if nal.is_none() {
            self.at = size;
        }
        Some(nal.ok_or(NalLength { at, size }))
    }
}

/// NAL units may end in zero bytes that mean nothing (ITU-T H.264 §7.4.1).
pub(crate) fn trimmed(nal: &[u8]) -> &[u8] {
    let end = nal.iter().rposition(|&byte| byte != 0);
    end.map_or(&[], |end| &nal[..=end])
}

/// 00 00 03 stands for 00 00 (ITU-T H.264 §7.4.1).
pub(crate) fn without_emulation_prevention(nal: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(nal.len());
    let mut zeros = 0;
    for &byte in nal {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        out.push(byte);
    }
    out
}
