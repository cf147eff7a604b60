//! Opus in containers: its header in two layouts, and how long a packet lasts.
//!
//! Follows RFC 7845 §5.1 (`OpusHead`, as Ogg, Matroska and FLV have it),
//! "Encapsulation of Opus in ISO Base Media File Format" §4.3.2 (`dOps`) and RFC 6716
//! §3.1 (the first byte of a packet). All times count samples of 48 kHz, whatever the
//! rate at which the encoder was fed.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::track::CodecConfig;

/// Samples per second of every Opus decoder's clock.
pub const SAMPLE_RATE: u32 = 48_000;
/// Shortest packet, in samples: one CELT frame of 2.5 ms.
pub const MIN_PACKET_SAMPLES: u32 = 120;
/// Longest packet, in samples: 120 ms.
pub const MAX_PACKET_SAMPLES: u32 = 5760;
/// Samples of [`SILENCE`]: 20 ms.
pub const SILENCE_SAMPLES: u32 = 960;
/// Most channels taken; what catalogs and players know.
pub const MAX_CHANNELS: u8 = 8;
/// Longest header, bytes: a table of [`MAX_CHANNELS`].
pub const MAX_HEAD: usize = 21 + MAX_CHANNELS as usize;

/// A packet of one fullband frame in which nothing is coded (also what WebRTC sends).
pub const SILENCE: [u8; 3] = [0xf8, 0xff, 0xfe];

const MAGIC: &[u8; 8] = b"OpusHead";
/// Bytes of `OpusHead` without a mapping table, its magic aside.
const FIXED: usize = 11;

/// Why an Opus header was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum OpusError {
    /// It ends too early.
    #[error("Opus header is cut short")]
    Truncated,
    /// It does not begin with `OpusHead`.
    #[error("Opus header does not begin with \"OpusHead\"")]
    Magic,
    /// A version that is not compatible (upper four bits of `OpusHead`, any of `dOps`).
    #[error("Opus header has version {0}, which is not known")]
    Version(u8),
    /// None, or more than [`MAX_CHANNELS`].
    #[error("Opus header has {0} channels, it must be 1 to 8")]
    Channels(u8),
    /// A mapping that does not fit the channels.
    #[error("Opus header has a bad channel mapping")]
    Mapping,
}

/// What an Opus header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpusHead {
    /// Channels that come out of the decoder, 1 to [`MAX_CHANNELS`].
    pub channels: u8,
    /// Samples of 48 kHz at the stream's start that are not to be played.
    pub pre_skip: u16,
    /// Rate at which the encoder was fed, Hz; a remark only, may be 0.
    pub input_rate: u32,
    /// Gain in 1/256 dB.
    pub gain: i16,
    /// Channel mapping family; 0 is mono or stereo without a table.
    pub family: u8,
    /// Stream count, coupled count and the mapping of each channel; empty for family 0.
    pub table: Bytes,
}

impl OpusHead {
    /// Reads an `OpusHead`; bytes after it are ignored.
    ///
    /// # Errors
    /// See [`OpusError`].
    pub fn parse(head: &[u8]) -> Result<Self, OpusError> {
        let body = head.strip_prefix(MAGIC).ok_or(OpusError::Magic)?;
        let (fixed, table) = split(body)?;
        let [version, channels, s0, s1, r0, r1, r2, r3, g0, g1, family] = *fixed;
        // Versions with the same upper half are compatible.
        if version >> 4 != 0 {
            return Err(OpusError::Version(version));
        }
        let head = Self {
            channels,
            pre_skip: u16::from_le_bytes([s0, s1]),
            input_rate: u32::from_le_bytes([r0, r1, r2, r3]),
            gain: i16::from_le_bytes([g0, g1]),
            family,
            table: Bytes::new(),
        };
        head.with_table(table)
    }

