//! What the API shows: the overlay's view beside the media plane's counters.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use astral_proto::api;
use astral_proto::ids::{StreamId, TicketId};
use astral_proto::link::ShareLink;
use astral_proto::overlay::{PeerView, StreamView, TicketView, Time};
use astral_proto::record::{Address, Role, StreamState, TrackSummary};
use tokio::time::Instant;

use super::place::reachability;
use super::{ApiError, Handle, lock};
use crate::driver::Traffic;
use crate::node::own_addresses;

/// Rates are taken over at least this long.
const RATE_OVER: Duration = Duration::from_millis(800);

/// A ticket's counter at an earlier look.
#[derive(Clone, Copy)]
pub(super) struct RateMark {
    at: Instant,
    bytes: u64,
    rate_bps: u64,
}

/// A moment of the overlay's clock in wall-clock time, as RFC 3339.
fn rfc3339(now: Time, at: Time) -> String {
    let wall = SystemTime::now();
    let moment = if at >= now {
        wall + at.since(now)
    } else {
        wall - now.since(at)
    };
    humantime::format_rfc3339_millis(moment).to_string()
}

fn rfc3339_ms(unix_ms: u64) -> String {
    // The year 9999 is the last that the format can write.
    let unix_ms = unix_ms.min(253_402_300_799_000);
    let moment = SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
    humantime::format_rfc3339_millis(moment).to_string()
}

fn texts(addresses: &[Address]) -> Vec<String> {
    addresses
        .iter()
        .map(|address| address.0.to_string())
        .collect()
}

impl Handle {
    /// This node.
    pub async fn node(&self) -> api::Node {
        let (inner, config) = (&self.inner, self.config());
        let place = inner
            .inbox
            .inspect(|overlay, now| (overlay.children(), overlay.place_view(now)))
            .await;
        let (children, place) = place.unzip();
        let place = place.as_ref();
        let role = place.map_or(Role::Node, |place| place.role);
        let mapped = *lock(&inner.state.mapped);
        let port = inner.addresses.quic.port();
        api::Node {
            uuid: inner.id,
            name: config.name.clone().unwrap_or_else(|| inner.id.short()),
            addresses: texts(&own_addresses(&config, inner.addresses.quic)),
            role: shown_role(role),
            primary_supernode: place.and_then(|place| place.primary),
            backup_supernode: place.and_then(|place| place.backup),
            mesh: place.map_or_else(Vec::new, |place| place.mesh.clone()),
            registered: place.map_or(0, |place| place.registered),
            role_reason: place.map(|place| place.reason.words(role).into()),
            reachability: place.map(|place| reachability(place, mapped, port)),
            is_self: true,
            rtt_ms: Some(0.0),
            upload_limit_bps: inner.uplink.limit(),
            upload_used_bps: Some(inner.uplink.used_bps()),
            children: children.unwrap_or(0),
            version: format!("astral-node {}", inner.ready.version),
            last_seen: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            connected: true,
            warnings: inner.storage.warnings(),
        }
    }

    /// Every node that is known, this one included.
    pub async fn nodes(&self) -> Vec<api::Node> {
        let others = self.inner.inbox.inspect(|overlay, now| {
            let peers = overlay.peers_view();
            peers
                .into_iter()
                .map(|peer| other_node(now, peer))
                .collect::<Vec<_>>()
        });
        let mut nodes = others.await.unwrap_or_default();
        nodes.push(self.node().await);
        nodes
    }

    /// Every stream that may be listed here.
    pub async fn streams(&self) -> Vec<api::Stream> {
        let views = self.inner.inbox.inspect(|overlay, now| {
            let views = overlay.streams_view(now);
            with_addresses(overlay, views)
        });
        let views = views.await.unwrap_or_default();
        views
            .into_iter()
            .map(|(view, at)| self.show_stream(&view, &at))
            .collect()
    }

    /// The stream that a slug, full slug, id or share link means.
    ///
    /// # Errors
    /// As [`Handle::resolve`].
    pub async fn stream(&self, text: &str) -> Result<api::Stream, ApiError> {
        let id = self.resolve(text).await?;
        self.stream_by_id(id).await
    }

