//! A node as the simulator sees it: the real overlay, and the shell's tables around it.

use super::dice::Dice;
use super::exact::{Exact, Uplink};
use super::flow::Flow;
use super::link::{End, Spot};
use super::scenario::Lie;
use crate::ids::{NodeId, PublicKey, SecretKey, TicketId, sha256};
use crate::limits::ADDRESSES_MAX;
use crate::overlay::{Description, Overlay, Time};
use crate::record::{Address, NodeRecord, Role, SignedNode};
use crate::wire::control::Have;

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    /// The system under test; none once the node has gone.
    pub(super) overlay: Option<Box<Overlay>>,
    pub(super) id: NodeId,
    pub(super) key: PublicKey,
    pub(super) spot: Spot,
    /// Whether a firewall lets only replies in.
    pub(super) firewalled: bool,
    /// Whose packets it takes for replies, and until when.
    pub(super) dialled: Vec<(u32, Time)>,
    pub(super) island: u32,
    /// On which side of a partition it is.
    pub(super) apart: bool,
    pub(super) limit_bps: u64,
    pub(super) lie: Option<Lie>,
    /// What its record says of it.
    pub(super) said: Option<Box<Description>>,
    pub(super) seq: u64,
    /// When the overlay's timers are looked at next.
    pub(super) wake: Time,
    pub(super) frozen_until: Time,
    pub(super) joined: Time,
    pub(super) leaving: bool,
    pub(super) asked_web: bool,
    /// Whether it wants the streams of other islands, too.
    pub(super) wants_all: bool,
    /// Changes of parent.
    pub(super) switches: u64,
    pub(super) ends: Vec<End>,
    pub(super) routes: Vec<Route>,
    pub(super) intakes: Vec<Intake>,
    pub(super) stores: Vec<Store>,
    pub(super) uplink: Option<Box<Uplink>>,
    /// Bytes of control messages and heartbeats sent.
    pub(super) control_bytes: u64,
    /// Bytes of video sent.
    pub(super) media_bytes: u64,
}

/// A child that is fed.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) end: End,
    pub(super) ticket: TicketId,
    pub(super) stream: u32,
    pub(super) have: Have,
    pub(super) set: Time,
    /// First group that a child without anything gets.
    pub(super) start: Option<u64>,
    /// As a flow: since when it runs.
    pub(super) runs: Option<Time>,
}

/// A ticket under which video is taken in.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) end: End,
    pub(super) ticket: TicketId,
    pub(super) stream: u32,
    /// Since when.
    pub(super) set: Time,
    /// As a flow: the delay from the source with which it arrives.
    pub(super) delay_us: Option<u32>,
    /// Whether anything has come, and whether that was what is newest: as the overlay
    /// was told.
    pub(super) came: Option<bool>,
}

/// What a node holds of a stream.
#[derive(Debug)]
pub(super) struct Store {
    pub(super) stream: u32,
    pub(super) own: bool,
    /// When the stream was asked for.
    pub(super) wanted: Time,
    /// When a parent first said yes.
    pub(super) accepted: Option<Time>,
    /// When the first video came.
    pub(super) first: Option<Time>,
    /// When video came last.
    pub(super) last: Time,
    pub(super) media: Held,
}

/// The video itself.
#[derive(Debug)]
pub(super) enum Held {
    /// Chunk by chunk.
    Exact(Box<Exact>),
    /// As a flow.
    Flow(Flow),
}

impl Node {
    pub(super) fn role(&self) -> Role {
        self.said.as_ref().map_or(Role::Node, |said| said.role)
    }

    pub(super) fn is_alive(&self) -> bool {
        self.overlay.is_some()
    }

    pub(super) fn store(&self, stream: u32) -> Option<&Store> {
        self.stores.iter().find(|store| store.stream == stream)
    }

    pub(super) fn store_mut(&mut self, stream: u32) -> Option<&mut Store> {
        self.stores.iter_mut().find(|store| store.stream == stream)
    }

    pub(super) fn is_publisher(&self) -> bool {
        self.stores.iter().any(|store| store.own)
    }

    pub(super) fn route(&self, end: End, ticket: TicketId) -> Option<&Route> {
        let is_it = |route: &&Route| route.end == end && route.ticket == ticket;
        self.routes.iter().find(is_it)
    }

    pub(super) fn intake_mut(&mut self, end: End, ticket: TicketId) -> Option<&mut Intake> {
        let is_it = |intake: &&mut Intake| intake.end == end && intake.ticket == ticket;
        self.intakes.iter_mut().find(is_it)
    }
}

/// The key of a node: a function of its number, so that it need not be kept.
pub(super) fn key_of(index: u32, what: &str) -> SecretKey {
    SecretKey::from_seed(sha256(format!("{what} {index}").as_bytes()))
}

/// Where a node listens: its number in an address.
pub(super) fn address_of(index: u32) -> Address {
    let [a, b, c, d] = (0x0a00_0001 + index).to_be_bytes();
    Address((std::net::Ipv4Addr::new(a, b, c, d), 8000).into())
}

/// The number of the node that listens there.
pub(super) fn index_of(address: &str) -> Option<u32> {
    let address: std::net::SocketAddrV4 = address.parse().ok()?;
    u32::from(*address.ip()).checked_sub(0x0a00_0001)
}

/// A node's record, signed.
pub(super) fn record_of(index: u32, seq: u64, said: Option<&Description>) -> SignedNode {
    let key = key_of(index, "node");
    let mut addresses = said.map_or_else(Vec::new, |said| said.reached.clone());
    if !addresses.contains(&address_of(index)) {
        addresses.push(address_of(index));
    }
    addresses.truncate(ADDRESSES_MAX);
    let record = NodeRecord {
        key: key.public(),
        seq,
        addresses,
        role: said.map_or(Role::Node, |said| said.role),
        alias: None,
        name: None,
        software: None,
        public_http: None,
        removed: None,
        load: said.and_then(|said| said.load.clone()),
    };
    SignedNode::sign(record, &key)
}

impl Spot {
    pub(super) fn random(dice: &mut Dice) -> Self {
        Self {
            x: dice.unit() as f32,
            y: dice.unit() as f32,
        }
    }
}
