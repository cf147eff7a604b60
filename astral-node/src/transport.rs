//! QUIC between nodes: who may connect, over which socket, with which settings.
//!
//! The only place that names `quinn`'s configuration. What is said over a connection is
//! not decided here.

pub(crate) mod connection;
pub(crate) mod endpoint;
mod gatekeeper;
mod prober;
mod receive;
mod socket;
mod tls;
mod tolerant;

pub(crate) use gatekeeper::{Admission, Gatekeeper};
pub(crate) use prober::Prober;
pub(crate) use tls::peer_key;
