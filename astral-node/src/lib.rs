//! The Astral node: takes in, forwards and plays live streams, peer to peer.

mod config;
#[allow(dead_code, unused_imports)]
mod ingest;
mod logging;
#[allow(dead_code)]
mod ready;
#[allow(dead_code)]
mod storage;
#[allow(dead_code, unused_imports)]
mod store;
#[allow(dead_code, unused_imports)]
mod transport;
#[allow(dead_code)]
mod uplink;

pub use config::{Config, Congestion, LogFormat, RateError, SupernodeMode, UpstreamLimit};
pub use logging::init as init_logging;
