//! How much one peer may ask for: a token bucket on the overlay's clock.

use std::time::Duration;

use super::event::Time;

/// What is left of an allowance that grows with time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Allowance {
    /// Used up, in thousandths; falls with time.
    used: u64,
    at: Time,
}

impl Allowance {
    /// Takes one of `per_second`, if there is one.
    pub(super) fn allows(&mut self, now: Time, per_second: u32) -> bool {
        self.take(now, 1, per_second, per_second)
    }

    /// Takes `count` if there are as many: `burst` at once, and `per_second` of them come back.
    pub(super) fn take(&mut self, now: Time, count: usize, per_second: u32, burst: u32) -> bool {
        let since = now.since(self.at).min(Duration::from_secs(3_600));
        let back = since.as_micros() as u64 * u64::from(per_second) / 1_000;
        self.used = self.used.saturating_sub(back);
        self.at = now;
        let wanted = self.used.saturating_add(count as u64 * 1_000);
        if wanted > u64::from(burst) * 1_000 {
            return false;
        }
        self.used = wanted;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn burst_is_allowed_once_and_comes_back_with_time() {
        let mut allowance = Allowance::default();
        assert!(allowance.take(Time(0), 10, 5, 10));
        assert!(!allowance.take(Time(0), 1, 5, 10));
        assert!(!allowance.take(Time(100_000), 1, 5, 10));
        assert!(allowance.take(Time(300_000), 1, 5, 10));
        assert!(!allowance.take(Time(10_000_000), 11, 5, 10));
    }
}
