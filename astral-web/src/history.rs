//! How many watched each stream over the last while, for the picture on its page.
//!
//! In memory only, a bounded number of points for each live stream: when they are
//! many, every second one goes, and new ones come half as often.

use std::collections::BTreeMap;

use astral_proto::ids::StreamId;

/// Points of a stream; 120 at every 10 s are 20 minutes, thinned out they are hours.
const POINTS_MAX: usize = 120;
/// Least time between points, in milliseconds, until they are thinned out.
const STEP_MS: u64 = 5_000;
/// How long a stream's history outlives its last point, once they are many, in milliseconds.
const KEPT_MS: u64 = 60_000;
/// Streams with a history.
const STREAMS_MAX: usize = 10_000;

/// Unix milliseconds, and how many watched.
pub(crate) type Point = (u64, u64);

#[derive(Debug)]
struct Line {
    points: Vec<Point>,
    step: u64,
}

/// The histories of all live streams.
#[derive(Debug, Default)]
pub(crate) struct History(BTreeMap<StreamId, Line>);

impl History {
    /// Notes how many watch a stream; the last point is always now.
    pub(crate) fn add(&mut self, id: StreamId, now: u64, viewers: u64) {
        if self.0.len() >= STREAMS_MAX && !self.0.contains_key(&id) {
            let recent = |point: &Point| point.0.saturating_add(KEPT_MS) > now;
            self.0
                .retain(|_, line| line.points.last().is_some_and(recent));
            if self.0.len() >= STREAMS_MAX {
                return;
            }
        }
        let line = self.0.entry(id).or_insert(Line {
            points: Vec::new(),
            step: STEP_MS,
        });
        if line.points.last().is_some_and(|last| now < last.0) {
            return;
        }
        let before = line.points.len().checked_sub(2).map(|at| line.points[at].0);
        if before.is_some_and(|before| now < before.saturating_add(line.step)) {
            line.points.pop();
        }
        line.points.push((now, viewers));
        if line.points.len() > POINTS_MAX {
            let mut even = false;
            line.points.retain(|_| {
                even = !even;
                even
            });
            line.step *= 2;
        }
    }

    /// The points of a stream, the oldest first.
    pub(crate) fn of(&self, id: StreamId) -> &[Point] {
        self.0.get(&id).map_or(&[], |line| &line.points)
    }

    /// A stream is over.
    pub(crate) fn forget(&mut self, id: StreamId) {
        self.0.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn points_stay_few_and_reach_from_the_first_to_the_last() {
        let (mut history, id) = (History::default(), StreamId(Uuid::from_u128(1)));
        for second in 0..10_000u64 {
            history.add(id, second * 1_000, second);
            assert!(history.of(id).len() <= POINTS_MAX);
        }
        let points = history.of(id);
        assert!(points.len() > POINTS_MAX / 3, "{}", points.len());
        assert_eq!(points.first(), Some(&(0, 0)));
        assert_eq!(points.last(), Some(&(9_999_000, 9_999)));
        assert!(points.is_sorted());
        history.forget(id);
        assert!(history.of(id).is_empty());
    }
}
