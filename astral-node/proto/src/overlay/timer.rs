//! Timers as state: setting one replaces it, so none can fire twice or be forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::Time;

/// At most one deadline per key.
#[derive(Debug)]
pub(crate) struct TimerTable<K> {
    by_key: BTreeMap<K, Time>,
    by_time: BTreeSet<(Time, K)>,
}

impl<K: Ord + Copy> TimerTable<K> {
    pub(crate) fn new() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_time: BTreeSet::new(),
        }
    }

    pub(crate) fn set(&mut self, key: K, at: Time) {
        self.clear(key);
        self.by_key.insert(key, at);
        self.by_time.insert((at, key));
    }

    pub(crate) fn clear(&mut self, key: K) {
        if let Some(at) = self.by_key.remove(&key) {
            self.by_time.remove(&(at, key));
        }
    }

    pub(crate) fn get(&self, key: K) -> Option<Time> {
        self.by_key.get(&key).copied()
    }

    pub(crate) fn next(&self) -> Option<(Time, K)> {
        self.by_time.first().copied()
    }

    /// Takes the earliest timer that is due.
    pub(crate) fn expire(&mut self, now: Time) -> Option<K> {
        let (at, key) = self.next()?;
        if at > now {
            return None;
        }
        self.clear(key);
        Some(key)
    }

    /// Moves every deadline: the node slept, and nobody else is to blame for it.
    pub(crate) fn shift(&mut self, by: Duration) {
        for at in self.by_key.values_mut() {
            *at = at.after(by);
        }
        self.by_time = self.by_key.iter().map(|(key, at)| (*at, *key)).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timer_for_a_part_of_a_microsecond_does_not_run_out_before_its_time() {
        let wait = Duration::from_nanos(100_000_500);
        let set = Time(7);
        assert!(set.after(wait).since(set) >= wait);
    }

    #[test]
    fn timers_expire_in_order_and_only_once() {
        let mut timers = TimerTable::new();
        timers.set('b', Time(20));
        timers.set('a', Time(10));
        timers.set('b', Time(5));
        assert_eq!(timers.next(), Some((Time(5), 'b')));
        assert_eq!(timers.expire(Time(4)), None);
        assert_eq!(timers.expire(Time(30)), Some('b'));
        timers.shift(Duration::from_micros(100));
        assert_eq!(timers.expire(Time(30)), None);
        assert_eq!(timers.expire(Time(110)), Some('a'));
        assert_eq!(timers.next(), None);
    }
}
