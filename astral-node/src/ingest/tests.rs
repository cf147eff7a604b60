use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};

use astral_media::frame::audio_units;
use astral_media::source::{Sample, SourceEvent, SourceTrack};
use astral_media::track::CodecConfig;
use astral_proto::ids::{SecretKey, sha256};
use astral_proto::wire::media::{FrameHeader, Item};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

use super::http::IngestError;
use super::*;
use crate::store::{Group, Piece};

const KEY: &str = "secret-of-the-encoder";
const VIDEO: u8 = 1;
const AUDIO: u8 = 2;
/// A configuration record of ffmpeg's.
const AVCC: &[u8] = &[
    0x01, 0x42, 0xc0, 0x0a, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x04, 0x7b, 0x01,
    0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x22, 0x64, 0x80, 0x01,
    0x00, 0x05, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];

/// A node that has one stream: what is on its disk, and what is in its memory.
struct Node {
    disk: Arc<Mutex<OwnStream>>,
    raises: Arc<Mutex<Vec<Marks>>>,
    registry: Registry,
    store: Arc<StreamStore>,
}

fn own_stream() -> OwnStream {
    OwnStream {
        seed: [6; 32],
        name: "Show".to_owned(),
        description: None,
        unlisted: false,
        stream_key: KEY.to_owned(),
        started_at_ms: 0,
        paused: false,
        record_seq: 0,
        marks: Marks::default(),
    }
}

impl Node {
    fn new() -> Self {
        Self::start(Arc::new(Mutex::new(own_stream())))
    }

    fn start(disk: Arc<Mutex<OwnStream>>) -> Self {
        let raises = Arc::new(Mutex::new(Vec::new()));
        let (to_disk, counted) = (Arc::clone(&disk), Arc::clone(&raises));
        let registry = Registry::new(Arc::new(move |_, marks| {
            lock(&to_disk).marks.raise(marks);
            lock(&counted).push(marks);
            Ok(())
        }));
        let stream = lock(&disk).clone();
        let store = StreamStore::new(stream.id(), stream.key().public());
        registry.insert(stream, Arc::clone(&store));
        Self {
            disk,
            raises,
            registry,
            store,
        }
    }

    /// The process ends without a word and starts again: its disk is all that is left.
    fn crash(self) -> Self {
        Self::start(self.disk)
    }

    fn id(&self) -> StreamId {
        self.store.id()
    }

    fn open(&self) -> Session {
        self.open_from("10.0.0.1")
    }

    fn open_from(&self, ip: &str) -> Session {
        let from = SocketAddr::new(ip.parse().unwrap(), 40_000);
        self.registry.open(KEY, from).expect("a known key")
    }

    fn state(&self) -> SourceState {
        self.registry.state(self.id()).unwrap().borrow().clone()
    }

    fn marks(&self) -> Marks {
        lock(&self.disk).marks
    }
}

fn tracks() -> [SourceEvent; 2] {
    let video = CodecConfig::H264 {
        avcc: Bytes::from_static(AVCC),
        width: 64,
        height: 36,
    };
    let audio = CodecConfig::Aac {
        asc: Bytes::from_static(&[0x11, 0x90]),
        sample_rate: 48_000,
        channels: 2,
    };
    [(1, 1000, video), (2, 48_000, audio)].map(|(id, timescale, config)| {
        SourceEvent::Track(SourceTrack {
            id,
            timescale,
            config,
        })
    })
}

fn picture(ms: i64, text: &str) -> SourceEvent {
    SourceEvent::Sample(Sample {
        track: 1,
        dts: ms,
        cts: 0,
        duration: None,
        keyframe: ms % 1000 == 0,
        discardable: false,
        data: Bytes::from(format!("{text} picture {ms}")),
    })
}

fn sound(number: i64, text: &str) -> SourceEvent {
    SourceEvent::Sample(Sample {
        track: 2,
        dts: number * 1024,
        cts: 0,
        duration: None,
        keyframe: true,
        discardable: false,
        data: Bytes::from(format!("{text} sound {number}")),
    })
}

