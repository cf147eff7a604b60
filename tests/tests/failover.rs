//! A viewer whose parent goes, in every way that a parent can: no frame is missing and
//! none comes twice, and a player with a second of buffer sees nothing of it.

use std::time::{Duration, Instant};

use astral_proto::api::{Stream, TicketState};
use astral_tests::chain::{flows, join};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::{Launch, Node};
use astral_tests::recording::Recording;
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use rustix::process::Signal;

/// Longest time without a picture that a second of buffer bridges; the figures proper
/// are printed, since machines are noisy.
const GAP_MAX: Duration = s(1);

/// A publisher with room for both relays, two relays, and a viewer that knows the relays.
struct Family {
    publisher: Node,
    relays: Vec<Option<Node>>,
    viewer: Node,
    stream: Stream,
    _encoder: Encoder,
}

impl Family {
    async fn start(name: &str) -> Self {
        // No supernode, since the viewer would register with it and be fed by it.
        let publisher = Launch::new("publisher").option("--supernode", "never");
        let publisher = publisher.limit("100mbit").start().await;
        let (stream, ingest) = publisher.api.publish(name).await;
        let encoder = Encoder::rtmp(Clip::small(120), &ingest);
        let mut relays = Vec::new();
        for name in ["relay-a", "relay-b"] {
            let launch = Launch::new(name).fixed_ports().limit("100mbit");
            let relay = launch.peer(&publisher).start().await;
            join(&relay, &stream).await;
            flows(&relay, &stream).await;
            relays.push(relay);
        }
        let mut viewer = Launch::new("viewer").limit(0);
        for relay in &relays {
            viewer = viewer.peer(relay);
        }
        let viewer = viewer.start().await;
        until("both relays", s(10), async || {
            let nodes: serde_json::Value = viewer.api.get("/nodes").await;
            let items = nodes["items"].as_array().map_or(0, Vec::len);
            check(items >= 3, nodes)
        })
        .await;
        join(&viewer, &stream).await;
        flows(&viewer, &stream).await;
        Self {
            publisher,
            relays: relays.into_iter().map(Some).collect(),
            viewer,
            stream,
            _encoder: encoder,
        }
    }

    fn slug(&self) -> String {
        self.stream.id.to_string()
    }

    /// Waits until the viewer is fed by a relay and has a standby; answers the relay's place.
    /// A viewer that has lost its parent moves up to the publisher as soon as it can, which is
    /// not killed here: then it is sent back.
    async fn settled(&self) -> usize {
        until("a parent and a standby", s(90), async || {
            let local = self.viewer.api.stream(&self.slug()).await.local;
            let of = |node: &Option<Node>| {
                node.as_ref()
                    .is_some_and(|node| Some(node.id()) == local.parent)
            };
            let place = self.relays.iter().position(of);
            if local.parent == Some(self.publisher.id()) {
                back_to_a_relay(self).await;
            }
            match (place, local.standby) {
                (Some(place), Some(_)) => Ok(place),
                _ => Err(format!("{local:?}")),
            }
        })
        .await
    }

    /// Waits until the viewer is fed by somebody else; answers how long that took.
    async fn moved_from(&self, node: astral_proto::ids::NodeId) -> Duration {
        let before = Instant::now();
        until("another parent", s(10), async || {
            let local = self.viewer.api.stream(&self.slug()).await.local;
            check(
                local.parent.is_some_and(|parent| parent != node),
                format!("{local:?}"),
            )
        })
        .await;
        before.elapsed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_parents_are_replaced_without_a_frame_lost() {
    let _turn = turn::alone().await;
    let mut family = Family::start("Killed Parents").await;
    let recording = Recording::start(&family.viewer.api, &family.slug(), "target_ms=0");
    recording
        .wait("pictures", s(10), |came| came.samples(1) > 30)
        .await;
    let mut gaps = Vec::new();
    for _ in 0..3 {
        let place = family.settled().await;
        let mut relay = family.relays[place].take().expect("it runs");
        let (id, at) = (relay.id(), Instant::now());
        relay.kill();
        family.moved_from(id).await;
        let pictures = recording.received().samples(1);
        recording
            .wait("what comes after", s(10), |came| {
                came.samples(1) > pictures + 30
            })
            .await;
        gaps.push(recording.longest_gap(at, Instant::now()));
        let relay = relay.restart().await;
        join_again(&relay, &family.stream).await;
        family.relays[place] = Some(relay);
    }
    gaps.sort();
    println!("gaps after kill -9: {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap <= GAP_MAX), "{gaps:?}");
    recording.assert_whole(Clip::small(120));
    let local = family.viewer.api.stream(&family.slug()).await.local;
    assert_eq!(local.frames_lost, 0, "{local:?}");
}

/// A relay that was restarted watches again.
async fn join_again(relay: &Node, stream: &Stream) {
    let slug = stream.id.to_string();
    until("the stream's record", s(15), async || {
        relay.api.try_stream(&slug).await
    })
    .await;
    let answer = relay.api.watch(&slug).await;
    assert!(answer.status.is_success(), "{answer}");
    flows(relay, stream).await;
}

/// The publisher takes its ticket for the viewer back: a relay is its next parent.
async fn back_to_a_relay(family: &Family) {
    let tickets = family.publisher.api.tickets(&family.slug()).await;
    let of_viewer = tickets.iter().find(|ticket| {
        ticket.destination == family.viewer.id() && ticket.state == TicketState::Active
    });
    if let Some(ticket) = of_viewer {
        let path = format!("/streams/{}/tickets/{}", family.slug(), ticket.id);
        let answer = family.publisher.api.delete(&path).await;
        assert_eq!(answer.status, 204, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parent_that_freezes_is_left_and_one_that_leaves_is_not_missed() {
    let _turn = turn::alone().await;
    let family = Family::start("Frozen Parent").await;
    let recording = Recording::start(&family.viewer.api, &family.slug(), "target_ms=0");
    recording
        .wait("pictures", s(10), |came| came.samples(1) > 30)
        .await;
    let place = family.settled().await;
    let relay = family.relays[place].as_ref().expect("it runs");
    let at = Instant::now();
    relay.signal(Signal::STOP);
    family.moved_from(relay.id()).await;
    let pictures = recording.received().samples(1);
    let on = |more: u32| {
        move |came: &astral_tests::recording::Received| came.samples(1) > pictures + more
    };
    recording.wait("what comes after", s(10), on(30)).await;
    let frozen = recording.longest_gap(at, Instant::now());
    relay.signal(Signal::CONT);
    recording.wait("what comes then", s(10), on(90)).await;
    let local = family.viewer.api.stream(&family.slug()).await.local;
    assert!(local.switches <= 2, "it does not flap: {local:?}");

    let place = family.settled().await;
    let at = Instant::now();
    let relay = family.relays[place].as_ref().expect("it runs");
    relay.signal(Signal::TERM);
    family.moved_from(relay.id()).await;
    let pictures = recording.received().samples(1);
    recording
        .wait("what comes after", s(10), |came| {
            came.samples(1) > pictures + 60
        })
        .await;
    println!(
        "gap after SIGSTOP {frozen:?}, after SIGTERM {:?}",
        recording.longest_gap(at, Instant::now())
    );
    assert!(frozen <= GAP_MAX, "{frozen:?}");
    recording.assert_whole(Clip::small(120));
}
