//! Tags as encoders send them, and as none does.

use proptest::prelude::*;

use super::*;
use crate::track::CodecConfig;

/// Constrained Baseline, 64×48: made by x264 for these tests.
const AVCC: &[u8] = &[
    0x01, 0x42, 0xc0, 0x0a, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x04, 0x7b, 0x01,
    0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x22, 0x64, 0x80, 0x01,
    0x00, 0x05, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];
const ASC: &[u8] = &[0x11, 0x90, 0x56, 0xe5, 0x00];
/// An access unit of one slice: an IDR picture, a reference, and one that nobody needs.
const IDR: &[u8] = &[0, 0, 0, 3, 0x65, 0x88, 0x84];
const REFERENCE: &[u8] = &[0, 0, 0, 3, 0x41, 0x9a, 0x02];
const DISPOSABLE: &[u8] = &[0, 0, 0, 3, 0x01, 0x9a, 0x02];

fn joined(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn push(
    demuxer: &mut FlvDemuxer,
    kind: TrackKind,
    ms: u32,
    body: &[u8],
) -> Result<Vec<SourceEvent>, FlvError> {
    let mut out = Vec::new();
    demuxer.push(kind, ms, body, &mut out).map(|()| out)
}

fn configured() -> FlvDemuxer {
    let mut demuxer = FlvDemuxer::new();
    let video = joined(&[&[0x17, 0, 0, 0, 0], AVCC]);
    push(&mut demuxer, TrackKind::Video, 0, &video).unwrap();
    push(
        &mut demuxer,
        TrackKind::Audio,
        0,
        &joined(&[&[0xaf, 0], ASC]),
    )
    .unwrap();
    demuxer
}

fn sample(events: Vec<SourceEvent>) -> Sample {
    match <[SourceEvent; 1]>::try_from(events) {
        Ok([SourceEvent::Sample(sample)]) => sample,
        other => panic!("one sample expected, not {other:?}"),
    }
}

#[test]
fn both_forms_of_a_configuration_give_the_same_track() {
    let classic = joined(&[&[0x17, 0, 0, 0, 0], AVCC]);
    let enhanced = joined(&[&[0x90], b"avc1", AVCC]);
    let mod_ex = joined(&[&[0x97, 2, 1, 2, 3, 0x00], b"avc1", AVCC]);
    let tracks = [classic, enhanced, mod_ex]
        .map(|body| push(&mut FlvDemuxer::new(), TrackKind::Video, 0, &body).unwrap());
    let SourceEvent::Track(track) = &tracks[0][0] else {
        panic!("track expected");
    };
    assert_eq!((track.id, track.timescale), (VIDEO_TRACK, VIDEO_TIMESCALE));
    assert_eq!(tracks[0], tracks[1]);
    assert_eq!(tracks[0], tracks[2]);
}

#[test]
fn audio_tracks_tick_at_their_sample_rate() {
    for body in [joined(&[&[0xaf, 0], ASC]), joined(&[&[0x90], b"mp4a", ASC])] {
        let events = push(&mut FlvDemuxer::new(), TrackKind::Audio, 0, &body).unwrap();
        let config = CodecConfig::Aac {
            asc: Bytes::from_static(ASC),
            sample_rate: 48_000,
            channels: 2,
        };
        let expected = SourceTrack {
            id: AUDIO_TRACK,
            timescale: 48_000,
            config,
        };
        assert_eq!(events, [SourceEvent::Track(expected)]);
    }
}

#[test]
fn an_equal_configuration_is_no_event_and_another_one_is() {
    let mut demuxer = configured();
    let same = joined(&[&[0xaf, 0], ASC]);
    assert_eq!(push(&mut demuxer, TrackKind::Audio, 9, &same), Ok(vec![]));
    let other = [0xaf, 0, 0x12, 0x10];
    let events = push(&mut demuxer, TrackKind::Audio, 9, &other).unwrap();
    assert!(matches!(&events[..], [SourceEvent::Track(track)] if track.timescale == 44_100));
}

#[test]
fn pictures_carry_time_and_type() {
    let mut demuxer = configured();
    for (unit, keyframe, discardable) in [
        (IDR, true, false),
        (REFERENCE, false, false),
        (DISPOSABLE, false, true),
    ] {
        // The container's own key flag is not believed.
        let body = joined(&[&[0x27, 1, 0, 0, 66], unit]);
        let sample = sample(push(&mut demuxer, TrackKind::Video, 33, &body).unwrap());
        assert_eq!(
            (sample.keyframe, sample.discardable),
            (keyframe, discardable)
        );
        assert_eq!((sample.dts, sample.cts), (33 * 90, 66 * 90));
        assert_eq!(sample.data, unit);
    }
}

#[test]
fn composition_times_are_signed() {
    let body = joined(&[&[0x27, 1, 0xff, 0xff, 0xff], IDR]);
    let sample = sample(push(&mut configured(), TrackKind::Video, 0, &body).unwrap());
    assert_eq!(sample.cts, -90);
}

#[test]
fn enhanced_pictures_come_with_and_without_composition_time() {
    let with = joined(&[&[0x91], b"avc1", &[0, 0, 5], IDR]);
    let without = joined(&[&[0x93], b"avc1", IDR]);
    for (body, cts) in [(with, 450), (without, 0)] {
        let sample = sample(push(&mut configured(), TrackKind::Video, 0, &body).unwrap());
        assert_eq!((sample.cts, &sample.data[..]), (cts, IDR));
    }
}

#[test]
fn audio_stamps_are_rounded_to_samples() {
    let sample = sample(push(&mut configured(), TrackKind::Audio, 21, &[0xaf, 1, 9]).unwrap());
    assert_eq!((sample.dts, sample.track), (1008, AUDIO_TRACK));
}

#[test]
fn media_before_their_configuration_are_dropped() {
    let mut demuxer = FlvDemuxer::new();
    let video = joined(&[&[0x17, 1, 0, 0, 0], IDR]);
    assert_eq!(push(&mut demuxer, TrackKind::Video, 0, &video), Ok(vec![]));
    assert_eq!(
        push(&mut demuxer, TrackKind::Audio, 0, &[0xaf, 1, 9]),
        Ok(vec![])
    );
}

#[test]
fn another_parameter_set_within_a_picture_is_a_new_track() {
    let mut demuxer = configured();
    let (pps, changed) = (&AVCC[AVCC.len() - 5..], [0x68, 0xcb, 0x83, 0xc9, 0x20]);
    for (set, tracks) in [(pps, 0), (&changed, 1), (&changed, 0)] {
        let body = joined(&[&[0x17, 1, 0, 0, 0, 0, 0, 0, 5], set, IDR]);
        let mut events = push(&mut demuxer, TrackKind::Video, 0, &body).unwrap();
        assert!(matches!(events.pop(), Some(SourceEvent::Sample(sample)) if sample.data == IDR));
        assert_eq!(events.len(), tracks);
        let is_track = |event: &SourceEvent| matches!(event, SourceEvent::Track(_));
        assert!(events.iter().all(is_track));
    }
}

#[test]
fn parameter_sets_may_come_only_within_pictures() {
    let mut demuxer = FlvDemuxer::new();
    let config = joined(&[&[0x17, 0, 0, 0, 0], &AVCC[..5], &[0xe0, 0]]);
    assert_eq!(push(&mut demuxer, TrackKind::Video, 0, &config), Ok(vec![]));
    let picture = joined(&[&[0x17, 1, 0, 0, 0], IDR]);
    assert_eq!(
        push(&mut demuxer, TrackKind::Video, 0, &picture),
        Ok(vec![])
    );
    let sps = &AVCC[8..AVCC.len() - 8];
    let sets = joined(&[
        &[0, 0, 0, sps.len() as u8],
        sps,
        &[0, 0, 0, 5],
        &AVCC[AVCC.len() - 5..],
    ]);
    let picture = joined(&[&[0x17, 1, 0, 0, 0], &sets, IDR]);
    let events = push(&mut demuxer, TrackKind::Video, 0, &picture).unwrap();
    assert!(matches!(
        &events[..],
        [SourceEvent::Track(_), SourceEvent::Sample(_)]
    ));
}

#[test]
fn what_says_nothing_is_ignored() {
    let multichannel = joined(&[&[0x94], b"mp4a", &[1, 2, 3]]);
    for (kind, body) in [
        (TrackKind::Video, &[][..]),
        (TrackKind::Audio, &[]),
        (TrackKind::Video, &[0x17, 2, 0, 0, 0]),
        (TrackKind::Video, &[0x57, 0]),
        (TrackKind::Video, &[0xd4, 1, 2]),
        (TrackKind::Video, &[0x92, b'a', b'v', b'c', b'1']),
        (TrackKind::Audio, &multichannel),
        (TrackKind::Audio, &[0xaf, 0]),
        (TrackKind::Audio, &[0xaf, 1]),
    ] {
        assert_eq!(
            push(&mut configured(), kind, 0, body),
            Ok(vec![]),
            "{body:?}"
        );
    }
}

#[test]
fn other_codecs_are_named() {
    for (kind, body, name) in [
        (TrackKind::Video, &b"\x90vp09"[..], "VP9 video"),
        (TrackKind::Video, b"\x90vvc1", "H.266 video"),
        (TrackKind::Video, b"\x12\0", "Sorenson H.263 video"),
        (TrackKind::Audio, b"\x90fLaC", "FLAC audio"),
        (TrackKind::Audio, b"\x2f\0", "MP3 audio"),
    ] {
        let error = push(&mut FlvDemuxer::new(), kind, 0, body).unwrap_err();
        assert_eq!(error, FlvError::UnsupportedCodec(name.into()));
        assert!(error.is_fatal());
    }
}

/// Kind, FourCC, configuration and keyframe of a codec.
type Enhanced = (TrackKind, &'static [u8; 4], Vec<u8>, Vec<u8>);

/// The codecs that only the FourCC form has.
fn enhanced_codecs() -> [Enhanced; 3] {
    let hevc = crate::h265::tests::small().record().to_vec();
    let av1 = crate::av1::tests::RECORD.to_vec();
    let opus = b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0".to_vec();
    let idr = vec![0, 0, 0, 3, 19 << 1, 1, 0x80];
    // The sequence header, then a frame that shows a key frame.
    let key = [&av1[4..], &[0x32, 1, 0x10]].concat();
    [
        (TrackKind::Video, b"hvc1", hevc, idr),
        (TrackKind::Video, b"av01", av1, key),
        (TrackKind::Audio, b"Opus", opus, vec![0xfc, 1, 2]),
    ]
}

#[test]
fn codecs_of_the_enhanced_form_give_a_track_and_samples() {
    for (kind, fourcc, record, frame) in enhanced_codecs() {
        let mut demuxer = FlvDemuxer::new();
        let early = joined(&[&[0x93], fourcc, &frame]);
        assert_eq!(push(&mut demuxer, kind, 0, &early), Ok(vec![]));
        // A modifier of 24 bits of nanoseconds, as encoders of version 2 send it.
        let start = joined(&[&[0x97, 2, 0, 0, 7, 0x00], fourcc, &record]);
        let events = push(&mut demuxer, kind, 0, &start).unwrap();
        let [SourceEvent::Track(track)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(track.config.kind(), kind);
        assert!(!track.config.codec_string().is_empty());
        assert_eq!(push(&mut demuxer, kind, 5, &start), Ok(vec![]));
        let (body, cts) = match fourcc {
            b"hvc1" => (joined(&[&[0x91], fourcc, &[0, 0, 40], &frame]), 3600),
            _ => (joined(&[&[0x91], fourcc, &frame]), 0),
        };
        let sample = sample(push(&mut demuxer, kind, 1000, &body).unwrap());
        assert_eq!((sample.cts, sample.keyframe), (cts, true));
        assert_eq!(sample.dts, i64::from(track.timescale));
        assert_eq!(sample.data, frame);
        for ignored in [0x92, 0x94] {
            let body = joined(&[&[ignored], fourcc, &[1, 2, 3]]);
            assert_eq!(push(&mut demuxer, kind, 1000, &body), Ok(vec![]));
        }
    }
}

#[test]
fn h265_under_its_old_number_is_the_same_track() {
    let [(_, fourcc, record, _), ..] = enhanced_codecs();
    let bodies = [
        joined(&[&[0x90], fourcc, &record]),
        joined(&[&[0x1c, 0, 0, 0, 0], &record]),
    ];
    let [new, old] = bodies.map(|body| push(&mut FlvDemuxer::new(), TrackKind::Video, 0, &body));
    assert!(new.is_ok());
    assert_eq!(new, old);
}

#[test]
fn a_change_of_codec_is_a_new_track_and_frames_of_the_old_one_are_dropped() {
    let mut demuxer = configured();
    let [(_, fourcc, record, frame), ..] = enhanced_codecs();
    let start = joined(&[&[0x90], fourcc, &record]);
    let events = push(&mut demuxer, TrackKind::Video, 0, &start).unwrap();
    assert!(matches!(
        &events[..],
        [SourceEvent::Track(SourceTrack {
            config: CodecConfig::H265 { .. },
            id: VIDEO_TRACK,
            ..
        })]
    ));
    let old = joined(&[&[0x17, 1, 0, 0, 0], IDR]);
    assert_eq!(push(&mut demuxer, TrackKind::Video, 9, &old), Ok(vec![]));
    let new = joined(&[&[0x93], fourcc, &frame]);
    assert_eq!(
        push(&mut demuxer, TrackKind::Video, 9, &new).map(|out| out.len()),
        Ok(1)
    );
}

#[test]
fn of_several_tracks_the_first_is_taken() {
    let size = |body: &[u8]| (body.len() as u32).to_be_bytes()[1..].to_vec();
    let plain = joined(&[&[0x90], b"avc1", AVCC]);
    let one = joined(&[&[0x96, 0x00], b"avc1", &[0], AVCC]);
    let other = joined(&[&[0x96, 0x00], b"avc1", &[1], AVCC]);
    let many = joined(&[
        &[0x96, 0x10],
        b"avc1",
        &[1],
        &size(b"xx"),
        b"xx",
        &[0],
        &size(AVCC),
        AVCC,
    ]);
    let codecs = joined(&[
        &[0x96, 0x20],
        b"vp09",
        &[1],
        &size(b"x"),
        b"x",
        b"avc1",
        &[0],
        &size(AVCC),
        AVCC,
    ]);
    let video = |body: &[u8]| push(&mut FlvDemuxer::new(), TrackKind::Video, 0, body);
    let expected = video(&plain);
    assert_eq!(expected.as_ref().map(Vec::len), Ok(1));
    for body in [one, many, codecs] {
        assert_eq!(video(&body), expected);
    }
    assert_eq!(video(&other), Ok(vec![]));
    let sound = joined(&[&[0x95, 0x00], b"mp4a", &[0], ASC]);
    let events = push(&mut FlvDemuxer::new(), TrackKind::Audio, 0, &sound).unwrap();
    assert_eq!(events.len(), 1);
    let cut = joined(&[&[0x96, 0x10], b"avc1", &[0, 0, 0, 9, 1]]);
    assert_eq!(video(&cut), Err(FlvError::Truncated));
}

#[test]
fn a_broken_picture_costs_only_itself() {
    let mut demuxer = configured();
    let body = [0x17, 1, 0, 0, 0, 0, 0, 0, 9, 0x65];
    let error = push(&mut demuxer, TrackKind::Video, 0, &body).unwrap_err();
    assert!(!error.is_fatal());
    let body = joined(&[&[0x17, 1, 0, 0, 0], IDR]);
    assert_eq!(
        push(&mut demuxer, TrackKind::Video, 0, &body)
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn stamps_are_unwrapped_by_their_difference() {
    let mut demuxer = FlvDemuxer::new();
    let stamps = [u32::MAX - 9, 10, 5, 0x8000_0004];
    let unwrapped = stamps.map(|stamp| demuxer.unwrap(stamp));
    let wrap = 1 << 32;
    assert_eq!(
        unwrapped,
        [wrap - 10, wrap + 10, wrap + 5, wrap + 5 + 0x7fff_ffff]
    );
    // ffmpeg masks to 31 bits: a jump back, which the timeline takes as a new epoch.
    let mut demuxer = FlvDemuxer::new();
    assert!(demuxer.unwrap(2_147_483_619) - demuxer.unwrap(4) > 1_000_000);
}

#[test]
fn the_stamp_of_a_configuration_does_not_count() {
    let mut demuxer = configured();
    let config = joined(&[&[0x17, 0, 0, 0, 0], AVCC]);
    let sound = |demuxer: &mut FlvDemuxer, ms| {
        sample(push(demuxer, TrackKind::Audio, ms, &[0xaf, 1, 9]).unwrap()).dts / 48
    };
    let before = sound(&mut demuxer, 0x7fff_fff0);
    push(&mut demuxer, TrackKind::Video, 0, &config).unwrap();
    assert_eq!(sound(&mut demuxer, 0x8000_0010) - before, 0x20);
}

#[test]
fn only_the_first_promise_counts() {
    let (mut demuxer, mut out) = (FlvDemuxer::new(), Vec::new());
    let metadata = Metadata {
        video: true,
        ..Metadata::default()
    };
    demuxer.metadata(&Metadata::default(), &mut out);
    (0..31).for_each(|_| demuxer.metadata(&metadata, &mut out));
    let expected = SourceEvent::Promised {
        video: true,
        audio: false,
    };
    assert_eq!(out, [expected]);
}

fn file(tags: &[(u8, u32, &[u8])]) -> Vec<u8> {
    let mut bytes = b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec();
    for (kind, ms, body) in tags {
        let [t3, t2, t1, t0] = ms.to_be_bytes();
        bytes.push(*kind);
        bytes.extend(&(body.len() as u32).to_be_bytes()[1..]);
        bytes.extend([t2, t1, t0, t3, 0, 0, 0]);
        bytes.extend(*body);
        bytes.extend((body.len() as u32 + 11).to_be_bytes());
    }
    bytes
}

fn sample_file() -> Vec<u8> {
    let config = joined(&[&[0x17, 0, 0, 0, 0], AVCC]);
    let picture = joined(&[&[0x17, 1, 0, 0, 0], IDR]);
    let broken = [0x17, 1, 0, 0, 0, 0, 0, 0, 9, 0x65];
    file(&[
        (18, 0, &[1, 2, 3]),
        (9, 0, &config),
        (9, 0x0100_0001, &picture),
        (9, 0x0100_0002, &broken),
        (9, 0x0100_0021, &picture),
    ])
}

#[test]
fn a_file_gives_the_same_in_any_pieces() {
    let bytes = sample_file();
    let runs = [1, 7, bytes.len()].map(|piece| {
        let (mut file, mut out) = (FlvFile::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            file.push(piece, &mut out).unwrap();
        }
        file.finish(&mut out);
        out
    });
    assert_eq!(runs[0].len(), 4);
    assert!(matches!(&runs[0][1], SourceEvent::Sample(sample) if sample.dts == 0x0100_0001 * 90));
    assert_eq!(runs[0][3], SourceEvent::End);
    assert_eq!(runs[0], runs[1]);
    assert_eq!(runs[0], runs[2]);
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let tag = |bytes: &[u8]| FlvFile::new().push(bytes, &mut Vec::new());
    assert_eq!(tag(b"GIF8"), Err(FlvError::NotFlv));
    assert_eq!(
        tag(b"FLV\x01\x05\xff\0\0\x09\0\0\0\0"),
        Err(FlvError::NotFlv)
    );
    let mut bytes = file(&[]);
    bytes.extend([0x29, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(tag(&bytes), Err(FlvError::Encrypted));
    let mut bytes = file(&[]);
    bytes.extend([9, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(tag(&bytes), Err(FlvError::TagTooLong(0xff_ffff)));
}

#[test]
fn stamps_saturate_instead_of_overflowing() {
    assert_eq!(ticks(i64::MAX, 96_000), i64::MAX);
    assert_eq!(ticks(i64::MIN, 96_000), i64::MIN);
    assert_eq!(ticks(-1, 90_000), -90);
}

proptest! {
    #[test]
    fn any_tags_never_panic(
        tags in prop::collection::vec(
            (any::<bool>(), any::<u32>(), prop::collection::vec(any::<u8>(), 0..40)), 0..30),
        prefix in 0usize..12,
    ) {
        let mut demuxer = configured();
        let prefixes: [&[u8]; 12] = [
            &[], &[0x17, 1, 0, 0, 0, 0, 0, 0], &[0x17, 0, 0, 0, 0, 1], &[0x97], b"\x91avc1", &[0xaf],
            b"\x90hvc1\x01", b"\x93hvc1\0\0\0", b"\x90av01\x81", b"\x91av01", b"\x96", b"\x91Opus",
        ];
        for (video, ms, body) in tags {
            let kind = if video { TrackKind::Video } else { TrackKind::Audio };
            let _ = push(&mut demuxer, kind, ms, &joined(&[prefixes[prefix], &body]));
        }
    }

    #[test]
    fn changed_files_never_panic_and_hold_at_most_a_tag(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        piece in 1usize..100,
    ) {
        let mut bytes = sample_file();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let (mut file, mut out) = (FlvFile::new(), Vec::new());
        for piece in bytes.chunks(piece) {
            if file.push(piece, &mut out).is_err() {
                break;
            }
        }
    }
}
