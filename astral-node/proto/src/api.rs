//! The types of the node's HTTP JSON API (DESIGN §8), shared by server and clients.
//!
//! Times are RFC 3339 in UTC, rates bit/s in whole numbers. Requests refuse
//! unknown fields; answers may gain fields.

pub mod metrics;
pub mod settings;
pub mod web;

use serde::{Deserialize, Serialize};

pub use settings::{Setting, SettingValue, Settings, SettingsPatch, Source};

use crate::ids::{NodeId, StreamId};

/// Header that carries the guard value of the node's own pages on changes.
pub const GUARD_HEADER: &str = "x-astral-guard";
/// Items in a list unless `limit` says otherwise.
pub const LIMIT_DEFAULT: usize = 100;
/// Highest `limit`.
pub const LIMIT_MAX: usize = 1_000;
/// Most bytes of a bandwidth check.
pub const PING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A page of a list, ordered by name, then id.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct List<T> {
    /// The items.
    pub items: Vec<T>,
    /// What to give as `after` for the next page; `null` at the end.
    pub next: Option<String>,
}

/// An error as RFC 9457 lays it out (`application/problem+json`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// `about:blank`, or a URI of the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What was wrong this time, and what would help.
    pub detail: String,
    /// For an undecided slug: the full slugs to choose from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
}

/// What a node is in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Forwards what it watches.
    Node,
    /// Also registers nodes and fetches streams for them.
    Supernode,
}

/// Whether strangers can connect to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Reach {
    /// Others have connected to it.
    Reachable,
    /// Others have tried, and could not.
    Unreachable,
    /// Nobody has tried yet.
    Unknown,
    /// It knows nodes of its own machine only, or none.
    Local,
}

/// Whether strangers can connect to a node, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reachability {
    /// How it stands.
    pub state: Reach,
    /// How that is known: a sentence.
    pub why: String,
    /// What would help: a sentence; `null` if nothing need be done.
    pub help: Option<String>,
    /// `host:port` where others have reached it.
    pub addresses: Vec<String>,
    /// `host:port` that a router on the way forwards to it, by UPnP, NAT-PMP or PCP.
    pub mapped: Option<String>,
}

/// A node, this one or another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Node {
    /// Id.
    pub uuid: NodeId,
    /// Name for people.
    pub name: String,
    /// `host:port` where it can be reached.
    pub addresses: Vec<String>,
    /// What it is in the network.
    pub role: Role,
    /// The supernode it is registered with.
    pub primary_supernode: Option<NodeId>,
    /// The supernode that takes its place at once, should it fail; only of the node that
    /// answers, as all that follows up to `self`.
    #[serde(default)]
    pub backup_supernode: Option<NodeId>,
    /// Supernodes with which this supernode exchanges records.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mesh: Vec<NodeId>,
    /// Nodes that are registered with this supernode.
    #[serde(default)]
    pub registered: u32,
    /// Why it is, or is not, a supernode: a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_reason: Option<String>,
    /// Whether strangers can connect to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reachability: Option<Reachability>,
    /// Whether it is the node that answers.
    #[serde(rename = "self")]
    pub is_self: bool,
    /// Round-trip time in milliseconds, once measured.
    pub rtt_ms: Option<f64>,
    /// Upload limit in bit/s; `null` if unlimited or not known.
    pub upload_limit_bps: Option<u64>,
    /// Upload of the last second in bit/s; `null` if not known.
    pub upload_used_bps: Option<u64>,
    /// Tickets that it feeds, as far as this node knows.
    pub children: u32,
    /// Version of its software.
    pub version: String,
    /// When it was last heard of.
    pub last_seen: String,
    /// Whether a connection to it stands.
    #[serde(default)]
    pub connected: bool,
    /// What its admin must see to, in words; only of the node that answers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// Where a stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// Its encoder sends.
    Live,
    /// Its encoder is away, or has not come yet.
    Waiting,
    /// Its owner has paused it.
    Paused,
    /// It is over.
    Ended,
}

/// A track of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Track {
    /// Track number.
    pub id: u8,
    /// `video` or `audio`.
    pub kind: String,
    /// Codec string (RFC 6381).
    pub codec: String,
    /// Pixels; video only.
    pub width: Option<u32>,
    /// Pixels; video only.
    pub height: Option<u32>,
    /// Samples per second; audio only.
    pub sample_rate: Option<u32>,
    /// Channels; audio only.
    pub channels: Option<u8>,
}

/// How a stream arrives at this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Local {
    /// Whether this node takes it in.
    pub receiving: bool,
    /// The node that feeds it.
    pub parent: Option<NodeId>,
    /// The node that would, should the parent fail.
    pub standby: Option<NodeId>,
    /// Hops from the publisher; 0 at the publisher itself.
    pub hops: u32,
    /// Expected delay from the source in milliseconds: RTT/2 and holding time over all hops.
    pub latency_ms: f64,
    /// Frames taken in since the stream was joined.
    pub frames_received: u64,
    /// Frames that are known to be missing.
    pub frames_lost: u64,
    /// Changes of parent.
    pub switches: u64,
}

