//! A stream made of nothing: pictures that no decoder could show, but that every part
//! of a node takes for H.264, each with its number and the time it was made in it.

use std::time::Duration;

use astral_media::catalog::Catalog;
use astral_media::fmp4::mux;
use astral_media::frame::Frame;
use astral_media::h264::AvcConfig;
use astral_media::track::Track;
use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

use crate::hostile::link::unix_ns;

/// A decoder configuration of 640×360, Main profile, level 3.0.
const AVCC: &[u8] = b"\x01\x4d\x40\x1e\xff\xe1\x00\x18\x67\x4d\x40\x1e\xec\xa0\x50\x17\xfc\xb8\x08\x80\x00\x00\x03\x00\x80\x00\x00\x1e\x07\x8b\x16\xcb\x01\x00\x04\x68\xce\x0f\xc8";
/// Ticks per second.
pub const TIMESCALE: u32 = 90_000;
/// Where a frame's number stands in its payload: behind NAL length and header.
const NUMBER_AT: usize = 5;
/// Bytes of a payload that are not filling: NAL length and header, number, time.
pub const HEAD: usize = NUMBER_AT + 16;

/// How a synthetic stream goes.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Frames per second.
    pub fps: u32,
    /// Bytes of each frame.
    pub frame_bytes: usize,
    /// Frames from one keyframe to the next.
    pub group_frames: u64,
}

impl Shape {
    /// 4 Mbit/s in 30 frames a second, a keyframe every 2 s.
    pub const LIVE: Self = Self {
        fps: 30,
        frame_bytes: 16_667,
        group_frames: 60,
    };

    /// When frame `number` is due after the first.
    pub fn due(&self, number: u64) -> Duration {
        Duration::from_nanos(number * 1_000_000_000 / u64::from(self.fps))
    }

    /// Ticks of one frame.
    pub fn ticks(&self) -> u32 {
        TIMESCALE / self.fps
    }
}

/// The one track.
pub fn track() -> Track {
    let config = AvcConfig::parse(AVCC).expect("a configuration");
    Track {
        id: 1,
        timescale: TIMESCALE,
        config: config.codec_config().expect("complete"),
    }
}

/// A catalog of the one track.
pub fn catalog(version: u32, epoch: u32, first_group: u64) -> Catalog {
    Catalog {
        version,
        epoch,
        first_group,
        first_sequence: first_group,
        target_duration_ms: None,
        part_target_ms: 200,
        timeline_start_ms: 0,
        wall_clock_start_ms: unix_ns() / 1_000_000,
        bitrate_bps: None,
        tracks: vec![track()],
    }
}

/// The access unit of frame `number`, made now. Its filling follows from its number.
pub fn access_unit(shape: Shape, number: u64) -> Bytes {
    let mut out = BytesMut::with_capacity(shape.frame_bytes);
    out.put_u32(shape.frame_bytes as u32 - 4);
    let keyframe = number.is_multiple_of(shape.group_frames);
    out.put_u8(if keyframe { 0x65 } else { 0x41 });
    out.put_u64(number);
    out.put_u64(unix_ns());
    let mut state = number;
    while out.len() < shape.frame_bytes {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let bytes = (state | 0x0101_0101_0101_0101).to_be_bytes();
        let room = (shape.frame_bytes - out.len()).min(8);
        out.put_slice(&bytes[..room]);
    }
    out.freeze()
}

/// Number of a frame, and when it was made in Unix nanoseconds.
pub fn read(payload: &[u8]) -> Option<(u64, u64)> {
    let head = payload.get(NUMBER_AT..HEAD)?;
    let number = u64::from_be_bytes(head[..8].try_into().ok()?);
    let made = u64::from_be_bytes(head[8..].try_into().ok()?);
    Some((number, made))
}

/// Whether a payload is what [`access_unit`] made under its number, but for the time.
pub fn is_genuine(shape: Shape, payload: &[u8]) -> bool {
    let Some((number, _)) = read(payload) else {
        return false;
    };
    let made = access_unit(shape, number);
    let time = NUMBER_AT + 8..HEAD;
    payload.len() == made.len()
        && payload[..time.start] == made[..time.start]
        && payload[time.end..] == made[time.end..]
}

fn frame(shape: Shape, number: u64) -> Frame {
    Frame {
        track: 1,
        epoch: 1,
        group: number / shape.group_frames,
        index: (number % shape.group_frames) as u32,
        order: (number % shape.group_frames) as u32,
        dts: (number * u64::from(shape.ticks())) as i64,
        cts: 0,
        duration: shape.ticks(),
        keyframe: number.is_multiple_of(shape.group_frames),
        discardable: false,
        no_keyframe: false,
        payload: access_unit(shape, number),
    }
}

/// An encoder that sends fragmented MP4 over HTTP, in real time, until it is dropped.
pub struct Encoder {
    task: tokio::task::JoinHandle<()>,
}

impl Encoder {
    /// Connects to `http_url` and begins with frame 0.
    pub async fn start(http_url: &str, shape: Shape) -> Self {
        let rest = http_url.strip_prefix("http://").expect("an http URL");
        let (authority, path) = rest.split_once('/').expect("a path");
        let mut socket = TcpStream::connect(authority).await.expect("the node");
        socket.set_nodelay(true).expect("a TCP socket");
        let head = format!(
            "PUT /{path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: video/mp4\r\n\
             transfer-encoding: chunked\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.expect("the node");
        let task = tokio::spawn(async move {
            let start = Instant::now();
            let init = mux::init_segment(&catalog(1, 1, 0));
            let mut sent = chunk(&mut socket, &init).await;
            for number in 0.. {
                if sent.is_err() {
                    return;
                }
                sleep_until(start + shape.due(number)).await;
                let fragment = mux::fragment(&track(), &frame(shape, number));
                sent = chunk(&mut socket, &fragment.expect("a frame")).await;
            }
        });
        Self { task }
    }

    /// Whether the node has closed the connection.
    pub fn is_over(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn chunk(socket: &mut TcpStream, bytes: &[u8]) -> std::io::Result<()> {
    let mut out = BytesMut::with_capacity(bytes.len() + 16);
    out.put_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
    out.put_slice(bytes);
    out.put_slice(b"\r\n");
    socket.write_all(&out).await
}
