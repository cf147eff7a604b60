//! Peers that lie: nothing that they forge gets past the next honest node, which says
//! why it drops them, and nobody else notices.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use astral_media::fmp4::Demuxer;
use astral_media::source::SourceEvent;
use astral_proto::ids::{NodeId, StreamId};
use astral_proto::wire::CloseCode;
use astral_proto::wire::control::{Message, TicketRequest};
use astral_tests::hostile::flood::half_open;
use astral_tests::hostile::identity::{Identity, certificate_of};
use astral_tests::hostile::link::Endpoint;
use astral_tests::hostile::relay::{Farewell, Relay};
use astral_tests::hostile::shelf::Shelf;
use astral_tests::hostile::source::Source;
use astral_tests::hostile::tamper::{Mode, Tamper};
use astral_tests::process::{Launch, Node};
use astral_tests::recording::{Received, Recording};
use astral_tests::synthetic::{Encoder, Shape, is_genuine, read};
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// 4 Mbit/s in frames of two chunks, a keyframe every second.
const SHAPE: Shape = Shape {
    fps: 30,
    frame_bytes: 17_000,
    group_frames: 30,
};
/// Frames that the relay forwards as they are: the viewer plays by then.
const HONEST_FRAMES: u64 = 75;
/// Most frames that a relay has sent in vain when it is dropped: what a round trip and a
/// busy machine make of one.
const IN_VAIN_MAX: u64 = 15;
/// Groups of an epoch, where there are many.
const EPOCH_GROUPS: u64 = 3;
/// How long a relay that was dropped must not be heard of.
const SHUNNED: Duration = s(3);
/// What a node may hold at the end.
const MEMORY_MAX: u64 = 256 << 20;
/// What a node may hold more after a storm than before it.
const MEMORY_GROWTH_MAX: u64 = 64 << 20;

fn quic(node: &Node) -> SocketAddr {
    node.ready.quic.parse().expect("an address")
}

/// A node with streams that an encoder feeds.
struct Publisher {
    node: Node,
    streams: Vec<StreamId>,
    _encoders: Vec<Encoder>,
}

impl Publisher {
    async fn start(name: &'static str, streams: &[&str]) -> Self {
        let node = alone(name).limit("unlimited").start().await;
        let (mut ids, mut encoders) = (vec![], vec![]);
        for name in streams {
            let (stream, ingest) = node.api.publish(name).await;
            encoders.push(Encoder::start(&ingest.http_url, SHAPE).await);
            ids.push(stream.id);
        }
        Self {
            node,
            streams: ids,
            _encoders: encoders,
        }
    }
}

/// A node that keeps to those it is told of: through a supernode it would find another
/// parent, and play on.
fn alone(name: &'static str) -> Launch {
    Launch::new(name).option("--supernode", "never")
}

/// Numbers of the frames in a recording; panics at one that no encoder made.
fn numbers(received: &Received) -> Vec<u64> {
    let (mut demuxer, mut events) = (Demuxer::new(), Vec::new());
    demuxer
        .push(&received.bytes, &mut events)
        .expect("fragmented MP4");
    let frames = events.into_iter().filter_map(|event| match event {
        SourceEvent::Sample(sample) => Some(sample.data),
        SourceEvent::Track(_) | SourceEvent::Promised { .. } | SourceEvent::End => None,
    });
    frames
        .map(|payload| {
            assert!(is_genuine(SHAPE, &payload), "a frame that nobody made");
            read(&payload).expect("a number").0
        })
        .collect()
}

fn assert_ascending(numbers: &[u64]) {
    let ascending = numbers.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(ascending, "twice or out of order: {numbers:?}");
}

fn assert_whole(numbers: &[u64]) {
    let whole = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    assert!(whole, "a frame is missing: {numbers:?}");
}

async fn watch(viewer: &Node, stream: StreamId) -> Recording {
    let slug = stream.to_string();
    until("the stream to be known", s(10), async || {
        viewer.api.try_stream(&slug).await.map(drop)
    })
    .await;
    let answer = viewer.api.watch(&slug).await;
    assert!(answer.status.is_success(), "{answer}");
    Recording::start(&viewer.api, &slug, "")
}

/// A viewer that knows nobody but a relay, and an honest publisher of another stream, of its
/// own: one that all scenes share would lead from one viewer to the next.
struct Scene {
    relay: Relay,
    _other: Publisher,
    viewer: Node,
    poisoned: Recording,
    untouched: Recording,
}

