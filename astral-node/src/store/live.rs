//! A local player's reader: whole frames of all tracks in the one order in which
//! every node's muxer writes them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use astral_media::catalog::Catalog;
use astral_media::frame::Frame;
use astral_proto::record::StreamState;
use astral_proto::wire::media::FrameHeader;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ring::{Number, Ring};
use super::{Group, LIVE_PATIENCE, StreamStore, TRACK_PATIENCE, lock};

/// Where a [`LiveReader`] begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartAt {
    /// At the newest keyframe that is at least this much older than the newest frame.
    Live {
        /// Milliseconds.
        target_ms: u32,
    },
    /// At the newest keyframe that is not after this time on the stream's timeline.
    FromMs(i64),
}

/// What a [`LiveReader`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LiveEvent {
    /// The catalog that the following frames need.
    Catalog(Arc<Catalog>),
    /// The next frame.
    Frame(Frame),
    /// Frames that did not come in time, or that the reader was too slow for.
    Lost {
        /// Track.
        track: u8,
        /// Group.
        group: u64,
        /// First of them.
        from: u32,
        /// How many; 0 if that is not known (the rest of the group).
        count: u32,
    },
    /// Where the stream stands. Anything but `Live` comes only when all frames
    /// before it have been read; nothing comes after `Ended`.
    State(StreamState),
}

/// Reads whole frames of all tracks strictly by group and order, from a group that
/// begins with a keyframe. A frame that is missing is waited for until a later one of its
/// track has been there for [`LIVE_PATIENCE`].
///
/// It takes nothing along: a reader that is slower than the stream finds its group
/// forgotten, is told so, and goes on at the newest keyframe as at its start.
pub(crate) struct LiveReader {
    store: Arc<StreamStore>,
    progress: watch::Receiver<()>,
    start: StartAt,
    at: Option<At>,
    catalog: Option<Arc<Catalog>>,
    state: Option<StreamState>,
    queue: VecDeque<LiveEvent>,
}

#[derive(Clone, Debug)]
struct At {
    group: u64,
    order: u32,
    /// Epoch of the group, or of the one before while it is not there.
    epoch: u32,
    /// Per track the next frame that has neither been read nor reported.
    next: BTreeMap<u8, u32>,
}

enum Step {
    /// Something is queued, or the place has moved.
    Again,
    /// Nothing to read; look again then at the latest.
    Wait(Option<Instant>),
}

impl LiveReader {
    /// A reader of `store` that begins at `start`.
    pub(crate) fn new(store: Arc<StreamStore>, start: StartAt) -> Self {
        let progress = store.progress.subscribe();
        Self {
            store,
            progress,
            start,
            at: None,
            catalog: None,
            state: None,
            queue: VecDeque::new(),
        }
    }

    /// The next event, as soon as it is there. Cancel safe.
    pub(crate) async fn next(&mut self) -> LiveEvent {
        let store = Arc::clone(&self.store);
        loop {
            if let Some(event) = self.queue.pop_front() {
                return event;
            }
            self.progress.borrow_and_update();
            let step = self.step(&lock(&store.ring), Instant::now());
            // The store holds the sender and is held here, so that it cannot be closed.
            match step {
                Step::Again => {}
                Step::Wait(None) => drop(self.progress.changed().await),
                Step::Wait(Some(until)) => {
                    drop(tokio::time::timeout_at(until, self.progress.changed()).await);
                }
            }
        }
    }

    fn step(&mut self, ring: &Ring, now: Instant) -> Step {
        if ring.state == StreamState::Live && self.state != Some(StreamState::Live) {
            return self.report_state(ring.state);
        }
        let step = match self.at.take() {
            None => self.begin(ring),
            Some(at) => self.read(ring, at, now),
        };
        match step {
            Step::Wait(_) if self.state != Some(ring.state) => self.report_state(ring.state),
            step @ (Step::Again | Step::Wait(_)) => step,
        }
    }

    fn report_state(&mut self, state: StreamState) -> Step {
        self.state = Some(state);
        self.queue.push_back(LiveEvent::State(state));
        Step::Again
    }

    fn begin(&mut self, ring: &Ring) -> Step {
        let Some((group, epoch)) = entry_point(ring, self.start) else {
            return Step::Wait(None);
        };
        self.at = Some(At::start_of(group, epoch));
        Step::Again
    }

