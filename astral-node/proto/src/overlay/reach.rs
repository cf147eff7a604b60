//! Whether strangers can connect to this node, and dialling back for others.
//!
//! ```text
//!   only loopback, or nobody ──► local
//!   a stranger came in, or a dial back did ──► reachable
//!   those who were asked could not ──► unreachable      else: unproven
//! ```
//!
//! A node believes what it sees: a dial back counts when it arrives, whatever the peer
//! says of it, and one that does not arrive counts only if two say so, where there are
//! two. A node never dials back to another IP address than that from which it was asked,
//! so that nobody can send it at strangers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Overlay;
use super::event::{Action, ConnId, Time};
use crate::ids::{NodeId, PublicKey};
use crate::limits::ADDRESSES_MAX;
use crate::record::Address;
use crate::wire::control::{Probe, Probed};

/// A peer is dialled back at most this often in a second.
const PROBES_PER_SECOND: u32 = 1;
/// Dials back that run at one time.
const PROBES_MAX: usize = 32;
/// A question that is not answered within this is forgotten.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Peers that are asked at one time.
const ASKED: usize = 2;
/// Time to the next question while nothing is known.
const ASK_SOON: Duration = Duration::from_secs(2);
/// While others could not reach this node.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// While they can.
const ASK_ON: Duration = Duration::from_secs(300);
/// A proof counts for this long.
const PROOF_FOR: Duration = Duration::from_secs(900);
/// Refutations that are remembered.
const DENIED_MAX: usize = 8;
/// Dials back to one supernode that did not get through, after which it is not believed.
const CLAIMS_TRIED: u32 = 3;

/// Whether strangers can connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They have.
    Reachable,
    /// They have tried, and could not.
    Unreachable,
    /// Nobody has tried yet.
    Unproven,
    /// Nobody but nodes of this machine is known.
    Local,
}

/// What is known of this node's own reach, and the dials back that run for others.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Where it listens or a router forwards to it, as far as it can tell itself.
    pub(super) whereabouts: Vec<Address>,
    /// Where strangers have come in, and when last.
    reached: BTreeMap<Address, Time>,
    /// Who could not.
    denied: BTreeSet<NodeId>,
    questions: Vec<Question>,
    next: Time,
    /// Questions of others that are being answered.
    answering: Vec<(ConnId, u64)>,
    /// Supernodes that are dialled back, by the number of the dial.
    checks: BTreeMap<u64, ConnId>,
}

impl Reach {
    /// Keeps where a stranger came in; if there are too many, in the place of the oldest.
    fn remember(&mut self, now: Time, address: Address) {
        self.reached.insert(address, now);
        if self.reached.len() > ADDRESSES_MAX {
            let age = |(address, at): (&Address, &Time)| (*at, *address);
            let oldest = self.reached.iter().map(age).min();
            if let Some((_, oldest)) = oldest {
                self.reached.remove(&oldest);
            }
        }
    }
}

#[derive(Debug)]
struct Question {
    query: u64,
    conn: ConnId,
    node: NodeId,
    key: PublicKey,
    from: Address,
    address: Address,
    at: Time,
    /// The peer says that it got through.
    said: bool,
    /// It did.
    seen: bool,
}

impl Overlay {
    /// Whether strangers can connect to this node.
    pub fn standing(&self, now: Time) -> Standing {
        let strangers = self.peers.values().filter(|p| !p.remote.is_loopback());
        let strangers = strangers.count();
        if !self.reached_at(now).is_empty() {
            return Standing::Reachable;
        }
        match (self.reach.denied.len(), strangers) {
            (2.., _) | (1, 0..=1) => Standing::Unreachable,
            (_, 0) => Standing::Local,
            _ => Standing::Unproven,
        }
    }

    /// Where strangers have come in, the latest first.
    pub fn reached_at(&self, now: Time) -> Vec<Address> {
        let mut reached: Vec<(Time, Address)> = self
            .reach
            .reached
            .iter()
            .filter(|(_, at)| now.since(**at) < PROOF_FOR)
            .map(|(address, at)| (*at, *address))
            .collect();
        reached.sort_by_key(|(at, address)| (std::cmp::Reverse(*at), *address));
        reached.into_iter().map(|(_, address)| address).collect()
    }