/// Pictures every 100 ms with a keyframe each second, and sound, as an encoder sends them.
fn media(from_ms: i64, to_ms: i64, text: &str) -> Vec<SourceEvent> {
    let mut events = Vec::new();
    let mut number = from_ms * 48 / 1024;
    for ms in (from_ms..to_ms).step_by(100) {
        events.push(picture(ms, text));
        while number * 1024 < (ms + 100) * 48 {
            events.push(sound(number, text));
            number += 1;
        }
    }
    events
}

async fn push_all(session: &mut Session, events: impl IntoIterator<Item = SourceEvent>) {
    for event in events {
        session.push(event).await.expect("taken");
    }
}

async fn started(node: &Node, from: &str, text: &str) -> Session {
    let mut session = node.open_from(from);
    push_all(&mut session, tracks()).await;
    push_all(&mut session, media(0, 2_500, text)).await;
    session
}

/// What a group has on the wire, verified with the stream's key.
struct Part {
    headers: Vec<FrameHeader>,
    payloads: Vec<Vec<u8>>,
    end: Option<u32>,
}

async fn read(store: &StreamStore, group: &Arc<Group>) -> Part {
    let mut part = Part {
        headers: Vec::new(),
        payloads: Vec::new(),
        end: None,
    };
    let mut cursor = group.cursor(0, 0);
    let soon = Duration::from_millis(20);
    while let Ok(piece) = tokio::time::timeout(soon, cursor.next()).await {
        match piece {
            Piece::Header { wire, .. } => {
                let Ok(Item::Frame(frame)) = Item::decode(wire, store.id(), store.key()) else {
                    panic!("a header that verifies")
                };
                part.headers.push(frame.value);
                part.payloads.push(Vec::new());
            }
            Piece::Chunk { bytes, .. } => {
                let payload = part.payloads.last_mut().expect("a header comes first");
                payload.extend_from_slice(&bytes);
            }
            Piece::End { wire } => {
                let Ok(Item::End(end)) = Item::decode(wire, store.id(), store.key()) else {
                    panic!("an end that verifies")
                };
                part.end = Some(end.value.frames);
                break;
            }
            Piece::Gone => panic!("gone"),
        }
    }
    for (header, payload) in part.headers.iter().zip(&part.payloads) {
        assert_eq!(FrameHeader::digest(payload).1, header.chunks);
    }
    part
}

async fn read_track(store: &StreamStore, track: u8) -> Vec<Part> {
    let mut parts = Vec::new();
    for group in store.groups(track) {
        parts.push(read(store, &group).await);
    }
    parts
}

type Name = (u32, u8, u64, u32);

/// Every signed frame by its name.
async fn names(store: &StreamStore) -> BTreeMap<Name, Vec<u8>> {
    let mut names = BTreeMap::new();
    for track in [VIDEO, AUDIO] {
        for part in read_track(store, track).await {
            for (header, payload) in part.headers.into_iter().zip(part.payloads) {
                let name = (header.epoch, header.track, header.group, header.index);
                assert_eq!(names.insert(name, payload), None, "a name comes once");
            }
        }
    }
    names
}

fn last_end_ms(parts: &[Part]) -> i64 {
    let headers = parts.iter().flat_map(|part| &part.headers);
    let ends = headers.map(|header| header.dts + i64::from(header.duration));
    ends.max().expect("a frame")
}

