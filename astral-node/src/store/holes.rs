//! Which frames a store lacks: what is to be pulled from whoever has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use astral_proto::limits::GROUP_FRAMES_MAX;
use astral_proto::overlay::Hole;
use tokio::time::Instant;

use super::ring::{Number, Ring};
use super::{Group, HOLE_AFTER, HOLES_MAX};

/// Group numbers looked at between two that are here: a stranger chooses the numbers.
const NUMBERS_BETWEEN_MAX: u64 = 8;

impl Ring {
    /// What has been missing for [`HOLE_AFTER`] though later frames are here.
    pub(super) fn holes(&self, now: Instant) -> Vec<Hole> {
        let mut holes = Vec::new();
        let mut before: Option<(u64, u32)> = None;
        for (&number, entry) in &self.numbers {
            if holes.len() >= HOLES_MAX {
                break;
            }
            if let Some((last, epoch)) = before
                && epoch == entry.epoch
                && is_due(entry, now)
            {
                let from = number.saturating_sub(NUMBERS_BETWEEN_MAX).max(last + 1);
                for absent in from..number {
                    holes.extend(self.whole_groups(epoch, absent, &BTreeMap::new()));
                }
            }
            before = Some((number, entry.epoch));
            self.holes_of(number, entry, now, &mut holes);
        }
        holes.truncate(HOLES_MAX);
        holes
    }

    fn holes_of(&self, number: u64, entry: &Number, now: Instant, holes: &mut Vec<Hole>) {
        let from_start = self.first_number != Some(number);
        for (&track, group) in &entry.tracks {
            let runs = group.missing_runs(from_start, now, HOLE_AFTER);
            holes.extend(runs.into_iter().map(|(first, count)| Hole {
                group: number,
                track,
                first,
                count,
            }));
        }
        if from_start {
            let absent = self.whole_groups(entry.epoch, number, &entry.tracks);
            let passed = |hole: &Hole| self.is_passed(number, hole.track, now);
            holes.extend(absent.into_iter().filter(passed));
        }
    }

    /// Whether the next group is here of a track, and not only just.
    fn is_passed(&self, number: u64, track: u8, now: Instant) -> bool {
        let next = self.numbers.get(&(number + 1));
        let next = next.and_then(|next| next.tracks.get(&track)?.overtaken_at(0));
        next.is_some_and(|since| now.saturating_duration_since(since) >= HOLE_AFTER)
    }

    /// The parts of a group of which nothing is here.
    fn whole_groups(&self, epoch: u32, number: u64, here: &BTreeMap<u8, Arc<Group>>) -> Vec<Hole> {
        let Some(catalog) = self.catalogs.get(&epoch) else {
            return Vec::new();
        };
        let tracks = catalog.tracks.iter().map(|track| track.id);
        let absent = tracks.filter(|track| !here.contains_key(track));
        absent
            .map(|track| Hole {
                group: number,
                track,
                first: 0,
                count: GROUP_FRAMES_MAX,
            })
            .collect()
    }
}

fn is_due(entry: &Number, now: Instant) -> bool {
    let since = entry.first_complete_at;
    since.is_some_and(|since| now.saturating_duration_since(since) >= HOLE_AFTER)
}
