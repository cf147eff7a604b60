//! Packets of 188 bytes, with counters, clock and filling.

use bytes::{Buf as _, BufMut as _, BytesMut};

use super::super::PACKET;
use super::super::packet::SYNC;
use super::OFFSET;

/// Bytes of a packet behind its header.
const ROOM: usize = PACKET - 4;
/// Bytes of the clock in an adaptation field.
const CLOCK: usize = 6;

/// What the first packet of a PES packet says besides.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Adaptation {
    /// A new epoch begins.
    pub(super) discontinuity: bool,
    /// A decoder can start here.
    pub(super) entry: bool,
    /// The program's clock, ticks.
    pub(super) clock: Option<i64>,
}

impl Adaptation {
    /// Bytes of its field, length byte included; none if it says nothing.
    fn size(self) -> usize {
        match self.clock {
            Some(_) => 2 + CLOCK,
            None if self.discontinuity || self.entry => 2,
            None => 0,
        }
    }

    /// Writes a field of `size` bytes, filled up; a single byte says length 0.
    fn put(self, size: usize, out: &mut BytesMut) {
        // At most a packet's room.
        out.put_u8((size - 1) as u8);
        if size == 1 {
            return;
        }
        let flag = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        let flags = flag(self.discontinuity, 0x80) | flag(self.entry, 0x40);
        out.put_u8(flags | flag(self.clock.is_some(), 0x10));
        if let Some(clock) = self.clock {
            let base = clock.saturating_add(OFFSET).rem_euclid(1 << 33) as u64;
            out.put_u32((base >> 1) as u32);
            // Six reserved bits are ones; the extension of 27 MHz is 0.
            out.put_u16((base as u16 & 1) << 15 | 0x7e00);
        }
        out.put_bytes(0xff, size.saturating_sub(self.size().max(2)));
    }
}

/// One PID's counter.
#[derive(Debug, Default)]
pub(super) struct Pid {
    next: u8,
}

impl Pid {
    /// Writes a PES packet, its header and data, as packets.
    pub(super) fn packets(
        &mut self,
        pid: u16,
        first: Adaptation,
        [header, data]: [&[u8]; 2],
        out: &mut BytesMut,
    ) {
        let mut rest = header.chain(data);
        let mut adaptation = first;
        let mut starts = true;
        while rest.has_remaining() {
            let room = ROOM - adaptation.size();
            let filled = room.min(rest.remaining());
            let size = adaptation.size() + room - filled;
            self.head(pid, starts, size > 0, out);
            if size > 0 {
                adaptation.put(size, out);
            }
            out.put((&mut rest).take(filled));
            (starts, adaptation) = (false, Adaptation::default());
        }
    }

    /// Writes a section that fits one packet.
    pub(super) fn section(&mut self, pid: u16, section: &[u8], out: &mut BytesMut) {
        self.head(pid, true, false, out);
        out.put_u8(0);
        out.put_slice(section);
        out.put_bytes(0xff, (ROOM - 1).saturating_sub(section.len()));
    }

    /// Writes a packet with nothing but the clock; such packets do not count.
    pub(super) fn clock(&self, pid: u16, clock: Option<i64>, out: &mut BytesMut) {
        out.put_u8(SYNC);
        out.put_u16(pid);
        out.put_u8(0x20 | self.next.wrapping_sub(1) & 0x0f);
        let adaptation = Adaptation {
            clock,
            ..Adaptation::default()
        };
        adaptation.put(ROOM, out);
    }

    fn head(&mut self, pid: u16, starts: bool, has_adaptation: bool, out: &mut BytesMut) {
        out.put_u8(SYNC);
        out.put_u16(pid | if starts { 0x4000 } else { 0 });
        out.put_u8(0x10 | if has_adaptation { 0x20 } else { 0 } | self.next);
        self.next = (self.next + 1) & 0x0f;
    }
}