    fn read(&mut self, ring: &Ring, at: At, now: Instant) -> Step {
        let Some(number) = ring.numbers.get(&at.group) else {
            return self.absent(ring, at, now);
        };
        let catalog = ring.catalogs.get(&number.epoch);
        if let Some(&(track, index)) = number.orders.get(&at.order)
            && let Some((header, payload)) = number.tracks[&track].whole(index)
        {
            if let Some(catalog) = catalog {
                self.report_catalog(catalog);
            }
            self.deliver(at, header, payload);
            return Step::Again;
        }
        if is_finished(number, catalog, at.order) {
            self.leave(number, at);
            return Step::Again;
        }
        self.missing(ring, number, at, now)
    }

    fn report_catalog(&mut self, catalog: &Arc<Catalog>) {
        let is_known = |known: &Arc<Catalog>| Arc::ptr_eq(known, catalog);
        if !self.catalog.as_ref().is_some_and(is_known) {
            self.catalog = Some(Arc::clone(catalog));
            self.queue
                .push_back(LiveEvent::Catalog(Arc::clone(catalog)));
        }
    }

    fn deliver(&mut self, mut at: At, header: FrameHeader, payload: Bytes) {
        let next = at.next.entry(header.track).or_default();
        if *next < header.index {
            self.queue.push_back(LiveEvent::Lost {
                track: header.track,
                group: header.group,
                from: *next,
                count: header.index - *next,
            });
        }
        *next = header.index + 1;
        at.epoch = header.epoch;
        at.order = header.order + 1;
        self.at = Some(at);
        self.queue
            .push_back(LiveEvent::Frame(frame(header, payload)));
    }

    /// Goes on to the next group, and says what is missing at the end of this one.
    fn leave(&mut self, number: &Number, mut at: At) {
        for (&track, group) in &number.tracks {
            let next = at.next.get(&track).copied().unwrap_or(0);
            let lost = match group.frames() {
                Some(frames) if next < frames => Some(frames - next),
                Some(_) => None,
                None => Some(0),
            };
            self.queue.extend(lost.map(|count| LiveEvent::Lost {
                track,
                group: at.group,
                from: next,
                count,
            }));
        }
        at = At::start_of(at.group + 1, number.epoch);
        self.at = Some(at);
    }

    /// The group is not there: forgotten, not yet come, or never made.
    fn absent(&mut self, ring: &Ring, at: At, now: Instant) -> Step {
        let later = ring.numbers.range(at.group..).next();
        if at.group < ring.floor {
            let next = entry_point(ring, self.start).filter(|(group, _)| *group > at.group);
            let Some((group, epoch)) = next else {
                self.at = Some(at);
                return Step::Wait(None);
            };
            self.report_lost_group(ring, &at);
            self.at = Some(At::start_of(group, epoch));
            return Step::Again;
        }
        let Some((&group, later)) = later else {
            self.at = Some(at);
            return Step::Wait(None);
        };
        match later.first_complete_at.map(|since| since + LIVE_PATIENCE) {
            Some(until) if until <= now => {
                if later.epoch == at.epoch {
                    self.report_lost_group(ring, &at);
                }
                self.at = Some(At::start_of(group, later.epoch));
                Step::Again
            }
            until => {
                self.at = Some(at);
                Step::Wait(until)
            }
        }
    }

    fn report_lost_group(&mut self, ring: &Ring, at: &At) {
        let track = ring.main_track(at.epoch).unwrap_or(1);
        self.queue.push_back(LiveEvent::Lost {
            track,
            group: at.group,
            from: at.next.get(&track).copied().unwrap_or(0),
            count: 0,
        });
    }

    /// The next frame of this group is not there.
    fn missing(&mut self, ring: &Ring, number: &Number, mut at: At, now: Instant) -> Step {
        let mut here = number.orders.range(at.order + 1..);
        let complete_at = |(track, index): &(u8, u32)| number.tracks[track].complete_at(*index);
        let in_group = number.orders.range(at.order + 1..);
        let in_group = in_group.filter_map(|(_, name)| complete_at(name)).min();
        let after = ring.numbers.range(at.group + 1..);
        let after = after.filter_map(|(_, later)| later.first_complete_at).min();
        let Some(first) = in_group.into_iter().chain(after).min() else {
            self.at = Some(at);
            return Step::Wait(None);
        };
        let until = worth_waiting(ring, number, &at, first);
        if now < until {
            self.at = Some(at);
            return Step::Wait(Some(until));
        }
        match here.find(|(_, name)| complete_at(name).is_some()) {
            Some((&order, _)) => {
                at.order = order;
                self.at = Some(at);
            }
            // Later frames of the group may still come, but later groups are here.
            None if after.is_some() => self.leave(number, at),
            None => {
                self.at = Some(at);
                return Step::Wait(None);
            }
        }
        Step::Again
    }
}

