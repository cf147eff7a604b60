//! Enhanced RTMP, as OBS 30 and ffmpeg 6 send it: Debian's ffmpeg cannot. The bodies of
//! its messages are those of FLV tags.

use std::time::Duration;

use astral_media::rtmp::amf0::{self, Value};
use astral_media::rtmp::chunk::{ChunkWriter, Message};
use astral_media::source::{Sample, SourceEvent, SourceTrack};
use astral_media::track::CodecConfig;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// Kinds of messages and tags.
const VIDEO: u8 = 9;
const AUDIO: u8 = 8;
const COMMAND: u8 = 20;

/// The body of a message or tag, and when it is due.
pub struct Tag {
    ms: u32,
    kind: u8,
    body: Vec<u8>,
}

/// Configurations and coded frames as an encoder would send them.
pub fn tags(events: &[SourceEvent]) -> Vec<Tag> {
    let mut out = Vec::new();
    let mut tracks: Vec<&SourceTrack> = Vec::new();
    for event in events {
        match event {
            SourceEvent::Track(track) => {
                tracks.push(track);
                let (kind, body) = configuration(&track.config);
                out.push(Tag { ms: 0, kind, body });
            }
            SourceEvent::Sample(sample) => {
                let track = tracks.iter().find(|track| track.id == sample.track);
                let track = track.expect("its track came first");
                let ms = ms(sample.dts, track.timescale).max(0) as u32;
                let (kind, body) = coded(track, sample);
                out.push(Tag { ms, kind, body });
            }
            SourceEvent::Promised { .. } | SourceEvent::End => {}
        }
    }
    out
}

fn ms(ticks: i64, timescale: u32) -> i64 {
    (ticks * 2_000 + i64::from(timescale)).div_euclid(2 * i64::from(timescale))
}

/// A tag as it stands in an FLV file.
fn in_file(tag: &Tag) -> Vec<u8> {
    let [t3, t2, t1, t0] = tag.ms.to_be_bytes();
    let mut out = vec![tag.kind];
    out.extend_from_slice(&(tag.body.len() as u32).to_be_bytes()[1..]);
    out.extend([t2, t1, t0, t3, 0, 0, 0]);
    out.extend_from_slice(&tag.body);
    out.extend((tag.body.len() as u32 + 11).to_be_bytes());
    out
}

/// `PacketTypeSequenceStart`.
fn configuration(config: &CodecConfig) -> (u8, Vec<u8>) {
    let (kind, fourcc, record): (_, &[u8], &[u8]) = match config {
        CodecConfig::H264 { avcc, .. } => (VIDEO, b"avc1", avcc),
        CodecConfig::H265 { hvcc, .. } => (VIDEO, b"hvc1", hvcc),
        CodecConfig::Av1 { av1c, .. } => (VIDEO, b"av01", av1c),
        CodecConfig::Aac { asc, .. } => (AUDIO, b"mp4a", asc),
        CodecConfig::Opus { head, .. } => (AUDIO, b"Opus", head),
    };
    // Both a keyframe's header and that of enhanced sound; packet type 0.
    (kind, [&[0x90], fourcc, record].concat())
}

/// `PacketTypeCodedFrames`, with a composition time where the codec has one.
fn coded(track: &SourceTrack, sample: &Sample) -> (u8, Vec<u8>) {
    let first = if sample.keyframe { 0x90 | 1 } else { 0xa0 | 1 };
    let cts = ms(sample.cts.into(), track.timescale) as i32;
    let cts = &cts.to_be_bytes()[1..];
    let data = &sample.data[..];
    match &track.config {
        CodecConfig::H264 { .. } => (VIDEO, [&[first], &b"avc1"[..], cts, data].concat()),
        CodecConfig::H265 { .. } => (VIDEO, [&[first], &b"hvc1"[..], cts, data].concat()),
        CodecConfig::Av1 { .. } => (VIDEO, [&[first], &b"av01"[..], data].concat()),
        CodecConfig::Aac { .. } => (AUDIO, [&[0x91], &b"mp4a"[..], data].concat()),
        CodecConfig::Opus { .. } => (AUDIO, [&[0x91], &b"Opus"[..], data].concat()),
    }
}

/// Sends an FLV file as the body of a `PUT`, each tag when it is due; panics unless all
/// is taken.
pub async fn put(url: &str, tags: &[Tag]) {
    let header = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    let bodies = tags.iter().map(|tag| (tag.ms, in_file(tag)));
    put_pieces(url, [(0, header)].into_iter().chain(bodies)).await;
}

