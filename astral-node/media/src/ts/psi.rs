//! Tables: which programs there are (PAT), and of which streams one is made (PMT).
//! ISO/IEC 13818-1 §2.4.4; stream types §2.4.4.10 and those in common use.

use bytes::{BufMut as _, BytesMut};

use super::opus;
use super::packet::{Continuity, Follows, Packet};
use crate::codec::CodecKind;
use crate::track::TrackKind;

/// Longest section, bytes, header and checksum included.
const SECTION_MAX: usize = 4096;
const PAT: u8 = 0;
const PMT: u8 = 2;
/// Bytes before a table's own, and those of its checksum.
const HEAD: usize = 8;
const CRC: usize = 4;

/// Stream types that are written.
pub(super) const TYPE_PRIVATE: u8 = 0x06;
pub(super) const TYPE_AAC: u8 = 0x0f;
pub(super) const TYPE_H264: u8 = 0x1b;
pub(super) const TYPE_H265: u8 = 0x24;

/// Puts the sections of one PID together.
#[derive(Debug, Default)]
pub(super) struct Sections {
    continuity: Continuity,
    /// What has come of a section; none between sections.
    open: Option<Vec<u8>>,
}

impl Sections {
    /// Takes a packet, and gives the sections that are whole with it and whose checksum
    /// is right.
    pub(super) fn push(&mut self, packet: &Packet<'_>) -> Vec<Vec<u8>> {
        let mut whole = Vec::new();
        let Some(payload) = packet.payload else {
            return whole;
        };
        match self.continuity.follow(packet) {
            Follows::Well => {}
            Follows::Again => return whole,
            Follows::Gap => self.open = None,
        }
        if !packet.starts {
            self.append(payload, &mut whole);
            return whole;
        }
        let Some((&pointer, rest)) = payload.split_first() else {
            return whole;
        };
        let Some((end_of_last, mut rest)) = rest.split_at_checked(pointer.into()) else {
            self.open = None;
            return whole;
        };
        self.append(end_of_last, &mut whole);
        // Sections follow each other; 0xff is no table but filling.
        while rest.first().is_some_and(|&id| id != 0xff) {
            self.open = Some(Vec::new());
            let used = self.append(rest, &mut whole);
            rest = &rest[used..];
        }
        whole
    }

    /// Adds bytes to the open section; says how many were its own.
    fn append(&mut self, bytes: &[u8], whole: &mut Vec<Vec<u8>>) -> usize {
        let Some(open) = &mut self.open else {
            return bytes.len();
        };
        let before = open.len();
        open.extend_from_slice(bytes);
        let Some(&[_, high, low]) = open.first_chunk() else {
            return bytes.len();
        };
        let length = 3 + (usize::from(high & 0x0f) << 8 | usize::from(low));
        if length > SECTION_MAX {
            self.open = None;
            return bytes.len();
        }
        if open.len() < length {
            return bytes.len();
        }
        open.truncate(length);
        if let Some(section) = self.open.take().filter(|section| crc(section) == 0) {
            whole.push(section);
        }
        length - before
    }
}

/// The checksum of sections; 0 over a section that ends in its own.
fn crc(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}

/// The part of a section behind its head, if it is a valid table of this kind and for
/// now, with the number that the head carries.
fn table(section: &[u8], id: u8) -> Option<(u16, &[u8])> {
    let &[table, flags, _, n1, n0, version, _, _] = section.first_chunk()?;
    let is_now = version & 1 == 1;
    let end = section.len().checked_sub(CRC)?;
    let body = section.get(HEAD..end)?;
    (table == id && flags & 0x80 != 0 && is_now).then_some((u16::from_be_bytes([n1, n0]), body))
}

/// A program as the PAT lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Program {
    pub(super) number: u16,
    pub(super) pmt_pid: u16,
}

/// The first program of a PAT; the one with number 0 is no program.
pub(super) fn first_program(section: &[u8]) -> Option<Program> {
    let (_, body) = table(section, PAT)?;
    let (entries, _) = body.as_chunks::<4>();
    let mut programs = entries.iter().map(|&[n1, n0, p1, p0]| Program {
        number: u16::from_be_bytes([n1, n0]),
        pmt_pid: u16::from_be_bytes([p1 & 0x1f, p0]),
    });
    programs.find(|program| program.number != 0)
}

/// A stream of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) pid: u16,
    pub(super) what: What,
}

/// What a stream carries, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Carried(CodecKind),
    /// Opus says its channels in the table.
    Opus(opus::Channels),
    /// Picture or sound of a codec that is not carried.
    Refused(TrackKind, &'static str),
    Encrypted,
}

