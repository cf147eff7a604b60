//! A node of Astral: takes streams in, passes them on, and serves this machine.

#![allow(dead_code, unused_imports)] // TEMPORARY: nothing starts the HTTP side yet; goes at the merge.

mod config;
mod http;
mod ingest;
mod node;
mod store;
mod uplink;
