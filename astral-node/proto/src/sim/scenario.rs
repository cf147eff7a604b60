//! What a run is about: how many nodes, on what network, with which faults, and what is
//! expected of them. Written as TOML under `tests/scenarios/`.

use serde::{Deserialize, Serialize};

/// A scenario.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name, in one word.
    pub name: String,
    /// What it shows, for people.
    pub about: String,
    /// Nodes that join at the beginning, the publishers not counted.
    pub nodes: u32,
    /// Seed of everything that is random.
    #[serde(default = "one")]
    pub seed: u64,
    /// Length of the run in seconds.
    pub duration_s: f64,
    /// How video is carried.
    #[serde(default)]
    pub media: Media,
    /// The programme.
    #[serde(default)]
    pub stream: Stream,
    /// The network.
    #[serde(default)]
    pub network: Network,
    /// What nodes can upload.
    #[serde(default)]
    pub upload: Upload,
    /// How nodes come.
    pub joins: Joins,
    /// How long they stay; without it, for as long as the run lasts.
    #[serde(default)]
    pub sessions: Option<Sessions>,
    /// Nodes that lie.
    #[serde(default)]
    pub hostile: Option<Hostile>,
    /// Whether nodes that give to others go before those that do not.
    #[serde(default = "yes")]
    pub contributors_first: bool,
    /// What goes wrong, and when.
    #[serde(default)]
    pub faults: Vec<Fault>,
    /// What must come of it.
    #[serde(default)]
    pub expect: Expect,
}

/// How video is carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Media {
    /// Chunk by chunk through queues at the uplinks: up to a thousand nodes.
    Exact,
    /// As flows that run or do not, with a delay.
    #[default]
    Flow,
}

/// The programme.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Stream {
    /// Rate in bit/s, sound included.
    pub bitrate_bps: u64,
    /// Pictures in a second.
    pub fps: u32,
    /// Seconds from keyframe to keyframe.
    pub gop_s: f64,
    /// Rate of the sound in bit/s.
    pub audio_bps: u64,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            bitrate_bps: 4_000_000,
            fps: 30,
            gop_s: 2.0,
            audio_bps: 128_000,
        }
    }
}

/// The network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Network {
    /// One-way latency between the nearest and between the farthest nodes.
    pub latency_ms: [f64; 2],
    /// What a packet may take longer than that.
    pub jitter_ms: f64,
    /// Share of packets that are lost.
    pub loss: f64,
    /// Share of nodes behind a firewall that lets only replies in.
    pub firewalled: f64,
    /// Nodes that are reachable in any case, where all others are behind firewalls.
    pub reachable: Option<u32>,
    /// Networks that know nothing of each other at first, each with its publisher.
    pub islands: u32,
}

impl Default for Network {
    fn default() -> Self {
        // As measured between homes in a continent: research/p2p.md §2.
        Self {
            latency_ms: [6.0, 84.0],
            jitter_ms: 3.0,
            loss: 0.0,
            firewalled: 0.0,
            reachable: None,
            islands: 1,
        }
    }
}

/// What nodes can upload.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upload {
    /// Uplinks, and how often each is.
    pub uplinks: Vec<Uplink>,
    /// Share of an uplink that its owner lets the node use.
    pub usable: f64,
    /// Share of nodes that upload nothing at all, whatever their uplink.
    pub nothing: f64,
    /// The publisher's uplink in Mbit/s.
    pub publisher_mbit: f64,
    /// Sum of what all nodes can upload over what they need together: uplinks are scaled to it.
    pub supply_per_demand: Option<f64>,
}

impl Default for Upload {
    fn default() -> Self {
        let uplink = |share, mbit| Uplink { share, mbit };
        Self {
            uplinks: vec![
                uplink(0.2, 5.0),
                uplink(0.3, 10.0),
                uplink(0.3, 20.0),
                uplink(0.2, 50.0),
            ],
            usable: 0.8,
            nothing: 0.3,
            publisher_mbit: 40.0,
            supply_per_demand: None,
        }
    }
}

/// A kind of uplink.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uplink {
    /// Share of nodes that have it.
    pub share: f64,
    /// Mbit/s.
    pub mbit: f64,
}

/// How nodes come.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Joins {
    /// Seconds within which all come, as a Poisson process.
    pub over_s: f64,
    /// Whom a new node knows.
    pub contacts: Contacts,
}

/// Whom a new node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contacts {
    /// Eight random nodes that receive the stream, as a tracker would tell.
    Receivers,
    /// The publisher's address only.
    Publisher,
    /// astral-web: a sample of supernodes, and the streams.
    Web,
}

