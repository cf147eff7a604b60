//! What keeps the limit at the socket, whatever the layers above do.
//!
//! A token bucket bounds how much leaves at once; a window over the last second bounds
//! the sum, which a bucket alone lets exceed the limit by its depth. Whether the gate is
//! open does not depend on the size of the next datagram, which a poller does not know:
//! the window keeps room for the largest batch, and the bucket may go into debt by one.

use std::time::Duration;

use tokio::time::Instant;

use super::pace::Pace;

/// Most that leaves at once, as time at the limit (DESIGN §6).
const AT_ONCE: Duration = Duration::from_millis(100);
/// Longest that one batch of datagrams may take at the limit, except that it is at
/// least one datagram.
const BATCH: Duration = Duration::from_millis(20);
/// Largest datagram with its IP and UDP headers, in bytes.
const DATAGRAM_BYTES_MAX: u64 = 1500;
/// Datagrams in a batch at most; quinn makes no larger ones.
const SEGMENTS_MAX: u64 = 10;

/// Resolution of the window. A slot counts until all of it is a second old, so a finer
/// one wastes less of the limit: this one half a percent.
const SLOT: Duration = Duration::from_millis(5);
/// Slots that a second can touch.
const SLOTS: usize = 201;

#[derive(Debug)]
pub(super) struct Gate {
    pace: Pace,
    window: Window,
    second_bytes: u64,
    segments: u64,
}

impl Gate {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            pace: Pace::new(now),
            window: Window::new(now),
            second_bytes: 0,
            segments: 1,
        }
    }

    pub(super) fn set_rate(&mut self, bps: u64) {
        self.pace.set_rate(bps);
        self.second_bytes = bps / 8;
        let batch = u128::from(bps / 8) * BATCH.as_millis() / 1000;
        let segments = u64::try_from(batch).unwrap_or(u64::MAX) / DATAGRAM_BYTES_MAX;
        self.segments = segments.clamp(1, SEGMENTS_MAX);
    }

    pub(super) fn segments_max(&self) -> usize {
        usize::try_from(self.segments).unwrap_or(1)
    }

    /// When the gate opens; `None` while it is open.
    pub(super) fn opens_at(&mut self, now: Instant) -> Option<Instant> {
        let room = self.second_bytes.saturating_sub(self.batch());
        let at = self
            .pace
            .ready_at(0, AT_ONCE)
            .max(self.window.fits_at(now, room));
        (at > now).then_some(at)
    }

    pub(super) fn charge(&mut self, now: Instant, bytes: u64) {
        self.window.add(now, bytes);
        let depth = AT_ONCE.saturating_sub(self.pace.cost(self.batch()));
        self.pace.pay(now, bytes, depth);
    }

    pub(super) fn refund(&mut self, bytes: u64) {
        self.window.take_back(bytes);
        self.pace.refund(bytes);
    }

    fn batch(&self) -> u64 {
        self.segments * DATAGRAM_BYTES_MAX
    }
}

