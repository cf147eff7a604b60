//! Supernodes: who is one, and why.
//!
//! ```text
//!          none known, or none with room, for 1 s; may serve
//!   node ───────────────────────────────────────────────────► supernode
//!        ◄───────────────────────────────────────────────────
//!          idle beside another for 5 s · no proof of reach for 10 s
//! ```
//!
//! What a node does at others is in `registration`, what supernodes tell each other in
//! `mesh`, and whether strangers can connect in `reach`.

use std::time::Duration;

use super::event::{Action, ConnId, Description, Target, Time};
use super::peers::Dial;
use super::reach::Standing;
use super::registration::Registration;
use super::{Overlay, Timer};
use crate::ids::NodeId;
use crate::record::{Address, Role, SignedNode, SignedStream};

/// How often a node looks at its place among supernodes while it is looking for one.
const REVIEW_EVERY: Duration = Duration::from_millis(250);
/// And how often once it has found it.
const REVIEW_SETTLED: Duration = Duration::from_secs(1);
/// A node that has known no supernode with room for this long becomes one.
const ALONE: Duration = Duration::from_secs(1);
/// Of two supernodes one retires after this, if nobody needs it.
const RIVALRY: Duration = Duration::from_secs(5);
/// A supernode of which nobody has shown within this that it can be reached retires.
const UNPROVEN: Duration = Duration::from_secs(10);
/// Supernodes that a node is connected to: primary, backup, and one more.
const KEPT: usize = 3;
/// Supernodes that a supernode dials, so that all of them are one net: with four links
/// each, a random graph of any size is connected in all likelihood.
const MESH_DIALLED: usize = 4;
/// A supernode that could not be dialled is tried again after this.
const FAILED_FOR: Duration = Duration::from_secs(30);
/// A supernode that was heard of, and not met, counts for this long: astral-web is asked
/// every 30 s, and supernodes sign anew every 10 s.
const CANDIDATE_FOR: Duration = Duration::from_secs(90);
/// Somebody who was met counts for this long.
const MET_FOR: Duration = Duration::from_secs(3_600);
/// Supernodes of one network prefix among those that a node keeps: an attacker has few.
const PER_PREFIX: usize = 2;
/// What astral-web told counts as told by one connection, which no shell numbers so.
const WEB: ConnId = ConnId(u64::MAX);

/// Whether a node becomes a supernode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// While there is none with room.
    Auto,
    /// Unless nobody can reach it.
    Always,
    /// In no case.
    Never,
}

/// Why a node is, or is not, a supernode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleReason {
    /// The first bootstrap round is not over.
    Starting,
    /// Its settings say so.
    Told,
    /// There was none with room.
    NoneWithRoom,
    /// Others do it.
    OthersServe,
    /// Nobody has shown that it can be reached.
    Unproven,
    /// Others have tried to reach it, and could not.
    Unreachable,
    /// It never forwards.
    NotForwarding,
}

impl RoleReason {
    /// A sentence for people.
    pub fn words(self, role: Role) -> &'static str {
        match (role, self) {
            (_, Self::Starting) => "the node has just started",
            (Role::Supernode, Self::Told) => "the settings make it one",
            (Role::Node, Self::Told) => "the settings forbid it",
            (Role::Supernode, _) => "no other supernode had room",
            (Role::Node, Self::NoneWithRoom | Self::OthersServe) => "other supernodes have room",
            (Role::Node, Self::Unproven) => "nobody has shown that strangers can reach this node",
            (Role::Node, Self::Unreachable) => "strangers cannot reach this node",
            (Role::Node, Self::NotForwarding) => "the upload limit is 0",
        }
    }
}

/// This node's place among supernodes.
#[derive(Debug)]
pub(super) struct Supernodes {
    /// `None` until the first bootstrap round is over.
    pub(super) mode: Option<Mode>,
    pub(super) role: Role,
    pub(super) reason: RoleReason,
    alone_since: Option<Time>,
    /// How long this node waits before it takes a lost supernode's place.
    alone_for: Duration,
    rival_since: Option<Time>,
    unproven_since: Option<Time>,
    /// Supernodes that could not be dialled, and until when they are passed over.
    failed: std::collections::BTreeMap<NodeId, Time>,
    pub(super) registration: Registration,
    /// When the record was last signed with new counts.
    pub(super) counted: Time,
}

