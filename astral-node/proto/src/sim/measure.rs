//! What is measured in a run, and the report of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scenario::{Expect, Media};
use crate::overlay::Time;

/// Parts of an octave that are told apart: values are off by at most 1.1 %.
const PARTS: f64 = 32.0;
/// Nodes that are told of as served worst.
const WORST_TOLD: usize = 12;

/// How values are spread.
#[derive(Clone, Debug, Default)]
pub(super) struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    pub(super) fn add(&mut self, value: Duration) {
        let us = value.as_micros() as u64;
        let at = (((us + 1) as f64).log2() * PARTS) as usize;
        if self.counts.len() <= at {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.count += 1;
        self.max = self.max.max(us);
    }

    /// The value that a share of all do not pass, in milliseconds.
    pub(super) fn at(&self, share: f64) -> f64 {
        let rank = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                let us = ((at as f64 + 1.0) / PARTS).exp2() - 1.0;
                return us.min(self.max as f64) / 1000.0;
            }
        }
        0.0
    }

    fn spread(&self) -> Spread {
        let tenth = |ms: f64| (ms * 10.0).round() / 10.0;
        Spread {
            count: self.count,
            p50_ms: tenth(self.at(0.5)),
            p90_ms: tenth(self.at(0.9)),
            p99_ms: tenth(self.at(0.99)),
            max_ms: tenth(self.max as f64 / 1000.0),
        }
    }
}

/// How values are spread, for people.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// How many values there are.
    pub count: u64,
    /// Half of them are smaller.
    pub p50_ms: f64,
    /// Nine of ten are smaller.
    pub p90_ms: f64,
    /// 99 of 100 are smaller.
    pub p99_ms: f64,
    /// The largest.
    pub max_ms: f64,
}

/// A second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Its end, in seconds.
    pub at_s: f64,
    /// Nodes that want the stream.
    pub wanting: u32,
    /// Those to whom it comes.
    pub served: u32,
    /// Delay from the source, half of them.
    pub delay_p50_ms: f64,
    /// And 99 of 100.
    pub delay_p99_ms: f64,
    /// The deepest node.
    pub depth_max: u32,
    /// Nodes to whom video came again after a gap.
    pub gaps: u32,
    /// Children that the publisher feeds.
    pub publisher_copies: u32,
    /// Supernodes.
    pub supernodes: u32,
    /// Control messages and heartbeats, in bit/s per node.
    pub control_bps: f64,
    /// Connections of the node with the most.
    pub connections_max: u32,
}

/// A rule that was broken.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Violation {
    /// When, in seconds.
    pub at_s: f64,
    /// Which rule.
    pub check: String,
    /// By which node, or at which.
    pub node: u32,
    /// What was seen.
    pub what: String,
}

/// An expectation, and whether it was met.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Of what.
    pub figure: String,
    /// What it must be: `<= 2000`.
    pub must: String,
    /// What it is.
    pub is: f64,
    /// Whether that will do.
    pub met: bool,
}

/// What came of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The scenario.
    pub scenario: String,
    /// What it is about.
    pub about: String,
    /// Nodes that joined at first.
    pub nodes: u32,
    /// Nodes that joined in all.
    pub joined: u32,
    /// Seed of the run.
    pub seed: u64,
    /// How video was carried.
    pub media: Media,
    /// Length of the run in seconds.
    pub duration_s: f64,
    /// Digest of all that happened: two runs with it are the same run.
    pub digest: String,
    /// Things that happened.
    pub events: u64,
    /// From the wish to the promise of a parent.
    pub join: Spread,
    /// From the wish to the first video.
    pub first_video: Spread,
    /// Delay of video from the source, sampled each second.
    pub delay: Spread,
    /// Pauses of those whose parent was lost, from the last video to the next.
    pub gap: Spread,
    /// Nodes from the publisher to a viewer, on average.
    pub depth_mean: f64,
    /// And at the most.
    pub depth_max: u32,
    /// Share of video that was there in time, with a second of buffer.
    pub on_time: f64,
    /// Frames that never came (frame-exact runs only).
    pub frames_lost: u64,
    /// Share of wanting nodes that were served at the end.
    pub served: f64,
    /// Share of bytes that the publisher did not send.
    pub offload: f64,
    /// Copies that the publisher sent, on average.
    pub publisher_copies: f64,
    /// Control messages and heartbeats, in bit/s per node.
    pub control_bps: f64,
    /// Their share of all bytes.
    pub control: f64,
    /// The same in bit/s per node by what was said, packets included.
    #[serde(default)]
    pub said_bps: BTreeMap<String, f64>,
    /// Bytes of video that came twice, of all video.
    pub twice: f64,
    /// Changes of parent per node and minute.
    pub switches: f64,
    /// Connections per node at the end.
    pub connections: f64,
    /// What was expected.
    pub judged: Vec<Judged>,
    /// How often each rule was broken.
    pub broken: BTreeMap<String, u64>,
    /// The first of the rules' breaches.
    pub violations: Vec<Violation>,
    /// The nodes that were served worst.
    #[serde(default)]
    pub worst: Vec<Worst>,
    /// Second by second.
    pub series: Vec<Point>,
}

/// A node that was not served well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// Its number.
    pub node: u32,
    /// Seconds of video that came too late, or not.
    pub late_s: f64,
    /// When it came, in seconds of the run.
    pub came_s: f64,
    /// When it left, or the end.
    pub left_s: f64,
}