#[tokio::test]
async fn what_an_encoder_sends_is_in_the_store_signed() {
    let node = Node::new();
    let mut session = node.open();
    push_all(&mut session, tracks()).await;
    assert!(!node.state().live, "no keyframe yet");
    push_all(&mut session, media(0, 3_500, "a")).await;

    let state = node.state();
    assert!(state.live);
    assert_eq!(state.epoch, 1);
    let tracks: Vec<_> = state.tracks.iter().map(|track| track.id).collect();
    assert_eq!(tracks, [VIDEO, AUDIO]);
    assert_eq!(node.store.state(), StreamState::Live);

    let catalog = node.store.groups(0).pop().expect("a catalog");
    let catalog = read(&node.store, &catalog).await;
    assert_eq!(catalog.end, Some(1));
    let decoded = Catalog::decode(&catalog.payloads[0]).unwrap();
    assert_eq!(Some(Arc::new(decoded)), node.store.catalog());

    let parts = read_track(&node.store, VIDEO).await;
    let frames: Vec<_> = parts.iter().map(|part| part.headers.len()).collect();
    assert_eq!(frames, [10, 10, 10, 5]);
    let ends: Vec<_> = parts.iter().map(|part| part.end).collect();
    assert_eq!(ends, [Some(10), Some(10), Some(10), None]);
    assert_eq!(parts[1].payloads[3], b"a picture 1300");

    session.finish(true).await;
    let parts = read_track(&node.store, VIDEO).await;
    assert_eq!(parts[3].end, Some(5));
    let sounds = read_track(&node.store, AUDIO).await;
    let sounds = sounds.iter().flat_map(|part| &part.payloads);
    let sounds: usize = sounds
        .map(|bundle| audio_units(&bundle.clone().into()).unwrap().len())
        .sum();
    assert_eq!(sounds, 165);
    let state = node.state();
    assert!(!state.live && state.ended);
    assert_eq!(node.store.state(), StreamState::Waiting);
}

#[tokio::test]
async fn nothing_is_signed_before_its_marks_are_durable() {
    let node = Node::new();
    let mut session = node.open();
    push_all(&mut session, tracks()).await;
    for event in media(0, 11_000, "a") {
        session.push(event).await.unwrap();
        let (newest, marks) = (node.store.newest(), node.marks());
        assert!(newest.group <= marks.group, "{newest:?} {marks:?}");
        assert!(newest.epoch <= marks.epoch, "{newest:?} {marks:?}");
        assert!(newest.end_ms * 1_000_000 <= marks.time_ns);
    }
    let (newest, marks) = (node.store.newest(), node.marks());
    assert_eq!(newest.group, 11);
    assert!(marks.group <= newest.group + 2);
    assert!(marks.time_ns <= (newest.end_ms + 4_000) * 1_000_000);
    let raises = lock(&node.raises).len();
    assert!((5..30).contains(&raises), "{raises} times to the disk");
}

#[tokio::test]
async fn marks_that_cannot_be_kept_let_nothing_be_signed() {
    let stream = own_stream();
    let store = StreamStore::new(stream.id(), stream.key().public());
    let full = || Err(MarksError("the disk is full".to_owned()));
    let registry = Registry::new(Arc::new(move |_, _| full()));
    registry.insert(stream, Arc::clone(&store));
    let from = "10.0.0.1:1".parse().unwrap();
    let mut session = registry.open(KEY, from).unwrap();
    let mut refused = None;
    for event in tracks().into_iter().chain(media(0, 1_000, "a")) {
        refused = refused.or(session.push(event).await.err());
    }
    assert!(matches!(refused, Some(SessionError::Failed(_))));
    assert!(store.groups(0).is_empty() && store.groups(VIDEO).is_empty());
}

#[tokio::test]
async fn no_name_is_signed_twice_across_a_crash() {
    let mut node = Node::new();
    let mut signed = BTreeMap::new();
    for run in 1..=4u64 {
        let before = node.marks();
        let mut session = node.open();
        push_all(&mut session, tracks()).await;
        push_all(&mut session, media(0, 700 * run as i64, &run.to_string())).await;
        let first = node.store.groups(VIDEO)[0].clone();
        assert_eq!(first.epoch, before.epoch + 1);
        assert_eq!(first.group, before.group + 1);
        let headers = read(&node.store, &first).await.headers;
        assert_eq!(headers[0].dts, before.time_ns / 1_000_000);
        for (name, payload) in names(&node.store).await {
            assert_eq!(signed.insert(name, payload), None, "signed twice: {name:?}");
        }
        let newest = node.store.newest();
        assert!(
            node.marks().group <= newest.group + 2,
            "at most two are skipped"
        );
        // Nothing is ended: the process is gone.
        std::mem::forget(session);
        node = node.crash();
    }
}

