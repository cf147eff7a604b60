//! Transport streams of a real ffmpeg go in, and ours go out to it: the same decoded
//! pictures and sound, the same time between them.

mod clips;

use std::fs;
use std::path::Path;

use astral_media::catalog::Catalog;
use astral_media::fmp4::mux::{fragment, init_segment};
use astral_media::frame::Frame;
use astral_media::segmenter::{Options, Segmented, Segmenter, Start, Wall};
use astral_media::source::{Sample, SourceEvent};
use astral_media::ts::mux::TsMuxer;
use astral_media::ts::{AUDIO_TRACK, Counts, TsDemuxer, VIDEO_TRACK};
use bytes::BytesMut;
use clips::{Clips, Packet, decoded, ffmpeg, run};

/// Demuxes in pieces of odd sizes.
fn demux(bytes: &[u8]) -> (Vec<SourceEvent>, Counts) {
    let mut events = Vec::new();
    let mut demuxer = TsDemuxer::new();
    let mut rest = bytes;
    for size in [1, 7, 1013, 13, 65_537, 3, 1316].into_iter().cycle() {
        let (piece, tail) = rest.split_at(size.min(rest.len()));
        demuxer
            .push(piece, &mut events)
            .expect("a clip of ffmpeg's");
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    demuxer.finish(&mut events).expect("a clip of ffmpeg's");
    (events, demuxer.counts())
}

/// What a stream of these events carries.
fn name(events: Vec<SourceEvent>) -> (Catalog, Vec<Frame>) {
    let start = Start {
        epoch: 1,
        group: 0,
        time_ns: 0,
    };
    let mut segmenter = Segmenter::new(start, Options::default());
    let (mut catalog, mut frames) = (None, Vec::new());
    for event in events {
        let wall = Wall { unix_ms: 0 };
        for item in segmenter.push(wall, event).expect("a usual source") {
            match item {
                Segmented::Catalog(new) => catalog = Some(new),
                Segmented::Frame(frame) => frames.push(frame),
                Segmented::GroupEnd { .. } => {}
            }
        }
    }
    let catalog = catalog.expect("an epoch");
    assert_eq!(catalog.epoch, 1, "one epoch is enough");
    (catalog, frames)
}

fn ts(catalog: &Catalog, frames: &[Frame]) -> BytesMut {
    let mut muxer = TsMuxer::new();
    muxer.catalog(catalog).expect("codecs that TS carries");
    let mut out = BytesMut::new();
    for frame in frames {
        muxer.frame(frame, &mut out).expect("a frame of ffmpeg's");
    }
    out
}

fn fmp4(catalog: &Catalog, frames: &[Frame]) -> BytesMut {
    let mut out = BytesMut::from(&init_segment(catalog)[..]);
    for frame in frames {
        let track = catalog.track(frame.track).expect("its track");
        out.extend_from_slice(&fragment(track, frame).expect("a frame of ffmpeg's"));
    }
    out
}

fn hashes(packets: &[Packet]) -> Vec<&str> {
    packets.iter().map(|packet| &packet.hash[..]).collect()
}

/// How much later the sound begins than the picture, milliseconds.
fn offset_ms(video: &[Packet], audio: &[Packet]) -> f64 {
    (audio[0].pts - video[0].pts) as f64 / 1000.0
}

/// Sends a clip through, and lets ffmpeg decode what was sent and what came.
fn check(clips: &Clips, clip: &Path) {
    let (events, counts) = demux(&fs::read(clip).expect("the clip"));
    assert_eq!(counts, Counts::default());
    let (catalog, frames) = name(events);
    let sent = ["v:0", "a:0"].map(|stream| decoded(clip, stream));
    for (kind, bytes) in [
        ("ts", ts(&catalog, &frames)),
        ("mp4", fmp4(&catalog, &frames)),
    ] {
        let path = clips.path(&format!("came.{kind}"));
        fs::write(&path, &bytes).expect("room for the result");
        let came = ["v:0", "a:0"].map(|stream| decoded(&path, stream));
        assert!(sent[0].len() > 50, "{}", sent[0].len());
        assert_eq!(hashes(&sent[0]), hashes(&came[0]), "pictures in {kind}");
        // Sound from before the first picture is left out, and a decoder that begins
        // later hears its first frame differently.
        let (sound, all) = (hashes(&came[1]), hashes(&sent[1]));
        assert!(
            sound.len() + 8 > all.len(),
            "{} of {}",
            sound.len(),
            all.len()
        );
        assert!(all.ends_with(&sound[4..]), "sound in {kind}");
        let late = |packets: &[Packet]| packets[packets.len() - sound.len() + 4].pts;
        let (before, after) = (
            late(&sent[1]) - sent[0][0].pts,
            late(&came[1]) - came[0][0].pts,
        );
        assert!(
            (before - after).abs() < 1_000,
            "{kind}: {before} and {after} µs"
        );
        assert!(offset_ms(&came[0], &came[1]).abs() < 60.0);
    }
}

fn clip(clips: &Clips, options: &str) -> std::path::PathBuf {
    let options: Vec<_> = options.split_whitespace().collect();
    clips.make("clip.ts", 3, &options)
}

#[test]
fn h264_and_aac_with_b_frames() {
    let clips = Clips::new();
    check(&clips, &clip(&clips, "-bf 2 -g 30"));
}

#[test]
fn h265_and_opus() {
    let clips = Clips::new();
    let codecs = "-c:v libx265 -x265-params log-level=none -g 30 -c:a libopus";
    check(&clips, &clip(&clips, codecs));
}

#[test]
fn stamps_that_wrap_in_the_clip() {
    let clips = Clips::new();
    let clip = clip(&clips, "-bf 2 -g 30 -output_ts_offset 95441.9");
    let (events, _) = demux(&fs::read(&clip).expect("the clip"));
    let mut last = [i64::MIN; 3];
    for sample in samples(&events) {
        let before = std::mem::replace(&mut last[sample.track as usize], sample.dts);
        assert!(sample.dts > before);
    }
    assert!(last[VIDEO_TRACK as usize] > 1 << 33, "it does wrap");
    // ffmpeg's own reader makes a jump of it; ours does not.
    let (catalog, frames) = name(events);
    let path = clips.path("came.ts");
    fs::write(&path, ts(&catalog, &frames)).expect("room for the result");
    assert_eq!(decoded(&path, "v:0").len(), 90);
}

fn samples(events: &[SourceEvent]) -> Vec<&Sample> {
    let samples = events.iter().filter_map(|event| match event {
        SourceEvent::Sample(sample) => Some(sample),
        SourceEvent::Track(_) | SourceEvent::Promised { .. } | SourceEvent::End => None,
    });
    samples.collect()
}

#[test]
fn a_start_in_the_middle_of_a_packet_costs_what_is_before_the_next_keyframe() {
    let clips = Clips::new();
    let clip = fs::read(clip(&clips, "-g 15 -b:v 1M -maxrate 1M -bufsize 500k")).expect("the clip");
    let all = demux(&clip).0;
    let (events, counts) = demux(&clip[100_037..]);
    let (all, tail) = (samples(&all), samples(&events));
    assert_eq!(counts.gaps, 0);
    for track in [VIDEO_TRACK, AUDIO_TRACK] {
        let of = |samples: &[&Sample]| -> Vec<_> {
            let of_track = samples.iter().filter(|sample| sample.track == track);
            of_track.map(|sample| sample.data.clone()).collect()
        };
        let (all, tail) = (of(&all), of(&tail));
        assert!(tail.len() > 20 && all.ends_with(&tail), "track {track}");
    }
    let first = tail.iter().find(|sample| sample.track == VIDEO_TRACK);
    assert!(first.is_some_and(|first| first.keyframe));
}

#[test]
fn lost_packets_are_noticed_and_nothing_damaged_comes_out() {
    let clips = Clips::new();
    let clip = fs::read(clip(&clips, "-g 5")).expect("the clip");
    let packets = clip.chunks(188).enumerate();
    let kept: Vec<u8> = packets
        .filter(|(n, _)| n % 97 != 96)
        .flat_map(|(_, packet)| packet.iter().copied())
        .collect();
    let all = demux(&clip).0;
    let all: std::collections::HashSet<_> = samples(&all)
        .iter()
        .map(|sample| sample.data.clone())
        .collect();
    let (events, counts) = demux(&kept);
    let came = samples(&events);
    assert!(counts.gaps > 5 && counts.dropped > 0, "{counts:?}");
    assert!(came.len() > 50, "{}", came.len());
    assert!(came.iter().all(|sample| all.contains(&sample.data)));
}

#[test]
fn ffmpeg_reads_ours_without_a_complaint() {
    let clips = Clips::new();
    let clip = clip(&clips, "-bf 2 -g 30");
    let (catalog, frames) = name(demux(&fs::read(&clip).expect("the clip")).0);
    let path = clips.path("came.ts");
    fs::write(&path, ts(&catalog, &frames)).expect("room for the result");
    let mut command = ffmpeg();
    command.args(["-v", "warning", "-i"]).arg(&path);
    run(command.args(["-f", "null", "-"]));
}

#[test]
fn latm_is_refused_with_words() {
    let clips = Clips::new();
    let clip = clip(&clips, "-mpegts_flags latm");
    let mut demuxer = TsDemuxer::new();
    let bytes = fs::read(&clip).expect("the clip");
    let error = demuxer.push(&bytes, &mut Vec::new()).unwrap_err();
    assert!(error.to_string().contains("AAC in LATM"), "{error}");
}