/// Bytes of the last second, by slots.
#[derive(Debug)]
struct Window {
    origin: Instant,
    /// Number of the newest slot, counted from `origin`.
    newest: u64,
    /// By slot number modulo their count.
    slots: [u64; SLOTS],
    sum: u64,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            origin: now,
            newest: 0,
            slots: [0; SLOTS],
            sum: 0,
        }
    }

    fn add(&mut self, now: Instant, bytes: u64) {
        self.advance(now);
        *self.slot(self.newest) += bytes;
        self.sum += bytes;
    }

    fn take_back(&mut self, bytes: u64) {
        let newest = self.slot(self.newest);
        let bytes = bytes.min(*newest);
        *newest -= bytes;
        self.sum -= bytes;
    }

    /// The earliest time, from `now` on, when at most `room` is in the window, if nothing
    /// is added.
    fn fits_at(&mut self, now: Instant, room: u64) -> Instant {
        self.advance(now);
        let mut sum = self.sum;
        let oldest = (self.newest + 1).saturating_sub(SLOTS as u64);
        for number in oldest..=self.newest {
            if sum <= room {
                return match number.checked_sub(oldest) {
                    None | Some(0) => now,
                    Some(_) => self.gone_at(number - 1),
                };
            }
            sum -= *self.slot(number);
        }
        self.gone_at(self.newest)
    }

    /// When a slot leaves the window: a second after its end.
    fn gone_at(&self, number: u64) -> Instant {
        let slots = u32::try_from(number + SLOTS as u64).unwrap_or(u32::MAX);
        self.origin + SLOT * slots
    }

    fn advance(&mut self, now: Instant) {
        let nanos = now.saturating_duration_since(self.origin).as_nanos();
        let number = u64::try_from(nanos / SLOT.as_nanos()).unwrap_or(u64::MAX);
        let passed = number.saturating_sub(self.newest);
        if passed >= SLOTS as u64 {
            // Also moves the origin, so that numbers stay small for ever.
            *self = Self::new(now);
            return;
        }
        for new in self.newest + 1..=self.newest + passed {
            self.sum -= std::mem::take(self.slot(new));
        }
        self.newest += passed;
    }

    fn slot(&mut self, number: u64) -> &mut u64 {
        &mut self.slots[(number % SLOTS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends batches as fast as the gate lets through, for `seconds`; returns when and
    /// how much.
    fn flood(bps: u64, seconds: u64) -> Vec<(Duration, u64)> {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        gate.set_rate(bps);
        let bytes = gate.batch();
        let mut now = start;
        let mut sent = Vec::new();
        while now < start + Duration::from_secs(seconds) {
            match gate.opens_at(now) {
                // Timers of the runtime fire on whole milliseconds, late.
                Some(at) => now = at + Duration::from_micros(700),
                None => {
                    gate.charge(now, bytes);
                    sent.push((now - start, bytes));
                }
            }
        }
        sent
    }

    #[test]
    fn no_second_and_no_instant_carries_too_much_and_little_is_wasted() {
        for bps in [1_000_000, 5_000_000, 8_123_456, 100_000_000, 1_000_000_000] {
            let sent = flood(bps, 5);
            let total: u64 = sent.iter().map(|(_, bytes)| bytes).sum();
            assert!(total * 8 > bps * 5 * 94 / 100, "{bps}: {}", total * 8 / 5);
            for (i, (from, _)) in sent.iter().enumerate() {
                let within = |span: Duration| -> u64 {
                    let span = sent[i..].iter().take_while(|(at, _)| *at < *from + span);
                    span.map(|(_, bytes)| bytes * 8).sum()
                };
                assert!(within(Duration::from_secs(1)) <= bps);
                assert!(within(Duration::from_nanos(1)) <= bps / 10);
            }
        }
    }

    #[test]
    fn very_low_limit_still_lets_single_datagrams_through() {
        let sent = flood(8_000, 10);
        assert!((5..=10).contains(&sent.len()), "{}", sent.len());
    }

    #[test]
    fn refund_undoes_a_charge() {
        let start = Instant::now();
        let mut gate = Gate::new(start);
        gate.set_rate(1_000_000);
        let now = start + Duration::from_secs(3);
        gate.charge(now, 20_000);
        assert!(gate.opens_at(now).is_some());
        gate.refund(20_000);
        assert_eq!(gate.opens_at(now), None);
        assert_eq!(gate.window.sum, 0);
    }

    #[test]
    fn window_forgets_slot_by_slot() {
        let start = Instant::now();
        let mut window = Window::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        window.add(at(0), 10);
        window.add(at(500), 10);
        assert_eq!(window.fits_at(at(500), 20), at(500));
        assert_eq!(window.fits_at(at(500), 10), at(1005));
        assert_eq!(window.fits_at(at(500), 5), at(1505));
        assert_eq!(window.fits_at(at(1005), 10), at(1005));
        window.add(at(9_000), 1);
        assert_eq!(window.sum, 1);
    }
}