impl At {
    fn start_of(group: u64, epoch: u32) -> Self {
        Self {
            group,
            order: 0,
            epoch,
            next: BTreeMap::new(),
        }
    }
}

/// Until when to wait for a frame, given since when anything later is here.
///
/// Nobody knows whose frame it is: it may be of any track whose own next frame is not
/// here. It is waited for since all of these are past it; one that is not may only be
/// behind, as the picture is behind the sound at a node that catches up.
fn worth_waiting(ring: &Ring, number: &Number, at: &At, since: Instant) -> Instant {
    let Some(catalog) = ring.catalogs.get(&number.epoch) else {
        return since + LIVE_PATIENCE;
    };
    let mut until = since + LIVE_PATIENCE;
    for track in catalog.tracks.iter().map(|track| track.id) {
        let next = at.next.get(&track).copied().unwrap_or(0);
        let group = number.tracks.get(&track);
        let over = group.and_then(|group| group.frames());
        let goes_on = group.is_some_and(|group| group.complete_at(next).is_some());
        if goes_on || over.is_some_and(|frames| next >= frames) {
            continue;
        }
        let of_track = |(_, entry): (&u64, &Number)| entry.tracks.get(&track).cloned();
        let mut before = ring.numbers.range(..=at.group).rev().take(2);
        let later: Vec<_> = ring
            .numbers
            .range(at.group + 1..)
            .filter_map(of_track)
            .collect();
        if later.is_empty() && before.find_map(of_track).is_none() {
            // It has been silent for a whole group: nothing of it is to be expected.
            continue;
        }
        let in_group = group.and_then(|group| group.overtaken_at(next));
        let later = later.iter().filter_map(|group| group.overtaken_at(0));
        let past = in_group.into_iter().chain(later).min();
        until = until.max(past.map_or(since + TRACK_PATIENCE, |past| past + LIVE_PATIENCE));
    }
    until
}

/// Whether all frames up to `order` are all that there are.
fn is_finished(number: &Number, catalog: Option<&Arc<Catalog>>, order: u32) -> bool {
    let Some(catalog) = catalog else {
        return false;
    };
    let frames = |track: u8| number.tracks.get(&track).and_then(|group| group.frames());
    let mut total: u32 = 0;
    for track in &catalog.tracks {
        match frames(track.id) {
            Some(count) => total = total.saturating_add(count),
            None => return false,
        }
    }
    order >= total
}

/// The group to start at: it begins with a keyframe that is here.
fn entry_point(ring: &Ring, start: StartAt) -> Option<(u64, u32)> {
    let entries = ring.numbers.iter().filter(|(_, number)| {
        let main = ring.main_track(number.epoch);
        let main: Option<&Arc<Group>> = main.and_then(|track| number.tracks.get(&track));
        main.and_then(|group| group.is_entry()) == Some(true)
    });
    let latest_ms = match start {
        StartAt::Live { target_ms } => ring.newest_end_ms.saturating_sub(target_ms.into()),
        StartAt::FromMs(ms) => ms,
    };
    let mut chosen = None;
    for (&group, number) in entries {
        let in_time = number.start_ms.is_some_and(|start| start <= latest_ms);
        if chosen.is_none() || in_time {
            chosen = Some((group, number.epoch));
        }
    }
    chosen
}

pub(super) fn frame(header: FrameHeader, payload: Bytes) -> Frame {
    Frame {
        track: header.track,
        epoch: header.epoch,
        group: header.group,
        index: header.index,
        order: header.order,
        dts: header.dts,
        cts: header.cts,
        duration: header.duration,
        keyframe: header.keyframe,
        discardable: header.discardable,
        no_keyframe: header.no_keyframe,
        payload,
    }
}
