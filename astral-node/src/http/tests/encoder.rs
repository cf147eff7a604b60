//! An encoder: fragmented MP4 of pictures that no decoder would show, but that are
//! whole in every field that a node looks at.

use astral_media::catalog::Catalog;
use astral_media::fmp4::mux::{fragment, init_segment};
use astral_media::frame::Frame;
use astral_media::track::{CodecConfig, Track};
use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::{Reply, Served};

/// 640x360, Main, level 3.0, as x264 wrote it.
pub(super) const SMALL: &[u8] = &[
    0x01, 0x4d, 0x40, 0x1e, 0xff, 0xe1, 0x00, 0x18, 0x67, 0x4d, 0x40, 0x1e, 0xec, 0xa0, 0x50, 0x17,
    0xfc, 0xb8, 0x08, 0x80, 0x00, 0x00, 0x03, 0x00, 0x80, 0x00, 0x00, 0x1e, 0x07, 0x8b, 0x16, 0xcb,
    0x01, 0x00, 0x04, 0x68, 0xce, 0x0f, 0xc8,
];
/// Baseline, level 1.0.
pub(super) const TINY: &[u8] = &[
    0x01, 0x42, 0xc0, 0x0a, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x04, 0x7b, 0x01,
    0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x22, 0x64, 0x80, 0x01,
    0x00, 0x05, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];
/// Milliseconds from picture to picture.
pub(super) const PICTURE_MS: i64 = 100;
/// Pictures from keyframe to keyframe: a second.
pub(super) const GOP: i64 = 10;

/// The one track of all that is sent here; its ticks are milliseconds.
fn track(avcc: &'static [u8]) -> Track {
    Track {
        id: 1,
        timescale: 1_000,
        config: CodecConfig::H264 {
            avcc: Bytes::from_static(avcc),
            width: 640,
            height: 360,
        },
    }
}

/// A catalog as a publisher would make it.
pub(super) fn catalog(avcc: &'static [u8]) -> Catalog {
    Catalog {
        version: 1,
        epoch: 1,
        first_group: 1,
        first_sequence: 0,
        target_duration_ms: None,
        part_target_ms: 200,
        timeline_start_ms: 0,
        wall_clock_start_ms: 0,
        bitrate_bps: None,
        tracks: vec![track(avcc)],
    }
}

/// What an encoder begins with.
pub(super) fn init(avcc: &'static [u8]) -> Vec<u8> {
    init_segment(&catalog(avcc)).to_vec()
}

/// Picture `n` of a stream with a slice of `len` bytes; each [`GOP`]th is a keyframe.
pub(super) fn frame(n: i64, len: usize) -> Frame {
    let keyframe = n % GOP == 0;
    let mut payload = (len as u32).to_be_bytes().to_vec();
    // NAL units 5, an IDR slice, and 1, another slice; both are referred to.
    payload.push(if keyframe { 0x65 } else { 0x41 });
    payload.resize(4 + len, 0xaa);
    Frame {
        track: 1,
        epoch: 1,
        group: (n / GOP + 1) as u64,
        index: (n % GOP) as u32,
        order: (n % GOP) as u32,
        dts: n * PICTURE_MS,
        cts: 0,
        duration: PICTURE_MS as u32,
        keyframe,
        discardable: false,
        no_keyframe: false,
        payload: payload.into(),
    }
}

/// These pictures as fragments.
pub(super) fn pictures(numbers: std::ops::Range<i64>, len: usize) -> Vec<u8> {
    let track = track(SMALL);
    let fragments = numbers.map(|n| fragment(&track, &frame(n, len)).unwrap());
    fragments.flatten().collect()
}

/// A clip from its start: the configuration, then this many pictures.
pub(super) fn clip(avcc: &'static [u8], count: i64) -> Vec<u8> {
    [init(avcc), pictures(0..count, 8)].concat()
}

/// A connection that sends a body in chunks.
pub(super) struct Encoder(TcpStream);

impl Encoder {
    /// Begins to send to this stream of the node.
    pub(super) async fn start(node: &Served, slug: &str) -> Self {
        let key = node.key(slug).await;
        let mut socket = TcpStream::connect(node.at).await.unwrap();
        let head = format!(
            "PUT /ingest/{key} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n",
            node.at
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        Self(socket)
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let size = format!("{:x}\r\n", bytes.len());
        let chunk = [size.as_bytes(), bytes, b"\r\n"].concat();
        self.0.write_all(&chunk).await.unwrap();
    }

    /// Ends the body; the answer comes when all of it is stored.
    pub(super) async fn end(mut self) -> Reply {
        self.0.write_all(b"0\r\n\r\n").await.unwrap();
        self.told().await
    }

    /// What the node says of its own accord.
    pub(super) async fn told(self) -> Reply {
        Reply::read(self.0).await
    }
}

/// Sends all of this to `My Show`, and ends.
pub(super) async fn feed(node: &Served, bytes: &[u8]) {
    let mut encoder = Encoder::start(node, "my-show").await;
    encoder.send(bytes).await;
    let reply = encoder.end().await;
    assert_eq!(reply.status, 204, "{reply:?}");
}
