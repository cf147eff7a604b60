//! Every page of a node, as a person meets it: in both themes, on a phone and on a desk,
//! with a keyboard, with a screen reader; and publishing from one.

use std::time::Duration;

use astral_tests::axe;
use astral_tests::cdp::Browser;
use astral_tests::chain::{flows, join};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::places::scratch;
use astral_tests::player::Player;
use astral_tests::process::{Launch, Node};
use astral_tests::turn;
use astral_tests::wait::{check, s, until};
use serde::Deserialize;
use serde_json::Value;

/// A name that nobody has to be protected from reading.
const EVIL: &str = "<script>alert(1)</script>";
/// Longest that a page may take to show what the node knows.
const SHOWN_WITHIN: Duration = s(20);

/// Notes which elements get the focus.
const NOTE_FOCUS: &str = "(() => {
  window.testFocused = new Set();
  document.addEventListener('focusin', (event) => window.testFocused.add(event.target));
  const all = 'a[href], button:enabled, input:enabled, select:enabled, textarea:enabled, summary';
  window.testWanted = () => [...document.querySelectorAll(all)].filter((element) =>
    element.checkVisibility() && !(element.type === 'radio' && !element.checked));
  window.testMissed = () => window.testWanted()
    .filter((element) => !window.testFocused.has(element))
    .map((element) => element.outerHTML.slice(0, 120));
  return window.testWanted().length;
})()";

/// A publisher with a harmless and an evil stream, and a viewer of the first.
struct Stage {
    publisher: Node,
    viewer: Node,
    id: String,
    _encoder: Encoder,
}

impl Stage {
    async fn start() -> Self {
        let publisher = Launch::new("publisher").start().await;
        let viewer = Launch::new("viewer").peer(&publisher).start().await;
        let (stream, ingest) = publisher.api.publish("An evening in Tromsø").await;
        publisher.api.publish(EVIL).await;
        join(&viewer, &stream).await;
        let encoder = Encoder::rtmp(Clip::hd(60), &ingest);
        flows(&viewer, &stream).await;
        Self {
            publisher,
            viewer,
            id: stream.id.to_string(),
            _encoder: encoder,
        }
    }

    /// Name, URL, and what is true once the page shows what there is to show.
    fn pages(&self) -> Vec<(&'static str, String, &'static str)> {
        let plays = "document.getElementById('pill').textContent === 'Live' &&
            document.getElementById('overlay').hidden";
        let evil = "document.body.textContent.includes('<script>alert(1)</script>')";
        vec![
            ("dashboard", self.viewer.api.url("/"), evil),
            ("dashboard-publisher", self.publisher.api.url("/"), evil),
            (
                "publish",
                self.publisher
                    .api
                    .url(&format!("/publish?stream={}", self.id)),
                "!document.getElementById('recipes').hidden",
            ),
            (
                "watch",
                self.viewer.api.url(&format!("/watch/{}", self.id)),
                plays,
            ),
            (
                "evil",
                self.publisher.api.url("/watch/script-alert-1-script"),
                "document.getElementById('name').textContent === '<script>alert(1)</script>'",
            ),
            (
                "embed",
                self.viewer
                    .api
                    .url(&format!("/watch/{}?embed&muted&controls", self.id)),
                "document.getElementById('overlay-title').textContent === 'Watch this stream'",
            ),
        ]
    }
}