    pub(crate) async fn stream_by_id(&self, id: StreamId) -> Result<api::Stream, ApiError> {
        let looked = async {
            loop {
                let view = self.inner.inbox.inspect(move |overlay, now| {
                    let view = overlay.stream_view(now, id)?;
                    with_addresses(overlay, vec![view]).pop()
                });
                if let Some((view, at)) = view.await.flatten() {
                    return self.show_stream(&view, &at);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let unknown = || ApiError::Unknown(format!("no stream {id} is known"));
        tokio::time::timeout(Duration::from_secs(1), looked)
            .await
            .map_err(|_| unknown())
    }

    fn show_stream(&self, view: &StreamView, at: &[Address]) -> api::Stream {
        let record = view.record.value();
        let id = record.id();
        let store = self.inner.stores.of(id);
        let stats = store.map(|store| store.stats()).unwrap_or_default();
        let intake = view.intake.as_ref();
        let receiving = intake.is_some_and(|intake| intake.parent.is_some());
        // Whoever follows the link asks the publisher, and this node if it has the stream.
        let mut at = at.to_vec();
        if view.own || receiving {
            at.extend(own_addresses(&self.config(), self.inner.addresses.quic));
            at.truncate(astral_proto::limits::ADDRESSES_MAX);
        }
        let latency = intake.map_or(Duration::ZERO, |intake| intake.delay);
        let local = api::Local {
            receiving,
            parent: intake
                .and_then(|intake| intake.parent)
                .map(|(node, _)| node),
            standby: intake.and_then(|intake| intake.standby),
            hops: intake
                .filter(|intake| intake.parent.is_some())
                .map_or(0, |intake| intake.path.len().saturating_sub(1) as u32),
            latency_ms: latency.as_micros() as f64 / 1e3,
            frames_received: stats.frames,
            frames_lost: stats.lost,
            switches: intake.map_or(0, |intake| intake.switches),
        };
        api::Stream {
            id,
            slug: view.slug.clone(),
            name: record.name.clone(),
            description: record.description.clone().unwrap_or_default(),
            unlisted: !record.is_listed(),
            publisher: record.publisher,
            share: ShareLink {
                stream: id,
                addresses: texts(&at),
            }
            .to_string(),
            state: match record.state {
                StreamState::Live => api::StreamState::Live,
                StreamState::Waiting => api::StreamState::Waiting,
                StreamState::Paused => api::StreamState::Paused,
                StreamState::Ended => api::StreamState::Ended,
            },
            tracks: record.tracks.iter().map(track).collect(),
            bitrate_bps: match (record.state, stats.bitrate_bps) {
                (StreamState::Live, 0) => record.bitrate_bps.unwrap_or(0),
                (StreamState::Live, bps) => bps,
                (StreamState::Waiting | StreamState::Paused | StreamState::Ended, _) => 0,
            },
            started_at: rfc3339_ms(record.started_at_ms),
            // The publisher counts now; its record says what it counted some seconds ago.
            viewers: match view.own {
                true => view.viewers.into(),
                false => record.viewers.unwrap_or(0).max(view.viewers.into()),
            },
            epoch: record.epoch,
            local,
            audience: shown_audience(view),
            ingest: None,
        }
    }

    /// Every ticket between this node and others.
    pub async fn tickets(&self) -> Vec<api::Ticket> {
        let views = self.inner.inbox.inspect(|overlay, now| {
            let named = |ticket: &TicketView| {
                overlay
                    .stream_view(now, ticket.stream)
                    .map(|view| view.slug)
                    .unwrap_or_default()
            };
            let tickets = overlay.tickets_view(now);
            tickets
                .into_iter()
                .map(|t| (named(&t), t, now))
                .collect::<Vec<_>>()
        });
        let views = views.await.unwrap_or_default();
        let known: Vec<TicketId> = views.iter().map(|(_, ticket, _)| ticket.id).collect();
        lock(&self.inner.state.rates).retain(|id, _| known.contains(id));
        views
            .into_iter()
            .map(|(slug, ticket, now)| self.show_ticket(slug, &ticket, now))
            .collect()
    }

    /// The ticket under which a stream arrives here.
    pub(super) async fn intake_ticket(&self, id: StreamId) -> Option<api::Ticket> {
        let tickets = self.tickets().await;
        tickets.into_iter().find(|ticket| {
            let taken_in = ticket.stream.id == id && ticket.destination == self.inner.id;
            taken_in && ticket.state == api::TicketState::Active
        })
    }

    fn show_ticket(&self, slug: String, ticket: &TicketView, now: Time) -> api::Ticket {
        let bytes = self.traffic(ticket.id);
        api::Ticket {
            id: ticket.id.to_string(),
            stream: api::TicketStream {
                id: ticket.stream,
                slug,
            },
            source: ticket.source,
            destination: ticket.destination,
            state: if ticket.standby {
                api::TicketState::Standby
            } else {
                api::TicketState::Active
            },
            reason: None,
            hops: ticket.path.len().saturating_sub(1) as u32,
            path: ticket.path.clone(),
            created_at: rfc3339(now, ticket.created),
            expires_at: rfc3339(now, ticket.expires),
            bytes,
            bitrate_bps: self.rate(ticket.id, bytes, now.since(ticket.created)),
        }
    }

    fn traffic(&self, id: TicketId) -> u64 {
        let traffic = lock(&self.inner.traffic);
        match traffic.get(&id) {
            Some(Traffic::Out(bytes)) => bytes.load(Ordering::Relaxed),
            Some(Traffic::In(intake)) => intake.bytes.load(Ordering::Relaxed),
            None => 0,
        }
    }

    /// The rate since the last look that is long enough ago; at the first, that of the
    /// ticket's whole life.
    fn rate(&self, id: TicketId, bytes: u64, life: Duration) -> u64 {
        let now = Instant::now();
        let mut rates = lock(&self.inner.state.rates);
        let mark = rates.entry(id).or_insert(RateMark {
            at: now,
            bytes,
            rate_bps: (bytes as f64 * 8.0 / life.as_secs_f64().max(1.0)) as u64,
        });
        let over = now - mark.at;
        if over >= RATE_OVER {
            let bits = bytes.saturating_sub(mark.bytes) as f64 * 8.0;
            *mark = RateMark {
                at: now,
                bytes,
                rate_bps: (bits / over.as_secs_f64()) as u64,
            };
        }
        mark.rate_bps
    }
}

fn with_addresses(
    overlay: &astral_proto::overlay::Overlay,
    views: Vec<StreamView>,
) -> Vec<(StreamView, Vec<Address>)> {
    views
        .into_iter()
        .map(|view| {
            let at = overlay.addresses_of(view.record.value().publisher);
            (view, at)
        })
        .collect()
}

fn other_node(now: Time, peer: PeerView) -> api::Node {
    api::Node {
        uuid: peer.node,
        name: peer.name.unwrap_or_else(|| peer.node.short()),
        addresses: texts(&peer.addresses),
        role: shown_role(peer.role),
        primary_supernode: None,
        backup_supernode: None,
        mesh: Vec::new(),
        registered: 0,
        role_reason: None,
        reachability: None,
        is_self: false,
        rtt_ms: peer.rtt.map(|rtt| rtt.as_micros() as f64 / 1e3),
        upload_limit_bps: None,
        upload_used_bps: None,
        children: peer.tickets,
        version: peer.software.unwrap_or_default(),
        last_seen: rfc3339(now, peer.seen),
        connected: peer.rtt.is_some(),
        warnings: Vec::new(),
    }
}

fn shown_audience(view: &StreamView) -> Option<api::Audience> {
    let audience = &view.audience;
    let ms = |percent| audience.delay(percent).as_micros() as f64 / 1e3;
    (audience.viewers() > 0).then(|| api::Audience {
        viewers: audience.viewers().into(),
        places: view.places.into(),
        delay_p50_ms: ms(50),
        delay_p99_ms: ms(99),
        depth: audience.depth,
        stalls: audience.stalls.into(),
        lost: audience.lost.into(),
    })
}

fn shown_role(role: Role) -> api::Role {
    match role {
        Role::Node => api::Role::Node,
        Role::Supernode => api::Role::Supernode,
    }
}

fn track(track: &TrackSummary) -> api::Track {
    let kind = if track.sample_rate.is_some() {
        "audio"
    } else {
        "video"
    };
    api::Track {
        id: track.id,
        kind: kind.into(),
        codec: track.codec.clone(),
        width: track.width,
        height: track.height,
        sample_rate: track.sample_rate,
        channels: track.channels,
    }
}
