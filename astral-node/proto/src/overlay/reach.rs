//! Whether strangers can connect to this node, and dialling back for others.
//!
//! A node never dials back to another IP address than that from which it was asked, so
//! that nobody can send it at strangers.

use std::time::Duration;

use super::Overlay;
use super::event::{Action, ConnId, Time};
use crate::record::Address;
use crate::wire::control::{Probe, Probed};

/// A peer is dialled back at most once within this.
const PROBE_APART: Duration = Duration::from_secs(1);
/// Dials back that run at one time.
const PROBES_MAX: usize = 32;

/// What is known of this node's own reach, and the dials back that run for others.
#[derive(Debug, Default)]
pub(super) struct Reach {
    /// Where it listens or a router forwards to it, as far as it can tell itself.
    pub(super) whereabouts: Vec<Address>,
    /// Questions of others that are being answered.
    answering: Vec<(ConnId, u64)>,
}

impl Overlay {
    /// Where this node may be reached has changed.
    pub(super) fn whereabouts(&mut self, addresses: Vec<Address>) {
        self.reach.whereabouts = addresses;
    }

    /// A peer wants to know whether it can be reached.
    pub(super) fn probe_asked(&mut self, now: Time, conn: ConnId, probe: &Probe) {
        let Some(peer) = self.peers.get_mut(&conn) else {
            return;
        };
        let (key, at) = (peer.key, peer.remote.0.ip().to_canonical());
        let here = probe.address.0.ip().to_canonical() == at;
        let soon = now.since(peer.probed) < PROBE_APART && peer.probed != Time::default();
        if !here || soon || self.leaving || self.reach.answering.len() >= PROBES_MAX {
            // No answer is none of "cannot be reached".
            return;
        }
        peer.probed = now;
        self.reach.answering.push((conn, probe.query));
        self.act(Action::Probe {
            conn,
            query: probe.query,
            key,
            address: probe.address,
        });
    }

    /// The dial back for a peer has come to an end.
    pub(super) fn probe_done(&mut self, conn: ConnId, query: u64, reachable: bool) {
        let Some(index) = self
            .reach
            .answering
            .iter()
            .position(|at| *at == (conn, query))
        else {
            return;
        };
        self.reach.answering.swap_remove(index);
        if self.peers.contains_key(&conn) {
            self.send(conn, Probed { query, reachable });
        }
    }
}
