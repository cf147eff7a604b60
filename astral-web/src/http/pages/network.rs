//! The network as supernodes report it: counts, never who watches what.

use std::collections::BTreeMap;

use askama::Template;
use astral_proto::ids::StreamId;
use astral_proto::record::NodeRecord;
use axum::extract::State as Shared;
use axum::response::Response;
use hyper::StatusCode;

use super::card::{count, rate};
use super::picture::{Bubbles, percent};
use super::{Web, page};
use crate::catalog::{Catalog, Row};
use crate::state::now_ms;

/// Supernodes in the picture.
const BUBBLES_MAX: usize = 400;
/// Supernodes in the table.
const ROWS_MAX: usize = 20;
/// Streams in the table.
const STREAMS_MAX: usize = 50;

#[derive(Template)]
#[template(path = "network.html")]
struct Network {
    here: &'static str,
    nodes: String,
    supernodes: usize,
    more_supernodes: bool,
    streams: String,
    watching: String,
    /// Whether any supernode tells how busy it is.
    reported: bool,
    registered: String,
    places: String,
    fed: String,
    bubbles: Bubbles,
    rows: Vec<Supernode>,
    lines: Vec<Line>,
    more_streams: usize,
}

/// A supernode in the table.
struct Supernode {
    name: String,
    short: String,
    version: String,
    /// What it reports, if it does.
    load: Option<Load>,
    seen: String,
    size: u32,
}

struct Load {
    registered: u32,
    places: u64,
    percent: u64,
    children: u32,
}

/// A stream in the table.
struct Line {
    slug: String,
    name: String,
    state: &'static str,
    viewers: u64,
    watching: String,
    percent: u64,
    bitrate: String,
    /// What supernodes report, if any does.
    spread: Option<Spread>,
}

/// What all supernodes together report of a stream.
#[derive(Clone, Copy, Default)]
struct Spread {
    supernodes: u32,
    depth: u8,
    delay_ms: u32,
    children: u32,
}

impl Line {
    /// Depth as dots, one for each hop, as far as they fit.
    fn hops(&self) -> std::ops::Range<u8> {
        0..self.spread.map_or(0, |spread| spread.depth.min(8))
    }
}

pub(super) async fn network(Shared(state): Web) -> Response {
    let network = {
        let catalog = state.catalog();
        draw(&catalog, now_ms())
    };
    page(StatusCode::OK, &network)
}

fn draw(catalog: &Catalog, now: u64) -> Network {
    let mut rows: Vec<Supernode> = catalog
        .nodes
        .ranked(1)
        .map(|row| supernode(row, now))
        .collect();
    rows.sort_by(|a, b| b.size.cmp(&a.size).then_with(|| a.name.cmp(&b.name)));
    let loads = || rows.iter().filter_map(|row| row.load.as_ref());
    let sum = |of: fn(&Load) -> u64| loads().map(of).fold(0, u64::saturating_add);
    let bubbles = rows.iter().take(BUBBLES_MAX).map(bubble).collect();
    let listed: Vec<_> = catalog.top_streams().collect();
    let viewers = listed.iter().filter_map(|row| row.record.value().viewers);
    let (supernodes, reported) = (rows.len(), loads().next().is_some());
    let (registered, places) = (
        count(sum(|load| load.registered.into())),
        count(sum(|load| load.places)),
    );
    let fed = count(sum(|load| load.children.into()));
    rows.truncate(ROWS_MAX);
    Network {
        here: "network",
        nodes: count(catalog.nodes.len() as u64),
        supernodes,
        more_supernodes: supernodes > ROWS_MAX,
        streams: count(listed.len() as u64),
        watching: count(viewers.fold(0, u64::saturating_add)),
        reported,
        registered,
        places,
        fed,
        bubbles: Bubbles::new(bubbles),
        lines: lines(catalog),
        more_streams: listed.len().saturating_sub(STREAMS_MAX),
        rows,
    }
}

fn supernode(row: &Row<NodeRecord>, now: u64) -> Supernode {
    let record = row.record.value();
    let name = record.name.clone().filter(|name| !name.trim().is_empty());
    let load = record.load.as_ref().map(|load| {
        let places = u64::from(load.registered) + u64::from(load.room);
        Load {
            registered: load.registered,
            places,
            percent: percent(load.registered.into(), places),
            children: load.children,
        }
    });
    Supernode {
        name: name.unwrap_or_else(|| "without a name".to_owned()),
        short: record.id().short(),
        version: record.software.clone().unwrap_or_default(),
        size: load.as_ref().map_or(0, |load| load.registered),
        load,
        seen: format!("{} s ago", now.saturating_sub(row.renewed) / 1000),
    }
}

fn bubble(row: &Supernode) -> (u32, String, u8) {
    let Supernode { name, short, .. } = row;
    match &row.load {
        Some(load) => {
            let Load {
                registered, places, ..
            } = load;
            let title = format!("{name} ({short}): {registered} nodes of {places} places");
            let level = u8::try_from(load.percent / 20).unwrap_or(4).min(4);
            (*registered, title, level)
        }
        None => (
            0,
            format!("{name} ({short}): does not tell how busy it is"),
            5,
        ),
    }
}

fn lines(catalog: &Catalog) -> Vec<Line> {
    let mut spreads: BTreeMap<StreamId, Spread> = BTreeMap::new();
    let loads = catalog
        .nodes
        .ranked(1)
        .filter_map(|row| row.record.value().load.as_ref());
    for one in loads.flat_map(|load| &load.streams) {
        let spread = spreads.entry(one.stream).or_default();
        spread.supernodes += 1;
        spread.depth = spread.depth.max(one.depth);
        spread.delay_ms = spread.delay_ms.max(one.delay_ms);
        spread.children = spread.children.saturating_add(one.children);
    }
    let shown: Vec<_> = catalog.top_streams().take(STREAMS_MAX).collect();
    let most = shown
        .iter()
        .filter_map(|row| row.record.value().viewers)
        .max();
    let line = |row: &&Row<astral_proto::record::StreamRecord>| {
        let record = row.record.value();
        let viewers = record.viewers.unwrap_or(0);
        Line {
            slug: catalog.slug(record),
            name: record.name.clone(),
            state: match record.state {
                astral_proto::record::StreamState::Live => "live",
                astral_proto::record::StreamState::Waiting => "waiting",
                astral_proto::record::StreamState::Paused => "paused",
                astral_proto::record::StreamState::Ended => "ended",
            },
            viewers,
            watching: count(viewers),
            percent: percent(viewers, most.unwrap_or(0)),
            bitrate: rate(record.bitrate_bps.unwrap_or(0)),
            spread: spreads.get(&record.id()).copied(),
        }
    };
    shown.iter().map(line).collect()
}
