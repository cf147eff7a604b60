//! What ffmpeg writes goes in and comes out again, packet by packet.

mod clips;

use std::fs::{self, File};
use std::path::Path;

use astral_media::catalog::Catalog;
use astral_media::file::Mp4File;
use astral_media::fmp4::Demuxer;
use astral_media::fmp4::mux::{fragment, init_segment};
use astral_media::frame::{Frame, pack_audio};
use astral_media::source::{Sample, SourceEvent, SourceTrack};
use astral_media::track::{Track, TrackKind};
use clips::{Clips, Packet, ffmpeg, packets, run};

/// How the time stamps of a variant are to be judged.
#[derive(Clone, Copy, PartialEq)]
enum Times {
    /// As ffmpeg reads them.
    AsInSource,
    /// Those of the source are wrong: sound is right at 1,024 ticks per frame, and pictures
    /// if they are evenly apart.
    Repaired,
}

/// Demuxes in pieces of odd sizes.
fn demux(bytes: &[u8]) -> Vec<SourceEvent> {
    let mut events = Vec::new();
    let mut demuxer = Demuxer::new();
    let mut rest = bytes;
    for size in [1, 7, 1013, 13, 65_537, 3, 4999].into_iter().cycle() {
        let (piece, tail) = rest.split_at(size.min(rest.len()));
        demuxer
            .push(piece, &mut events)
            .expect("a clip of ffmpeg's");
        rest = tail;
        if rest.is_empty() {
            break;
        }
    }
    demuxer.finish(&mut events).expect("a whole clip");
    events
}

fn read_file(path: &Path) -> Vec<SourceEvent> {
    let file = File::open(path).expect("the clip");
    let file = Mp4File::open(file).expect("a clip of ffmpeg's");
    file.collect::<Result<_, _>>().expect("a clip of ffmpeg's")
}

fn tracks(events: &[SourceEvent]) -> Vec<&SourceTrack> {
    let tracks = events.iter().filter_map(|event| match event {
        SourceEvent::Track(track) => Some(track),
        SourceEvent::Sample(_) | SourceEvent::Promised { .. } | SourceEvent::End => None,
    });
    tracks.collect()
}

fn samples(events: &[SourceEvent]) -> Vec<&Sample> {
    let samples = events.iter().filter_map(|event| match event {
        SourceEvent::Sample(sample) => Some(sample),
        SourceEvent::Track(_) | SourceEvent::Promised { .. } | SourceEvent::End => None,
    });
    samples.collect()
}

fn catalog(events: &[SourceEvent]) -> Catalog {
    let catalog = Catalog {
        version: 1,
        epoch: 1,
        first_group: 0,
        first_sequence: 0,
        target_duration_ms: None,
        part_target_ms: 200,
        timeline_start_ms: 0,
        wall_clock_start_ms: 0,
        bitrate_bps: None,
        tracks: tracks(events)
            .into_iter()
            .map(|track| Track {
                id: track.id as u8,
                timescale: track.timescale,
                config: track.config.clone(),
            })
            .collect(),
    };
    let bytes = catalog.encode().expect("a catalog of a clip");
    assert_eq!(Catalog::decode(&bytes).expect("our own bytes"), catalog);
    catalog
}

/// A name for each sample: one group, one second after the timeline's start.
fn frame(order: u32, sample: &Sample, track: &Track) -> Frame {
    let payload = match track.config.kind() {
        TrackKind::Video => sample.data.clone(),
        TrackKind::Audio => pack_audio(std::slice::from_ref(&sample.data)),
    };
    Frame {
        track: track.id,
        epoch: 1,
        group: 0,
        index: order,
        order,
        dts: sample.dts + i64::from(track.timescale),
        cts: sample.cts,
        duration: sample.duration.unwrap_or(0),
        keyframe: sample.keyframe,
        discardable: sample.discardable,
        no_keyframe: false,
        payload,
    }
}

fn mux(events: &[SourceEvent]) -> Vec<u8> {
    let catalog = catalog(events);
    let mut out = init_segment(&catalog).to_vec();
    for (order, sample) in samples(events).into_iter().enumerate() {
        let track = catalog.track(sample.track as u8).expect("its track");
        let frame = frame(order as u32, sample, track);
        out.extend(fragment(track, &frame).expect("a fragment"));
    }
    out
}

fn steps(packets: &[Packet]) -> Vec<i64> {
    let pairs = packets.windows(2);
    pairs.map(|pair| pair[1].dts - pair[0].dts).collect()
}

