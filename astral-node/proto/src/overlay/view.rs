//! What the API shows of the overlay: plain values, copied out.

use std::time::Duration;

use super::audience::Audience;
use super::event::{ConnId, Time, Why};
use super::records::Resolved;
use super::{KnownStream, Overlay, RoleReason, Standing};
use crate::ids::{NodeId, StreamId, TicketId};
use crate::record::{Address, Role, SignedStream};
use crate::wire::control::Reason;
use crate::wire::heartbeat::Supply;

/// A connected or known node.
#[derive(Clone, Debug)]
pub struct PeerView {
    /// Its id.
    pub node: NodeId,
    /// Name and software version, as it says.
    pub name: Option<String>,
    /// Version of its software.
    pub software: Option<String>,
    /// What it does for others.
    pub role: Role,
    /// Where it was seen.
    pub addresses: Vec<Address>,
    /// Round-trip time, if it is connected.
    pub rtt: Option<Duration>,
    /// When it was last heard of.
    pub seen: Time,
    /// Tickets of this node's that it feeds or that feed it.
    pub tickets: u32,
}

/// How a stream arrives here.
#[derive(Clone, Debug)]
pub struct IntakeView {
    /// The node that feeds this one, with the path to it and the delay there.
    pub parent: Option<(NodeId, TicketId)>,
    /// The node that would, should that one fail.
    pub standby: Option<NodeId>,
    /// Nodes from the publisher to this one.
    pub path: Vec<NodeId>,
    /// Expected delay from the source.
    pub delay: Duration,
    /// How the supply stands.
    pub supply: Supply,
    /// Changes of parent.
    pub switches: u64,
    /// Why the last peer asked said no.
    pub last_refusal: Option<Reason>,
}

/// What a node is in the network, and why.
#[derive(Clone, Debug)]
pub struct PlaceView {
    /// What it does for others.
    pub role: Role,
    /// Why.
    pub reason: RoleReason,
    /// The supernode it is registered with.
    pub primary: Option<NodeId>,
    /// The one that takes its place, should it fail.
    pub backup: Option<NodeId>,
    /// Supernodes with which this one exchanges records.
    pub mesh: Vec<NodeId>,
    /// Nodes that are registered here.
    pub registered: u32,
    /// Whether strangers can connect.
    pub standing: Standing,
    /// Where they have.
    pub reached: Vec<Address>,
    /// How many have tried, and could not.
    pub denials: u32,
}

/// A stream that is known here.
#[derive(Clone, Debug)]
pub struct StreamView {
    /// Its newest record.
    pub record: SignedStream,
    /// Slug as it is shown here.
    pub slug: String,
    /// Whether this node publishes it.
    pub own: bool,
    /// Set if this node takes it in, or tries to.
    pub intake: Option<IntakeView>,
    /// Viewers in this node's part of the tree.
    pub viewers: u32,
    /// How those are served who have it by way of this node.
    pub audience: Audience,
    /// Free places in this node's part of the tree.
    pub places: u32,
}

/// A child's ticket.
#[derive(Clone, Debug)]
pub struct FeedView {
    /// When it was promised.
    pub created: Time,
    /// What it is charged with, in bit/s.
    pub charge_bps: u64,
}

/// A ticket between this node and another.
#[derive(Clone, Debug)]
pub struct TicketView {
    /// Its id.
    pub id: TicketId,
    /// The connection it runs on.
    pub conn: ConnId,
    /// The stream.
    pub stream: StreamId,
    /// Who sends.
    pub source: NodeId,
    /// Who receives.
    pub destination: NodeId,
    /// Nodes from the publisher to the destination.
    pub path: Vec<NodeId>,
    /// Whether it is for the case only that the parent fails.
    pub standby: bool,
    /// When it was promised.
    pub created: Time,
    /// When it expires unless the peer is heard of.
    pub expires: Time,
}

