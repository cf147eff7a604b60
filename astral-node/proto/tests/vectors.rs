//! The golden vectors of `vectors/astral-1.txt`: every one decodes and encodes
//! again byte for byte, and no alteration of one makes a decoder panic or take
//! much memory.
//!
//! `UPDATE_VECTORS=1 cargo test -p astral-proto --test vectors` writes the file
//! anew. A vector that changes is a change of the wire protocol.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use astral_proto::ids::{Domain, NodeId, SecretKey, Signature, StreamId, TicketId};
use astral_proto::limits::{CHUNK_BYTES, MESSAGE_BYTES_MAX, RECORD_BYTES_MAX};
use astral_proto::link::{PeerAddress, ShareLink};
use astral_proto::record::{
    Address, NodeLoad, NodeRecord, Role, SignedNode, SignedStream, StreamLoad, StreamRecord,
    StreamState, TrackSummary,
};
use astral_proto::slug;
use astral_proto::wire::control::{
    Announce, Audience, Confirm, Fetch, Find, Found, Have, HaveGroup, Hello, Introduce, Leaving,
    Message, PathUpdate, Peers, Probe, Probed, Reason, RecordBytes, Referral, Refused, Register,
    Registered, TicketAccepted, TicketActivate, TicketCancel, TicketConfirm, TicketOffer,
    TicketRefused, TicketRequest,
};
use astral_proto::wire::heartbeat::{Heartbeat, Supply, TicketBeat};
use astral_proto::wire::media::{FrameHeader, GroupEnd, GroupHeader, Item, Signed, item_len};
use astral_proto::wire::{Reader, VERSION, put_varint};
use bytes::{Bytes, BytesMut};
use peak_alloc::PeakAlloc;
use proptest::prelude::*;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Tests take turns, so that each sees only its own allocations.
static TURN: Mutex<()> = Mutex::new(());

/// Most memory that decoding one message may take beyond the message itself.
const DECODE_BYTES_MAX: usize = 1024 * 1024;

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Highest number of bytes that were allocated at one time while `work` ran.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = ALLOCATED.current_usage();
    ALLOCATED.reset_peak_usage();
    let result = work();
    (result, ALLOCATED.peak_usage().saturating_sub(before))
}

// The parties

/// The seed of a party's key is this byte 32 times.
const PUBLISHER: u8 = 1;
const RELAY: u8 = 2;
const VIEWER: u8 = 3;
const STREAM: u8 = 0x51;
const NAME: &str = "My Show!";

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed([seed; 32])
}

fn node(seed: u8) -> NodeId {
    NodeId::of(&key(seed).public())
}

fn stream() -> StreamId {
    StreamId::of(&key(STREAM).public())
}

fn address(text: &str) -> Address {
    Address(text.parse::<SocketAddr>().expect("an address"))
}

fn ticket() -> TicketId {
    TicketId(0x0123_4567_89ab_cdef)
}

fn node_record() -> SignedNode {
    let record = NodeRecord {
        key: key(PUBLISHER).public(),
        seq: 1_767_225_600_000,
        addresses: vec![address("203.0.113.5:8000"), address("[2001:db8::5]:8000")],
        role: Role::Supernode,
        alias: None,
        name: Some("attic".into()),
        software: Some("0.1.0".into()),
        public_http: Some("https://live.example.org".into()),
        removed: None,
        load: None,
    };
    SignedNode::sign(record, &key(PUBLISHER))
}

fn busy_node_record() -> SignedNode {
    let mut record = node_record().value().clone();
    record.load = Some(NodeLoad {
        registered: 12,
        room: 244,
        children: 3,
        streams: vec![StreamLoad {
            stream: stream(),
            viewers: 40,
            children: 3,
            depth: 1,
            delay_ms: 25,
        }],
    });
    SignedNode::sign(record, &key(PUBLISHER))
}