impl Supernodes {
    pub(super) fn new(role: Role) -> Self {
        Self {
            mode: None,
            role,
            reason: RoleReason::Starting,
            alone_since: None,
            alone_for: ALONE,
            rival_since: None,
            unproven_since: None,
            failed: Default::default(),
            registration: Registration::default(),
            counted: Time::default(),
        }
    }
}

impl Overlay {
    /// What this node does for others.
    pub fn role(&self) -> Role {
        self.supernodes.role
    }

    /// Why it does, or does not, do more.
    pub fn role_reason(&self) -> RoleReason {
        self.supernodes.reason
    }

    /// Supernodes that this node is connected to.
    pub fn connected_supernodes(&self) -> usize {
        self.supernodes_by_rtt().len()
    }

    /// Whether a peer is a supernode that others can reach.
    pub(super) fn is_supernode(&self, conn: ConnId) -> bool {
        self.peers.get(&conn).is_some_and(|peer| {
            let known = self.records.node(peer.node);
            !peer.leaving && peer.reached && known.is_some_and(|known| serves(&known.record))
        })
    }

    pub(super) fn supernodes_by_rtt(&self) -> Vec<ConnId> {
        let mut found: Vec<_> = self
            .records
            .serving()
            .filter_map(|node| self.by_node.get(&node).copied())
            .filter(|conn| self.is_supernode(*conn))
            .filter_map(|conn| Some((self.peers.get(&conn)?.rtt, conn)))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, conn)| conn).collect()
    }

    /// Takes in what astral-web lists, and dials supernodes while few are connected.
    pub(super) fn heard(
        &mut self,
        now: Time,
        nodes: Vec<(SignedNode, Vec<Address>)>,
        streams: Vec<SignedStream>,
    ) {
        for (record, addresses) in nodes {
            let Some(first) = addresses.first() else {
                continue;
            };
            let node = record.value().id_for(*first);
            self.take_node(now, WEB, node, record, &addresses);
        }
        for record in streams {
            let stream = self.streams.get(&record.value().id());
            // This node knows best what it publishes itself.
            if stream.is_none_or(|stream| stream.own.is_none()) {
                self.learn(now, Some(WEB), record);
            }
        }
        self.seek_supernodes(now);
    }

    /// Dials supernodes that are known while few are connected; with none in sight,
    /// anybody who may lead to one.
    pub(super) fn seek_supernodes(&mut self, now: Time) {
        let wanted = match self.supernodes.role {
            Role::Supernode => MESH_DIALLED,
            Role::Node => KEPT,
        };
        let connected = self.supernodes_by_rtt();
        let dialling = self.dials.values().filter(|dial| dial.supernode).count();
        let mut missing = wanted.saturating_sub(connected.len() + dialling);
        if missing == 0 {
            return;
        }
        let mut prefixes: Vec<_> = connected
            .iter()
            .filter_map(|conn| prefix(self.peers.get(conn)?.remote))
            .collect();
        let alone = connected.is_empty();
        for (node, addresses, serves) in self.candidates_to_meet(now, alone) {
            if missing == 0 {
                return;
            }
            let at = addresses.first().copied().and_then(prefix);
            let crowded = at.is_some_and(|at| {
                prefixes.iter().filter(|known| **known == at).count() >= PER_PREFIX
            });
            if crowded || !self.meet(node, &addresses, serves) {
                continue;
            }
            prefixes.extend(at);
            missing -= 1;
        }
    }

    /// Nodes that are known and not connected, in random order, supernodes first.
    fn candidates_to_meet(
        &mut self,
        now: Time,
        anybody: bool,
    ) -> Vec<(NodeId, Vec<Address>, bool)> {
        self.supernodes.failed.retain(|_, until| *until > now);
        let place = &self.supernodes;
        let mut found: Vec<_> = self
            .records
            .nodes()
            .filter(|(node, known)| {
                let counts = known.may_live(now, MET_FOR, CANDIDATE_FOR);
                let free = *node != self.id
                    && !self.by_node.contains_key(node)
                    && !place.failed.contains_key(node)
                    && !self.is_banned(now, *node)
                    && !self.is_dialling(*node);
                let removed = known.record.value().removed == Some(true);
                counts && free && !removed && (anybody || serves(&known.record))
            })
            .map(|(node, known)| (node, known.addresses.clone(), serves(&known.record)))
            .collect();
        for at in (1..found.len()).rev() {
            let other = (self.random.next() % (at as u64 + 1)) as usize;
            found.swap(at, other);
        }
        found.sort_by_key(|(_, _, serves)| !serves);
        found
    }

    /// Dials a node that may be a supernode; false if that is not possible now.
    pub(super) fn meet(&mut self, node: NodeId, addresses: &[Address], supernode: bool) -> bool {
        let known = self.by_node.contains_key(&node) || self.is_dialling(node);
        if known || node == self.id || self.leaving || addresses.is_empty() {
            return false;
        }
        let target = Target {
            node: Some(node),
            addresses: addresses.iter().map(|a| a.0.to_string()).collect(),
        };
        let dial = Dial {
            node: Some(node),
            bootstrap: None,
            supernode,
        };
        // No room to dial: whoever told of it will do so again.
        self.dial(dial, target)
    }

    /// A node that was dialled cannot be reached: what was heard of it may be a lie.
    pub(super) fn meeting_failed(&mut self, now: Time, node: NodeId) {
        let until = now.after(FAILED_FOR);
        if self.supernodes.failed.len() < crate::limits::NODE_RECORDS_MAX {
            self.supernodes.failed.insert(node, until);
        }
    }

    /// The first bootstrap round is over, or the owner has changed their mind.
    pub(super) fn take_mode(&mut self, now: Time, mode: Mode) {
        self.supernodes.mode = Some(mode);
        self.review(now);
    }

    pub(super) fn review(&mut self, now: Time) {
        let Some(mode) = self.supernodes.mode.filter(|_| !self.leaving) else {
            return;
        };
        self.tidy_registrations(now);
        self.seek_proof(now);
        match (self.supernodes.role, mode) {
            (Role::Node, Mode::Always) if self.standing(now) != Standing::Unreachable => {
                self.become_role(now, Role::Supernode, RoleReason::Told);
            }
            (Role::Supernode, Mode::Never) => self.become_role(now, Role::Node, RoleReason::Told),
            (Role::Supernode, Mode::Always | Mode::Auto) => self.serve_on(now, mode),
            (Role::Node, Mode::Auto | Mode::Never | Mode::Always) => self.seek_place(now, mode),
        }
        self.seek_supernodes(now);
        self.keep_mesh();
        let next = self.next_review(now);
        self.timers.set(Timer::Supernodes, next);
    }

    fn next_review(&self, now: Time) -> Time {
        let settled = now.after(REVIEW_SETTLED);
        if self.supernodes.role == Role::Supernode {
            return settled;
        }
        if !self.is_registered_twice() {
            return now.after(REVIEW_EVERY);
        }
        let soonest = Time(now.0 + 1);
        let silent = self.primary_silent_at();
        settled.min(silent.map_or(soonest, |at| at.max(soonest)))
    }

    pub(super) fn become_role(&mut self, now: Time, role: Role, reason: RoleReason) {
        let mode = self.supernodes.mode;
        let capacity = self.supernodes.registration.capacity;
        self.end_registrations();
        // Those who were registered see the new record and go.
        self.supernodes = Supernodes::new(role);
        self.supernodes.registration.capacity = capacity;
        (self.supernodes.mode, self.supernodes.reason) = (mode, reason);
        self.describe(now);
    }

    /// Has the record say what this node is now.
    pub(super) fn describe(&mut self, now: Time) {
        self.supernodes.counted = now;
        let role = self.supernodes.role;
        let load = (role == Role::Supernode).then(|| self.load(now));
        let reached = self.reached_at(now);
        self.act(Action::Sign(Description {
            role,
            reached,
            load,
        }));
    }

    /// A node looks for a supernode, and becomes one if there is none with room.
    fn seek_place(&mut self, now: Time, mode: Mode) {
        let standing = self.standing(now);
        self.supernodes.reason = match standing {
            _ if mode == Mode::Never => RoleReason::Told,
            Standing::Unreachable => RoleReason::Unreachable,
            _ if self.budget.never_forwards() => RoleReason::NotForwarding,
            Standing::Unproven if !self.peers.is_empty() => RoleReason::Unproven,
            Standing::Reachable | Standing::Unproven | Standing::Local => RoleReason::OthersServe,
        };
        let found = self.seek_registration(now);
        if found || mode == Mode::Never {
            self.supernodes.alone_since = None;
            return;
        }
        if self.supernodes.alone_since.is_none() {
            self.supernodes.alone_since = Some(now);
            // Many may have lost the same one: not all of them take its place at once.
            let had_one = self.supernodes.registration.had_one;
            let jitter = self.random.jitter(2 * ALONE);
            self.supernodes.alone_for = if had_one { jitter.max(ALONE) } else { ALONE };
        }
        let since = self.supernodes.alone_since.unwrap_or(now);
        let may = matches!(standing, Standing::Reachable | Standing::Local)
            && !self.budget.never_forwards();
        if may && now.since(since) >= self.supernodes.alone_for {
            self.become_role(now, Role::Supernode, RoleReason::NoneWithRoom);
        }
    }

    /// Whether this supernode is to go on being one.
    fn serve_on(&mut self, now: Time, mode: Mode) {
        if mode == Mode::Always {
            self.supernodes.reason = RoleReason::Told;
        }
        match self.standing(now) {
            Standing::Unreachable => {
                return self.become_role(now, Role::Node, RoleReason::Unreachable);
            }
            Standing::Unproven if mode == Mode::Auto => {
                let since = *self.supernodes.unproven_since.get_or_insert(now);
                if now.since(since) >= UNPROVEN {
                    return self.become_role(now, Role::Node, RoleReason::Unproven);
                }
            }
            Standing::Unproven | Standing::Reachable | Standing::Local => {
                self.supernodes.unproven_since = None;
            }
        }
        if mode == Mode::Auto {
            self.consider_retiring(now);
        }
        self.count_anew(now);
    }

    /// A supernode that nobody needs retires, beside another that has room: of two
    /// such the one with the larger id.
    fn consider_retiring(&mut self, now: Time) {
        let replaces = |conn: &ConnId| {
            let Some(peer) = self.peers.get(conn) else {
                return false;
            };
            let known = self.records.node(peer.node);
            let load = known.and_then(|known| known.record.value().load.as_ref());
            let busy = load.is_some_and(|load| load.registered > 0);
            let room = load.is_none_or(|load| load.room > 0);
            room && (busy || peer.node < self.id)
        };
        let rival = self.supernodes_by_rtt().iter().any(replaces);
        let idle = self.registered_nodes() == 0 && self.children() == 0;
        if !rival || !idle {
            self.supernodes.rival_since = None;
            return;
        }
        let since = *self.supernodes.rival_since.get_or_insert(now);
        if now.since(since) >= RIVALRY {
            self.become_role(now, Role::Node, RoleReason::OthersServe);
        }
    }
}

/// Whether a record is that of a supernode.
pub(super) fn serves(record: &SignedNode) -> bool {
    let value = record.value();
    value.role == Role::Supernode && value.removed != Some(true)
}

/// The part of an address that one owner has many of: /24 of IPv4, /48 of IPv6; nothing
/// on loopback, where all are one owner's.
pub(super) fn prefix(address: Address) -> Option<u128> {
    match address.0.ip().to_canonical() {
        ip if ip.is_loopback() => None,
        std::net::IpAddr::V4(ip) => Some(u128::from(u32::from(ip) >> 8)),
        std::net::IpAddr::V6(ip) => Some(u128::from(ip) >> 80 << 80),
    }
}
