use bytes::Bytes;
use mp4_atom::{Encode, Mfhd, Tfdt, Traf, Trun, TrunEntry};

use super::*;
use crate::catalog::tests::sample as catalog;
use crate::fmp4::mux::init_segment;
use crate::h264;
use crate::source::Sample;

const SLICE: &[u8] = b"\0\0\0\x03\x65ab";

/// A `traf` of the video track (1) or the audio track (2).
fn traf(track_id: u32, tfdt: Option<u64>, runs: &[(i32, &[TrunEntry])]) -> Traf {
    let run = |&(data_offset, entries): &(i32, &[TrunEntry])| Trun {
        data_offset: Some(data_offset),
        samples: entries.to_vec().into(),
    };
    Traf {
        tfhd: mp4_atom::Tfhd {
            track_id,
            default_base_is_moof: true,
            ..Default::default()
        },
        tfdt: tfdt.map(|base_media_decode_time| Tfdt {
            base_media_decode_time,
        }),
        trun: runs.iter().map(run).collect(),
        ..Default::default()
    }
}

fn entry(size: usize, duration: u32) -> TrunEntry {
    TrunEntry {
        size: Some(size as u32),
        duration: Some(duration),
        flags: None,
        cts: Some(0),
    }
}

fn moof(traf: Vec<Traf>) -> Vec<u8> {
    let mfhd = Mfhd { sequence_number: 1 };
    let mut out = Vec::new();
    Moof { mfhd, traf }.encode(&mut out).unwrap();
    out
}

/// A `moof` whose data offsets count from the start of the `mdat` body that follows
/// after `header` bytes.
fn moof_before(header: usize, traf: impl Fn(i32) -> Vec<Traf>) -> Vec<u8> {
    let size = moof(traf(0)).len() + header;
    moof(traf(size as i32))
}

fn mdat(body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u32 + 8).to_be_bytes();
    [&size[..], b"mdat", body].concat()
}

fn demux(bytes: &[u8]) -> (Vec<SourceEvent>, Result<(), Fmp4Error>) {
    let mut events = Vec::new();
    let mut demuxer = Demuxer::new();
    let result = demuxer.push(bytes, &mut events);
    let result = result.and_then(|()| demuxer.finish(&mut events));
    (events, result)
}

fn samples(bytes: &[u8]) -> Vec<Sample> {
    let (events, result) = demux(bytes);
    result.unwrap();
    let samples = events.into_iter().filter_map(|event| match event {
        SourceEvent::Sample(sample) => Some(sample),
        SourceEvent::Track(_) | SourceEvent::Promised { .. } | SourceEvent::End => None,
    });
    samples.collect()
}

fn times(bytes: &[u8]) -> Vec<(u32, i64)> {
    let samples = samples(bytes).into_iter();
    samples.map(|sample| (sample.track, sample.dts)).collect()
}

fn stream(parts: &[&[u8]]) -> Vec<u8> {
    [&init_segment(&catalog())[..], &parts.concat()].concat()
}

#[test]
fn several_runs_out_of_order_and_fragments_without_time_follow_on() {
    let (one, two) = ([entry(7, 500), entry(7, 600)], [entry(7, 700)]);
    let first = moof_before(8, |at| {
        vec![traf(1, Some(90), &[(at + 7, &one), (at, &two)])]
    });
    let next = moof_before(8, |at| vec![traf(1, None, &[(at, &two)])]);
    let bytes = stream(&[&first, &mdat(&SLICE.repeat(3)), &next, &mdat(SLICE)]);
    let times = times(&bytes);
    assert_eq!(times, [(1, 1190), (1, 90), (1, 590), (1, 1890)]);
}

#[test]
fn sizes_of_64_bits_and_a_last_box_without_size_are_read() {
    let one = [entry(7, 500)];
    let run = |at| vec![traf(1, Some(0), &[(at, &one)])];
    let long = [&[0, 0, 0, 1][..], b"mdat", &23u64.to_be_bytes(), SLICE].concat();
    let endless = [&[0, 0, 0, 0][..], b"mdat", SLICE, b"rest"].concat();
    let (first, last) = (moof_before(16, run), moof_before(8, run));
    let bytes = stream(&[&first, &long, &last, &endless]);
    assert_eq!(samples(&bytes).len(), 2);
}

#[test]
fn bases_of_the_old_kind_count_from_the_fragment_and_then_go_on() {
    let one = [entry(7, 512)];
    let fragment = |at: i32| {
        let mut trafs = vec![
            traf(1, Some(0), &[(at, &one)]),
            traf(2, Some(0), &[(0, &one)]),
        ];
        trafs[0].tfhd.default_base_is_moof = false;
        trafs[1].tfhd.default_base_is_moof = false;
        trafs
    };
    let moof = moof_before(8, fragment);
    let bytes = stream(&[&moof, &mdat(&[SLICE, b"somesnd"].concat())]);
    let samples = samples(&bytes);
    assert_eq!(samples[0].data, SLICE);
    assert_eq!(samples[1].data, b"somesnd"[..]);
}

