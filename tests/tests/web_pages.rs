//! astral-web's pages, as a person meets them: with nothing on, with a busy network, in both
//! themes, on a phone and on a desk, with a keyboard, with a screen reader, and with a
//! node of one's own.

use std::time::{Duration, SystemTime};

use astral_proto::api::web::Submission;
use astral_proto::ids::{NodeId, SecretKey, StreamId};
use astral_proto::record::{
    Address, NodeLoad, NodeRecord, Role, SignedNode, SignedStream, StreamLoad, StreamRecord,
    StreamState, TrackSummary,
};
use astral_tests::axe;
use astral_tests::cdp::Browser;
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::places::scratch;
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use astral_tests::web::Web;
use data_encoding::BASE64URL_NOPAD;
use hyper::Method;
use serde_json::json;

/// A name that nobody has to be protected from reading.
const EVIL: &str = "<script>alert(1)</script>";
/// Longest that a page may take to show what astral-web knows.
const SHOWN_WITHIN: Duration = s(20);
/// Streams of a busy evening: name, description, publisher, viewers, bit/s, hours.
const STREAMS: [(&str, &str, &str, u64, u64, f64); 9] = [
    (
        "Tromsø harbour at night",
        "Northern lights, if the clouds let us.",
        "Harbour cam",
        1_284,
        4_200_000,
        31.2,
    ),
    (
        "Chess: candidates, round 9",
        "Commentary in English and Hindi.",
        "64 squares",
        842,
        2_900_000,
        3.4,
    ),
    (
        "直播：台北夜市",
        "從士林夜市現場",
        "Night market",
        611,
        3_600_000,
        1.1,
    ),
    (
        "Radio Kollektiv",
        "Sound only. Thirty years of B-sides.",
        "Kollektiv",
        147,
        128_000,
        320.0,
    ),
    (
        "Soldering a Z80 from scratch",
        "",
        "garage",
        96,
        5_800_000,
        0.7,
    ),
    (
        "Village council",
        "Item 4 is the bridge.",
        "Oberdorf",
        41,
        1_500_000,
        1.9,
    ),
    (
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(2)>",
        "<b>nobody</b>",
        12,
        900_000,
        0.2,
    ),
    (
        "A name that goes on and on, as names on the internet do, until somebody stops it at last",
        "",
        "long",
        3,
        800_000,
        5.0,
    ),
    ("Test card", "", "", 0, 300_000, 0.01),
];

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.expect("a clock").as_millis()).expect("milliseconds")
}

fn key(kind: u8, number: usize) -> SecretKey {
    let mut seed = [kind; 32];
    seed[0] = u8::try_from(number % 256).expect("a byte");
    seed[1] = u8::try_from(number / 256).expect("few");
    SecretKey::from_seed(seed)
}

async fn submit(web: &Web, list: &str, record: &[u8]) {
    let record = BASE64URL_NOPAD.encode(record);
    let answer = web
        .api()
        .call(Method::POST, list, &Submission { record })
        .await;
    assert!(answer.status.is_success(), "{answer}");
}

fn stream_key(number: usize) -> SecretKey {
    key(200, number)
}

fn stream_record(number: usize, step: u64) -> SignedStream {
    let (name, description, _, viewers, bps, hours) = STREAMS[number];
    let key = stream_key(number);
    let sound = TrackSummary {
        id: 2,
        codec: "mp4a.40.2".into(),
        width: None,
        height: None,
        sample_rate: Some(48_000),
        channels: Some(2),
    };
    let picture = TrackSummary {
        id: 1,
        codec: "avc1.64001f".into(),
        width: Some(1280),
        height: Some(720),
        sample_rate: None,
        channels: None,
    };
    let tracks = match name {
        "Radio Kollektiv" => vec![sound],
        _ => vec![picture, sound],
    };
    // An audience that grows, and wavers.
    let share = 0.55 + 0.45 * (step as f64 / 12.0).min(1.0);
    let waver = 1.0 + 0.06 * (step as f64 * 1.7 + number as f64).sin();
    let record = StreamRecord {
        key: key.public(),
        seq: now_ms() + step,
        name: name.into(),
        description: Some(description.into()).filter(|_| !description.is_empty()),
        publisher: NodeId::of(&self::key(201, number).public()),
        unlisted: None,
        epoch: 1,
        started_at_ms: now_ms() - (hours * 3.6e6) as u64,
        state: if number == 8 {
            StreamState::Waiting
        } else {
            StreamState::Live
        },
        bitrate_bps: Some(bps),
        tracks,
        viewers: Some((viewers as f64 * share * waver) as u64),
    };
    SignedStream::sign(record, &key)
}