    /// How many nodes have tried to reach this one, and could not.
    pub fn denials(&self) -> usize {
        self.reach.denied.len()
    }

    /// Where this node may be reached has changed: what was proved is to be proved anew.
    pub(super) fn whereabouts(&mut self, now: Time, addresses: Vec<Address>) {
        if self.reach.whereabouts == addresses {
            return;
        }
        let first = self.reach.whereabouts.is_empty();
        self.reach.whereabouts = addresses;
        self.reach.denied.clear();
        self.reach.questions.clear();
        self.reach.next = now;
        if first {
            return;
        }
        self.reach.reached.clear();
        self.describe(now);
        // From the new address: who dialled this node at the old one has lost it.
        let conns: Vec<ConnId> = self.peers.keys().copied().collect();
        for conn in conns {
            self.beat_now(now, conn);
        }
    }

    // Asking

    /// Asks peers to dial back, if it is time to.
    pub(super) fn seek_proof(&mut self, now: Time) {
        self.reach
            .questions
            .retain(|question| now.since(question.at) < ANSWER_WITHIN);
        if now < self.reach.next || !self.reach.questions.is_empty() {
            return;
        }
        let pause = match self.standing(now) {
            Standing::Local => return,
            Standing::Reachable => ASK_ON,
            Standing::Unreachable => ASK_AGAIN,
            Standing::Unproven => ASK_SOON,
        };
        self.reach.next = now.after(self.random.jitter(pause));
        for conn in self.whom_to_ask() {
            self.ask_back(now, conn);
        }
    }

    fn whom_to_ask(&mut self) -> Vec<ConnId> {
        let mut open: Vec<(bool, bool, u64, ConnId)> = Vec::new();
        for (conn, peer) in &self.peers {
            let sees = peer.observed.is_some_and(|at| !at.is_loopback());
            if peer.remote.is_loopback() || !sees {
                continue;
            }
            let asked = self.reach.denied.contains(&peer.node);
            open.push((asked, !self.is_supernode(*conn), self.random.next(), *conn));
        }
        open.sort_unstable();
        open.into_iter().take(ASKED).map(|at| at.3).collect()
    }

    fn ask_back(&mut self, now: Time, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else {
            return;
        };
        let Some(observed) = peer.observed else {
            return;
        };
        let same_ip = |at: &&Address| at.0.ip() == observed.0.ip();
        let known = self.reach.whereabouts.iter().find(same_ip);
        self.query_count += 1;
        let question = Question {
            query: self.query_count,
            conn,
            node: peer.node,
            key: peer.key,
            from: peer.remote,
            address: known.copied().unwrap_or(observed),
            at: now,
            said: false,
            seen: false,
        };
        let probe = Probe {
            query: question.query,
            address: question.address,
        };
        self.reach.questions.push(question);
        self.send(conn, probe);
    }

    /// What a peer says of its dial back.
    pub(super) fn probed(&mut self, now: Time, conn: ConnId, probed: &Probed) {
        let question = self
            .reach
            .questions
            .iter_mut()
            .find(|question| question.query == probed.query && question.conn == conn);
        let Some(question) = question else {
            return;
        };
        let (node, seen) = (question.node, question.seen);
        question.said = probed.reachable;
        if seen {
            self.settle_question(now, probed.query);
        } else if !probed.reachable {
            self.reach.questions.retain(|q| q.query != probed.query);
            if self.reach.denied.len() < DENIED_MAX {
                self.reach.denied.insert(node);
            }
            self.review(now);
        }
    }

    /// Somebody has connected to this node: perhaps a dial back.
    pub(super) fn dialled_back(&mut self, now: Time, key: PublicKey, remote: Address) {
        let question = self
            .reach
            .questions
            .iter_mut()
            .find(|question| question.key == key && question.from != remote);
        let Some(question) = question else {
            return;
        };
        question.seen = true;
        if question.said {
            let query = question.query;
            self.settle_question(now, query);
        }
    }

