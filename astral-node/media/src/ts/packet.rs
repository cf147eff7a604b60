//! One packet of 188 bytes (ISO/IEC 13818-1 §2.4.3.2 to §2.4.3.5).

use super::PACKET;

/// First byte of every packet.
pub(super) const SYNC: u8 = 0x47;

/// What a reader wants to know of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) pid: u16,
    /// A section or PES packet begins in it.
    pub(super) starts: bool,
    pub(super) scrambled: bool,
    /// Counts packets of the PID that have a payload, modulo 16.
    pub(super) counter: u8,
    /// The counter and the clock may jump here.
    pub(super) discontinuity: bool,
    pub(super) payload: Option<&'a [u8]>,
}

impl<'a> Packet<'a> {
    /// None if the packet is damaged, as the sender says or as its lengths show.
    pub(super) fn parse(bytes: &'a [u8; PACKET]) -> Option<Self> {
        let [_, b1, b2, b3, rest @ ..] = bytes;
        let (has_adaptation, has_payload) = (b3 & 0x20 != 0, b3 & 0x10 != 0);
        if b1 & 0x80 != 0 || !(has_adaptation || has_payload) {
            return None;
        }
        let (adaptation, payload) = match has_adaptation {
            true => {
                let (&length, rest) = rest.split_first()?;
                rest.split_at_checked(length.into())?
            }
            false => (&[][..], &rest[..]),
        };
        Some(Self {
            pid: u16::from(b1 & 0x1f) << 8 | u16::from(*b2),
            starts: b1 & 0x40 != 0,
            scrambled: b3 & 0xc0 != 0,
            counter: b3 & 0x0f,
            discontinuity: adaptation.first().is_some_and(|flags| flags & 0x80 != 0),
            payload: has_payload.then_some(payload),
        })
    }
}

/// Whether the packets of a PID follow each other (§2.4.3.3).
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Continuity(Option<u8>);

/// How a packet follows the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// In order, or where the sender says that it may jump.
    Well,
    /// The same packet again, which is legal.
    Again,
    /// Something is missing before it.
    Gap,
}

impl Continuity {
    /// Takes note of a packet with a payload.
    pub(super) fn follow(&mut self, packet: &Packet<'_>) -> Follows {
        let last = self.0.replace(packet.counter);
        match last {
            None => Follows::Well,
            Some(_) if packet.discontinuity => Follows::Well,
            Some(last) if packet.counter == (last + 1) & 0x0f => Follows::Well,
            Some(last) if packet.counter == last => Follows::Again,
            Some(_) => Follows::Gap,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(b1: u8, b3: u8, rest: &[u8]) -> [u8; PACKET] {
        let mut bytes = [0xff; PACKET];
        bytes[..4].copy_from_slice(&[SYNC, b1, 0x23, b3]);
        bytes[4..4 + rest.len()].copy_from_slice(rest);
        bytes
    }

    #[test]
    fn header_and_adaptation_field_are_read() {
        let bytes = packet(0x41, 0x37, &[2, 0x80, 0, 9]);
        let parsed = Packet::parse(&bytes).unwrap();
        assert_eq!(
            (parsed.pid, parsed.starts, parsed.counter),
            (0x123, true, 7)
        );
        assert!(parsed.discontinuity && !parsed.scrambled);
        let payload = parsed.payload.unwrap();
        assert_eq!((payload.len(), payload[0]), (181, 9));
    }

    #[test]
    fn an_adaptation_field_alone_has_no_payload() {
        let bytes = packet(0x01, 0x20, &[183, 0]);
        assert_eq!(Packet::parse(&bytes).unwrap().payload, None);
    }

    #[test]
    fn damaged_packets_are_told_apart() {
        assert_eq!(Packet::parse(&packet(0x81, 0x10, &[])), None, "error flag");
        assert_eq!(Packet::parse(&packet(0x01, 0x00, &[])), None, "reserved");
        assert_eq!(Packet::parse(&packet(0x01, 0x30, &[184])), None, "length");
    }

    #[test]
    fn counters_wrap_repeat_and_jump() {
        let mut continuity = Continuity::default();
        let mut follow = |counter: u8, flags: u8| {
            let bytes = packet(0x01, 0x30 | counter, &[1, flags]);
            continuity.follow(&Packet::parse(&bytes).unwrap())
        };
        assert_eq!(follow(15, 0), Follows::Well);
        assert_eq!(follow(0, 0), Follows::Well);
        assert_eq!(follow(0, 0), Follows::Again);
        assert_eq!(follow(2, 0), Follows::Gap);
        assert_eq!(follow(9, 0x80), Follows::Well);
    }
}
