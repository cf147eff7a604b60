//! Low-latency HLS of a real stream: the profile's rules, the same bytes at two nodes,
//! and a playlist that lives through an encoder's break.

use std::process::{Command, Stdio};
use std::time::Instant;

use astral_tests::api::{Answer, Api};
use astral_tests::chain::{Chain, flows};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::hls::{Media, renditions};
use astral_tests::player::Player;
use astral_tests::wait::{check, s, until};
use astral_tests::{places, turn};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Method;
use hyper::header::ACCEPT_ENCODING;
use rustix::process::Signal;

/// Reads files of one stream at one node.
struct Hls {
    api: Api,
    base: String,
}

impl Hls {
    fn at(api: &Api, slug: &str) -> Self {
        Self {
            api: api.clone(),
            base: format!("/live/{slug}/"),
        }
    }

    async fn answer(&self, name: &str) -> Answer {
        let path = format!("{}{name}", self.base);
        self.api.try_get(&path).await.expect("an answer")
    }

    async fn bytes(&self, name: &str) -> Bytes {
        let answer = self.answer(name).await;
        assert_eq!(answer.status, 200, "{name}: {answer}");
        answer.body
    }

    async fn text(&self, name: &str) -> String {
        String::from_utf8(self.bytes(name).await.to_vec()).expect("text")
    }

    async fn media(&self, name: &str) -> Media {
        Media::check(&self.text(name).await)
    }

