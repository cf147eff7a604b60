//! Registration: a primary supernode and a backup, and those who are registered here.
//!
//! ```text
//!            Register{primary}        Registered
//!   none ──────────────────► asked ───────────────► primary ──► the same for a backup
//!    ▲                        │ Refused: the next, referrals are dialled
//!    │ nobody left            ▼
//!    └───────────── primary silent for 1.5 s: the backup is the primary at once
//! ```
//!
//! The nearest supernodes share the load: of those about as near as the best one is
//! drawn, so that a crowd that arrives at one moment spreads.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Overlay;
use super::event::{Change, ConnId, Time};
use super::supernodes::prefix;
use crate::ids::NodeId;
use crate::limits::REFERRALS_MAX;
use crate::record::Role;
use crate::wire::control::{Reason, Referral, Refused, Register, Registered};

/// Heartbeats between a node and its primary: the loss is noticed within
/// [`PRIMARY_SILENT`], at 2 × 256 datagrams of 60 bytes in 400 ms for a full supernode.
pub(super) const PRIMARY_BEAT: Duration = Duration::from_millis(400);
/// Heartbeats between a node and its backup, and between supernodes.
pub(super) const BACKUP_BEAT: Duration = Duration::from_secs(1);
/// A primary that is silent for this long is left: three heartbeats and jitter.
const PRIMARY_SILENT: Duration = Duration::from_millis(1_500);
/// Any other supernode that is silent for this long is passed over.
const SILENT: Duration = Duration::from_millis(4_500);
/// A supernode that does not answer a registration is passed over after this.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A supernode that refused is asked again after this.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Nodes that register with one supernode.
const CAPACITY: usize = 256;
/// Upload that each registered node costs, in bit/s: heartbeats and records.
const COST_BPS: u64 = 10_000;
/// Registrations that are taken in within a second; beyond, a refusal is the faster way.
const JOINS_PER_SECOND: u32 = 500;
/// Registrations of one peer within a second.
const ASKED_PER_SECOND: u32 = 4;
/// Part of the capacity that one network prefix may take: a quarter.
const PREFIX_PART: usize = 4;
/// A newcomer looks around for this long before it registers: the first supernode that
/// it meets tells it of others, and is not to have everybody.
const GATHER: Duration = Duration::from_millis(200);
/// And for this long while others are being dialled.
const GATHER_MAX: Duration = Duration::from_millis(600);
/// A supernode as near as the best within this counts as equally near.
const NEAR: Duration = Duration::from_millis(10);

/// Both sides of this node's registrations.
#[derive(Debug)]
pub(super) struct Registration {
    asked: Option<Asked>,
    pub(super) primary: Option<ConnId>,
    pub(super) backup: Option<ConnId>,
    /// Whether it ever had one: others may have lost it, too.
    pub(super) had_one: bool,
    /// When the first supernode was met.
    met: Option<Time>,
    refused: BTreeMap<ConnId, Time>,
    /// Who is registered here, and whether as their primary.
    registered: BTreeMap<ConnId, bool>,
    joins: (Time, u32),
    pub(super) capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    conn: ConnId,
    at: Time,
    primary: bool,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            asked: None,
            primary: None,
            backup: None,
            had_one: false,
            met: None,
            refused: BTreeMap::new(),
            registered: BTreeMap::new(),
            joins: Default::default(),
            capacity: CAPACITY,
        }
    }
}

impl Overlay {
    /// The supernode that this node is registered with.
    pub fn primary_supernode(&self) -> Option<NodeId> {
        let primary = self.supernodes.registration.primary?;
        self.peers.get(&primary).map(|peer| peer.node)
    }

    /// The supernode that takes its place, should it fail.
    pub fn backup_supernode(&self) -> Option<NodeId> {
        let backup = self.supernodes.registration.backup?;
        self.peers.get(&backup).map(|peer| peer.node)
    }

    /// Nodes that are registered here.
    pub fn registered_nodes(&self) -> usize {
        self.supernodes.registration.registered.len()
    }

    /// Nodes that can be registered here at one time: what memory and upload allow.
    pub(super) fn capacity(&self) -> usize {
        let afforded = self.budget.limit_bps.map_or(u64::MAX, |bps| bps / COST_BPS);
        let most = self.supernodes.registration.capacity as u64;
        most.min(afforded) as usize
    }

    pub(super) fn room(&self) -> u32 {
        self.capacity().saturating_sub(self.registered_nodes()) as u32
    }

    /// Whether this peer is registered here as with its primary.
    pub(super) fn is_primary_of(&self, conn: ConnId) -> bool {
        let registration = &self.supernodes.registration;
        registration.registered.get(&conn) == Some(&true)
    }

    pub(super) fn is_registered_here(&self, conn: ConnId) -> bool {
        let registration = &self.supernodes.registration;
        registration.registered.contains_key(&conn)
    }