fn assert_same(name: &str, source: &Path, result: &Path, times: Times) {
    for stream in ["v:0", "a:0"] {
        let (source, result) = (packets(source, stream), packets(result, stream));
        let hashes = |packets: &[Packet]| -> Vec<_> {
            packets.iter().map(|packet| packet.hash.clone()).collect()
        };
        assert!(
            source.len() > 50,
            "{name} {stream}: {} packets",
            source.len()
        );
        assert_eq!(hashes(&source), hashes(&result), "{name} {stream}");
        let offsets = |packets: &[Packet]| -> Vec<_> {
            packets
                .iter()
                .map(|packet| packet.pts - packet.dts)
                .collect()
        };
        assert_eq!(offsets(&source), offsets(&result), "{name} {stream} cts");
        if stream == "a:0" && times == Times::Repaired {
            // With `empty_moov`, ffmpeg 5.1 writes the first frame too early, before the
            // first picture's decoding time: a true gap, and the only one.
            assert!(steps(&result)[0] >= 1024, "{name}");
            assert!(
                steps(&result)[1..].iter().all(|&step| step == 1024),
                "{name}"
            );
        } else if times == Times::Repaired {
            // The first one of a `moov` that is not empty may be too early.
            let steps = &steps(&result)[1..];
            assert!(
                steps.iter().all(|step| *step == steps[0]),
                "{name} {steps:?}"
            );
        } else {
            assert_eq!(steps(&source), steps(&result), "{name} {stream} dts");
        }
    }
}

/// Muxes events, compares with the clip they came from, and lets ffmpeg decode.
fn check(clips: &Clips, name: &str, clip: &Path, events: &[SourceEvent], times: Times) {
    assert_eq!(events.last(), Some(&SourceEvent::End), "{name}");
    let keyframes = samples(events);
    let video = tracks(events)[0].id;
    assert!(
        keyframes
            .iter()
            .find(|sample| sample.track == video)
            .is_some_and(|s| s.keyframe)
    );
    let result = clips.path(&format!("{name}-result.mp4"));
    fs::write(&result, mux(events)).expect("the result");
    assert_same(name, clip, &result, times);
    run(ffmpeg().arg("-i").arg(&result).args(["-f", "null", "-"]));
}

fn fragmented(name: &str, options: &[&str], times: Times) -> Vec<SourceEvent> {
    let clips = Clips::new();
    let clip = clips.make(&format!("{name}.mp4"), 3, options);
    let events = demux(&fs::read(&clip).expect("the clip"));
    check(&clips, name, &clip, &events, times);
    let from_file = read_file(&clip);
    check(&clips, &format!("{name}-file"), &clip, &from_file, times);
    assert_by_time(&from_file);
    assert_eq!(
        sorted(&events),
        sorted(&from_file),
        "{name}: stream and file"
    );
    events
}

fn sorted(events: &[SourceEvent]) -> Vec<Sample> {
    let mut samples: Vec<_> = samples(events).into_iter().cloned().collect();
    samples.sort_by_key(|sample| (sample.track, sample.dts));
    samples
}

fn assert_by_time(events: &[SourceEvent]) {
    let tracks = tracks(events);
    let times: Vec<_> = samples(events)
        .into_iter()
        .map(|sample| {
            let of_sample = |track: &&&SourceTrack| track.id == sample.track;
            let track = tracks.iter().find(of_sample).expect("its track");
            i128::from(sample.dts) * 1_000_000_000 / i128::from(track.timescale)
        })
        .collect();
    assert!(times.is_sorted());
}

/// First decoding and presentation time of each track.
fn starts(events: &[SourceEvent]) -> Vec<(i64, i64)> {
    let tracks = tracks(events).into_iter();
    tracks
        .filter_map(|track| {
            let samples = samples(events);
            let first = samples.iter().find(|sample| sample.track == track.id)?;
            Some((first.dts, first.dts + i64::from(first.cts)))
        })
        .collect()
}

#[test]
fn fragments_per_keyframe_with_absolute_offsets_and_b_frames() {
    let options = [
        "-bf",
        "3",
        "-g",
        "30",
        "-movflags",
        "+frag_keyframe+empty_moov",
    ];
    let events = fragmented("keyframe", &options, Times::AsInSource);
    assert!(samples(&events).iter().any(|sample| sample.discardable));
    assert!(samples(&events).iter().any(|sample| sample.cts != 0));
}