impl Scene {
    /// A relay of the publisher's streams.
    async fn start(mode: Mode, publisher: &Publisher) -> Self {
        let tamper = Tamper::new(mode, HONEST_FRAMES);
        let identity = Identity::new(0x80 + mode as u8);
        let relay = Relay::start(identity, quic(&publisher.node), &publisher.streams, tamper).await;
        let relay = relay.unwrap_or_else(|error| panic!("{mode:?}: {error}"));
        Self::around(relay, publisher.streams[0]).await
    }

    /// A relay of a stream that begins a new epoch every three seconds.
    async fn of_many_epochs(mode: Mode) -> Self {
        let endpoint = Arc::new(Endpoint::bind(Identity::new(0x80 + mode as u8)));
        let (shelf, publisher) = (Shelf::default(), Identity::new(0x20).id());
        let source = Source::new(0x51, "Show", publisher, SHAPE, shelf.clone());
        let stream = source.id();
        let mut tasks = JoinSet::new();
        tasks.spawn(source.run(EPOCH_GROUPS));
        let path = vec![publisher, endpoint.id()];
        let tamper = Tamper::new(mode, EPOCH_GROUPS * SHAPE.group_frames + HONEST_FRAMES);
        let relay = Relay::serve(endpoint, shelf, path, tamper, tasks);
        Self::around(relay, stream).await
    }

    async fn around(relay: Relay, stream: StreamId) -> Self {
        let other = Publisher::start("elsewhere", &["Elsewhere"]).await;
        let viewer = alone("viewer")
            .option("--peer", relay.endpoint.address)
            .peer(&other.node)
            .start()
            .await;
        let untouched = watch(&viewer, other.streams[0]).await;
        let poisoned = watch(&viewer, stream).await;
        Self {
            relay,
            _other: other,
            viewer,
            poisoned,
            untouched,
        }
    }

    /// Number of the frame in whose place the relay struck.
    async fn struck(&self) -> u64 {
        let tamper = &self.relay.parent.tamper;
        let (_, name, index) = until("the relay to strike", s(20), async || {
            tamper
                .struck()
                .ok_or(format!("{} frames sent", tamper.sent()))
        })
        .await;
        let held = &self.relay.parent.shelf;
        let entry = held.find(|other, entry| *other == name && entry.header.index == index);
        read(&entry.expect("the frame is there").payload)
            .expect("a number")
            .0
    }

    async fn farewell(&self) -> Farewell {
        let viewer = self.viewer.id();
        until("the viewer to hang up", s(5), async || {
            let mut all = self.relay.farewells().into_iter();
            all.find(|farewell| farewell.peer == viewer)
                .ok_or("it is connected")
        })
        .await
    }

    /// The end of every scene: the other stream is whole and goes on.
    async fn assert_untouched(&self) {
        let before = self.untouched.received().fragments.len();
        self.untouched
            .wait("the other stream to go on", s(10), |received| {
                received.fragments.len() > before + 15
            })
            .await;
        let received = numbers(&self.untouched.received());
        assert_whole(&received);
        assert!(self.viewer.memory() < MEMORY_MAX);
    }
}

/// The relay strikes, and the viewer notices.
async fn assert_noticed(mode: Mode, scene: impl Future<Output = Scene>) {
    let scene = scene.await;
    let struck = scene.struck().await;
    let farewell = scene.farewell().await;
    let in_vain = scene.relay.parent.tamper.sent_after();
    let (requests, arrivals) = (scene.relay.requests(), arrivals(&scene.relay));

    let (code, words) = farewell.close.clone().expect("it says why");
    assert_eq!(code, CloseCode::BadMedia as u64, "{mode:?}: {words}");
    assert!(in_vain <= IN_VAIN_MAX, "{mode:?}: {in_vain} frames later");
    let log = scene.viewer.log();
    let reason = log.lines().find(|line| line.contains("media refused"));
    let reason = reason.unwrap_or_else(|| panic!("{mode:?}: the log does not say why"));
    eprintln!(
        "{mode:?}: after {:?}, {in_vain} frames; {reason}",
        farewell.after.expect("it struck")
    );
    assert!(reason.contains(expected_words(mode)), "{mode:?}: {reason}");

    sleep(SHUNNED).await;
    let asked = (scene.relay.requests(), self::arrivals(&scene.relay));
    assert_eq!(asked, (requests, arrivals), "{mode:?}: it is asked again");
    let refused = scene.relay.endpoint.dial(quic(&scene.viewer)).await;
    let close = match refused {
        Ok(link) => link.closed().await,
        Err(error) => error.close(),
    };
    let (code, _) = close.expect("a relay that lied is refused");
    assert_eq!(code, CloseCode::Banned as u64, "{mode:?}");

    let received = numbers(&scene.poisoned.received());
    assert_ascending(&received);
    let last = *received.last().expect("it played before");
    // Of two frames that changed places the one that came first is genuine.
    let most = if mode == Mode::Reorder {
        struck + 1
    } else {
        struck - 1
    };
    assert!(
        last <= most && last + 3 >= struck,
        "{mode:?}: {last} is the last frame, {struck} was struck"
    );
    scene.assert_untouched().await;
}

