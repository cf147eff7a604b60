//! Messages as a browser sends them, and as none does.

use proptest::prelude::*;

use super::*;
use crate::track::CodecConfig;

/// Constrained Baseline, 64×48: made by x264 for these tests.
const AVCC: &[u8] = &[
    0x01, 0x42, 0xc0, 0x0a, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x04, 0x7b, 0x01,
    0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00, 0x03, 0x03, 0xc0, 0xf1, 0x22, 0x64, 0x80, 0x01,
    0x00, 0x05, 0x68, 0xcb, 0x83, 0xcb, 0x20,
];
const IDR: &[u8] = &[0, 0, 0, 3, 0x65, 0x88, 0x84];
const REFERENCE: &[u8] = &[0, 0, 0, 3, 0x41, 0x9a, 0x02];

fn configured() -> PacketSource {
    let (mut source, mut out) = (PacketSource::new(), Vec::new());
    source
        .configure(1, "avc1.42c00a", AVCC, 0, &mut out)
        .unwrap();
    source.configure(2, "opus", &[], 2, &mut out).unwrap();
    assert_eq!(out.len(), 2);
    source
}

fn take(source: &mut PacketSource, bytes: &[u8]) -> Result<Vec<SourceEvent>, PacketError> {
    let mut out = Vec::new();
    source.message(bytes, &mut out).map(|()| out)
}

fn samples(source: &mut PacketSource, bytes: &[u8]) -> Vec<Sample> {
    let events = take(source, bytes).unwrap().into_iter();
    let sample = |event: SourceEvent| match event {
        SourceEvent::Sample(sample) => Some(sample),
        SourceEvent::Track(_) | SourceEvent::Promised { .. } | SourceEvent::End => None,
    };
    events
        .map(|event| sample(event).expect("nothing but samples"))
        .collect()
}

#[test]
fn pictures_keep_their_times_and_their_bytes_tell_keyframes() {
    let mut source = configured();
    for (n, (frame, keyframe)) in [(IDR, true), (REFERENCE, false)].into_iter().enumerate() {
        // The flag lies: it says the opposite.
        let bytes = message(1, !keyframe, n as i64 * 33_333, 33_333, frame);
        let [sample] = <[Sample; 1]>::try_from(samples(&mut source, &bytes)).unwrap();
        assert_eq!((sample.keyframe, &sample.data[..]), (keyframe, frame));
        assert_eq!((sample.dts, sample.cts), (n as i64 * 3_000, 0));
        assert_eq!(sample.duration, Some(3_000));
    }
}

#[test]
fn sound_counts_in_samples_of_48_khz_and_may_start_before_zero() {
    let mut source = configured();
    let bytes = message(2, true, -6_500, 20_000, &crate::opus::SILENCE);
    let [sample] = <[Sample; 1]>::try_from(samples(&mut source, &bytes)).unwrap();
    assert_eq!((sample.dts, sample.duration), (-312, Some(960)));
}

#[test]
fn opus_without_a_header_gets_one() {
    let (mut source, mut out) = (PacketSource::new(), Vec::new());
    source.configure(9, "opus", &[], 1, &mut out).unwrap();
    let [SourceEvent::Track(track)] = &out[..] else {
        panic!("a track expected, not {out:?}")
    };
    assert!(matches!(
        track.config,
        CodecConfig::Opus {
            channels: 1,
            sample_rate: 48_000,
            ..
        }
    ));
}

#[test]
fn opus_of_an_encoder_that_was_fed_with_44_1_khz_says_48() {
    let (mut source, mut out) = (PacketSource::new(), Vec::new());
    // As Chromium makes it of a file with 44.1 kHz.
    let head = b"OpusHead\x01\x01\x38\x01\x44\xac\x00\x00\x00\x00\x00";
    source.configure(2, "opus", head, 1, &mut out).unwrap();
    let [SourceEvent::Track(track)] = &out[..] else {
        panic!("a track expected, not {out:?}")
    };
    let CodecConfig::Opus { head, .. } = &track.config else {
        panic!("Opus expected, not {:?}", track.config)
    };
    let parsed = crate::opus::OpusHead::parse(head).unwrap();
    assert_eq!((parsed.input_rate, parsed.pre_skip), (48_000, 312));
}

