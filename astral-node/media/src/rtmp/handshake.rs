//! The simple handshake (RTMP 1.0 §5.2): enough for publishing, no digests.

use bytes::{Buf, BufMut, BytesMut};

/// Length of C1, S1, C2 and S2.
const PACKET: usize = 1536;
/// The only version that is spoken without encryption.
const VERSION: u8 = 3;

/// How far the handshake is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handshake {
    /// C0 and C1 are awaited.
    Hello,
    /// C2 is awaited.
    Echo,
    /// Chunks follow.
    Done,
}

/// The client does not speak plain RTMP; carries its version byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongVersion(pub(super) u8);

impl Handshake {
    /// Takes what it can from `input` and answers into `output`.
    pub(super) fn advance(
        &mut self,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<(), WrongVersion> {
        if *self == Self::Hello {
            self.hello(input, output)?;
        }
        if *self == Self::Echo && input.len() >= PACKET {
            input.advance(PACKET);
            *self = Self::Done;
        }
        Ok(())
    }

    fn hello(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Result<(), WrongVersion> {
        if let Some(&version) = input.first()
            && version != VERSION
        {
            return Err(WrongVersion(version));
        }
        if input.len() > PACKET {
            input.advance(1);
            let c1 = input.split_to(PACKET);
            output.put_u8(VERSION);
            put_s1(output);
            output.put_slice(&c1);
            *self = Self::Echo;
        }
        Ok(())
    }
}

/// Time 0, version 0 (clients then expect no digest) and filler.
fn put_s1(output: &mut BytesMut) {
    output.put_bytes(0, 8);
    for index in 8..PACKET {
        // Any bytes will do; the truncation only makes a pattern.
        output.put_u8((index % 251) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c1_is_answered_at_once_with_its_echo_and_c2_is_swallowed() {
        let (mut handshake, mut output) = (Handshake::Hello, BytesMut::new());
        let mut input = BytesMut::from(&[3][..]);
        input.put_bytes(7, PACKET - 1);
        handshake.advance(&mut input, &mut output).unwrap();
        assert!(output.is_empty());
        input.put_bytes(7, 1);
        handshake.advance(&mut input, &mut output).unwrap();
        assert_eq!(output.len(), 1 + 2 * PACKET);
        assert_eq!(&output[1 + PACKET..], &[7; PACKET]);
        input.put_bytes(9, PACKET + 5);
        handshake.advance(&mut input, &mut output).unwrap();
        assert_eq!((handshake, input.len()), (Handshake::Done, 5));
    }

    #[test]
    fn another_version_is_refused_at_its_first_byte() {
        let mut input = BytesMut::from(&b"G"[..]);
        let result = Handshake::Hello.advance(&mut input, &mut BytesMut::new());
        assert_eq!(result, Err(WrongVersion(b'G')));
    }
}
