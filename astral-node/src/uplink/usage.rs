//! What left in the last second, counted without a lock: this is all that an unlimited
//! uplink costs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Resolution.
const SLOT: Duration = Duration::from_millis(50);
/// Slots of a second.
const SECOND: u64 = 20;
/// Slots kept: a second, the one being filled, and some for those who read meanwhile.
const SLOTS: usize = 32;
/// Low bits of a slot that hold its bytes; the others hold its number.
const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;

#[derive(Debug)]
pub(super) struct Usage {
    origin: Instant,
    slots: [AtomicU64; SLOTS],
}

impl Usage {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            origin: now,
            slots: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(super) fn add(&self, now: Instant, bytes: u64) {
        let number = self.number(now);
        let slot = &self.slots[(number % SLOTS as u64) as usize];
        let tag = number << BYTES_BITS;
        let count = |old: u64| {
            let before = if old & !BYTES_MASK == tag {
                old & BYTES_MASK
            } else {
                0
            };
            Some(tag | (before + bytes).min(BYTES_MASK))
        };
        let _always_ok = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
    }

    /// Bytes of the last 20 slots that are over.
    pub(super) fn last_second(&self, now: Instant) -> u64 {
        let number = self.number(now);
        (number.saturating_sub(SECOND)..number)
            .map(|number| {
                let slot = self.slots[(number % SLOTS as u64) as usize].load(Ordering::Relaxed);
                let current = slot & !BYTES_MASK == number << BYTES_BITS;
                if current { slot & BYTES_MASK } else { 0 }
            })
            .sum()
    }

    fn number(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(nanos / SLOT.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_last_second_and_forgets_what_is_older() {
        let start = Instant::now();
        let usage = Usage::new(start);
        let at = |millis| start + Duration::from_millis(millis);
        usage.add(at(0), 1);
        usage.add(at(10), 2);
        usage.add(at(990), 4);
        assert_eq!(usage.last_second(at(1000)), 7);
        assert_eq!(usage.last_second(at(1050)), 4);
        assert_eq!(usage.last_second(at(9000)), 0);
        // The slot of 0 ms is used again.
        usage.add(at(1600), 8);
        assert_eq!(usage.last_second(at(1650)), 12);
    }
}