impl Overlay {
    /// What this node is in the network, and why.
    pub fn place_view(&self, now: Time) -> PlaceView {
        PlaceView {
            role: self.role(),
            reason: self.role_reason(),
            primary: self.primary_supernode(),
            backup: self.backup_supernode(),
            mesh: self.mesh(),
            registered: self.registered_nodes() as u32,
            standing: self.standing(now),
            reached: self.reached_at(now),
            denials: self.denials() as u32,
        }
    }

    /// This node's id.
    pub fn id(&self) -> NodeId {
        self.id
    }

    /// The upload limit in bit/s; `None`: unlimited.
    pub fn limit_bps(&self) -> Option<u64> {
        self.budget.limit_bps
    }

    /// This node's name, as its record says it.
    pub fn own_name(&self) -> Option<String> {
        self.record.value().name.clone()
    }

    /// Who feeds this node a stream.
    pub fn parent_of(&self, id: StreamId) -> Option<NodeId> {
        let stream = self.streams.get(&id)?;
        stream.parent.as_ref().map(|parent| parent.node)
    }

    /// What each bare slug meant first, of the listed streams of others that are known.
    pub fn slugs_view(&self) -> Vec<(String, StreamId)> {
        let listed = |id: &StreamId| {
            let known = self.records.stream(*id);
            known.is_some_and(|known| known.record.value().is_listed())
                && self.streams.get(id).is_none_or(|s| s.own.is_none())
        };
        self.records
            .first_named()
            .filter(|(_, id)| listed(id))
            .map(|(slug, id)| (slug.to_owned(), id))
            .collect()
    }

    /// Upload that is promised to others, in bit/s.
    pub fn promised_bps(&self) -> u64 {
        self.budget.promised_bps
    }

    /// Children over all streams.
    pub fn children(&self) -> u32 {
        self.feeds.values().filter(|feed| feed.is_active()).count() as u32
    }

    /// Whether every bootstrap node has answered or failed at least once.
    pub fn has_bootstrapped(&self) -> bool {
        self.bootstraps
            .iter()
            .all(super::peers::Bootstrap::was_tried)
    }

    /// Other nodes.
    pub fn peers_view(&self) -> Vec<PeerView> {
        self.records
            .nodes()
            .map(|(node, known)| {
                let conn = self.by_node.get(&node);
                let peer = conn.and_then(|conn| self.peers.get(conn));
                let record = known.record.value();
                let fed = self
                    .feeds
                    .values()
                    .filter(|feed| feed.node == node && feed.is_active())
                    .count() as u32;
                PeerView {
                    node,
                    name: record.name.clone(),
                    software: record.software.clone(),
                    role: record.role,
                    addresses: known.addresses.clone(),
                    rtt: peer.map(|peer| peer.rtt),
                    seen: peer.map_or(known.seen, |peer| peer.heard),
                    tickets: fed,
                }
            })
            .collect()
    }

    /// Who a slug, full slug or id means here: `unlisted` streams only by id or
    /// if they are this node's own or taken in already.
    pub fn resolve(&self, now: Time, text: &str) -> Resolved {
        let own = |id: StreamId| self.streams.get(&id).is_some_and(|s| s.own.is_some());
        let counts = |id: StreamId, known: &KnownStream| {
            let by_id = text.parse() == Ok(id);
            let there = self.streams.contains_key(&id) || self.is_live(now, id);
            there && (by_id || self.is_open(id, known))
        };
        self.records.resolve(text, &own, &counts)
    }

    fn is_live(&self, now: Time, id: StreamId) -> bool {
        self.records.is_live(now, id)
    }

    /// Whether a stream's name is no secret here: it is listed, or somebody at this node
    /// publishes it or has asked for it. To pass it on is not to ask for it.
    fn is_open(&self, id: StreamId, known: &KnownStream) -> bool {
        let stream = self.streams.get(&id);
        known.record.value().is_listed()
            || stream.is_some_and(|stream| {
                let asked = |why| stream.wanted.contains(&why);
                stream.own.is_some() || asked(Why::Watch) || asked(Why::Readers)
            })
    }

