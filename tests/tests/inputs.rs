//! Every input comes out as what it was: a clip made by ffmpeg goes in at one node, and
//! fragmented MP4 and MPEG-TS come out at a third one, all at once through three nodes.

use std::path::{Path, PathBuf};

use astral_media::track::TrackKind;
use astral_proto::api::{Ingest, Stream};
use astral_tests::capture::Capture;
use astral_tests::chain::join;
use astral_tests::ffmpeg::{Decoded, Encoder, decoded, make};
use astral_tests::process::{Launch, Node};
use astral_tests::wait::{check, s, until};
use astral_tests::{ertmp, media, turn};
use bytes::Bytes;
use rustix::process::Signal;
use tempfile::TempDir;

/// Furthest that sound and picture may move against each other, microseconds.
const OFFSET_MAX_US: i64 = 20_000;
/// Furthest that a picture may move against the first, microseconds.
const PICTURE_MAX_US: i64 = 2_000;
/// Sound from before the first picture is left out: at most so many coded frames.
const SOUND_BEFORE_MAX: usize = 12;
/// Decoded pieces after which a decoder that began later says the same.
const SETTLED: usize = 5;
/// The publisher has room for one copy of each stream, as long as their rates are not
/// known: the third node is fed by the second.
const COPY_BPS: usize = 4_600_000;

const PICTURE: &str = "-f lavfi -i testsrc2=s=160x90:r=25";
const SOUND: &str = "-f lavfi -i sine=f=440:beep_factor=4:r=48000";
const H264: &str = "-c:v libx264 -preset veryfast -pix_fmt yuv420p -g 25 -sc_threshold 0";
const H265: &str =
    "-c:v libx265 -preset ultrafast -pix_fmt yuv420p -x265-params log-level=none:keyint=25";

/// ffmpeg 5.1 reads fragments with negative offsets, which B-frames make, too late: clips
/// whose times it is to judge have none there. Those by RTMP, FLV and MPEG-TS have.
fn no_b(clip: &[&str]) -> &'static str {
    match clip {
        _ if clip.contains(&H264) => "-bf 0",
        _ if clip.contains(&H265) => "-x265-params log-level=none:keyint=25:bframes=0",
        _ => "",
    }
}

const AV1: &str = "-c:v libaom-av1 -cpu-used 8 -usage realtime -pix_fmt yuv420p -g 25";
const AAC: &str = "-c:a aac -ac 2";
const OPUS: &str = "-c:a libopus -b:a 64k";
/// Pieces of 200 ms in a clip of 4 s.
const PIECES: usize = 20;
/// The clip whose pictures change their size half-way.
const SIZES: &str = "TS of two sizes";
const FMP4: &str = "-f mp4 -movflags +cmaf+frag_keyframe -frag_duration 200000";