/// The streams that a PMT lists for this program, those aside that are neither picture
/// nor sound; none if it is not this program's.
pub(super) fn streams(section: &[u8], program: Program) -> Option<Vec<Listed>> {
    let (number, body) = table(section, PMT)?;
    let (&[_, _, high, low], rest) = body.split_first_chunk()?;
    let mut rest = rest.get(length(high, low)..)?;
    let mut listed = Vec::new();
    while let Some((&[kind, p1, p0, high, low], tail)) = rest.split_first_chunk() {
        let (descriptors, tail) = tail.split_at_checked(length(high, low))?;
        rest = tail;
        if let Some(what) = what(kind, descriptors) {
            let pid = u16::from_be_bytes([p1 & 0x1f, p0]);
            listed.push(Listed { pid, what });
        }
    }
    (number == program.number).then_some(listed)
}

fn length(high: u8, low: u8) -> usize {
    usize::from(high & 0x0f) << 8 | usize::from(low)
}

fn what(kind: u8, descriptors: &[u8]) -> Option<What> {
    use TrackKind::{Audio, Video};
    Some(match kind {
        TYPE_H264 => What::Carried(CodecKind::H264),
        TYPE_H265 => What::Carried(CodecKind::H265),
        TYPE_AAC => What::Carried(CodecKind::Aac),
        TYPE_PRIVATE => return private(descriptors),
        0x01 | 0x02 => What::Refused(Video, "MPEG-2 video"),
        0x10 => What::Refused(Video, "MPEG-4 part 2 video"),
        0x33 => What::Refused(Video, "H.266"),
        0x42 | 0xd2..=0xd4 => What::Refused(Video, "AVS video"),
        0xd1 => What::Refused(Video, "Dirac video"),
        0xea => What::Refused(Video, "VC-1"),
        0x03 | 0x04 => What::Refused(Audio, "MPEG audio (MP2, MP3)"),
        0x11 => What::Refused(Audio, "AAC in LATM"),
        0x1c => What::Refused(Audio, "AAC without a framing"),
        0x2d | 0x2e => What::Refused(Audio, "MPEG-H audio"),
        0x81 => What::Refused(Audio, "AC-3"),
        0x84 | 0x87 => What::Refused(Audio, "E-AC-3"),
        0x80 | 0x83 => What::Refused(Audio, "PCM or TrueHD"),
        0x82 | 0x85 | 0x86 | 0x8a => What::Refused(Audio, "DTS"),
        0xcf | 0xdb | 0xc1 | 0xc2 => What::Encrypted,
        _ => return None,
    })
}

/// What private data are, by their registration (or DVB's descriptors).
fn private(descriptors: &[u8]) -> Option<What> {
    use TrackKind::{Audio, Video};
    let all = || Descriptors(descriptors);
    let registration = all().find(|(tag, _)| *tag == 0x05);
    let registration = registration.and_then(|(_, body)| body.first_chunk::<4>());
    match registration {
        Some(b"Opus") => {
            let channels = all().find_map(|(tag, body)| opus::Channels::of(tag, body));
            return Some(What::Opus(channels.unwrap_or_default()));
        }
        Some(b"HEVC") => return Some(What::Carried(CodecKind::H265)),
        Some(b"AV01") => return Some(What::Refused(Video, "AV1")),
        Some(b"VP09") => return Some(What::Refused(Video, "VP9")),
        Some(b"AC-3") => return Some(What::Refused(Audio, "AC-3")),
        Some(b"EAC3") => return Some(What::Refused(Audio, "E-AC-3")),
        Some(_) | None => {}
    }
    all().find_map(|(tag, _)| match tag {
        0x6a => Some(What::Refused(Audio, "AC-3")),
        0x7a => Some(What::Refused(Audio, "E-AC-3")),
        0x7b => Some(What::Refused(Audio, "DTS")),
        0x7c => Some(What::Refused(Audio, "AAC without a stream type")),
        _ => None,
    })
}

/// Tags and bodies; ends where one is cut short.
struct Descriptors<'a>(&'a [u8]);

impl<'a> Iterator for Descriptors<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, length], rest) = self.0.split_first_chunk()?;
        let (body, rest) = rest.split_at_checked(length.into())?;
        self.0 = rest;
        Some((tag, body))
    }
}

/// A stream as it is to be listed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) pid: u16,
    pub(super) kind: u8,
    pub(super) descriptors: Vec<u8>,
}

/// A PAT with one program.
pub(super) fn pat(program: Program) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u16(program.number);
    body.put_u16(0xe000 | program.pmt_pid);
    section(PAT, 1, 0, &body)
}

/// A PMT; `version` counts its changes modulo 32.
pub(super) fn pmt(number: u16, version: u8, clock_pid: u16, entries: &[Entry]) -> BytesMut {
    let mut body = BytesMut::new();
    body.put_u16(0xe000 | clock_pid);
    body.put_u16(0xf000);
    for entry in entries {
        body.put_u8(entry.kind);
        body.put_u16(0xe000 | entry.pid);
        // Our descriptors are a dozen bytes.
        body.put_u16(0xf000 | entry.descriptors.len() as u16);
        body.put_slice(&entry.descriptors);
    }
    section(PMT, number, version, &body)
}

