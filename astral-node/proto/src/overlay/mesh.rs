//! What nodes tell each other of supernodes, and the mesh among these.
//!
//! A node tells others only of supernodes that it is connected to and that were reached:
//! what cannot be reached is passed on by nobody. Records of streams go through
//! `gossip`.

use std::time::Duration;

use super::Overlay;
use super::event::{ConnId, Time};
use super::records::KnownNode;
use crate::ids::NodeId;
use crate::limits::LOAD_STREAMS_MAX;
use crate::record::{Address, NodeLoad, Role, SignedNode, StreamLoad};
use crate::wire::CloseCode;
use crate::wire::control::{Peers, RecordBytes};

/// Supernodes that one tells whoever dialled it.
const TOLD: usize = 8;
/// And that any other node tells each new peer: most know some, but the two may be of
/// networks that do not know of each other.
const MENTIONED: usize = 2;
/// A node hears of new supernodes no more often than this.
const MENTION_APART: Duration = Duration::from_secs(5);
/// Connections between supernodes that one keeps; those beyond are closed if nothing
/// else binds the two.
const MESH_MAX: usize = 16;
/// A supernode signs its counts anew this often: a third of the lease.
const COUNT_EVERY: Duration = Duration::from_secs(10);

impl Overlay {
    /// Supernodes with which this one exchanges records.
    pub fn mesh(&self) -> Vec<NodeId> {
        if self.supernodes.role != Role::Supernode {
            return Vec::new();
        }
        let mesh = self.supernodes_by_rtt();
        mesh.iter()
            .filter_map(|conn| self.peers.get(conn).map(|peer| peer.node))
            .collect()
    }

    /// Tells a new peer of supernodes.
    pub(super) fn introduce_supernodes(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else {
            return;
        };
        let remote = peer.remote;
        let told = match self.supernodes.role {
            Role::Supernode => TOLD,
            Role::Node => MENTIONED,
        };
        let records: Vec<RecordBytes> = self
            .supernodes_by_rtt()
            .into_iter()
            .filter(|other| *other != conn)
            .filter_map(|other| self.records.node(self.peers.get(&other)?.node))
            .filter(|known| !Self::tellable(&known.record.value().addresses, remote).is_empty())
            .map(|known| RecordBytes(known.record.wire().clone()))
            .take(told)
            .collect();
        if !records.is_empty() {
            self.send(conn, Peers { records });
        }
    }

    /// A peer has turned out to be a supernode: those who may need it hear of it. Other
    /// supernodes hear of each, and nodes of one now and then: they need two.
    pub(super) fn tell_of(&mut self, now: Time, new: ConnId) {
        let Some(node) = self.peers.get(&new).map(|peer| peer.node) else {
            return;
        };
        let Some(known) = self.records.node(node) else {
            return;
        };
        let record = RecordBytes(known.record.wire().clone());
        let addresses = known.record.value().addresses.clone();
        let registration = &self.supernodes.registration;
        let ours = [registration.primary, registration.backup];
        let told: Vec<ConnId> = self
            .peers
            .iter()
            .filter(|(conn, peer)| {
                let sated = now.since(peer.mentioned) < MENTION_APART && !self.is_supernode(**conn);
                let near = match self.supernodes.role {
                    Role::Supernode => !sated,
                    Role::Node => ours.contains(&Some(**conn)),
                };
                **conn != new && near && !Self::tellable(&addresses, peer.remote).is_empty()
            })
            .map(|(conn, _)| *conn)
            .collect();
        for conn in told {
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.mentioned = now;
            }
            let records = vec![record.clone()];
            self.send(conn, Peers { records });
        }
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