#[tokio::test]
async fn encoder_that_comes_back_goes_on_where_the_last_frame_ended() {
    let node = Node::new();
    let session = started(&node, "10.0.0.1", "a").await;
    drop(session);
    assert!(
        !node.state().live && !node.state().ended,
        "it may come back"
    );
    assert_eq!(node.store.state(), StreamState::Waiting);
    let before = read_track(&node.store, VIDEO).await;
    assert_eq!(before.len(), 3);
    assert_eq!(before[2].end, Some(5), "the open group is ended");

    let mut session = node.open();
    push_all(&mut session, tracks()).await;
    push_all(&mut session, media(0, 1_000, "b")).await;
    let after = read_track(&node.store, VIDEO).await;
    let first = &after[3].headers[0];
    assert_eq!((first.epoch, first.group), (2, 4));
    let sound = read_track(&node.store, AUDIO).await;
    let sound_end = last_end_ms(&sound[..3]) * 1000 / 48_000;
    let end = last_end_ms(&before).max(sound_end);
    assert!((0..=1).contains(&(first.dts - end)), "{} {end}", first.dts);
    assert_eq!(node.store.catalog().unwrap().first_group, 4);
}

#[tokio::test]
async fn newer_encoder_takes_the_slot_with_its_first_keyframe() {
    let node = Node::new();
    let mut old = started(&node, "10.0.0.1", "old").await;
    let mut new = node.open_from("10.0.0.2");
    push_all(&mut new, tracks()).await;
    push_all(&mut new, [picture(5_100, "new"), sound(240, "new")]).await;
    push_all(&mut old, media(2_500, 3_000, "old")).await;
    assert_eq!(node.state().epoch, 1, "untouched so far");

    push_all(&mut new, media(6_000, 7_000, "new")).await;
    assert_eq!(node.state().epoch, 2);
    assert!(old.replaced().is_cancelled());
    assert_eq!(old.over(), SessionError::Replaced);
    let refused = old.push(picture(3_000, "old")).await;
    assert_eq!(refused, Err(SessionError::Replaced));
    old.finish(false).await;
    assert!(node.state().live, "an old session frees nothing");

    let parts = read_track(&node.store, VIDEO).await;
    let epochs: Vec<_> = parts.iter().map(|part| part.headers[0].epoch).collect();
    assert_eq!(epochs, [1, 1, 1, 2]);
    assert_eq!(parts[2].end, Some(10), "all of the old one is ended");
    assert_eq!(parts[3].payloads[0], b"new picture 6000");

    // The one that was thrown out is kept out, others are not.
    let from = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 1);
    let refusal = node.registry.open(KEY, from("10.0.0.1")).err();
    assert!(matches!(refusal, Some(Refusal::Replaced(_))), "{refusal:?}");
    assert!(node.registry.open(KEY, from("10.0.0.3")).is_ok());
    new.finish(true).await;
    assert!(node.registry.open(KEY, from("10.0.0.1")).is_ok());
}

#[tokio::test]
async fn new_encoder_that_fails_leaves_the_running_one_alone() {
    let node = Node::new();
    let mut old = started(&node, "10.0.0.1", "old").await;
    let mut new = node.open_from("10.0.0.2");
    let [SourceEvent::Track(mut track), _] = tracks() else {
        panic!("a track")
    };
    track.timescale = 0;
    let failed = new.push(SourceEvent::Track(track)).await;
    assert!(matches!(failed, Err(SessionError::Unsupported(_))));
    new.finish(false).await;
    push_all(&mut old, media(2_500, 3_000, "old")).await;
    assert!(node.state().live);
    assert_eq!(node.state().epoch, 1);
}

