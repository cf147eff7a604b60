//! Moving up the tree (DESIGN §6, *Improvement moves*).
//!
//! Who loses its parent turns to a standby, and that one has room since it stands near the
//! leaves: each failure hangs a branch deeper, until paths are as long as they may be. So a
//! node whose parent has changed looks soon for a place nearer to the source, and any other
//! now and then. It asks whoever fed its former parent, where a place has come free, and
//! peers that say that they have room. The present parent is kept until the new one sends.
//!
//! **Contributors first**: who could feed others looks soon after it has come, and goes on as
//! long as it finds something. It asks those above it, of whom its parent told, whether there
//! is room or somebody who gives way (`displace`). So nodes with upload rise through those
//! without, step by step and without anybody who knows the whole tree; in a simulated crowd
//! of 10⁴ nodes that takes a third of the hops away.
//!
//! What is compared is the delay to be expected and the hops: each is one more node that may
//! fail. A move must gain a fifth, so that nobody goes back and forth; of who feeds others, one
//! hop, as all of them come up with it.

use std::time::Duration;

use super::event::Time;
use super::search::{Goal, Stream};
use super::{Overlay, Timer};
use crate::ids::StreamId;
use crate::limits::REFERRALS_MAX;
use crate::wire::control::Referral;

/// A better place is looked for this long after the parent was lost, jittered: by then its
/// own parent has noticed, and its place is free. Twice as long each time that there is none.
const SOON: Duration = Duration::from_millis(500);
/// Doublings of it after which a place that is well is looked at: about a minute.
const WELL: u32 = 7;
/// It is looked at least this often.
const LATER_MAX: Duration = Duration::from_secs(600);
/// What a hop counts for beside the way: a relay sends a frame to one child after the other,
/// and may fail.
const HOP_US: u64 = 20_000;
/// Share of the present cost that a better place has at the most, in percent.
const GAIN_PERCENT: u64 = 80;

/// What it costs to be fed by somebody who stands so deep, and so far from the source.
pub(super) fn cost(hops: usize, delay_us: u64) -> u64 {
    delay_us.saturating_add(HOP_US.saturating_mul(hops as u64))
}

/// What it costs that a standby may fail with nodes above the parent: less than a hop, as
/// their children mend that.
pub(super) fn shared_cost(shared: usize) -> u64 {
    HOP_US / 2 * shared as u64
}

impl Stream {
    /// Keeps whom a parent named that is gone: they stand above it.
    pub(super) fn look_up_to(&mut self, referrals: &[Referral]) {
        if !referrals.is_empty() {
            self.uphill = referrals.iter().take(REFERRALS_MAX).cloned().collect();
        }
    }
}

impl Overlay {
    /// The parent was lost, and what was at hand has taken its place.
    pub(super) fn improve_soon(&mut self, now: Time, id: StreamId) {
        self.improve_after(now, id, 0);
    }

    /// The place is a good one as far as is known; who could feed others looks soon whether
    /// it can have that of somebody who could not.
    pub(super) fn improve_on(&mut self, now: Time, id: StreamId) {
        let attempt = match self.places(id) {
            Some(_) => 0,
            None => WELL,
        };
        self.improve_after(now, id, attempt);
    }

    fn improve_after(&mut self, now: Time, id: StreamId, attempt: u32) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.improve_attempt = attempt;
            let base = SOON.saturating_mul(1 << attempt.min(16)).min(LATER_MAX);
            let wait = self.random.jitter(base);
            self.timers.set(Timer::Improve(id), now.after(wait));
        }
    }

    /// Looks for a place nearer to the source, if all is well.
    pub(super) fn improve(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get(&id) else {
            return;
        };
        let Some(parent) = stream.parent.as_ref() else {
            return;
        };
        if parent.path.len() <= 1 {
            // Nobody stands nearer to the source than its children.
            return;
        }
        let seeks_standby = stream.lacks_standby() && stream.standby_attempt <= 1;
        let busy = stream.search.is_some() || stream.quiet.is_some() || stream.former.is_some();
        if busy || seeks_standby || !parent.begun {
            let wait = self.random.jitter(SOON);
            return self.timers.set(Timer::Improve(id), now.after(wait));
        }
        let mut leads = stream.uphill.clone();
        leads.extend(parent.others.iter().cloned());
        let (hops, delay_us) = (parent.path.len(), self.delay_us(stream).into());
        // Who can feed others brings all of them up with it: one hop is enough.
        let most = match self.places(id) {
            Some(_) => cost(hops - 1, delay_us),
            None => cost(hops, delay_us) * GAIN_PERCENT / 100,
        };
        self.start_search_at(now, id, Goal::Better(most), &leads);
    }

    /// A search for a better place is over.
    pub(super) fn not_improved(&mut self, now: Time, id: StreamId) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.search = None;
        let attempt = stream.improve_attempt.saturating_add(2);
        self.improve_after(now, id, attempt);
        // The two share a timer.
        self.seek_standby_soon(now, id);
        self.check_standby(now, id);
    }
}
