//! Video chunk by chunk: what a node holds, and what its uplink sends next.
//!
//! As the node's store and fan-out do it: frames are told apart by their names, a child
//! begins at the newest keyframe if it can catch up from there, audio goes before video,
//! children take turns by chunk, the newest group of a child goes first, and what is left
//! of a group is given up once it could only be late. Not modelled: that a relay holds
//! back what comes after a hole in a group.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::flow::BUFFER;
use super::link::End;
use super::programme::{AUDIO, Place, Programme, VIDEO};
use crate::ids::TicketId;
use crate::limits::HAVE_GROUPS_MAX;
use crate::overlay::{Progress, Time};
use crate::wire::control::{Have, HaveGroup};

/// A child catches up in order for this long at the most; then what is live goes first.
const CATCH_UP_MAX: Duration = Duration::from_secs(4);
/// Until the next group is open for this long, the older one goes first.
const IN_ORDER: Duration = Duration::from_millis(500);
/// Groups that a store keeps.
const GROUPS_KEPT: u64 = 7;
/// A group's rest is given up once the next has been open for this long.
const LATE_AFTER: Duration = Duration::from_millis(1_500);

/// A chunk of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    pub(super) number: u32,
    pub(super) chunk: u8,
    pub(super) bytes: u32,
}

/// What a node holds of a stream, and what its player has played.
#[derive(Debug, Default)]
pub(super) struct Exact {
    whole: Vec<u64>,
    parts: BTreeMap<u32, u32>,
    newest: Option<u32>,
    /// The group with which it began.
    oldest: Option<u64>,
    last: Option<Time>,
    gaps: Gaps,
    began: Option<Time>,
    /// Delay that the player has settled for.
    reference: Duration,
    /// First frame that is judged: those before are caught up with.
    judged: Option<u32>,
    /// When the newest frame came, and how long after its publication.
    newest_delay: Option<(Time, Duration)>,
    late: u64,
    late_in_a_row: u32,
    /// Frames handed to the player more than once.
    pub(super) doubled: u64,
    /// Bytes that came although they were there.
    pub(super) twice_bytes: u64,
}

impl Exact {
    /// Delay of the newest frame, if it came within the last second and a half.
    pub(super) fn delay(&self, now: Time) -> Option<Duration> {
        let (last, delay) = self.newest_delay?;
        (now.since(last) < Duration::from_millis(1_500)).then_some(delay)
    }

    pub(super) fn has(&self, number: u32) -> bool {
        let word = self.whole.get(number as usize / 64);
        word.is_some_and(|word| (word >> (number % 64)) & 1 == 1)
    }

    fn has_chunk(&self, number: u32, chunk: u8) -> bool {
        self.has(number)
            || self
                .parts
                .get(&number)
                .is_some_and(|mask| (mask >> chunk) & 1 == 1)
    }

    /// Whether a frame is about as new as anything here.
    pub(super) fn is_front(&self, number: u32) -> bool {
        self.newest <= Some(number + 12)
    }

    /// The newest group that anything is here of.
    pub(super) fn newest_group(&self, programme: &Programme) -> Option<u64> {
        let part = self.parts.keys().next_back().copied();
        let newest = self.newest.max(part)?;
        Some(programme.place(newest).group)
    }

    /// Takes a chunk in; false if it was there. `careless` stores hand on what they have.
    pub(super) fn take(
        &mut self,
        now: Time,
        programme: &Programme,
        chunk: Chunk,
        careless: bool,
    ) -> bool {
        if self.has_chunk(chunk.number, chunk.chunk) {
            self.twice_bytes += u64::from(chunk.bytes);
            self.doubled += u64::from(careless && self.has(chunk.number));
            return careless;
        }
        self.gaps.note(now, self.last);
        self.last = Some(now);
        self.oldest
            .get_or_insert(programme.place(chunk.number).group);
        let count = programme.chunks(chunk.number).count() as u32;
        let mask = self.parts.entry(chunk.number).or_default();
        *mask |= 1 << chunk.chunk;
        if mask.count_ones() == count {
            self.parts.remove(&chunk.number);
            self.complete(now, programme, chunk.number);
        }
        true
    }

    fn complete(&mut self, now: Time, programme: &Programme, number: u32) {
        let word = number as usize / 64;
        if self.whole.len() <= word {
            self.whole.resize(word + 1, 0);
        }
        self.whole[word] |= 1 << (number % 64);
        let delay = now.since(programme.published(number));
        if self.newest < Some(number) {
            self.newest = Some(number);
            self.newest_delay = Some((now, delay));
        }
        let began = *self.began.get_or_insert(now);
        if programme.published(number) < began {
            return;
        }
        let judged = *self.judged.get_or_insert(number);
        if now.since(began) < BUFFER && (judged == number || delay < self.reference) {
            self.reference = delay;
        }
        if number < judged || delay <= self.reference + BUFFER {
            self.late_in_a_row = 0;
            return;
        }
        self.late += 1;
        self.late_in_a_row += 1;
        // A player that gets everything too late stops once and settles for more.
        if f64::from(self.late_in_a_row) * programme.frame.as_secs_f64() > BUFFER.as_secs_f64() {
            self.reference = delay;
        }
    }

