//! QUIC's congestion controllers over far and lossy links: a chain of three real nodes,
//! with a rough link between each two.
//!
//! `cargo run --release -p astral-tests --bin bench-link -- [--seconds 20]` prints a table:
//! how late each picture of a 2 Mbit/s stream is at the end of the chain, against the
//! publisher's own player in the same process, and how many never came.

use std::time::{Duration, Instant};

use astral_tests::chain::{flows, join};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::Launch;
use astral_tests::recording::Recording;
use astral_tests::rough::{RoughLink, Way};
use astral_tests::wait::s;
use tokio::time::sleep;

/// Loss of a thousand, and delay each way, of every link.
const LINKS: [(u32, u64); 5] = [(0, 10), (5, 25), (20, 25), (20, 50), (50, 25)];

/// What became of a stream's pictures.
struct Seen {
    pictures: usize,
    missing: usize,
    /// Sorted.
    late: Vec<Duration>,
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let seconds = match (args.next().as_deref(), args.next()) {
        (None, _) => 20,
        (Some("--seconds"), Some(value)) => value.parse().expect("a number"),
        (other, _) => panic!("{other:?}? --seconds N"),
    };
    println!(
        "| loss, delay each way, of each link | controller | pictures | missing | late p50 / p99 / max ms |"
    );
    println!("|---|---|---|---|---|");
    for (loss, delay) in LINKS {
        for controller in ["tolerant", "cubic", "bbr"] {
            let seen = run(controller, loss, Duration::from_millis(delay), seconds).await;
            let at = |share: f64| {
                let place = (seen.late.len() as f64 * share).ceil() as usize;
                let late = seen.late.get(place.max(1) - 1);
                late.map_or(0, Duration::as_millis)
            };
            println!(
                "| {:.1} %, {delay} ms | {controller} | {} | {} | {} / {} / {} |",
                f64::from(loss) / 10.0,
                seen.pictures,
                seen.missing,
                at(0.5),
                at(0.99),
                at(1.0)
            );
        }
    }
}

async fn run(controller: &str, loss: u32, delay: Duration, seconds: u64) -> Seen {
    let launch = |name| Launch::new(name).option("--congestion", controller);
    let way = Way::rough(loss, delay);
    let clip = Clip::hd(120);
    // Room for one copy: the viewer must not be fed by the publisher, without a rough link.
    let limit = clip.bps() * 19 / 10;
    let publisher = launch("publisher").limit(limit).start().await;
    let first = RoughLink::before(&publisher.ready.quic).await;
    first.both(way);
    let relay = launch("relay").limit("100mbit");
    let relay = relay.option("--peer", first.address).start().await;
    let second = RoughLink::before(&relay.ready.quic).await;
    second.both(way);
    let (stream, ingest) = publisher.api.publish("Far").await;
    let _encoder = Encoder::rtmp(clip, &ingest);
    flows(&publisher, &stream).await;
    join(&relay, &stream).await;
    flows(&relay, &stream).await;
    let viewer = launch("viewer").limit(0);
    let viewer = viewer.option("--peer", second.address).start().await;
    join(&viewer, &stream).await;
    flows(&viewer, &stream).await;
    let slug = stream.id.to_string();
    let parent = viewer.api.parent(&slug).await;
    if parent != Some(relay.id()) {
        println!("(the viewer is fed by {parent:?}, not by the relay)");
    }
    let here = Recording::start(&publisher.api, &slug, "target_ms=0");
    let there = Recording::start(&viewer.api, &slug, "target_ms=0");
    sleep(s(3)).await;
    let from = Instant::now();
    sleep(Duration::from_secs(seconds)).await;
    let until = Instant::now();
    // What is on its way may still come.
    sleep(s(3)).await;
    compare(&here, &there, from, until)
}

fn compare(here: &Recording, there: &Recording, from: Instant, until: Instant) -> Seen {
    let (sent, came) = (here.received(), there.received());
    let (sent, came) = (sent.by_time(), came.by_time());
    let pictures = sent
        .iter()
        .filter(|((track, _), (_, at))| *track == 1 && (from..until).contains(at));
    let mut seen = Seen {
        pictures: 0,
        missing: 0,
        late: Vec::new(),
    };
    for (name, (_, sent_at)) in pictures {
        seen.pictures += 1;
        match came.get(name) {
            Some((_, at)) => seen.late.push(at.saturating_duration_since(*sent_at)),
            None => seen.missing += 1,
        }
    }
    seen.late.sort();
    seen
}