/// How a clip is sent.
#[derive(Clone, Copy)]
enum Way {
    /// By ffmpeg over RTMP.
    Rtmp,
    /// By ffmpeg over HTTP, in this form.
    Put(&'static str),
    /// Over enhanced RTMP, which Debian's ffmpeg does not speak.
    Enhanced,
    /// The same tags as an FLV file over HTTP.
    Tags,
    /// The clip's own bytes over HTTP, as its encoder wrote them.
    Whole,
}

struct Input {
    name: &'static str,
    /// ffmpeg's inputs and codecs.
    clip: String,
    /// Ending of the clip's file.
    kind: &'static str,
    way: Way,
    /// MPEG-TS has a place for it.
    ts: bool,
}

fn input(name: &'static str, clip: &[&str], kind: &'static str, way: Way) -> Input {
    let fragments = if kind == "mp4" {
        format!("{} {FMP4}", no_b(clip))
    } else {
        String::new()
    };
    Input {
        name,
        clip: format!("{} -t 4 {fragments}", clip.join(" ")),
        kind,
        way,
        ts: !clip.contains(&AV1),
    }
}

fn inputs() -> Vec<Input> {
    use Way::{Enhanced, Put, Rtmp, Tags, Whole};
    let uneven = "-vf select='not(mod(n,3))+lt(mod(n,40),11)' -vsync vfr";
    let fmp4 = Put(FMP4);
    let ts = Put("-f mpegts");
    vec![
        input("RTMP H.264 AAC", &[PICTURE, SOUND, H264, AAC], "flv", Rtmp),
        input(
            "RTMP H.265 Opus",
            &[PICTURE, SOUND, H265, OPUS],
            "mp4",
            Enhanced,
        ),
        input(
            "RTMP AV1 Opus",
            &[PICTURE, SOUND, AV1, OPUS],
            "mp4",
            Enhanced,
        ),
        input("FLV H.265 AAC", &[PICTURE, SOUND, H265, AAC], "mp4", Tags),
        input("MP4 H.264 AAC", &[PICTURE, SOUND, H264, AAC], "mp4", fmp4),
        input("MP4 H.265 Opus", &[PICTURE, SOUND, H265, OPUS], "mp4", fmp4),
        input("MP4 AV1 Opus", &[PICTURE, SOUND, AV1, OPUS], "mp4", fmp4),
        input("TS H.264 AAC", &[PICTURE, SOUND, H264, AAC], "ts", ts),
        input("TS H.265 Opus", &[PICTURE, SOUND, H265, OPUS], "ts", ts),
        input("Sound alone", &[SOUND, AAC], "ts", ts),
        input("Picture alone", &[PICTURE, H264], "flv", Rtmp),
        input(
            "MP4 AV1 as encoded",
            &[PICTURE, SOUND, AV1, AAC],
            "mp4",
            Whole,
        ),
        input(
            "MP4 every frame",
            &[PICTURE, SOUND, H264, AAC],
            "mp4",
            Put("-f mp4 -movflags +frag_every_frame"),
        ),
        input(
            "MP4 every frame, empty moov",
            &[PICTURE, SOUND, H264, OPUS],
            "mp4",
            Put("-f mp4 -movflags +frag_every_frame+empty_moov+default_base_moof"),
        ),
        input(SIZES, &[PICTURE, SOUND, H264, AAC], "ts", ts),
        input("Uneven", &[PICTURE, SOUND, uneven, H264, AAC], "mp4", fmp4),
    ]
}

struct Nodes {
    publisher: Node,
    relay: Node,
    viewer: Node,
}

impl Nodes {
    async fn start(streams: usize) -> Self {
        let room = (streams + 1) * COPY_BPS - COPY_BPS / 2;
        let publisher = Launch::new("publisher").limit(room).start().await;
        let relay = Launch::new("relay").peer(&publisher).limit("unlimited");
        let relay = relay.start().await;
        let viewer = Launch::new("viewer").peer(&relay).start().await;
        Self {
            publisher,
            relay,
            viewer,
        }
    }

    async fn publish(&self, names: &[&str]) -> Vec<(Stream, Ingest)> {
        let mut published = Vec::new();
        for name in names {
            published.push(self.publisher.api.publish(name).await);
        }
        for node in [&self.relay, &self.viewer] {
            for (stream, _) in &published {
                join(node, stream).await;
            }
        }
        for (stream, _) in &published {
            let parent = self.viewer.api.parent(&stream.id.to_string()).await;
            assert_eq!(parent, Some(self.relay.id()), "{}", stream.name);
        }
        published
    }
}

/// Makes a clip. ffmpeg 5.1 knows AV1's configuration only once it is encoded, and would
/// write an empty one into the first `moov`: so it is copied from Matroska.
fn film(input: &Input, clip: &Path) {
    if input.name == SIZES {
        return two_sizes(clip);
    }
    if input.ts || matches!(input.way, Way::Whole) {
        return make(&input.clip, clip);
    }
    let first = clip.with_extension("mkv");
    make(&input.clip.replace(FMP4, ""), &first);
    make(&format!("-i {} -c copy {FMP4}", first.display()), clip);
}

/// Half of the pictures in one size, half in another, beside sound of one piece.
fn two_sizes(clip: &Path) {
    let mut list = String::new();
    for size in ["160x90", "192x108"] {
        let half = clip.with_extension(format!("{size}.ts"));
        make(
            &format!("{PICTURE} {H264} -t 2").replace("160x90", size),
            &half,
        );
        list += &format!("file {}\n", half.display());
    }
    let parts = clip.with_extension("txt");
    std::fs::write(&parts, list).expect("room for a list");
    let pictures = format!("-f concat -safe 0 -i {}", parts.display());
    make(&format!("{pictures} {SOUND} -c:v copy {AAC} -t 4"), clip);
}

/// A clip on its way.
struct Running {
    input: Input,
    clip: PathBuf,
    sent: [Vec<Bytes>; 2],
    mp4: Capture,
    ts: Option<Capture>,
    encoder: Option<Encoder>,
    sender: Option<tokio::task::JoinHandle<()>>,
}

impl Running {
    fn start(nodes: &Nodes, input: Input, stream: &Stream, ingest: &Ingest, clip: PathBuf) -> Self {
        let clip_bytes = std::fs::read(&clip).expect("the clip");
        let events = media::read(&clip_bytes);
        let sent = [TrackKind::Video, TrackKind::Audio].map(|kind| media::frames(&events, kind));
        let live = |file: &str| {
            let path = format!("/live/{}/{file}?from_ms=0&inline=1", stream.id);
            Capture::start(&nodes.viewer.api, &path)
        };
        let (mp4, ts) = (live("stream.mp4"), input.ts.then(|| live("stream.ts")));
        let (mut encoder, mut sender) = (None, None);
        match input.way {
            Way::Rtmp => {
                let server = ingest.rtmp_url.as_ref().expect("RTMP is on");
                let url = format!("{server}/{}", ingest.stream_key);
                encoder = Some(Encoder::file(&clip, &["-f", "flv", &url]));
            }
            Way::Put(form) => {
                let form = form.split_whitespace();
                let form: Vec<_> = form.chain(["-method", "PUT", &ingest.http_url]).collect();
                encoder = Some(Encoder::file(&clip, &form));
            }
            Way::Enhanced => {
                let server = ingest.rtmp_url.clone().expect("RTMP is on");
                let (key, tags) = (ingest.stream_key.clone(), ertmp::tags(&events));
                let publish = async move { ertmp::publish(&server, &key, &tags).await };
                sender = Some(tokio::spawn(publish));
            }
            Way::Whole => {
                let url = ingest.http_url.clone();
                let size = clip_bytes.len().div_ceil(PIECES);
                let pieces: Vec<_> = clip_bytes.chunks(size).map(<[u8]>::to_vec).collect();
                sender = Some(tokio::spawn(async move {
                    ertmp::put_pieces(&url, (0..).step_by(200).zip(pieces)).await;
                }));
            }
            Way::Tags => {
                let (url, tags) = (ingest.http_url.clone(), ertmp::tags(&events));
                sender = Some(tokio::spawn(async move { ertmp::put(&url, &tags).await }));
            }
        }
        Self {
            input,
            clip,
            sent,
            mp4,
            ts,
            encoder,
            sender,
        }
    }

