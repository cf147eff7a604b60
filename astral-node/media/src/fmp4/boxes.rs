//! Box headers (ISO/IEC 14496-12 §4.2): where a box starts and how long it is.

use mp4_atom::Atom;

use super::error::{Fmp4Error, FourCc};

/// Most bytes of a box header: size, kind and 64-bit size.
pub const MAX_HEADER: usize = 16;

/// The head of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoxHeader {
    /// The box's name.
    pub kind: FourCc,
    /// Where the header starts, in bytes from the start of the stream or file.
    pub offset: u64,
    /// Bytes of the header: 8 or 16.
    pub header: u8,
    /// Bytes of the body; none if it goes on to the end.
    pub body: Option<u64>,
}

impl BoxHeader {
    /// Reads the header at the start of `bytes`, which stands at `offset`; none if
    /// more bytes are needed.
    ///
    /// # Errors
    /// [`Fmp4Error::BoxSize`] if the size is smaller than the header or passes 2⁶³.
    pub fn parse(bytes: &[u8], offset: u64) -> Result<Option<Self>, Fmp4Error> {
        let Some((&[a, b, c, d, kind @ ..], rest)) = bytes.split_first_chunk::<8>() else {
            return Ok(None);
        };
        let kind = FourCc(kind);
        let (header, size) = match u32::from_be_bytes([a, b, c, d]) {
            0 => (8, None),
            1 => match rest.first_chunk() {
                Some(&long) => (16, Some(u64::from_be_bytes(long))),
                None => return Ok(None),
            },
            size => (8, Some(u64::from(size))),
        };
        let bad = Fmp4Error::BoxSize { kind, offset };
        let body = match size {
            None => None,
            Some(size) => match size.checked_sub(header) {
                Some(body) if offset.checked_add(size).is_some_and(|end| end >> 63 == 0) => {
                    Some(body)
                }
                Some(_) | None => return Err(bad),
            },
        };
        Ok(Some(Self {
            kind,
            offset,
            header: header as u8,
            body,
        }))
    }

    /// Where the body starts.
    pub fn body_offset(&self) -> u64 {
        self.offset + u64::from(self.header)
    }

    /// Where the box ends, if it says so.
    pub fn end(&self) -> Option<u64> {
        self.body.map(|body| self.body_offset() + body)
    }

    /// The body's size, for a box that is held whole in memory.
    ///
    /// # Errors
    /// [`Fmp4Error::BoxTooLarge`]; [`Fmp4Error::Invalid`] if it has no size.
    pub fn bounded_body(&self, limit: u64) -> Result<u64, Fmp4Error> {
        let (kind, offset) = (self.kind, self.offset);
        match self.body {
            Some(size) if size <= limit => Ok(size),
            Some(size) => Err(Fmp4Error::BoxTooLarge {
                kind,
                offset,
                size,
                limit,
            }),
            None => Err(Fmp4Error::Invalid {
                kind,
                offset,
                reason: "it must have a size",
            }),
        }
    }

    /// Decodes the body as `A`.
    ///
    /// # Errors
    /// [`Fmp4Error::Malformed`].
    pub(crate) fn decode<A: Atom>(&self, mut body: &[u8]) -> Result<A, Fmp4Error> {
        A::decode_body(&mut body).map_err(|error| Fmp4Error::Malformed {
            kind: self.kind,
            offset: self.offset,
            error,
        })
    }

    /// An error about this box.
    pub(crate) fn invalid(&self, reason: &'static str) -> Fmp4Error {
        Fmp4Error::Invalid {
            kind: self.kind,
            offset: self.offset,
            reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_of_32_and_64_bits_and_to_the_end_are_read() {
        let parse = |bytes: &[u8]| BoxHeader::parse(bytes, 100).unwrap().unwrap();
        let small = parse(b"\0\0\0\x0cmdatxxxx");
        assert_eq!((small.body_offset(), small.end()), (108, Some(112)));
        let long = parse(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x14");
        assert_eq!((long.body_offset(), long.end()), (116, Some(120)));
        assert_eq!(parse(b"\0\0\0\0mdat").end(), None);
        assert_eq!(BoxHeader::parse(b"\0\0\0\x01mdat\0", 0).unwrap(), None);
    }

    #[test]
    fn sizes_that_cannot_be_name_the_box_and_the_byte() {
        let error = BoxHeader::parse(b"\0\0\0\x07moov", 9).unwrap_err();
        assert_eq!(error.to_string(), "box `moov` at byte 9 has a bad size");
        assert!(BoxHeader::parse(b"\0\0\0\x01moov\xff\xff\xff\xff\xff\xff\xff\xff", 0).is_err());
    }
}