    pub(super) fn peers_told(&mut self, now: Time, conn: ConnId, records: &[RecordBytes]) {
        for bytes in records {
            let Some(peer) = self.peers.get(&conn) else {
                return;
            };
            let (remote, own_key, teller) = (peer.remote, peer.key, peer.node);
            // What is known already need not be verified once more.
            let old = SignedNode::glance(&bytes.0).is_some_and(|said| {
                let known = self.records.node(said.id_for(remote));
                known.is_some_and(|known| {
                    let known = known.record.value();
                    known.key == said.key && known.seq >= said.seq
                })
            });
            if old {
                continue;
            }
            match SignedNode::decode(&bytes.0) {
                Ok(record) if record.value().key == own_key => {
                    self.peer_renewed(now, conn, teller, record);
                }
                Ok(record) => {
                    let id = record.value().id_for(remote);
                    let addresses = Self::tellable(&record.value().addresses, remote);
                    self.take_node(now, conn, id, record, &addresses);
                }
                Err(error) => {
                    self.close(conn, CloseCode::Protocol, format!("Peers: {error}"));
                    return;
                }
            }
        }
        if self.supernodes.mode.is_some() {
            self.seek_supernodes(now);
        }
    }

    /// A peer has signed its own record anew.
    fn peer_renewed(&mut self, now: Time, conn: ConnId, node: NodeId, record: SignedNode) {
        let was = self.is_supernode(conn);
        let remote = self.peers.get(&conn).map(|peer| peer.remote);
        let said = remote.map_or_else(Vec::new, |remote| {
            Self::tellable(&record.value().addresses, remote)
        });
        self.records.insert_node(now, node, record, &[], None);
        self.records.add_addresses(node, &said);
        self.check_claim(conn);
        if !was && self.is_supernode(conn) {
            self.tell_of(now, conn);
            self.review(now);
        }
    }

    /// Keeps a record of a node that somebody told of; an alias is nobody's property, and
    /// what is known stays.
    pub(super) fn take_node(
        &mut self,
        now: Time,
        from: ConnId,
        id: NodeId,
        record: SignedNode,
        addresses: &[Address],
    ) {
        let key = record.value().key;
        let other = |known: &KnownNode| known.record.value().key != key;
        if id == self.id || key == self.record.value().key {
            return;
        }
        if !self.records.node(id).is_some_and(other) {
            self.records
                .insert_node(now, id, record, addresses, Some(from));
        }
    }

    /// How busy this supernode is.
    pub(super) fn load(&self, now: Time) -> NodeLoad {
        let mut streams: Vec<StreamLoad> = self
            .streams
            .iter()
            .filter(|(id, _)| self.records.is_live(now, **id))
            .filter(|(id, _)| {
                let known = self.records.stream(**id);
                known.is_some_and(|known| known.record.value().is_listed())
            })
            .map(|(id, stream)| StreamLoad {
                stream: *id,
                viewers: self.subtree(*id).0,
                children: self.children_of(*id),
                depth: self.own_path(stream).len().saturating_sub(1).min(255) as u8,
                delay_ms: self.delay_us(stream) / 1_000,
            })
            .collect();
        streams.sort_by_key(|load| (std::cmp::Reverse(load.viewers), load.stream));
        streams.truncate(LOAD_STREAMS_MAX);
        NodeLoad {
            registered: self.registered_nodes() as u32,
            room: self.room(),
            children: self.children(),
            streams,
        }
    }

    pub(super) fn count_anew(&mut self, now: Time) {
        if now.since(self.supernodes.counted) >= COUNT_EVERY {
            self.describe(now);
        }
    }

    fn is_kept(&self, conn: ConnId) -> bool {
        let peer = self.peers.get(&conn);
        peer.is_some_and(|peer| self.is_bootstrap(peer.node))
    }

    /// Closes connections between supernodes that are too many.
    pub(super) fn keep_mesh(&mut self) {
        if self.supernodes.role != Role::Supernode {
            return;
        }
        let mesh = self.supernodes_by_rtt();
        let surplus = mesh.len().saturating_sub(MESH_MAX);
        let idle: Vec<ConnId> = mesh
            .into_iter()
            .rev()
            .filter(|conn| !self.shares_ticket(*conn) && !self.is_kept(*conn))
            .take(surplus)
            .collect();
        for conn in idle {
            self.introduce_supernodes(conn);
            self.close(conn, CloseCode::Done, "supernodes enough");
        }
    }
}
