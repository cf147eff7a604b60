//! The types of astral-web's JSON API, from which nodes bootstrap (DESIGN §7, §8).
//!
//! Records travel as they were signed: whoever receives them verifies them, and
//! the fields beside them are for people and pages.

use serde::{Deserialize, Serialize};

use super::{Role, StreamState, Track};
use crate::ids::{NodeId, StreamId};

/// `POST /nodes` and `POST /streams`: a record to register, to refresh, or a tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// The signed record's bytes as base64url without padding (RFC 4648 §5).
    pub record: String,
}

/// The answer to a submission: 201 if it is new here, else 200.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Accepted {
    /// Seconds for which the record counts, from now on astral-web's clock.
    pub lease_s: u32,
    /// The caller's IP address as it is seen here.
    pub address: String,
}

/// A node as astral-web lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebNode {
    /// Id.
    pub uuid: NodeId,
    /// Name for people.
    pub name: String,
    /// `ip:port` where it can be reached; empty for ordinary nodes, whose addresses
    /// are nobody's business.
    pub addresses: Vec<String>,
    /// What it is in the network.
    pub role: Role,
    /// Version of its software.
    pub version: String,
    /// When its record was last renewed.
    pub last_seen: String,
    /// Where strangers' browsers may play streams from it.
    pub public_http: Option<String>,
    /// Its signed record, base64url; for supernodes only.
    pub record: Option<String>,
}

/// A stream as astral-web lists it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WebStream {
    /// Id.
    pub id: StreamId,
    /// Slug: bare for the stream seen first, else with a suffix of the id.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// More words.
    pub description: String,
    /// The node that publishes it.
    pub publisher: NodeId,
    /// Share link, by way of supernodes.
    pub share: String,
    /// Where it stands.
    pub state: StreamState,
    /// Its tracks.
    pub tracks: Vec<Track>,
    /// Rate over all tracks in bit/s.
    pub bitrate_bps: u64,
    /// When it was first published.
    pub started_at: String,
    /// Viewers that the publisher knows of.
    pub viewers: u64,
    /// Current epoch.
    pub epoch: u32,
    /// Its signed record, base64url.
    pub record: String,
}

/// `GET /bootstrap`: what a node needs to begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Bootstrap {
    /// The caller's IP address as it is seen here.
    pub address: String,
    /// A sample of supernodes, at most 16.
    pub supernodes: Vec<WebNode>,
    /// Listed streams, at most 100, those with the most viewers first.
    pub streams: Vec<WebStream>,
    /// Seconds for which a record counts.
    pub lease_s: u32,
}