    async fn sent(&mut self) {
        if let Some(encoder) = &mut self.encoder {
            let status = encoder.end(s(60)).await;
            let (name, words) = (self.input.name, encoder.words());
            assert!(status.success(), "{name}: ffmpeg: {status}: {words}");
        }
        if let Some(sender) = self.sender.take() {
            sender.await.expect("the node took all of it");
        }
    }

    /// Waits until the last coded frames are there, and compares.
    async fn check(&self, dir: &Path) {
        let captures = [
            Some(("mp4", &self.mp4)),
            self.ts.as_ref().map(|ts| ("ts", ts)),
        ];
        for (kind, capture) in captures.into_iter().flatten() {
            let what = format!("{} as {kind}", self.input.name);
            let bytes = self.whole(&what, capture).await;
            let path = dir.join(format!("{}.{kind}", self.input.name.replace(' ', "-")));
            std::fs::write(&path, &bytes).expect("room for a recording");
            self.compare(&what, &path);
        }
    }

    async fn whole(&self, what: &str, capture: &Capture) -> Vec<u8> {
        until(&format!("the end of {what}"), s(30), async || {
            let bytes = capture.bytes();
            let events = media::read(&bytes);
            let came =
                [TrackKind::Video, TrackKind::Audio].map(|kind| media::frames(&events, kind));
            let [video, audio] = [0, 1].map(|n| (self.sent[n].len(), came[n].len()));
            // An end of the source that shows in the recording, and all before it.
            let complete = video.0 == video.1
                && audio.1 + SOUND_BEFORE_MAX >= audio.0
                && self.sent[1].last() == came[1].last();
            let seen = format!(
                "{video:?} pictures, {audio:?} sounds, {} bytes",
                bytes.len()
            );
            check(complete, seen).map(|()| {
                assert_eq!(self.sent[0], came[0], "{what}: pictures");
                assert!(self.sent[1].ends_with(&came[1]), "{what}: sound");
                bytes
            })
        })
        .await
    }

