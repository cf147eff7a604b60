//! Video as a flow: it runs with a delay, or it stands still.
//!
//! Only changes are events. When a flow stops, everybody below learns it a latency later,
//! as they would from frames that do not come; when it runs again, what was missed is
//! sent faster than live, and how much of it comes too late follows from the gap.

use std::time::Duration;

use super::programme::Programme;
use crate::overlay::{Progress, Time};

/// What a player holds back.
pub(super) const BUFFER: Duration = Duration::from_secs(1);
/// Bytes must have come for this long before their rate is known.
const RATE_KNOWN: Duration = Duration::from_secs(1);

/// What a node has of a stream, as a flow.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Delay from the source, while it runs.
    pub(super) delay_us: Option<u32>,
    /// Since when it runs, or stands still.
    since: Time,
    /// When it first ran.
    began: Option<Time>,
    /// Delay when it ran last.
    last_us: u32,
    /// Delay that the player has settled for.
    reference_us: u32,
    /// Microseconds of the programme that came too late, or not.
    late_us: u64,
}

/// What a change of a flow means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// None.
    Same,
    /// It runs for the first time.
    Begins,
    /// It runs again after this long.
    Resumes(Duration),
    /// It runs with another delay.
    Shifts,
    /// It stands still.
    Stops,
}

impl Flow {
    /// The publisher's own.
    pub(super) fn source(now: Time) -> Self {
        Self {
            delay_us: Some(0),
            since: now,
            began: Some(now),
            ..Self::default()
        }
    }

    /// The flow comes with this delay from now on, or does not come. `speed` is how much
    /// faster than live what was missed is sent.
    pub(super) fn turn(&mut self, now: Time, delay_us: Option<u32>, speed: f64) -> Turn {
        match (self.delay_us, delay_us) {
            (None, None) => Turn::Same,
            (Some(before), Some(after)) => {
                self.delay_us = delay_us;
                self.last_us = after;
                if before.abs_diff(after) < 1_000 {
                    return Turn::Same;
                }
                self.settle_for(after);
                Turn::Shifts
            }
            (Some(before), None) => {
                self.delay_us = None;
                self.last_us = before;
                self.since = now;
                Turn::Stops
            }
            (None, Some(after)) => self.run(now, after, speed),
        }
    }

    fn run(&mut self, now: Time, after: u32, speed: f64) -> Turn {
        let gap = now.since(self.since);
        self.delay_us = Some(after);
        self.since = now;
        if self.began.is_none() {
            self.began = Some(now);
            (self.last_us, self.reference_us) = (after, after);
            return Turn::Begins;
        }
        self.late_us += self.late_after(gap, speed);
        self.last_us = after;
        self.settle_for(after);
        Turn::Resumes(gap)
    }

    /// Of what was missed in a gap, what comes too late: the first that was missed waits
    /// the whole gap, and each later piece the less the faster they come.
    fn late_after(&self, gap: Duration, speed: f64) -> u64 {
        let behind =
            gap.as_micros() as f64 + f64::from(self.last_us) - f64::from(self.reference_us);
        let late = (behind - BUFFER.as_micros() as f64).max(0.0);
        (late / (1.0 - 1.0 / speed.max(1.05))) as u64
    }

    /// A player whose buffer cannot make up for the delay stops once and settles for more.
    fn settle_for(&mut self, delay_us: u32) {
        let most = self.reference_us + BUFFER.as_micros() as u32;
        if delay_us > most {
            self.late_us += u64::from(delay_us - most);
            self.reference_us = delay_us;
        }
    }

    /// Microseconds that were to be played until now, and of them those too late.
    pub(super) fn played(&self, now: Time) -> (u64, u64) {
        let Some(began) = self.began else {
            return (0, 0);
        };
        let all = now.since(began).as_micros() as u64;
        let open = match self.delay_us {
            Some(_) => 0,
            None => self.late_after(now.since(self.since), f64::MAX),
        };
        (all, (self.late_us + open).min(all))
    }

    /// How far the store is, for the overlay.
    pub(super) fn progress(&self, now: Time, programme: &Programme) -> Option<Progress> {
        let began = self.began?;
        let held_until = if self.delay_us.is_some() {
            now
        } else {
            self.since
        };
        let media_us = programme
            .media_us(held_until)
            .saturating_sub(self.last_us.into());
        let into_frame = Duration::from_micros(media_us % programme.frame.as_micros() as u64);
        let last = Time(held_until.0 - (into_frame.as_micros() as u64).min(held_until.0));
        let known = held_until.since(began) >= RATE_KNOWN;
        Some(Progress {
            epoch: 1,
            newest: programme.newest(media_us),
            peak_bps: if known { programme.bitrate_bps } else { 0 },
            last: last.max(began),
            gap: if known {
                programme.frame
            } else {
                Duration::ZERO
            },
            lost: 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: f64) -> Time {
        Time((seconds * 1e6) as u64)
    }

    #[test]
    fn gap_within_the_buffer_costs_nothing_and_a_longer_one_what_it_is_longer() {
        let mut flow = Flow::default();
        assert_eq!(flow.turn(s(1.0), Some(100_000), 2.0), Turn::Begins);
        flow.turn(s(2.0), None, 2.0);
        let gap = Duration::from_millis(900);
        assert_eq!(flow.turn(s(2.9), Some(100_000), 2.0), Turn::Resumes(gap));
        assert_eq!(flow.played(s(11.0)), (10_000_000, 0));
        flow.turn(s(12.0), None, 2.0);
        assert_eq!(flow.played(s(13.5)).1, 500_000, "while it stands still");
        flow.turn(s(13.5), Some(100_000), 2.0);
        // At twice the rate, half a second too late is made up for after one second.
        assert_eq!(flow.played(s(21.0)).1, 1_000_000);
    }
}
