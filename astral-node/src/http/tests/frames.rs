//! A browser's own encoder over `/ingest/ws`.

use astral_media::opus::SILENCE;
use astral_media::packets::message;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::encoder::{SMALL, TINY};
use super::{Served, served, until};

/// A picture that no decoder would show, whole in what a node looks at.
const IDR: &[u8] = &[0, 0, 0, 3, 0x65, 0x88, 0x84];
const OTHER: &[u8] = &[0, 0, 0, 3, 0x41, 0x9a, 0x02];
/// Microseconds from picture to picture, as many packets of sound in between.
const PICTURE_US: i64 = 40_000;

/// A page's side.
struct Page(WebSocketStream<TcpStream>);

impl Page {
    async fn open(node: &Served) -> Self {
        let tcp = TcpStream::connect(node.at).await.unwrap();
        let url = format!("ws://{}/ingest/ws", node.at);
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        let origin = format!("http://{}", node.at);
        headers.insert("origin", origin.parse().unwrap());
        headers.insert("sec-websocket-protocol", "astral.ingest.1".parse().unwrap());
        let (socket, response) = tokio_tungstenite::client_async(request, tcp).await.unwrap();
        assert_eq!(
            response.headers()["sec-websocket-protocol"],
            "astral.ingest.1"
        );
        Self(socket)
    }

    async fn say(&mut self, text: Value) {
        let text = Message::text(text.to_string());
        self.0.send(text).await.unwrap();
    }

    async fn send(&mut self, frame: bytes::Bytes) {
        // Whoever has been sent away finds out by reading.
        let _ = self.0.send(Message::Binary(frame)).await;
    }

    async fn hello(&mut self, key: &str, tracks: Value) {
        self.say(json!({"key": key, "tracks": tracks})).await;
    }

    /// The next JSON message.
    async fn told(&mut self) -> Value {
        loop {
            match self.0.next().await.expect("a message").expect("a message") {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(frame) => panic!("closed with {frame:?}"),
                Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }

    /// Reads to the end: its code, and the error that was told before.
    async fn closed(mut self) -> (u16, String) {
        let mut words = String::new();
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => {
                    let told: Value = serde_json::from_str(&text).unwrap();
                    words = told["error"].as_str().unwrap_or(&words).to_owned();
                }
                Some(Ok(Message::Close(frame))) => {
                    return (frame.expect("a code").code.into(), words);
                }
                Some(Ok(_)) => {}
                other => panic!("no close frame, but {other:?}; {words}"),
            }
        }
    }

    /// Pictures and sound of this many periods from `first` on, a keyframe each tenth.
    async fn media(&mut self, first: i64, count: i64) {
        for n in first..first + count {
            let at = n * PICTURE_US;
            let keyframe = n % 10 == 0;
            let picture = if keyframe { IDR } else { OTHER };
            self.send(message(1, keyframe, at, PICTURE_US as u32, picture))
                .await;
            for half in 0..2 {
                self.send(message(2, true, at + half * 20_000, 20_000, &SILENCE))
                    .await;
            }
        }
    }
}

fn video(avcc: &[u8]) -> Value {
    json!({"id": 1, "kind": "video", "codec": "avc1.4d401e", "width": 640, "height": 360,
           "config": STANDARD.encode(avcc)})
}

fn audio() -> Value {
    json!({"id": 2, "kind": "audio", "codec": "opus", "sample_rate": 48_000, "channels": 2})
}

async fn stream(node: &Served) -> Value {
    node.get("/api/v1/streams/my-show").await.json()
}

#[tokio::test]
async fn a_page_publishes_picture_and_sound_and_ends_cleanly() {
    let node = served().await;
    let key = node.key("my-show").await;
    let mut page = Page::open(&node).await;
    page.hello(&key, json!([video(SMALL), audio()])).await;
    let ok = page.told().await;
    assert_eq!((&ok["ok"], &ok["slug"]), (&json!(true), &json!("my-show")));
    page.media(0, 25).await;
    until(async || stream(&node).await["state"] == "live").await;
    let tracks = stream(&node).await["tracks"].clone();
    assert_eq!(tracks[0]["codec"], "avc1.4d401e");
    assert_eq!(
        (&tracks[0]["width"], &tracks[0]["height"]),
        (&json!(640), &json!(360))
    );
    assert_eq!(
        (&tracks[1]["codec"], &tracks[1]["channels"]),
        (&json!("opus"), &json!(2))
    );

    page.say(json!({"config": video(TINY)})).await;
    page.media(30, 15).await;
    until(async || stream(&node).await["epoch"] == 2).await;

    page.say(json!({"end": true})).await;
    assert_eq!(page.closed().await, (1000, String::new()));
    until(async || stream(&node).await["state"] == "waiting").await;
}

