//! Fragmented MP4 as it comes over a connection (ISO/IEC 14496-12).
//!
//! ```text
//! Header ── moov, moof ──▶ Whole ──▶ Header      tracks, or samples to come
//!        ── mdat ────────▶ Media ──▶ Header      samples go out one by one
//!        ── other ───────▶ Skip  ──▶ Header
//! ```
//! It holds at most one small box or one sample at a time. Samples are believed to
//! be where their `moof` (or the sample tables of a `moov` that is not empty) says,
//! in front of what was read; times are the container's for pictures and the codec's
//! for sound. It does not repair time stamps: that is the timeline's.

use std::collections::VecDeque;

use mp4_atom::{Moof, Moov};

use super::boxes::{BoxHeader, MAX_HEADER};
use super::error::{Fmp4Error, FourCc, IgnoredTrack};
use super::fragment::plan_fragment;
use super::repair::with_av1c;
use super::table::SampleTable;
use super::track::{MoovTracks, Planned};
use crate::source::SourceEvent;

/// Most bytes of a `moov` or `moof`.
///
/// A `moof` of [`MAX_SAMPLES`] with four fields each has 320 kB; a `moov` with a
/// cover picture some hundred more.
pub const MAX_BOX: u64 = 4 << 20;
/// Most bytes of a sample, the wire's limit for a frame: 1 s of 64 Mbit/s.
pub const MAX_SAMPLE: u32 = 8 << 20;
/// Most samples that a `moof`, or the tables of a `moov`, may announce.
///
/// A fragment of a minute, with pictures and sound, has some 6,500.
pub const MAX_SAMPLES: usize = 20_000;

/// Longest piece that is taken into the buffer at once, in bytes.
const PIECE: usize = 64 << 10;

/// Turns the bytes of one fragmented MP4 into tracks and samples.
#[derive(Debug)]
pub struct Demuxer {
    /// Bytes not yet used up; the first stands at `offset`.
    buffer: Vec<u8>,
    used: usize,
    offset: u64,
    state: State,
    tracks: Option<MoovTracks>,
    /// Samples to come, by offset.
    plan: VecDeque<Planned>,
    failed: bool,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Header,
    Whole { header: BoxHeader, size: usize },
    Media { header: BoxHeader },
    Skip { header: BoxHeader },
}

impl Default for Demuxer {
    fn default() -> Self {
        Self::new()
    }
}

impl Demuxer {
    /// A demuxer at the start of a stream.
    pub fn new() -> Self {
        Self {
            buffer: Vec::new(),
            used: 0,
            offset: 0,
            state: State::Header,
            tracks: None,
            plan: VecDeque::new(),
            failed: false,
        }
    }

    /// Takes the next bytes, however many, and appends what they complete to `out`.
    ///
    /// # Errors
    /// See [`Fmp4Error`]; what came before the error is in `out`, and nothing is
    /// taken afterwards.
    pub fn push(&mut self, data: &[u8], out: &mut Vec<SourceEvent>) -> Result<(), Fmp4Error> {
        if self.failed {
            return Err(Fmp4Error::Poisoned);
        }
        for piece in data.chunks(PIECE) {
            self.buffer.extend_from_slice(piece);
            let result = self.run(out);
            self.failed = result.is_err();
            result?;
            self.buffer.drain(..self.used);
            self.offset += self.used as u64;
            self.used = 0;
        }
        Ok(())
    }

    /// Says that the source ended properly; appends [`SourceEvent::End`].
    ///
    /// # Errors
    /// [`Fmp4Error::Truncated`] if it ended inside a box or before a sample that was
    /// announced; then there is no end event.
    pub fn finish(&mut self, out: &mut Vec<SourceEvent>) -> Result<(), Fmp4Error> {
        if self.failed {
            return Err(Fmp4Error::Poisoned);
        }
        let offset = self.position() + self.rest().len() as u64;
        let open = match self.state {
            State::Header if self.rest().is_empty() => None,
            State::Header => Some(FourCc(*b"????")),
            State::Media { header } | State::Skip { header } if header.body.is_none() => None,
            State::Whole { header, .. } | State::Media { header } | State::Skip { header } => {
                Some(header.kind)
            }
        };
        let announced = (!self.plan.is_empty()).then_some(FourCc(*b"mdat"));
        if let Some(kind) = open.or(announced) {
            return Err(Fmp4Error::Truncated { kind, offset });
        }
        out.push(SourceEvent::End);
        Ok(())
    }

    /// Tracks that were left out because their codec is not carried.
    pub fn ignored(&self) -> &[IgnoredTrack] {
        self.tracks.as_ref().map_or(&[], |tracks| &tracks.ignored)
    }

