//! Whose turn it is: control before audio before video, the children of a class in
//! rotation, for one child the highest rank first.
//!
//! There is no task behind it. Whoever is first sleeps until the bucket holds what it
//! asks for and takes its turn itself; who leaves, by turn or by giving up, calls the
//! next. Callers bound how many wait.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::Class;
use super::pace::Pace;

/// Depth of the bucket, as time at its rate: with [`super::TURNS_PERCENT`] of the limit
/// for a second, not more than the limit in any second. (DESIGN allows 100 ms at once.)
pub(super) const DEPTH: Duration = Duration::from_millis(50);
/// Most debt that bytes without a turn can make, so that a burst of them never stops
/// media for long; the gate keeps the limit all the same.
const DEBT: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Turns {
    /// In bit/s; `None`: without limit.
    rate: Option<u64>,
    pace: Pace,
    /// Bytes that had their turn and were not sent yet.
    prepaid: u64,
    /// Control, audio, video.
    lines: [Line; 3],
    /// Arrivals so far, to tell places apart and keep equals in order.
    arrivals: u64,
}

/// Who waits in one class.
#[derive(Debug, Default)]
struct Line {
    /// The children that wait; the front is next, and goes to the back after its turn.
    rotation: VecDeque<u64>,
    children: BTreeMap<u64, BTreeMap<Order, Waiter>>,
}

/// The order for one child: highest rank, then first come.
type Order = (Reverse<u64>, u64);

#[derive(Debug)]
struct Waiter {
    bytes: u64,
    called: Arc<Notify>,
}

/// Where one waits.
#[derive(Debug)]
pub(super) struct Place {
    class: Class,
    child: u64,
    order: Order,
    pub(super) called: Arc<Notify>,
}

/// What one who waits should do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Write now; it is paid.
    Granted,
    /// First in line: ask again then, or when called.
    At(Instant),
    /// Wait to be called.
    NotYet,
}

impl Turns {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rate: None,
            pace: Pace::new(now),
            prepaid: 0,
            lines: Default::default(),
            arrivals: 0,
        }
    }

    pub(super) fn set_rate(&mut self, rate: Option<u64>) {
        self.rate = rate;
        self.pace.set_rate(rate.unwrap_or(u64::MAX));
        self.call_first();
    }

    pub(super) fn join(&mut self, class: Class, child: u64, rank: u64, bytes: u64) -> Place {
        self.arrivals += 1;
        let called = Arc::new(Notify::new());
        let place = Place {
            class,
            child,
            order: (Reverse(rank), self.arrivals),
            called: Arc::clone(&called),
        };
        let line = &mut self.lines[class as usize];
        let waiters = line.children.entry(child).or_default();
        if waiters.is_empty() {
            line.rotation.push_back(child);
        }
        waiters.insert(place.order, Waiter { bytes, called });
        place
    }

    /// Takes the turn of who waits at `place`, if it has come.
    pub(super) fn turn(&mut self, place: &Place, now: Instant) -> Turn {
        // Control of a node that never forwards, and everyone once there is no limit.
        let free = match self.rate {
            None => true,
            Some(0) => place.class == Class::Control,
            Some(_) => false,
        };
        if free {
            self.serve(place);
            return Turn::Granted;
        }
        let Some(bytes) = self.bytes_if_first(place) else {
            return Turn::NotYet;
        };
        if self.rate == Some(0) {
            return Turn::NotYet;
        }
        let at = self.pace.ready_at(bytes, DEPTH);
        if at > now {
            return Turn::At(at);
        }
        self.pace.pay(now, bytes, DEPTH);
        self.prepaid = (self.prepaid + bytes).min(self.prepaid_max());
        self.serve(place);
        Turn::Granted
    }

    /// Gives up the place, if its turn has not come, and calls who is first then.
    pub(super) fn leave(&mut self, place: &Place) {
        if self.remove(place) {
            self.call_first();
        }
    }

    /// Takes the waiter out, and its child behind the others that wait.
    fn serve(&mut self, place: &Place) {
        self.remove(place);
        let rotation = &mut self.lines[place.class as usize].rotation;
        if rotation.front() == Some(&place.child) {
            rotation.rotate_left(1);
        }
        self.call_first();
    }

    fn remove(&mut self, place: &Place) -> bool {
        let line = &mut self.lines[place.class as usize];
        let Some(waiters) = line.children.get_mut(&place.child) else {
            return false;
        };
        let was_there = waiters.remove(&place.order).is_some();
        if waiters.is_empty() {
            line.children.remove(&place.child);
            line.rotation.retain(|child| *child != place.child);
        }
        was_there
    }

    /// Sent bytes eat what was prepaid; the rest is charged.
    pub(super) fn on_sent(&mut self, now: Instant, bytes: u64) {
        let paid = bytes.min(self.prepaid);
        self.prepaid -= paid;
        if bytes > paid {
            self.pace.pay(now, bytes - paid, DEPTH);
            self.pace.forgive(now, DEBT);
        }
    }

    fn bytes_if_first(&self, place: &Place) -> Option<u64> {
        let (class, child, order, waiter) = self.first()?;
        let first = (class, child, order) == (place.class as usize, place.child, place.order);
        first.then_some(waiter.bytes)
    }

    fn first(&self) -> Option<(usize, u64, Order, &Waiter)> {
        self.lines.iter().enumerate().find_map(|(class, line)| {
            let child = *line.rotation.front()?;
            let (order, waiter) = line.children.get(&child)?.first_key_value()?;
            Some((class, child, *order, waiter))
        })
    }

    fn call_first(&self) {
        if let Some((.., waiter)) = self.first() {
            waiter.called.notify_one();
        }
    }

    /// Bytes of a second. What was prepaid and never sent, as its child was gone, would
    /// else pay for others for ever.
    fn prepaid_max(&self) -> u64 {
        self.rate.unwrap_or(0) / 8
    }
}