fn node_tombstone() -> SignedNode {
    let record = NodeRecord {
        key: key(PUBLISHER).public(),
        seq: 1_767_225_600_001,
        addresses: vec![],
        role: Role::Node,
        alias: Some(NodeId(uuid::Uuid::from_u128(0x00a1_1a50))),
        name: None,
        software: None,
        public_http: None,
        removed: Some(true),
        load: None,
    };
    SignedNode::sign(record, &key(PUBLISHER))
}

fn stream_record() -> SignedStream {
    let video = TrackSummary {
        id: 1,
        codec: "avc1.64001f".into(),
        width: Some(1280),
        height: Some(720),
        sample_rate: None,
        channels: None,
    };
    let audio = TrackSummary {
        id: 2,
        codec: "mp4a.40.2".into(),
        width: None,
        height: None,
        sample_rate: Some(48_000),
        channels: Some(2),
    };
    let record = StreamRecord {
        key: key(STREAM).public(),
        seq: 1_767_225_600_500,
        name: NAME.into(),
        description: Some("Every evening".into()),
        publisher: node(PUBLISHER),
        unlisted: None,
        epoch: 7,
        started_at_ms: 1_767_225_600_000,
        state: StreamState::Live,
        bitrate_bps: Some(4_000_000),
        tracks: vec![video, audio],
        viewers: Some(12),
    };
    SignedStream::sign(record, &key(STREAM))
}

// The vectors

/// One vector: which decoder it is for, what it is, and its bytes or text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Vector {
    kind: String,
    means: String,
    value: String,
}

fn vector(kind: &str, means: impl Into<String>, bytes: impl AsRef<[u8]>) -> Vector {
    Vector {
        kind: kind.into(),
        means: means.into(),
        value: to_hex(bytes.as_ref()),
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to memory does not fail");
        text
    })
}

fn of_hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex digits"))
        .collect()
}

fn vectors() -> Vec<Vector> {
    let mut all = identities();
    all.extend(messages().into_iter().map(|(means, message)| {
        let means = format!("{}: {means}", message.name());
        vector("control", means, message.encode())
    }));
    all.extend(records());
    all.extend(heartbeats());
    all.extend(media());
    all.extend(texts());
    all
}

fn identities() -> Vec<Vector> {
    let mut all = Vec::new();
    for (who, seed) in [
        ("publisher", PUBLISHER),
        ("relay", RELAY),
        ("viewer", VIEWER),
        ("stream", STREAM),
    ] {
        let public = key(seed).public();
        let bytes = [[seed; 32].as_slice(), &public.0, node(seed).0.as_bytes()].concat();
        all.push(vector(
            "identity",
            format!("{who}: seed, Ed25519 public key, id {}", node(seed)),
            bytes,
        ));
    }
    for (domain, name) in [
        (Domain::NodeRecord, "node record"),
        (Domain::StreamRecord, "stream record"),
        (Domain::Frame, "frame"),
        (Domain::GroupEnd, "group end"),
    ] {
        let Signature(signature) = key(PUBLISHER).sign(domain, b"abc");
        all.push(vector(
            "signature",
            format!("publisher signs the three bytes `abc` as a {name}"),
            signature,
        ));
    }
    all
}

fn have() -> Have {
    let open = |track, frame, chunk| HaveGroup {
        track,
        group: 1_000,
        frame,
        chunk,
    };
    Have {
        groups: vec![open(1, 17, 1), open(2, 9, 0)],
        from_group: Some(1_000),
    }
}

fn referrals() -> Vec<Referral> {
    vec![
        Referral {
            node: node(RELAY),
            addresses: vec![address("192.0.2.7:4433")],
        },
        Referral {
            node: node(VIEWER),
            addresses: vec![],
        },
    ]
}

