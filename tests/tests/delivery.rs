//! The same pieces at every node, and soon.

use std::time::Duration;

use astral_tests::chain::{Chain, flows};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::recording::Recording;
use astral_tests::turn;
use astral_tests::wait::s;

/// Longest median from the first node to the third on loopback.
const MEDIAN_MAX: Duration = Duration::from_millis(100);

/// Recordings at all three nodes of the same seconds.
async fn recorded(name: &str, clip: Clip) -> (Chain, Vec<Recording>) {
    let chain = Chain::start(name).await;
    let mut encoder = Encoder::rtmp(clip, &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;
    let nodes = [&chain.publisher, &chain.relay, &chain.viewer];
    let query = "target_ms=0";
    let recordings = nodes.map(|node| Recording::start(&node.api, chain.slug(), query));
    encoder.finish(clip).await;
    for recording in &recordings {
        recording.wait_quiet(s(2), s(20)).await;
    }
    (chain, recordings.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_reaches_the_third_node_within_100_ms() {
    let _turn = turn::alone().await;
    let (_chain, recordings) = recorded("Latency", Clip::hd(20)).await;
    let first = recordings[0].received();
    let third = recordings[2].received();
    let (first, third) = (first.by_time(), third.by_time());
    // The first second is what was stored already.
    let start = third.values().map(|(_, at)| *at).min().expect("pieces");
    let live = third.iter().filter(|(_, (_, at))| *at - start > s(2));
    let mut delays: Vec<Duration> = live
        .filter_map(|(key, (_, at))| Some(at.saturating_duration_since(first.get(key)?.1)))
        .collect();
    delays.sort();
    let at = |percent: usize| delays[(delays.len() - 1) * percent / 100];
    println!(
        "first to third node, {} pieces: p50 {:?}, p90 {:?}, p99 {:?}, max {:?}",
        delays.len(),
        at(50),
        at(90),
        at(99),
        at(100)
    );
    assert!(delays.len() > 300, "{} pieces at both nodes", delays.len());
    assert!(at(50) < MEDIAN_MAX, "median {:?}", at(50));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_give_the_same_bytes_for_the_same_group() {
    let _turn = turn::shared().await;
    let (_chain, recordings) = recorded("Same Bytes", Clip::small(15)).await;
    let first = recordings[0].received();
    let pieces = first.by_time();
    for (name, recording) in ["relay", "viewer"].iter().zip(&recordings[1..]) {
        let other = recording.received();
        let (first_init, other_init) = (init_of(&first.bytes), init_of(&other.bytes));
        assert_eq!(first_init, other_init, "{name}: the initialisation segment");
        let mut same = 0;
        for (key, (theirs, _)) in other.by_time() {
            let Some((ours, _)) = pieces.get(&key) else {
                continue;
            };
            assert!(
                first.bytes_of(ours) == other.bytes_of(theirs),
                "{name}: {key:?} differs"
            );
            same += 1;
        }
        println!("{name}: {same} pieces are the publisher's, byte for byte");
        // 13 s of 30 pictures, and sound in bundles of up to 60 ms.
        assert!(same > 400, "{name}: only {same} pieces in common");
    }
}

fn init_of(bytes: &[u8]) -> &[u8] {
    let moof = bytes
        .windows(4)
        .position(|kind| kind == b"moof")
        .expect("a piece");
    &bytes[..moof - 4]
}
