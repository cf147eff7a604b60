//! `moof` to a list of samples (ISO/IEC 14496-12 §8.8).

use mp4_atom::{Moof, Tfhd, Traf, Trex, Trun, TrunEntry};

use super::boxes::BoxHeader;
use super::demux::{MAX_SAMPLE, MAX_SAMPLES};
use super::error::Fmp4Error;
use super::track::{MoovTracks, Planned};

/// Appends the samples of a `moof` to `plan`, and moves the tracks' clocks on.
///
/// With `only`, other tracks than that index are passed over, clocks and all.
pub(crate) fn plan_fragment(
    moof: &Moof,
    header: &BoxHeader,
    tracks: &mut MoovTracks,
    only: Option<usize>,
    plan: &mut Vec<Planned>,
) -> Result<(), Fmp4Error> {
    let mut planner = Planner {
        header,
        tracks,
        only,
        plan,
        data_end: header.offset,
        left: MAX_SAMPLES,
    };
    moof.traf.iter().try_for_each(|traf| planner.traf(traf))
}

struct Planner<'a> {
    header: &'a BoxHeader,
    tracks: &'a mut MoovTracks,
    only: Option<usize>,
    plan: &'a mut Vec<Planned>,
    /// End of the data of the run before: base of a `traf` that names none.
    data_end: u64,
    left: usize,
}

/// What a run's samples have unless they say otherwise.
struct Defaults {
    duration: u32,
    /// Duration of a sample that says 0.
    repaired: u32,
    size: u32,
}

impl Planner<'_> {
    fn traf(&mut self, traf: &Traf) -> Result<(), Fmp4Error> {
        let head = &traf.tfhd;
        let base = self.base(head);
        let mut defaults = self.defaults(head);
        let track = self
            .tracks
            .index_of(head.track_id)
            .filter(|&index| self.only.is_none_or(|only| only == index));
        if let (Some(track), Some(tfdt)) = (track, &traf.tfdt) {
            let track = &mut self.tracks.tracks[track];
            let time = tfdt.base_media_decode_time;
            let lasts = match is_one_without_duration(traf, &defaults) {
                true => track.set_end(time),
                false => track.set_time(time).map(|()| 0),
            };
            defaults.repaired =
                lasts.ok_or_else(|| self.header.invalid("a decoding time is out of range"))?;
        }
        self.data_end = base;
        for run in &traf.trun {
            self.run(run, base, track, &defaults)?;
        }
        Ok(())
    }

    fn base(&self, head: &Tfhd) -> u64 {
        match head.base_data_offset {
            Some(offset) => offset,
            None if head.default_base_is_moof => self.header.offset,
            None => self.data_end,
        }
    }

    fn defaults(&self, head: &Tfhd) -> Defaults {
        let of_track = |trex: &&Trex| trex.track_id == head.track_id;
        let trex = self.tracks.defaults.iter().find(of_track);
        let duration = trex.map_or(0, |trex| trex.default_sample_duration);
        let size = trex.map_or(0, |trex| trex.default_sample_size);
        Defaults {
            duration: head.default_sample_duration.unwrap_or(duration),
            repaired: 0,
            size: head.default_sample_size.unwrap_or(size),
        }
    }

    fn run(
        &mut self,
        run: &Trun,
        base: u64,
        track: Option<usize>,
        defaults: &Defaults,
    ) -> Result<(), Fmp4Error> {
        self.left = self
            .left
            .checked_sub(run.samples.len())
            .ok_or(Fmp4Error::TooManySamples {
                kind: self.header.kind,
                offset: self.header.offset,
            })?;
        if let Some(offset) = run.data_offset {
            self.data_end = base
                .checked_add_signed(offset.into())
                .ok_or_else(|| self.header.invalid("a data offset is out of range"))?;
        }
        for entry in &run.samples {
            self.sample(&entry, track, defaults)?;
        }
        Ok(())
    }

    fn sample(
        &mut self,
        entry: &TrunEntry,
        track: Option<usize>,
        defaults: &Defaults,
    ) -> Result<(), Fmp4Error> {
        let offset = self.data_end;
        let size = entry.size.unwrap_or(defaults.size);
        self.data_end = offset
            .checked_add(size.into())
            .ok_or_else(|| self.header.invalid("a data offset is out of range"))?;
        let Some(index) = track else {
            return Ok(());
        };
        let state = &mut self.tracks.tracks[index];
        let duration = match entry.duration.unwrap_or(defaults.duration) {
            0 => defaults.repaired,
            duration => duration,
        };
        let (dts, duration) = state
            .tick(duration)
            .ok_or_else(|| self.header.invalid("a decoding time is out of range"))?;
        if size > MAX_SAMPLE {
            let track = state.id;
            return Err(Fmp4Error::SampleTooLarge { track, size });
        }
        if size == 0 {
            return Ok(());
        }
        self.plan.push(Planned {
            track: index,
            offset,
            size,
            dts,
            // Version 0 has unsigned offsets, yet writers put negative ones there.
            cts: entry.cts.unwrap_or(0) as i32,
            duration,
        });
        Ok(())
    }
}

/// Whether a fragment has a single sample of a track, which is said to take no time.
fn is_one_without_duration(traf: &Traf, defaults: &Defaults) -> bool {
    let mut samples = traf.trun.iter().flat_map(|run| &run.samples);
    let first = samples.next();
    let none = first.is_some_and(|entry| entry.duration.unwrap_or(defaults.duration) == 0);
    none && samples.next().is_none()
}