fn messages() -> Vec<(&'static str, Message)> {
    let record_of_node = || RecordBytes(node_record().wire().clone());
    let record_of_stream = || RecordBytes(stream_record().wire().clone());
    vec![
        (
            "version 1, the publisher's record, seen at 198.51.100.9:61000",
            Hello {
                version: VERSION,
                record: record_of_node(),
                observed: Some(address("198.51.100.9:61000")),
            }
            .into(),
        ),
        (
            "as the primary",
            Register {
                primary: true,
                over: None,
            }
            .into(),
        ),
        (
            "no longer",
            Register {
                primary: false,
                over: Some(true),
            }
            .into(),
        ),
        ("room for 40", Registered { room: 40 }.into()),
        (
            "full, two referrals",
            Refused {
                reason: Reason::Full,
                referrals: referrals(),
            }
            .into(),
        ),
        (
            "one record",
            Peers {
                records: vec![record_of_node()],
            }
            .into(),
        ),
        (
            "one record",
            Announce {
                records: vec![record_of_stream()],
            }
            .into(),
        ),
        (
            "question 3, by id, at most 8",
            Find {
                query: 3,
                id: Some(stream()),
                slug: None,
                limit: 8,
            }
            .into(),
        ),
        (
            "question 4, by the slug `my-show`, at most 8",
            Find {
                query: 4,
                id: None,
                slug: Some("my-show".into()),
                limit: 8,
            }
            .into(),
        ),
        (
            "question 3, the stream and its publisher",
            Found {
                query: 3,
                streams: vec![record_of_stream()],
                nodes: vec![record_of_node()],
            }
            .into(),
        ),
        (
            "the stream",
            TicketRequest {
                stream: stream(),
                carries: None,
                places: None,
            }
            .into(),
        ),
        (
            "path publisher, relay; 12,500 µs from the source; 20 Mbit/s to spare",
            TicketOffer {
                stream: stream(),
                path: vec![node(PUBLISHER), node(RELAY)],
                delay_us: 12_500,
                spare_bps: 20_000_000,
            }
            .into(),
        ),
        (
            "active, with nothing held",
            TicketConfirm {
                stream: stream(),
                confirm: Confirm::Active,
                have: Have::default(),
            }
            .into(),
        ),
        (
            "standby of the relay; group 1000 is held up to frame 17 chunk 1 of track 1 \
             and frame 9 of track 2; from group 1000 on",
            TicketConfirm {
                stream: stream(),
                confirm: Confirm::Standby(node(RELAY)),
                have: have(),
            }
            .into(),
        ),
        (
            "ticket 0123456789abcdef, path publisher, relay; charged with 4.6 Mbit/s",
            TicketAccepted {
                stream: stream(),
                id: ticket(),
                path: vec![node(PUBLISHER), node(RELAY)],
                rate_bps: 4_600_000,
                record: record_of_stream(),
                others: Some(referrals()),
            }
            .into(),
        ),
        (
            "does not have the stream; two referrals",
            TicketRefused {
                stream: stream(),
                reason: Reason::NoStream,
                referrals: referrals(),
            }
            .into(),
        ),
        (
            "as in the standby's TicketConfirm",
            TicketActivate {
                id: ticket(),
                have: have(),
            }
            .into(),
        ),
        (
            "no longer wanted",
            TicketCancel {
                id: ticket(),
                reason: Reason::Unwanted,
                referrals: vec![],
            }
            .into(),
        ),
        (
            "path publisher only; 800 µs",
            PathUpdate {
                id: ticket(),
                path: vec![node(PUBLISHER)],
                delay_us: 800,
                others: None,
            }
            .into(),
        ),
        (
            "track 1, group 1000, frames 17 to 20",
            Fetch {
                id: ticket(),
                track: 1,
                group: 1_000,
                first: 17,
                count: 4,
            }
            .into(),
        ),
        (
            "the viewer at two addresses",
            Introduce {
                peer: node(VIEWER),
                addresses: vec![address("192.0.2.7:4433"), address("[2001:db8::7]:4433")],
                to: None,
            }
            .into(),
        ),
        (
            "the viewer itself, to be dialled by the publisher",
            Introduce {
                peer: node(VIEWER),
                addresses: vec![],
                to: Some(node(PUBLISHER)),
            }
            .into(),
        ),
        (
            "question 5",
            Probe {
                query: 5,
                address: address("192.0.2.7:4433"),
            }
            .into(),
        ),
        (
            "question 5: reachable",
            Probed {
                query: 5,
                reachable: true,
            }
            .into(),
        ),
        (
            "two referrals",
            Leaving {
                referrals: referrals(),
            }
            .into(),
        ),
        (
            "three viewers, one of them late",
            Audience {
                id: ticket(),
                delays: vec![2, 0, 0, 1],
                depth: 3,
                stalls: 1,
                lost: 40,
            }
            .into(),
        ),
    ]
}

