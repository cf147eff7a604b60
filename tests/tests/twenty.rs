//! Twenty nodes in one process, eight of them in a row.

use std::fmt::Write;
use std::sync::Arc;

use astral_node::{Config, Node, UpstreamLimit};
use astral_proto::api::Ready;
use astral_tests::api::Api;
use astral_tests::ffmpeg::{Clip, Encoder, packets};
use astral_tests::recording::Recording;
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Nodes in a row behind the publisher.
const ROW: usize = 8;
/// One in so many packets may come too late for a player with its usual buffer: at thin uplinks
/// a group's last picture sometimes waits behind the newest group for over a second, more
/// often on a busy machine. No store lacks it, and that is what must hold.
const LATE_SHARE: usize = 10;
/// Nodes in all.
const NODES: usize = 20;

/// Nodes of this process, all ended by one word.
struct Network {
    folders: Vec<TempDir>,
    running: JoinSet<Result<(), String>>,
    end: Arc<watch::Sender<bool>>,
}

impl Network {
    fn new() -> Self {
        let end = Arc::new(watch::Sender::new(false));
        Self {
            folders: Vec::new(),
            running: JoinSet::new(),
            end,
        }
    }

    async fn add(&mut self, limit: UpstreamLimit, peer: Option<&Ready>) -> (Ready, Api) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = Config::default_in(folder.path());
        self.folders.push(folder);
        config.upstream_limit = limit;
        config.peers = peer
            .map(|ready| ready.quic.parse().expect("an address"))
            .into_iter()
            .collect();
        let node = Node::load(config).await.expect("a node");
        let ready = node.handle().ready().clone();
        let mut end = self.end.subscribe();
        self.running.spawn(async move {
            let ended = async move {
                let _ = end.wait_for(|end| *end).await;
            };
            node.run(ended).await.map_err(|error| format!("{error:#}"))
        });
        let api = Api::new(&ready.http, &ready.token);
        (ready, api)
    }

    async fn end(mut self) {
        self.end.send_replace(true);
        while let Some(ended) = self.running.join_next().await {
            ended
                .expect("no node panics")
                .expect("every node ends well");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_arrives_whole_at_the_end_of_a_row_of_eight() {
    let _turn = turn::alone().await;
    let clip = Clip::small(180);
    // Room for one copy, since a promise costs 1.15 times the highest second, and for what
    // the coming and going of twenty nodes costs beside it.
    let one_copy = UpstreamLimit::Bps(clip.bps() * 22 / 10);
    let mut network = Network::new();
    let (first, publisher) = network.add(one_copy, None).await;
    let (stream, ingest) = publisher.publish("Twenty").await;
    let slug = stream.id.to_string();
    let encoder = Encoder::rtmp(clip, &ingest);
    until("the encoder", s(20), async || {
        let local = publisher.stream(&slug).await.local;
        check(local.frames_received > 60, format!("{local:?}"))
    })
    .await;

    // All know the publisher only; its referrals lead each to the end of the row.
    let mut path = vec![first.uuid];
    let mut row = Vec::new();
    for place in 1..=ROW {
        let limit = if place < ROW {
            one_copy
        } else {
            UpstreamLimit::Unlimited
        };
        let (ready, api) = network.add(limit, Some(&first)).await;
        watch_stream(&api, &slug).await;
        let local = api.stream(&slug).await.local;
        assert_eq!(
            local.parent,
            path.last().copied(),
            "place {place}: {local:?}"
        );
        assert_eq!(local.hops as usize, place, "{local:?}");
        path.push(ready.uuid);
        row.push(api);
    }
    // The rest watch, too.
    let mut others = Vec::new();
    while network.folders.len() < NODES {
        let (_, api) = network.add(UpstreamLimit::Bps(0), Some(&first)).await;
        watch_stream(&api, &slug).await;
        others.push(api);
    }
    let last = row.last().expect("a row");
    let recording = Recording::start(last, &slug, "target_ms=1200");
    let lost_before = lost(&row, &others, &slug).await;
    let ticket = last
        .tickets(&slug)
        .await
        .into_iter()
        .find(|t| t.destination == *path.last().expect("a path"));
    assert_eq!(ticket.expect("the last one's ticket").path, path);

    until("ten seconds", s(30), async || {
        let pieces = recording.received().fragments.len();
        if pieces > 550 {
            return Ok(());
        }
        // Where in the row it stopped, if it did.
        let mut seen = format!("{pieces} pieces");
        for api in &row {
            let _ = write!(seen, "\n{:?}", api.stream(&slug).await.local);
        }
        Err(seen)
    })
    .await;
    drop(encoder);
    recording.wait_quiet(s(3), s(30)).await;
    for (place, api) in row.iter().enumerate() {
        let (local, node) = (api.stream(&slug).await.local, api.node().await);
        println!(
            "place {}: {} frames, {} lost, {} switches, {} children, latency {:.1} ms",
            place + 1,
            local.frames_received,
            local.frames_lost,
            local.switches,
            node.children,
            local.latency_ms
        );
    }
    let dir = tempfile::tempdir().expect("a temporary folder");
    let came = recording.save(dir.path(), "came.mp4");
    for track in ["v:0", "a:0"] {
        let (sent, came) = (packets(&clip.path(), track), packets(&came, track));
        let late = late_in(track, &sent, &came);
        println!("{track}: {} packets, {late} came too late", came.len());
        let most = came.len() / LATE_SHARE;
        assert!(late <= most, "{track}: {late} packets came too late");
        assert!(came.len() > 200, "{} packets at the last node", came.len());
    }
    // What each of them missed of its own first group; the run of frames above is what counts.
    println!(
        "lost at each node: before {lost_before:?}, after {:?}",
        lost(&row, &others, &slug).await
    );
    for api in row.iter().chain(&others) {
        let local = api.stream(&slug).await.local;
        assert!(local.frames_received > 200, "{local:?}");
    }
    let at_last = last.stream(&slug).await.local;
    assert_eq!(at_last.frames_lost, 0, "{at_last:?}");
    let latency = last.stream(&slug).await.local.latency_ms;
    println!("latency by heartbeats at hop {ROW}: {latency:.1} ms");
    drop(recording);
    network.end().await;
}

/// Packets that a player did not wait for any longer; panics at one that was never
/// sent, came twice or out of order.
fn late_in(track: &str, sent: &[String], came: &[String]) -> usize {
    let mut places = Vec::new();
    for hash in came {
        let from = places.last().map_or(0, |place| place + 1);
        let place = sent[from..].iter().position(|other| other == hash);
        places.push(from + place.unwrap_or_else(|| panic!("{track}: {hash} out of order")));
    }
    let (first, last) = (places.first(), places.last());
    let span = first.zip(last).map_or(0, |(first, last)| last - first + 1);
    span - came.len()
}

/// Frames lost at every node.
async fn lost(row: &[Api], others: &[Api], slug: &str) -> Vec<u64> {
    let mut lost = Vec::new();
    for api in row.iter().chain(others) {
        lost.push(api.stream(slug).await.local.frames_lost);
    }
    lost
}

async fn watch_stream(api: &Api, slug: &str) {
    until("the stream's record", s(15), async || {
        api.try_stream(slug).await
    })
    .await;
    let answer = api.watch(slug).await;
    assert_eq!(answer.status, 201, "{answer}");
    until("frames", s(15), async || {
        let local = api.stream(slug).await.local;
        check(local.frames_received > 0, format!("{local:?}"))
    })
    .await;
}
