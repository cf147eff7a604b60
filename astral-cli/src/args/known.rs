//! What a shell completes from the running node: slugs, ids and settings.
//!
//! Asked for while somebody waits with a finger on the Tab key: the node has half a
//! second, and without an answer nothing is offered.

use std::time::Duration;

use astral_proto::api::settings::Settings;
use astral_proto::api::{Node, Stream, Ticket};
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use serde::de::DeserializeOwned;

use crate::client::Api;
use crate::failure::Failure;
use crate::home::{self, Choice};

/// Longest wait for the node.
const PATIENCE: Duration = Duration::from_millis(500);

/// Streams that the node knows.
pub(super) fn slugs() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        list("streams", |stream: Stream| {
            CompletionCandidate::new(stream.slug).help(Some(stream.name.into()))
        })
    })
}

/// Nodes that the node knows, itself left out.
pub(super) fn nodes() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        list("nodes", |node: Node| {
            let name = node.name.into();
            CompletionCandidate::new(node.uuid.to_string())
                .help(Some(name))
                .hide(node.is_self)
        })
    })
}

/// Tickets that the node knows.
pub(super) fn tickets() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        list("tickets", |ticket: Ticket| {
            let slug = ticket.stream.slug.into();
            CompletionCandidate::new(ticket.id).help(Some(slug))
        })
    })
}

/// Names of settings.
pub(super) fn settings() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let found = ask(async |api| api.get::<Settings>(&["settings"]).await);
        let settings = found.map(|(settings, _)| settings).unwrap_or_default();
        settings
            .0
            .into_keys()
            .map(CompletionCandidate::new)
            .collect()
    })
}

fn list<T: DeserializeOwned>(
    what: &str,
    candidate: impl Fn(T) -> CompletionCandidate,
) -> Vec<CompletionCandidate> {
    let found = ask(async |api| api.list(&[what]).await);
    let items: Vec<T> = found.map(|(items, _)| items).unwrap_or_default();
    items.into_iter().map(candidate).collect()
}

/// Asks the node that the environment names, on a runtime of its own: completion
/// happens before the program's has begun.
fn ask<T>(question: impl AsyncFnOnce(Api) -> Result<T, Failure>) -> Option<T> {
    let target = home::locate(&Choice::default(), home::environment).ok()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .ok()?;
    let asked = async { tokio::time::timeout(PATIENCE, question(Api::new(target))).await };
    runtime.block_on(asked).ok()?.ok()
}
