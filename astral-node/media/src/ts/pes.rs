//! PES packets, which carry access units and their stamps (ISO/IEC 13818-1 §2.4.3.6).

use bytes::{BufMut as _, BytesMut};

use super::packet::{Continuity, Follows, Packet};
use super::{PES_BYTES_MAX, TsError};

/// Bytes before those that a PES packet's length counts.
const PREFIX: usize = 6;
/// Bytes of a header before its optional fields.
const HEAD: usize = 9;
/// Bytes of the headers that are written: with one stamp, with two.
pub(super) const HEADER_MAX: usize = HEAD + 10;

/// A PES packet that is whole.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pes {
    pub(super) pts: Option<u64>,
    pub(super) dts: Option<u64>,
    /// Something before it was lost.
    pub(super) gap: bool,
    bytes: Vec<u8>,
    start: usize,
}

impl Pes {
    pub(super) fn data(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Whether its length has no room for more: the rest of a picture may follow in
    /// another, without stamps.
    pub(super) fn is_full(&self) -> bool {
        const FULL: usize = 65_000;
        (FULL..=usize::from(u16::MAX) + PREFIX).contains(&self.bytes.len())
    }

    /// Adds the data of another that continues this one.
    pub(super) fn join(&mut self, other: &Self) -> Result<(), TsError> {
        if self.bytes.len() + other.data().len() > PES_BYTES_MAX {
            return Err(TsError::PesTooLong);
        }
        self.bytes.extend_from_slice(other.data());
        Ok(())
    }

    /// Reads the header; none if it is none of a stream of media.
    fn parse(bytes: Vec<u8>, gap: bool) -> Option<Self> {
        let &[0, 0, 1, id, _, _, marks, flags, length] = bytes.first_chunk()? else {
            return None;
        };
        let start = HEAD + usize::from(length);
        let has_header = !matches!(id, 0xbc | 0xbe | 0xbf | 0xf0..=0xf2 | 0xf8 | 0xff);
        if !has_header || marks & 0xc0 != 0x80 || bytes.len() < start {
            return None;
        }
        let fields = &bytes[HEAD..start];
        let pts = if flags & 0x80 != 0 {
            stamp(fields)
        } else {
            None
        };
        let dts = match flags & 0xc0 {
            0xc0 => fields.get(5..).and_then(stamp),
            _ => None,
        };
        Some(Self {
            pts,
            dts: dts.or(pts),
            gap,
            bytes,
            start,
        })
    }
}

/// A stamp of 33 bits in five bytes; its marker bits are not looked at.
fn stamp(fields: &[u8]) -> Option<u64> {
    let &[a, b, c, d, e] = fields.first_chunk()?;
    let high = u64::from(a >> 1 & 7) << 30;
    let middle = u64::from(b) << 22 | u64::from(c >> 1) << 15;
    Some(high | middle | u64::from(d) << 7 | u64::from(e >> 1))
}

/// Puts the PES packets of one PID together.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    continuity: Continuity,
    /// What has come of a PES packet; none before the first start.
    open: Option<Vec<u8>>,
    /// Something was lost since the last whole one.
    gap: bool,
    gaps: u64,
}

impl Assembler {
    /// Takes a packet of this PID and appends the PES packets that are whole now.
    ///
    /// # Errors
    /// [`TsError::PesTooLong`].
    pub(super) fn push(&mut self, packet: &Packet<'_>, out: &mut Vec<Pes>) -> Result<(), TsError> {
        let Some(payload) = packet.payload else {
            return Ok(());
        };
        match self.continuity.follow(packet) {
            Follows::Well => {}
            Follows::Again => return Ok(()),
            Follows::Gap => self.lose(),
        }
        if packet.starts {
            self.flush(out);
            self.open = Some(Vec::new());
        }
        let Some(open) = &mut self.open else {
            return Ok(());
        };
        if open.len() + payload.len() > PES_BYTES_MAX {
            return Err(TsError::PesTooLong);
        }
        open.extend_from_slice(payload);
        // A length of 0 says that the next start is the end.
        let said = match open.get(4..PREFIX) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            Some(_) | None => 0,
        };
        if said > 0 && open.len() >= PREFIX + said {
            open.truncate(PREFIX + said);
            self.flush(out);
        }
        Ok(())
    }

    /// What has come is all there is of the open one.
    pub(super) fn flush(&mut self, out: &mut Vec<Pes>) {
        let Some(bytes) = self.open.take() else {
            return;
        };
        let said = match bytes.get(4..PREFIX) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            Some(_) | None => 0,
        };
        if said > 0 && bytes.len() < PREFIX + said {
            return self.lose();
        }
        match Pes::parse(bytes, self.gap) {
            Some(pes) => {
                self.gap = false;
                out.push(pes);
            }
            None => self.lose(),
        }
    }

    /// Packets were lost: the open one is of no use.
    fn lose(&mut self) {
        self.open = None;
        self.gap = true;
        self.gaps += 1;
    }

    /// How often something was lost.
    pub(super) fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Bytes held.
    pub(super) fn buffered(&self) -> usize {
        self.open.as_ref().map_or(0, Vec::len)
    }
}

