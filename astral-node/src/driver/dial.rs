//! Connecting: names resolved, addresses tried a little apart, the first that
//! answers wins.

use std::net::SocketAddr;
use std::time::Duration;

use astral_proto::overlay::{DialId, Event, Target};
use tokio::task::JoinSet;
use tracing::debug;

use super::Inbox;
use crate::transport::endpoint;

/// Time from one address to the next (RFC 8305 §5 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// A name is looked up within this.
const RESOLVE: Duration = Duration::from_secs(5);
/// Addresses tried for one target.
const ADDRESSES_TRIED: usize = 8;

/// Dials a target and tells the driver what came of it.
pub(super) async fn dial(endpoint: quinn::Endpoint, inbox: Inbox, dial: DialId, target: Target) {
    match connect(&endpoint, &target).await {
        Ok(conn) => inbox.connected(conn, Some(dial)).await,
        Err(words) => {
            debug!(addresses = ?target.addresses, %words, "dial failed");
            inbox.event(Event::DialFailed { dial }, words).await;
        }
    }
}

async fn connect(endpoint: &quinn::Endpoint, target: &Target) -> Result<quinn::Connection, String> {
    let mut last = "no address".to_owned();
    let mut attempts = JoinSet::new();
    for (index, address) in resolve(&target.addresses, &mut last)
        .await
        .into_iter()
        .enumerate()
    {
        let endpoint = endpoint.clone();
        attempts.spawn(async move {
            tokio::time::sleep(STAGGER * index as u32).await;
            let connected = endpoint::connect(&endpoint, address).await;
            connected.map_err(|error| format!("{address}: {error}"))
        });
    }
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(conn)) => return Ok(conn),
            Ok(Err(words)) => last = words,
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

async fn resolve(names: &[String], last: &mut String) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for name in names {
        match tokio::time::timeout(RESOLVE, tokio::net::lookup_host(name)).await {
            Ok(Ok(found)) => addresses.extend(found),
            Ok(Err(error)) => *last = format!("{name}: {error}"),
            Err(_) => *last = format!("{name}: no answer from the name service"),
        }
    }
    addresses.truncate(ADDRESSES_TRIED);
    addresses
}
