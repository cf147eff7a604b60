//! Pull-through: a supernode that is asked for a stream it lacks gets it first, once,
//! and serves it on.
//!
//! It does so only for nodes whose primary it is: each of them has one, so a stream is
//! fetched by as few supernodes as its viewers are spread over. A copy that nobody has
//! been fed from for a time ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::{ConnId, Time, Why};
use super::{Overlay, Timer};
use crate::ids::StreamId;
use crate::record::Role;
use crate::wire::control::Reason;

/// Streams that a supernode fetches at one time because others want them.
const PULLS_MAX: usize = 64;
/// Askers that wait for one stream.
const WAITING_MAX: usize = 256;
/// Who asked is answered within this, before it stops waiting (1 s).
const ANSWER_WITHIN: Duration = Duration::from_millis(850);
/// A copy from which nobody is fed is kept for this long.
const LINGER: Duration = Duration::from_secs(10);
/// How often it is looked whether somebody is.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Streams that are fetched for others.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    by_stream: BTreeMap<StreamId, Pull>,
}

#[derive(Debug)]
struct Pull {
    waiting: BTreeSet<ConnId>,
    asked: Time,
    used: Time,
}

impl Overlay {
    /// Fetches a stream for a peer that asks for it; false if that is not done.
    pub(super) fn pull(&mut self, now: Time, conn: ConnId, id: StreamId) -> bool {
        let serves = self.supernodes.role == Role::Supernode && self.is_primary_of(conn);
        let known = self.records.is_live(now, id);
        let room = !self.budget.never_forwards() && self.budget.has_room(self.charge_of(id));
        if !serves || !known || !room || self.leaving {
            return false;
        }
        let pulls = &mut self.pulls.by_stream;
        if !pulls.contains_key(&id) && pulls.len() >= PULLS_MAX {
            return false;
        }
        let pull = pulls.entry(id).or_insert_with(|| Pull {
            waiting: BTreeSet::new(),
            asked: now,
            used: now,
        });
        if pull.waiting.len() >= WAITING_MAX {
            return false;
        }
        if pull.waiting.is_empty() {
            (pull.asked, pull.used) = (now, now);
            self.timers.set(Timer::Pull(id), now.after(ANSWER_WITHIN));
        }
        pull.waiting.insert(conn);
        self.want(now, id, Why::Serve);
        true
    }

    /// A stream has a parent now: those who wait for it get their offers.
    pub(super) fn pulled(&mut self, now: Time, id: StreamId) {
        let Some(pull) = self.pulls.by_stream.get_mut(&id) else {
            return;
        };
        pull.used = now;
        for conn in std::mem::take(&mut pull.waiting) {
            self.ticket_requested(now, conn, id);
        }
    }

    /// Looks whether somebody waits too long for a stream, or nobody uses it.
    pub(super) fn check_pull(&mut self, now: Time, id: StreamId) {
        let fed = self.children_of(id) > 0;
        let Some(pull) = self.pulls.by_stream.get_mut(&id) else {
            return;
        };
        if fed {
            pull.used = now;
        }
        let over = now.since(pull.used) >= LINGER;
        let late = now.since(pull.asked) >= ANSWER_WITHIN;
        let waiting = if late || over {
            std::mem::take(&mut pull.waiting)
        } else {
            BTreeSet::new()
        };
        for conn in waiting {
            self.refuse(now, conn, id, Reason::NoStream);
        }
        if over || !self.streams.contains_key(&id) {
            self.pulls.by_stream.remove(&id);
            return self.unwant(id, Some(Why::Serve));
        }
        self.timers.set(Timer::Pull(id), now.after(LOOK_EVERY));
    }
}
