//! Packets out of bytes in any pieces, and the way back into step after damage.

use bytes::{Buf as _, BytesMut};

use super::packet::SYNC;
use super::{PACKET, TsError};

/// Sync bytes in a row, a packet apart, that are believed.
const CONFIRMED: usize = 5;
/// Other sizes of packets: with a time code, with a checksum.
const OTHER_SIZES: [usize; 2] = [192, 204];
/// Bytes that are looked at to judge one position: five packets of the longest kind.
const SPAN: usize = (CONFIRMED - 1) * 204 + 1;
/// Bytes without packets that are passed over before the source is given up.
const SKIPPED_MAX: usize = 1 << 20;

/// Whether packets can be found in the first bytes of something; none: more are needed.
pub fn looks_like_ts(head: &[u8]) -> Option<bool> {
    if head.len() < SPAN + PACKET {
        return None;
    }
    let sizes = |at| [PACKET, 192, 204].map(|size| is_run(head, at, size));
    Some((0..PACKET).any(|at| sizes(at).contains(&true)))
}

/// Whether sync bytes stand `size` apart from `at` on, as far as there are bytes.
fn is_run(bytes: &[u8], at: usize, size: usize) -> bool {
    let mut places = (0..CONFIRMED).map(|n| bytes.get(at + n * size));
    places.all(|byte| byte.is_none_or(|&byte| byte == SYNC))
}

/// Bytes that are cut into packets.
#[derive(Debug, Default)]
pub(super) struct Sync {
    input: BytesMut,
    in_step: bool,
    /// Bytes passed over since the last packet, and times that the step was found again.
    skipped: usize,
    resyncs: u64,
    ever: bool,
}

impl Sync {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Bytes held.
    pub(super) fn buffered(&self) -> usize {
        self.input.len()
    }

    /// How often packets did not follow each other.
    pub(super) fn resyncs(&self) -> u64 {
        self.resyncs
    }

    /// The next packet; none until more bytes come. At the end of the source, `last`,
    /// fewer bytes must do to find the step.
    pub(super) fn next(&mut self, last: bool) -> Result<Option<[u8; PACKET]>, TsError> {
        loop {
            if !self.in_step && !self.search(last)? {
                return Ok(None);
            }
            let Some(packet) = self.input.first_chunk::<PACKET>().copied() else {
                return Ok(None);
            };
            if packet[0] == SYNC {
                self.input.advance(PACKET);
                self.skipped = 0;
                return Ok(Some(packet));
            }
            self.in_step = false;
            self.resyncs += 1;
        }
    }

    /// Goes to where packets begin; false while that cannot be told. What is decided
    /// does not depend on the pieces in which the bytes came.
    fn search(&mut self, last: bool) -> Result<bool, TsError> {
        let needed = if last { PACKET } else { SPAN };
        let mut at = 0;
        while self.input.len() >= at + needed {
            if is_run(&self.input, at, PACKET) {
                self.skip(at)?;
                (self.in_step, self.ever) = (true, true);
                return Ok(true);
            }
            let other = OTHER_SIZES
                .into_iter()
                .find(|&size| !self.ever && !last && is_run(&self.input, at, size));
            if let Some(size) = other {
                return Err(TsError::PacketSize(size));
            }
            at += 1;
        }
        self.skip(at)?;
        Ok(false)
    }

    fn skip(&mut self, bytes: usize) -> Result<(), TsError> {
        self.input.advance(bytes);
        self.skipped += bytes;
        if self.skipped > SKIPPED_MAX {
            return Err(TsError::NotTs(self.skipped));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(size: usize, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; size * count];
        for n in 0..count {
            bytes[n * size] = SYNC;
            bytes[n * size + 1] = n as u8;
        }
        bytes
    }

    fn read(bytes: &[u8], piece: usize) -> (Vec<u8>, u64) {
        let mut sync = Sync::default();
        let mut numbers = Vec::new();
        for piece in bytes.chunks(piece) {
            sync.push(piece);
            while let Some(packet) = sync.next(false).unwrap() {
                numbers.push(packet[1]);
            }
        }
        while let Some(packet) = sync.next(true).unwrap() {
            numbers.push(packet[1]);
        }
        (numbers, sync.resyncs())
    }

    #[test]
    fn packets_come_out_whatever_the_pieces() {
        let bytes = packets(PACKET, 9);
        for piece in [1, 187, 188, 189, 10_000] {
            assert_eq!(read(&bytes, piece), ((0..9).collect(), 0));
        }
    }

    #[test]
    fn a_start_within_a_packet_and_lost_bytes_cost_no_more_than_those_packets() {
        let mut bytes = packets(PACKET, 20);
        bytes.drain(10 * PACKET + 50..10 * PACKET + 90);
        for piece in [1, 188, 10_000] {
            let (numbers, resyncs) = read(&bytes[37..], piece);
            let expected: Vec<u8> = (1..20).filter(|&n| n != 11).collect();
            // The packet that lost bytes is still cut out: its counter will tell.
            assert_eq!(numbers.iter().filter(|n| !expected.contains(n)).count(), 0);
            assert!(numbers.len() >= 17, "{numbers:?}");
            assert_eq!(resyncs, 1);
        }
    }

    #[test]
    fn other_packet_sizes_and_other_bytes_are_refused_with_words() {
        let refusal = |bytes: &[u8]| {
            let mut sync = Sync::default();
            sync.push(bytes);
            sync.next(false).unwrap_err()
        };
        assert_eq!(refusal(&packets(192, 9)), TsError::PacketSize(192));
        assert_eq!(refusal(&packets(204, 9)), TsError::PacketSize(204));
        let zeros = vec![0; SKIPPED_MAX + 2_000];
        assert!(matches!(refusal(&zeros), TsError::NotTs(_)));
    }

    #[test]
    fn a_transport_stream_is_told_by_its_bytes() {
        let bytes = packets(PACKET, 9);
        assert_eq!(looks_like_ts(&bytes), Some(true));
        assert_eq!(looks_like_ts(&bytes[100..]), Some(true));
        assert_eq!(looks_like_ts(&bytes[..500]), None);
        assert_eq!(looks_like_ts(&[1; 2_000]), Some(false));
    }
}