impl Report {
    /// Whether every rule was kept and every expectation met.
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.judged.iter().all(|judged| judged.met)
    }
}

/// Everything that is counted while a run goes on.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) join: Histogram,
    pub(super) first: Histogram,
    pub(super) delay: Histogram,
    pub(super) gap: Histogram,
    pub(super) depth_sum: u64,
    pub(super) depth_count: u64,
    pub(super) depth_max: u32,
    pub(super) played: u64,
    pub(super) late: u64,
    pub(super) frames_lost: u64,
    pub(super) frames_doubled: u64,
    pub(super) joined: u32,
    pub(super) node_seconds: f64,
    pub(super) control_bytes: u64,
    pub(super) media_bytes: u64,
    pub(super) publisher_bytes: u64,
    pub(super) twice_bytes: u64,
    pub(super) switches: u64,
    pub(super) switches_max: u64,
    pub(super) connections: f64,
    pub(super) served: f64,
    pub(super) gaps_this_second: u32,
    pub(super) control_before: u64,
    /// Bytes by what was said.
    pub(super) said: BTreeMap<&'static str, u64>,
    pub(super) worst: Vec<Worst>,
    pub(super) series: Vec<Point>,
}

impl Tally {
    /// A node got video again after this long.
    pub(super) fn resumed(&mut self, gap: Duration) {
        self.gap.add(gap);
        self.gaps_this_second += 1;
    }

    /// Keeps those who were served worst.
    pub(super) fn served(&mut self, node: Worst) {
        let at = self.worst.partition_point(|w| w.late_s >= node.late_s);
        if node.late_s > 0.0 && at < WORST_TOLD {
            self.worst.insert(at, node);
            self.worst.truncate(WORST_TOLD);
        }
    }

    pub(super) fn report(&self, end: Time, start: Time, expect: &Expect) -> Report {
        let share = |part: u64, of: u64| part as f64 / of.max(1) as f64;
        let seconds = end.since(start).as_secs_f64();
        let on_time = 1.0 - share(self.late, self.played);
        let copies: f64 = self
            .series
            .iter()
            .map(|p| f64::from(p.publisher_copies))
            .sum();
        let all_bytes = self.media_bytes + self.control_bytes;
        let mut report = Report {
            scenario: String::new(),
            about: String::new(),
            nodes: 0,
            joined: self.joined,
            seed: 0,
            media: Media::Flow,
            duration_s: seconds,
            digest: String::new(),
            events: 0,
            join: self.join.spread(),
            first_video: self.first.spread(),
            delay: self.delay.spread(),
            gap: self.gap.spread(),
            depth_mean: share(self.depth_sum, self.depth_count),
            depth_max: self.depth_max,
            on_time,
            frames_lost: self.frames_lost,
            served: self.served,
            offload: 1.0 - share(self.publisher_bytes, self.media_bytes),
            publisher_copies: copies / self.series.len().max(1) as f64,
            control_bps: self.control_bytes as f64 * 8.0 / self.node_seconds.max(1.0),
            control: share(self.control_bytes, all_bytes),
            said_bps: self
                .said
                .iter()
                .map(|(what, bytes)| {
                    let bps = *bytes as f64 * 8.0 / self.node_seconds.max(1.0);
                    ((*what).to_owned(), bps.round())
                })
                .collect(),
            twice: share(self.twice_bytes, self.media_bytes),
            switches: self.switches as f64 * 60.0 / self.node_seconds.max(1.0),
            connections: self.connections,
            judged: Vec::new(),
            worst: self.worst.clone(),
            broken: BTreeMap::new(),
            violations: Vec::new(),
            series: self.series.clone(),
        };
        report.judged = self.judge(&report, expect);
        report
    }

    fn judge(&self, report: &Report, expect: &Expect) -> Vec<Judged> {
        let mut judged = Vec::new();
        let mut least = |figure: &str, is: f64, must: Option<f64>| {
            judged.extend(must.map(|must| Judged {
                figure: figure.into(),
                must: format!(">= {must}"),
                is,
                met: is >= must,
            }));
        };
        least("served", report.served, Some(expect.served));
        least("on_time", report.on_time, Some(expect.on_time));
        least("offload", report.offload, expect.offload);
        let mut most = |figure: &str, is: f64, must: Option<f64>| {
            judged.extend(must.map(|must| Judged {
                figure: figure.into(),
                must: format!("<= {must}"),
                is,
                met: is <= must,
            }));
        };
        most("join_p99_ms", report.join.p99_ms, expect.join_p99_ms);
        most("delay_p99_ms", report.delay.p99_ms, expect.delay_p99_ms);
        most("gap_p99_ms", report.gap.p99_ms, expect.gap_p99_ms);
        let copies = report.publisher_copies;
        most("publisher_copies", copies, expect.publisher_copies);
        most("control", report.control, expect.control);
        let switches = expect.switches_max.map(|most| most as f64);
        most("switches_max", self.switches_max as f64, switches);
        judged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histogram_knows_its_values_to_within_three_percent() {
        let mut histogram = Histogram::default();
        for ms in 1..=1000u64 {
            histogram.add(Duration::from_millis(ms));
        }
        for (share, ms) in [(0.5, 500.0), (0.9, 900.0), (0.99, 990.0), (1.0, 1000.0)] {
            let is = histogram.at(share);
            assert!((is / ms - 1.0).abs() < 0.03, "{share}: {is}");
        }
    }
}
