//! Supernodes: who is one, and with which one this node is registered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::event::{Action, ConnId, Description, Target, Time};
use super::peers::Dial;
use super::{Overlay, Timer};
use crate::ids::NodeId;
use crate::limits::REFERRALS_MAX;
use crate::record::{Address, Role, SignedNode, SignedStream};
use crate::wire::control::{Peers, Reason, RecordBytes, Referral, Refused, Register, Registered};

/// How often a node looks at its place among supernodes.
const REVIEW_EVERY: Duration = Duration::from_millis(250);
/// A node that has known no supernode for this long becomes one.
const ALONE: Duration = Duration::from_secs(1);
/// Of two supernodes one retires after this, if nobody needs it.
const RIVALRY: Duration = Duration::from_secs(5);
/// A supernode that does not answer a registration is passed over after this.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// A supernode that refused is asked again after this.
const REFUSED_FOR: Duration = Duration::from_secs(10);
/// Nodes that register with one supernode: at one idle heartbeat each in 2 s,
/// 128 datagrams a second.
const CAPACITY: usize = 256;
/// Supernodes to be connected to: the primary, and others should it fail.
const KEPT: usize = 4;
/// What astral-web told counts as told by one connection, which no shell numbers so.
const WEB: ConnId = ConnId(u64::MAX);

/// Whether a node becomes a supernode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// While there is none.
    Auto,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// This node's place among supernodes.
#[derive(Debug)]
pub(super) struct Supernodes {
    /// `None` until the first bootstrap round is over.
    mode: Option<Mode>,
    role: Role,
    alone_since: Option<Time>,
    rival_since: Option<Time>,
    asked: Option<(ConnId, Time)>,
    primary: Option<ConnId>,
    refused: BTreeMap<ConnId, Time>,
    registered: BTreeSet<ConnId>,
    pub(super) capacity: usize,
}

impl Supernodes {
    pub(super) fn new(role: Role) -> Self {
        Self {
            mode: None,
            role,
            alone_since: None,
            rival_since: None,
            asked: None,
            primary: None,
            refused: BTreeMap::new(),
            registered: BTreeSet::new(),
            capacity: CAPACITY,
        }
    }
}

impl Overlay {
    /// What this node does for others.
    pub fn role(&self) -> Role {
        self.supernodes.role
    }

    /// The supernode that this node is registered with.
    pub fn primary_supernode(&self) -> Option<NodeId> {
        let primary = self.peers.get(&self.supernodes.primary?)?;
        Some(primary.node)
    }

    /// Supernodes that this node is connected to.
    pub fn connected_supernodes(&self) -> usize {
        self.supernodes_by_rtt().len()
    }

    /// Nodes that are registered here.
    pub fn registered_nodes(&self) -> usize {
        self.supernodes.registered.len()
    }

    pub(super) fn is_supernode(&self, conn: ConnId) -> bool {
        self.peers.get(&conn).is_some_and(|peer| {
            let known = self.records.node(peer.node);
            !peer.leaving && known.is_some_and(|known| serves(&known.record))
        })
    }