    /// How often the two ends of a connection that share no ticket hear of each other.
    pub(super) fn idle_beat(&self, conn: ConnId) -> Option<Duration> {
        let registration = &self.supernodes.registration;
        if registration.primary == Some(conn) || self.is_primary_of(conn) {
            return Some(PRIMARY_BEAT);
        }
        let backup = registration.backup == Some(conn) || self.is_registered_here(conn);
        let mesh = self.supernodes.role == Role::Supernode && self.is_supernode(conn);
        (backup || mesh).then_some(BACKUP_BEAT)
    }

    /// When the primary counts as lost unless it is heard of.
    pub(super) fn primary_silent_at(&self) -> Option<Time> {
        let primary = self.supernodes.registration.primary?;
        let peer = self.peers.get(&primary)?;
        Some(peer.heard.after(PRIMARY_SILENT))
    }

    pub(super) fn is_registered_twice(&self) -> bool {
        let registration = &self.supernodes.registration;
        registration.primary.is_some() && registration.backup.is_some()
    }

    fn is_silent(&self, now: Time, conn: ConnId) -> bool {
        self.peers
            .get(&conn)
            .is_none_or(|peer| now.since(peer.heard) >= SILENT)
    }

    /// Lets go of everybody who is not connected any more, or is not what they were.
    pub(super) fn tidy_registrations(&mut self, now: Time) {
        let mut place = std::mem::take(&mut self.supernodes.registration);
        place
            .refused
            .retain(|conn, until| *until > now && self.peers.contains_key(conn));
        // Who has become a supernode needs none.
        place
            .registered
            .retain(|conn, _| self.peers.contains_key(conn) && !self.is_supernode(*conn));
        if let Some(asked) = place.asked {
            let late = now.since(asked.at) >= ANSWER_WITHIN;
            if late || !self.is_supernode(asked.conn) {
                place.asked = None;
                place.refused.insert(asked.conn, now.after(REFUSED_FOR));
            }
        }
        let backup = place.backup;
        place.backup =
            backup.filter(|conn| self.is_supernode(*conn) && !self.is_silent(now, *conn));
        let lost = place.primary.filter(|conn| {
            let heard = self.peers.get(conn).map(|peer| now.since(peer.heard));
            !self.is_supernode(*conn) || heard.is_none_or(|since| since >= PRIMARY_SILENT)
        });
        self.supernodes.registration = place;
        if let Some(lost) = lost {
            self.primary_lost(now, lost);
        }
    }

    fn primary_lost(&mut self, now: Time, lost: ConnId) {
        let place = &mut self.supernodes.registration;
        place.refused.insert(lost, now.after(REFUSED_FOR));
        place.primary = place.backup.take();
        if let Some(conn) = place.primary {
            self.register(conn, true);
        }
        self.changed(Change::Registered(self.primary_supernode()));
    }

    /// A peer is gone, or is about to go.
    pub(super) fn registrar_gone(&mut self, now: Time, conn: ConnId) {
        let place = &mut self.supernodes.registration;
        place.registered.remove(&conn);
        let asked = place.asked.is_some_and(|asked| asked.conn == conn);
        if asked || place.primary == Some(conn) || place.backup == Some(conn) {
            self.review(now);
        }
    }

    /// The registrations of this node are over: it needs none any more.
    pub(super) fn end_registrations(&mut self) {
        let place = &self.supernodes.registration;
        for conn in place.primary.into_iter().chain(place.backup) {
            self.send(
                conn,
                Register {
                    primary: false,
                    over: Some(true),
                },
            );
        }
    }

    fn register(&mut self, conn: ConnId, primary: bool) {
        self.send(
            conn,
            Register {
                primary,
                over: None,
            },
        );
    }

    /// Goes on with the search for a primary, then for a backup; false if there is none,
    /// or none with room.
    pub(super) fn seek_registration(&mut self, now: Time) -> bool {
        let place = &self.supernodes.registration;
        let found = place.primary.is_some() || place.asked.is_some();
        if place.asked.is_some() || self.is_registered_twice() {
            return true;
        }
        let for_primary = place.primary.is_none();
        if self.gathers(now) {
            return true;
        }
        let Some(conn) = self.draw_supernode(now, for_primary) else {
            return found;
        };
        self.supernodes.registration.asked = Some(Asked {
            conn,
            at: now,
            primary: for_primary,
        });
        self.register(conn, for_primary);
        true
    }

    /// Whether a newcomer had better wait for other supernodes to choose from.
    fn gathers(&mut self, now: Time) -> bool {
        let (count, dialling) = (
            self.connected_supernodes(),
            self.dials.values().any(|dial| dial.supernode),
        );
        let place = &mut self.supernodes.registration;
        if count == 0 || place.had_one {
            return false;
        }
        let since = now.since(*place.met.get_or_insert(now));
        since < GATHER || (dialling && since < GATHER_MAX)
    }