    /// Streams that may be listed here: listed ones that are live somewhere or taken in,
    /// and those that somebody here publishes or has asked for.
    pub fn streams_view(&self, now: Time) -> Vec<StreamView> {
        let mut ids: Vec<StreamId> = self
            .records
            .fresh(now)
            .filter(|(_, known)| known.record.value().is_listed())
            .map(|(id, _)| id)
            .chain(self.streams.keys().copied().filter(|id| {
                let known = self.records.stream(*id);
                known.is_some_and(|known| self.is_open(*id, known))
            }))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter()
            .filter_map(|id| self.stream_view(now, id))
            .collect()
    }

    /// One stream.
    pub fn stream_view(&self, now: Time, id: StreamId) -> Option<StreamView> {
        let known = self.records.stream(id)?;
        let stream = self.streams.get(&id);
        let name = &known.record.value().name;
        let bare = self.resolve(now, &crate::slug::slug_of(name, id));
        let own = stream.is_some_and(|stream| stream.own.is_some());
        let intake = stream.filter(|_| !own).map(|stream| IntakeView {
            parent: stream
                .parent
                .as_ref()
                .map(|parent| (parent.node, parent.ticket)),
            standby: stream.standby.as_ref().map(|standby| standby.node),
            path: self.own_path(stream),
            delay: Duration::from_micros(self.delay_us(stream).into()),
            supply: stream.supply(),
            switches: stream.switches,
            last_refusal: stream.last_refusal,
        });
        let (viewers, places) = self.subtree(id);
        Some(StreamView {
            record: known.record.clone(),
            slug: self.records.shown_slug(id, &bare),
            own,
            intake,
            viewers,
            audience: self.audience(id),
            places,
        })
    }

    /// Every ticket between this node and others.
    pub fn tickets_view(&self, now: Time) -> Vec<TicketView> {
        let down = self.feeds.iter().filter_map(|(id, feed)| {
            let stream = self.streams.get(&feed.stream)?;
            let path = self
                .own_path(stream)
                .into_iter()
                .chain([feed.node])
                .collect();
            Some(TicketView {
                id: *id,
                conn: feed.conn,
                stream: feed.stream,
                source: self.id,
                destination: feed.node,
                path,
                standby: !feed.is_active(),
                created: feed.created,
                expires: self.expires(feed.conn).unwrap_or(now),
            })
        });
        let up = self.streams.iter().filter_map(|(id, stream)| {
            let parent = stream.parent.as_ref()?;
            Some(TicketView {
                id: parent.ticket,
                conn: parent.conn,
                stream: *id,
                source: parent.node,
                destination: self.id,
                path: self.own_path(stream),
                standby: false,
                created: parent.since,
                expires: self.expires(parent.conn).unwrap_or(now),
            })
        });
        let ready = self.streams.iter().filter_map(|(id, stream)| {
            let standby = stream.standby.as_ref()?;
            Some(TicketView {
                id: standby.ticket,
                conn: standby.conn,
                stream: *id,
                source: standby.node,
                destination: self.id,
                path: standby.path.iter().copied().chain([self.id]).collect(),
                standby: true,
                created: standby.since,
                expires: self.expires(standby.conn).unwrap_or(now),
            })
        });
        down.chain(up).chain(ready).collect()
    }

    /// The record of a stream, if it is known.
    pub fn record_of(&self, id: StreamId) -> Option<&SignedStream> {
        self.records.stream(id).map(|known| &known.record)
    }

    /// What is known of a node's whereabouts.
    pub fn addresses_of(&self, node: NodeId) -> Vec<Address> {
        self.records
            .node(node)
            .map_or_else(Vec::new, |known| known.addresses.clone())
    }
}