#[tokio::test]
async fn wrong_key_and_too_many_encoders_are_refused_in_words() {
    let node = Node::new();
    let from = "10.0.0.1:1".parse().unwrap();
    let refusal = node.registry.open("nonsense", from).err();
    assert_eq!(refusal, Some(Refusal::UnknownKey));
    let sessions: Vec<_> = (0..SESSIONS_PER_STREAM).map(|_| node.open()).collect();
    let refusal = node.registry.open(KEY, from).err();
    assert_eq!(refusal, Some(Refusal::TooMany));
    drop(sessions);
    assert!(node.registry.open(KEY, from).is_ok());
}

#[tokio::test]
async fn paused_stream_signs_nothing_and_resumes_with_a_keyframe() {
    let node = Node::new();
    let mut session = started(&node, "10.0.0.1", "a").await;
    node.registry.set_paused(node.id(), true);
    assert!(!node.state().live);
    assert_eq!(node.store.state(), StreamState::Paused);
    let before = names(&node.store).await;
    push_all(&mut session, media(2_500, 4_500, "unseen")).await;
    assert_eq!(names(&node.store).await, before);

    node.registry.set_paused(node.id(), false);
    assert!(node.state().live);
    push_all(&mut session, media(4_500, 6_000, "b")).await;
    let parts = read_track(&node.store, VIDEO).await;
    assert_eq!(parts[2].end, Some(5));
    let first = &parts[3].headers[0];
    assert_eq!((first.epoch, first.group), (2, 4));
    assert_eq!(parts[3].payloads[0], b"b picture 5000");
    assert!(
        first.dts - last_end_ms(&parts[..3]) < 100,
        "pauses leave no hole"
    );

    // A pause between two frames, of which the session sees neither end.
    node.registry.set_paused(node.id(), true);
    node.registry.set_paused(node.id(), false);
    push_all(&mut session, media(6_000, 7_000, "c")).await;
    assert_eq!(node.state().epoch, 3);
    names(&node.store).await;
}

#[tokio::test]
async fn removed_stream_ends_its_encoder() {
    let node = Node::new();
    let mut session = started(&node, "10.0.0.1", "a").await;
    let mut state = node.registry.state(node.id()).unwrap();
    node.registry.remove(node.id());
    assert!(session.replaced().is_cancelled());
    assert_eq!(session.over(), SessionError::Removed);
    let refused = session.push(picture(2_500, "a")).await;
    assert_eq!(refused, Err(SessionError::Removed));
    assert_eq!(node.store.state(), StreamState::Ended);
    assert!(!state.borrow_and_update().live);
    let from = "10.0.0.1:1".parse().unwrap();
    let refusal = node.registry.open(KEY, from).err();
    assert_eq!(refusal, Some(Refusal::UnknownKey));
}

/// Four seconds of H.264 with B-frames and AAC.
struct Clip {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

impl Clip {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("clip.mp4");
        let inputs = "-f lavfi -i testsrc2=size=320x180:rate=30 -f lavfi -i sine=sample_rate=48000";
        let codecs =
            "-t 4 -c:v libx264 -preset veryfast -g 30 -bf 2 -pix_fmt yuv420p -c:a aac -ac 2";
        done(ffmpeg(&format!("{inputs} {codecs}")).arg(&path)).await;
        Self {
            _folder: folder,
            path,
        }
    }

    /// SHA-256 of each coded frame of a track, as ffmpeg reads them.
    async fn hashes(&self, track: &str) -> Vec<String> {
        let mut command = ffmpeg("-ignore_editlist 1 -i");
        command.arg(&self.path).args(["-map", track]);
        command.args("-c copy -f framehash -hash sha256 -".split(' '));
        let output = done(&mut command).await;
        let text = String::from_utf8(output.stdout).unwrap();
        let frames = text.lines().filter(|line| !line.starts_with('#'));
        frames
            .map(|line| line.rsplit(',').next().unwrap().trim().to_owned())
            .collect()
    }
}