/// Where an encoder sends a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ingest {
    /// `rtmp://host:port/live`, without the key; `null` when RTMP is off.
    pub rtmp_url: Option<String>,
    /// The secret for the encoder.
    pub stream_key: String,
    /// Complete URL for `PUT` and `POST`.
    pub http_url: String,
}

/// A stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Stream {
    /// Id.
    pub id: StreamId,
    /// Slug as this node shows it.
    pub slug: String,
    /// Name for people.
    pub name: String,
    /// More words.
    pub description: String,
    /// Found by its link only.
    pub unlisted: bool,
    /// The node that publishes it.
    pub publisher: NodeId,
    /// Share link.
    pub share: String,
    /// Where it stands.
    pub state: StreamState,
    /// Its tracks.
    pub tracks: Vec<Track>,
    /// Rate over all tracks in bit/s.
    pub bitrate_bps: u64,
    /// When it was first published.
    pub started_at: String,
    /// Viewers as summed up the tree.
    pub viewers: u64,
    /// Current epoch.
    pub epoch: u32,
    /// How it arrives here.
    pub local: Local,
    /// How those are served who have it by way of this node; none if nobody has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// For its own publisher, to callers with the token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest: Option<Ingest>,
}

/// How the viewers below a node are served: at the publisher, all there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Audience {
    /// Viewers.
    pub viewers: u64,
    /// Nodes that could still be taken in, by those below and by this one.
    pub places: u64,
    /// Expected delay from the source that half of them do not exceed, in milliseconds.
    pub delay_p50_ms: f64,
    /// And that 99 of 100 do not exceed.
    pub delay_p99_ms: f64,
    /// Hops to the one that is furthest away.
    pub depth: u32,
    /// Pauses of over a second in the last minute, of all viewers.
    pub stalls: u64,
    /// Frames lost in the last minute, by all viewers.
    pub lost: u64,
}

/// State of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum TicketState {
    /// Offered, nothing promised.
    Offered,
    /// Promised and in use.
    Active,
    /// Promised for the case that the parent fails.
    Standby,
    /// Over.
    Ended,
}

/// The stream that a ticket is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TicketStream {
    /// Id.
    pub id: StreamId,
    /// Slug as this node shows it.
    pub slug: String,
}

/// A ticket: a node's promise to forward a stream to another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ticket {
    /// Id: 16 hexadecimal digits.
    pub id: String,
    /// The stream.
    pub stream: TicketStream,
    /// The node that sends.
    pub source: NodeId,
    /// The node that receives.
    pub destination: NodeId,
    /// Where it stands.
    pub state: TicketState,
    /// Why it ended, if it has.
    pub reason: Option<String>,
    /// Hops from the publisher to the destination.
    pub hops: u32,
    /// Nodes from the publisher to the destination.
    pub path: Vec<NodeId>,
    /// When it was promised.
    pub created_at: String,
    /// When it expires unless a heartbeat comes.
    pub expires_at: String,
    /// Payload bytes carried.
    pub bytes: u64,
    /// Payload rate of the last second in bit/s.
    pub bitrate_bps: u64,
}

/// `POST /streams`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewStream {
    /// Name, 1 to 100 characters of any language.
    // No control characters, not only spaces: as `slug::check_name` has it.
    #[cfg_attr(
        feature = "openapi",
        schema(
            min_length = 1,
            max_length = 100,
            pattern = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"
        )
    )]
    pub name: String,
    /// More words.
    #[cfg_attr(feature = "openapi", schema(max_length = 1000))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Keep it out of every list.
    #[serde(default)]
    pub unlisted: bool,
}

/// `PATCH /streams/{slug}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct StreamPatch {
    /// Pause or resume.
    pub paused: bool,
}

/// `POST /streams/{slug}/tickets`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewTicket {
    /// The node to seed; without it the stream is received here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<NodeId>,
}

/// `POST /links`: a page to be opened by a browser that cannot show the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct NewLink {
    /// Path of the page: `/`, `/publish` or `/watch/SLUG`.
    #[cfg_attr(
        feature = "openapi",
        schema(pattern = r"^/(publish|watch/[A-Za-z0-9~.:@,%\[\]-]{1,500})?$")
    )]
    #[serde(default = "home")]
    pub path: String,
}

fn home() -> String {
    "/".to_owned()
}

/// A link that works once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Link {
    /// The whole URL.
    pub url: String,
    /// Seconds within which it must be followed.
    pub expires_in_s: u64,
}

/// `POST /ping`: what arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ping {
    /// Bytes of the body.
    pub bytes: u64,
    /// How long they took, in milliseconds.
    pub elapsed_ms: u64,
}

/// The ready file `<data-dir>/node.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Ready {
    /// Process id.
    pub pid: u32,
    /// The node's id.
    pub uuid: NodeId,
    /// `host:port` of the HTTP API.
    pub http: String,
    /// `host:port` of QUIC.
    pub quic: String,
    /// `host:port` of RTMP; `null` when off.
    pub rtmp: Option<String>,
    /// Token for changes (`Authorization: Bearer`).
    pub token: String,
    /// Version of the program.
    pub version: String,
}