async fn holds(browser: &mut Browser, what: &str, expression: &str) {
    until(what, SHOWN_WITHIN, async || {
        let holds: bool = browser.evaluate(&format!("Boolean({expression})")).await;
        check(holds, expression)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_fit_for_phone_and_desk_for_keyboard_and_screen_reader() {
    let _turn = turn::alone().await;
    let stage = Stage::start().await;
    let mut browser = Browser::start().await;
    for (width, height, theme) in [(1280, 900, "light"), (390, 844, "dark")] {
        browser.looks(width, height, theme).await;
        for (name, url, shown) in stage.pages() {
            browser.go(&url).await;
            holds(&mut browser, name, shown).await;
            let to = scratch().join(format!("page-{name}-{width}.png"));
            browser.whole_screenshot(&to).await;
            let wide: i64 = browser
                .evaluate(
                    "document.documentElement.scrollWidth - document.documentElement.clientWidth",
                )
                .await;
            assert!(wide <= 0, "{name} at {width}: {wide} pixels too wide");
            axe::check(&mut browser, &format!("{name} at {width}")).await;
            if width > 1_000 {
                keyboard_reaches_everything(&mut browser, name).await;
            }
        }
    }
    // A stream that nobody knows yet is a 404 to programs, and a page to people.
    let complaints = &browser.complaints;
    assert!(complaints.is_empty(), "{complaints:#?}");
}

async fn keyboard_reaches_everything(browser: &mut Browser, name: &str) {
    let wanted: u32 = browser.evaluate(NOTE_FOCUS).await;
    // The browser's own controls, such as those of a number or a file, take a place as well.
    for _ in 0..wanted + 12 {
        browser.press("Tab").await;
    }
    let missed: Vec<String> = browser.evaluate("window.testMissed()").await;
    assert!(missed.is_empty(), "{name}: no Tab leads to {missed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_does_what_a_person_asks_and_tells_what_happens() {
    let _turn = turn::alone().await;
    let stage = Stage::start().await;
    let mut browser = Browser::start().await;
    browser.looks(1280, 900, "light").await;
    browser.go(&stage.publisher.api.url("/")).await;
    let card = format!("[data-key='{}']", stage.id);
    holds(
        &mut browser,
        "the stream",
        &format!("document.querySelector(\"{card}\")"),
    )
    .await;
    let text = |what: &str| format!("document.querySelector(\"{what}\").textContent");

    let state = async |wanted: &str| {
        until("the stream's state", s(10), async || {
            let stream = stage.publisher.api.stream(&stage.id).await;
            let state = format!("{:?}", stream.state).to_lowercase();
            check(state == wanted, state)
        })
        .await;
    };
    browser
        .click(&format!("{card} .acts button:nth-child(1)"))
        .await;
    state("paused").await;
    let resume = format!("{} === 'Resume'", text(&format!("{card} .acts button")));
    holds(&mut browser, "the button's other name", &resume).await;
    browser
        .click(&format!("{card} .acts button:nth-child(1)"))
        .await;
    state("live").await;
    holds(
        &mut browser,
        "the ticket",
        "document.querySelector('#tickets tr')",
    )
    .await;
    let log = format!("{}.includes('paused')", text("#log"));
    holds(&mut browser, "the event", &log).await;

    let _: Value = browser
        .evaluate("document.getElementById('set-upstream_limit').value = '20mbit'; null")
        .await;
    browser.click("#settings-form button[type=submit]").await;
    until("the new limit", s(10), async || {
        let node = stage.publisher.api.node().await;
        check(
            node.upload_limit_bps == Some(20_000_000),
            format!("{node:?}"),
        )
    })
    .await;
    holds(
        &mut browser,
        "the new limit",
        &format!("{} === '20.0 Mbit/s'", text("#me-limit")),
    )
    .await;

    let end = "[data-key] .acts .danger";
    let evil = format!(
        "[...document.querySelectorAll('.stream')].find((card) => card.textContent.includes({EVIL:?}))"
    );
    let _: Value = browser
        .evaluate(&format!(
            "{evil}.querySelector('.danger').id = 'end-evil'; null"
        ))
        .await;
    browser.click("#end-evil").await;
    assert_eq!(
        browser.evaluate::<String>(&text("#end-evil")).await,
        "End for everyone?",
        "{end}"
    );
    browser.click("#end-evil").await;
    holds(&mut browser, "the end of the stream", &format!("!{evil}")).await;

    browser.click("#shutdown").await;
    browser.click("#shutdown").await;
    holds(
        &mut browser,
        "the words for a node that is gone",
        &format!("{}.includes('shut down')", text("#offline")),
    )
    .await;
}

/// What the publish page says of itself.
#[derive(Debug, Deserialize)]
struct Publishing {
    state: String,
    sent: Option<Sent>,
    wrong: String,
}

#[derive(Debug, Deserialize)]
struct Sent {
    frames: u32,
    reconnects: u32,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webcam_arrives_at_another_node_with_picture_and_sound() {
    let _turn = turn::alone().await;
    let publisher = Launch::new("publisher").start().await;
    let viewer = Launch::new("viewer").peer(&publisher).start().await;
    let fake = [
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
    ];
    let mut page = Browser::start_with(&fake).await;
    page.looks(1280, 900, "light").await;
    page.go(&publisher.api.url("/publish")).await;
    holds(
        &mut page,
        "the form",
        "!document.getElementById('right').hidden",
    )
    .await;
    let _: Value = page
        .evaluate("document.getElementById('name').value = 'Webcam'; null")
        .await;
    page.click("#go").await;
    until("the page to send", s(30), async || {
        let now: Publishing = page.evaluate("astralPublish()").await;
        let sent = now.sent.as_ref().map_or(0, |sent| sent.frames);
        check(now.state == "On air" && sent > 50, format!("{now:?}"))
    })
    .await;

    until("the stream at the other node", s(15), async || {
        viewer.api.try_stream("webcam").await
    })
    .await;
    let mut player = Player::open(&viewer.api.url("/watch/webcam")).await;
    player.plays().await;
    let before = (player.stats().await, player.audio_bytes().await);
    player.plays_on("five seconds", s(30), &before.0, 5.0).await;
    let after = (player.stats().await, player.audio_bytes().await);
    println!("{:?}", after.0);
    let stream = viewer.api.stream("webcam").await;
    let codecs: Vec<&str> = stream.tracks.iter().map(|track| &*track.codec).collect();
    assert!(
        codecs[0].starts_with("avc1.") && codecs[1] == "opus",
        "{codecs:?}"
    );
    assert_eq!((after.0.width, after.0.height), (1280, 720));
    // The fake camera makes 20 pictures a second; some are enough.
    assert!(
        after.0.total_frames - before.0.total_frames > 50,
        "{:?}",
        after.0
    );
    assert!(after.1 > before.1 + 5_000, "sound is decoded");
    assert!(player.browser.complaints.is_empty());

    let to = scratch().join("page-publish-live-1280.png");
    page.whole_screenshot(&to).await;
    let now: Publishing = page.evaluate("astralPublish()").await;
    assert_eq!(now.sent.map(|sent| sent.reconnects), Some(0));
    page.click("#stop").await;
    until("the end", s(10), async || {
        let stream = publisher.api.stream("webcam").await;
        let now: Publishing = page.evaluate("astralPublish()").await;
        let is_over = now.state == "idle" && now.wrong.is_empty();
        check(
            is_over && format!("{:?}", stream.state) == "Waiting",
            format!("{now:?} {stream:?}"),
        )
    })
    .await;
    assert!(page.complaints.is_empty(), "{:?}", page.complaints);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_a_site_opened_tells_it_that_the_node_runs() {
    let _turn = turn::alone().await;
    let node = Launch::new("node").start().await;
    let (stream, _) = node.api.publish("Opened").await;
    // Another origin than the node's: another node stands for the site.
    let site = Launch::new("site").start().await;
    let mut browser = Browser::start().await;
    browser.go(&site.api.url("/health")).await;
    let origin = site.api.url("");
    let url = node.api.url(&format!("/watch/{}?from={origin}", stream.id));
    let opens = format!(
        "new Promise((told) => {{
           addEventListener('message', ({{origin, data}}) => told([origin, data]));
           window.open({url:?});
         }})"
    );
    let how = serde_json::json!({"expression": opens, "awaitPromise": true,
                                 "returnByValue": true, "userGesture": true});
    let told = browser.command("Runtime.evaluate", how).await;
    let running = serde_json::json!([node.api.url(""), {
        "astral": "running", "stream": stream.id.to_string(),
    }]);
    assert_eq!(told["result"]["value"], running, "{told}");
}
