//! From a real encoder through three nodes into a real browser.

use std::time::Duration;

use astral_tests::chain::{Chain, flows};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::places::{scratch, strict};
use astral_tests::player::{Player, Stats};
use astral_tests::process::Launch;
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use tokio::time::{Instant, sleep};

/// How long playback is watched.
fn watched() -> Duration {
    if strict() { s(60) } else { s(30) }
}

/// What may go wrong for reasons that are the machine's, in per cent of frames.
struct Tolerance {
    single_misses: f64,
    dropped: f64,
    longest_hole: u32,
    freeze_ms: f64,
}

fn tolerance() -> Tolerance {
    match strict() {
        true => Tolerance {
            single_misses: 1.0,
            dropped: 0.0,
            longest_hole: 0,
            freeze_ms: 150.0,
        },
        false => Tolerance {
            single_misses: 3.0,
            dropped: 1.0,
            longest_hole: 6,
            freeze_ms: 500.0,
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_from_ffmpeg_moves_in_a_browser_three_nodes_away() {
    let _turn = turn::alone().await;
    let clip = Clip::hd(if strict() { 100 } else { 60 });
    let chain = Chain::start("Browser Test").await;
    let _encoder = Encoder::rtmp(clip, &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;

    let path = format!("/watch/{}", chain.slug());
    let mut player = Player::open(&chain.viewer.api.url(&path)).await;
    player.plays().await;
    // Joining may skip to the target latency; what counts is what follows.
    sleep(s(1)).await;
    let before = (player.stats().await, player.audio_bytes().await);
    let skipped = player.seen().await.numbers.len();

    let (start, watched) = (Instant::now(), watched());
    let mut latencies = Vec::new();
    while start.elapsed() < watched {
        sleep(s(1)).await;
        let stats = player.stats().await;
        assert!(
            stats.errors.is_empty() && stats.state == "playing",
            "{stats:?}"
        );
        assert_eq!(stats.waiting_events, before.0.waiting_events, "{stats:?}");
        latencies.extend(stats.latency_ms);
    }
    player
        .browser
        .screenshot(&scratch().join("watch.png"))
        .await;
    let after = (player.stats().await, player.audio_bytes().await);
    let mut seen = player.seen().await;
    seen.skip(skipped);
    let order = seen.order();

    latencies.sort_by(f64::total_cmp);
    let (stats, played) = (&after.0, after.0.current_time - before.0.current_time);
    let shown_frames = stats.total_frames - before.0.total_frames;
    let dropped = stats.dropped_frames - before.0.dropped_frames;
    println!("{order}");
    println!(
        "played {played:.1} s in {:.1} s, {dropped} of {shown_frames} frames dropped, longest \
         time without a picture {} ms, first picture after {:?} ms, latency p50 {:?} ms, sound {} kB",
        start.elapsed().as_secs_f64(),
        stats.frame_gap_max_ms,
        stats.first_playing_ms,
        latencies.get(latencies.len() / 2),
        (after.1 - before.1) / 1000,
    );
    println!("{stats:?}");

    let may = tolerance();
    let events = player.events().await;
    assert!(
        !events.iter().any(|e| e == "waiting" || e == "error"),
        "{events:?}"
    );
    assert!(
        (played - watched.as_secs_f64()).abs() < 2.0,
        "plays at the pace of the source"
    );
    assert!(order.read > 25 * watched.as_secs() as usize, "{order}");
    assert_eq!((order.backwards, seen.unreadable), (0, 0), "{order}");
    assert!(order.miss_percent() <= may.single_misses, "{order}");
    assert!(
        order.holes.iter().all(|hole| *hole <= may.longest_hole),
        "{order}"
    );
    assert!(order.holes.len() <= 3, "{order}");
    assert!(
        f64::from(dropped) <= f64::from(shown_frames) * may.dropped / 100.0,
        "{dropped}"
    );
    assert!(
        stats.frame_gap_max_ms <= may.freeze_ms.max(before.0.frame_gap_max_ms),
        "{stats:?}"
    );
    assert_eq!(
        (stats.reconnects, stats.rebuilds, stats.gaps, stats.jumps),
        (0, 0, 0, 0)
    );
    assert!(
        after.1 - before.1 > 90_000 / 8 * watched.as_secs() * 8 / 10,
        "sound is decoded"
    );
    check_what_is_shown(&mut player, &chain, stats).await;
    let complaints = &player.browser.complaints;
    assert!(complaints.is_empty(), "{complaints:?}");
}

async fn check_what_is_shown(player: &mut Player, chain: &Chain, stats: &Stats) {
    let shown = player.shown().await;
    println!("{shown:?}");
    assert_eq!(shown.pill, "Live");
    assert_eq!(shown.resolution, "1280×720");
    // The relay, until the viewer finds that the publisher has room for it, too.
    let local = chain.viewer.api.stream(&chain.stream.slug).await.local;
    let parent = local.parent.expect("it is fed").to_string();
    assert_eq!(shown.parent, parent);
    assert_eq!(stats.parent.as_deref(), Some(&*parent));
    let by_relay = parent == chain.relay.id().to_string();
    assert_eq!(stats.hops, Some(if by_relay { 2 } else { 1 }));
    let number = |text: &str| text.split(' ').next().and_then(|n| n.parse::<f64>().ok());
    assert!(
        number(&shown.latency).is_some_and(|s| s > 0.1 && s < 5.0),
        "{shown:?}"
    );
    assert!(shown.bitrate.ends_with("Mbit/s"), "{shown:?}");
    assert!(
        number(&shown.bitrate).is_some_and(|mbit| mbit > 1.0 && mbit < 4.0),
        "{shown:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_page_plays_on_when_a_killed_publisher_is_back() {
    let _turn = turn::alone().await;
    let clip = Clip::hd(60);
    let publisher = Launch::new("publisher").fixed_ports();
    let mut chain = Chain::start_with(publisher, "Killed In The Browser").await;
    let encoder = Encoder::rtmp(clip, &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;
    let path = format!("/watch/{}", chain.slug());
    let mut player = Player::open(&chain.viewer.api.url(&path)).await;
    player.plays().await;
    sleep(s(3)).await;
    let before = player.stats().await;

    chain.publisher = chain.publisher.restart().await;
    drop(encoder);
    let _encoder = Encoder::rtmp(clip, &chain.ingest);
    until("the new epoch", s(40), async || {
        let stream = chain.viewer.api.stream(chain.slug()).await;
        check(stream.epoch > chain.stream.epoch + 1, format!("{stream:?}"))
    })
    .await;
    until("the page to play on", s(20), async || {
        let stats = player.stats().await;
        let plays = stats.state == "playing" && stats.current_time > before.current_time + 5.0;
        check(plays, format!("{stats:?}"))
    })
    .await;
    let back = player.stats().await;
    sleep(s(5)).await;
    let after = player.stats().await;
    println!("before {before:?}\nback {back:?}\nafter {after:?}");
    println!("events {:?}", player.events().await);
    println!("{}", player.seen().await.order());
    assert!(
        after.current_time - back.current_time > 4.0,
        "it plays at full pace"
    );
    assert_eq!(after.state, "playing");
    assert!(after.errors.is_empty(), "{:?}", after.errors);
    // `window.testSeen` would be gone with a reload.
    assert!(player.seen().await.numbers.len() > 150);
}