fn arrivals(relay: &Relay) -> u64 {
    relay.arrivals.load(std::sync::atomic::Ordering::Relaxed)
}

/// Words of the reason by which somebody finds out what happened.
fn expected_words(mode: Mode) -> &'static str {
    match mode {
        Mode::FlipPayload => "does not verify",
        Mode::FlipHeader | Mode::FlipSignature | Mode::OtherStream | Mode::ForgedFrame => {
            "the signature does not verify"
        }
        Mode::CutForgedEnd | Mode::EndlessHeader | Mode::OversizedFrame => {
            "the signature does not verify"
        }
        Mode::TruncateFrame => "does not verify",
        Mode::CutForeignEnd => "a group's end does not belong here",
        Mode::ReplayRenamed | Mode::Reorder | Mode::SwapGroups | Mode::SwapTracks => {
            "a frame does not belong here"
        }
        Mode::OversizedItem => "over the limit",
        Mode::UnknownKind => "item kind: 9 is not valid",
        Mode::Honest | Mode::BadGroupHeader | Mode::CutShort | Mode::ReplayEpoch => "",
    }
}

/// The relay strikes, and the viewer bears it: what it shows is genuine, and goes on.
async fn assert_borne(mode: Mode, scene: impl Future<Output = Scene>) {
    let scene = scene.await;
    let struck = scene.struck().await;
    scene
        .poisoned
        .wait("frames after the strike", s(15), |received| {
            let numbers = numbers(received);
            numbers.last().is_some_and(|last| *last > struck + 45)
        })
        .await;
    assert_ascending(&numbers(&scene.poisoned.received()));
    assert!(!scene.viewer.log().contains("media refused"), "{mode:?}");
    scene.assert_untouched().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_alters_truncates_forges_or_reorders_is_dropped_within_a_frame() {
    let _turn = turn::alone().await;
    let publisher = Publisher::start("publisher", &["Show", "Other"]).await;
    let modes = Mode::NOTICED.into_iter();
    let modes: Vec<Mode> = modes.filter(|mode| *mode != Mode::ReplayRenamed).collect();
    for some in modes.chunks(5) {
        let scenes = some
            .iter()
            .map(|mode| assert_noticed(*mode, Scene::start(*mode, &publisher)));
        futures_util::future::join_all(scenes).await;
    }
    assert!(publisher.node.memory() < MEMORY_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_an_older_epoch_do_not_come_back() {
    let _turn = turn::alone().await;
    let renamed = assert_noticed(
        Mode::ReplayRenamed,
        Scene::of_many_epochs(Mode::ReplayRenamed),
    );
    let replayed = assert_borne(Mode::ReplayEpoch, Scene::of_many_epochs(Mode::ReplayEpoch));
    tokio::join!(renamed, replayed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_cuts_short_gets_nothing_forged_past_the_viewer() {
    let _turn = turn::alone().await;
    let publisher = Publisher::start("publisher", &["Show", "Other"]).await;
    let scenes = [Mode::CutShort, Mode::BadGroupHeader]
        .map(|mode| assert_borne(mode, Scene::start(mode, &publisher)));
    futures_util::future::join_all(scenes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_is_not_impersonated() {
    let _turn = turn::shared().await;
    let victim = Launch::new("victim").start().await;
    let mut node = Launch::new("node").peer(&victim).start().await;
    let honest = Endpoint::bind(Identity::new(0x21));
    let link = honest.dial(quic(&victim)).await.expect("a node answers");
    let (certificate, record) = (certificate_of(&link.conn), link.record.clone());

    let thief = Endpoint::bind(Identity::new(0x22).with_certificate(certificate));
    let refused = thief.dial(quic(&node)).await;
    assert!(refused.is_err(), "a certificate without its key is taken");

    let liar = Endpoint::bind(Identity::new(0x23)).with_record(record);
    let close = match liar.dial(quic(&node)).await {
        Ok(link) => link.closed().await,
        Err(error) => error.close(),
    };
    let (code, words) = close.expect("a Hello with another's record is refused");
    assert_eq!(code, CloseCode::Identity as u64, "{words}");
    assert!(words.contains("another key"), "{words}");

    let victim_is_there = async || {
        let nodes = node.api.try_get("/api/v1/nodes").await?;
        let nodes = nodes.to_string();
        check(nodes.contains(&victim.id().to_string()), nodes)
    };
    until("the victim to stay connected", s(5), victim_is_there).await;
    assert!(node.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_says_too_much_or_nothing_is_hung_up_on() {
    let _turn = turn::shared().await;
    let node = Launch::new("node").start().await;
    let endpoint = Endpoint::bind(Identity::new(0x31));
    let before = node.memory();

    // A message that is longer than any may be.
    let mut link = endpoint.dial(quic(&node)).await.expect("a node answers");
    link.raw(&[0x01, 0x80, 0x01, 0x00, 0x01])
        .await
        .expect("it is taken");
    let (code, words) = link.closed().await.expect("it says why");
    assert_eq!(code, CloseCode::Protocol as u64, "{words}");
    assert!(words.contains("over the limit"), "{words}");

    // A body that is not what it should be.
    let mut link = endpoint.dial(quic(&node)).await.expect("a node answers");
    link.raw(&[0x09, 0x02, 0x9f, 0xff])
        .await
        .expect("it is taken");
    let (code, words) = link.closed().await.expect("it says why");
    assert_eq!(code, CloseCode::Protocol as u64, "{words}");

    // A hundred thousand requests for streams that nobody has.
    let mut link = endpoint.dial(quic(&node)).await.expect("a node answers");
    let request = TicketRequest {
        stream: StreamId(NodeId::of(&Identity::new(0x32).key.public()).0),
        carries: None,
        places: None,
    };
    let batch = Message::from(request).encode().repeat(1_000);
    let flood = async {
        for _ in 0..100 {
            if link.raw(&batch).await.is_err() {
                return;
            }
        }
    };
    // It may hang up, or answer, or let us wait: as long as it keeps its head.
    let _ = tokio::time::timeout(s(10), flood).await;
    drop(link);

    // A connection on which nothing is ever said.
    let silent = endpoint.connect(quic(&node)).await.expect("a node answers");
    let closed = tokio::time::timeout(s(12), silent.closed()).await;
    assert!(closed.is_ok(), "silence is borne for ever");

    let grown = node.memory().saturating_sub(before);
    assert!(grown < MEMORY_GROWTH_MAX, "{grown} bytes more");
    endpoint.dial(quic(&node)).await.expect("a node answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_half_open_handshakes_leave_a_stream_whole_and_the_door_open() {
    let _turn = turn::alone().await;
    let publisher = Publisher::start("publisher", &["Show"]).await;
    let viewer = Launch::new("viewer").peer(&publisher.node).start().await;
    let recording = watch(&viewer, publisher.streams[0]).await;
    recording
        .wait("the picture", s(15), |received| {
            received.fragments.len() > 30
        })
        .await;
    let before = publisher.node.memory();
    half_open(quic(&publisher.node), 10_000).await;
    let endpoint = Endpoint::bind(Identity::new(0x41));
    until("a peer to get in", s(10), async || {
        endpoint.dial(quic(&publisher.node)).await.map(drop)
    })
    .await;
    let pieces = recording.received().fragments.len();
    recording
        .wait("the picture to go on", s(10), |received| {
            received.fragments.len() > pieces + 60
        })
        .await;
    assert_whole(&numbers(&recording.received()));
    let grown = publisher.node.memory().saturating_sub(before);
    eprintln!("{} KiB more after 10,000 half-open handshakes", grown >> 10);
    assert!(grown < MEMORY_GROWTH_MAX, "{grown} bytes more");
}
