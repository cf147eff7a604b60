//! Frames of a live stream to a transport stream for one viewer.
//!
//! It begins with a keyframe, as does every picture after a loss; sound from before it
//! is left out. PAT and PMT come with every keyframe and each quarter of a second, the
//! program's clock with every picture (every bundle of sound, where there is none) and
//! at least each tenth of a second.
//!
//! Times are the stream's own, so they go on across epochs; a new epoch is shown by the
//! discontinuity flag of each PID's next packet, and by a new version of the PMT if its
//! streams changed. Another codec has another PID.

mod carriage;
mod packets;

use bytes::BytesMut;
use thiserror::Error;

use super::pes;
use super::psi;
use crate::catalog::Catalog;
use crate::frame::{Frame, FrameError};
use crate::nal::NalLength;
use crate::track::{Track, TrackKind};
use carriage::Carriage;
use packets::{Adaptation, Pid};

/// PIDs of the tables; those of tracks are their codec's.
const PAT_PID: u16 = 0;
const PMT_PID: u16 = 0x1000;
const PROGRAM: psi::Program = psi::Program {
    number: 1,
    pmt_pid: PMT_PID,
};
/// Added to all times, ticks: a second, so that nothing at the stream's start is negative.
const OFFSET: i64 = 90_000;
/// How far the clock is behind the decoding times, ticks: 400 ms, for sound and picture
/// that do not come in exact order.
const CLOCK_DELAY: i64 = 36_000;
/// Longest time between tables, ticks: 250 ms.
const TABLES_EVERY: i64 = 22_500;
/// Time after which sound says the clock in a packet of its own, ticks: 40 ms, so that with
/// a bundle of sound more it is never 100.
const CLOCK_EVERY: i64 = 3_600;
/// Longest data of a PES packet of sound, bytes: its length must be said in 16 bits.
const SOUND_BYTES_MAX: usize = 60_000;

