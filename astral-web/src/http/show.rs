//! Rows as the API and the pages show them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use astral_proto::api::web::{WebNode, WebStream};
use astral_proto::api::{Role, StreamState, Track};
use astral_proto::ids::sha256;
use astral_proto::link::ShareLink;
use astral_proto::record::{self, NodeRecord, StreamRecord, TrackSummary};
use data_encoding::BASE64URL_NOPAD;

use crate::catalog::{Catalog, Row};

/// Supernodes in a bootstrap answer: enough to survive the loss of most.
const SUPERNODES_MAX: usize = 16;
/// Supernodes in a share link, which people paste.
const SHARE_ADDRESSES_MAX: usize = 3;

/// RFC 3339 in UTC; times that no calendar has are its end.
pub(super) fn rfc3339(unix_ms: u64) -> String {
    // 9999-12-31T23:59:59Z.
    const END_MS: u64 = 253_402_300_799_000;
    let since = Duration::from_millis(unix_ms.min(END_MS));
    humantime::format_rfc3339_millis(SystemTime::UNIX_EPOCH + since).to_string()
}

/// A node; addresses and record for supernodes only.
pub(super) fn node(row: &Row<NodeRecord>) -> WebNode {
    let record = row.record.value();
    let is_super = record.role == record::Role::Supernode;
    let addresses = record.addresses.iter().filter(|_| is_super);
    WebNode {
        uuid: record.id(),
        name: record.name.clone().unwrap_or_default(),
        addresses: addresses.map(|address| address.0.to_string()).collect(),
        role: match record.role {
            record::Role::Node => Role::Node,
            record::Role::Supernode => Role::Supernode,
        },
        version: record.software.clone().unwrap_or_default(),
        last_seen: rfc3339(row.renewed),
        public_http: record.public_http.clone(),
        record: is_super.then(|| BASE64URL_NOPAD.encode(row.record.wire())),
    }
}

/// Supernodes for a caller: the same ones for the same caller while they last, others
/// for others, and from as many networks as there are.
pub(super) fn supernodes(catalog: &Catalog, caller: IpAddr) -> Vec<WebNode> {
    let mut ranked: Vec<_> = catalog
        .supernodes_for(caller.is_loopback())
        .map(|row| {
            let seed = format!("{caller} {}", row.record.value().id());
            (sha256(seed.as_bytes()), row)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    let mut turns = BTreeMap::new();
    let mut spread: Vec<_> = ranked
        .into_iter()
        .map(|(rank, row)| {
            let turn = turns.entry(row.prefix).or_insert(0u32);
            *turn += 1;
            (*turn, rank, row)
        })
        .collect();
    spread.sort_by_key(|(turn, rank, _)| (*turn, *rank));
    let chosen = spread.into_iter().take(SUPERNODES_MAX);
    chosen.map(|(_, _, row)| node(row)).collect()
}

/// What all streams of one answer have in common.
pub(super) struct Shelf<'a> {
    catalog: &'a Catalog,
    /// Those that the caller is told of.
    pub(super) supernodes: Vec<WebNode>,
    addresses: Vec<String>,
}

impl<'a> Shelf<'a> {
    pub(super) fn new(catalog: &'a Catalog, caller: IpAddr) -> Self {
        let supernodes = supernodes(catalog, caller);
        let addresses = supernodes
            .iter()
            .filter_map(|node| node.addresses.first().cloned());
        Self {
            catalog,
            addresses: addresses.take(SHARE_ADDRESSES_MAX).collect(),
            supernodes,
        }
    }

    pub(super) fn stream(&self, row: &Row<StreamRecord>) -> WebStream {
        let record = row.record.value();
        let id = record.id();
        let share = ShareLink {
            stream: id,
            addresses: self.addresses.clone(),
        };
        WebStream {
            id,
            slug: self.catalog.slug(record),
            name: record.name.clone(),
            description: record.description.clone().unwrap_or_default(),
            publisher: record.publisher,
            share: share.to_string(),
            state: state(record.state),
            tracks: record.tracks.iter().map(track).collect(),
            bitrate_bps: record.bitrate_bps.unwrap_or(0),
            started_at: rfc3339(record.started_at_ms),
            viewers: record.viewers.unwrap_or(0),
            epoch: record.epoch,
            record: BASE64URL_NOPAD.encode(row.record.wire()),
        }
    }
}

fn state(state: record::StreamState) -> StreamState {
    match state {
        record::StreamState::Live => StreamState::Live,
        record::StreamState::Waiting => StreamState::Waiting,
        record::StreamState::Paused => StreamState::Paused,
        record::StreamState::Ended => StreamState::Ended,
    }
}

fn track(track: &TrackSummary) -> Track {
    let is_audio = track.sample_rate.is_some() || track.channels.is_some();
    Track {
        id: track.id,
        kind: if is_audio { "audio" } else { "video" }.to_owned(),
        codec: track.codec.clone(),
        width: track.width,
        height: track.height,
        sample_rate: track.sample_rate,
        channels: track.channels,
    }
}