    /// Reads the body of a `dOps` box; bytes after it are ignored.
    ///
    /// # Errors
    /// See [`OpusError`].
    pub fn parse_dops(body: &[u8]) -> Result<Self, OpusError> {
        let (fixed, table) = split(body)?;
        let [version, channels, s1, s0, r3, r2, r1, r0, g1, g0, family] = *fixed;
        if version != 0 {
            return Err(OpusError::Version(version));
        }
        let head = Self {
            channels,
            pre_skip: u16::from_be_bytes([s1, s0]),
            input_rate: u32::from_be_bytes([r3, r2, r1, r0]),
            gain: i16::from_be_bytes([g1, g0]),
            family,
            table: Bytes::new(),
        };
        head.with_table(table)
    }

    /// As an `OpusHead`, 19 bytes and the table.
    pub fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(MAX_HEAD);
        out.put_slice(MAGIC);
        out.put_slice(&[1, self.channels]);
        out.put_u16_le(self.pre_skip);
        out.put_u32_le(self.input_rate);
        out.put_i16_le(self.gain);
        out.put_u8(self.family);
        out.put_slice(&self.table);
        out.freeze()
    }

    /// As the body of a `dOps` box, 11 bytes and the table.
    pub fn to_dops(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(MAX_HEAD);
        out.put_slice(&[0, self.channels]);
        out.put_u16(self.pre_skip);
        out.put_u32(self.input_rate);
        out.put_i16(self.gain);
        out.put_u8(self.family);
        out.put_slice(&self.table);
        out.freeze()
    }

    /// The track's configuration. It says 48 kHz whatever the encoder was fed with, which
    /// is only a remark: Chromium's MSE refuses sound of any other (measured at 44.1 kHz).
    pub fn codec_config(&self) -> CodecConfig {
        let head = Self {
            input_rate: SAMPLE_RATE,
            ..self.clone()
        };
        CodecConfig::Opus {
            head: head.to_bytes(),
            sample_rate: SAMPLE_RATE,
            channels: self.channels,
        }
    }

    fn with_table(mut self, rest: &[u8]) -> Result<Self, OpusError> {
        if !(1..=MAX_CHANNELS).contains(&self.channels) {
            return Err(OpusError::Channels(self.channels));
        }
        if self.family == 0 {
            return if self.channels <= 2 {
                Ok(self)
            } else {
                Err(OpusError::Mapping)
            };
        }
        let table = rest.get(..2 + usize::from(self.channels));
        let table = table.ok_or(OpusError::Truncated)?;
        let (streams, coupled) = (u16::from(table[0]), u16::from(table[1]));
        let decoded = streams + coupled;
        let known = |&channel: &u8| channel == 255 || u16::from(channel) < decoded;
        if streams == 0 || coupled > streams || !table[2..].iter().all(known) {
            return Err(OpusError::Mapping);
        }
        self.table = Bytes::copy_from_slice(table);
        Ok(self)
    }
}

/// How long a packet lasts, in samples of 48 kHz; none if it is empty, malformed or
/// longer than [`MAX_PACKET_SAMPLES`] (RFC 6716 §3.1, §3.2).
pub fn packet_samples(packet: &[u8]) -> Option<u32> {
    let (&toc, rest) = packet.split_first()?;
    let frame = frame_samples(toc >> 3);
    let frames = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(rest.first()? & 0x3f),
    };
    let samples = frame * frames;
    (1..=MAX_PACKET_SAMPLES)
        .contains(&samples)
        .then_some(samples)
}

/// Table 2 of RFC 6716: SILK up to 60 ms, hybrid of 10 and 20, CELT from 2.5 to 20.
fn frame_samples(configuration: u8) -> u32 {
    match (configuration, configuration & 3) {
        (0..=11, 3) => 2880,
        (0..=11, step) => 480 << step,
        (12..=15, step) => 480 << (step & 1),
        (_, step) => 120 << step,
    }
}

