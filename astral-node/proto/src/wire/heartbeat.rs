//! Heartbeats: QUIC datagrams (RFC 9221) that say "I am here, and this is what I hold".

use bytes::{BufMut, Bytes, BytesMut};

use super::varint::put_varint;
use super::{Reader, WireError};
use crate::ids::{StreamId, TicketId};
use crate::limits::HEARTBEAT_TICKETS_MAX;

/// Kind byte of a heartbeat; other datagrams are skipped.
const KIND: u8 = 1;

/// How a sender's own supply of a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Supply {
    /// Frames come in.
    Ok,
    /// It has lost its own parent and is looking for another.
    Repairing,
    /// The publisher's encoder is away or the stream is paused: nobody has more.
    NoSource,
}

/// One ticket in a heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TicketBeat {
    /// The ticket.
    pub ticket: TicketId,
    /// Its stream.
    pub stream: StreamId,
    /// How the sender's supply stands.
    pub supply: Supply,
    /// Newest video group held, and the frames of it that are there.
    pub newest: (u64, u32),
    /// Expected delay from the source to the sender, in microseconds.
    pub delay_us: u32,
    /// Upwards: viewers in the sender's subtree, itself included.
    pub viewers: u32,
    /// Upwards: free places in the subtree.
    pub free: u32,
}

/// A heartbeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Counts up on each connection.
    pub seq: u32,
    /// Highest sequence number heard from the other side, and for how many
    /// microseconds it was held before this answer: gives the round-trip time.
    pub echo: Option<(u32, u32)>,
    /// Upload that the sender can still promise, in bit/s.
    pub spare_bps: u64,
    /// Tickets between the two, either way.
    pub tickets: Vec<TicketBeat>,
}

impl Heartbeat {
    /// The datagram.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32 + self.tickets.len() * 48);
        out.put_u8(KIND);
        put_varint(&mut out, u64::from(self.seq));
        match self.echo {
            Some((seq, held)) => {
                put_varint(&mut out, u64::from(seq) + 1);
                put_varint(&mut out, u64::from(held));
            }
            None => put_varint(&mut out, 0),
        }
        put_varint(&mut out, self.spare_bps);
        put_varint(&mut out, self.tickets.len() as u64);
        for beat in &self.tickets {
            beat.encode(&mut out);
        }
        out.freeze()
    }

    /// Reads a datagram; `None` if it is of a kind that this version does not know.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8("datagram kind")? != KIND {
            return Ok(None);
        }
        let seq = reader.u32("heartbeat: seq")?;
        let echo = match reader.varint_up_to("heartbeat: echo", 1 << 32)? {
            0 => None,
            seq => Some(((seq - 1) as u32, reader.u32("heartbeat: held")?)),
        };
        let spare_bps = reader.varint("heartbeat: spare")?;
        let count = reader.varint_up_to("heartbeat: tickets", HEARTBEAT_TICKETS_MAX as u64)?;
        let tickets = (0..count)
            .map(|_| TicketBeat::decode(&mut reader))
            .collect::<Result<_, _>>()?;
        Ok(Some(Self {
            seq,
            echo,
            spare_bps,
            tickets,
        }))
    }
}

impl TicketBeat {
    fn encode(&self, out: &mut impl BufMut) {
        out.put_u64(self.ticket.0);
        out.put_slice(self.stream.0.as_bytes());
        out.put_u8(match self.supply {
            Supply::Ok => 0,
            Supply::Repairing => 1,
            Supply::NoSource => 2,
        });
        put_varint(out, self.newest.0);
        put_varint(out, u64::from(self.newest.1));
        put_varint(out, u64::from(self.delay_us));
        put_varint(out, u64::from(self.viewers));
        put_varint(out, u64::from(self.free));
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut ticket = [0; 8];
        ticket.copy_from_slice(reader.take("heartbeat: ticket", 8)?);
        let mut stream = [0; 16];
        stream.copy_from_slice(reader.take("heartbeat: stream", 16)?);
        let supply = match reader.u8("heartbeat: supply")? {
            0 => Supply::Ok,
            1 => Supply::Repairing,
            2 => Supply::NoSource,
            value => {
                return Err(WireError::Invalid {
                    what: "heartbeat: supply",
                    value: value.into(),
                });
            }
        };
        Ok(Self {
            ticket: TicketId(u64::from_be_bytes(ticket)),
            stream: StreamId(uuid::Uuid::from_bytes(stream)),
            supply,
            newest: (
                reader.varint("heartbeat: group")?,
                reader.u32("heartbeat: frame")?,
            ),
            delay_us: reader.u32("heartbeat: delay")?,
            viewers: reader.u32("heartbeat: viewers")?,
            free: reader.u32("heartbeat: free")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn full_heartbeat_fits_a_datagram_and_survives_the_wire() {
        let beat = TicketBeat {
            ticket: TicketId(u64::MAX),
            stream: StreamId(uuid::Uuid::from_u128(7)),
            supply: Supply::Repairing,
            newest: (1 << 20, 300),
            delay_us: 100_000,
            viewers: 16_000,
            free: 16_000,
        };
        let heartbeat = Heartbeat {
            seq: 77,
            echo: Some((u32::MAX, 1_000)),
            spare_bps: 20_000_000,
            tickets: vec![beat; HEARTBEAT_TICKETS_MAX],
        };
        let bytes = heartbeat.encode();
        assert!(bytes.len() < 1_150, "{}", bytes.len());
        assert_eq!(Heartbeat::decode(&bytes), Ok(Some(heartbeat)));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Heartbeat::decode(&bytes);
            let _ = Heartbeat::decode(&[&[KIND], bytes.as_slice()].concat());
        }
    }
}
