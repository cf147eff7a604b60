//! Introductions: who cannot be dialled is asked to dial.
//!
//! ```text
//!   child ── dials in vain ──► parent behind a firewall
//!   child ── Introduce{to: parent} ──► supernode ── Introduce{child, where} ──► parent
//!   child ◄────────────────────────── dials ─────────────────────────────────── parent
//! ```
//!
//! Both dial at about the same time, so two firewalls that keep the port let both in.

use std::collections::BTreeMap;
use std::time::Duration;

use super::event::{ConnId, Time};
use super::{Overlay, Timer};
use crate::ids::NodeId;
use crate::wire::control::Introduce;

/// A node that has not answered a dial by then is asked to dial: more than a round trip
/// to the far side of the world.
const DIAL_FIRST: Duration = Duration::from_millis(300);
/// The same node is asked again after this.
const AGAIN: Duration = Duration::from_secs(10);
/// Supernodes that are asked to pass it on.
const ASKED: usize = 3;
/// Introductions that one peer may ask for in a second, of either kind.
const PER_SECOND: u32 = 8;
/// Nodes that are remembered as asked.
const ASKED_MAX: usize = 256;

/// Whom this node has asked to dial it, and when.
#[derive(Debug, Default)]
pub(super) struct Introductions {
    asked: BTreeMap<NodeId, Time>,
}

impl Overlay {
    /// A node is being dialled for a stream; if that takes long, it is asked to dial.
    pub(super) fn introduce_later(&mut self, now: Time, node: NodeId) {
        self.timers
            .set(Timer::Introduce(node), now.after(DIAL_FIRST));
    }

    /// Whether this node has lately asked another to dial it: that one is no stranger.
    pub(super) fn is_introduced(&self, now: Time, node: NodeId) -> bool {
        let at = self.introductions.asked.get(&node);
        at.is_some_and(|at| now.since(*at) < 6 * AGAIN)
    }

    /// Asks a node that does not answer to dial this one, by way of supernodes.
    pub(super) fn introduce(&mut self, now: Time, node: NodeId) {
        if self.by_node.contains_key(&node) || self.leaving {
            return;
        }
        let asked = &mut self.introductions.asked;
        asked.retain(|_, at| now.since(*at) < 6 * AGAIN);
        let recent = asked.get(&node).is_some_and(|at| now.since(*at) < AGAIN);
        if recent || asked.len() >= ASKED_MAX {
            return;
        }
        let registration = &self.supernodes.registration;
        let mut through: Vec<ConnId> = registration.primary.into_iter().collect();
        through.extend(registration.backup);
        for conn in self.supernodes_by_rtt() {
            if !through.contains(&conn) {
                through.push(conn);
            }
        }
        if through.is_empty() {
            return;
        }
        self.introductions.asked.insert(node, now);
        for conn in through.into_iter().take(ASKED) {
            let (peer, to) = (self.id, Some(node));
            self.send(
                conn,
                Introduce {
                    peer,
                    addresses: Vec::new(),
                    to,
                },
            );
        }
    }

    /// Somebody asks for an introduction, or this node is introduced to somebody.
    pub(super) fn introduced(&mut self, now: Time, conn: ConnId, introduce: &Introduce) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        if self.leaving || !peer.introduces.allows(now, PER_SECOND) {
            return;
        }
        match introduce.to.filter(|to| *to != self.id) {
            Some(to) => self.pass_on(conn, introduce.peer, to),
            None => self.dial_introduced(conn, introduce),
        }
    }

    /// Nobody is introduced but the one who asks.
    fn pass_on(&mut self, conn: ConnId, node: NodeId, to: NodeId) {
        let Some(peer) = self.peers.get(&conn).filter(|peer| peer.node == node) else {
            return;
        };
        let mut addresses = vec![peer.remote];
        let known = self.records.node(node);
        for address in known.map_or(&[][..], |known| &known.addresses) {
            if !addresses.contains(address) {
                addresses.push(*address);
            }
        }
        let Some(there) = self.by_node.get(&to).copied() else {
            return;
        };
        let Some(remote) = self.peers.get(&there).map(|peer| peer.remote) else {
            return;
        };
        let addresses = Self::tellable(&addresses, remote);
        let to = None;
        self.send(
            there,
            Introduce {
                peer: node,
                addresses,
                to,
            },
        );
    }

    /// A supernode's word is enough to dial somebody, and only a supernode's.
    fn dial_introduced(&mut self, conn: ConnId, introduce: &Introduce) {
        if self.is_supernode(conn) {
            self.meet(introduce.peer, &introduce.addresses, false);
        }
    }
}