fn split(body: &[u8]) -> Result<(&[u8; FIXED], &[u8]), OpusError> {
    body.split_first_chunk().ok_or(OpusError::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As libopus in ffmpeg wrote it: mono, 312 samples of pre-skip, 48 kHz.
    const DOPS: [u8; 11] = [0, 1, 1, 0x38, 0, 0, 0xbb, 0x80, 0, 0, 0];

    #[test]
    fn both_layouts_say_the_same() {
        let head = OpusHead::parse_dops(&DOPS).unwrap();
        assert_eq!((head.channels, head.pre_skip), (1, 312));
        assert_eq!(head.input_rate, 48_000);
        assert_eq!(head.to_dops(), &DOPS[..]);
        let ogg = head.to_bytes();
        assert_eq!(&ogg[..], b"OpusHead\x01\x01\x38\x01\x80\xbb\0\0\0\0\0");
        assert_eq!(OpusHead::parse(&ogg), Ok(head));
    }

    #[test]
    fn a_table_of_channels_is_kept_and_checked() {
        let mut surround = vec![0, 6, 1, 0x38, 0, 0, 0xbb, 0x80, 0, 0, 1];
        surround.extend([4, 2, 0, 4, 1, 2, 3, 5]);
        let head = OpusHead::parse_dops(&surround).unwrap();
        assert_eq!(head.to_dops(), surround);
        assert_eq!(OpusHead::parse(&head.to_bytes()), Ok(head));
        surround[18] = 6;
        assert_eq!(OpusHead::parse_dops(&surround), Err(OpusError::Mapping));
        surround.pop();
        assert_eq!(OpusHead::parse_dops(&surround), Err(OpusError::Truncated));
        surround[1] = 9;
        assert_eq!(OpusHead::parse_dops(&surround), Err(OpusError::Channels(9)));
        let six_without = [0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(OpusHead::parse_dops(&six_without), Err(OpusError::Mapping));
    }

    #[test]
    fn headers_that_cannot_be_read_say_why() {
        assert_eq!(OpusHead::parse(b"OpusTags"), Err(OpusError::Magic));
        assert_eq!(OpusHead::parse(b"OpusHead\x01"), Err(OpusError::Truncated));
        assert_eq!(
            OpusHead::parse(b"OpusHead\x10\x01\0\0\0\0\0\0\0\0\0"),
            Err(OpusError::Version(16))
        );
    }

    #[test]
    fn packets_last_as_their_first_byte_says() {
        // Configuration, code, and milliseconds times two.
        for (configuration, code, half_ms) in [
            (0, 0, 20),
            (1, 0, 40),
            (2, 0, 80),
            (3, 0, 120),
            (11, 1, 240),
            (12, 0, 20),
            (13, 2, 80),
            (16, 0, 5),
            (17, 0, 10),
            (31, 0, 40),
        ] {
            let packet = [configuration << 3 | code, 0];
            assert_eq!(packet_samples(&packet), Some(half_ms * 24), "{packet:?}");
        }
        // As Chromium records: three frames of 20 ms.
        assert_eq!(packet_samples(&[0xff, 0x83]), Some(2880));
        assert_eq!(packet_samples(&SILENCE), Some(SILENCE_SAMPLES));
        for bad in [&[][..], &[0xff], &[0xff, 0], &[0xff, 7], &[0x1b, 3]] {
            assert_eq!(packet_samples(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_header_that_is_taken_survives_both_layouts(
            bytes in prop::collection::vec(any::<u8>(), 0..40), family in 0u8..3,
        ) {
            let _ = OpusHead::parse(&bytes);
            let mut bytes = bytes;
            if let [version, channels, _, _, _, _, _, _, _, _, mapping, ..] = &mut bytes[..] {
                (*version, *channels, *mapping) = (0, *channels % 10, family);
            }
            if let Ok(head) = OpusHead::parse_dops(&bytes) {
                prop_assert_eq!(OpusHead::parse_dops(&head.to_dops()), Ok(head.clone()));
                prop_assert_eq!(OpusHead::parse(&head.to_bytes()), Ok(head));
            }
            if let Some(samples) = packet_samples(&bytes) {
                prop_assert!((120..=MAX_PACKET_SAMPLES).contains(&samples));
            }
        }
    }
}