    /// What ffmpeg decodes is the same, and as far apart.
    fn compare(&self, what: &str, came: &Path) {
        let has = self.sent.each_ref().map(|frames| !frames.is_empty());
        let decode = |file: &Path| {
            let tracks = [("v:0", has[0]), ("a:0", has[1])];
            tracks.map(|(track, has)| {
                if has {
                    decoded_parts(file, track)
                } else {
                    Vec::new()
                }
            })
        };
        let (sent, came) = (decode(&self.clip), decode(came));
        assert_eq!(
            hashes(&sent[0]),
            hashes(&came[0]),
            "{what}: decoded pictures"
        );
        for (n, pair) in sent[0].iter().zip(&came[0]).enumerate() {
            let moved = (pair.0.pts - sent[0][0].pts) - (pair.1.pts - came[0][0].pts);
            assert!(
                moved.abs() < PICTURE_MAX_US,
                "{what}: picture {n} by {moved} µs"
            );
        }
        if !has[1] {
            println!("{what}: {} pictures", came[0].len());
            return;
        }
        let settled = &came[1][SETTLED.min(came[1].len())..];
        assert!(settled.len() > 50, "{what}: {} sounds", came[1].len());
        assert!(
            hashes(&sent[1]).ends_with(&hashes(settled)),
            "{what}: decoded sound"
        );
        let first = &sent[1][sent[1].len() - settled.len()];
        if let (Some(before), Some(after)) = (sent[0].first(), came[0].first()) {
            let moved = (settled[0].pts - after.pts) - (first.pts - before.pts);
            println!(
                "{what}: {} pictures, {} sounds, moved by {moved} µs",
                came[0].len(),
                came[1].len()
            );
            assert!(moved.abs() < OFFSET_MAX_US, "{what}: {moved} µs");
        }
    }
}

/// What ffmpeg decodes of a file: of the pictures of an MP4 each part behind a `moov` by
/// itself, since it takes no notice of a second one. Sound is the same behind all of them.
fn decoded_parts(file: &Path, track: &str) -> Vec<Decoded> {
    if file.extension().is_none_or(|kind| kind != "mp4") || track == "a:0" {
        return decoded(file, track);
    }
    let bytes = std::fs::read(file).expect("a recording");
    let (mut at, mut starts) = (0, Vec::new());
    while let Some(&[a, b, c, d, ref name @ ..]) = bytes.get(at..at + 8) {
        if name == b"moov" {
            starts.push(at);
        }
        at += u32::from_be_bytes([a, b, c, d]).max(8) as usize;
    }
    starts.push(bytes.len());
    starts[0] = 0;
    let mut all = Vec::new();
    for (n, range) in starts.windows(2).enumerate() {
        let part = file.with_extension(format!("{n}.mp4"));
        std::fs::write(&part, &bytes[range[0]..range[1]]).expect("room for a part");
        all.extend(decoded(&part, track));
    }
    all
}

fn hashes(decoded: &[Decoded]) -> Vec<&str> {
    decoded.iter().map(|decoded| &decoded.hash[..]).collect()
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_input_comes_out_at_the_third_node_as_it_went_in() {
    let _turn = turn::shared().await;
    let dir = folder();
    let nodes = Nodes::start(inputs().len()).await;
    let names: Vec<_> = inputs().iter().map(|input| input.name).collect();
    let published = nodes.publish(&names).await;
    let clips: Vec<_> = inputs().into_iter().zip(&published).collect();
    let clips = clips.into_iter().map(|(input, published)| {
        let clip = dir
            .path()
            .join(format!("{}.{}", published.0.id, input.kind));
        film(&input, &clip);
        (input, published, clip)
    });
    let clips: Vec<_> = clips.collect();
    let mut running: Vec<_> = clips
        .into_iter()
        .map(|(input, (stream, ingest), clip)| Running::start(&nodes, input, stream, ingest, clip))
        .collect();
    for running in &mut running {
        running.sent().await;
    }
    for running in &running {
        running.check(dir.path()).await;
    }
    let av1 = &published[2].0;
    let path = format!("/live/{}/stream.ts", av1.id);
    let refused = nodes.viewer.api.try_get(&path);
    let refused = refused.await.expect("an answer");
    assert_eq!(
        refused.status, 422,
        "AV1 has no place in MPEG-TS: {refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_is_silent_for_ten_seconds_loses_nothing() {
    let _turn = turn::shared().await;
    let dir = folder();
    let nodes = Nodes::start(1).await;
    let published = nodes.publish(&["Silent"]).await;
    let (stream, ingest) = &published[0];
    let clip = dir.path().join("silent.flv");
    let silent = input("Silent", &[PICTURE, SOUND, H264, AAC], "flv", Way::Rtmp);
    make(&silent.clip.replace("-t 4", "-t 8"), &clip);
    let mut running = Running::start(&nodes, silent, stream, ingest, clip);
    until("the first pictures", s(30), async || {
        let local = nodes.viewer.api.stream(&stream.id.to_string()).await.local;
        check(local.frames_received > 30, format!("{local:?}"))
    })
    .await;
    let encoder = running.encoder.as_ref().expect("ffmpeg sends");
    encoder.signal(Signal::STOP);
    // The silence itself; nothing is waited for.
    tokio::time::sleep(s(10)).await;
    encoder.signal(Signal::CONT);
    running.sent().await;
    running.check(dir.path()).await;
    let shown = nodes.viewer.api.stream(&stream.id.to_string()).await;
    assert_eq!(shown.local.frames_lost, 0);
}