#[test]
fn tracks_that_cannot_be_carried_are_refused_with_the_reason() {
    let (mut source, mut out) = (PacketSource::new(), Vec::new());
    let mut refused = |codec: &str, config: &[u8], channels| {
        source
            .configure(1, codec, config, channels, &mut out)
            .unwrap_err()
    };
    assert_eq!(
        refused("vp09.00.10.08", &[], 0),
        PacketError::UnsupportedCodec("vp09.00.10.08".into())
    );
    for (codec, config, channels) in [
        ("avc1.42c00a", &[][..], 0),
        ("avc1.42c00a", &AVCC[..9], 0),
        ("avc1.42c00a", &[1, 0x42, 0xc0, 0x0a, 0xff, 0xe0, 0], 0),
        ("opus", &[], 0),
        ("opus", b"OpusHead", 2),
        ("opus", &[0; MAX_CONFIG + 1], 2),
    ] {
        let error = refused(codec, config, channels);
        assert!(
            matches!(error, PacketError::Configuration { track: 1, .. }),
            "{error}"
        );
    }
    assert!(out.is_empty());
    let mut source = configured();
    for id in 3..=4 {
        source.configure(id, "opus", &[], 2, &mut out).unwrap();
    }
    assert_eq!(
        source.configure(5, "opus", &[], 2, &mut out),
        Err(PacketError::TooManyTracks)
    );
    source.configure(4, "opus", &[], 1, &mut out).unwrap();
}

#[test]
fn messages_that_are_none_are_told_apart_from_broken_frames() {
    let mut source = configured();
    let mut refused = |bytes: &[u8]| take(&mut source, bytes).unwrap_err();
    assert_eq!(refused(&[]), PacketError::Truncated(0));
    assert_eq!(refused(&[1; HEADER]), PacketError::Truncated(HEADER));
    assert_eq!(
        refused(&message(7, true, 0, 0, IDR)),
        PacketError::UnknownTrack(7)
    );
    assert_eq!(
        refused(&message(1, true, i64::MAX, 0, IDR)),
        PacketError::Time(i64::MAX)
    );
    let long = vec![0; MAX_FRAME + 1];
    assert_eq!(
        refused(&message(1, true, 0, 0, &long)),
        PacketError::TooLong(MAX_FRAME + 1)
    );
    let broken = refused(&message(1, true, 0, 0, &[0, 0, 0, 9, 0x65]));
    assert!(matches!(broken, PacketError::Broken { track: 1, .. }) && !broken.is_fatal());
}

#[test]
fn new_parameter_sets_within_a_picture_are_a_new_track() {
    let mut source = configured();
    let frame = [&[0, 0, 0, 5, 0x68, 0xcb, 0x83, 0xc9, 0x20][..], IDR].concat();
    let events = take(&mut source, &message(1, true, 0, 0, &frame)).unwrap();
    assert!(matches!(
        &events[..],
        [SourceEvent::Track(_), SourceEvent::Sample(_)]
    ));
}

proptest! {
    #[test]
    fn no_message_makes_it_panic_or_leaves_the_next_one_out(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        track in 0_u8..4,
        cut in 0_usize..24,
    ) {
        let mut source = configured();
        let _ = take(&mut source, &bytes);
        let framed = message(track, true, 5, 5, &bytes);
        let _ = take(&mut source, &framed);
        let _ = take(&mut source, &framed[..cut.min(framed.len())]);
        let _ = source.configure(track, "avc1.640028", &bytes, 0, &mut Vec::new());
        let _ = source.configure(track, "opus", &bytes, 2, &mut Vec::new());
        let mut fresh = configured();
        let _ = take(&mut fresh, &framed);
        prop_assert!(take(&mut fresh, &message(2, true, 0, 0, &crate::opus::SILENCE)).is_ok());
    }

    #[test]
    fn every_time_that_is_taken_comes_out_in_order(
        mut times in proptest::collection::vec(-MAX_PTS_US..=MAX_PTS_US, 1..20),
    ) {
        let mut source = configured();
        times.sort_unstable();
        let mut last = i64::MIN;
        for pts in times {
            let got = samples(&mut source, &message(1, true, pts, u32::MAX, IDR));
            prop_assert!(got[0].dts >= last && got[0].duration.is_some());
            last = got[0].dts;
        }
    }
}