fn records() -> Vec<Vector> {
    vec![
        vector("node-record", "the publisher", node_record().wire()),
        vector(
            "node-record",
            "the publisher, with counts of 12 registered nodes and one stream",
            busy_node_record().wire(),
        ),
        vector(
            "node-record",
            "tombstone of the publisher, with an alias",
            node_tombstone().wire(),
        ),
        vector("stream-record", "live, two tracks", stream_record().wire()),
    ]
}

fn heartbeats() -> Vec<Vector> {
    let quiet = Heartbeat {
        seq: 1,
        echo: None,
        spare_bps: 0,
        tickets: vec![],
    };
    let beat = |supply, newest, delay_us, viewers, free| TicketBeat {
        ticket: ticket(),
        stream: stream(),
        supply,
        newest,
        delay_us,
        viewers,
        free,
    };
    let busy = Heartbeat {
        seq: 300,
        echo: Some((299, 1_250)),
        spare_bps: 20_000_000,
        tickets: vec![
            beat(Supply::Ok, (1_000, 17), 12_500, 0, 0),
            beat(Supply::Repairing, (999, 60), 40_000, 5, 3),
            beat(Supply::NoSource, (1_000, 0), 0, 0, 0),
        ],
    };
    vec![
        vector(
            "datagram",
            "first heartbeat, nothing to echo",
            quiet.encode(),
        ),
        vector(
            "datagram",
            "heartbeat 300, echo of 299 after 1,250 µs, three tickets: ok, repairing, no_source",
            busy.encode(),
        ),
    ]
}

/// The payload of the frame vectors: byte `i` is `i mod 251`.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

fn frame_header(payload: &[u8]) -> FrameHeader {
    let (len, chunks) = FrameHeader::digest(payload);
    FrameHeader {
        track: 1,
        epoch: 7,
        group: 1_000,
        index: 17,
        order: 43,
        dts: 2_700_000,
        cts: -3_000,
        duration: 3_000,
        keyframe: false,
        discardable: true,
        no_keyframe: false,
        len,
        chunks,
    }
}

fn media() -> Vec<Vector> {
    let group = GroupHeader {
        ticket: ticket(),
        track: 1,
        epoch: 7,
        group: 1_000,
        first_frame: 17,
        first_chunk: 1,
        catalog: 2,
    };
    let mut group_bytes = Vec::new();
    group.encode(&mut group_bytes);
    let two_chunks = frame_header(&payload(CHUNK_BYTES + 10));
    let keyframe = FrameHeader {
        index: 0,
        order: 0,
        dts: -90_000,
        cts: 0,
        keyframe: true,
        discardable: false,
        no_keyframe: true,
        ..frame_header(b"abc")
    };
    let frame = |header| Signed::<FrameHeader>::sign(stream(), &key(STREAM), header).wire;
    let end = GroupEnd {
        track: 1,
        epoch: 7,
        group: 1_000,
        frames: 60,
    };
    vec![
        vector(
            "group-header",
            "track 1, epoch 7, group 1000, from frame 17 chunk 1 on, catalog 2",
            group_bytes,
        ),
        vector(
            "item",
            "frame 17 of 16,394 bytes in two chunks (byte i is i mod 251), discardable",
            frame(two_chunks),
        ),
        vector(
            "item",
            "frame 0 with the payload `abc`, keyframe and no_keyframe flags, negative dts",
            frame(keyframe),
        ),
        vector(
            "item",
            "end of the group after 60 frames",
            Signed::<GroupEnd>::sign(stream(), &key(STREAM), end).wire,
        ),
    ]
}

fn text(kind: &str, means: impl Into<String>, value: impl Into<String>) -> Vector {
    Vector {
        kind: kind.into(),
        means: means.into(),
        value: value.into(),
    }
}