/// Why something cannot be written.
#[derive(Debug, Error)]
pub enum MuxError {
    /// A codec, or a configuration of one, for which a transport stream has no place.
    #[error("{codec} is not carried in MPEG-TS")]
    NotCarried {
        /// RFC 6381 name of the codec.
        codec: String,
    },
    /// The picture's NAL units do not add up.
    #[error("broken picture: {0}")]
    Picture(#[from] NalLength),
    /// The bundle of sound cannot be read.
    #[error("broken sound: {0}")]
    Sound(#[from] FrameError),
    /// A coded frame of sound that is too long for its header; carries its bytes.
    #[error("frame of sound of {0} bytes is too long for MPEG-TS")]
    SoundTooLong(usize),
}

/// Makes packets of the frames of a stream, in the order they are given.
#[derive(Debug, Default)]
pub struct TsMuxer {
    epoch: Option<u32>,
    lanes: Vec<Lane>,
    pat: Pid,
    pmt: Pid,
    /// The PMT's lines, and its version modulo 32.
    entries: Vec<psi::Entry>,
    version: u8,
    /// When the tables were last written, ticks; none: they are due.
    tables: Option<i64>,
    /// What the clock last said, ticks.
    clock: Option<i64>,
    /// Time of the first keyframe, ticks, once it was there.
    started: Option<i64>,
}

#[derive(Debug)]
struct Lane {
    track: Track,
    carriage: Carriage,
    pid: Pid,
    /// Nothing may be written up to the next keyframe.
    waiting: bool,
    /// The next packet shows a new epoch.
    discontinuity: bool,
}

impl TsMuxer {
    /// A muxer that waits for its catalog.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a catalog, the first or a later one: before the first frame it describes.
    ///
    /// # Errors
    /// [`MuxError::NotCarried`]; then nothing more can be written.
    pub fn catalog(&mut self, catalog: &Catalog) -> Result<(), MuxError> {
        let mut before = std::mem::take(&mut self.lanes);
        let is_first = self.epoch.is_none();
        let is_new = self.epoch.replace(catalog.epoch) != Some(catalog.epoch);
        for track in &catalog.tracks {
            let carriage = Carriage::of(&track.config)?;
            let place = before.iter().position(|lane| lane.track.id == track.id);
            let earlier = place.map(|place| before.swap_remove(place));
            let mut lane = Lane::new(track, carriage, earlier);
            lane.discontinuity |= is_new && !is_first;
            self.lanes.push(lane);
        }
        let entries = self.lanes.iter().map(|lane| lane.carriage.entry());
        let entries: Vec<_> = entries.collect();
        if !is_first && entries != self.entries {
            self.version = (self.version + 1) & 0x1f;
        }
        (self.entries, self.tables) = (entries, None);
        Ok(())
    }

    /// Says that frames of a track are missing before the next one given.
    pub fn lost(&mut self, track: u8) {
        let lanes = self.lanes.iter_mut();
        for lane in lanes.filter(|lane| lane.track.id == track) {
            lane.waiting = lane.kind() == TrackKind::Video;
        }
    }

    /// Takes the next frame and appends whole packets to `out`, often none.
    ///
    /// Frames of another epoch than the catalog's, of unknown tracks, and those that
    /// wait for a keyframe are passed over.
    ///
    /// # Errors
    /// [`MuxError`] if the frame cannot be written; the muxer goes on without it.
    pub fn frame(&mut self, frame: &Frame, out: &mut BytesMut) -> Result<(), MuxError> {
        let of_track = |lane: &Lane| lane.track.id == frame.track;
        let Some(index) = self.lanes.iter().position(of_track) else {
            return Ok(());
        };
        if self.epoch != Some(frame.epoch) {
            return Ok(());
        }
        match self.lanes[index].kind() {
            TrackKind::Video => self.video(index, frame, out),
            TrackKind::Audio => self.audio(index, frame, out),
        }
    }

    fn video(&mut self, index: usize, frame: &Frame, out: &mut BytesMut) -> Result<(), MuxError> {
        let lane = &self.lanes[index];
        if lane.waiting && !frame.keyframe {
            return Ok(());
        }
        let dts = lane.ticks(frame.dts);
        let pts = lane.ticks(frame.dts.saturating_add(frame.cts.into()));
        let data = lane.carriage.picture(&frame.payload, frame.keyframe)?;
        self.tables(dts, frame.keyframe, out);
        let said = self.advance(dts);
        self.started.get_or_insert(dts);
        self.lanes[index].waiting = false;
        self.write(index, (pts, Some(dts)), said, frame.keyframe, &data, out);
        Ok(())
    }

    fn audio(&mut self, index: usize, frame: &Frame, out: &mut BytesMut) -> Result<(), MuxError> {
        let alone = self.clock_lane() == index;
        let lane = &self.lanes[index];
        let start = lane.ticks(frame.dts);
        if !alone && self.started.is_none_or(|started| start < started) {
            return Ok(());
        }
        let pieces = lane.sound(frame)?;
        self.tables(start, false, out);
        if !alone {
            self.tick(start, out);
        }
        for (pts, data) in pieces {
            let said = if alone { self.advance(pts) } else { None };
            self.write(index, (pts, None), said, true, &data, out);
        }
        Ok(())
    }

    /// Writes PAT and PMT if they are due, or if a viewer can begin here.
    fn tables(&mut self, now: i64, entry: bool, out: &mut BytesMut) {
        let due = self
            .tables
            .is_none_or(|at| now.saturating_sub(at) >= TABLES_EVERY);
        if !due && !entry {
            return;
        }
        self.tables = Some(now);
        self.pat.section(PAT_PID, &psi::pat(PROGRAM), out);
        let clock = self.lanes[self.clock_lane()].carriage.pid();
        let pmt = psi::pmt(PROGRAM.number, self.version, clock, &self.entries);
        self.pmt.section(PMT_PID, &pmt, out);
    }

    /// The lane whose packets carry the clock: the first picture's, else the first.
    fn clock_lane(&self) -> usize {
        let of_video = |lane: &Lane| lane.kind() == TrackKind::Video;
        self.lanes.iter().position(of_video).unwrap_or(0)
    }

    /// Moves the clock to where it stands at this decoding time; it never goes back.
    fn advance(&mut self, dts: i64) -> Option<i64> {
        let now = dts.saturating_sub(CLOCK_DELAY);
        let now = self.clock.map_or(now, |before| before.max(now));
        self.clock = Some(now);
        self.clock
    }

    /// Says the clock in a packet of its own if pictures have been away for long.
    fn tick(&mut self, now: i64, out: &mut BytesMut) {
        let due = |before: i64| now.saturating_sub(CLOCK_DELAY + before) >= CLOCK_EVERY;
        if self.clock.is_some_and(due) {
            let said = self.advance(now);
            let index = self.clock_lane();
            let lane = &self.lanes[index];
            lane.pid.clock(lane.carriage.pid(), said, out);
        }
    }

    /// Writes one PES packet.
    fn write(
        &mut self,
        index: usize,
        (pts, dts): (i64, Option<i64>),
        clock: Option<i64>,
        entry: bool,
        data: &[u8],
        out: &mut BytesMut,
    ) {
        let lane = &mut self.lanes[index];
        let adaptation = Adaptation {
            discontinuity: std::mem::take(&mut lane.discontinuity),
            entry,
            clock,
        };
        let mut header = BytesMut::with_capacity(pes::HEADER_MAX);
        // A second stamp only says something if it is another.
        let dts = dts.filter(|dts| *dts != pts).map(wrapped);
        let id = lane.carriage.stream_id();
        pes::put_header(&mut header, id, wrapped(pts), dts, data.len());
        let pid = lane.carriage.pid();
        lane.pid.packets(pid, adaptation, [&header, data], out);
    }
}

impl Lane {
    /// A lane of this track; what does not change goes on from before.
    fn new(track: &Track, carriage: Carriage, earlier: Option<Self>) -> Self {
        let unchanged = earlier.as_ref().filter(|lane| lane.track == *track);
        let waiting =
            unchanged.map_or(track.config.kind() == TrackKind::Video, |lane| lane.waiting);
        let same_pid = earlier.filter(|lane| lane.carriage.pid() == carriage.pid());
        Self {
            track: track.clone(),
            carriage,
            waiting,
            discontinuity: same_pid.as_ref().is_some_and(|lane| lane.discontinuity),
            pid: same_pid.map(|lane| lane.pid).unwrap_or_default(),
        }
    }

    fn kind(&self) -> TrackKind {
        self.track.config.kind()
    }

    /// A time of the track in ticks of 90 kHz, rounded to the nearest.
    fn ticks(&self, time: i64) -> i64 {
        let scale = i128::from(self.track.timescale.max(1));
        let ticks = (2 * i128::from(time) * 90_000 + scale).div_euclid(2 * scale);
        i64::try_from(ticks).unwrap_or(i64::MAX)
    }

    /// The bundle's coded frames, framed, in pieces that a PES packet has room for, each
    /// with its time.
    fn sound(&self, frame: &Frame) -> Result<Vec<(i64, BytesMut)>, MuxError> {
        let mut pieces: Vec<(i64, BytesMut)> = Vec::new();
        let mut at = frame.dts.saturating_add(frame.cts.into());
        for unit in crate::frame::audio_units(&frame.payload)? {
            let framed = self.carriage.sound(&unit)?;
            match pieces.last_mut() {
                Some((_, piece)) if piece.len() + framed.len() <= SOUND_BYTES_MAX => {
                    piece.extend_from_slice(&framed);
                }
                Some(_) | None => pieces.push((self.ticks(at), framed)),
            }
            let length = self.track.audio_frame_ticks(&unit).unwrap_or(0);
            at = at.saturating_add(length.into());
        }
        Ok(pieces)
    }
}

/// A time as a stamp of 33 bits.
fn wrapped(time: i64) -> u64 {
    time.saturating_add(OFFSET).rem_euclid(1 << 33) as u64
}

#[cfg(test)]
mod tests;
