//! `GET /metrics` for Prometheus.
//!
//! Everything is read when it is asked for: a node that nobody scrapes spends
//! nothing. Series are bounded by the streams that are held here and the peers
//! that are connected; a stream's series end with its store. `METRICS.md` beside this
//! crate lists them all, which is tested.

use std::sync::Arc;

use astral_proto::api;
use astral_proto::api::StreamState;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::App;
use super::problem::Failure;

type Labels = Vec<(&'static str, String)>;

/// `GET /metrics`.
#[utoipa::path(
    get,
    path = "/metrics",
    responses((status = 200, description = "Metrics as METRICS.md lists them; OpenMetrics if `Accept` names it", content((String = "text/plain; version=0.0.4; charset=utf-8"), (String = "application/openmetrics-text; version=1.0.0; charset=utf-8")))),
)]
pub(super) async fn metrics(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let mut registry = Registry::with_prefix("astral");
    node(&app, &mut registry).await;
    streams(&app, &mut registry).await;
    tickets(&app, &mut registry).await;
    stores(&app, &mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).map_err(|_| Failure::not_now("the metrics are not readable"))?;
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok());
    let (kind, text) = api::metrics::answer(text, accept);
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn whole(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// This node, its upload and its peers.
async fn node(app: &App, registry: &mut Registry) {
    let node = app.handle.node().await;
    let info = Info::new(vec![
        ("version", node.version.clone()),
        ("uuid", node.uuid.to_string()),
    ]);
    registry.register("node", "The node's version and id", info);
    let limit = node.upload_limit_bps.map_or(-1, whole);
    gauge(
        registry,
        "upload_limit_bps",
        "Most upload to spend in bit/s; -1 without limit",
        limit,
    );
    gauge(
        registry,
        "upload_used_bps",
        "Upload of the last second in bit/s, headers and acknowledgements counted in",
        whole(node.upload_used_bps.unwrap_or(0)),
    );
    let sent: Counter = Counter::default();
    sent.inc_by(app.handle.uplink().sent_bytes());
    registry.register_with_unit(
        "upload",
        "Bytes that left this node, headers and acknowledgements counted in",
        Unit::Bytes,
        sent,
    );
    gauge(
        registry,
        "children",
        "Tickets that this node feeds",
        node.children.into(),
    );
    let peers = app.handle.nodes().await;
    let connected = peers.iter().filter(|peer| peer.connected && !peer.is_self);
    let rtt: Family<Labels, Gauge<f64, std::sync::atomic::AtomicU64>> = Family::default();
    let mut count = 0;
    for peer in connected {
        count += 1;
        if let Some(rtt_ms) = peer.rtt_ms {
            let labels = vec![("peer", peer.uuid.to_string())];
            rtt.get_or_create(&labels).set(rtt_ms / 1e3);
        }
    }
    gauge(registry, "peers", "Nodes that are connected", count);
    registry.register_with_unit(
        "peer_rtt",
        "Round-trip time to each connected node",
        Unit::Seconds,
        rtt,
    );
}

/// Known streams by state, and how each own one stands.
async fn streams(app: &App, registry: &mut Registry) {
    let family: Family<Labels, Gauge> = Family::default();
    let ingest: Family<Labels, Gauge> = Family::default();
    let states: Family<Labels, Gauge> = Family::default();
    for stream in app.handle.streams().await {
        let state = word(stream.state);
        family
            .get_or_create(&vec![("state", state.to_owned())])
            .inc();
        if app.handle.ingest_of(stream.id).is_some() {
            let live = stream.state == StreamState::Live;
            let labels = vec![("stream", stream.id.to_string())];
            ingest.get_or_create(&labels).set(i64::from(live));
            for each in [StreamState::Live, StreamState::Waiting, StreamState::Paused] {
                let mut labels = labels.clone();
                labels.push(("state", word(each).to_owned()));
                let is_so = each == stream.state;
                states.get_or_create(&labels).set(i64::from(is_so));
            }
        }
    }
    registry.register(
        "ingest_state",
        "Where each of this node's own streams stands: 1 for the state that it is in",
        states,
    );
    registry.register("streams", "Streams known here, by state", family);
    registry.register(
        "ingest_live",
        "Whether the encoder of each of this node's own streams sends",
        ingest,
    );
}

fn word(state: StreamState) -> &'static str {
    match state {
        StreamState::Live => "live",
        StreamState::Waiting => "waiting",
        StreamState::Paused => "paused",
        StreamState::Ended => "ended",
    }
}

async fn tickets(app: &App, registry: &mut Registry) {
    let family: Family<Labels, Gauge> = Family::default();
    let this = app.handle.id();
    for ticket in app.handle.tickets().await {
        let state = match ticket.state {
            api::TicketState::Offered => "offered",
            api::TicketState::Active => "active",
            api::TicketState::Standby => "standby",
            api::TicketState::Ended => "ended",
        };
        let direction = if ticket.source == this { "out" } else { "in" };
        let labels = vec![
            ("state", state.to_owned()),
            ("direction", direction.to_owned()),
        ];
        family.get_or_create(&labels).inc();
    }
    registry.register("tickets", "Tickets by state and direction", family);
}

/// What is held and has gone through, for each stream that this node keeps.
fn stores(app: &App, registry: &mut Registry) {
    let stats = app.handle.store_stats();
    let counter = |of: &dyn Fn(&crate::handle::StoreStats) -> u64| {
        let family: Family<Labels, Counter> = Family::default();
        for (id, stats) in &stats {
            let labels = vec![("stream", id.to_string())];
            family.get_or_create(&labels).inc_by(of(stats));
        }
        family
    };
    registry.register(
        "frames_verified",
        "Frames taken in whole, each chunk checked against its signed hash",
        counter(&|stats| stats.frames),
    );
    registry.register(
        "media_refused",
        "Times that bytes did not verify, and their sender was left",
        counter(&|stats| stats.refused),
    );
    registry.register(
        "frames_forwarded",
        "Frames written to children",
        counter(&|stats| stats.forwarded),
    );
    registry.register_with_unit(
        "received",
        "Bytes of headers and payload taken in",
        Unit::Bytes,
        counter(&|stats| stats.bytes),
    );
    let lost: Family<Labels, Gauge> = Family::default();
    let held: Family<Labels, Gauge> = Family::default();
    for (id, stats) in &stats {
        let labels = vec![("stream", id.to_string())];
        lost.get_or_create(&labels).set(whole(stats.lost));
        held.get_or_create(&labels).set(whole(stats.held as u64));
    }
    registry.register(
        "frames_lost",
        "Frames known to be missing; falls when one is repaired",
        lost,
    );
    registry.register_with_unit("store", "Bytes held of each stream", Unit::Bytes, held);
}