    /// Waits for the first playlist.
    async fn begin(&self) -> Vec<String> {
        until("something to play", s(30), async || {
            let answer = self.answer("index.m3u8").await;
            check(answer.status == 200, answer.to_string())
        })
        .await;
        renditions(&self.text("index.m3u8").await)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn playlists_keep_the_low_latency_profile_and_two_nodes_serve_the_same_bytes() {
    let _turn = turn::shared().await;
    let chain = Chain::start("By HLS").await;
    let _encoder = Encoder::rtmp(Clip::small(60), &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;
    let viewer = Hls::at(&chain.viewer.api, chain.slug());
    let relay = Hls::at(&chain.relay.api, chain.slug());
    let names = viewer.begin().await;
    assert_eq!(names.len(), 2, "picture and sound: {names:?}");
    assert_eq!(relay.begin().await, names);

    for name in &names {
        let mut media = viewer.media(name).await;
        assert_eq!(media.reports.len(), 1, "the other rendition");
        let (started, first) = (Instant::now(), media.end());
        let mut reloads = 0;
        while started.elapsed() < s(4) {
            let next = viewer.media(&format!("{name}?{}", media.next())).await;
            next.check_after(&media);
            assert!(next.end() > media.end(), "a held request brings news");
            (media, reloads) = (next, reloads + 1);
        }
        println!(
            "{name}: {first:?} to {:?} in {reloads} reloads",
            media.end()
        );
        assert!(reloads >= 10, "parts come one by one, not {reloads} in 4 s");
        assert!(media.end().0 >= first.0 + 3, "a segment a second");

        let whole: Vec<_> = media
            .segments
            .iter()
            .filter(|segment| segment.uri.is_some() && !segment.parts.is_empty())
            .collect();
        let segment = whole.last().expect("a whole segment with its parts");
        assert!(!segment.gap);
        let uri = segment.uri.as_ref().unwrap();
        let (here, there) = (viewer.bytes(uri).await, relay.bytes(uri).await);
        assert!(
            !here.is_empty() && here == there,
            "{uri} differs between nodes"
        );
        let mut parts = Vec::new();
        for part in &segment.parts {
            let (here, there) = (viewer.bytes(&part.uri).await, relay.bytes(&part.uri).await);
            assert_eq!(here, there, "{} differs between nodes", part.uri);
            parts.extend_from_slice(&here);
        }
        assert!(parts == here, "a segment is its parts, one after the other");
        let map = segment.map.as_ref().unwrap();
        assert_eq!(viewer.bytes(map).await, relay.bytes(map).await);
        let hint = media.hint.as_ref().unwrap();
        assert!(
            !viewer.bytes(hint).await.is_empty(),
            "a hint is held, then served"
        );
    }

    refuses(&viewer, &names[0]).await;
    ffmpeg_plays(&viewer.api.url(&format!("{}index.m3u8", viewer.base))).await;
}

/// Requests that no playlist leads to.
async fn refuses(hls: &Hls, name: &str) {
    let far = hls.media(name).await.end().0 + 3;
    for (name, status) in [
        (format!("{name}?_HLS_msn={far}"), 400),
        (format!("{name}?_HLS_part=1"), 400),
        (format!("{name}?_HLS_msn=x"), 400),
        (format!("{name}?_HLS_skip=NO"), 400),
        ("seg-1-1.mp4".into(), 404),
        ("seg-1-999999.m4s".into(), 404),
        ("init-1-999.mp4".into(), 404),
        ("part-01-1-1.m4s".into(), 404),
    ] {
        let answer = hls.answer(&name).await;
        assert_eq!(answer.status, status, "{name}: {answer}");
    }
    let path = format!("{}{name}", hls.base);
    let request = hls.api.request(Method::GET, &path);
    let request = request
        .header(ACCEPT_ENCODING, "gzip")
        .body(Full::default());
    let zipped = hls.api.send(request.unwrap()).await.expect("an answer");
    assert_eq!(zipped.headers["content-encoding"], "gzip");
    assert_eq!(zipped.headers["cache-control"], "no-cache");
    assert_eq!(zipped.body[..2], [0x1f, 0x8b]);
}

async fn ffmpeg_plays(url: &str) {
    let mut command = Command::new(places::ffmpeg());
    command
        .args(["-nostdin", "-v", "error", "-i", url, "-t", "4"])
        .args(["-f", "framemd5", "-"])
        .stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output());
    let output = tokio::time::timeout(s(40), running).await;
    let output = output.expect("ffmpeg ends").unwrap().expect("ffmpeg runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words}");
    let hashes = String::from_utf8_lossy(&output.stdout);
    let of = |track: &str| {
        hashes
            .lines()
            .filter(|line| line.starts_with(track))
            .count()
    };
    println!(
        "ffmpeg decoded {} pictures and {} pieces of sound",
        of("0,"),
        of("1,")
    );
    assert!(
        of("0,").max(of("1,")) >= 110 && of("0,").min(of("1,")) >= 110,
        "{words}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn playlist_outlives_its_encoder_and_goes_on_with_the_next_ones_picture() {
    let _turn = turn::shared().await;
    let chain = Chain::start("Twice by HLS").await;
    let encoder = Encoder::rtmp(Clip::small(60), &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;
    let viewer = Hls::at(&chain.viewer.api, chain.slug());
    let names = viewer.begin().await;
    let name = &names[0];
    let before = viewer.media(name).await;
    drop(encoder);

    // Held while nothing comes, then answered with what there is.
    let mut media = before;
    let asked = Instant::now();
    while asked.elapsed() < s(3) {
        let next = viewer.media(&format!("{name}?{}", media.next())).await;
        next.check_after(&media);
        media = next;
    }
    let _encoder = Encoder::rtmp(Clip::hd(60), &chain.ingest);
    let old = media.segments.last().unwrap().discontinuity;
    let media = until("the new picture in the playlist", s(30), async || {
        let next = viewer.media(&format!("{name}?{}", media.next())).await;
        next.check_after(&media);
        let of_new = next.segments.iter().filter(|s| s.discontinuity > old);
        check(of_new.count() >= 2, format!("{next:?}"))?;
        Ok::<_, String>(next)
    })
    .await;
    let change = media
        .segments
        .windows(2)
        .find(|pair| pair[0].discontinuity < pair[1].discontinuity);
    let change = change.expect("the end of the old epoch is listed");
    assert_ne!(change[0].map, change[1].map);
    for pair in media.segments.windows(2) {
        assert_eq!(pair[0].sequence + 1, pair[1].sequence);
    }
    let init = viewer.bytes(change[1].map.as_ref().unwrap()).await;
    assert!(init.windows(4).any(|bytes| bytes == b"moov"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_is_listed_as_one_and_what_follows_is_the_same_everywhere() {
    let _turn = turn::shared().await;
    let chain = Chain::start("With a hole").await;
    let _encoder = Encoder::rtmp(Clip::small(120), &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;
    let viewer = Hls::at(&chain.viewer.api, chain.slug());
    let relay = Hls::at(&chain.relay.api, chain.slug());
    let names = viewer.begin().await;
    relay.begin().await;
    // Until a playlist can tell of a time before the hole.
    until("some segments", s(30), async || {
        let media = viewer.media(&names[0]).await;
        check(media.segments.len() > 6, format!("{media:?}"))
    })
    .await;

    // Longer than anybody keeps what was sent. Some of it is fetched afterwards, too late
    // for a playlist, and is a hole there all the same.
    chain.viewer.signal(Signal::STOP);
    tokio::time::sleep(s(20)).await;
    chain.viewer.signal(Signal::CONT);

    let holes = tokio::join!(
        goes_on_behind_a_hole(&viewer, &relay, &names[0]),
        goes_on_behind_a_hole(&viewer, &relay, &names[1]),
    );
    assert!(
        holes.0 + holes.1 > 0,
        "sound comes first, and may be in time"
    );
}

/// Follows a playlist by the rules until it is past a hole, if there is one; how many
/// segments are missing.
async fn goes_on_behind_a_hole(viewer: &Hls, relay: &Hls, name: &str) -> usize {
    let mut media = viewer.media(name).await;
    let from = media.end().0;
    let after = until("segments behind the hole", s(60), async || {
        let next = viewer.media(&format!("{name}?{}", media.next())).await;
        next.check_after(&media);
        media = next;
        let gap = media.segments.iter().rposition(|segment| segment.gap);
        let behind = &media.segments[gap.map_or(0, |gap| gap + 1)..];
        let whole = behind.iter().filter(|segment| segment.uri.is_some());
        let whole: Vec<_> = whole.cloned().collect();
        let is_past = whole.len() >= 2 && media.end().0 > from + 20;
        check(is_past, format!("{media:?}"))?;
        Ok::<_, String>(whole)
    })
    .await;
    let gaps = media.segments.iter().filter(|s| s.gap).count();
    println!("{name}: {gaps} segments are missing");
    for segment in after {
        let uri = segment.uri.as_ref().expect("it is whole");
        let (here, there) = (viewer.bytes(uri).await, relay.bytes(uri).await);
        assert!(here == there, "{uri} differs between nodes");
    }
    gaps
}

/// Longest delay from the encoder to the screen that hls.js may have, milliseconds.
fn latency_limit_ms() -> f64 {
    if places::strict() { 2_500.0 } else { 6_000.0 }
}

#[tokio::test(flavor = "multi_thread")]
async fn hls_js_plays_it_close_to_live_in_a_browser() {
    let _turn = turn::alone().await;
    let chain = Chain::start("By hls.js").await;
    let _encoder = Encoder::rtmp(Clip::hd(60), &chain.ingest);
    flows(&chain.viewer, &chain.stream).await;
    Hls::at(&chain.viewer.api, chain.slug()).begin().await;
    let path = format!("/watch/{}?engine=hls", chain.slug());
    let mut player = Player::open(&chain.viewer.api.url(&path)).await;
    player.plays().await;
    let before = player.stats().await;
    player
        .plays_on("ten seconds of HLS", s(40), &before, 10.0)
        .await;
    let stats = player.stats().await;
    println!("{stats:?}");
    assert!(stats.errors.is_empty(), "{stats:?}");
    let latency = stats.latency_ms.expect("it knows how far behind it is");
    println!("hls.js is {latency:.0} ms behind");
    assert!(latency <= latency_limit_ms(), "{latency} ms");
    let order = player.seen().await.order();
    println!("{order}");
    assert_eq!(order.backwards, 0, "{order}");
    let complaints = &player.browser.complaints;
    assert!(complaints.is_empty(), "{complaints:?}");
}