fn section(table: u8, number: u16, version: u8, body: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    out.put_u8(table);
    // One or two streams make a table of some forty bytes.
    out.put_u16(0xb000 | (body.len() + HEAD - 3 + CRC) as u16);
    out.put_u16(number);
    out.put_slice(&[0xc1 | version << 1 & 0x3e, 0, 0]);
    out.put_slice(body);
    let crc = crc(&out);
    out.put_u32(crc);
    out
}

#[cfg(test)]
mod tests {
    use super::super::PACKET;
    use super::*;

    const PROGRAM: Program = Program {
        number: 1,
        pmt_pid: 0x1000,
    };

    fn entries() -> Vec<Entry> {
        let entry = |pid, kind, descriptors: &[u8]| Entry {
            pid,
            kind,
            descriptors: descriptors.to_vec(),
        };
        vec![
            entry(0x100, TYPE_H264, &[]),
            entry(0x101, TYPE_PRIVATE, b"\x05\x04Opus\x7f\x02\x80\x06"),
            entry(0x102, 0x11, &[]),
            entry(0x103, TYPE_PRIVATE, &[0x59, 1, 0]),
        ]
    }

    /// A section in packets of PID 0.
    fn packets(section: &[u8], before: &[u8]) -> Vec<[u8; PACKET]> {
        let bytes = [&[before.len() as u8], before, section].concat();
        let chunks = bytes.chunks(PACKET - 4).enumerate();
        chunks
            .map(|(n, chunk)| {
                let mut packet = [0xff; PACKET];
                let starts = if n == 0 { 0x40 } else { 0 };
                packet[..4].copy_from_slice(&[0x47, starts, 0, 0x10 | n as u8]);
                packet[4..4 + chunk.len()].copy_from_slice(chunk);
                packet
            })
            .collect()
    }

    fn sections(packets: &[[u8; PACKET]]) -> Vec<Vec<u8>> {
        let mut sections = Sections::default();
        let packets = packets.iter().filter_map(Packet::parse);
        packets.flat_map(|packet| sections.push(&packet)).collect()
    }

    #[test]
    fn tables_that_are_written_are_read() {
        let pat = pat(PROGRAM);
        assert_eq!(first_program(&pat), Some(PROGRAM));
        let pmt = pmt(1, 3, 0x100, &entries());
        let listed = streams(&pmt, PROGRAM).unwrap();
        let what: Vec<_> = listed.iter().map(|listed| listed.what).collect();
        let six = opus::Channels::of(0x7f, &[0x80, 6]).unwrap();
        let latm = What::Refused(TrackKind::Audio, "AAC in LATM");
        assert_eq!(
            what,
            [What::Carried(CodecKind::H264), What::Opus(six), latm]
        );
        let other = Program {
            number: 2,
            ..PROGRAM
        };
        assert_eq!(streams(&pmt, other), None);
    }

    #[test]
    fn sections_over_several_packets_and_behind_others_are_put_together() {
        let many: Vec<_> = (0..20).flat_map(|_| entries()).collect();
        let (long, short) = (pmt(1, 0, 0x100, &many), pat(PROGRAM));
        assert!(long.len() > 2 * PACKET);
        let both = [&long[..], &short].concat();
        assert_eq!(sections(&packets(&both, &[1, 2, 3])).len(), 1);
        let both = [&short[..], &long].concat();
        assert_eq!(sections(&packets(&both, &[])), [&short[..], &long]);
    }

    #[test]
    fn damaged_sections_are_no_sections() {
        let section = pmt(1, 0, 0x100, &entries());
        for at in 0..section.len() {
            let mut damaged = section.clone();
            damaged[at] ^= 0x10;
            assert!(sections(&packets(&damaged, &[])).is_empty(), "byte {at}");
        }
        let mut lost = packets(&[section.to_vec(), vec![0; 500]].concat(), &[]);
        lost.remove(1);
        assert_eq!(sections(&lost).len(), 1, "it was whole before the gap");
    }

    #[test]
    fn lengths_that_run_over_are_refused() {
        // As it made a published parser panic: program_info_length beyond the end.
        let mut body = vec![0xe1, 0x00, 0xf0, 200];
        body.extend([TYPE_H264, 0xe1, 0, 0xf0, 0]);
        assert_eq!(streams(&section(PMT, 1, 0, &body), PROGRAM), None);
        let body = [0xe1, 0, 0xf0, 0, TYPE_H264, 0xe1, 0, 0xf0, 9];
        assert_eq!(streams(&section(PMT, 1, 0, &body), PROGRAM), None);
        assert_eq!(first_program(&[0, 0xb0]), None);
    }
}
