//! Chaos with real processes: interior nodes of a tree of real nodes are killed, frozen
//! or told to leave, time after time, and every survivor's pictures are watched.
//!
//! `cargo run --release -p astral-tests --bin chaos -- [--nodes 20] [--rounds 20] [--signal KILL|STOP|TERM|BOTH]`
//! prints a table: frames lost or doubled, and the gap to the next picture at every
//! survivor that was below the node that went. With `BOTH`, the standby of one of its
//! children is killed with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use astral_proto::api::TicketState;
use astral_proto::ids::NodeId;
use astral_tests::chain::{flows, join};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::{Launch, Node};
use astral_tests::recording::Recording;
use astral_tests::wait::{s, until};
use rustix::process::Signal;
use tokio::time::sleep;

/// Seconds of the clip that is sent, over and over as long as the run may take.
const CLIP_S: u32 = 120;
/// How long a tree is left alone before the next node goes: standbys are found meanwhile.
const SETTLE: Duration = s(4);
/// And if what a leave costs is compared with the ten seconds before, which the round before
/// must not have disturbed.
const SETTLE_LONG: Duration = s(11);
/// How long pictures are watched after a node went.
const WATCH: Duration = s(4);

struct Options {
    nodes: usize,
    rounds: usize,
    signal: Signal,
    /// Whether a standby goes, too.
    both: bool,
}

fn options() -> Options {
    let mut options = Options {
        nodes: 20,
        rounds: 20,
        signal: Signal::KILL,
        both: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let value = args.next().unwrap_or_default();
        match (name.as_str(), value.as_str()) {
            ("--nodes", value) => options.nodes = value.parse().expect("a number"),
            ("--rounds", value) => options.rounds = value.parse().expect("a number"),
            ("--signal", "KILL") => options.signal = Signal::KILL,
            ("--signal", "BOTH") => options.both = true,
            ("--signal", "STOP") => options.signal = Signal::STOP,
            ("--signal", "TERM") => options.signal = Signal::TERM,
            (other, _) => panic!("{other}? --nodes N --rounds N --signal KILL|STOP|TERM|BOTH"),
        }
    }
    options
}

/// A node that watches, and what its player gets.
struct Watcher {
    node: Node,
    recording: Recording,
}

/// What a round did to one survivor below the node that went.
struct Outcome {
    gap: Duration,
    /// Longest gap of the ten seconds before.
    calm: Duration,
    lost: u64,
}

#[tokio::main]
async fn main() {
    let options = options();
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut round = 0;
    let mut missing = 0;
    // An encoder's clip lasts for some rounds; then everything starts anew.
    while round < options.rounds {
        let mut tree = Tree::start(options.nodes).await;
        let until = Instant::now() + Duration::from_secs(u64::from(CLIP_S) - 45);
        while round < options.rounds && Instant::now() < until {
            let compared = options.signal == Signal::TERM;
            sleep(if compared { SETTLE_LONG } else { SETTLE }).await;
            let seen = tree.round(&options).await;
            round += 1;
            let longest = seen.iter().map(|o| o.gap).max().unwrap_or_default();
            println!(
                "round {round}: {} below it, longest gap {longest:?}, {} frames lost",
                seen.len(),
                seen.iter().map(|o| o.lost).sum::<u64>()
            );
            outcomes.extend(seen);
        }
        missing += tree.check_order();
    }
    report(&options, outcomes, missing);
}

