use std::collections::VecDeque;

use astral_media::frame::Frame;
use astral_media::track::{CodecConfig, Track};
use astral_proto::ids::SecretKey;
use astral_proto::limits::CHUNK_BYTES;
use astral_proto::wire::media::chunk_count;
use proptest::prelude::*;
use tokio::time::{advance, timeout};

use super::*;

const VIDEO: u8 = 1;
const AUDIO: u8 = 2;

/// A configuration record of ffmpeg's.
const AVCC: &[u8] = &[
    0x01, 0x42, 0xc0, 0x0a, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x04, 0x7b, 0x01,
    0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x22, 0x64, 0x80, 0x01,
    0x00, 0x05, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];

struct Source {
    id: StreamId,
    key: SecretKey,
}

impl Source {
    fn new() -> Self {
        let key = SecretKey::from_seed([5; 32]);
        let id = StreamId::of(&key.public());
        Self { id, key }
    }

    fn store(&self) -> Arc<StreamStore> {
        StreamStore::new(self.id, self.key.public())
    }

    /// A store that has the catalog of epoch 1.
    fn started(&self) -> Arc<StreamStore> {
        let store = self.store();
        self.push_catalog(&store, 1, 1);
        store
    }

    fn push_catalog(&self, store: &StreamStore, epoch: u32, version: u32) {
        let catalog = catalog(epoch, version);
        let (header, payload) = self.catalog_frame(&catalog);
        assert!(store.begin_frame(header).is_ok());
        store
            .push_chunk(0, version.into(), 0, 0, payload)
            .expect("a good catalog");
    }

    fn catalog_frame(&self, catalog: &Catalog) -> (Signed<FrameHeader>, Bytes) {
        let payload = catalog.encode().unwrap();
        let mut frame = frame(0, catalog.version.into(), 0, 0, payload.clone());
        frame.epoch = catalog.epoch;
        (self.sign(&frame), payload)
    }

    fn sign(&self, frame: &Frame) -> Signed<FrameHeader> {
        let header = header_of(frame, FrameHeader::digest(&frame.payload));
        Signed::<FrameHeader>::sign(self.id, &self.key, header)
    }

    fn end(&self, epoch: u32, track: u8, group: u64, frames: u32) -> Signed<GroupEnd> {
        let end = GroupEnd {
            track,
            epoch,
            group,
            frames,
        };
        Signed::<GroupEnd>::sign(self.id, &self.key, end)
    }

    fn push(&self, store: &StreamStore, frame: &Frame) -> Result<Admit, StoreError> {
        let admit = store.begin_frame(self.sign(frame))?;
        for (index, chunk) in chunks(frame).into_iter().enumerate() {
            store.push_chunk(frame.track, frame.group, frame.index, index as u32, chunk)?;
        }
        Ok(admit)
    }
}

fn catalog(epoch: u32, version: u32) -> Catalog {
    let video = CodecConfig::H264 {
        avcc: Bytes::from_static(AVCC),
        width: 1280,
        height: 720,
    };
    let audio = CodecConfig::Aac {
        asc: Bytes::from_static(&[0x11, 0x90]),
        sample_rate: 48_000,
        channels: 2,
    };
    let track = |id, timescale, config| Track {
        id,
        timescale,
        config,
    };
    Catalog {
        version,
        epoch,
        first_group: 0,
        first_sequence: 0,
        target_duration_ms: None,
        part_target_ms: 200,
        timeline_start_ms: 0,
        wall_clock_start_ms: 0,
        bitrate_bps: None,
        tracks: vec![track(VIDEO, 1000, video), track(AUDIO, 1000, audio)],
    }
}

/// A frame of epoch 1; groups are a second long.
fn frame(track: u8, group: u64, index: u32, order: u32, payload: Bytes) -> Frame {
    Frame {
        track,
        epoch: 1,
        group,
        index,
        order,
        dts: group as i64 * 1000 + i64::from(order) * 10,
        cts: 0,
        duration: 10,
        keyframe: index == 0,
        discardable: false,
        no_keyframe: false,
        payload,
    }
}

fn small(track: u8, group: u64, index: u32, order: u32) -> Frame {
    let text = format!("{track}/{group}/{index}");
    frame(track, group, index, order, text.into_bytes().into())
}

fn chunks(frame: &Frame) -> Vec<Bytes> {
    let len = frame.payload.len();
    (0..chunk_count(len))
        .map(|index| frame.payload.slice(chunk_range(len, index)))
        .collect()
}

async fn soon<T>(future: impl Future<Output = T>) -> Option<T> {
    timeout(Duration::from_millis(1), future).await.ok()
}

async fn header_index(cursor: &mut GroupCursor) -> Option<u32> {
    match soon(cursor.next()).await {
        Some(Piece::Header { index, .. }) => Some(index),
        _ => None,
    }
}

