//! What is going to happen, in order: a calendar queue (R. Brown, CACM 31(10), 1988).
//!
//! Days are a millisecond long. Of two things at one moment, that which was planned
//! first comes first, so a run is a function of its seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::overlay::Time;

/// Length of a day: 2^10 µs.
const DAY_BITS: u32 = 10;
/// Days in the calendar: four seconds, in which all timers but a few fall.
const DAYS: u64 = 4096;

/// A moment and the number of the plan: the order of all things.
type Key = (Time, u64);

struct Planned<T> {
    key: Key,
    what: T,
}

impl<T> PartialEq for Planned<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}
impl<T> Eq for Planned<T> {}
impl<T> PartialOrd for Planned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<T> Ord for Planned<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.key.cmp(&other.key)
    }
}

/// Things to happen.
pub(super) struct Queue<T> {
    day: u64,
    count: u64,
    /// The present day's, the next one last.
    today: Vec<Planned<T>>,
    /// What was planned for today after it began.
    added: BinaryHeap<Reverse<Planned<T>>>,
    calendar: Vec<Vec<Planned<T>>>,
    far: BTreeMap<u64, Vec<Planned<T>>>,
    /// Things in the calendar.
    near: usize,
}

impl<T> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            day: 0,
            count: 0,
            today: Vec::new(),
            added: BinaryHeap::new(),
            calendar: (0..DAYS).map(|_| Vec::new()).collect(),
            far: BTreeMap::new(),
            near: 0,
        }
    }

    /// Plans a thing; what is planned for the past comes next.
    pub(super) fn push(&mut self, at: Time, what: T) {
        self.count += 1;
        let planned = Planned {
            key: (at, self.count),
            what,
        };
        let day = at.0 >> DAY_BITS;
        if day <= self.day {
            self.added.push(Reverse(planned));
        } else if day - self.day < DAYS {
            self.near += 1;
            self.calendar[(day % DAYS) as usize].push(planned);
        } else {
            self.far.entry(day).or_default().push(planned);
        }
    }

    /// The next thing, unless it comes after `end`.
    pub(super) fn pop(&mut self, end: Time) -> Option<(Time, T)> {
        loop {
            let first = self.today.last().map(|planned| planned.key);
            let added = self.added.peek().map(|Reverse(planned)| planned.key);
            let next = match (first, added) {
                (Some(first), Some(added)) => first.min(added),
                (Some(key), None) | (None, Some(key)) => key,
                (None, None) => {
                    self.turn_page()?;
                    continue;
                }
            };
            if next.0 > end {
                return None;
            }
            let taken = if first == Some(next) {
                self.today.pop()
            } else {
                self.added.pop().map(|Reverse(planned)| planned)
            };
            return taken.map(|planned| (planned.key.0, planned.what));
        }
    }

    fn turn_page(&mut self) -> Option<()> {
        let far = self.far.keys().next().copied();
        if self.near == 0 {
            self.day = far?;
        } else {
            self.day += 1;
            while self.calendar[(self.day % DAYS) as usize].is_empty() && far != Some(self.day) {
                self.day += 1;
            }
        }
        let page = &mut self.calendar[(self.day % DAYS) as usize];
        self.near -= page.len();
        std::mem::swap(&mut self.today, page);
        self.today
            .extend(self.far.remove(&self.day).into_iter().flatten());
        self.today.sort_unstable_by(|a, b| b.cmp(a));
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::dice::Dice;
    use super::*;

    #[test]
    fn things_happen_in_the_order_of_time_and_then_of_planning() {
        let mut dice = Dice::new(1);
        let mut queue = Queue::new();
        let mut planned = Vec::new();
        let mut now = Time(0);
        let mut happened = Vec::new();
        for number in 0..20_000u64 {
            let ahead = 1 << (dice.next() % 24);
            let at = Time(now.0 + dice.next() % ahead);
            queue.push(at, number);
            planned.push((at, number));
            if number % 3 == 0 {
                let next = queue.pop(Time(u64::MAX)).unwrap();
                assert!(next.0 >= now);
                now = next.0;
                happened.push(next);
            }
        }
        assert!(queue.pop(now).is_none_or(|(at, _)| at == now));
        while let Some(next) = queue.pop(Time(u64::MAX)) {
            assert!(next.0 >= now);
            now = next.0;
            happened.push(next);
        }
        assert!(happened.len() + 1 >= planned.len());
    }
}