fn node_record(key: &SecretKey, name: &str, load: Option<NodeLoad>) -> SignedNode {
    let record = NodeRecord {
        key: key.public(),
        seq: now_ms(),
        addresses: vec![Address("127.0.0.1:9000".parse().expect("an address"))],
        role: if load.is_some() {
            Role::Supernode
        } else {
            Role::Node
        },
        alias: None,
        name: Some(name.into()).filter(|_| !name.is_empty()),
        software: Some("0.1.0".into()),
        public_http: None,
        removed: None,
        load,
    };
    SignedNode::sign(record, key)
}

/// A thousand nodes, seventy of them supernodes, and nine streams.
async fn fill(web: &Web) {
    for (number, (_, _, publisher, ..)) in STREAMS.iter().enumerate() {
        let record = node_record(&key(201, number), publisher, None);
        submit(web, "/nodes", record.wire()).await;
        submit(web, "/streams", stream_record(number, 0).wire()).await;
    }
    let towns = [
        "Bergen", "Łódź", "Porto", "Graz", "Turku", "Lyon", "Cork", "Gent",
    ];
    for number in 0..70 {
        let registered = (90.0 / (1.0 + number as f64 / 9.0)) as u32;
        let carried = (0..4).filter(|stream| (number + stream) % (stream + 2) == 0 && number < 24);
        let load = |stream: usize| StreamLoad {
            stream: StreamId::of(&stream_key(stream).public()),
            viewers: (STREAMS[stream].3 as f64 / (4.0 + number as f64)) as u32,
            children: 3,
            depth: 1 + (number % 4) as u8,
            delay_ms: 35 + 30 * (number as u32 % 4),
        };
        let load = NodeLoad {
            registered,
            room: 100u32.saturating_sub(registered + number as u32 / 3),
            children: 2 + registered / 6,
            streams: carried.map(load).collect(),
        };
        let name = format!("{} {}", towns[number % 8], number / 8 + 1);
        let record = node_record(&key(202, number), &name, Some(load));
        submit(web, "/nodes", record.wire()).await;
    }
    for number in 0..920 {
        let record = node_record(&key(203, number), "", None);
        submit(web, "/nodes", record.wire()).await;
    }
}

async fn holds(browser: &mut Browser, what: &str, expression: &str) {
    until(what, SHOWN_WITHIN, async || {
        let holds: bool = browser.evaluate(&format!("Boolean({expression})")).await;
        check(holds, expression)
    })
    .await;
}

