//! What it costs a node to feed many children, beside bare quinn in the same run.
//!
//! `cargo run --release -p astral-tests --bin bench-fanout`; `tests/benches/README.md`
//! says what it measures and how.

use std::process::ExitCode;
use std::time::Duration;

use astral_proto::ids::StreamId;
use astral_tests::bench::audience::Audience;
use astral_tests::bench::bare::{self, Sender};
use astral_tests::bench::meter::{cpu, median, memory, percentile};
use astral_tests::bench::table::{FanOut, Hop, Report, Sample};
use astral_tests::process::{Launch, Node};
use astral_tests::synthetic::{Encoder, Shape};
use astral_tests::wait::{s, until};
use tokio::time::{Instant, sleep};

const SHAPE: Shape = Shape::LIVE;
const USAGE: &str =
    "bench-fanout [--quick] [--json] [--children N,N,…] [--seconds N] [--repeats N]";
/// Time for a sender to be itself before anybody comes.
const SETTLE: Duration = s(2);

struct Plan {
    children: Vec<usize>,
    relays: Vec<usize>,
    warm: Duration,
    window: Duration,
    cool: Duration,
    repeats: usize,
    json: bool,
    quick: bool,
}

impl Plan {
    fn of(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut plan = Self {
            children: vec![1, 10, 50, 200],
            relays: vec![1, 50],
            warm: s(3),
            window: s(10),
            cool: s(4),
            repeats: 3,
            json: false,
            quick: false,
        };
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next()?.parse::<u64>().ok();
            match argument.as_str() {
                "--json" => plan.json = true,
                "--quick" => {
                    plan.quick = true;
                    plan.children = vec![1, 3];
                    plan.relays = vec![1];
                    (plan.warm, plan.window, plan.cool) = (s(3), s(2), s(1));
                    plan.repeats = 1;
                }
                "--seconds" => plan.window = s(number()?),
                "--repeats" => plan.repeats = number()? as usize,
                "--children" => {
                    let list = arguments.next()?;
                    let parsed = list.split(',').map(|one| one.parse().ok());
                    plan.children = parsed.collect::<Option<_>>()?;
                    plan.relays.retain(|count| plan.children.contains(count));
                }
                _ => return None,
            }
        }
        Some(plan)
    }

    /// Watches a sender while an audience takes in.
    async fn window(&self, pid: u32, before: u64, audience: Audience, children: usize) -> Sample {
        sleep(self.warm).await;
        let counts = audience.counts.clone();
        counts.measure(true);
        let bytes_of = || counts.bytes.load(std::sync::atomic::Ordering::Relaxed) as f64;
        let (start, used, bytes) = (Instant::now(), cpu(pid), bytes_of());
        sleep(self.window).await;
        let (lasted, used, bytes) = (start.elapsed(), cpu(pid) - used, bytes_of() - bytes);
        counts.measure(false);
        let during = memory(pid);
        audience.leave().await;
        sleep(self.cool).await;
        let kib = |bytes: u64| (bytes as f64 - before as f64) / 1024.0;
        let delays = counts.delays();
        Sample {
            cpu_s_per_gb: used.as_secs_f64() / bytes * 1e9,
            mbit_per_child: bytes * 8e-6 / lasted.as_secs_f64() / children as f64,
            p50_ms: percentile(&delays, 0.5),
            p99_ms: percentile(&delays, 0.99),
            memory_before_kib: before as f64 / 1024.0,
            memory_per_child_kib: kib(during) / children as f64,
            memory_after_kib: kib(memory(pid)),
        }
    }

    async fn node(&self, children: usize) -> Sample {
        let publisher = Publisher::start().await;
        sleep(SETTLE).await;
        let pid = publisher.node.pid();
        let before = memory(pid);
        let audience = Audience::of_node(quic(&publisher.node), publisher.stream, children).await;
        self.window(pid, before, audience, children).await
    }

    async fn bare(&self, children: usize) -> Sample {
        let sender = Sender::start();
        sleep(SETTLE).await;
        let before = memory(sender.pid());
        let audience = Audience::of_bare(sender.address, SHAPE, children).await;
        self.window(sender.pid(), before, audience, children).await
    }

    async fn fan_out(&self) -> Vec<FanOut> {
        let mut all = vec![(Vec::new(), Vec::new()); self.children.len()];
        for repeat in 0..self.repeats {
            for (children, (nodes, bares)) in self.children.iter().zip(&mut all) {
                // Who comes first changes, so that neither always finds a warmer machine.
                let (node, bare) = if repeat % 2 == 0 {
                    let node = self.node(*children).await;
                    (node, self.bare(*children).await)
                } else {
                    let bare = self.bare(*children).await;
                    (self.node(*children).await, bare)
                };
                eprintln!(
                    "{children} children: {:.2} s/GB at {:.2} Mbit/s, bare quinn {:.2} at {:.2}",
                    node.cpu_s_per_gb, node.mbit_per_child, bare.cpu_s_per_gb, bare.mbit_per_child
                );
                nodes.push(node);
                bares.push(bare);
            }
        }
        let rows = self.children.iter().zip(all);
        rows.map(|(children, (nodes, bares))| {
            let pairs = nodes.iter().zip(&bares);
            let ratios = pairs.map(|(node, bare)| node.cpu_s_per_gb / bare.cpu_s_per_gb);
            FanOut {
                children: *children,
                cpu_ratio: median(ratios.collect()),
                node: Sample::median(&nodes),
                bare: Sample::median(&bares),
            }
        })
        .collect()
    }

    /// One child of the publisher, and some of a relay: the same frames, compared.
    async fn hop(&self, children: usize) -> Hop {
        let (mut p50, mut p99) = (Vec::new(), Vec::new());
        for _ in 0..self.repeats {
            let publisher = Publisher::start().await;
            let relay = Launch::new("relay").limit("unlimited");
            let relay = relay.peer(&publisher.node).start().await;
            let slug = publisher.stream.to_string();
            until("the stream at the relay", s(10), async || {
                relay.api.try_stream(&slug).await.map(drop)
            })
            .await;
            let answer = relay.api.watch(&slug).await;
            assert!(answer.status.is_success(), "{answer}");
            let near = Audience::of_node(quic(&publisher.node), publisher.stream, 1).await;
            let far = Audience::of_node(quic(&relay), publisher.stream, children).await;
            sleep(self.warm).await;
            near.counts.measure(true);
            far.counts.measure(true);
            sleep(self.window).await;
            far.counts.measure(false);
            let behind = far.counts.behind(&near.counts);
            p50.push(percentile(&behind, 0.5));
            p99.push(percentile(&behind, 0.99));
        }
        Hop {
            children,
            p50_ms: median(p50),
            p99_ms: median(p99),
        }
    }

    async fn run(self) {
        let fan_out = self.fan_out().await;
        let mut hops = Vec::new();
        for children in &self.relays {
            hops.push(self.hop(*children).await);
        }
        let report = Report {
            window_s: self.window.as_secs(),
            repeats: self.repeats,
            fan_out,
            hops,
        };
        if self.json {
            let json = serde_json::to_string_pretty(&report).expect("numbers and names");
            println!("{json}");
        } else {
            report.print();
        }
        // A smoke run says nothing about the machine.
        let rows = report.fan_out.iter().filter(|_| !self.quick);
        for row in rows {
            for (who, sample) in [("node", row.node), ("bare quinn", row.bare)] {
                assert!(
                    sample.mbit_per_child > 3.6,
                    "{who} fell behind with {} children: {:.2} Mbit/s",
                    row.children,
                    sample.mbit_per_child
                );
            }
        }
    }
}

/// A node that publishes the live pattern.
struct Publisher {
    node: Node,
    stream: StreamId,
    _encoder: Encoder,
}

impl Publisher {
    async fn start() -> Self {
        let node = Launch::new("publisher").limit("unlimited").start().await;
        let (stream, ingest) = node.api.publish("Bench").await;
        let encoder = Encoder::start(&ingest.http_url, SHAPE).await;
        Self {
            node,
            stream: stream.id,
            _encoder: encoder,
        }
    }
}

fn quic(node: &Node) -> std::net::SocketAddr {
    node.ready.quic.parse().expect("an address")
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).peekable();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if arguments.peek().is_some_and(|mode| mode == bare::MODE) {
        runtime.block_on(bare::send(SHAPE));
        return ExitCode::SUCCESS;
    }
    match Plan::of(arguments) {
        Some(plan) => {
            runtime.block_on(plan.run());
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}