    fn supernodes_by_rtt(&self) -> Vec<ConnId> {
        let mut found: Vec<_> = self
            .peers
            .iter()
            .filter(|(conn, _)| self.is_supernode(**conn))
            .map(|(conn, peer)| (peer.rtt, *conn))
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
            let key = record.value().key;
            let other = |known: &super::KnownNode| known.record.value().key != key;
            if node == self.id || self.records.node(node).is_some_and(other) {
                continue;
            }
            let serves = serves(&record);
            self.records.insert_node(now, node, record, &addresses);
            if serves {
                self.dial_supernode(node, &addresses);
            }
        }
        for record in streams {
            let stream = self.streams.get(&record.value().id());
            // This node knows best what it publishes itself.
            if stream.is_none_or(|stream| stream.own.is_none()) {
                self.learn(now, Some(WEB), record);
            }
        }
    }

    fn dial_supernode(&mut self, node: NodeId, addresses: &[Address]) {
        let known = self.by_node.contains_key(&node) || self.is_dialling(node);
        if known || node == self.id || self.leaving || self.connected_supernodes() >= KEPT {
            return;
        }
        let target = Target {
            node: Some(node),
            addresses: addresses.iter().map(|a| a.0.to_string()).collect(),
        };
        let dial = Dial {
            node: Some(node),
            bootstrap: None,
        };
        // No room to dial: whoever told of it will do so again.
        self.dial(dial, target);
    }

    /// The first bootstrap round is over, or the owner has changed their mind.
    pub(super) fn take_mode(&mut self, now: Time, mode: Mode) {
        self.supernodes.mode = Some(mode);
        self.review(now);
    }

    /// This node's record was signed anew: everybody connected gets it.
    pub(super) fn identity(&mut self, record: SignedNode) {
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            let records = vec![RecordBytes(record.wire().clone())];
            self.send(conn, Peers { records });
        }
        self.record = record;
    }

    pub(super) fn review(&mut self, now: Time) {
        let Some(mode) = self.supernodes.mode.filter(|_| !self.leaving) else {
            return;
        };
        self.timers.set(Timer::Supernodes, now.after(REVIEW_EVERY));
        self.tidy(now);
        match (self.supernodes.role, mode) {
            (Role::Node, Mode::Always) => self.become_role(Role::Supernode),
            (Role::Supernode, Mode::Never) => self.become_role(Role::Node),
            (Role::Supernode, Mode::Always) => {}
            (Role::Supernode, Mode::Auto) => self.consider_retiring(now),
            (Role::Node, Mode::Auto | Mode::Never) => self.seek_primary(now, mode),
        }
    }

    /// Lets go of everybody who is not connected any more, or is not what they were.
    fn tidy(&mut self, now: Time) {
        let mut place = std::mem::replace(&mut self.supernodes, Supernodes::new(Role::Node));
        place
            .refused
            .retain(|conn, until| *until > now && self.peers.contains_key(conn));
        // Who has become a supernode needs none.
        place
            .registered
            .retain(|conn| self.peers.contains_key(conn) && !self.is_supernode(*conn));
        place.primary = place.primary.filter(|conn| self.is_supernode(*conn));
        if let Some((conn, since)) = place.asked {
            let gone = !self.is_supernode(conn);
            if gone || now.since(since) >= ANSWER_WITHIN {
                place.asked = None;
                place.refused.insert(conn, now.after(REFUSED_FOR));
            }
        }
        self.supernodes = place;
    }

    fn become_role(&mut self, role: Role) {
        let mode = self.supernodes.mode;
        // Those who were registered see the new record and go.
        self.supernodes = Supernodes::new(role);
        self.supernodes.mode = mode;
        self.act(Action::Sign(Description {
            role,
            reached: Vec::new(),
            load: None,
        }));
    }

    fn seek_primary(&mut self, now: Time, mode: Mode) {
        let found = self.supernodes_by_rtt();
        if !found.is_empty() || mode == Mode::Never {
            self.supernodes.alone_since = None;
        } else {
            let since = *self.supernodes.alone_since.get_or_insert(now);
            if now.since(since) >= ALONE {
                self.become_role(Role::Supernode);
            }
            return;
        }
        if self.supernodes.primary.is_some() || self.supernodes.asked.is_some() {
            return;
        }
        let refused = &self.supernodes.refused;
        let next = found.into_iter().find(|conn| !refused.contains_key(conn));
        if let Some(conn) = next {
            self.supernodes.asked = Some((conn, now));
            self.send(conn, Register { primary: true });
        }
    }

    /// Of two supernodes the one with the larger id retires, if nobody needs it.
    fn consider_retiring(&mut self, now: Time) {
        let smaller = |conn: &ConnId| self.peers.get(conn).is_some_and(|p| p.node < self.id);
        let rival = self.supernodes_by_rtt().iter().any(smaller);
        let idle = self.supernodes.registered.is_empty() && self.children() == 0;
        if !rival || !idle {
            self.supernodes.rival_since = None;
            return;
        }
        let since = *self.supernodes.rival_since.get_or_insert(now);
        if now.since(since) >= RIVALRY {
            self.become_role(Role::Node);
        }
    }

    /// Somebody asks to be registered here.
    pub(super) fn register_asked(&mut self, conn: ConnId) {
        let place = &self.supernodes;
        let here = place.registered.contains(&conn);
        let reason = if self.leaving {
            Reason::Leaving
        } else if place.role != Role::Supernode {
            Reason::NotForwarding
        } else if !here && place.registered.len() >= place.capacity {
            Reason::Full
        } else {
            self.supernodes.registered.insert(conn);
            let room = (self.supernodes.capacity - self.supernodes.registered.len()) as u32;
            return self.send(conn, Registered { room });
        };
        let referrals = self.other_supernodes(conn);
        self.send(conn, Refused { reason, referrals });
    }

    fn other_supernodes(&self, conn: ConnId) -> Vec<Referral> {
        let Some(to) = self.peers.get(&conn).map(|peer| peer.remote) else {
            return Vec::new();
        };
        self.supernodes_by_rtt()
            .into_iter()
            .filter(|other| *other != conn)
            .filter_map(|other| self.referral(self.peers.get(&other)?.node, to))
            .take(REFERRALS_MAX)
            .collect()
    }

    /// The supernode that was asked has taken this node in.
    pub(super) fn registered(&mut self, conn: ConnId) {
        if self
            .supernodes
            .asked
            .is_some_and(|(asked, _)| asked == conn)
        {
            self.supernodes.asked = None;
            self.supernodes.primary = Some(conn);
        }
    }

    /// The supernode that was asked has not.
    pub(super) fn register_refused(&mut self, now: Time, conn: ConnId, refused: &Refused) {
        if self.supernodes.asked.is_none_or(|(asked, _)| asked != conn) {
            return;
        }
        self.supernodes.asked = None;
        self.supernodes.refused.insert(conn, now.after(REFUSED_FOR));
        for referral in refused.referrals.iter().take(REFERRALS_MAX) {
            self.dial_supernode(referral.node, &referral.addresses);
        }
        self.review(now);
    }
}

fn serves(record: &SignedNode) -> bool {
    let value = record.value();
    value.role == Role::Supernode && value.removed != Some(true)
}
