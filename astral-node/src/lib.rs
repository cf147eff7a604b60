//! The Astral node: takes live streams in, forwards and plays them, peer to peer.
//!
//! See `ARCHITECTURE.md` beside this crate: planes, code map, invariants.

mod bootstrap;
mod config;
pub mod daemon;
mod driver;
mod fanout;
mod handle;
mod http;
mod ingest;
mod lock;
pub mod logging;
mod node;
mod ready;
pub mod signals;
mod storage;
mod store;
mod transport;
mod uplink;
mod whereabouts;

pub use config::{AcceptSeeds, Config, Congestion, LogFormat, RateError, Supernode, UpstreamLimit};
pub use handle::{ApiError, Handle, Seeded, Watched};
pub use node::Node;
