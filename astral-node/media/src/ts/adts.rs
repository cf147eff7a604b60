//! AAC frames behind ADTS headers (ISO/IEC 14496-3 §1.A.3.2).

use bytes::{BufMut as _, BytesMut};

use crate::aac::AudioSpecificConfig;

/// Bytes of a header without a checksum.
pub(super) const HEADER: usize = 7;
/// Longest frame with its header: 13 bits.
pub(super) const FRAME_MAX: usize = 0x1fff;

/// What an ADTS header says of the frame behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// `AudioSpecificConfig`, two bytes.
    pub(super) config: [u8; 2],
    /// Bytes of header and frame.
    pub(super) length: usize,
    /// Bytes of the header: 7, or 9 with a checksum.
    pub(super) start: usize,
    /// It can be carried: one block, and channels that the header names.
    pub(super) is_plain: bool,
}

impl Header {
    /// Reads a header of at least [`HEADER`] bytes; none if it is none.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[b0, b1, b2, b3, b4, b5, b6] = bytes.first_chunk::<HEADER>()?;
        let rate = b2 >> 2 & 0x0f;
        if b0 != 0xff || b1 & 0xf6 != 0xf0 || rate > 12 {
            return None;
        }
        let object_type = (b2 >> 6) + 1;
        let channels = (b2 & 1) << 2 | b3 >> 6;
        let length = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5);
        let start = if b1 & 1 == 1 { HEADER } else { HEADER + 2 };
        (length > start).then_some(Self {
            config: [
                object_type << 3 | rate >> 1,
                (rate & 1) << 7 | channels << 3,
            ],
            length,
            start,
            is_plain: channels != 0 && b6 & 3 == 0,
        })
    }
}

/// Frames out of bytes that may be cut anywhere.
#[derive(Debug, Default)]
pub(super) struct Reader {
    input: Vec<u8>,
    /// Bytes of `input` that are done with.
    at: usize,
}

impl Reader {
    /// Bytes that have not become a frame.
    pub(super) fn buffered(&self) -> usize {
        self.input.len() - self.at
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.input.drain(..self.at);
        self.at = 0;
        self.input.extend_from_slice(bytes);
    }

    /// Forgets what is left: something behind it was lost.
    pub(super) fn clear(&mut self) {
        self.input.clear();
        self.at = 0;
    }

    /// The next frame's header, its bytes, and how many bytes were left where it began.
    pub(super) fn next(&mut self) -> Option<(Header, &[u8], usize)> {
        loop {
            let rest = self
                .input
                .get(self.at..)
                .filter(|rest| rest.len() >= HEADER)?;
            let header = Header::parse(rest);
            let Some(header) = header.filter(|header| is_followed(rest, header.length)) else {
                self.at += 1;
                continue;
            };
            if rest.len() < header.length {
                return None;
            }
            let (begin, left) = (self.at, rest.len());
            self.at += header.length;
            return Some((header, &self.input[begin + header.start..self.at], left));
        }
    }
}

/// Whether the next frame begins there, as far as can be seen.
fn is_followed(bytes: &[u8], length: usize) -> bool {
    match bytes.get(length..length + 2) {
        Some(next) => next[0] == 0xff && next[1] & 0xf6 == 0xf0,
        None => true,
    }
}

/// A header of frames with one configuration, for writing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Writer([u8; 4]);

impl Writer {
    /// None if ADTS cannot say what `asc` says: other rates than the usual ones,
    /// channels told by a program configuration, frames of 960 samples.
    pub(super) fn new(asc: &[u8]) -> Option<Self> {
        let config = AudioSpecificConfig::parse(asc).ok()?;
        let rate = crate::aac::rate_index(config.sample_rate)?;
        let channels = match config.channels {
            8 => 7,
            7 => return None,
            channels => channels,
        };
        // Channels of a program configuration could be in another order.
        let has_table = config.object_type == config.core_type && asc.get(1)? & 0x78 == 0;
        if has_table || config.samples_per_frame != 1024 {
            return None;
        }
        let second = (config.core_type - 1) << 6 | rate << 2 | channels >> 2;
        Some(Self([0xff, 0xf1, second, (channels & 3) << 6]))
    }

    /// Writes a frame behind its header; false if it is too long for one.
    pub(super) fn put(&self, out: &mut BytesMut, frame: &[u8]) -> bool {
        let length = frame.len() + HEADER;
        if length > FRAME_MAX {
            return false;
        }
        let Self([b0, b1, b2, b3]) = *self;
        out.put_slice(&[b0, b1, b2, b3 | (length >> 11) as u8]);
        // Fullness of the decoder's buffer is not known: all ones.
        out.put_slice(&[(length >> 3) as u8, (length << 5) as u8 | 0x1f, 0xfc]);
        out.put_slice(frame);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_with_their_configuration() {
        // Stereo of 48 kHz, mono of 44.1, 5.1 of 32, 7.1 of 96.
        for asc in [[0x11, 0x90], [0x12, 0x08], [0x12, 0xb0], [0x10, 0x38]] {
            let writer = Writer::new(&asc).unwrap();
            let mut out = BytesMut::new();
            for size in [1, 300, 8184] {
                assert!(writer.put(&mut out, &vec![7; size]));
            }
            assert!(!writer.put(&mut out, &[7; 8185]));
            let mut reader = Reader::default();
            let mut sizes = Vec::new();
            for piece in out.chunks(100) {
                reader.push(piece);
                while let Some((header, frame, _)) = reader.next() {
                    assert_eq!((header.config, header.is_plain), (asc, true));
                    sizes.push(frame.len());
                }
            }
            assert_eq!(sizes, [1, 300, 8184]);
            assert_eq!(reader.buffered(), 0);
        }
    }

    #[test]
    fn he_aac_is_written_as_its_core() {
        // SBR over LC, 24 kHz, stereo.
        let bits: u32 = 5 << 27 | 6 << 23 | 2 << 19 | 3 << 15 | 2 << 10;
        let writer = Writer::new(&bits.to_be_bytes()).unwrap();
        let mut out = BytesMut::new();
        writer.put(&mut out, &[1, 2]);
        assert_eq!(Header::parse(&out).unwrap().config, [0x13, 0x10]);
    }

    #[test]
    fn what_adts_cannot_say_is_not_written() {
        assert!(Writer::new(&[0x11, 0x94]).is_none(), "960 samples");
        let odd_rate: u64 = 2 << 35 | 15 << 31 | 44_056 << 7 | 1 << 3;
        assert!(Writer::new(&odd_rate.to_be_bytes()[3..]).is_none());
    }

    #[test]
    fn bytes_between_frames_are_passed_over() {
        let writer = Writer::new(&[0x11, 0x90]).unwrap();
        let mut out = BytesMut::new();
        out.put_slice(&[0xff, 0xf1, 0x4c, 0x80, 0x02, 0, 0, 0xff]);
        writer.put(&mut out, b"one");
        writer.put(&mut out, b"two");
        let mut reader = Reader::default();
        reader.push(&out);
        let mut frames = Vec::new();
        while let Some((_, frame, _)) = reader.next() {
            frames.push(frame.to_vec());
        }
        assert_eq!(frames, [b"one".to_vec(), b"two".to_vec()]);
    }
}