    /// Frames that were to be played until now, and of them those too late, and those lost.
    pub(super) fn played(&self, now: Time, programme: &Programme) -> (u64, u64, u64) {
        let Some(judged) = self.judged else {
            return (0, 0, 0);
        };
        let due = |number: u32| programme.published(number).after(self.reference + BUFFER) <= now;
        let (mut all, mut lost) = (0, 0);
        for number in (judged..).take_while(|number| due(*number)) {
            all += 1;
            lost += u64::from(!self.has(number));
        }
        (all, self.late, lost)
    }

    /// How far the store is, for the overlay.
    pub(super) fn progress(&self, now: Time, programme: &Programme) -> Option<Progress> {
        let (began, newest) = (self.began?, self.newest?);
        let video = (0..=newest)
            .rev()
            .take(64)
            .find(|n| programme.place(*n).track == VIDEO && self.has(*n));
        let place = video.map(|number| programme.place(number));
        let known = now.since(began) >= Duration::from_secs(1);
        Some(Progress {
            epoch: 1,
            newest: place.map_or((0, 0), |place| (place.group, place.index + 1)),
            peak_bps: if known { programme.bitrate_bps } else { 0 },
            last: self.last.unwrap_or_default(),
            gap: self.gaps.usual(),
            lost: 0,
        })
    }

    /// What it lacks, as `have` says it.
    pub(super) fn have(&self, programme: &Programme) -> Have {
        let Some(newest) = self.newest_group(programme) else {
            return Have::default();
        };
        let kept = newest.saturating_sub(HAVE_GROUPS_MAX as u64 - 1);
        // What was before it began it does not want.
        let oldest = kept.max(self.oldest.unwrap_or(newest));
        let groups = (oldest..=newest)
            .flat_map(|group| [VIDEO, AUDIO].map(|track| (track, group)))
            .filter_map(|(track, group)| self.first_missing(programme, track, group));
        Have {
            groups: groups.collect(),
            from_group: Some(newest + 1),
        }
    }

    fn first_missing(&self, programme: &Programme, track: u8, group: u64) -> Option<HaveGroup> {
        let after = programme.first_of(group + 1);
        let numbers = (0..).map(|index| {
            let place = Place {
                track,
                group,
                index,
            };
            (index, programme.number(place))
        });
        let mut inside = numbers.take_while(|(_, number)| *number < after);
        let (frame, number) = inside.find(|(_, number)| !self.has(*number))?;
        let mask = self.parts.get(&number).copied().unwrap_or(0);
        Some(HaveGroup {
            track,
            group,
            frame,
            chunk: mask.trailing_ones(),
        })
    }

    /// Every chunk that is here and that a child wants, in order.
    pub(super) fn backlog(&self, programme: &Programme, wish: &Wish<'_>) -> Vec<Chunk> {
        let Some(newest) = self.newest_group(programme) else {
            return Vec::new();
        };
        let oldest = newest.saturating_sub(GROUPS_KEPT - 1).max(1);
        let numbers = programme.first_of(oldest)..programme.first_of(newest + 1);
        let chunks = numbers.flat_map(|number| {
            let bytes = programme.chunks(number).enumerate();
            bytes.map(move |(chunk, bytes)| Chunk {
                number,
                chunk: chunk as u8,
                bytes,
            })
        });
        chunks
            .filter(|chunk| self.has_chunk(chunk.number, chunk.chunk))
            .filter(|chunk| wish.includes(programme, *chunk))
            .collect()
    }

    /// Where a child without anything begins, and the bits to catch up with: at the newest
    /// group if that takes under a second of `spare_bps`, else with the next.
    pub(super) fn entry(&self, programme: &Programme, spare_bps: u64) -> Option<(u64, u64)> {
        // Sound may be ahead: what counts is the newest keyframe.
        let newest = self.newest_group(programme)?;
        let opened = |group: &u64| self.has_chunk(programme.first_of(*group), 0);
        let group = [newest, newest.saturating_sub(1)]
            .into_iter()
            .find(opened)?;
        let first = programme.first_of(group);
        let held = (first..programme.first_of(group + 1)).filter(|number| self.has(*number));
        let bits: u64 = held
            .map(|number| u64::from(programme.bytes(number)) * 8)
            .sum();
        Some(match bits <= spare_bps {
            true => (group, bits),
            false => (group + 1, 0),
        })
    }
}