/// Looks at a page in both sizes and themes.
async fn fits(browser: &mut Browser, name: &str, url: &str, shown: &str) {
    for (width, height, theme) in [
        (1280, 900, "light"),
        (390, 844, "dark"),
        (1280, 900, "dark"),
    ] {
        browser.looks(width, height, theme).await;
        browser.go(url).await;
        holds(browser, name, shown).await;
        let to = scratch().join(format!("web-{name}-{width}-{theme}.png"));
        browser.whole_screenshot(&to).await;
        let wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let wide: i64 = browser.evaluate(wide).await;
        assert_eq!(wide, 0, "{name} at {width} is wider than the screen");
        axe::check(browser, &format!("{name} at {width}, {theme}")).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_finished_with_nothing_on_and_with_a_thousand_nodes() {
    let _turn = turn::alone().await;
    let web = Web::start().await;
    let mut browser = Browser::start().await;
    let page = |path: &str| web.api().url(path);
    fits(
        &mut browser,
        "empty",
        &page("/"),
        "document.querySelector('.empty')",
    )
    .await;
    fits(
        &mut browser,
        "empty-network",
        &page("/network"),
        "document.querySelector('.tiles')",
    )
    .await;
    fits(
        &mut browser,
        "publish",
        &page("/publish"),
        "document.querySelector('.steps')",
    )
    .await;

    fill(&web).await;
    // The picture of an audience needs some moments of history.
    let mut step = 0;
    let slug = "/streams/troms-harbour-at-night";
    until("a curve", s(60), async || {
        step += 1;
        for number in 0..STREAMS.len() {
            submit(&web, "/streams", stream_record(number, step).wire()).await;
        }
        let text = web.text(slug).await?;
        check(text.contains("class=\"curve\""), text)
    })
    .await;
    let cards = "document.querySelectorAll('.cards li').length === 9";
    fits(&mut browser, "live", &page("/"), cards).await;
    fits(
        &mut browser,
        "stream",
        &page(slug),
        "document.querySelector('.tree')",
    )
    .await;
    fits(
        &mut browser,
        "network",
        &page("/network"),
        "document.querySelector('.sky circle')",
    )
    .await;
    let evil = StreamId::of(&stream_key(6).public());
    let evil = page(&format!("/streams/{evil}"));
    let shown = format!("document.querySelector('h1').textContent === {EVIL:?}");
    fits(&mut browser, "evil", &evil, &shown).await;
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);

    // With the keyboard alone: to the second stream, and in.
    browser.looks(1280, 900, "light").await;
    browser.go(&page("/")).await;
    let second = "document.activeElement === document.querySelectorAll('.cards a')[1]";
    until("the second stream to have the focus", s(20), async || {
        browser.press("Tab").await;
        check(browser.evaluate::<bool>(second).await, second)
    })
    .await;
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);

    // What is not here is said in a page, which Chromium reports as an error of the network.
    fits(
        &mut browser,
        "missing",
        &page("/streams/tromso"),
        "document.querySelector('.empty')",
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_keeps_up_says_when_the_site_is_away_and_hears_from_the_visitors_node() {
    let _turn = turn::alone().await;
    let mut web = Web::start().await;
    let launch = web.launch("publisher").fixed_ports();
    let http = launch.http().to_owned();
    let node = launch
        .option("--public-http", format!("http://{http}"))
        .start()
        .await;
    let mut browser = Browser::start().await;
    browser.go(&web.api().url("/")).await;
    holds(
        &mut browser,
        "the empty page",
        "document.querySelector('.empty')",
    )
    .await;

    // A stream appears on the open page by itself.
    let (stream, ingest) = node.api.publish("As it happens").await;
    let _encoder = Encoder::rtmp(Clip::small(120), &ingest);
    let card = "document.querySelector('.cards')?.textContent.includes('As it happens')";
    holds(&mut browser, "the stream's card", card).await;
    let live = "document.querySelector('.pill')?.dataset.state === 'live'";
    holds(&mut browser, "the stream to be live", live).await;

    // The site goes, the page says so; it comes back, the page goes on.
    web.kill();
    let offline = "!document.getElementById('offline').hidden";
    holds(&mut browser, "words about the site's absence", offline).await;
    web = web.restart().await;
    holds(
        &mut browser,
        "them to go",
        "document.getElementById('offline').hidden",
    )
    .await;
    browser.complaints.clear();

    // The link opens the visitor's own node, and that tells the site that it plays.
    let path = format!("/streams/{}", stream.slug);
    browser.go(&web.api().url(&path)).await;
    let address = format!("document.getElementById('node').value = 'http://{http}'; true");
    let _: bool = browser.evaluate(&address).await;
    browser.click("#address button").await;
    browser.click("#watch").await;
    let says = "document.getElementById('node-says').textContent.includes('Your node plays it')";
    holds(&mut browser, "the node's word", says).await;

    // Without a node: the publisher offers itself, and is framed on request only.
    let offered = "document.querySelector('a[href*=\"play=\"]')";
    until("the offer", s(30), async || {
        browser.go(&web.api().url(&path)).await;
        let there: bool = browser.evaluate(&format!("Boolean({offered})")).await;
        check(there, "no offer")
    })
    .await;
    assert!(
        browser
            .evaluate::<bool>("!document.querySelector('iframe')")
            .await
    );
    browser.click("a[href*=\"play=\"]").await;
    let source = format!("http://{http}/watch/{}?embed", stream.id);
    holds(
        &mut browser,
        "the framed player",
        "Boolean(document.querySelector('iframe.player'))",
    )
    .await;
    let shown: String = browser
        .evaluate("document.querySelector('iframe.player').src")
        .await;
    assert!(shown.starts_with(&source), "{shown}");
    // The node's page has opened in front of this one, and what is hidden does not begin.
    browser.command("Page.bringToFront", json!({})).await;
    until("the framed player to play", s(30), async || {
        let at = "document.querySelector('video').currentTime";
        let at = browser.inside(at).await?;
        check(at.as_f64().is_some_and(|at| at > 2.0), &at)
    })
    .await;
    let to = scratch().join("web-playing-1280.png");
    browser.whole_screenshot(&to).await;
    assert!(browser.complaints.is_empty(), "{:?}", browser.complaints);
}