fn texts() -> Vec<Vector> {
    let link = ShareLink {
        stream: stream(),
        addresses: vec!["203.0.113.5:8000".into(), "[2001:db8::5]:8000".into()],
    };
    let bare = ShareLink {
        stream: stream(),
        addresses: vec![],
    };
    let slug_of = |name| slug::slug_of(name, stream());
    vec![
        text("share-link", "with two addresses", link.to_string()),
        text("share-link", "without an address", bare.to_string()),
        text(
            "peer",
            "a node that must prove its id",
            format!("{}@example.org:8000", node(PUBLISHER)),
        ),
        text("slug", NAME, slug_of(NAME)),
        text("slug", "  Äpfel & Öl 2  ", slug_of("  Äpfel & Öl 2  ")),
        text("slug", "直播", slug_of("直播")),
        text("full-slug", NAME, slug::full_slug(NAME, stream())),
    ]
}

// The file

fn file() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/astral-1.txt")
}

const PREAMBLE: &str = "\
# Golden vectors of the wire protocol astral/1 (see WIRE.md).
#
# A vector is a line `kind: meaning` and its value on indented lines, which are
# to be joined: hex digits, or text for share-link, peer, slug and full-slug (of
# which the meaning is the stream's name). Key seeds are one byte 32 times:
# publisher 01, relay 02, viewer 03, stream 51.
";

/// Digits of hex on a line.
const LINE: usize = 96;

fn render(all: &[Vector]) -> String {
    let mut out = PREAMBLE.to_owned();
    for vector in all {
        out.push_str(&format!("\n{}: {}\n", vector.kind, vector.means));
        if is_text(vector) {
            out.push_str(&format!("  {}\n", vector.value));
            continue;
        }
        for line in vector.value.as_bytes().chunks(LINE) {
            let line = std::str::from_utf8(line).expect("hex digits are ASCII");
            out.push_str(&format!("  {line}\n"));
        }
    }
    out
}

fn is_text(vector: &Vector) -> bool {
    ["share-link", "peer", "slug", "full-slug"].contains(&vector.kind.as_str())
}

fn parse(file: &str) -> Vec<Vector> {
    let mut all: Vec<Vector> = Vec::new();
    for line in file
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match (line.strip_prefix("  "), all.last_mut()) {
            (Some(value), Some(last)) => last.value.push_str(value),
            _ => {
                let (kind, means) = line.split_once(": ").expect("kind: meaning");
                all.push(text(kind, means, ""));
            }
        }
    }
    all
}

fn golden() -> Vec<Vector> {
    parse(&std::fs::read_to_string(file()).expect("the vectors are there"))
}

// Decoding and encoding again

fn signed_item(bytes: Vec<u8>) -> Bytes {
    let item = Item::decode(bytes.into(), stream(), &key(STREAM).public()).expect("an item");
    match item {
        Item::Frame(frame) => Signed::<FrameHeader>::sign(stream(), &key(STREAM), frame.value).wire,
        Item::End(end) => Signed::<GroupEnd>::sign(stream(), &key(STREAM), end.value).wire,
    }
}

fn control(bytes: &[u8]) -> Bytes {
    let mut buffer = BytesMut::from(bytes);
    let message = Message::decode(&mut buffer).expect("valid").expect("known");
    assert!(buffer.is_empty(), "{} has bytes behind it", message.name());
    message.encode()
}