async fn live_frames(reader: &mut LiveReader) -> Vec<(u8, u64, u32)> {
    let mut names = Vec::new();
    while let Some(event) = soon(reader.next()).await {
        if let LiveEvent::Frame(frame) = event {
            names.push((frame.track, frame.group, frame.index));
        }
    }
    names
}

#[tokio::test(start_paused = true)]
async fn chunk_reaches_a_cursor_before_its_frame_is_complete() {
    let source = Source::new();
    let store = source.started();
    let frame = frame(VIDEO, 3, 0, 0, vec![7; CHUNK_BYTES + 5].into());
    let signed = source.sign(&frame);
    let admit = store.begin_frame(signed.clone());
    assert_eq!(admit, Ok(Admit::Wanted { next_chunk: 0 }));
    let mut cursor = store.groups(VIDEO)[0].cursor(0, 0);
    assert_eq!(soon(cursor.next()).await, None);

    let chunks = chunks(&frame);
    store.push_chunk(VIDEO, 3, 0, 0, chunks[0].clone()).unwrap();
    assert_eq!(header_index(&mut cursor).await, Some(0));
    let Some(Piece::Chunk { bytes, last: false }) = soon(cursor.next()).await else {
        panic!("the first chunk")
    };
    assert_eq!(bytes.as_ptr(), chunks[0].as_ptr(), "shared, not copied");
    assert_eq!(soon(cursor.next()).await, None);

    let again = store.begin_frame(signed.clone());
    assert_eq!(again, Ok(Admit::Wanted { next_chunk: 1 }));
    store.push_chunk(VIDEO, 3, 0, 1, chunks[1].clone()).unwrap();
    assert_eq!(store.begin_frame(signed), Ok(Admit::Have));
    assert!(matches!(
        soon(cursor.next()).await,
        Some(Piece::Chunk { last: true, .. })
    ));
    store.end_group(source.end(1, VIDEO, 3, 1)).unwrap();
    assert!(matches!(soon(cursor.next()).await, Some(Piece::End { .. })));
}

#[tokio::test(start_paused = true)]
async fn cursor_can_begin_within_a_frame_and_leave_one_out() {
    let source = Source::new();
    let store = source.started();
    let big = frame(VIDEO, 3, 0, 0, vec![7; 3 * CHUNK_BYTES].into());
    source.push(&store, &big).unwrap();
    source.push(&store, &small(VIDEO, 3, 1, 1)).unwrap();
    source.push(&store, &small(VIDEO, 3, 2, 2)).unwrap();
    let mut cursor = store.group(VIDEO, 3).unwrap().cursor(0, 2);
    assert_eq!(header_index(&mut cursor).await, Some(0));
    assert!(matches!(
        soon(cursor.next()).await,
        Some(Piece::Chunk { last: true, .. })
    ));
    assert_eq!(header_index(&mut cursor).await, Some(1));
    cursor.skip_frame();
    assert_eq!(header_index(&mut cursor).await, Some(2));
}

#[tokio::test(start_paused = true)]
async fn cursor_waits_half_a_second_for_a_missing_frame() {
    let source = Source::new();
    let store = source.started();
    source.push(&store, &small(VIDEO, 3, 0, 0)).unwrap();
    source.push(&store, &small(VIDEO, 3, 2, 2)).unwrap();
    let mut cursor = store.group(VIDEO, 3).unwrap().cursor(0, 0);
    assert_eq!(header_index(&mut cursor).await, Some(0));
    soon(cursor.next()).await;
    assert_eq!(header_index(&mut cursor).await, None);
    advance(HOLE_PATIENCE).await;
    assert_eq!(header_index(&mut cursor).await, Some(2));
    soon(cursor.next()).await;
    store.end_group(source.end(1, VIDEO, 3, 4)).unwrap();
    advance(HOLE_PATIENCE).await;
    assert_eq!(soon(cursor.next()).await, None);
    advance(REST_PATIENCE).await;
    assert!(matches!(soon(cursor.next()).await, Some(Piece::End { .. })));
    advance(LOST_AFTER).await;
    assert_eq!(store.stats().lost, 2, "frames 1 and 3");
}

#[tokio::test(start_paused = true)]
async fn cursor_gives_up_on_a_frame_that_stops_half_way() {
    let source = Source::new();
    let store = source.started();
    let big = frame(VIDEO, 3, 0, 0, vec![7; 3 * CHUNK_BYTES].into());
    store.begin_frame(source.sign(&big)).unwrap();
    store
        .push_chunk(VIDEO, 3, 0, 0, chunks(&big)[0].clone())
        .unwrap();
    let mut cursor = store.group(VIDEO, 3).unwrap().cursor(0, 0);
    soon(cursor.next()).await;
    soon(cursor.next()).await;
    source.push(&store, &small(VIDEO, 4, 0, 0)).unwrap();
    advance(HOLE_PATIENCE).await;
    assert_eq!(soon(cursor.next()).await, None);
    advance(REST_PATIENCE).await;
    assert_eq!(soon(cursor.next()).await, Some(Piece::Gone));
    assert_eq!(cursor.position(), (0, 1));
    assert!(!cursor.group().is_gone());
}

