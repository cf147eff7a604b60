//! The Astral node: takes in, forwards and plays live streams, peer to peer.

#[allow(dead_code, unused_imports)]
mod store;
