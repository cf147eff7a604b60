//! What low-latency HLS lists of a track, read from the store as it is now.

use std::sync::Arc;

use astral_media::catalog::Catalog;
use astral_media::frame::Frame;
use astral_media::hls::{Part, Segment, State, Timing, cut, micros};
use tokio::sync::watch;
use tokio::time::Instant;

use super::live::frame;
use super::ring::{Number, Ring};
use super::{Group, HOLE_PATIENCE, StreamStore, lock};

/// Group numbers that are missing in a row and are listed as gaps; beyond it the list
/// begins anew behind them.
const ABSENT_MAX: u64 = 64;
/// Segments that are listed at least, where so many are held: the oldest one is then
/// kept back, so that who has just been told of a segment still finds it.
const LISTED_MIN: usize = 4;

/// Whole frames of a segment.
#[derive(Debug)]
pub(crate) enum Fetched {
    /// With the catalog that they need.
    Frames(Arc<Catalog>, Vec<Frame>),
    /// They may still come.
    NotYet,
    /// They will not come, or are forgotten.
    Never,
}

impl StreamStore {
    /// Wakes whenever segments or the state may have changed.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.progress.subscribe()
    }

    /// The catalog of an epoch of which there are groups.
    pub(crate) fn catalog_of(&self, epoch: u32) -> Option<Arc<Catalog>> {
        lock(&self.ring).catalogs.get(&epoch).cloned()
    }

    /// The target duration, milliseconds, of the newest epoch that has one: it is fixed
    /// for the stream, but an epoch that has just begun may not know it.
    pub(crate) fn target_duration_ms(&self) -> Option<u32> {
        let ring = lock(&self.ring);
        let mut known = ring.catalogs.values().rev();
        known.find_map(|catalog| catalog.target_duration_ms)
    }

    /// The segments of a track, in order, without a gap in their numbers; empty while
    /// there is nothing to begin with.
    pub(crate) fn segments(&self, track: u8) -> Vec<Segment> {
        lock(&self.ring).segments(track, Instant::now())
    }

    /// The frames of a part of a segment, or of all of it.
    pub(crate) fn fetch(&self, track: u8, sequence: u64, part: Option<u32>) -> Fetched {
        lock(&self.ring).fetch(track, sequence, part, Instant::now())
    }
}

impl Ring {
    fn segments(&mut self, track: u8, now: Instant) -> Vec<Segment> {
        let floor = self.floor;
        self.given_up.retain(|(_, number), _| *number >= floor);
        let mut found: Vec<(u64, Segment)> = Vec::new();
        let mut before: Option<u64> = None;
        for (&number, entry) in &self.numbers {
            let Some(catalog) = self.catalogs.get(&entry.epoch) else {
                continue;
            };
            let given_up = self.given_up.get(&(track, number)).cloned();
            let segment =
                given_up.unwrap_or_else(|| self.segment(track, number, entry, catalog, now).0);
            let absent = before.map_or(0, |before| number - before - 1);
            if absent > ABSENT_MAX {
                found.clear();
            } else if absent > 0 {
                self.fill(track, &mut found, absent, &segment);
            }
            before = Some(number);
            // It was joined in the middle: players begin with the next one.
            if found.is_empty() && (segment.state == State::Gap || !segment.independent) {
                continue;
            }
            let open = segment.state == State::Open;
            if !open || !segment.parts.is_empty() {
                found.push((number, segment));
            }
            if open {
                break;
            }
        }
        if found.len() > LISTED_MIN {
            found.remove(0);
        }
        for (number, segment) in found.iter().filter(|(_, one)| one.state == State::Gap) {
            let listed = self.given_up.entry((track, *number));
            listed.or_insert_with(|| segment.clone());
        }
        found.into_iter().map(|(_, segment)| segment).collect()
    }

    /// Group numbers that nothing came of before a segment, so that the count and, within
    /// an epoch, the time go on.
    fn fill(&self, track: u8, found: &mut Vec<(u64, Segment)>, absent: u64, next: &Segment) {
        for left in (1..=absent).rev() {
            let Some((last, before)) = found.last() else {
                return;
            };
            let number = last + 1;
            let gap = self.given_up.get(&(track, number)).cloned();
            let gap = gap.unwrap_or_else(|| {
                let end_ms = before
                    .wall_ms
                    .saturating_add((before.micros / 1_000) as i64);
                let ms = match next.epoch == before.epoch {
                    true => next.wall_ms.saturating_sub(end_ms).max(0) as u64 / left,
                    false => 0,
                };
                Segment {
                    sequence: before.sequence + 1,
                    state: State::Gap,
                    wall_ms: end_ms,
                    micros: ms * 1_000,
                    parts: Vec::new(),
                    independent: true,
                    ..before.clone()
                }
            });
            found.push((number, gap));
        }
    }

    /// Ticks per second of a track; milliseconds in an epoch that is without it.
    fn timescale(&self, track: u8, epoch: u32) -> u32 {
        let catalog = self.catalogs.get(&epoch);
        let known = catalog.and_then(|catalog| catalog.track(track));
        known.map_or(1_000, |track| track.timescale.max(1))
    }