/// What comes out if the vector is decoded and encoded again.
fn again(vector: &Vector) -> String {
    let bytes = || of_hex(&vector.value);
    let encoded: Vec<u8> = match vector.kind.as_str() {
        "identity" => {
            let seed = <[u8; 32]>::try_from(&bytes()[..32]).expect("32 bytes");
            let public = SecretKey::from_seed(seed).public();
            [&seed[..], &public.0, NodeId::of(&public).0.as_bytes()].concat()
        }
        "signature" => return vector.value.clone(),
        "control" => control(&bytes()).to_vec(),
        "node-record" => {
            let record = SignedNode::decode(&bytes()).expect("a node record");
            SignedNode::sign(record.value().clone(), &key(PUBLISHER))
                .wire()
                .to_vec()
        }
        "stream-record" => {
            let record = SignedStream::decode(&bytes()).expect("a stream record");
            SignedStream::sign(record.value().clone(), &key(STREAM))
                .wire()
                .to_vec()
        }
        "datagram" => Heartbeat::decode(&bytes())
            .expect("valid")
            .expect("known")
            .encode()
            .to_vec(),
        "group-header" => {
            let header = GroupHeader::decode(&mut Reader::new(&bytes())).expect("a header");
            let mut out = Vec::new();
            header.encode(&mut out);
            out
        }
        "item" => signed_item(bytes()).to_vec(),
        "share-link" => {
            return vector
                .value
                .parse::<ShareLink>()
                .expect("a share link")
                .to_string();
        }
        "peer" => {
            return vector
                .value
                .parse::<PeerAddress>()
                .expect("a peer")
                .to_string();
        }
        "slug" => return slug::slug_of(&vector.means, stream()),
        "full-slug" => return slug::full_slug(&vector.means, stream()),
        kind => panic!("no decoder for {kind}"),
    };
    to_hex(&encoded)
}

#[test]
fn every_golden_vector_decodes_and_encodes_again_byte_for_byte() {
    let _turn = turn();
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        std::fs::write(file(), render(&vectors())).expect("the file can be written");
    }
    let golden = golden();
    assert_eq!(golden.len(), vectors().len(), "vectors in the file");
    for (golden, ours) in golden.iter().zip(vectors()) {
        assert_eq!(*golden, ours, "the wire protocol has changed");
        assert_eq!(
            again(golden),
            golden.value,
            "{}: {}",
            golden.kind,
            golden.means
        );
    }
}

#[test]
fn there_is_a_vector_for_every_control_message() {
    let _turn = turn();
    let mut numbers: Vec<u8> = vectors()
        .iter()
        .filter(|vector| vector.kind == "control")
        .map(|vector| of_hex(&vector.value)[0])
        .collect();
    numbers.dedup();
    assert_eq!(numbers, (1..=22).collect::<Vec<u8>>());
}

#[test]
fn signatures_of_the_vectors_verify_for_their_purpose_only() {
    let _turn = turn();
    let signatures: Vec<Signature> = golden()
        .iter()
        .filter(|vector| vector.kind == "signature")
        .map(|vector| Signature(of_hex(&vector.value).try_into().expect("64 bytes")))
        .collect();
    let domains = [
        Domain::NodeRecord,
        Domain::StreamRecord,
        Domain::Frame,
        Domain::GroupEnd,
    ];
    for (at, domain) in domains.into_iter().enumerate() {
        for (other, signature) in signatures.iter().enumerate() {
            let verifies = key(PUBLISHER).public().verifies(domain, b"abc", signature);
            assert_eq!(verifies, at == other);
        }
    }
}

// Hostile bytes

/// Gives bytes to every decoder; none may panic.
fn decode_all(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(_)) = Message::decode(&mut buffer) {}
    let _ = SignedNode::decode(bytes);
    let _ = SignedStream::decode(bytes);
    let _ = Heartbeat::decode(bytes);
    let _ = GroupHeader::decode(&mut Reader::new(bytes));
    let _ = item_len(bytes);
    let _ = Item::decode(
        Bytes::copy_from_slice(bytes),
        stream(),
        &key(STREAM).public(),
    );
    let text = String::from_utf8_lossy(bytes);
    let _ = text.parse::<PeerAddress>();
    let _ = slug::slug_of(&text, stream());
}

fn framed(number: u64, body: &[u8]) -> BytesMut {
    let mut buffer = BytesMut::new();
    put_varint(&mut buffer, number);
    put_varint(&mut buffer, body.len() as u64);
    buffer.extend_from_slice(body);
    buffer
}

/// Decodes a message body as every type, and gives the most memory that one took.
fn peak_of_messages(body: &[u8]) -> usize {
    (0..24)
        .map(|number| {
            let mut buffer = framed(number, body);
            peak_of(|| Message::decode(&mut buffer)).1
        })
        .max()
        .unwrap_or(0)
}

