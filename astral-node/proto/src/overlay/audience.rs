//! How a stream's audience is served, summed up the tree: the publisher sees all of it.
//!
//! Every node says to its parent, every [`TELL_EVERY`], what it knows of those below it
//! and of itself. Numbers are believed: whoever lies about those below it can do so of
//! nobody else, and nothing is decided by them.

use std::collections::VecDeque;
use std::time::Duration;

use super::event::{ConnId, Time};
use super::{Overlay, Timer};
use crate::ids::StreamId;
use crate::limits::DELAY_CLASSES;
use crate::wire::control;

/// How often a node tells its parent: one message of some 40 bytes.
pub(super) const TELL_EVERY: Duration = Duration::from_secs(2);
/// What stalls and losses are counted over.
const LAST_MINUTE: Duration = Duration::from_secs(60);
/// A pause for which a player's buffer is too short.
const STALL: Duration = Duration::from_secs(1);
/// Pauses that are remembered: one after the other in a minute.
const STALLS_MAX: usize = 60;
/// Where the classes of delay end, in milliseconds; the last one does not.
const CLASS_ENDS_MS: [u32; DELAY_CLASSES - 1] = [
    25, 50, 75, 100, 150, 200, 300, 400, 600, 800, 1_200, 1_600, 2_400, 3_200, 4_800,
];

/// Viewers in a part of the tree, and how they are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audience {
    delays: [u32; DELAY_CLASSES],
    /// Nodes on the longest way from the source to any of them.
    pub depth: u32,
    /// Pauses of over a second, in the last minute.
    pub stalls: u32,
    /// Frames lost, in the last minute.
    pub lost: u32,
}

impl Audience {
    /// Viewers.
    pub fn viewers(&self) -> u32 {
        let sum = |sum: u32, count: &u32| sum.saturating_add(*count);
        self.delays.iter().fold(0, sum)
    }

    /// Delay from the source that this share of the viewers, in percent, does not exceed,
    /// as far as classes tell.
    pub fn delay(&self, percent: u64) -> Duration {
        let wanted = (u64::from(self.viewers()) * percent).div_ceil(100);
        let mut seen = 0u64;
        for (class, count) in self.delays.iter().enumerate() {
            let before = seen;
            seen += u64::from(*count);
            if seen >= wanted && *count > 0 {
                let end = |class: usize| CLASS_ENDS_MS.get(class).copied();
                let from_ms = class.checked_sub(1).and_then(end).unwrap_or(0);
                let to_ms = end(class).unwrap_or(2 * from_ms);
                // As if they were spread evenly over their class.
                let share = (wanted - before) as f64 / f64::from(*count);
                let ms = f64::from(from_ms) + share * f64::from(to_ms - from_ms);
                return Duration::from_micros((ms * 1e3) as u64);
            }
        }
        Duration::ZERO
    }

    fn add(&mut self, other: &Self) {
        for (sum, count) in self.delays.iter_mut().zip(other.delays) {
            *sum = sum.saturating_add(count);
        }
        self.depth = self.depth.max(other.depth);
        self.stalls = self.stalls.saturating_add(other.stalls);
        self.lost = self.lost.saturating_add(other.lost);
    }
}

/// How this node itself was served in the last minute.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// When something came last; zero before the first.
    last: Time,
    stalls: VecDeque<Time>,
    /// How many frames had been lost, each time that this was told.
    lost: VecDeque<(Time, u64)>,
}

impl Service {
    /// Something came.
    pub(super) fn came(&mut self, at: Time) {
        let pause = at.since(self.last);
        if self.last > Time::default() && pause > STALL && self.stalls.len() < STALLS_MAX {
            self.stalls.push_back(at);
        }
        self.last = self.last.max(at);
    }

    /// The source is back: nobody is to blame for the time that it was away.
    pub(super) fn resumed(&mut self, now: Time) {
        self.last = self.last.max(now);
    }

