//! TEMPORARY stand-in, replaced at the merge: what the HTTP side reads of the settings.

use std::net::SocketAddr;

/// Settings.
pub(crate) struct Config {
    pub(crate) http: SocketAddr,
    pub(crate) allow_origin: Vec<String>,
    pub(crate) public_http: Option<String>,
    pub(crate) require_token: bool,
}