/// A CBOR map {`key`: `head` `tail`…}, the tail repeated until the message is full.
fn body(key: u8, head: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut body = vec![0xa1, key];
    body.extend_from_slice(head);
    if !tail.is_empty() {
        while body.len() + tail.len() < MESSAGE_BYTES_MAX {
            body.extend_from_slice(tail);
        }
    }
    body
}

#[test]
fn lengths_that_a_message_only_declares_are_never_allocated() {
    let _turn = turn();
    // bytes, text, array and map of 2^32 - 1 and of 2^64 - 1 items.
    for major in [0x40u8, 0x60, 0x80, 0xa0] {
        for head in [[major | 26].as_slice(), &[major | 27]] {
            let length = if head[0] & 31 == 26 {
                vec![0xff; 4]
            } else {
                vec![0xff; 8]
            };
            let head = [head, &length].concat();
            for key in 0..6 {
                let body = body(key, &head, &[]);
                let peak = peak_of_messages(&body);
                assert!(peak < 16 * 1024, "{peak} bytes for {}", to_hex(&body));
                let envelope = [&[0x82][..], &head].concat();
                let (_, peak) = peak_of(|| SignedStream::decode(&envelope).is_ok());
                assert!(peak < 16 * 1024, "{peak} bytes for {}", to_hex(&envelope));
            }
        }
    }
}

#[test]
fn full_messages_of_the_smallest_items_take_little_memory() {
    let _turn = turn();
    let array = [0x9a, 0, 1, 0, 0];
    let endless = [0x9f];
    let referral = [&[0xa2, 0x00, 0x50][..], &[0; 16], &[0x01, 0x80]].concat();
    let id = [&[0x50][..], &[0; 16]].concat();
    let address = [0x46, 0, 0, 0, 0, 0, 0];
    let group = [0xa4, 0, 0, 1, 0, 2, 0, 3, 0];
    let tails: [&[u8]; 10] = [
        &[0x40],
        &[0x60],
        &[0x80],
        &[0x9f],
        &[0x81],
        &[0xa0],
        &referral,
        &id,
        &address,
        &group,
    ];
    for head in [
        array.as_slice(),
        &endless,
        &[0x82, 0x9f],
        &[0xa1, 0x00, 0x9f],
    ] {
        for tail in tails {
            // Key 23 is unknown to every message: skipping is bounded too.
            for key in [0, 1, 2, 4, 23] {
                let peak = peak_of_messages(&body(key, head, tail));
                assert!(
                    peak < DECODE_BYTES_MAX,
                    "{peak} bytes for {head:02x?} {tail:02x?}"
                );
            }
        }
    }
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let vectors: Vec<Vec<u8>> = vectors()
        .iter()
        .filter(|vector| !is_text(vector))
        .map(|vector| of_hex(&vector.value))
        .collect();
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6);
    (prop::sample::select(vectors), edits).prop_map(|(mut bytes, edits)| {
        for (at, value, edit) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            match edit {
                0 => bytes[at] = value,
                1 => bytes.truncate(at),
                2 => bytes.insert(at, value),
                _ => bytes[at] ^= 1 << (value & 7),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_decoder_panics_or_takes_much_memory_on_mutated_vectors(bytes in mutated()) {
        let _turn = turn();
        let ((), peak) = peak_of(|| decode_all(&bytes));
        prop_assert!(peak < DECODE_BYTES_MAX, "{} bytes", peak);
    }

    #[test]
    fn no_decoder_panics_or_takes_much_memory_on_random_bytes(
        bytes in prop::collection::vec(any::<u8>(), 0..RECORD_BYTES_MAX),
    ) {
        let _turn = turn();
        let ((), peak) = peak_of(|| decode_all(&bytes));
        prop_assert!(peak < DECODE_BYTES_MAX, "{} bytes", peak);
        let peak = peak_of_messages(&bytes);
        prop_assert!(peak < DECODE_BYTES_MAX, "{} bytes", peak);
    }
}
