//! The shape of a control message's CBOR, checked before it is decoded: one
//! well-formed item, lengths said in advance, nested a few deep.
//!
//! A decoder that skips a field it does not know has to remember how deep it is
//! in items of unknown length; without this check, 64 KiB of opening brackets
//! would make it keep 24 times as much.

use super::{Reader, WireError};

/// Items within items. The messages of this version nest five deep.
pub(super) const DEPTH_MAX: usize = 16;

/// Checks that `body` is one CBOR item and nothing behind it.
///
/// # Errors
/// What is wrong with it, for the message named `what`.
pub(super) fn check(what: &'static str, body: &[u8]) -> Result<(), WireError> {
    let mut reader = Reader::new(body);
    let mut left = [0u64; DEPTH_MAX];
    let mut depth = 0;
    loop {
        let items = item(what, &mut reader)?;
        if items > 0 {
            let deeper = left.get_mut(depth).ok_or(WireError::TooLarge {
                what,
                value: depth as u64 + 1,
                limit: DEPTH_MAX as u64,
            })?;
            *deeper = items;
            depth += 1;
            continue;
        }
        while depth > 0 {
            left[depth - 1] -= 1;
            if left[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            return reader.end(what);
        }
    }
}

/// Reads one item without the items in it, and says how many those are.
fn item(what: &'static str, reader: &mut Reader<'_>) -> Result<u64, WireError> {
    let first = reader.u8(what)?;
    let invalid = WireError::Invalid {
        what,
        value: first.into(),
    };
    let argument = match first & 0x1f {
        small @ 0..=23 => u64::from(small),
        size @ 24..=27 => big_endian(reader.take(what, 1 << (size - 24))?),
        _ => return Err(invalid),
    };
    let too_long = WireError::TooLarge {
        what,
        value: argument,
        limit: reader.rest().len() as u64,
    };
    match first >> 5 {
        0 | 1 | 7 => Ok(0),
        2 | 3 => {
            let len = usize::try_from(argument).map_err(|_| too_long)?;
            reader.take(what, len).map(|_| 0)
        }
        4 if argument <= reader.rest().len() as u64 => Ok(argument),
        5 if argument <= reader.rest().len() as u64 / 2 => Ok(argument * 2),
        4 | 5 => Err(too_long),
        6 => Ok(1),
        _ => Err(invalid),
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_item_of_known_length_passes() {
        for body in [
            &[0xa0][..],
            &[0xa1, 0x00, 0x82, 0x01, 0x81, 0x41, 0xff],
            &[0xc1, 0x1a, 0, 0, 0, 1],
            &[0x80],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(check("test", body), Ok(()), "{body:02x?}");
        }
    }

    #[test]
    fn other_shapes_are_refused() {
        for body in [
            &[][..],
            &[0xa1, 0x00],
            &[0xa0, 0x00],
            &[0x9f, 0xff],
            &[0xbf, 0xff],
            &[0x5f, 0x41, 0x00, 0xff],
            &[0x42, 0x00],
            &[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xff],
            &[0x1c],
        ] {
            assert!(check("test", body).is_err(), "{body:02x?}");
        }
        let deep = |levels: usize| [vec![0x81; levels], vec![0x00]].concat();
        assert_eq!(check("test", &deep(DEPTH_MAX)), Ok(()));
        assert!(check("test", &deep(DEPTH_MAX + 1)).is_err());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = check("test", &bytes);
        }

        #[test]
        fn what_passes_is_what_a_decoder_can_skip(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            if check("test", &bytes).is_ok() {
                let mut decoder = minicbor::Decoder::new(&bytes);
                if decoder.skip().is_ok() {
                    prop_assert_eq!(decoder.position(), bytes.len());
                }
            }
        }
    }
}