    /// One of the nearest supernodes that may have room; for a backup one of another
    /// network if possible.
    fn draw_supernode(&mut self, now: Time, for_primary: bool) -> Option<ConnId> {
        let place = &self.supernodes.registration;
        let mut open: Vec<ConnId> = self
            .supernodes_by_rtt()
            .into_iter()
            .filter(|conn| {
                let free = place.primary != Some(*conn) && place.backup != Some(*conn);
                free && !place.refused.contains_key(conn)
                    && !self.is_silent(now, *conn)
                    && self.may_have_room(*conn)
            })
            .collect();
        if !for_primary {
            let at = |conn: ConnId| self.peers.get(&conn).and_then(|peer| prefix(peer.remote));
            let primary = place.primary.and_then(at);
            let apart = |conn: &ConnId| primary.is_none() || at(*conn) != primary;
            if open.iter().any(apart) {
                open.retain(apart);
            }
        }
        let rtt = |conn: &ConnId| self.peers.get(conn).map_or(Duration::MAX, |peer| peer.rtt);
        let best = open.first().map(rtt)?;
        let near = best.saturating_add(NEAR.max(best / 2));
        open.retain(|conn| rtt(conn) <= near);
        let drawn = self.random.next() % open.len().max(1) as u64;
        open.get(drawn as usize).copied()
    }

    fn may_have_room(&self, conn: ConnId) -> bool {
        let node = self.peers.get(&conn).map(|peer| peer.node);
        let known = node.and_then(|node| self.records.node(node));
        let load = known.and_then(|known| known.record.value().load.as_ref());
        load.is_none_or(|load| load.room > 0)
    }

    // The supernode's side

    /// Somebody asks to be registered here, or is not any more.
    pub(super) fn register_asked(&mut self, now: Time, conn: ConnId, register: &Register) {
        if register.over == Some(true) {
            self.supernodes.registration.registered.remove(&conn);
            return;
        }
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        if !peer.registers.allows(now, ASKED_PER_SECOND) {
            return;
        }
        match self.may_register(now, conn) {
            Ok(()) => {
                let place = &mut self.supernodes.registration;
                place.registered.insert(conn, register.primary);
                let room = self.room();
                self.send(conn, Registered { room });
                self.beat_now(now, conn);
            }
            Err(reason) => {
                let referrals = self.other_supernodes(conn);
                self.send(conn, Refused { reason, referrals });
            }
        }
    }

    fn may_register(&mut self, now: Time, conn: ConnId) -> Result<(), Reason> {
        if self.leaving {
            return Err(Reason::Leaving);
        }
        if self.supernodes.role != Role::Supernode {
            return Err(Reason::NotForwarding);
        }
        if self.is_registered_here(conn) {
            return Ok(());
        }
        let place = &mut self.supernodes.registration;
        if now.since(place.joins.0) >= Duration::from_secs(1) {
            place.joins = (now, 0);
        }
        place.joins.1 += 1;
        if place.joins.1 > JOINS_PER_SECOND {
            return Err(Reason::Limit);
        }
        let capacity = self.capacity();
        let at = |conn: ConnId| self.peers.get(&conn).and_then(|peer| prefix(peer.remote));
        let here = at(conn);
        let registered = self.supernodes.registration.registered.keys();
        let neighbours = registered.filter(|other| here.is_some() && at(**other) == here);
        if self.registered_nodes() >= capacity {
            return Err(Reason::Full);
        }
        if neighbours.count() >= capacity.div_ceil(PREFIX_PART) {
            return Err(Reason::Limit);
        }
        Ok(())
    }

    /// Other supernodes that somebody could turn to.
    pub(super) fn other_supernodes(&self, conn: ConnId) -> Vec<Referral> {
        let Some(to) = self.peers.get(&conn).map(|peer| peer.remote) else {
            return Vec::new();
        };
        let mut others: Vec<ConnId> = self
            .supernodes_by_rtt()
            .into_iter()
            .filter(|other| *other != conn)
            .collect();
        others.sort_by_key(|other| !self.may_have_room(*other));
        others
            .into_iter()
            .filter_map(|other| self.referral(self.peers.get(&other)?.node, to))
            .take(REFERRALS_MAX)
            .collect()
    }

    // Answers

    /// The supernode that was asked has taken this node in.
    pub(super) fn registered(&mut self, now: Time, conn: ConnId) {
        let place = &mut self.supernodes.registration;
        let Some(asked) = place.asked.take_if(|asked| asked.conn == conn) else {
            return;
        };
        place.had_one = true;
        if asked.primary {
            place.primary = Some(conn);
        } else {
            place.backup = Some(conn);
        }
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.heard = peer.heard.max(now);
        }
        self.beat_now(now, conn);
        self.changed(Change::Registered(self.primary_supernode()));
        self.review(now);
    }

    /// A supernode has not taken this node in, or no longer does.
    pub(super) fn register_refused(&mut self, now: Time, conn: ConnId, refused: &Refused) {
        let place = &mut self.supernodes.registration;
        let asked = place.asked.take_if(|asked| asked.conn == conn).is_some();
        let held = place.primary == Some(conn) || place.backup == Some(conn);
        if !asked && !held {
            return;
        }
        place.backup = place.backup.filter(|backup| *backup != conn);
        place.refused.insert(conn, now.after(REFUSED_FOR));
        if place.primary == Some(conn) {
            self.primary_lost(now, conn);
        }
        for referral in refused.referrals.iter().take(REFERRALS_MAX) {
            self.meet(referral.node, &referral.addresses, true);
        }
        self.review(now);
    }
}