#[test]
fn bad_chunk_is_refused_and_the_good_one_still_taken() {
    let source = Source::new();
    let store = source.started();
    let frame = small(VIDEO, 3, 0, 0);
    store.begin_frame(source.sign(&frame)).unwrap();
    let bad = store.push_chunk(VIDEO, 3, 0, 0, Bytes::from_static(b"nonsense"));
    assert!(matches!(bad, Err(StoreError::BadChunk { .. })));
    store.push_chunk(VIDEO, 3, 0, 0, frame.payload).unwrap();
    assert_eq!(store.stats().frames, 1);
}

#[test]
fn name_signed_twice_with_different_content_is_a_conflict() {
    let source = Source::new();
    let store = source.started();
    let is_conflict = |result| matches!(result, Err(StoreError::Conflict { .. }));
    source.push(&store, &small(VIDEO, 3, 0, 0)).unwrap();
    let other = frame(VIDEO, 3, 0, 0, Bytes::from_static(b"other"));
    assert!(is_conflict(source.push(&store, &other)));
    assert!(
        is_conflict(source.push(&store, &small(AUDIO, 3, 0, 0))),
        "two frames with one order"
    );
    store.end_group(source.end(1, VIDEO, 3, 1)).unwrap();
    store.end_group(source.end(1, VIDEO, 3, 1)).unwrap();
    assert!(is_conflict(source.push(&store, &small(VIDEO, 3, 1, 1))));
    let end = store.end_group(source.end(1, VIDEO, 3, 0));
    assert!(matches!(end, Err(StoreError::Conflict { .. })));
}

#[test]
fn header_written_differently_by_a_relay_is_not_the_publishers_conflict() {
    let source = Source::new();
    let store = source.started();
    let signed = source.sign(&small(VIDEO, 3, 0, 0));
    store.begin_frame(signed.clone()).unwrap();
    assert!(signed.wire[1] < 0x40, "the length takes one byte");
    let wire = [&[signed.wire[0], 0x40], &signed.wire[1..]].concat();
    let value = signed.value;
    let wire = wire.into();
    let again = store.begin_frame(Signed { value, wire });
    assert_eq!(again, Ok(Admit::Wanted { next_chunk: 0 }));
}

#[tokio::test(start_paused = true)]
async fn newer_epoch_counts_once_its_catalog_is_there() {
    let source = Source::new();
    let store = source.started();
    source.push(&store, &small(VIDEO, 3, 0, 0)).unwrap();
    let newer = Frame {
        epoch: 2,
        ..small(VIDEO, 4, 0, 0)
    };
    let admit = source.push(&store, &newer);
    assert_eq!(admit, Ok(Admit::Wanted { next_chunk: 0 }));
    assert_eq!(store.groups(VIDEO).len(), 1, "not shown yet");
    assert_eq!(store.newest().epoch, 1);
    let mut watch = store.watch();
    watch.borrow_and_update();

    source.push_catalog(&store, 2, 1);
    assert!(watch.has_changed().unwrap());
    assert_eq!(store.groups(VIDEO).len(), 2);
    let newest = store.newest();
    assert_eq!((newest.epoch, newest.group, newest.frames), (2, 4, 1));

    // The tail of the group that was open is completed, nothing else of epoch 1.
    assert!(source.push(&store, &small(VIDEO, 3, 1, 1)).is_ok());
    let is_old = |result| {
        matches!(
            result,
            Err(StoreError::OldEpoch {
                epoch: 1,
                current: 2
            })
        )
    };
    assert!(is_old(source.push(&store, &small(VIDEO, 5, 0, 0))));
    advance(LATE_EPOCH).await;
    assert!(is_old(source.push(&store, &small(VIDEO, 3, 2, 2))));
    let (replayed, _) = source.catalog_frame(&catalog(1, 2));
    assert!(is_old(store.begin_frame(replayed)));
}

#[test]
fn epoch_that_the_record_names_rules_out_older_ones() {
    let source = Source::new();
    let store = source.store();
    store.require_epoch(2);
    let (old, _) = source.catalog_frame(&catalog(1, 1));
    let is_old = |result| matches!(result, Err(StoreError::OldEpoch { .. }));
    assert!(is_old(store.begin_frame(old)));
    assert!(is_old(source.push(&store, &small(VIDEO, 3, 0, 0))));
}