/// What a child wants.
pub(super) struct Wish<'a> {
    pub(super) have: &'a Have,
    pub(super) start: Option<u64>,
}

impl Wish<'_> {
    pub(super) fn includes(&self, programme: &Programme, chunk: Chunk) -> bool {
        let place = programme.place(chunk.number);
        let from = self.have.from_group.or(self.start);
        if from.is_some_and(|from| place.group >= from) {
            return true;
        }
        let held = |held: &&HaveGroup| (held.track, held.group) == (place.track, place.group);
        let held = self.have.groups.iter().find(held);
        held.is_some_and(|held| (place.index, u32::from(chunk.chunk)) >= (held.frame, held.chunk))
    }
}

/// The longest pause between two chunks that is usual, as the node's store reckons it.
#[derive(Debug, Default)]
struct Gaps {
    usual: Duration,
    seen: u32,
}

impl Gaps {
    fn note(&mut self, now: Time, last: Option<Time>) {
        let Some(last) = last else { return };
        let most = self.usual * 2 + Duration::from_millis(20);
        let gap = now.since(last).min(Duration::from_secs(2));
        let gap = match self.seen {
            ..6 => Duration::ZERO,
            6..16 => gap,
            16.. => gap.min(most),
        };
        let fades = self.usual.saturating_sub(gap) / 128;
        self.usual = gap.max(self.usual - fades);
        self.seen += 1;
    }

    fn usual(&self) -> Duration {
        if self.seen < 16 {
            return Duration::ZERO;
        }
        self.usual.max(Duration::from_millis(1))
    }
}

/// A node's uplink: one chunk at a time.
#[derive(Debug)]
pub(super) struct Uplink {
    bps: u64,
    /// When it has sent all that it was given.
    pub(super) free_at: Time,
    pub(super) busy: bool,
    lanes: Vec<Lane>,
    turn: usize,
    /// Chunks given up.
    pub(super) given_up: u64,
}

#[derive(Debug)]
struct Lane {
    end: End,
    ticket: TicketId,
    /// Since when the child catches up: it gets all in order, and loses nothing.
    catches_up: Option<Time>,
    /// Bits of a second's upload that are kept for it meanwhile.
    lent: u64,
    audio: VecDeque<Chunk>,
    video: BTreeMap<u64, VecDeque<Chunk>>,
}

impl Uplink {
    pub(super) fn new(bps: u64) -> Self {
        Self {
            bps: bps.max(1),
            free_at: Time(0),
            busy: false,
            lanes: Vec::new(),
            turn: 0,
            given_up: 0,
        }
    }

    /// Takes time for bytes that go before everything else.
    pub(super) fn charge(&mut self, now: Time, bytes: usize) {
        self.free_at = self.free_at.max(now).after(self.takes(bytes as u64));
    }

    fn takes(&self, bytes: u64) -> Duration {
        Duration::from_micros(bytes * 8 * 1_000_000 / self.bps)
    }

    /// A child comes, for whom so many bits are kept until it has caught up.
    pub(super) fn open(&mut self, now: Time, to: (End, TicketId)) {
        self.lanes.push(Lane {
            end: to.0,
            ticket: to.1,
            catches_up: Some(now),
            lent: 0,
            audio: VecDeque::new(),
            video: BTreeMap::new(),
        });
    }

    fn lane_mut(&mut self, to: (End, TicketId)) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|l| (l.end, l.ticket) == to)
    }

    /// Keeps upload for a child that catches up.
    pub(super) fn lend(&mut self, to: (End, TicketId), bits: u64) {
        if let Some(lane) = self.lane_mut(to) {
            lane.lent = bits;
        }
    }

    /// What is kept for those who catch up, in bit/s.
    pub(super) fn lent(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.lent).sum()
    }

    pub(super) fn push(&mut self, programme: &Programme, to: (End, TicketId), chunk: Chunk) {
        let Some(lane) = self.lane_mut(to) else {
            return;
        };
        let place = programme.place(chunk.number);
        if place.track == AUDIO {
            lane.audio.push_back(chunk);
        } else {
            lane.video.entry(place.group).or_default().push_back(chunk);
        }
    }

    pub(super) fn remove(&mut self, end: End, ticket: TicketId) {
        self.lanes.retain(|l| (l.end, l.ticket) != (end, ticket));
    }

    /// The next chunk, and when it has left.
    pub(super) fn send(
        &mut self,
        now: Time,
        programme: &Programme,
        newest: u64,
    ) -> Option<(End, TicketId, Chunk, Time)> {
        let open_for = now.since(programme.published(programme.first_of(newest)));
        for lane in &mut self.lanes {
            lane.look(now);
            if open_for > LATE_AFTER && lane.catches_up.is_none() {
                let kept = lane.video.split_off(&newest);
                let late = std::mem::replace(&mut lane.video, kept);
                self.given_up += late.values().map(|queue| queue.len() as u64).sum::<u64>();
            }
        }
        let (at, chunk) = self.next_chunk(open_for < IN_ORDER)?;
        self.turn = at + 1;
        let (end, ticket) = (self.lanes[at].end, self.lanes[at].ticket);
        self.free_at = self.free_at.max(now).after(self.takes(chunk.bytes.into()));
        Some((end, ticket, chunk, self.free_at))
    }

    fn next_chunk(&mut self, in_order: bool) -> Option<(usize, Chunk)> {
        let count = self.lanes.len();
        let turns = |turn: usize| (0..count).map(move |step| (turn + step) % count);
        let audio = turns(self.turn).find(|at| !self.lanes[*at].audio.is_empty());
        if let Some(at) = audio {
            return Some((at, self.lanes[at].audio.pop_front()?));
        }
        let at = turns(self.turn).find(|at| !self.lanes[*at].video.is_empty())?;
        let lane = &mut self.lanes[at];
        let mut queue = match in_order || lane.catches_up.is_some() {
            true => lane.video.first_entry()?,
            false => lane.video.last_entry()?,
        };
        let chunk = queue.get_mut().pop_front()?;
        if queue.get().is_empty() {
            queue.remove();
        }
        Some((at, chunk))
    }
}

