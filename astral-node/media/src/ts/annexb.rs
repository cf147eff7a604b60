//! NAL units behind start codes (ITU-T H.264 and H.265 Annex B) and behind lengths.

use bytes::{BufMut as _, BytesMut};

use crate::nal::trimmed;

/// Start code, as it stands before every NAL unit that is written.
const START: [u8; 4] = [0, 0, 0, 1];

/// An access unit with start codes, as one with lengths of four bytes.
///
/// Bytes before the first start code, and zeros behind a NAL unit, are nothing.
pub(super) fn to_lengths(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 64);
    let mut next = start_code(data, 0);
    while let Some(start) = next {
        next = start_code(data, start);
        // A start code's own three bytes are not the NAL unit's.
        let end = next.map_or(data.len(), |next| next - 3);
        let nal = trimmed(&data[start..end]);
        if let (false, Ok(length)) = (nal.is_empty(), u32::try_from(nal.len())) {
            out.extend_from_slice(&length.to_be_bytes());
            out.extend_from_slice(nal);
        }
    }
    out
}

/// Where the NAL unit behind the next start code begins, searched from `at` on.
fn start_code(data: &[u8], mut at: usize) -> Option<usize> {
    while let Some(&[first, second, third]) = data.get(at..).and_then(<[u8]>::first_chunk) {
        match (first, second, third) {
            (0, 0, 1) => return Some(at + 3),
            (_, _, 2..) => at += 3,
            (_, _, 1) => at += 3,
            (_, 0, 0) => at += 1,
            (_, _, 0) => at += 2,
        }
    }
    None
}

/// Writes a NAL unit behind a start code.
pub(super) fn put(out: &mut BytesMut, nal: &[u8]) {
    out.put_slice(&START);
    out.put_slice(nal);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_and_short_start_codes_and_zeros_between_are_read() {
        let data = [
            9, 9, 0, 0, 1, 0x65, 7, 0, 0, 0, 0, 1, 0x41, 0, 0, 3, 1, 0, 0, 1, 0, 0, 1, 6,
        ];
        let expected = [
            &[0, 0, 0, 2, 0x65, 7][..],
            &[0, 0, 0, 5, 0x41, 0, 0, 3, 1],
            &[0, 0, 0, 1, 6],
        ];
        assert_eq!(to_lengths(&data), expected.concat());
        assert!(to_lengths(&[0, 0, 2, 1]).is_empty());
        assert!(to_lengths(&[0, 0, 1]).is_empty());
    }

    proptest! {
        #[test]
        fn start_codes_are_found_where_they_are(data in prop::collection::vec(0u8..3, 0..60)) {
            let slow: Vec<_> = (0..data.len().saturating_sub(2))
                .filter(|&at| data[at..at + 3] == [0, 0, 1])
                .map(|at| at + 3)
                .collect();
            let mut found = Vec::new();
            let mut at = 0;
            while let Some(start) = start_code(&data, at) {
                found.push(start);
                at = start;
            }
            prop_assert_eq!(found, slow);
            prop_assert!(to_lengths(&data).len() <= data.len() * 4 / 3 + 4);
        }
    }
}