    fn settle_question(&mut self, now: Time, query: u64) {
        let at = self.reach.questions.iter().position(|q| q.query == query);
        if let Some(at) = at {
            let question = self.reach.questions.swap_remove(at);
            self.reached_here(now, question.address);
        }
    }

    /// A node that this one has never heard of came in, and says where it found it.
    pub(super) fn stranger_came(&mut self, now: Time, observed: Address) {
        let outward = self.peers.values().filter(|peer| peer.outbound);
        let seen = outward.filter_map(|peer| peer.observed);
        let known = self.reach.whereabouts.iter().copied();
        let plausible = known.chain(seen).any(|at| at == observed);
        if plausible && !observed.is_loopback() {
            self.reached_here(now, observed);
        }
    }

    fn reached_here(&mut self, now: Time, address: Address) {
        let before = self.reached_at(now);
        self.reach.denied.clear();
        self.reach.remember(now, address);
        if !before.contains(&address) {
            self.describe(now);
            self.review(now);
        }
    }

    // Answering

    /// A peer wants to know whether it can be reached.
    pub(super) fn probe_asked(&mut self, now: Time, conn: ConnId, probe: &Probe) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        let key = peer.key;
        let at = peer.remote.0.ip().to_canonical();
        let here = probe.address.0.ip().to_canonical() == at;
        let free = self.reach.answering.len() < PROBES_MAX && !self.leaving;
        if !here || !free || !peer.probes.allows(now, PROBES_PER_SECOND) {
            // No answer is none of "cannot be reached".
            return;
        }
        self.reach.answering.push((conn, probe.query));
        self.act(Action::Probe {
            conn,
            query: probe.query,
            key,
            address: probe.address,
        });
    }

    /// A peer that came in says that it is a supernode: it is dialled back before others
    /// hear of it.
    pub(super) fn check_claim(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else {
            return;
        };
        let known = self.records.node(peer.node);
        let Some(known) = known.filter(|known| super::supernodes::serves(&known.record)) else {
            return;
        };
        let at = peer.remote.0.ip().to_canonical();
        let addresses = &known.record.value().addresses;
        let there = addresses.iter().find(|a| a.0.ip().to_canonical() == at);
        let running = self.reach.checks.values().any(|checked| *checked == conn);
        let tried = peer.claims >= CLAIMS_TRIED || self.reach.checks.len() >= PROBES_MAX;
        let Some(address) = there
            .copied()
            .filter(|_| !peer.reached && !running && !tried)
        else {
            return;
        };
        let key = peer.key;
        self.query_count += 1;
        let query = self.query_count;
        self.reach.checks.insert(query, conn);
        self.act(Action::Probe {
            conn,
            query,
            key,
            address,
        });
    }

    /// A dial back has come to an end.
    pub(super) fn probe_done(&mut self, now: Time, conn: ConnId, query: u64, reachable: bool) {
        let answers = &mut self.reach.answering;
        if let Some(index) = answers.iter().position(|at| *at == (conn, query)) {
            answers.swap_remove(index);
            if self.peers.contains_key(&conn) {
                self.send(conn, Probed { query, reachable });
            }
            return;
        }
        if self.reach.checks.remove(&query).is_none() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        peer.reached |= reachable;
        peer.claims += u32::from(!reachable);
        if reachable {
            self.tell_of(now, conn);
            self.review(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::address;
    use super::*;

    #[test]
    fn address_that_is_reached_again_displaces_nobody_and_a_new_one_the_oldest() {
        let mut reach = Reach::default();
        let full = ADDRESSES_MAX as u64;
        for number in 0..full {
            reach.remember(Time(number), address(number as usize));
        }
        reach.remember(Time(full), address(0));
        assert_eq!(reach.reached.len(), ADDRESSES_MAX);
        assert_eq!(reach.reached.get(&address(0)), Some(&Time(full)));
        reach.remember(Time(full + 1), address(100));
        assert_eq!(reach.reached.len(), ADDRESSES_MAX);
        assert!(!reach.reached.contains_key(&address(1)), "the oldest");
        for kept in [0, 2, 100] {
            assert!(reach.reached.contains_key(&address(kept)), "{kept}");
        }
    }
}
