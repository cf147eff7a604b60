//! Opus in PES packets: control headers before each packet, channels in the PMT.
//! ETSI TS 103 491 draft "Encapsulation of Opus in MPEG-2 TS", as ffmpeg reads and writes it.

use bytes::{BufMut as _, Bytes, BytesMut};

use crate::opus::{OpusHead, SAMPLE_RATE};

/// Eleven bits that begin a control header.
const PREFIX: u16 = 0x7fe0;
const START_TRIM: u16 = 0x10;
const END_TRIM: u16 = 0x08;
const EXTENSION: u16 = 0x04;
/// Longest Opus packet taken, bytes; 120 ms at the highest rate are 61,440.
const PACKET_MAX: usize = 64 << 10;
/// Extension descriptor, and the extension that tells Opus' channels.
const EXTENSION_DESCRIPTOR: u8 = 0x7f;
const CHANNELS: u8 = 0x80;

/// Streams, coupled streams and the mapping of 3 to 8 channels, in Vorbis' order.
const SURROUND: [(u8, u8, &[u8]); 6] = [
    (2, 1, &[0, 2, 1]),
    (2, 2, &[0, 1, 2, 3]),
    (3, 2, &[0, 4, 1, 2, 3]),
    (4, 2, &[0, 4, 1, 2, 3, 5]),
    (4, 3, &[0, 4, 1, 2, 3, 5, 6]),
    (5, 3, &[0, 6, 1, 2, 3, 4, 5, 7]),
];

/// The channels of a stream: `channel_config_code`, 1 to 8; two where it is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Channels(u8);

impl Default for Channels {
    fn default() -> Self {
        Self(2)
    }
}

impl Channels {
    /// What a descriptor says, if it is the one that says it, and something common.
    pub(super) fn of(tag: u8, body: &[u8]) -> Option<Self> {
        match (tag, body) {
            (EXTENSION_DESCRIPTOR, &[CHANNELS, code @ 1..=8, ..]) => Some(Self(code)),
            _ => None,
        }
    }

    /// The header that decoders want.
    pub(super) fn head(self, pre_skip: u16) -> OpusHead {
        let surround = usize::from(self.0).checked_sub(3);
        let table = surround.and_then(|index| SURROUND.get(index));
        let (family, table) = match table {
            None => (0, Bytes::new()),
            Some((streams, coupled, mapping)) => {
                (1, [&[*streams, *coupled], *mapping].concat().into())
            }
        };
        OpusHead {
            channels: self.0,
            pre_skip,
            input_rate: SAMPLE_RATE,
            gain: 0,
            family,
            table,
        }
    }

    /// The channels of a header, if a transport stream can say them.
    fn of_head(head: &OpusHead) -> Option<Self> {
        let same = Self(head.channels).head(head.pre_skip);
        ((1..=8).contains(&head.channels) && same.table == head.table)
            .then_some(Self(head.channels))
    }
}

/// Descriptors of a stream with this header; none if its channels cannot be told.
pub(super) fn descriptors(head: &OpusHead) -> Option<Vec<u8>> {
    let channels = Channels::of_head(head)?;
    let mut out = b"\x05\x04Opus".to_vec();
    out.extend([EXTENSION_DESCRIPTOR, 2, CHANNELS, channels.0]);
    Some(out)
}

/// Packets of a PES packet's data, each with the samples to be left out at its start.
/// Ends at the first that is cut short or none.
pub(super) struct Packets<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Packets<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&mark, mut rest) = self.0.split_first_chunk::<2>()?;
        let mark = u16::from_be_bytes(mark) & 0x7fff;
        if mark & 0xffe0 != PREFIX {
            return None;
        }
        let mut size = 0usize;
        loop {
            let (&byte, tail) = rest.split_first()?;
            (size, rest) = (size + usize::from(byte), tail);
            if byte != 0xff || size > PACKET_MAX {
                break;
            }
        }
        let mut trim = 0;
        if mark & START_TRIM != 0 {
            let (&bytes, tail) = rest.split_first_chunk()?;
            (trim, rest) = (u16::from_be_bytes(bytes) & 0x1fff, tail);
        }
        if mark & END_TRIM != 0 {
            rest = rest.get(2..)?;
        }
        if mark & EXTENSION != 0 {
            let (&length, tail) = rest.split_first()?;
            rest = tail.get(usize::from(length)..)?;
        }
        let (packet, tail) = rest.split_at_checked(size)?;
        self.0 = tail;
        Some((trim, packet))
    }
}

/// Writes a packet behind its control header.
pub(super) fn put(out: &mut BytesMut, packet: &[u8]) {
    out.put_u16(PREFIX);
    let mut size = packet.len();
    while size >= 0xff {
        out.put_u8(0xff);
        size -= 0xff;
    }
    out.put_u8(size as u8);
    out.put_slice(packet);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_of_any_length_come_out_as_they_went_in() {
        let packets: Vec<Vec<u8>> = [1, 254, 255, 256, 510, 700]
            .map(|size| vec![size as u8; size])
            .to_vec();
        let mut out = BytesMut::new();
        packets.iter().for_each(|packet| put(&mut out, packet));
        let read: Vec<_> = Packets(&out).map(|(_, packet)| packet.to_vec()).collect();
        assert_eq!(read, packets);
    }

    #[test]
    fn trims_and_extensions_are_passed_over() {
        let bytes = [
            0x7f, 0xfc, 2, 0x01, 0x38, 0, 9, 1, 0xaa, 0xfc, 1, 0x7f, 0xe0, 9,
        ];
        let read: Vec<_> = Packets(&bytes).collect();
        assert_eq!(read, [(312, &[0xfc, 1][..])], "the next one is cut short");
    }

    #[test]
    fn channels_survive_as_heads() {
        for code in 1..=8 {
            let channels = Channels::of(0x7f, &[0x80, code]).unwrap();
            let head = channels.head(312);
            assert_eq!(OpusHead::parse(&head.to_bytes()), Ok(head.clone()));
            let descriptors = descriptors(&head).unwrap();
            assert_eq!(&descriptors[6..], [0x7f, 2, 0x80, code]);
        }
        assert_eq!(Channels::of(0x7f, &[0x80, 0x82]), None);
    }
}