/// Sends the body of a `PUT` piece by piece, each at so many milliseconds; panics unless
/// all is taken.
pub async fn put_pieces(url: &str, pieces: impl Iterator<Item = (u32, Vec<u8>)>) {
    let rest = url.strip_prefix("http://").expect("an http URL");
    let (authority, path) = rest.split_once('/').expect("a path");
    let mut socket = TcpStream::connect(authority).await.expect("the node");
    let head = format!(
        "PUT /{path} HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\
         Connection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.expect("the node");
    let start = Instant::now();
    for (ms, piece) in pieces {
        sleep_until(start + Duration::from_millis(ms.into())).await;
        let size = format!("{:x}\r\n", piece.len());
        let chunk = [size.as_bytes(), &piece, b"\r\n"].concat();
        socket.write_all(&chunk).await.expect("the node takes it");
    }
    socket.write_all(b"0\r\n\r\n").await.expect("the node");
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
}

/// Publishes by RTMP, each message when it is due; panics unless it is let in.
pub async fn publish(server: &str, key: &str, tags: &[Tag]) {
    let rest = server.strip_prefix("rtmp://").expect("an RTMP server");
    let (authority, app) = rest.split_once('/').expect("an app");
    let mut client = Client {
        socket: TcpStream::connect(authority).await.expect("the node"),
    };
    client.shake_hands().await;
    let app = Value::object([("app", Value::text(app)), ("tcUrl", Value::text(server))]);
    client
        .call(0, &[Value::text("connect"), Value::Number(1.0), app])
        .await;
    let create = [Value::text("createStream"), Value::Number(2.0), Value::Null];
    client.call(0, &create).await;
    let publish = ["publish", key, "live"].map(Value::text);
    let [name, key, live] = publish;
    let publish = [name, Value::Number(3.0), Value::Null, key.clone(), live];
    client.call(1, &publish).await;
    client.answered(b"NetStream.Publish.Start").await;
    let (mut from, to) = client.socket.into_split();
    let hears =
        tokio::spawn(async move { tokio::io::copy(&mut from, &mut tokio::io::sink()).await });
    let mut to = to;
    let start = Instant::now();
    for tag in tags {
        sleep_until(start + Duration::from_millis(tag.ms.into())).await;
        let bytes = message(1, tag.ms, tag.kind, &tag.body);
        to.write_all(&bytes).await.expect("the node takes it");
    }
    let end = [
        Value::text("FCUnpublish"),
        Value::Number(4.0),
        Value::Null,
        key,
    ];
    let bytes = message(0, 0, COMMAND, &amf0::encode(&end));
    to.write_all(&bytes).await.expect("the node takes it");
    to.shutdown().await.expect("half of the connection ends");
    let heard = tokio::time::timeout(Duration::from_secs(20), hears).await;
    heard
        .expect("the node ends it")
        .expect("no panic")
        .expect("an end");
}

struct Client {
    socket: TcpStream,
}

impl Client {
    async fn shake_hands(&mut self) {
        let mut hello = vec![0; 1 + 1536];
        hello[0] = 3;
        self.socket.write_all(&hello).await.expect("the node");
        let mut answer = vec![0; 1 + 2 * 1536];
        self.socket.read_exact(&mut answer).await.expect("its half");
        self.socket
            .write_all(&answer[1..1537])
            .await
            .expect("the node");
    }

    async fn call(&mut self, stream_id: u32, values: &[Value]) {
        let bytes = message(stream_id, 0, COMMAND, &amf0::encode(values));
        self.socket.write_all(&bytes).await.expect("the node");
    }

    async fn answered(&mut self, words: &[u8]) {
        let mut seen = Vec::new();
        while !seen.windows(words.len()).any(|window| window == words) {
            let read = self.socket.read_buf(&mut seen).await.expect("the node");
            assert!(read > 0, "{}", String::from_utf8_lossy(&seen));
        }
    }
}

/// One message in chunks of 128 bytes.
fn message(stream_id: u32, timestamp: u32, kind: u8, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    let message = Message {
        csid: 4,
        timestamp,
        kind,
        stream_id,
        payload: Bytes::copy_from_slice(payload),
    };
    ChunkWriter::default().write(&mut out, &message);
    out
}
