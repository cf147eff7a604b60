//! Just enough of ISO/IEC 14496-12 to tell pieces of a live file apart.
//!
//! Written apart from the node's own muxer on purpose: a test that shares the code
//! under test sees only what that code wants to see.

use std::ops::Range;

/// A `moof` with its `mdat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Track number.
    pub track: u32,
    /// Decoding time of its first sample, in ticks of the track.
    pub tfdt: u64,
    /// Sequence number of its `mfhd`.
    pub sequence: u32,
    /// Samples in it.
    pub samples: u32,
    /// Where its bytes lie in what was received.
    pub range: Range<usize>,
}

/// What a live file is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// `ftyp` and `moov`; where they lie.
    Init(Range<usize>),
    /// `moof` and `mdat`.
    Fragment(Fragment),
}

/// Finds the parts in bytes as they come.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Everything before it is split.
    at: usize,
    /// Start of a part that is not whole yet.
    part: Option<usize>,
    moof: Option<Fragment>,
}

impl Splitter {
    /// Takes up whole boxes of `bytes`, which is all that was received so far.
    pub fn split(&mut self, bytes: &[u8], out: &mut Vec<Part>) {
        while let Some((kind, body)) = next_box(bytes, self.at) {
            let start = *self.part.get_or_insert(self.at);
            self.at = body.end;
            match &kind {
                b"moov" => {
                    self.part = None;
                    out.push(Part::Init(start..body.end));
                }
                b"moof" => self.moof = Some(read_moof(&bytes[body])),
                b"mdat" => {
                    self.part = None;
                    let mut fragment = self.moof.take().expect("an mdat follows its moof");
                    fragment.range = start..self.at;
                    out.push(Part::Fragment(fragment));
                }
                b"ftyp" | b"styp" | b"prft" | b"emsg" | b"sidx" => {}
                other => panic!("a box `{}` in a live file", String::from_utf8_lossy(other)),
            }
        }
    }
}

/// A whole box at `at`: its kind, and where its body lies.
fn next_box(bytes: &[u8], at: usize) -> Option<([u8; 4], Range<usize>)> {
    let head: &[u8; 8] = bytes.get(at..)?.first_chunk()?;
    let size = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
    assert!(size >= 8, "a box of {size} bytes at {at}");
    let kind = [head[4], head[5], head[6], head[7]];
    (bytes.len() >= at + size).then(|| (kind, at + 8..at + size))
}

fn children(body: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (kind, range) = next_box(body, at)?;
        at = range.end;
        Some((kind, &body[range]))
    })
}

fn child<'a>(body: &'a [u8], wanted: &[u8; 4]) -> &'a [u8] {
    let found = children(body).find(|(kind, _)| kind == wanted);
    let missing = || panic!("no `{}`", String::from_utf8_lossy(wanted));
    found.map_or_else(missing, |(_, body)| body)
}

fn u32_at(body: &[u8], at: usize) -> u32 {
    let bytes = body.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_be_bytes(*bytes.expect("a field within its box"))
}

fn read_moof(moof: &[u8]) -> Fragment {
    let traf = child(moof, b"traf");
    let trafs = children(moof).filter(|(kind, _)| kind == b"traf").count();
    assert_eq!(trafs, 1, "one track per moof");
    let tfdt = child(traf, b"tfdt");
    let time = match tfdt[0] {
        0 => u32_at(tfdt, 4).into(),
        _ => u64::from(u32_at(tfdt, 4)) << 32 | u64::from(u32_at(tfdt, 8)),
    };
    let runs = children(traf).filter(|(kind, _)| kind == b"trun");
    Fragment {
        track: u32_at(child(traf, b"tfhd"), 4),
        tfdt: time,
        sequence: u32_at(child(moof, b"mfhd"), 4),
        samples: runs.map(|(_, run)| u32_at(run, 4)).sum(),
        range: 0..0,
    }
}
