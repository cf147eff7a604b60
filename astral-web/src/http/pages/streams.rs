//! What is on, and one of it.

use std::net::IpAddr;

use askama::Template;
use astral_proto::ids::{NodeId, StreamId};
use axum::extract::{Extension, Path, State as Shared};
use axum::response::Response;
use hyper::{StatusCode, Uri};
use serde::Deserialize;

use super::card::{Card, count};
use super::picture::{Reported, Tree};
use super::{Missing, OWN_NODE, Rights, Web, name_of, page, page_with};
use crate::catalog::{Catalog, Row};
use crate::http::api::find;
use crate::http::body::query;
use crate::http::caller::{Caller, Site};
use crate::http::show::Shelf;
use crate::state::now_ms;
use astral_proto::record::NodeRecord;

/// Streams on one page of the list.
const SHOWN: usize = 48;
/// Streams that a search looks through.
const SEARCHED_MAX: usize = 2_000;
/// Supernodes in the picture of an audience.
const BRANCHES_MAX: usize = 12;
/// Nodes that are looked through for one that plays for strangers.
const HOSTS_OUT_OF: usize = 5_000;

#[derive(Template)]
#[template(path = "index.html")]
struct Index {
    here: &'static str,
    site: String,
    cards: Vec<Card>,
    streams: usize,
    watching: String,
    /// What is searched for.
    wanted: String,
    /// Streams that are not shown.
    more: usize,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Search {
    q: String,
}

pub(super) async fn index(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    site: Option<Extension<Site>>,
    uri: Uri,
) -> Response {
    let Search { q } = query(&uri).unwrap_or_default();
    let wanted: String = q.trim().chars().take(100).collect();
    let index = {
        let (catalog, now) = (state.catalog(), now_ms());
        let history = state.history();
        let shelf = Shelf::new(&catalog, caller);
        let low = wanted.to_lowercase();
        let fits = |name: &str| low.is_empty() || name.to_lowercase().contains(&low);
        let all = catalog.top_streams().take(SEARCHED_MAX);
        let found: Vec<_> = all.filter(|row| fits(&row.record.value().name)).collect();
        let watching = found.iter().filter_map(|row| row.record.value().viewers);
        let watching = watching.fold(0u64, u64::saturating_add);
        let cards = found.iter().take(SHOWN);
        Index {
            here: "live",
            site: name_of(site),
            cards: cards
                .map(|row| Card::new(&shelf.stream(row), &catalog, &history, now))
                .collect(),
            streams: found.len(),
            watching: count(watching),
            more: found.len().saturating_sub(SHOWN),
            wanted,
        }
    };
    page(StatusCode::OK, &index)
}

/// A node that plays for strangers.
struct Host {
    uuid: NodeId,
    name: String,
    origin: String,
    url: String,
}

#[derive(Template)]
#[template(path = "stream.html")]
struct Stream {
    here: &'static str,
    site: String,
    card: Card,
    id: StreamId,
    share: String,
    own_node: &'static str,
    tree: Option<Tree>,
    /// The largest delay and depth that supernodes report.
    delay_ms: u32,
    depth: u8,
    host: Option<Host>,
    /// Whether the host's player is to be shown.
    playing: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Play {
    play: Option<NodeId>,
}

pub(super) async fn stream(
    Shared(state): Web,
    Extension(Caller(caller)): Extension<Caller>,
    site: Option<Extension<Site>>,
    Path(slug): Path<String>,
    uri: Uri,
) -> Response {
    let Play { play } = query(&uri).unwrap_or_default();
    let found = match find(&state, caller, &slug) {
        Ok(found) => found,
        Err(failure) => {
            let (status, detail, candidates) = failure.into_parts();
            let title = "This stream is not here";
            let missing = Missing {
                here: "",
                title,
                detail,
                candidates,
            };
            return page(status, &missing);
        }
    };
    let site = name_of(site);
    let shown = {
        let (catalog, now) = (state.catalog(), now_ms());
        let reports = reports(&catalog, found.id);
        let host = host(&catalog, &found, caller, site.starts_with("https:"), play);
        Stream {
            here: "",
            card: Card::new(&found, &catalog, &state.history(), now),
            id: found.id,
            share: found.share.clone(),
            own_node: OWN_NODE,
            delay_ms: reports.iter().map(|one| one.delay_ms).max().unwrap_or(0),
            depth: reports.iter().map(|one| one.depth).max().unwrap_or(0),
            tree: (!reports.is_empty()).then(|| Tree::new(&reports)),
            playing: host.as_ref().is_some_and(|host| play == Some(host.uuid)),
            host,
            site,
        }
    };
    let frame = shown.host.as_ref().filter(|_| shown.playing);
    let rights = Rights {
        frame: frame.map(|host| host.origin.clone()),
        own_node: true,
    };
    page_with(StatusCode::OK, &shown, &rights)
}

/// What supernodes report of a stream, those with the most viewers first.
fn reports(catalog: &Catalog, id: StreamId) -> Vec<Reported> {
    let report = |row: &Row<NodeRecord>| {
        let record = row.record.value();
        let streams = &record.load.as_ref()?.streams;
        let one = streams.iter().find(|one| one.stream == id)?;
        let name = record.name.clone().filter(|name| !name.trim().is_empty());
        Some(Reported {
            name: name.unwrap_or_else(|| format!("supernode {}", record.id().short())),
            viewers: one.viewers,
            depth: one.depth,
            delay_ms: one.delay_ms,
        })
    };
    let mut reports: Vec<_> = catalog.nodes.ranked(1).filter_map(report).collect();
    reports.sort_by(|a, b| b.viewers.cmp(&a.viewers).then(a.name.cmp(&b.name)));
    reports.truncate(BRANCHES_MAX);
    reports
}

/// A node from which a visitor without one can play: the one that plays already, the
/// publisher, or another, each visitor having its own.
fn host(
    catalog: &Catalog,
    stream: &astral_proto::api::web::WebStream,
    caller: IpAddr,
    secure: bool,
    asked: Option<NodeId>,
) -> Option<Host> {
    let offer = |row: &Row<NodeRecord>| {
        let record = row.record.value();
        let url = record.public_http.as_deref()?.trim_end_matches('/');
        let origin = origin(url)?;
        // A page over https may frame https only (mixed content).
        let fits = !secure || origin.starts_with("https:");
        let name = record.name.clone().filter(|name| !name.trim().is_empty());
        fits.then(|| Host {
            uuid: record.id(),
            name: name.unwrap_or_else(|| format!("node {}", record.id().short())),
            origin,
            url: url.to_owned(),
        })
    };
    let of = |id: NodeId| catalog.nodes.row(id.0).and_then(offer);
    let local = caller.is_loopback();
    let mut others: Vec<Host> = Vec::new();
    if let Some(host) = asked.and_then(of).or_else(|| of(stream.publisher)) {
        return Some(host);
    }
    others.extend(
        catalog
            .nodes_for(local, None)
            .take(HOSTS_OUT_OF)
            .filter_map(offer),
    );
    others.into_iter().min_by_key(|host| {
        let seed = format!("{caller} {} {}", stream.id, host.uuid);
        astral_proto::ids::sha256(seed.as_bytes())
    })
}

/// The origin of a stranger's URL, if it is a plain one: it gets into the page's policy.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let fits = !authority.is_empty() && authority.chars().all(plain);
    let path = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '<' | '>' | '?' | '#' | '\\');
    let fits = fits && rest.chars().all(path) && matches!(scheme, "http" | "https");
    fits.then(|| format!("{scheme}://{}", authority.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::origin;

    #[test]
    fn only_plain_urls_get_into_a_policy() {
        assert_eq!(
            origin("https://A.example:8443/x"),
            Some("https://a.example:8443".into())
        );
        assert_eq!(
            origin("http://[::1]:8000"),
            Some("http://[::1]:8000".into())
        );
        for wrong in [
            "javascript:alert(1)",
            "https://a.example;script-src *",
            "https://user@a.example",
            "https://a example",
            "https://",
            "https://a.example/\"onload",
            "ftp://a.example",
        ] {
            assert_eq!(origin(wrong), None, "{wrong}");
        }
    }
}