#[test]
fn media_without_its_catalog_is_bounded() {
    let source = Source::new();
    let store = source.store();
    let mut missing = 0;
    for index in 0..100 {
        let big = frame(VIDEO, 3, index, index, vec![1; 128 * 1024].into());
        missing += usize::from(matches!(
            source.push(&store, &big),
            Err(StoreError::CatalogMissing { epoch: 1 })
        ));
    }
    assert!(missing > 30);
    assert!(store.stats().held <= PENDING_BYTES_MAX + 4096);
}

#[test]
fn bad_catalogs_are_refused() {
    let source = Source::new();
    let store = source.store();
    let push = |frame: &Frame| source.push(&store, frame);
    let is_bad = |result| matches!(result, Err(StoreError::BadCatalog(_)));
    assert!(is_bad(push(&frame(0, 1, 0, 0, Bytes::from_static(b"?")))));
    assert!(is_bad(push(&frame(0, 1, 0, 0, Bytes::new()))));
    let misnamed = catalog(1, 2).encode().unwrap();
    assert!(is_bad(push(&frame(0, 1, 0, 0, misnamed))));
    assert!(store.catalog().is_none());
    source.push_catalog(&store, 1, 1);
    assert_eq!(store.catalog().unwrap().version, 1);
    assert_eq!(store.groups(0).len(), 1);
    assert_eq!(
        source.push(&store, &small(3, 1, 0, 0)),
        Err(StoreError::UnknownTrack(3))
    );
}

#[tokio::test(start_paused = true)]
async fn ring_keeps_twelve_seconds_and_readers_of_older_groups_are_told() {
    let source = Source::new();
    let store = source.started();
    source.push(&store, &small(VIDEO, 0, 0, 0)).unwrap();
    let first = store.group(VIDEO, 0).unwrap();
    let mut cursor = first.cursor(0, 0);
    assert_eq!(header_index(&mut cursor).await, Some(0));
    for group in 1..=20 {
        source.push(&store, &small(VIDEO, group, 0, 0)).unwrap();
    }
    let kept: Vec<u64> = store
        .groups(VIDEO)
        .iter()
        .map(|group| group.group)
        .collect();
    assert_eq!(kept, (8..=20).collect::<Vec<_>>());
    assert_eq!(soon(cursor.next()).await, Some(Piece::Gone));
    assert_eq!(source.push(&store, &small(VIDEO, 7, 1, 1)), Ok(Admit::Old));
    assert!(store.push_chunk(VIDEO, 7, 1, 0, Bytes::new()).is_ok());
}

#[test]
fn seven_groups_are_kept_however_long_they_are() {
    let source = Source::new();
    let store = source.started();
    for group in 0..20 {
        let mut long = small(VIDEO, group, 0, 0);
        long.dts = group as i64 * 10_000;
        source.push(&store, &long).unwrap();
    }
    assert_eq!(store.groups(VIDEO).len(), GROUPS_KEPT);
}

#[test]
fn sixty_four_mebibytes_win() {
    let source = Source::new();
    let store = source.started();
    let payload = Bytes::from(vec![0; 4 << 20]);
    for group in 0..6 {
        for index in 0..4 {
            let big = frame(VIDEO, group, index, index, payload.clone());
            source.push(&store, &big).unwrap();
        }
        assert!(store.stats().held <= BYTES_MAX);
    }
    assert_eq!(store.groups(VIDEO).len(), 3);
    let mut refused = false;
    for index in 4..9 {
        let big = frame(VIDEO, 5, index, index, payload.clone());
        refused |= matches!(source.push(&store, &big), Err(StoreError::Limit { .. }));
    }
    assert!(refused, "one group alone is bounded too");
}

#[test]
fn a_million_headers_cost_bounded_memory() {
    let source = Source::new();
    let store = source.started();
    // One real signature; the store is told headers that were verified before.
    let real = source.sign(&frame(VIDEO, 0, 0, 0, vec![0; 512 * 1024].into()));
    let mut seed = 1u64;
    for _ in 0..1_000_000 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let mut value = real.value.clone();
        value.group = seed >> 56;
        value.index = (seed >> 40) as u32 & 0xfff;
        value.order = (seed >> 36) as u32 & 0xffff;
        value.track = 1 + (seed >> 33) as u8 % 2;
        let wire = Bytes::copy_from_slice(&real.wire);
        let _ = store.begin_frame(Signed { value, wire });
    }
    assert!(store.stats().held <= BYTES_MAX);
    let absurd = small(VIDEO, GROUP_NUMBER_MAX + 1, 0, 0);
    let limit = StoreError::Limit {
        what: "group number",
    };
    assert_eq!(source.push(&store, &absurd), Err(limit));
}

