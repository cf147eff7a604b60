//! Frames that did not come though later ones did: they are pulled, by `Fetch`, from
//! whoever has promised the stream (DESIGN §6, *Failover*).
//!
//! Decides whom to ask, how often, and whether to answer. Which frames are missing is the
//! store's to say, and which of those that are asked for are on their way already is
//! known only to who sends: it leaves them out.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Overlay;
use super::event::{Action, ConnId, Hole, Time};
use super::search::Stream;
use crate::ids::{StreamId, TicketId};
use crate::limits::FETCH_FRAMES_MAX;
use crate::wire::control::Fetch;

/// Holes asked for at a time, of one stream.
const PULLS_MAX: usize = 8;
/// Frames that did not come by then are asked for again, of another if there is one, and
/// then after twice as long each time: a provider that is repairing itself has them later.
const PULL_AGAIN: Duration = Duration::from_millis(200);
/// Doublings of that time.
const DOUBLINGS_MAX: u32 = 4;
/// Times that a hole is asked for before it is taken for one of the publisher's: with the
/// doublings, longer than any store keeps a group.
const ASKED_MAX: u32 = 8;
/// Frames that one child may ask for in a second. Whoever does not know where a group
/// ends asks for the most that there can be.
const PULLED_PER_SECOND: u32 = 4_096;

/// Frames that a request counts for at least: it costs a uni stream.
const FETCH_COSTS: u32 = 64;

/// What others have been asked for.
#[derive(Debug, Default)]
pub(super) struct Pulls {
    /// By hole, in the order in which they are asked for: its oldest group first.
    asked: BTreeMap<(u64, u8), Pull>,
}

#[derive(Clone, Copy, Debug)]
struct Pull {
    first: u32,
    at: Time,
    times: u32,
}

impl Pulls {
    /// Whether a hole is due to be asked for, and for which time; notes that it is.
    fn ask(&mut self, now: Time, hole: Hole) -> Option<u32> {
        let name = (hole.group, hole.track);
        let fresh = Pull {
            first: hole.first,
            at: now,
            times: 0,
        };
        let before = self.asked.get(&name).copied();
        // What is there of it by now shows that asking helps.
        let before = before.filter(|pull| pull.first == hole.first);
        let Some(pull) = before else {
            self.asked.insert(name, fresh);
            return Some(0);
        };
        let wait = PULL_AGAIN * (1 << pull.times.min(DOUBLINGS_MAX));
        if pull.times >= ASKED_MAX || now.since(pull.at) < wait {
            return None;
        }
        let again = Pull {
            at: now,
            times: pull.times + 1,
            ..pull
        };
        self.asked.insert(name, again);
        Some(again.times)
    }

    fn keep(&mut self, holes: &[Hole]) {
        let open = |name: &(u64, u8)| holes.iter().any(|hole| (hole.group, hole.track) == *name);
        self.asked.retain(|name, _| open(name));
    }
}

impl Stream {
    /// Who has promised the stream: the parent first.
    fn providers(&self) -> Vec<(ConnId, TicketId)> {
        let parent = self.parent.as_ref().map(|p| (p.conn, p.ticket));
        let standby = self.standby.as_ref().map(|s| (s.conn, s.ticket));
        parent.into_iter().chain(standby).collect()
    }
}

impl Overlay {
    /// The store lacks these frames: asks for those that were not asked for of late.
    pub(super) fn missing(&mut self, now: Time, id: StreamId, holes: &[Hole]) {
        let Some(stream) = self.streams.get_mut(&id) else {
            return;
        };
        stream.pulls.keep(holes);
        let providers = stream.providers();
        if providers.is_empty() || stream.own.is_some() {
            return;
        }
        let mut fetches = Vec::new();
        let mut named = None;
        for hole in holes {
            // One run of a track's group at a time: what comes shows what else is missing.
            if named.replace((hole.group, hole.track)) == Some((hole.group, hole.track)) {
                continue;
            }
            let Some(times) = stream.pulls.ask(now, *hole) else {
                continue;
            };
            let (conn, ticket) = providers[times as usize % providers.len()];
            let fetch = Fetch {
                id: ticket,
                track: hole.track,
                group: hole.group,
                first: hole.first,
                count: hole.count.clamp(1, FETCH_FRAMES_MAX),
            };
            fetches.push((conn, fetch));
            if fetches.len() >= PULLS_MAX {
                break;
            }
        }
        for (conn, fetch) in fetches {
            self.send(conn, fetch);
        }
    }

    /// A child asks for frames that it missed.
    pub(super) fn fetch_asked(&mut self, now: Time, conn: ConnId, fetch: Fetch) {
        let Some(feed) = self.feeds.get_mut(&fetch.id).filter(|f| f.conn == conn) else {
            return;
        };
        if now.since(feed.pulled.0) >= Duration::from_secs(1) {
            feed.pulled = (now, 0);
        }
        feed.pulled.1 = feed.pulled.1.saturating_add(fetch.count.max(FETCH_COSTS));
        let (stream, charge_bps) = (feed.stream, feed.charge_bps);
        let (active, pulled) = (feed.is_active(), feed.pulled.1);
        // Who is only ready to feed it gives what nobody else needs.
        let has_room = active || self.budget.has_room(charge_bps);
        if pulled > PULLED_PER_SECOND || !has_room {
            return;
        }
        self.act(Action::Serve {
            conn,
            stream,
            fetch,
        });
    }
}
