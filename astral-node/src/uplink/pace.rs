//! A token bucket told as a time (the generic cell rate algorithm, ITU-T I.371): all that
//! was paid so far would have been sent at the rate by `due`. The bucket is full when
//! `due` is a depth or more ago, empty at `due`, in debt before it.

use std::time::Duration;

use tokio::time::Instant;

/// Longest time that a cost may come to, so that absurd rates overflow nothing.
const COST_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Pace {
    /// In bit/s, never 0.
    rate_bps: u64,
    due: Instant,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rate_bps: 1,
            due: now,
        }
    }

    pub(super) fn set_rate(&mut self, rate_bps: u64) {
        self.rate_bps = rate_bps.max(1);
    }

    /// How long `bytes` take at the rate.
    pub(super) fn cost(&self, bytes: u64) -> Duration {
        let nanos = u128::from(bytes) * 8_000_000_000 / u128::from(self.rate_bps);
        u64::try_from(nanos).map_or(COST_MAX, |nanos| Duration::from_nanos(nanos).min(COST_MAX))
    }

    /// When the bucket holds `bytes`, or is full if it never holds as many.
    pub(super) fn ready_at(&self, bytes: u64, depth: Duration) -> Instant {
        self.due + self.cost(bytes).min(depth)
    }

    /// Takes `bytes` out of a bucket of this depth.
    pub(super) fn pay(&mut self, now: Instant, bytes: u64, depth: Duration) {
        let full = now.checked_sub(depth).unwrap_or(now);
        self.due = self.due.max(full) + self.cost(bytes);
    }

    /// Puts `bytes` back.
    pub(super) fn refund(&mut self, bytes: u64) {
        self.due = self.due.checked_sub(self.cost(bytes)).unwrap_or(self.due);
    }

    /// Forgives debt beyond `most`.
    pub(super) fn forgive(&mut self, now: Instant, most: Duration) {
        self.due = self.due.min(now + most);
    }
}