    /// Bytes held at the moment: at most one small box or sample, and one piece.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn run(&mut self, out: &mut Vec<SourceEvent>) -> Result<(), Fmp4Error> {
        while self.step(out)? {}
        Ok(())
    }

    /// Does one thing; false when more bytes are needed.
    fn step(&mut self, out: &mut Vec<SourceEvent>) -> Result<bool, Fmp4Error> {
        match self.state {
            State::Header => self.begin(),
            State::Whole { header, size } => self.whole(header, size, out),
            State::Media { header } => self.media(header, out),
            State::Skip { header } => Ok(self.skip(header)),
        }
    }

    fn begin(&mut self) -> Result<bool, Fmp4Error> {
        let head = &self.rest()[..self.rest().len().min(MAX_HEADER)];
        let Some(header) = BoxHeader::parse(head, self.position())? else {
            return Ok(false);
        };
        if !header
            .kind
            .0
            .iter()
            .all(|&byte| (b' '..0x7f).contains(&byte))
        {
            return Err(header.invalid("no box has such a name; this is not MP4"));
        }
        self.state = self.enter(header)?;
        self.used += usize::from(header.header);
        Ok(true)
    }

    fn enter(&self, header: BoxHeader) -> Result<State, Fmp4Error> {
        let (kind, offset) = (header.kind, header.offset);
        let media = matches!(&kind.0, b"mdat" | b"moof") && header.body != Some(0);
        if media && self.tracks.is_none() {
            return Err(Fmp4Error::NoMoov { kind, offset });
        }
        Ok(match &kind.0 {
            b"moov" | b"moof" => State::Whole {
                header,
                // At most `MAX_BOX`, so it fits.
                size: header.bounded_body(MAX_BOX)? as usize,
            },
            b"mdat" => State::Media { header },
            _ => State::Skip { header },
        })
    }

    fn whole(
        &mut self,
        header: BoxHeader,
        size: usize,
        out: &mut Vec<SourceEvent>,
    ) -> Result<bool, Fmp4Error> {
        let Some(body) = self.rest().get(..size) else {
            return Ok(false);
        };
        match &header.kind.0 {
            b"moov" => {
                let repaired = with_av1c(body);
                let moov = header.decode(repaired.as_deref().unwrap_or(body))?;
                self.moov(&moov, header, out)?;
            }
            _ => {
                let moof = header.decode(body)?;
                self.moof(&moof, &header)?;
            }
        }
        self.used += size;
        self.state = State::Header;
        Ok(true)
    }

    fn moov(
        &mut self,
        moov: &Moov,
        header: BoxHeader,
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), Fmp4Error> {
        if !self.plan.is_empty() {
            return Err(header.invalid("samples that were announced before it did not come"));
        }
        let mut tracks = MoovTracks::read(moov, &header)?;
        for track in &mut tracks.tracks {
            let earlier = self.tracks.as_ref().and_then(|earlier| {
                let index = earlier.index_of(track.id)?;
                earlier.tracks.get(index)
            });
            if let Some(earlier) = earlier {
                track.resume(earlier);
            }
            track.announce(out);
        }
        let plan = plan_tables(moov, header, &mut tracks)?;
        self.tracks = Some(tracks);
        self.add_plan(plan, &header)
    }

    fn moof(&mut self, moof: &Moof, header: &BoxHeader) -> Result<(), Fmp4Error> {
        let Some(tracks) = &mut self.tracks else {
            let (kind, offset) = (header.kind, header.offset);
            return Err(Fmp4Error::NoMoov { kind, offset });
        };
        let mut plan = Vec::new();
        plan_fragment(moof, header, tracks, None, &mut plan)?;
        self.add_plan(plan, header)
    }

    fn add_plan(&mut self, plan: Vec<Planned>, header: &BoxHeader) -> Result<(), Fmp4Error> {
        if self.plan.len() + plan.len() > MAX_SAMPLES {
            let (kind, offset) = (header.kind, header.offset);
            return Err(Fmp4Error::TooManySamples { kind, offset });
        }
        self.plan.extend(plan);
        self.plan
            .make_contiguous()
            .sort_by_key(|planned| planned.offset);
        Ok(())
    }

    fn media(&mut self, header: BoxHeader, out: &mut Vec<SourceEvent>) -> Result<bool, Fmp4Error> {
        let in_box = |planned: &&Planned| header.end().is_none_or(|end| planned.offset < end);
        let Some(&planned) = self.plan.front().filter(in_box) else {
            return Ok(self.skip(header));
        };
        let Some(tracks) = &mut self.tracks else {
            return Ok(self.skip(header));
        };
        let position = self.offset + self.used as u64;
        let end = planned.offset + u64::from(planned.size);
        if planned.offset < position || header.end().is_some_and(|limit| end > limit) {
            return Err(Fmp4Error::SamplePosition {
                track: tracks.tracks[planned.track].id,
                offset: planned.offset,
            });
        }
        if planned.offset > position {
            return Ok(self.skip_to(planned.offset));
        }
        let size = planned.size as usize;
        let Some(data) = self.buffer[self.used..].get(..size) else {
            return Ok(false);
        };
        tracks.tracks[planned.track].deliver(&planned, data, out)?;
        self.used += size;
        self.plan.pop_front();
        Ok(true)
    }

    /// Passes over the rest of a box; true at its end.
    fn skip(&mut self, header: BoxHeader) -> bool {
        let done = self.skip_to(header.end().unwrap_or(u64::MAX));
        if done {
            self.state = State::Header;
        }
        done
    }

    /// Passes over bytes up to a position; true once there.
    fn skip_to(&mut self, position: u64) -> bool {
        let wanted = position.saturating_sub(self.position());
        let here = self.rest().len();
        let taken = usize::try_from(wanted).map_or(here, |wanted| wanted.min(here));
        self.used += taken;
        taken as u64 == wanted
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    fn position(&self) -> u64 {
        self.offset + self.used as u64
    }
}

/// Samples that stand in the tables of a `moov`: ffmpeg puts the first fragment
/// there unless told otherwise.
fn plan_tables(
    moov: &Moov,
    header: BoxHeader,
    tracks: &mut MoovTracks,
) -> Result<Vec<Planned>, Fmp4Error> {
    let mut plan = Vec::new();
    let mut left = MAX_SAMPLES;
    for trak in &moov.trak {
        let Some(index) = tracks.index_of(trak.tkhd.track_id) else {
            continue;
        };
        let mut table = SampleTable::new(&trak.mdia.minf.stbl, header);
        left = left
            .checked_sub(table.len())
            .ok_or(Fmp4Error::TooManySamples {
                kind: header.kind,
                offset: header.offset,
            })?;
        while let Some(planned) = table.next(index, &mut tracks.tracks[index])? {
            plan.push(planned);
        }
    }
    Ok(plan)
}

#[cfg(test)]
mod tests;