/// Writes the header of a PES packet with `length` bytes of data; a length that does not
/// fit is left open, as pictures may.
pub(super) fn put_header(out: &mut BytesMut, id: u8, pts: u64, dts: Option<u64>, length: usize) {
    let fields = if dts.is_some() { 10 } else { 5 };
    out.put_slice(&[0, 0, 1, id]);
    let length = length + HEAD - PREFIX + fields;
    out.put_u16(u16::try_from(length).unwrap_or(0));
    let (flags, mark) = if dts.is_some() { (0xc0, 3) } else { (0x80, 2) };
    // The data begin with the access unit: alignment is said.
    out.put_slice(&[0x84, flags, fields as u8]);
    put_stamp(out, mark, pts);
    if let Some(dts) = dts {
        put_stamp(out, 1, dts);
    }
}

fn put_stamp(out: &mut BytesMut, mark: u8, stamp: u64) {
    out.put_u8(mark << 4 | (stamp >> 29) as u8 & 0x0e | 1);
    out.put_u16((stamp >> 14) as u16 | 1);
    out.put_u16((stamp << 1) as u16 | 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pes(pts: u64, dts: Option<u64>, data: &[u8]) -> Vec<u8> {
        let mut out = BytesMut::new();
        put_header(&mut out, 0xe0, pts, dts, data.len());
        out.put_slice(data);
        out.to_vec()
    }

    fn payload(payload: &[u8], starts: bool, counter: u8) -> Packet<'_> {
        Packet {
            pid: 256,
            starts,
            scrambled: false,
            counter,
            discontinuity: false,
            payload: Some(payload),
        }
    }

    #[test]
    fn stamps_survive_up_to_their_last_bit() {
        for stamp in [0, 1, 126_000, 0x1_5555_5555, (1 << 33) - 1] {
            let bytes = pes(stamp, Some(stamp ^ 1), b"x");
            let read = Pes::parse(bytes, false).unwrap();
            assert_eq!((read.pts, read.dts), (Some(stamp), Some(stamp ^ 1)));
            assert_eq!(read.data(), b"x");
        }
        let read = Pes::parse(pes(7, None, b""), false).unwrap();
        assert_eq!((read.pts, read.dts), (Some(7), Some(7)));
    }

    #[test]
    fn a_known_length_needs_no_further_start_and_an_open_one_does() {
        let (mut assembler, mut out) = (Assembler::default(), Vec::new());
        let known = pes(1, None, b"abc");
        assembler
            .push(&payload(&known[..5], true, 0), &mut out)
            .unwrap();
        assembler
            .push(
                &payload(&[&known[5..], b"\xff\xff"].concat(), false, 1),
                &mut out,
            )
            .unwrap();
        assert_eq!(out.pop().unwrap().data(), b"abc");
        let mut open = pes(2, None, b"def");
        open[4..6].fill(0);
        assembler.push(&payload(&open, true, 2), &mut out).unwrap();
        assembler
            .push(&payload(b"ghi", false, 3), &mut out)
            .unwrap();
        assert_eq!(out, []);
        assembler.push(&payload(&known, true, 4), &mut out).unwrap();
        assert_eq!(out[0].data(), b"defghi");
        assert_eq!(out.len(), 2);
    }

    #[test]
    fn what_lost_a_packet_is_dropped_and_the_next_one_says_so() {
        let (mut assembler, mut out) = (Assembler::default(), Vec::new());
        let open = {
            let mut open = pes(2, None, b"def");
            open[4..6].fill(0);
            open
        };
        assembler
            .push(&payload(b"in the middle", false, 0), &mut out)
            .unwrap();
        assembler.push(&payload(&open, true, 1), &mut out).unwrap();
        assembler.push(&payload(b"x", false, 3), &mut out).unwrap();
        assembler.push(&payload(&open, true, 4), &mut out).unwrap();
        assembler.flush(&mut out);
        assert_eq!(out.len(), 1);
        assert!(out[0].gap);
        assert_eq!(assembler.gaps(), 1);
    }

    #[test]
    fn an_endless_one_is_refused() {
        let (mut assembler, mut out) = (Assembler::default(), Vec::new());
        let open = {
            let mut open = pes(2, None, &[0; 170]);
            open[4..6].fill(0);
            open
        };
        let refused = (0..60_000u32)
            .map(|n| assembler.push(&payload(&open, n == 0, n as u8 & 15), &mut out))
            .find(Result::is_err);
        assert_eq!(refused, Some(Err(TsError::PesTooLong)));
        assert!(assembler.buffered() <= PES_BYTES_MAX);
    }
}
