//! Bytes over time, in slots of 100 ms.

use std::time::Duration;

use tokio::time::Instant;

const SLOT: Duration = Duration::from_millis(100);
/// Slots of the second that a rate is averaged over.
const SECOND: usize = 10;
/// Slots that are remembered: five seconds.
const SLOTS: usize = 50;

/// Five seconds of bytes: of any clock that goes on, at most now and then a little back.
#[derive(Debug)]
struct Slots {
    /// The newest slot, and the one in which bytes began to come after a longer pause
    /// than is remembered; none before the first byte.
    reach: Option<(i64, i64)>,
    bytes: [u64; SLOTS],
}

impl Slots {
    const fn new() -> Self {
        Self {
            reach: None,
            bytes: [0; SLOTS],
        }
    }

    fn add(&mut self, slot: i64, bytes: usize) {
        self.advance(slot);
        let (newest, began) = self.reach.unwrap_or((slot, slot));
        let empty = self.bytes.iter().all(|bytes| *bytes == 0);
        self.reach = Some((newest, if empty { newest } else { began }));
        if newest.saturating_sub(slot) < SLOTS as i64 {
            self.bytes[Self::at(slot)] += bytes as u64;
        }
    }

    fn at(slot: i64) -> usize {
        slot.rem_euclid(SLOTS as i64) as usize
    }

    /// Forgets what is more than five seconds before `slot`.
    fn advance(&mut self, slot: i64) {
        let Some((newest, began)) = self.reach else {
            return;
        };
        for back in 0..slot.saturating_sub(newest).clamp(0, SLOTS as i64) {
            self.bytes[Self::at(slot - back)] = 0;
        }
        self.reach = Some((newest.max(slot), began));
    }

    /// Bytes of the second that ended `back` slots before the newest one.
    fn second(&self, back: usize) -> u64 {
        let newest = self.reach.map_or(0, |(newest, _)| newest);
        (back..back + SECOND)
            .map(|slots| self.bytes[Self::at(newest.wrapping_sub(slots as i64))])
            .sum()
    }

    /// The most in any second, once there is a whole one.
    fn peak(&self) -> Option<u64> {
        let (newest, began) = self.reach?;
        let whole = newest.saturating_sub(began) >= SECOND as i64;
        let most = (0..=SLOTS - SECOND).map(|back| self.second(back)).max();
        most.filter(|_| whole)
    }
}

/// The rate of a stream, by two clocks.
///
/// What comes in now is counted by this node's clock. What the stream *needs* is
/// counted on its own timeline: an encoder that catches up after a stall sends a
/// minute's worth at once, and is no faster a stream for that.
#[derive(Debug)]
pub(super) struct Rate {
    start: Instant,
    arrived: Slots,
    media: Slots,
}

impl Rate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            arrived: Slots::new(),
            media: Slots::new(),
        }
    }

    /// Bytes have come in.
    pub(super) fn arrived(&mut self, now: Instant, bytes: usize) {
        let slot = self.slot(now);
        self.arrived.add(slot, bytes);
    }

    /// A frame belongs to the stream at this time of its timeline, with this many bytes.
    pub(super) fn media(&mut self, at_ms: i64, bytes: usize) {
        self.media
            .add(at_ms.div_euclid(SLOT.as_millis() as i64), bytes);
    }

    /// What came in within the last second, and the highest of any second of the last
    /// five of the stream's timeline, in bit/s.
    ///
    /// The highest is 0, not known, until there is a whole second of media: a part of
    /// one would promise the upload that a stream takes to more than there is room for.
    pub(super) fn bps(&mut self, now: Instant) -> (u64, u64) {
        let slot = self.slot(now);
        self.arrived.advance(slot);
        let peak = self.media.peak().unwrap_or(0);
        (self.arrived.second(0) * 8, peak * 8)
    }

    fn slot(&self, now: Instant) -> i64 {
        let since = now.saturating_duration_since(self.start);
        (since.as_millis() / SLOT.as_millis()) as i64
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
    fn peak_is_that_of_the_last_five_seconds_of_the_timeline() {
        let mut rate = Rate::new(Instant::now());
        let now = Instant::now();
        for ms in (0..1000).step_by(100) {
            rate.media(ms, 1_000);
        }
        assert_eq!(rate.bps(now), (0, 0), "no whole second yet");
        rate.media(1_000, 500);
        assert_eq!(rate.bps(now).1, 80_000);
        rate.media(2_500, 500);
        assert_eq!(rate.bps(now).1, 80_000);
        rate.media(7_000, 500);
        rate.media(8_000, 500);
        assert_eq!(rate.bps(now).1, 4_000);
    }

    #[test]
    fn burst_is_no_faster_a_stream() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        for ms in (-60_000..0).step_by(20) {
            rate.media(ms, 1_000);
            rate.arrived(start, 1_000);
        }
        assert_eq!(rate.bps(start), (24_000_000, 400_000));
        let later = start + Duration::from_millis(1_000);
        assert_eq!(rate.bps(later), (0, 400_000));
    }

    #[test]
    fn timeline_that_leaps_costs_no_time_and_no_panic() {
        let mut rate = Rate::new(Instant::now());
        for ms in [i64::MIN, i64::MAX, 0, i64::MIN, i64::MAX] {
            rate.media(ms, 1_000);
            rate.bps(Instant::now());
        }
    }
}