fn report(options: &Options, mut outcomes: Vec<Outcome>, missing: u64) {
    let over = |outcome: &Outcome| outcome.gap.saturating_sub(outcome.calm).as_millis();
    let beyond = outcomes.iter().map(over).max().unwrap_or(0);
    outcomes.sort_by_key(|outcome| outcome.gap);
    let at = |share: f64| {
        let place = ((outcomes.len() as f64 * share).ceil() as usize).clamp(1, outcomes.len());
        outcomes[place - 1].gap.as_millis()
    };
    let lost: u64 = outcomes.iter().map(|outcome| outcome.lost).sum();
    let what = match options.both {
        true => "KILL of parent and standby".into(),
        false => format!("{:?}", options.signal),
    };
    println!(
        "| {} nodes, {} rounds of {what} | |",
        options.nodes, options.rounds
    );
    println!("|---|---|");
    println!(
        "| survivors below the node that went | {} |",
        outcomes.len()
    );
    println!("| frames lost in their stores | {lost} |");
    println!("| pictures that any player missed, all run long | {missing} |");
    if options.signal == Signal::TERM {
        println!("| most that a gap is longer than in the 10 s before | {beyond} ms |");
    }
    println!(
        "| gap p50 / p99 / max | {} / {} / {} ms |",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

struct Tree {
    _publisher: Node,
    _encoder: Encoder,
    slug: String,
    stream: astral_proto::api::Stream,
    watchers: Vec<Watcher>,
    bootstrap: String,
}

impl Tree {
    async fn start(nodes: usize) -> Self {
        let clip = Clip::small(CLIP_S);
        // Room for three copies at every place: a tree several levels deep.
        let limit = clip.bps() * 115 / 100 * 4;
        let publisher = Launch::new("publisher").limit(limit).start().await;
        let (stream, ingest) = publisher.api.publish("Chaos").await;
        let encoder = Encoder::rtmp(clip, &ingest);
        flows(&publisher, &stream).await;
        let mut tree = Self {
            slug: stream.id.to_string(),
            bootstrap: publisher.ready.quic.clone(),
            _publisher: publisher,
            _encoder: encoder,
            stream,
            watchers: Vec::new(),
        };
        while tree.watchers.len() + 1 < nodes {
            tree.add(limit).await;
        }
        tree
    }

    async fn add(&mut self, limit: u64) {
        let node = Launch::new("watcher")
            .limit(limit)
            .option("--peer", &self.bootstrap)
            .start()
            .await;
        join(&node, &self.stream).await;
        let recording = Recording::start(&node.api, &self.slug, "target_ms=0");
        recording
            .wait("pictures", s(20), |came| came.samples(1) > 5)
            .await;
        self.watchers.push(Watcher { node, recording });
    }

    /// Nodes that feed others, with those below them.
    async fn interior(&self) -> Vec<(usize, BTreeSet<NodeId>)> {
        let mut found = Vec::new();
        for (place, watcher) in self.watchers.iter().enumerate() {
            let tickets = watcher.node.api.tickets(&self.slug).await;
            let active = tickets.iter().filter(|ticket| {
                ticket.source == watcher.node.id() && ticket.state == TicketState::Active
            });
            let below: BTreeSet<NodeId> = active.map(|ticket| ticket.destination).collect();
            if !below.is_empty() {
                found.push((place, below));
            }
        }
        found.sort_by_key(|(_, below)| std::cmp::Reverse(below.len()));
        found
    }

    /// The busiest interior node goes; answers what its children's players saw.
    async fn round(&mut self, options: &Options) -> Vec<Outcome> {
        let interior = self.interior().await;
        let Some((place, mut below)) = interior.into_iter().next() else {
            return Vec::new();
        };
        let mut gone = vec![self.watchers.remove(place)];
        if options.both {
            gone.extend(self.take_standby(&mut below).await);
        }
        let lost_before = self.lost(&below).await;
        let at = Instant::now();
        for watcher in &gone {
            watcher.node.signal(options.signal);
        }
        sleep(WATCH).await;
        for watcher in &mut gone {
            watcher.node.kill();
        }
        let lost_after = self.lost(&below).await;
        let survivors = self
            .watchers
            .iter()
            .filter(|w| below.contains(&w.node.id()));
        let outcomes: Vec<Outcome> = survivors
            .zip(lost_before.iter().zip(&lost_after))
            .map(|(watcher, (before, after))| Outcome {
                gap: longest_gap(&watcher.recording, at, at + WATCH),
                calm: longest_gap(&watcher.recording, at - s(10), at),
                lost: after.saturating_sub(*before),
            })
            .collect();
        let limit = Clip::small(CLIP_S).bps() * 115 / 100 * 4;
        for _ in gone {
            self.add(limit).await;
        }
        outcomes
    }

    /// Takes out the standby of one of these, and narrows them to those that had it.
    async fn take_standby(&mut self, below: &mut BTreeSet<NodeId>) -> Option<Watcher> {
        let mut standbys: BTreeMap<NodeId, BTreeSet<NodeId>> = BTreeMap::new();
        for watcher in self
            .watchers
            .iter()
            .filter(|w| below.contains(&w.node.id()))
        {
            let local = watcher.node.api.stream(&self.slug).await.local;
            let of = local
                .standby
                .map(|standby| standbys.entry(standby).or_default());
            of.map(|of| of.insert(watcher.node.id()));
        }
        let (place, of) = standbys.into_iter().find_map(|(standby, of)| {
            let is_it = |watcher: &Watcher| watcher.node.id() == standby;
            Some((self.watchers.iter().position(is_it)?, of))
        })?;
        *below = of;
        Some(self.watchers.remove(place))
    }

    async fn lost(&self, of: &BTreeSet<NodeId>) -> Vec<u64> {
        let mut lost = Vec::new();
        for watcher in self.watchers.iter().filter(|w| of.contains(&w.node.id())) {
            let local = until("an answer", s(5), async || {
                watcher.node.api.try_stream(&self.slug).await
            })
            .await
            .local;
            lost.push(local.frames_lost);
        }
        lost
    }

    /// No picture came twice or out of order anywhere; answers how many are missing
    /// between others.
    fn check_order(&self) -> u64 {
        let mut sum = 0;
        for watcher in &self.watchers {
            let received = watcher.recording.received();
            let pieces = received.by_time();
            let video = pieces.iter().filter(|((track, _), _)| *track == 1);
            let video: Vec<(u64, Instant)> =
                video.map(|((_, at), (_, came))| (*at, *came)).collect();
            for (place, pair) in video.windows(2).enumerate() {
                // Stamps are whole milliseconds; a step is a picture's time, more or less.
                let missing = ((pair[1].0 - pair[0].0 + 1_500) / 3_000).saturating_sub(1);
                sum += missing;
                if missing > 0 {
                    let after = pair[0].1 - video[0].1;
                    let waited = pair[1].1 - pair[0].1;
                    println!(
                        "HOLE at {}: {missing} pictures after {place}, {after:.1?} from its start; waited {waited:?}",
                        watcher.node.id().short()
                    );
                }
            }
        }
        sum
    }
}

/// The longest time without a picture of those that lasted at some time between the two.
fn longest_gap(recording: &Recording, since: Instant, until: Instant) -> Duration {
    let received = recording.received();
    let video = received.fragments.iter().filter(|(f, _)| f.track == 1);
    let times: Vec<Instant> = video.map(|(_, at)| *at).collect();
    let mut within = times.windows(2).filter(|pair| pair[1] >= since);
    let gaps = within.by_ref().take_while(|pair| pair[0] <= until);
    let running = times
        .last()
        .filter(|at| **at <= until)
        .map(Instant::elapsed);
    gaps.map(|pair| pair[1] - pair[0])
        .chain(running)
        .max()
        .unwrap_or_default()
}
