//! Open bitstream units: headers and sizes (AV1 §5.3, low-overhead format).

use bytes::{BufMut, BytesMut};

use super::Av1Error;

/// Most bytes of a `leb128` number (§4.10.5).
const LEB128_MAX: usize = 8;

/// One unit, its header taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Obu<'a> {
    /// `obu_type`, four bits.
    pub(super) kind: u8,
    /// The byte of temporal and spatial layer, if there is one.
    pub(super) extension: Option<u8>,
    pub(super) payload: &'a [u8],
}

/// The OBUs of a temporal unit; stops after the first error.
pub(super) struct Obus<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Obus<'a> {
    pub(super) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    fn step(&mut self) -> Option<Obu<'a>> {
        let mut at = self.at;
        let mut byte = || {
            let byte = self.data.get(at).copied();
            at += 1;
            byte
        };
        let header = byte()?;
        // The forbidden bit.
        if header & 0x80 != 0 {
            return None;
        }
        let extension = if header & 4 == 0 { None } else { Some(byte()?) };
        // Without a size, the unit goes on to the end.
        let size = if header & 2 == 0 {
            None
        } else {
            let mut value = 0u64;
            for index in 0..LEB128_MAX {
                let next = byte()?;
                value |= u64::from(next & 0x7f) << (7 * index);
                if next & 0x80 == 0 {
                    break;
                }
                if index + 1 == LEB128_MAX {
                    return None;
                }
            }
            Some(usize::try_from(value).ok()?)
        };
        let end = match size {
            Some(size) => at.checked_add(size)?,
            None => self.data.len(),
        };
        let payload = self.data.get(at..end)?;
        self.at = end;
        Some(Obu {
            kind: header >> 3 & 0x0f,
            extension,
            payload,
        })
    }
}

impl<'a> Iterator for Obus<'a> {
    type Item = Result<Obu<'a>, Av1Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.data.len() {
            return None;
        }
        let (at, size) = (self.at, self.data.len());
        let obu = self.step();
        if obu.is_none() {
            self.at = size;
        }
        Some(obu.ok_or(Av1Error::Obu { at, size }))
    }
}

/// Writes a unit with its size, in the shortest form.
pub(super) fn put_obu(out: &mut BytesMut, kind: u8, extension: Option<u8>, payload: &[u8]) {
    let extended = if extension.is_some() { 4 } else { 0 };
    out.put_u8(kind << 3 | extended | 2);
    if let Some(extension) = extension {
        out.put_u8(extension);
    }
    let mut size = payload.len();
    while size >= 0x80 {
        out.put_u8(size as u8 | 0x80);
        size >>= 7;
    }
    out.put_u8(size as u8);
    out.put_slice(payload);
}