#[test]
fn sound_keeps_the_codecs_time_unless_the_container_is_off_by_more_than_a_frame() {
    let entries = [0, 1024, 1024, 3100, 1024].map(|duration| entry(1, duration));
    let moof = moof_before(8, |at| vec![traf(2, Some(100), &[(at, &entries)])]);
    let bytes = stream(&[&moof, &mdat(b"abcde")]);
    let dts: Vec<_> = times(&bytes).into_iter().map(|(_, dts)| dts).collect();
    assert_eq!(dts, [100, 1124, 2148, 3172, 5248]);
    assert!(
        samples(&bytes)
            .iter()
            .all(|sample| sample.duration == Some(1024))
    );
}

#[test]
fn a_moov_in_mid_stream_announces_what_changed_only() {
    let one = [entry(7, 512)];
    let moof = moof_before(8, |at| vec![traf(1, None, &[(at, &one)])]);
    let mut other = catalog();
    other.tracks[0].timescale = 90_000;
    let (same, other) = (init_segment(&catalog()), init_segment(&other));
    let media = [moof, mdat(SLICE)].concat();
    let (events, result) = demux(&stream(&[&media, &same, &media, &other, &media]));
    result.unwrap();
    let kinds: Vec<_> = events
        .iter()
        .map(|event| match event {
            SourceEvent::Track(track) => (track.id, i64::from(track.timescale)),
            SourceEvent::Sample(sample) => (0, sample.dts),
            SourceEvent::Promised { .. } | SourceEvent::End => (9, 9),
        })
        .collect();
    let start = [(1, 15_360), (2, 48_000), (0, 0), (0, 512)];
    assert_eq!(kinds[..4], start);
    assert_eq!(kinds[4..], [(1, 90_000), (0, 0), (9, 9)]);
}

#[test]
fn parameter_sets_in_the_stream_change_the_track_before_the_picture() {
    let sets = h264::tests::interlaced_sets();
    let unit: Vec<u8> = sets
        .iter()
        .flat_map(|set| [&(set.len() as u32).to_be_bytes()[..], set].concat())
        .chain(SLICE.iter().copied())
        .collect();
    let one = [entry(unit.len(), 512)];
    let moof = moof_before(8, |at| vec![traf(1, None, &[(at, &one)])]);
    let (events, result) = demux(&stream(&[&moof, &mdat(&unit), &moof, &mdat(&unit)]));
    result.unwrap();
    let [
        _,
        _,
        SourceEvent::Track(track),
        SourceEvent::Sample(sample),
        second,
        _,
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(track.config.codec_string(), "avc1.640028");
    assert_eq!(sample.data, Bytes::from_static(SLICE));
    assert!(matches!(second, SourceEvent::Sample(_)));
}

#[test]
fn samples_outside_the_coming_media_are_refused() {
    let one = [entry(7, 512)];
    for offset in [0, 70, 10_000] {
        let moof = moof(vec![traf(1, None, &[(offset, &one)])]);
        let (_, result) = demux(&stream(&[&moof, &mdat(SLICE)]));
        let error = result.unwrap_err().to_string();
        let words = ["not in a coming `mdat`", "the source ended"];
        assert!(words.iter().any(|words| error.contains(words)), "{error}");
    }
}

#[test]
fn refusals_say_which_box_and_where() {
    let error = |bytes: &[u8]| demux(bytes).1.unwrap_err().to_string();
    assert_eq!(
        error(b"\0\0\0\x09mdatx"),
        "box `mdat` at byte 0 comes before any `moov`"
    );
    assert_eq!(
        error(b"\0\0\0\x08free\0\x50\0\0moov"),
        "box `moov` at byte 8 has 5242872 bytes, the limit is 4194304"
    );
    assert_eq!(
        error(b"\0\0\0\x09moovx"),
        "box `moov` at byte 0: missing box: mvhd"
    );
    assert!(error(b"\0\0\0\x10\0\x01\x02\x03").contains("this is not MP4"));
    let large = [entry(8 * 1024 * 1024 + 1, 512)];
    let bytes = stream(&[&moof(vec![traf(1, None, &[(0, &large)])])]);
    assert_eq!(
        error(&bytes),
        "track 1 has a sample of 8388609 bytes, the limit is 8 MiB"
    );
    let many = Trun {
        data_offset: None,
        samples: mp4_atom::TrunSamples::Inherited {
            count: u32::MAX,
            first_flags: None,
        },
    };
    let mut fragment = traf(1, None, &[]);
    fragment.trun = vec![many];
    assert!(error(&stream(&[&moof(vec![fragment])])).contains("more than 20000 samples"));
}

#[test]
fn nothing_is_taken_after_an_error() {
    let mut demuxer = Demuxer::new();
    let mut events = Vec::new();
    assert!(demuxer.push(b"\0\0\0\x01", &mut events).is_ok());
    assert!(
        demuxer
            .push(b"mdat\0\0\0\0\0\0\0\x01", &mut events)
            .is_err()
    );
    let poisoned = demuxer.push(b"more", &mut events);
    assert!(matches!(poisoned, Err(Fmp4Error::Poisoned)));
    assert!(matches!(
        demuxer.finish(&mut events),
        Err(Fmp4Error::Poisoned)
    ));
}
