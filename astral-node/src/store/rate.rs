//! Bytes over time, in slots of 100 ms.

use std::time::Duration;

use tokio::time::Instant;

const SLOT: Duration = Duration::from_millis(100);
/// Slots of the second that a rate is averaged over.
const SECOND: usize = 10;
/// Slots that are remembered: five seconds.
const SLOTS: usize = 50;

/// A meter that remembers five seconds.
#[derive(Debug)]
pub(super) struct Rate {
    start: Instant,
    newest: u64,
    /// Slot in which bytes began to come after a pause longer than is remembered.
    began: u64,
    slots: [u64; SLOTS],
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            newest: 0,
            began: 0,
            slots: [0; SLOTS],
        }
    }

    pub(super) fn add(&mut self, now: Instant, bytes: usize) {
        self.advance(now);
        if self.slots.iter().all(|bytes| *bytes == 0) {
            self.began = self.newest;
        }
        self.slots[(self.newest % SLOTS as u64) as usize] += bytes as u64;
    }

    /// The rate of the last second, and the highest of any second remembered, in bit/s.
    ///
    /// The highest is 0, not known, until bytes have come for a whole second: a part of
    /// one would promise the upload that a stream takes to more than there is room for.
    pub(super) fn bps(&mut self, now: Instant) -> (u64, u64) {
        self.advance(now);
        let ago = |slots: usize| (self.newest as usize + SLOTS - slots) % SLOTS;
        let second = |back: usize| -> u64 {
            (back..back + SECOND)
                .map(|slots| self.slots[ago(slots)])
                .sum::<u64>()
                * 8
        };
        let peak = (0..=SLOTS - SECOND).map(second).max();
        let known = self.newest - self.began >= SECOND as u64;
        (second(0), peak.filter(|_| known).unwrap_or(0))
    }

    fn advance(&mut self, now: Instant) {
        let since = now.saturating_duration_since(self.start);
        let slot = (since.as_millis() / SLOT.as_millis()) as u64;
        let stale = slot.saturating_sub(self.newest).min(SLOTS as u64);
        for back in 0..stale {
            self.slots[((slot - back) % SLOTS as u64) as usize] = 0;
        }
        self.newest = self.newest.max(slot);
    }
}

/// Chunks before a gap counts as usual: half a second of pictures without sound.
const GAPS_KNOWN: u32 = 16;
/// Chunks whose gaps say nothing yet: the catalog comes ahead of the media.
const GAPS_FIRST: u32 = 6;
/// A gap that is not repeated loses this part of itself with each chunk: forgotten
/// after some seconds.
const GAP_FADES: u32 = 128;
/// No gap counts for more: beyond it a stream has stopped.
const GAP_MAX: Duration = Duration::from_secs(2);

/// The longest pause between two chunks that is usual of late.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    last: Option<Instant>,
    usual: Duration,
    seen: u32,
}

impl Gaps {
    /// A chunk has come.
    pub(super) fn note(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            // One break, while a provider is replaced, does not make breaks usual.
            let most = self.usual * 2 + Duration::from_millis(20);
            let gap = now.saturating_duration_since(last).min(GAP_MAX);
            let gap = match self.seen {
                ..GAPS_FIRST => Duration::ZERO,
                GAPS_FIRST..GAPS_KNOWN => gap,
                GAPS_KNOWN.. => gap.min(most),
            };
            let fades = self.usual.saturating_sub(gap) / GAP_FADES;
            self.usual = gap.max(self.usual - fades);
            self.seen = self.seen.saturating_add(1);
        }
    }

    /// When the last chunk came.
    pub(super) fn last(&self) -> Option<Instant> {
        self.last
    }

    /// The usual longest pause; zero until enough chunks have come to know it.
    pub(super) fn usual(&self) -> Duration {
        if self.seen < GAPS_KNOWN {
            return Duration::ZERO;
        }
        self.usual.max(Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_break_does_not_become_a_usual_gap() {
        let start = Instant::now();
        let mut gaps = Gaps::default();
        for frame in 0..300 {
            gaps.note(start + Duration::from_millis(frame * 33));
        }
        let before = gaps.usual();
        assert_eq!(before, Duration::from_millis(33));
        let after_break = start + Duration::from_millis(300 * 33 + 5_000);
        gaps.note(after_break);
        assert!(gaps.usual() <= before * 2 + Duration::from_millis(20));
        for frame in 1..300 {
            gaps.note(after_break + Duration::from_millis(frame * 33));
        }
        assert!(gaps.usual() < Duration::from_millis(40));
    }

    #[test]
    fn peak_outlives_the_second_it_was_in_and_is_forgotten_after_five() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut rate = Rate::new(start);
        for ms in (0..1000).step_by(100) {
            rate.add(at(ms), 1_000);
        }
        assert_eq!(rate.bps(at(950)), (80_000, 0));
        assert_eq!(rate.bps(at(1_000)), (72_000, 80_000));
        assert_eq!(rate.bps(at(2_500)), (0, 80_000));
        assert_eq!(rate.bps(at(7_000)), (0, 0));
    }
}