#[test]
fn one_keyframe_in_the_whole_clip() {
    let options = [
        "-g",
        "250",
        "-movflags",
        "+frag_keyframe+empty_moov+default_base_moof",
    ];
    let events = fragmented("long-gop", &options, Times::AsInSource);
    let video = tracks(&events)[0].id;
    let keyframes = samples(&events);
    let keyframes = keyframes.iter().filter(|s| s.track == video && s.keyframe);
    assert_eq!(keyframes.count(), 1);
}

#[test]
fn fragments_per_frame_get_their_sound_in_step() {
    let options = [
        "-bf",
        "2",
        "-movflags",
        "+frag_every_frame+empty_moov+default_base_moof",
    ];
    fragmented("every-frame", &options, Times::Repaired);
}

#[test]
fn first_samples_in_the_tables_of_moov_are_not_lost() {
    let options = ["-g", "30", "-movflags", "+frag_every_frame"];
    fragmented("tables-first", &options, Times::Repaired);
    let options = ["-bf", "3", "-g", "30", "-movflags", "+frag_keyframe"];
    fragmented("tables-gop", &options, Times::AsInSource);
}

#[test]
fn cmaf_with_one_track_per_fragment_and_negative_offsets() {
    let options = "-bf 3 -g 30 -movflags +cmaf+frag_keyframe -frag_duration 200000";
    let options: Vec<_> = options.split(' ').collect();
    let events = fragmented("cmaf", &options, Times::AsInSource);
    assert!(samples(&events).iter().any(|sample| sample.cts < 0));
}

#[test]
fn edit_lists_of_a_delayed_moov_move_the_start() {
    let options = [
        "-bf",
        "3",
        "-g",
        "30",
        "-movflags",
        "+delay_moov+frag_keyframe",
    ];
    let events = fragmented("delay-moov", &options, Times::AsInSource);
    assert_eq!(starts(&events), [(-1024, 0), (-1024, -1024)]);
}

#[test]
fn index_boxes_of_dash_are_passed_over() {
    let options = ["-g", "30", "-movflags", "+dash+global_sidx+frag_keyframe"];
    fragmented("dash", &options, Times::AsInSource);
}

#[test]
fn progressive_files_with_moov_last_and_first() {
    for (name, flags) in [("progressive", "+write_colr"), ("faststart", "+faststart")] {
        let clips = Clips::new();
        let options = ["-bf", "3", "-g", "30", "-movflags", flags];
        let clip = clips.make(&format!("{name}.mp4"), 4, &options);
        let events = read_file(&clip);
        check(&clips, name, &clip, &events, Times::AsInSource);
        assert_by_time(&events);
        assert_eq!(starts(&events), [(-1024, 0), (-1024, -1024)]);
    }
}

#[test]
fn a_short_file_with_moov_first_can_also_be_streamed() {
    let clips = Clips::new();
    let clip = clips.make("short.mp4", 2, &["-movflags", "+faststart"]);
    let events = demux(&fs::read(&clip).expect("the clip"));
    check(&clips, "short", &clip, &events, Times::AsInSource);
    assert_eq!(sorted(&events), sorted(&read_file(&clip)));
}

#[test]
fn other_codecs_and_encryption_are_refused_with_words() {
    let refusal = |name: &str, options: &[&str]| {
        let clips = Clips::new();
        let clip = clips.make(name, 1, options);
        let bytes = fs::read(&clip).expect("the clip");
        let mut demuxer = Demuxer::new();
        let result = demuxer.push(&bytes, &mut Vec::new());
        result
            .map_err(|error| error.to_string())
            .map(|()| demuxer.ignored().to_vec())
    };
    let flags = ["-movflags", "+frag_keyframe+empty_moov"];
    let error = refusal(
        "other.mp4",
        &[&flags[..], &["-an", "-c:v", "mpeg4"]].concat(),
    );
    assert!(error.unwrap_err().contains("not supported; send H.264"));
    let half = refusal("half.mp4", &[&flags[..], &["-c:v", "mpeg4"]].concat());
    assert!(half.unwrap_err().contains("not supported; send H.264"));
    let key = "00112233445566778899aabbccddeeff";
    let scheme = ["-encryption_scheme", "cenc-aes-ctr", "-encryption_key", key];
    let options = [&flags[..], &scheme, &["-encryption_kid", key]].concat();
    let error = refusal("secret.mp4", &options).unwrap_err();
    assert!(error.contains("encrypted (`encv`)"), "{error}");
    let silent = refusal(
        "silent.mp4",
        &[&flags[..], &["-c:a", "libmp3lame"]].concat(),
    );
    assert_eq!(silent.map(|ignored| ignored.len()), Ok(1));
}