#[tokio::test(start_paused = true)]
async fn live_reader_starts_at_the_newest_keyframe_that_is_old_enough() {
    let source = Source::new();
    let store = source.started();
    for group in 0..5 {
        let mut first = small(VIDEO, group, 0, 0);
        first.no_keyframe = group == 2;
        source.push(&store, &first).unwrap();
        source.push(&store, &small(VIDEO, group, 1, 1)).unwrap();
        for (track, frames) in [(VIDEO, 2), (AUDIO, 0)] {
            store
                .end_group(source.end(1, track, group, frames))
                .unwrap();
        }
    }
    let first_of = async |start| {
        let mut reader = LiveReader::new(Arc::clone(&store), start);
        live_frames(&mut reader).await.first().map(|name| name.1)
    };
    assert_eq!(first_of(StartAt::Live { target_ms: 0 }).await, Some(4));
    assert_eq!(first_of(StartAt::Live { target_ms: 500 }).await, Some(3));
    assert_eq!(first_of(StartAt::Live { target_ms: 1_500 }).await, Some(1));
    assert_eq!(first_of(StartAt::Live { target_ms: 60_000 }).await, Some(0));
    assert_eq!(first_of(StartAt::FromMs(3_500)).await, Some(3));
    assert_eq!(first_of(StartAt::FromMs(-5)).await, Some(0));
}

