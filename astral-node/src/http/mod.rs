//! The node's HTTP side: the local API, media for players and encoders, and the pages.
//!
//! [`serve::serve`] runs connections; [`guard`] decides, before any route, who may
//! ask at all; [`routes`] is the map. What a route needs of the node it asks of
//! [`Handle`]: nothing here knows peers, tickets or keys.

mod api;
mod extract;
mod guard;
mod headers;
mod host;
mod ingest;
mod ingest_ws;
mod linger;
mod links;
mod list;
mod live;
mod metrics;
mod openapi;
mod pages;
mod problem;
mod routes;
mod serve;
mod stall;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::handle::Handle;
pub(crate) use serve::serve;

/// What every route can reach.
struct App {
    handle: Handle,
    guard: guard::Guard,
    /// Cancelled when the node stops: endless answers end.
    stop: CancellationToken,
    /// Cancelled when stopping has taken long enough.
    kill: CancellationToken,
    /// Everything that runs beside the accept loop.
    tasks: TaskTracker,
    /// Next key of a reader at the uplink.
    next_reader: AtomicU64,
}

/// The connection by which a request came.
#[derive(Clone)]
struct Caller {
    peer: SocketAddr,
    local: IpAddr,
    /// One of the places that [`serve()`] has to give; WebSockets keep theirs.
    _place: Arc<OwnedSemaphorePermit>,
}
