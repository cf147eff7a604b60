//! A transport stream in, a transport stream out.

use astral_media::source::SourceEvent;
use astral_media::ts::TsDemuxer;
use astral_media::ts::mux::TsMuxer;
use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;

use super::encoder::{Encoder, GOP, PICTURE_MS, SMALL, TINY, catalog, clip, feed, frame};
use super::{Served, pair, served};

const TS: &str = "/live/my-show/stream.ts";

/// So many pictures as a transport stream.
fn stream(count: i64) -> Vec<u8> {
    let mut muxer = TsMuxer::new();
    muxer.catalog(&catalog(SMALL)).unwrap();
    let mut out = BytesMut::new();
    for n in 0..count {
        muxer.frame(&frame(n, 8), &mut out).unwrap();
    }
    out.to_vec()
}

/// Configurations, and for each picture whether it is a keyframe and when.
fn read(bytes: &[u8]) -> (usize, Vec<(bool, i64)>) {
    let (mut demuxer, mut events) = (TsDemuxer::new(), Vec::new());
    demuxer.push(bytes, &mut events).unwrap();
    demuxer.finish(&mut events).unwrap();
    assert_eq!(demuxer.counts(), Default::default());
    let mut tracks = 0;
    let mut pictures = Vec::new();
    for event in events {
        match event {
            SourceEvent::Track(_) => tracks += 1,
            SourceEvent::Sample(sample) => pictures.push((sample.keyframe, sample.dts / 90)),
            SourceEvent::Promised { .. } | SourceEvent::End => {}
        }
    }
    (tracks, pictures)
}

#[tokio::test]
async fn a_transport_stream_goes_in_wherever_it_begins_and_comes_out() {
    let node = served().await;
    let bytes = stream(3 * GOP);
    // From within a packet of the first GOP on.
    feed(&node, &bytes[2_000..]).await;
    let (head, body) = all(&node).await;
    assert!(head.contains("content-type: video/mp2t"), "{head}");
    let (_, pictures) = read(&body);
    assert_eq!(pictures.len(), 2 * GOP as usize);
    for (n, (keyframe, ms)) in pictures.into_iter().enumerate() {
        let n = n as i64;
        assert_eq!((keyframe, ms), (n % GOP == 0, 1_000 + n * PICTURE_MS));
    }
}

/// Head and body of everything that a stream has, up to its end.
async fn all(node: &Served) -> (String, Vec<u8>) {
    let mut socket = node.open(&format!("{TS}?from_ms=0")).await;
    let id = node.handle.stream("my-show").await.unwrap().id;
    node.handle.unpublish(id).await.unwrap();
    let mut seen = Vec::new();
    socket.read_to_end(&mut seen).await.unwrap();
    let body = seen.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let head = String::from_utf8_lossy(&seen[..body]).into_owned();
    (head, unchunked(&seen[body..]))
}

/// The body of a chunked answer.
fn unchunked(mut rest: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(line) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        body.extend_from_slice(&rest[line + 2..line + 2 + size]);
        rest = &rest[line + 4 + size..];
    }
    body
}

#[tokio::test]
async fn a_new_configuration_follows_in_line() {
    let node = served().await;
    for avcc in [SMALL, SMALL, TINY] {
        feed(&node, &clip(avcc, GOP)).await;
    }
    let (tracks, pictures) = read(&all(&node).await.1);
    assert_eq!((tracks, pictures.len()), (2, 3 * GOP as usize));
}

#[tokio::test]
async fn asking_about_it_does_not_start_it() {
    let (node, _other) = pair().await;
    let reply = node.ask("HEAD", "/live/other/stream.ts", "", "").await;
    assert_eq!((reply.status, reply.body.len()), (200, 0));
    assert_eq!(reply.header("content-type"), Some("video/mp2t"));
    assert_eq!(node.handle.readers(), 0);
}

#[tokio::test]
async fn other_packet_sizes_and_codecs_are_refused_with_words() {
    let node = served().await;
    let mut encoder = Encoder::start(&node, "my-show").await;
    let mut wide = vec![0; 192 * 10];
    (0..10).for_each(|n| wide[n * 192] = 0x47);
    encoder.send(&wide).await;
    let reply = encoder.told().await;
    reply.is_problem(415);
    let words = String::from_utf8_lossy(&reply.body).into_owned();
    assert!(words.contains("packets of 192 bytes"), "{words}");
}