#[tokio::test]
async fn sound_alone_and_pictures_alone_are_streams_too() {
    for tracks in [json!([audio()]), json!([video(SMALL)])] {
        let node = served().await;
        let mut page = Page::open(&node).await;
        page.hello(&node.key("my-show").await, tracks.clone()).await;
        page.told().await;
        let only = tracks[0]["id"].as_u64().unwrap() as u8;
        for n in 0..200 {
            let (time, frame) = match only {
                1 => (n * PICTURE_US, IDR),
                _ => (n * 20_000, &SILENCE[..]),
            };
            page.send(message(only, true, time, 20_000, frame)).await;
        }
        until(async || stream(&node).await["state"] == "live").await;
        let shown = stream(&node).await["tracks"].clone();
        assert_eq!(shown.as_array().unwrap().len(), 1);
        assert_eq!(shown[0]["kind"], tracks[0]["kind"]);
    }
}

#[tokio::test]
async fn pages_are_told_why_they_are_sent_away() {
    let node = served().await;
    let key = node.key("my-show").await;
    let vp9 = json!({"id": 1, "codec": "vp09.00.10.08"});
    for (hello, code, word) in [
        (json!({"key": "none", "tracks": [audio()]}), 4001, "key"),
        (json!({"key": key, "tracks": [vp9]}), 4002, "vp09"),
        (json!({"key": key, "tracks": []}), 4003, "tracks"),
        (
            json!({"key": key, "tracks": [audio()], "more": 1}),
            4003,
            "more",
        ),
        (json!([1, 2]), 4003, ""),
    ] {
        let mut page = Page::open(&node).await;
        page.say(hello).await;
        let (closed, words) = page.closed().await;
        assert_eq!(closed, code, "{words}");
        assert!(words.contains(word), "{words}");
    }
    for (bytes, code) in [
        (message(9, true, 0, 0, IDR), 4003),
        (bytes::Bytes::from_static(b"short"), 4003),
        (vec![0; 9 << 20].into(), 1009),
    ] {
        let mut page = Page::open(&node).await;
        page.hello(&key, json!([video(SMALL)])).await;
        page.told().await;
        page.send(bytes).await;
        let (closed, words) = page.closed().await;
        assert_eq!(closed, code, "{words}");
    }
    let page = Page::open(&node).await;
    let Page(mut socket) = page;
    socket
        .send(Message::Binary(message(1, true, 0, 0, IDR)))
        .await
        .unwrap();
    assert_eq!(Page(socket).closed().await.0, 4003);
}

#[tokio::test]
async fn a_keyframe_is_asked_for_when_nothing_can_begin_without_one() {
    let node = served().await;
    let key = node.key("my-show").await;
    let mut page = Page::open(&node).await;
    page.hello(&key, json!([video(SMALL), audio()])).await;
    page.told().await;
    page.send(message(1, false, 0, 40_000, OTHER)).await;
    assert_eq!(page.told().await, json!({"need_key": true}));
    page.media(10, 15).await;
    until(async || stream(&node).await["state"] == "live").await;

    let id = node.handle.stream("my-show").await.unwrap().id;
    node.handle.set_paused(id, true).await.unwrap();
    until(async || stream(&node).await["state"] == "paused").await;
    node.handle.set_paused(id, false).await.unwrap();
    page.send(message(1, false, 41 * PICTURE_US, 40_000, OTHER))
        .await;
    while page.told().await != json!({"need_key": true}) {}
    page.media(50, 15).await;
    until(async || stream(&node).await["epoch"] == 2).await;
}

#[tokio::test]
async fn a_newer_encoder_takes_over_and_an_ended_stream_ends_its_page() {
    let node = served().await;
    let key = node.key("my-show").await;
    let mut pages = Vec::new();
    for first in [0, 100] {
        let mut page = Page::open(&node).await;
        page.hello(&key, json!([video(SMALL), audio()])).await;
        page.told().await;
        page.media(first, 25).await;
        until(async || stream(&node).await["epoch"] == first / 100 + 1).await;
        pages.push(page);
    }
    let second = pages.pop().unwrap();
    assert_eq!(pages.pop().unwrap().closed().await.0, 4009);
    let id = node.handle.stream("my-show").await.unwrap().id;
    node.handle.unpublish(id).await.unwrap();
    assert_eq!(second.closed().await.0, 4010);
}

#[tokio::test]
async fn pages_of_other_sites_are_not_let_in() {
    let node = served().await;
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let from = format!("{upgrade}Origin: https://evil.example\r\n");
    node.ask("GET", "/ingest/ws", &from, "")
        .await
        .is_problem(403);
    node.ask("GET", "/ingest/ws", "", "").await.is_problem(400);
}