    /// A segment, and its parts as frames.
    fn segment(
        &self,
        track: u8,
        number: u64,
        entry: &Number,
        catalog: &Catalog,
        now: Instant,
    ) -> (Segment, Vec<Part>) {
        let group = entry.tracks.get(&track);
        let timescale = self.timescale(track, entry.epoch);
        let timings = group.map(|group| group.timings()).unwrap_or_default();
        let state = self.state(number, group, timings.len(), now);
        let target = u64::from(catalog.part_target_ms) * u64::from(timescale) / 1_000;
        let parts = cut(&timings, state == State::Whole, target);
        let start_ms = match timings.first() {
            Some(first) => self.ms(entry.epoch, track, first.dts),
            None => entry.start_ms,
        };
        let start_ms = start_ms.unwrap_or(catalog.timeline_start_ms);
        let wall_ms = start_ms
            .saturating_sub(catalog.timeline_start_ms)
            .saturating_add(catalog.wall_clock_start_ms as i64);
        let length_us = match (state, timings.first().zip(timings.last())) {
            (State::Open | State::Whole, Some((first, last))) => {
                let end = last.dts.saturating_add(last.duration.into());
                micros(end.saturating_sub(first.dts).max(0) as u64, timescale)
            }
            (State::Open | State::Whole, None) | (State::Gap, _) => self.gap_us(number, entry),
        };
        let as_listed = |part: &Part| (micros(part.ticks, timescale), part.independent);
        let segment = Segment {
            sequence: sequence_of(catalog, number),
            epoch: entry.epoch,
            state,
            wall_ms,
            micros: length_us,
            parts: parts.iter().map(as_listed).collect(),
            independent: timings.first().is_none_or(|first| first.keyframe),
        };
        (segment, parts)
    }

    fn state(&self, number: u64, group: Option<&Arc<Group>>, whole: usize, now: Instant) -> State {
        if group.and_then(|group| group.frames()) == Some(whole as u32) && whole > 0 {
            return State::Whole;
        }
        let mut later = self.numbers.range(number + 1..);
        let waited = later.any(|(_, entry)| {
            let since = entry.first_complete_at;
            since.is_some_and(|since| since + HOLE_PATIENCE <= now)
        });
        if waited { State::Gap } else { State::Open }
    }

    /// How long a segment lasts that is not whole: up to where the next one begins; its
    /// share of that if groups in between are missing, too.
    fn gap_us(&self, number: u64, entry: &Number) -> u64 {
        let next = self.numbers.range(number + 1..).next();
        let next = next.and_then(|(next, entry)| Some((next - number, entry.start_ms?)));
        let ms = next
            .zip(entry.start_ms)
            .map_or(0, |((groups, end), start)| {
                end.saturating_sub(start).max(0) as u64 / groups
            });
        ms * 1_000
    }

    fn fetch(&self, track: u8, sequence: u64, part: Option<u32>, now: Instant) -> Fetched {
        let by_sequence = |(_, entry): &(&u64, &Number)| {
            let catalog = self.catalogs.get(&entry.epoch)?;
            sequence
                .checked_sub(catalog.first_sequence)
                .map(|ahead| catalog.first_group.saturating_add(ahead))
        };
        let newest = self.numbers.last_key_value();
        let number = newest.as_ref().and_then(by_sequence);
        let held = self
            .numbers
            .iter()
            .find(|(number, entry)| by_sequence(&(number, entry)) == Some(**number));
        let Some((&number, entry)) = held else {
            // The one after the newest is what a hint may name.
            let next = newest.is_some_and(|(newest, _)| number == Some(newest + 1));
            return if next {
                Fetched::NotYet
            } else {
                Fetched::Never
            };
        };
        let Some(catalog) = self.catalogs.get(&entry.epoch) else {
            return Fetched::Never;
        };
        let (segment, parts) = self.segment(track, number, entry, catalog, now);
        let frames = match (part, segment.state) {
            (None, State::Open) => return Fetched::NotYet,
            (None, State::Gap) => return Fetched::Never,
            (None, State::Whole) => 0..parts.iter().map(|part| part.frames).sum(),
            (Some(part), state) => match parts.get(part as usize) {
                Some(part) => part.first..part.first + part.frames,
                None if state == State::Open && part as usize == parts.len() => {
                    return Fetched::NotYet;
                }
                None => return Fetched::Never,
            },
        };
        let Some(group) = entry.tracks.get(&track) else {
            return Fetched::Never;
        };
        let frames: Option<Vec<Frame>> = frames
            .map(|index| {
                group
                    .whole(index)
                    .map(|(header, bytes)| frame(header, bytes))
            })
            .collect();
        match frames {
            Some(frames) => Fetched::Frames(Arc::clone(catalog), frames),
            None => Fetched::Never,
        }
    }
}

fn sequence_of(catalog: &Catalog, number: u64) -> u64 {
    let ahead = number.saturating_sub(catalog.first_group);
    catalog.first_sequence.saturating_add(ahead)
}

impl Group {
    /// When its first frames are shown, up to the first one that is not complete.
    fn timings(&self) -> Vec<Timing> {
        let mut timings = Vec::new();
        self.each_complete(|header| {
            timings.push(Timing {
                dts: header.dts,
                duration: header.duration,
                keyframe: header.keyframe && !header.no_keyframe,
            });
        });
        timings
    }
}