#[tokio::test(start_paused = true)]
async fn live_reader_tells_of_catalog_state_and_what_is_lost() {
    let source = Source::new();
    let store = source.started();
    store.set_state(StreamState::Live);
    let mut reader = LiveReader::new(Arc::clone(&store), StartAt::Live { target_ms: 0 });
    let state = LiveEvent::State(StreamState::Live);
    assert_eq!(soon(reader.next()).await, Some(state));
    assert_eq!(soon(reader.next()).await, None);

    source.push(&store, &small(VIDEO, 3, 0, 0)).unwrap();
    source.push(&store, &small(VIDEO, 3, 3, 3)).unwrap();
    let catalog = LiveEvent::Catalog(store.catalog().unwrap());
    assert_eq!(soon(reader.next()).await, Some(catalog));
    assert_eq!(live_frames(&mut reader).await, [(VIDEO, 3, 0)]);
    advance(LIVE_PATIENCE).await;
    let lost = LiveEvent::Lost {
        track: VIDEO,
        group: 3,
        from: 1,
        count: 2,
    };
    assert_eq!(soon(reader.next()).await, Some(lost));
    assert_eq!(live_frames(&mut reader).await, [(VIDEO, 3, 3)]);

    store.set_state(StreamState::Paused);
    let state = LiveEvent::State(StreamState::Paused);
    assert_eq!(soon(reader.next()).await, Some(state));

    // A group is missing; a new epoch begins; the reader goes on.
    source.push(&store, &small(VIDEO, 5, 0, 0)).unwrap();
    assert_eq!(live_frames(&mut reader).await, []);
    advance(LIVE_PATIENCE).await;
    assert_eq!(live_frames(&mut reader).await, [(VIDEO, 5, 0)]);
    source.push_catalog(&store, 2, 1);
    let newer = Frame {
        epoch: 2,
        ..small(VIDEO, 6, 0, 0)
    };
    source.push(&store, &newer).unwrap();
    advance(LIVE_PATIENCE).await;
    let mut seen = Vec::new();
    while let Some(event) = soon(reader.next()).await {
        seen.push(event);
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(matches!(
        seen[0],
        LiveEvent::Lost {
            group: 5,
            count: 0,
            ..
        }
    ));
    assert_eq!(seen[1], LiveEvent::Catalog(store.catalog().unwrap()));
    assert_eq!(seen[2], LiveEvent::Frame(newer));
}

#[tokio::test(start_paused = true)]
async fn live_reader_that_was_too_slow_goes_on_at_the_newest_keyframe() {
    let source = Source::new();
    let store = source.started();
    source.push(&store, &small(VIDEO, 0, 0, 0)).unwrap();
    let mut reader = LiveReader::new(Arc::clone(&store), StartAt::Live { target_ms: 0 });
    assert_eq!(live_frames(&mut reader).await, [(VIDEO, 0, 0)]);
    for group in 1..=30 {
        source.push(&store, &small(VIDEO, group, 0, 0)).unwrap();
    }
    let lost = soon(reader.next()).await;
    assert!(
        matches!(lost, Some(LiveEvent::Lost { group: 0, .. })),
        "{lost:?}"
    );
    assert_eq!(live_frames(&mut reader).await, [(VIDEO, 30, 0)]);
}

#[test]
fn have_names_what_is_missing_and_everything_after() {
    let source = Source::new();
    let store = source.started();
    assert_eq!(store.open_groups(), Have::default());
    source.push(&store, &small(VIDEO, 3, 0, 0)).unwrap();
    store.end_group(source.end(1, VIDEO, 3, 1)).unwrap();
    let big = frame(VIDEO, 4, 0, 0, vec![0; 2 * CHUNK_BYTES].into());
    store.begin_frame(source.sign(&big)).unwrap();
    store
        .push_chunk(VIDEO, 4, 0, 0, chunks(&big)[0].clone())
        .unwrap();
    let have = store.open_groups();
    let names: Vec<_> = have
        .groups
        .iter()
        .map(|open| (open.track, open.group, open.frame, open.chunk))
        .collect();
    assert_eq!(
        names,
        [(AUDIO, 3, 0, 0), (VIDEO, 4, 0, 1), (AUDIO, 4, 0, 0)]
    );
    assert_eq!(have.from_group, Some(5));
}

#[test]
fn frame_of_ones_own_is_stored_without_a_copy() {
    let source = Source::new();
    let store = source.started();
    let own = frame(VIDEO, 3, 0, 0, vec![9; 3 * CHUNK_BYTES].into());
    store.push_frame(source.sign(&own), &own.payload).unwrap();
    let (_, payload) = store.group(VIDEO, 3).unwrap().whole(0).unwrap();
    assert_eq!(payload.as_ptr(), own.payload.as_ptr());
    assert_eq!(store.begin_frame(source.sign(&own)), Ok(Admit::Have));
}

/// One provider's uni stream of one track of one group, item by item.
#[derive(Clone)]
enum Op {
    Begin(Signed<FrameHeader>),
    Chunk(u8, u64, u32, u32, Bytes),
    End(Signed<GroupEnd>),
}

fn apply(store: &StreamStore, op: Op) {
    match op {
        Op::Begin(header) => drop(store.begin_frame(header).unwrap()),
        Op::Chunk(track, group, index, chunk, bytes) => {
            store.push_chunk(track, group, index, chunk, bytes).unwrap()
        }
        Op::End(end) => store.end_group(end).unwrap(),
    }
}

fn uni_stream(source: &Source, track: u8, group: u64, frames: &[Frame]) -> VecDeque<Op> {
    let mut ops = VecDeque::new();
    for frame in frames {
        ops.push_back(Op::Begin(source.sign(frame)));
        for (chunk, bytes) in chunks(frame).into_iter().enumerate() {
            ops.push_back(Op::Chunk(track, group, frame.index, chunk as u32, bytes));
        }
    }
    ops.push_back(Op::End(source.end(1, track, group, frames.len() as u32)));
    ops
}

async fn read_group(mut cursor: GroupCursor) -> Vec<(u32, Vec<u8>)> {
    let mut frames: Vec<(u32, Vec<u8>)> = Vec::new();
    loop {
        match cursor.next().await {
            Piece::Header { index, .. } => frames.push((index, Vec::new())),
            Piece::Chunk { bytes, .. } => {
                let (_, payload) = frames.last_mut().expect("a header comes first");
                payload.extend_from_slice(&bytes);
            }
            Piece::End { .. } => return frames,
            Piece::Gone => panic!("gone"),
        }
    }
}

async fn read_live(store: Arc<StreamStore>, count: usize) -> Vec<Frame> {
    let mut reader = LiveReader::new(store, StartAt::FromMs(0));
    let mut frames = Vec::new();
    while frames.len() < count {
        match reader.next().await {
            LiveEvent::Frame(frame) => frames.push(frame),
            LiveEvent::Lost { .. } => panic!("lost"),
            LiveEvent::Catalog(_) | LiveEvent::State(_) => {}
        }
    }
    frames
}

fn programme(sizes: &[Vec<(bool, usize)>]) -> Vec<Vec<Frame>> {
    let mut groups = Vec::new();
    for (group, sizes) in sizes.iter().enumerate() {
        let mut next = [0u32; 2];
        let mut frames = Vec::new();
        for (order, (is_video, size)) in sizes.iter().enumerate() {
            let is_video = *is_video || order == 0;
            let (track, next) = match is_video {
                true => (VIDEO, &mut next[0]),
                false => (AUDIO, &mut next[1]),
            };
            let payload = vec![(group * 31 + order) as u8; *size];
            frames.push(frame(
                track,
                group as u64,
                *next,
                order as u32,
                payload.into(),
            ));
            *next += 1;
        }
        groups.push(frames);
    }
    groups
}

async fn interleave(groups: Vec<Vec<Frame>>, choices: Vec<u16>) {
    let source = Source::new();
    let store = source.started();
    let mut streams = Vec::new();
    for _provider in 0..2 {
        for (group, frames) in groups.iter().enumerate() {
            for track in [VIDEO, AUDIO] {
                let of_track: Vec<Frame> = frames
                    .iter()
                    .filter(|frame| frame.track == track)
                    .cloned()
                    .collect();
                streams.push(uni_stream(&source, track, group as u64, &of_track));
            }
        }
    }
    // The groups are opened in order, so that readers can attach from the start.
    for stream in streams.iter_mut().take(groups.len() * 2) {
        apply(&store, stream.pop_front().expect("an end at least"));
    }
    let source_frames: Vec<Frame> = groups.concat();
    let live = tokio::spawn(read_live(Arc::clone(&store), source_frames.len()));
    let mut cursors = Vec::new();
    for track in [VIDEO, AUDIO] {
        for group in store.groups(track) {
            for _reader in 0..3 {
                let name = (track, group.group);
                cursors.push((name, tokio::spawn(read_group(group.cursor(0, 0)))));
            }
        }
    }
    let mut choices = choices.into_iter().cycle();
    while !streams.is_empty() {
        let at = usize::from(choices.next().unwrap_or(0)) % streams.len();
        match streams[at].pop_front() {
            Some(op) => apply(&store, op),
            None => drop(streams.swap_remove(at)),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(live.await.unwrap(), source_frames);
    for ((track, group), cursor) in cursors {
        let expected: Vec<(u32, Vec<u8>)> = source_frames
            .iter()
            .filter(|frame| (frame.track, frame.group) == (track, group))
            .map(|frame| (frame.index, frame.payload.to_vec()))
            .collect();
        assert_eq!(cursor.await.unwrap(), expected);
    }
    let stats = store.stats();
    assert_eq!((stats.frames, stats.lost), (source_frames.len() as u64, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_reader_gets_the_source_once_and_in_order_however_it_arrives(
        sizes in proptest::collection::vec(
            proptest::collection::vec((any::<bool>(), 0usize..50_000), 1..12), 1..6),
        choices in proptest::collection::vec(any::<u16>(), 1..400),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(interleave(programme(&sizes), choices));
    }
}

#[tokio::test(start_paused = true)]
async fn two_hundred_cursors_share_one_group() {
    let source = Source::new();
    let store = source.started();
    let frames: Vec<Frame> = (0..250)
        .map(|index| small(VIDEO, 3, index, index))
        .collect();
    source.push(&store, &frames[0]).unwrap();
    let group = store.group(VIDEO, 3).unwrap();
    let readers: Vec<_> = (0..200)
        .map(|_| tokio::spawn(read_group(group.cursor(0, 0))))
        .collect();
    for frame in &frames[1..] {
        source.push(&store, frame).unwrap();
        tokio::task::yield_now().await;
    }
    store.end_group(source.end(1, VIDEO, 3, 250)).unwrap();
    for reader in readers {
        assert_eq!(reader.await.unwrap().len(), 250);
    }
}

fn lacks(store: &StreamStore) -> Vec<(u8, u64, u32, u32)> {
    let holes = store.holes().into_iter();
    holes
        .map(|h| (h.track, h.group, h.first, h.count))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn holes_are_told_once_they_have_lasted_and_until_they_are_filled() {
    let source = Source::new();
    let store = source.started();
    for group in [3, 4] {
        source.push(&store, &small(AUDIO, group, 0, 9)).unwrap();
        store.end_group(source.end(1, AUDIO, group, 1)).unwrap();
    }
    for index in [0, 3, 4] {
        source.push(&store, &small(VIDEO, 3, index, index)).unwrap();
    }
    assert_eq!(lacks(&store), [], "frames 1 and 2 may be just behind");
    advance(HOLE_AFTER).await;
    assert_eq!(lacks(&store), [(VIDEO, 3, 1, 2)]);
    source.push(&store, &small(VIDEO, 3, 1, 1)).unwrap();
    assert_eq!(lacks(&store), [(VIDEO, 3, 2, 1)]);
    source.push(&store, &small(VIDEO, 3, 2, 2)).unwrap();
    assert_eq!(lacks(&store), [], "more of group 3 may come");
    source.push(&store, &small(VIDEO, 4, 0, 0)).unwrap();
    advance(HOLE_AFTER).await;
    assert_eq!(lacks(&store).len(), 1, "the rest of group 3, which is over");
    assert_eq!(lacks(&store)[0].2, 5);
    store.end_group(source.end(1, VIDEO, 3, 7)).unwrap();
    assert_eq!(lacks(&store), [(VIDEO, 3, 5, 2)]);
    source.push(&store, &small(VIDEO, 3, 5, 5)).unwrap();
    source.push(&store, &small(VIDEO, 3, 6, 6)).unwrap();
    assert_eq!(lacks(&store), []);
}

#[tokio::test(start_paused = true)]
async fn groups_of_which_nothing_came_are_holes_and_what_was_before_the_first_is_not() {
    let source = Source::new();
    let store = source.started();
    for track in [VIDEO, AUDIO] {
        for group in [5, 7] {
            let order = u32::from(track) - 1;
            source.push(&store, &small(track, group, 0, order)).unwrap();
            store.end_group(source.end(1, track, group, 1)).unwrap();
        }
    }
    advance(HOLE_AFTER).await;
    let all = astral_proto::limits::GROUP_FRAMES_MAX;
    assert_eq!(lacks(&store), [(VIDEO, 6, 0, all), (AUDIO, 6, 0, all)]);
    source.push(&store, &small(AUDIO, 6, 0, 1)).unwrap();
    store.end_group(source.end(1, AUDIO, 6, 1)).unwrap();
    assert_eq!(lacks(&store), [(VIDEO, 6, 0, all)]);
}

mod segments {
    use astral_media::hls::State;

    use super::*;

    const PER_GROUP: u32 = 10;

    fn picture(group: u64, index: u32) -> Frame {
        Frame {
            dts: group as i64 * 1_000 + i64::from(index) * 100,
            duration: 100,
            ..small(VIDEO, group, index, index)
        }
    }

    fn push_group(source: &Source, store: &StreamStore, group: u64, holes: &[u32]) {
        for index in (0..PER_GROUP).filter(|index| !holes.contains(index)) {
            source.push(store, &picture(group, index)).unwrap();
        }
        let end = source.end(1, VIDEO, group, PER_GROUP);
        store.end_group(end).unwrap();
    }

    fn shape(store: &StreamStore) -> Vec<(u64, State, usize)> {
        let listed = store.segments(VIDEO);
        listed
            .iter()
            .map(|segment| (segment.sequence, segment.state, segment.parts.len()))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn group_is_a_segment_and_its_frames_are_parts_of_it() {
        let source = Source::new();
        let store = source.started();
        for group in 0..2 {
            push_group(&source, &store, group, &[]);
        }
        for index in 0..5 {
            source.push(&store, &picture(2, index)).unwrap();
        }
        let whole = |number| (number, State::Whole, 5);
        assert_eq!(shape(&store), [whole(0), whole(1), (2, State::Open, 2)]);
        let listed = store.segments(VIDEO);
        assert_eq!((listed[0].micros, listed[1].wall_ms), (1_000_000, 1_000));
        let Fetched::Frames(_, frames) = store.fetch(VIDEO, 1, Some(4)) else {
            panic!("the last part of a whole segment");
        };
        let names: Vec<_> = frames.iter().map(|f| (f.group, f.index)).collect();
        assert_eq!(names, [(1, 8), (1, 9)]);
        assert!(matches!(store.fetch(VIDEO, 2, Some(2)), Fetched::NotYet));
        assert!(matches!(store.fetch(VIDEO, 3, Some(0)), Fetched::NotYet));
        for (sequence, part) in [(1, Some(5)), (2, Some(3)), (3, Some(1)), (4, None)] {
            let fetched = store.fetch(VIDEO, sequence, part);
            let fine = matches!(fetched, Fetched::Never);
            assert!(fine || sequence == 3, "{sequence} {part:?}: {fetched:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn hole_is_waited_for_then_a_gap_of_its_true_length_for_good() {
        let source = Source::new();
        let store = source.started();
        push_group(&source, &store, 0, &[]);
        push_group(&source, &store, 1, &[4]);
        push_group(&source, &store, 2, &[]);
        let first = (0, State::Whole, 5);
        assert_eq!(shape(&store), [first, (1, State::Open, 2)]);
        advance(HOLE_PATIENCE).await;
        let last = (2, State::Whole, 5);
        assert_eq!(shape(&store), [first, (1, State::Gap, 2), last]);
        assert_eq!(store.segments(VIDEO)[1].micros, 1_000_000);
        assert!(matches!(store.fetch(VIDEO, 1, None), Fetched::Never));
        // Who was told of a gap is not told otherwise; who asks for it gets it.
        source.push(&store, &picture(1, 4)).unwrap();
        assert_eq!(shape(&store), [first, (1, State::Gap, 2), last]);
        assert!(matches!(store.fetch(VIDEO, 1, None), Fetched::Frames(..)));
    }

    #[tokio::test(start_paused = true)]
    async fn list_begins_with_a_keyframe_and_counts_groups_that_never_came() {
        let source = Source::new();
        let store = source.started();
        push_group(&source, &store, 4, &[0, 1, 2]);
        push_group(&source, &store, 5, &[]);
        push_group(&source, &store, 8, &[]);
        advance(HOLE_PATIENCE).await;
        let gap = |number| (number, State::Gap, 0);
        let whole = |number| (number, State::Whole, 5);
        let listed = [whole(5), gap(6), gap(7), whole(8)];
        assert_eq!(shape(&store), listed);
        let lengths: Vec<_> = store.segments(VIDEO).iter().map(|s| s.micros).collect();
        assert_eq!(lengths, [1_000_000; 4]);
        push_group(&source, &store, 7, &[]);
        assert_eq!(shape(&store), listed);
    }
}