/// How long nodes stay.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// Median in minutes.
    pub median_min: f64,
    /// σ of the lognormal distribution.
    pub sigma: f64,
    /// Share of those that leave without a word.
    pub abrupt: f64,
    /// Whether a new node comes for each that leaves.
    pub refill: bool,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            median_min: 8.0,
            sigma: 1.6,
            abrupt: 0.2,
            refill: true,
        }
    }
}

/// Nodes that lie.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hostile {
    /// Share of nodes.
    pub share: f64,
    /// Their lies; each such node has one of them.
    pub lies: Vec<Lie>,
}

/// What a node lies about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Lie {
    /// Its offers and heartbeats say that it has no delay and all the room in the world.
    Delay,
    /// Its path says that it stands right below the publisher, wherever it stands.
    Path,
    /// It promises, says that it has more than anybody, and sends nothing.
    Nothing,
    /// Its heartbeats say that it holds what nobody has yet.
    Newest,
    /// Its records are signed far in the future.
    Clock,
}

/// Something that goes wrong.
#[derive(Clone, Debug, Deserialize)]
pub struct Fault {
    /// When, in seconds.
    pub at_s: f64,
    /// What.
    #[serde(flatten)]
    pub what: Trouble,
}

/// What goes wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Trouble {
    /// A share of the nodes leaves.
    Leave {
        /// Share of those that are there.
        share: f64,
        /// Within this many seconds.
        over_s: f64,
        /// Share of those that leave without a word.
        abrupt: f64,
    },
    /// Some nodes are killed.
    Kill {
        /// Which.
        who: Who,
        /// How many; all, if it is not said.
        count: Option<u32>,
    },
    /// Some nodes stop and go on again, time after time.
    Freeze {
        /// Which.
        who: Who,
        /// How many.
        count: u32,
        /// For so long each time.
        for_ms: u64,
        /// This many times, a second and a half apart.
        times: u32,
    },
    /// Packets between a part of the nodes and the others are lost.
    Partition {
        /// Share of the nodes.
        share: f64,
        /// For so long.
        for_s: f64,
    },
    /// astral-web does not answer.
    WebDown {
        /// For so long.
        for_s: f64,
    },
    /// More nodes come.
    Join {
        /// How many.
        count: u32,
        /// Within this many seconds.
        over_s: f64,
        /// Whom they know.
        contacts: Contacts,
    },
    /// One node of each island is told of one of the next, and some want its stream.
    Meet {
        /// Share of the first island's nodes that want the other's stream too.
        share: f64,
    },
}

/// Which nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Who {
    /// Supernodes, the publisher not counted.
    Supernodes,
    /// Nodes that feed others.
    Parents,
    /// A parent that feeds others and the standby of one of its children.
    ParentAndStandby,
}

/// What must come of a run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    /// Seconds after a fault within which a node is served again.
    pub served_within_s: f64,
    /// Seconds after its arrival within which a node is served for the first time: it finds
    /// a parent, and may have to wait for the next keyframe.
    pub joined_within_s: f64,
    /// Share of nodes that are served at the end.
    pub served: f64,
    /// Share of frames that come within a second of buffer.
    pub on_time: f64,
    /// 99 of 100 nodes have the first frame within this.
    pub join_p99_ms: Option<f64>,
    /// 99 of 100 frames come within this of the source.
    pub delay_p99_ms: Option<f64>,
    /// 99 of 100 gaps are shorter.
    pub gap_p99_ms: Option<f64>,
    /// Copies that the publisher sends, on average.
    pub publisher_copies: Option<f64>,
    /// Share of the bytes that the publisher does not send.
    pub offload: Option<f64>,
    /// Control messages' and heartbeats' share of all bytes.
    pub control: Option<f64>,
    /// Seconds after which no honest node is starved by a liar.
    pub liars_out_s: Option<f64>,
    /// Changes of parent at any one node.
    pub switches_max: Option<u64>,
}

impl Default for Expect {
    fn default() -> Self {
        Self {
            served_within_s: 3.0,
            joined_within_s: 5.0,
            served: 1.0,
            on_time: 0.999,
            join_p99_ms: None,
            delay_p99_ms: None,
            gap_p99_ms: None,
            publisher_copies: None,
            offload: None,
            control: None,
            liars_out_s: None,
            switches_max: None,
        }
    }
}

fn yes() -> bool {
    true
}

fn one() -> u64 {
    1
}