fn ffmpeg(arguments: &str) -> Command {
    let mut command = Command::new("ffmpeg");
    command.args(["-hide_banner", "-nostdin", "-v", "error", "-y"]);
    command.args(arguments.split_whitespace());
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(command: &mut Command) -> Output {
    command.output().await.expect(
        "ffmpeg is needed for this test and could not be started: \
         install it (Debian: apt-get install ffmpeg; macOS: brew install ffmpeg)",
    )
}

async fn done(command: &mut Command) -> Output {
    let output = run(command).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    output
}

fn hex(hash: [u8; 32]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// SHA-256 of each coded frame in the store, bundles of sound taken apart.
async fn stored_hashes(store: &StreamStore, track: u8) -> Vec<String> {
    let mut hashes = Vec::new();
    for part in read_track(store, track).await {
        assert_eq!(part.end, Some(part.headers.len() as u32));
        for payload in part.payloads {
            let payload = Bytes::from(payload);
            let units = match track {
                VIDEO => vec![payload],
                _ => audio_units(&payload).unwrap(),
            };
            hashes.extend(units.iter().map(|unit| hex(sha256(unit))));
        }
    }
    hashes
}

async fn rtmp_server(node: &Node) -> (String, CancellationToken, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("rtmp://{}/live", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let served = rtmp::serve(listener, node.registry.clone(), shutdown.clone());
    (url, shutdown, tokio::spawn(served))
}

#[tokio::test]
async fn ffmpeg_publishes_by_rtmp_and_every_coded_frame_is_stored() {
    let (node, clip) = (Node::new(), Clip::new().await);
    let (url, shutdown, server) = rtmp_server(&node).await;
    let mut push = ffmpeg("-i");
    push.arg(&clip.path).args("-c copy -f flv".split(' '));
    done(push.arg(format!("{url}/{KEY}"))).await;
    let mut state = node.registry.state(node.id()).unwrap();
    let ended = state.wait_for(|state| state.ended);
    tokio::time::timeout(SILENCE, ended).await.unwrap().unwrap();
    for (track, map) in [(VIDEO, "0:v"), (AUDIO, "0:a")] {
        assert_eq!(
            stored_hashes(&node.store, track).await,
            clip.hashes(map).await
        );
    }
    shutdown.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn ffmpeg_shows_why_its_key_is_refused() {
    let node = Node::new();
    let clip = Clip::new().await;
    let (url, shutdown, server) = rtmp_server(&node).await;
    let mut push = ffmpeg("-i");
    push.arg(&clip.path).args("-c copy -f flv".split(' '));
    let output = run(push.arg(format!("{url}/nonsense"))).await;
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        errors.contains(&Refusal::UnknownKey.to_string()),
        "{errors}"
    );
    shutdown.cancel();
    server.await.unwrap();
}

#[tokio::test]
async fn rtmp_connection_that_says_nothing_is_closed() {
    use tokio::io::AsyncReadExt as _;
    let node = Node::new();
    let (url, shutdown, server) = rtmp_server(&node).await;
    let address = url.trim_start_matches("rtmp://").trim_end_matches("/live");
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let since = std::time::Instant::now();
    assert_eq!(socket.read(&mut [0; 16]).await.unwrap(), 0);
    assert!((4..8).contains(&since.elapsed().as_secs()));
    shutdown.cancel();
    server.await.unwrap();
}

fn pieces(bytes: &[u8]) -> Vec<Result<Bytes, String>> {
    let sizes = [1, 5, 1_013, 65_537, 3, 4_999].into_iter().cycle();
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    for size in sizes {
        let (piece, tail) = rest.split_at(rest.len().min(size));
        pieces.push(Ok(Bytes::copy_from_slice(piece)));
        rest = tail;
        if rest.is_empty() {
            return pieces;
        }
    }
    pieces
}

async fn send(node: &Node, pieces: Vec<Result<Bytes, String>>) -> Result<(), IngestError> {
    let from = "10.0.0.1:1".parse().unwrap();
    let body = futures_util::stream::iter(pieces);
    http::body(&node.registry, KEY, from, body).await
}

async fn remuxed(clip: &Clip, options: &str, name: &str) -> Vec<u8> {
    let path: &Path = &clip.path.with_file_name(name);
    let mut command = ffmpeg("-i");
    command.arg(&clip.path).args(["-c", "copy"]);
    done(command.args(options.split_whitespace()).arg(path)).await;
    std::fs::read(path).unwrap()
}

#[tokio::test]
async fn bodies_of_every_container_are_stored_frame_by_frame() {
    let clip = Clip::new().await;
    let mp4 = "-movflags +cmaf+frag_keyframe -frag_duration 200000 -f mp4";
    for (options, name) in [
        (mp4, "body.mp4"),
        ("-f flv", "body.flv"),
        ("-f mpegts", "body.ts"),
    ] {
        let node = Node::new();
        let body = remuxed(&clip, options, name).await;
        assert_eq!(send(&node, pieces(&body)).await, Ok(()));
        assert!(node.state().ended, "a finished body is a clean end");
        for (track, map) in [(VIDEO, "0:v"), (AUDIO, "0:a")] {
            assert_eq!(
                stored_hashes(&node.store, track).await,
                clip.hashes(map).await,
                "{name}"
            );
        }
    }
}

#[tokio::test]
async fn body_that_breaks_off_may_be_followed_by_another() {
    let clip = Clip::new().await;
    let node = Node::new();
    let body = remuxed(&clip, "-movflags +cmaf+frag_keyframe -f mp4", "body.mp4").await;
    let mut pieces = pieces(&body[..body.len() / 2]);
    pieces.push(Err("connection reset".to_owned()));
    let broken = send(&node, pieces).await;
    assert_eq!(
        broken,
        Err(IngestError::Broken("connection reset".to_owned()))
    );
    assert!(!node.state().live && !node.state().ended);
    assert!(node.store.newest().frames > 0);
}

#[tokio::test]
async fn bodies_of_other_kinds_are_refused_in_words() {
    let clip = Clip::new().await;
    let node = Node::new();
    let refused = async |body: &[u8]| send(&node, pieces(body)).await.unwrap_err();
    let is_unsupported = |error: &IngestError| matches!(error, IngestError::Unsupported(_));
    let is_malformed = |error: &IngestError| matches!(error, IngestError::Malformed(_));
    let matroska = remuxed(&clip, "-f matroska", "body.mkv").await;
    assert!(is_unsupported(&refused(&matroska).await));
    let latm = remuxed(&clip, "-f mpegts -mpegts_flags latm", "latm.ts").await;
    let latm = refused(&latm).await;
    assert!(is_unsupported(&latm) && latm.to_string().contains("LATM"));
    assert!(is_unsupported(&refused(b"GIF89a, not a film").await));
    assert!(is_unsupported(&refused(b"short").await));
    assert!(is_malformed(&refused(b"").await));
    // What a camera or an editor writes: the index comes at the end.
    let progressive = refused(&std::fs::read(&clip.path).unwrap()).await;
    assert!(is_malformed(&progressive), "{progressive:?}");
    assert!(progressive.to_string().contains("fragmented"));
    assert!(node.store.groups(0).is_empty());

    let from = "10.0.0.1:1".parse().unwrap();
    let body = futures_util::stream::iter(pieces(b"anything"));
    let unknown = http::body(&node.registry, "nonsense", from, body).await;
    assert_eq!(unknown, Err(IngestError::UnknownKey));
    assert_eq!(SecretKey::from_seed([6; 32]).public(), *node.store.key());
}
