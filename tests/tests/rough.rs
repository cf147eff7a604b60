//! Real nodes over links that delay, lose, shrink and break.

use std::time::{Duration, Instant};

use astral_proto::api::Stream;
use astral_tests::chain::{flows, join};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::{Launch, Node};
use astral_tests::recording::Recording;
use astral_tests::rough::{RoughLink, Way};
use astral_tests::turn;
use astral_tests::wait::{check, s, until};

/// Half of the way there and back over a link between continents.
const FAR: Duration = Duration::from_millis(50);

/// Waits until so many more pictures have come.
async fn more_pictures(recording: &Recording, more: u32, within: Duration) {
    let before = recording.received().samples(1);
    let enough = |came: &astral_tests::recording::Received| came.samples(1) >= before + more;
    recording.wait("more pictures", within, enough).await;
}

/// Waits until a node knows so many others.
async fn knows(node: &Node, others: usize) {
    until("others", s(15), async || {
        let nodes: serde_json::Value = node.api.get("/nodes").await;
        let items = nodes["items"].as_array().map_or(0, Vec::len);
        check(items > others, nodes)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_over_far_and_lossy_links_stays_whole() {
    let _turn = turn::shared().await;
    let clip = Clip::hd(60);
    // Room for one copy: the viewer must not be fed past the second link.
    let limit = clip.bps() * 19 / 10;
    let publisher = Launch::new("publisher").limit(limit).start().await;
    let first_link = RoughLink::before(&publisher.ready.quic).await;
    first_link.both(Way::rough(20, FAR));
    let relay = Launch::new("relay").option("--peer", first_link.address);
    let relay = relay.limit("100mbit").start().await;
    let second_link = RoughLink::before(&relay.ready.quic).await;
    second_link.both(Way::rough(20, FAR));
    let viewer = Launch::new("viewer").option("--peer", second_link.address);
    let viewer = viewer.limit(0).start().await;
    let (stream, ingest) = publisher.api.publish("Far Away").await;
    let _encoder = Encoder::rtmp(clip, &ingest);
    flows(&publisher, &stream).await;
    for node in [&relay, &viewer] {
        join(node, &stream).await;
        flows(node, &stream).await;
    }
    let recording = Recording::start(&viewer.api, &stream.slug, "target_ms=1200");
    more_pictures(&recording, 450, s(40)).await;
    recording.assert_whole(clip);
    let local = viewer.api.stream(&stream.slug).await.local;
    println!("2 Mbit/s over two links of 2 % loss and 100 ms there and back: {local:?}");
    assert_eq!(local.frames_lost, 0, "{local:?}");
    assert!(local.switches <= 2, "{local:?}");
    assert!(local.latency_ms >= 90.0, "the links are far: {local:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_whose_link_shrinks_stays_live_and_connected() {
    let _turn = turn::shared().await;
    let clip = Clip::small(90).b_frames(2);
    let publisher = Launch::new("publisher").limit("100mbit").start().await;
    let link = RoughLink::before(&publisher.ready.quic).await;
    let viewer = Launch::new("viewer").limit(0);
    let viewer = viewer.option("--peer", link.address).start().await;
    let (stream, ingest) = publisher.api.publish("Shrinking").await;
    let _encoder = Encoder::rtmp(clip, &ingest);
    join(&viewer, &stream).await;
    flows(&viewer, &stream).await;
    let full = Way {
        rate_bps: Some(clip.bps() * 3),
        delay: Duration::from_millis(20),
        loss_permille: 0,
    };
    let narrow = Way {
        rate_bps: Some(clip.bps() * 6 / 10),
        ..full
    };
    link.to_caller(narrow);
    let received = viewer.api.stream(&stream.slug).await.local.frames_received;
    tokio::time::sleep(s(8)).await;
    let local = viewer.api.stream(&stream.slug).await.local;
    println!("after 8 s at 6/10 of the stream's rate: {local:?}");
    assert!(
        local.frames_received > received + 60,
        "what fits still comes: {local:?}"
    );
    // How far behind: the publisher's newest frames are the viewer's within seconds.
    link.to_caller(full);
    let recording = Recording::start(&viewer.api, &stream.slug, "target_ms=0");
    until("a whole second without a loss", s(30), async || {
        let before = viewer.api.stream(&stream.slug).await.local;
        tokio::time::sleep(s(2)).await;
        let after = viewer.api.stream(&stream.slug).await.local;
        let came = after.frames_received - before.frames_received;
        check(
            came > 120 && after.frames_lost <= before.frames_lost,
            format!("{before:?} {after:?}"),
        )
    })
    .await;
    more_pictures(&recording, 60, s(20)).await;
    let local = viewer.api.stream(&stream.slug).await.local;
    assert_eq!(local.switches, 0, "the ticket was kept: {local:?}");
    assert!(!viewer.log().contains("peer gone"), "and the connection");
}

/// A publisher, two relays, and a viewer that has both behind rough links.
struct Fork {
    _publisher: Node,
    relays: [Node; 2],
    links: [RoughLink; 2],
    viewer: Node,
    stream: Stream,
    clip: Clip,
    _encoder: Encoder,
}

impl Fork {
    async fn start(name: &str) -> Self {
        let clip = Clip::small(120);
        // No room for the viewer at the publisher: it is fed by a relay.
        let limit = clip.bps() * 115 / 100 * 3;
        let publisher = Launch::new("publisher").limit(limit).start().await;
        let (stream, ingest) = publisher.api.publish(name).await;
        let encoder = Encoder::rtmp(clip, &ingest);
        flows(&publisher, &stream).await;
        let relays = [
            Self::relay("relay-a", &publisher, &stream).await,
            Self::relay("relay-b", &publisher, &stream).await,
        ];
        let links = [
            RoughLink::before(&relays[0].ready.quic).await,
            RoughLink::before(&relays[1].ready.quic).await,
        ];
        let mut viewer = Launch::new("viewer").limit(0);
        for link in &links {
            link.both(Way::rough(0, Duration::from_millis(10)));
            viewer = viewer.option("--peer", link.address);
        }
        let viewer = viewer.start().await;
        knows(&viewer, 2).await;
        join(&viewer, &stream).await;
        flows(&viewer, &stream).await;
        Self {
            _publisher: publisher,
            relays,
            links,
            viewer,
            stream,
            clip,
            _encoder: encoder,
        }
    }

    async fn relay(name: &'static str, publisher: &Node, stream: &Stream) -> Node {
        let relay = Launch::new(name).limit("100mbit").peer(publisher);
        let relay = relay.start().await;
        join(&relay, stream).await;
        flows(&relay, stream).await;
        relay
    }

    /// The relay that feeds the viewer, once the other one is its standby.
    async fn parent(&self) -> usize {
        let slug = self.stream.id.to_string();
        until("a relay and a standby", s(30), async || {
            let local = self.viewer.api.stream(&slug).await.local;
            let of = |node: &Node| Some(node.id()) == local.parent;
            let place = self.relays.iter().position(of);
            place
                .filter(|_| local.standby.is_some())
                .ok_or(format!("{local:?}"))
        })
        .await
    }

    fn record(&self) -> Recording {
        let slug = self.stream.id.to_string();
        Recording::start(&self.viewer.api, &slug, "target_ms=0")
    }

    async fn switches(&self) -> u64 {
        let slug = self.stream.id.to_string();
        self.viewer.api.stream(&slug).await.local.switches
    }

    /// Does something to the link of the parent, and waits until pictures have come from
    /// the other one for some time.
    async fn bear(&self, what: &str, recording: &Recording, way: impl FnOnce(&RoughLink)) {
        more_pictures(recording, 30, s(15)).await;
        let place = self.parent().await;
        let (before, at) = (self.switches().await, Instant::now());
        way(&self.links[place]);
        let slug = self.stream.id.to_string();
        until("another parent", s(15), async || {
            let local = self.viewer.api.stream(&slug).await.local;
            let other = local.parent.is_some_and(|p| p != self.relays[place].id());
            check(other, format!("{local:?}"))
        })
        .await;
        more_pictures(recording, 90, s(20)).await;
        let switches = self.switches().await - before;
        println!(
            "{what}: longest gap {:?}, {switches} switches",
            recording.longest_gap(at, Instant::now())
        );
        assert!(switches <= 2, "{what}: it does not flap: {switches}");
        self.links[place].both(Way::rough(0, Duration::from_millis(10)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_breaks_either_way_is_left_like_a_dead_parent() {
    let _turn = turn::shared().await;
    let fork = Fork::start("Cut").await;
    let recording = fork.record();
    fork.bear("cut both ways", &recording, |link| link.both(Way::CUT))
        .await;
    fork.bear("nothing from the parent", &recording, |link| {
        link.to_caller(Way::CUT);
    })
    .await;
    recording.assert_whole(fork.clip);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_loses_one_in_twenty_costs_no_frame_and_moves_nobody_to_and_fro() {
    let _turn = turn::shared().await;
    let fork = Fork::start("Lossy").await;
    let recording = fork.record();
    let _settled = fork.parent().await;
    let (before, at) = (fork.switches().await, Instant::now());
    for link in &fork.links {
        link.both(Way::rough(50, Duration::from_millis(10)));
    }
    more_pictures(&recording, 300, s(30)).await;
    let switches = fork.switches().await - before;
    println!(
        "5 % loss for 10 s: longest gap {:?}, {switches} switches",
        recording.longest_gap(at, Instant::now())
    );
    assert!(switches <= 2, "{switches}");
    recording.assert_whole(fork.clip);
}