impl Lane {
    /// Ends catching up once the child is level with what is here, or it takes too long.
    fn look(&mut self, now: Time) {
        let Some(since) = self.catches_up else { return };
        let level = self.video.is_empty() && self.audio.is_empty();
        if level || now.since(since) > CATCH_UP_MAX {
            (self.catches_up, self.lent) = (None, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Stream;
    use super::*;

    fn chunks_of(programme: &Programme, number: u32) -> Vec<Chunk> {
        let sizes = programme.chunks(number).enumerate();
        let chunk = |(chunk, bytes)| Chunk {
            number,
            chunk: chunk as u8,
            bytes,
        };
        sizes.map(chunk).collect()
    }

    #[test]
    fn store_says_what_it_lacks_and_gets_just_that() {
        let programme = Programme::new(&Stream::default(), Time(0));
        let (mut full, mut holed) = (Exact::default(), Exact::default());
        let frames = programme.first_of(2) + 20;
        for number in 0..frames {
            let now = programme.published(number);
            for chunk in chunks_of(&programme, number) {
                assert!(full.take(now, &programme, chunk, false));
                if !(30..40).contains(&number) {
                    holed.take(now, &programme, chunk, false);
                }
            }
        }
        let have = holed.have(&programme);
        let wish = Wish {
            have: &have,
            start: None,
        };
        let now = programme.published(frames);
        for chunk in full.backlog(&programme, &wish) {
            holed.take(now, &programme, chunk, false);
        }
        assert!((0..frames).all(|number| holed.has(number)));
        assert!(holed.twice_bytes > 0, "all after the hole comes again");
        assert_eq!(holed.doubled, 0);
    }

    #[test]
    fn uplink_sends_at_its_rate_and_children_take_turns() {
        let programme = Programme::new(&Stream::default(), Time(0));
        let mut uplink = Uplink::new(8_000_000);
        let tickets = [TicketId(1), TicketId(2)];
        for ticket in tickets {
            uplink.open(Time(0), (End(0), ticket));
        }
        for chunk in chunks_of(&programme, 0) {
            for ticket in tickets {
                uplink.push(&programme, (End(0), ticket), chunk);
            }
        }
        let mut sent = Vec::new();
        let mut bytes = 0;
        while let Some((_, ticket, chunk, at)) = uplink.send(Time(0), &programme, 1) {
            sent.push(ticket);
            bytes += u64::from(chunk.bytes);
            assert!(at.0.abs_diff(bytes) < 20, "a byte takes a microsecond");
        }
        assert!(sent.chunks(2).all(|two| two[0] != two[1]), "{sent:?}");
    }

    #[test]
    fn child_that_catches_up_gets_all_in_order_and_another_what_is_newest() {
        let programme = Programme::new(&Stream::default(), Time(0));
        let mut uplink = Uplink::new(8_000_000);
        let to = (End(0), TicketId(1));
        let now = programme
            .published(programme.first_of(4))
            .after(Duration::from_millis(1_700));
        let mut sent = |since: Time| {
            uplink.remove(to.0, to.1);
            uplink.open(since, to);
            for chunk in [0, programme.first_of(4)].map(|n| chunks_of(&programme, n)[0]) {
                uplink.push(&programme, to, chunk);
            }
            let groups = std::iter::from_fn(|| uplink.send(now, &programme, 4));
            groups
                .map(|sent| programme.place(sent.2.number).group)
                .collect::<Vec<_>>()
        };
        assert_eq!(sent(now), [1, 4]);
        assert_eq!(sent(Time(0)), [4], "what is late is given up");
    }
}