    /// Pauses and lost frames of the last minute.
    fn last_minute(&mut self, now: Time, lost: u64) -> (u32, u32) {
        let old = |at: Time| now.since(at) > LAST_MINUTE;
        while self.stalls.front().is_some_and(|at| old(*at)) {
            self.stalls.pop_front();
        }
        while self.lost.len() > 1 && self.lost.front().is_some_and(|(at, _)| old(*at)) {
            self.lost.pop_front();
        }
        self.lost.push_back((now, lost));
        let before = self.lost.front().map_or(lost, |(_, before)| *before);
        let lost = lost.saturating_sub(before).min(u64::from(u32::MAX));
        (self.stalls.len() as u32, lost as u32)
    }
}

impl Overlay {
    /// Tells every parent how those are served who are below it by way of this node.
    pub(super) fn tell_audiences(&mut self, now: Time) {
        self.timers
            .set(Timer::Audience, now.after(self.random.jitter(TELL_EVERY)));
        let ids: Vec<StreamId> = self.streams.keys().copied().collect();
        for id in ids {
            let mut audience = self.audience(id);
            let Some(stream) = self.streams.get_mut(&id) else {
                continue;
            };
            let (stalls, lost) = stream.service.last_minute(now, stream.progress.lost);
            let Some(parent) = stream.parent.as_ref() else {
                continue;
            };
            let (conn, ticket, depth) = (parent.conn, parent.ticket, parent.path.len() as u32);
            if stream.is_watched() {
                let mut own = Audience {
                    depth,
                    stalls,
                    lost,
                    ..Audience::default()
                };
                let delay_us = self.streams.get(&id).map_or(0, |s| self.delay_us(s));
                let class = CLASS_ENDS_MS.partition_point(|end| *end * 1_000 <= delay_us);
                own.delays[class] = 1;
                audience.add(&own);
            }
            let message = control::Audience {
                id: ticket,
                delays: audience.delays.to_vec(),
                depth: audience.depth,
                stalls: audience.stalls,
                lost: audience.lost,
            };
            self.send(conn, message);
        }
    }

    /// A child tells how those below it are served.
    pub(super) fn audience_told(&mut self, conn: ConnId, told: &control::Audience) {
        let feed = self.feeds.get_mut(&told.id);
        let Some(feed) = feed.filter(|feed| feed.conn == conn && feed.is_active()) else {
            return;
        };
        let mut audience = Audience {
            depth: told.depth,
            stalls: told.stalls,
            lost: told.lost,
            ..Audience::default()
        };
        for (count, told) in audience.delays.iter_mut().zip(&told.delays) {
            *count = *told;
        }
        feed.audience = audience;
    }

    /// How those are served who have a stream by way of this node.
    pub fn audience(&self, id: StreamId) -> Audience {
        let feeds = self.feeds.values();
        let mut sum = Audience::default();
        for feed in feeds.filter(|feed| feed.stream == id && feed.is_active()) {
            sum.add(&feed.audience);
        }
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn share_of_viewers_is_found_in_its_class() {
        let mut audience = Audience::default();
        assert_eq!(audience.delay(99), Duration::ZERO);
        audience.delays[3] = 98;
        audience.delays[9] = 2;
        assert_eq!(audience.viewers(), 100);
        let of = |percent| audience.delay(percent).as_millis();
        assert!((75..=100).contains(&of(50)), "{}", of(50));
        assert_eq!(of(98), 100);
        assert_eq!(of(99), 700);
        assert_eq!(of(100), 800);
    }

    #[test]
    fn only_the_last_minute_counts() {
        let mut service = Service::default();
        let at = |s: u64| Time(s * 1_000_000);
        service.came(at(1));
        service.came(at(2));
        service.came(at(4));
        service.resumed(at(6));
        service.came(at(7));
        assert_eq!(service.last_minute(at(7), 7), (1, 0));
        assert_eq!(service.last_minute(at(10), 9), (1, 2));
        assert_eq!(service.last_minute(at(70), 9).0, 0);
        assert_eq!(service.last_minute(at(140), 9), (0, 0));
    }
}
