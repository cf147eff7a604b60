//! Scenarios of real encoders, and rules that hold for any sequence of events.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::timeline::{SECOND_NS, ticks_to_ns};
use crate::track::CodecConfig;

const START: Start = Start {
    epoch: 7,
    group: 100,
    time_ns: 5 * SECOND_NS,
};

fn video_track(width: u32) -> SourceEvent {
    SourceEvent::Track(SourceTrack {
        id: 1,
        timescale: 90_000,
        config: CodecConfig::H264 {
            avcc: Bytes::from_static(&[1]),
            width,
            height: 48,
        },
    })
}

fn audio_track(sample_rate: u32) -> SourceEvent {
    // AAC-LC, stereo; the rate's index is 3 or 4.
    let asc: &[u8] = match sample_rate {
        48_000 => &[0x11, 0x90],
        _ => &[0x12, 0x10],
    };
    SourceEvent::Track(SourceTrack {
        id: 2,
        timescale: sample_rate,
        config: CodecConfig::Aac {
            asc: Bytes::from_static(asc),
            sample_rate,
            channels: 2,
        },
    })
}

fn picture(ms: i64, keyframe: bool) -> SourceEvent {
    SourceEvent::Sample(Sample {
        track: 1,
        dts: ms * 90,
        cts: 0,
        duration: None,
        keyframe,
        discardable: false,
        data: Bytes::from_static(b"picture"),
    })
}

fn sound(dts: i64) -> SourceEvent {
    SourceEvent::Sample(Sample {
        track: 2,
        dts,
        cts: 0,
        duration: None,
        keyframe: true,
        discardable: false,
        data: Bytes::from_static(b"sound"),
    })
}

fn promise(video: bool, audio: bool) -> SourceEvent {
    SourceEvent::Promised { video, audio }
}

/// 25 pictures and 48,000 samples of sound per second, a keyframe every `gop_ms`.
fn programme(from_ms: i64, to_ms: i64, gop_ms: i64) -> Vec<SourceEvent> {
    let mut events = Vec::new();
    let first = (from_ms * 48 + 1023) / 1024;
    let mut sounds = (first..).map(|n| n * 1024).peekable();
    for ms in (from_ms..to_ms).step_by(40) {
        events.push(picture(ms, ms % gop_ms == 0));
        while let Some(dts) = sounds.next_if(|dts| *dts < (ms + 40) * 48) {
            events.push(sound(dts));
        }
    }
    events
}

fn both_tracks() -> Vec<SourceEvent> {
    vec![video_track(64), audio_track(48_000)]
}

struct Run {
    segmenter: Segmenter,
    out: Vec<Segmented>,
    now_ms: u64,
}

impl Run {
    fn new() -> Self {
        Self::of(Segmenter::new(START, Options::default()))
    }

    fn of(segmenter: Segmenter) -> Self {
        Self {
            segmenter,
            out: Vec::new(),
            now_ms: 1_000_000,
        }
    }

    fn push(&mut self, events: impl IntoIterator<Item = SourceEvent>) -> &mut Self {
        for event in events {
            let now = Wall {
                unix_ms: self.now_ms,
            };
            self.now_ms += 1;
            let out = self.segmenter.push(now, event).unwrap();
            self.out.extend(out);
        }
        self
    }

    fn finish(&mut self) -> &mut Self {
        self.out.extend(self.segmenter.finish());
        check_all(&self.out);
        self
    }

    fn catalogs(&self) -> Vec<&Catalog> {
        let catalogs = self.out.iter().filter_map(|item| match item {
            Segmented::Catalog(catalog) => Some(catalog),
            Segmented::Frame(_) | Segmented::GroupEnd { .. } => None,
        });
        catalogs.collect()
    }

    fn frames(&self, track: u8) -> Vec<&Frame> {
        let frames = self.out.iter().filter_map(|item| match item {
            Segmented::Frame(frame) => Some(frame),
            Segmented::Catalog(_) | Segmented::GroupEnd { .. } => None,
        });
        frames.filter(|frame| frame.track == track).collect()
    }

    /// Where each group of the video begins: epoch, group, milliseconds after the start.
    fn groups(&self) -> Vec<(u32, u64, i64)> {
        let frames = self.frames(VIDEO);
        let first = frames.iter().filter(|frame| frame.index == 0);
        first
            .map(|frame| (frame.epoch, frame.group, frame.dts / 90 - 5000))
            .collect()
    }
}

/// What must hold for any input.
fn check_all(out: &[Segmented]) {
    let mut ends = BTreeMap::new();
    let mut counts: BTreeMap<(u64, u8), u32> = BTreeMap::new();
    let mut orders: BTreeMap<u64, u32> = BTreeMap::new();
    let mut last_ns: BTreeMap<u8, i64> = BTreeMap::new();
    let mut catalog: Option<&Catalog> = None;
    let mut group = 0;
    for item in out {
        match item {
            Segmented::Catalog(new) => {
                check_catalog(catalog, new);
                catalog = Some(new);
            }
            Segmented::Frame(frame) => {
                let catalog = catalog.expect("a catalog comes before frames");
                let track = catalog.tracks.iter().find(|track| track.id == frame.track);
                let track = track.expect("the catalog names the frame's track");
                assert_eq!(frame.epoch, catalog.epoch);
                assert!(frame.group >= group.max(catalog.first_group));
                group = frame.group;
                let count = counts.entry((frame.group, frame.track)).or_default();
                assert_eq!(frame.index, *count);
                *count += 1;
                let order = orders.entry(frame.group).or_default();
                assert_eq!(frame.order, *order);
                *order += 1;
                assert!(!ends.contains_key(&(frame.group, frame.track)));
                let ns = ticks_to_ns(frame.dts, track.timescale).unwrap();
                let first_ms = match frame.track {
                    // It may go on from the epoch before.
                    AUDIO => catalog.timeline_start_ms - 1_000,
                    _ => catalog.timeline_start_ms,
                };
                assert!(ns / 1_000_000 >= first_ms);
                assert!(frame.duration > 0);
                let before = last_ns.insert(frame.track, ns);
                assert!(
                    before.is_none_or(|before| before < ns),
                    "dts do not increase"
                );
                let first = frame.track == VIDEO && frame.index == 0;
                assert_eq!(frame.no_keyframe, first && !frame.keyframe);
            }
            Segmented::GroupEnd {
                track,
                epoch,
                group,
                frames,
            } => {
                assert_eq!(*epoch, catalog.expect("a catalog comes first").epoch);
                assert_eq!(counts.get(&(*group, *track)).copied().unwrap_or(0), *frames);
                assert!(ends.insert((*group, *track), *frames).is_none());
            }
        }
    }
    for key in counts.keys() {
        assert!(ends.contains_key(key), "group {key:?} is not ended");
    }
}

fn check_catalog(before: Option<&Catalog>, new: &Catalog) {
    match before {
        Some(before) if before.epoch == new.epoch => {
            assert_eq!(new.version, before.version + 1);
            assert_eq!(new.first_group, before.first_group);
        }
        Some(before) => {
            assert_eq!((new.epoch, new.version), (before.epoch + 1, 0));
            assert!(new.first_group > before.first_group);
            assert!(new.timeline_start_ms >= before.timeline_start_ms);
        }
        None => assert_eq!(new.version, 0),
    }
    assert!(!new.tracks.is_empty());
}

#[test]
fn groups_start_at_keyframes_and_the_target_is_fixed_after_two() {
    let mut run = Run::new();
    run.push(both_tracks())
        .push(programme(0, 5000, 1000))
        .finish();
    assert_eq!(
        run.groups(),
        [
            (7, 100, 0),
            (7, 101, 1000),
            (7, 102, 2000),
            (7, 103, 3000),
            (7, 104, 4000)
        ]
    );
    let catalogs = run.catalogs();
    let first = catalogs[0];
    assert_eq!((first.version, first.epoch, first.first_group), (0, 7, 100));
    assert_eq!(
        (first.timeline_start_ms, first.wall_clock_start_ms),
        (5000, 1_000_002)
    );
    assert_eq!(first.target_duration_ms, None);
    assert_eq!(catalogs.len(), 2);
    assert_eq!(catalogs[1].target_duration_ms, Some(2000));
    assert!(
        catalogs[1]
            .bitrate_bps
            .is_some_and(|bps| (2_000..6_000).contains(&bps))
    );
}

#[test]
fn a_group_longer_than_half_of_the_longest_target_fixes_it_at_once() {
    let mut run = Run::new();
    run.push([video_track(64), promise(true, false)]);
    let frames = (0..=5_100).step_by(100);
    run.push(frames.map(|ms| picture(ms, ms == 0)));
    let catalogs = run.catalogs();
    assert_eq!(catalogs.len(), 2);
    assert_eq!(catalogs[1].target_duration_ms, Some(10_000));
    assert_eq!((catalogs[1].version, catalogs[1].epoch), (1, 7));
}

#[test]
fn a_keyframe_right_after_a_group_start_opens_no_group() {
    let mut run = Run::new();
    run.push([video_track(64), promise(true, false)]);
    run.push([0, 400, 499, 500, 999].map(|ms| picture(ms, true)));
    run.finish();
    assert_eq!(run.groups(), [(7, 100, 0), (7, 101, 500)]);
}

#[test]
fn a_group_without_keyframes_ends_at_the_target_duration() {
    let mut run = Run::new();
    run.push(both_tracks())
        .push(programme(0, 25_000, 100_000))
        .finish();
    let groups = run.groups();
    assert_eq!(groups.len(), 3);
    let first: Vec<bool> = run
        .frames(VIDEO)
        .iter()
        .filter(|frame| frame.index == 0)
        .map(|frame| frame.no_keyframe)
        .collect();
    assert_eq!(first, [false, true, true]);
}

#[test]
fn a_group_ends_before_16_mib() {
    let mut run = Run::new();
    run.push([video_track(64), promise(true, false)]);
    for n in 0..5 {
        let SourceEvent::Sample(mut sample) = picture(n * 40, n == 0) else {
            unreachable!();
        };
        sample.data = Bytes::from(vec![1; 8 << 20]);
        run.push([SourceEvent::Sample(sample)]);
    }
    run.finish();
    let counts: Vec<u64> = run.frames(VIDEO).iter().map(|frame| frame.group).collect();
    assert_eq!(counts, [100, 100, 101, 101, 102]);
}

#[test]
fn the_distance_of_sound_and_picture_is_kept() {
    // ffmpeg: the first sound at 0, the first picture at 21 ms.
    let mut run = Run::new();
    run.push(both_tracks()).push([sound(0), picture(21, true)]);
    run.push((1..10).map(|n| sound(n * 1024))).finish();
    assert_eq!(run.frames(VIDEO)[0].dts, 5 * 90_000);
    // The second sound begins at 21.33 ms, a third of a millisecond after the picture.
    let sound = run.frames(AUDIO)[0];
    assert_eq!(sound.dts, 5 * 48_000 + 1024 - 21 * 48);
}

#[test]
fn sound_is_bundled_to_40_ms_and_never_over_a_cut() {
    let mut run = Run::new();
    run.push(both_tracks())
        .push(programme(0, 3000, 1000))
        .finish();
    let sounds = run.frames(AUDIO);
    let long = sounds.iter().filter(|frame| frame.duration == 2048).count();
    assert!(long > sounds.len() - 4);
    assert!(
        sounds
            .iter()
            .all(|frame| matches!(frame.duration, 1024 | 2048))
    );
    let joined = sounds
        .windows(2)
        .all(|pair| pair[0].dts + i64::from(pair[0].duration) == pair[1].dts);
    assert!(joined, "bundles follow each other without a gap");
    let samples: u32 = sounds.iter().map(|frame| frame.duration).sum();
    assert_eq!(samples, 141 * 1024, "no sound is lost");
    // 47 frames of sound come before the first cut: the last one stands alone.
    let of_group = |group| sounds.iter().filter(move |frame| frame.group == group);
    assert_eq!(of_group(100).count(), 24);
    assert_eq!(
        of_group(100).next_back().map(|frame| frame.duration),
        Some(1024)
    );
}

#[test]
fn a_bundle_ends_at_a_gap() {
    let mut run = Run::new();
    run.push(both_tracks()).push([picture(0, true), sound(0)]);
    run.push([sound(6000), sound(7024)]).finish();
    let times: Vec<(i64, u32)> = run
        .frames(AUDIO)
        .iter()
        .map(|frame| (frame.dts - 240_000, frame.duration))
        .collect();
    assert_eq!(times, [(0, 1024), (6000, 2048)]);
}

#[test]
fn the_position_counts_gathered_sound() {
    let mut run = Run::new();
    run.push(both_tracks())
        .push([picture(0, true), sound(0), sound(1024), sound(2048)]);
    let position = run.segmenter.position().unwrap();
    assert_eq!(position.end_ns, 5 * SECOND_NS + 64_000_000);
    assert_eq!((position.epoch, position.group), (8, 101));
}

#[test]
fn an_absurd_duration_does_not_move_the_next_epoch() {
    let mut run = Run::new();
    run.push([video_track(64), promise(true, false)]);
    let SourceEvent::Sample(mut sample) = picture(0, true) else {
        unreachable!();
    };
    sample.duration = Some(u32::MAX);
    run.push([SourceEvent::Sample(sample)]).finish();
    let position = run.segmenter.position().unwrap();
    assert_eq!(position.end_ns, 6 * SECOND_NS);
}

#[test]
fn a_jump_among_held_samples_loses_nothing() {
    let mut run = Run::new();
    run.push([video_track(64)]);
    run.push(
        [(0, true), (40, false), (-5000, true), (-4960, false)].map(|(ms, key)| picture(ms, key)),
    );
    assert!(run.out.is_empty());
    run.push([audio_track(48_000)]).finish();
    let epochs: Vec<u32> = run.frames(VIDEO).iter().map(|frame| frame.epoch).collect();
    assert_eq!(epochs, [7, 7, 8, 8]);
}

#[test]
fn everything_before_the_first_keyframe_is_dropped() {
    let mut run = Run::new();
    run.push(both_tracks())
        .push(programme(40, 2000, 1000))
        .finish();
    assert_eq!(run.groups(), [(7, 100, 0)]);
    assert_eq!(run.frames(VIDEO).len(), 25);
    assert!(run.frames(AUDIO)[0].dts < 5 * 48_000 + 1024);
}

#[test]
fn sound_that_comes_before_its_picture_is_kept() {
    let mut run = Run::new();
    run.push(both_tracks())
        .push((0..50).map(|n| sound(n * 1024)));
    run.push([picture(0, true)]).finish();
    assert_eq!(run.frames(VIDEO)[0].order, 0);
    assert_eq!(run.frames(AUDIO)[0].dts, 5 * 48_000);
}

#[test]
fn sound_behind_its_picture_goes_on_over_a_new_picture_configuration() {
    let mut run = Run::new();
    run.push(both_tracks());
    // Sound is sent 200 ms after its picture: at 25 pictures a second, five of them.
    let late = |from: i64, to: i64| {
        (from..to).flat_map(|n| {
            let sounds = (n - 5) * 1920 / 1024..(n - 4) * 1920 / 1024;
            let sounds = sounds.filter(|s| *s >= 0).map(|s| sound(s * 1024));
            [picture(n * 40, n % 25 == 0)].into_iter().chain(sounds)
        })
    };
    run.push(late(0, 50));
    run.push([video_track(1)]).push(late(50, 80)).finish();
    let sounds = run.frames(AUDIO);
    assert_eq!(run.catalogs().last().unwrap().epoch, 8);
    let gaps = sounds.windows(2).filter(|pair| {
        let end = pair[0].dts + i64::from(pair[0].duration);
        end != pair[1].dts
    });
    assert_eq!(gaps.count(), 0);
    let first = sounds.iter().find(|frame| frame.epoch == 8).unwrap();
    let key = run
        .frames(VIDEO)
        .into_iter()
        .find(|f| f.epoch == 8)
        .unwrap();
    assert!(key.order == 0 && first.dts < 7 * 48_000 && first.dts > 6 * 48_000);
}

#[test]
fn a_second_track_is_waited_for() {
    // OBS: sound is configured first. ffmpeg: the picture. Neither makes a second epoch.
    for audio_first in [true, false] {
        let mut run = Run::new();
        let mut tracks = both_tracks();
        if audio_first {
            tracks.reverse();
        }
        let late = tracks.pop();
        run.push(tracks).push(programme(0, 200, 1000));
        assert!(run.out.is_empty());
        run.push(late).push(programme(200, 3000, 1000)).finish();
        let catalog = run.catalogs()[0];
        assert_eq!((catalog.epoch, catalog.tracks.len()), (7, 2));
        assert!(run.catalogs().iter().all(|catalog| catalog.epoch == 7));
    }
}

#[test]
fn a_picture_alone_waits_250_ms_or_as_promised() {
    let pictures = |to| (0..to).step_by(40).map(|ms| picture(ms, ms == 0));
    let mut run = Run::new();
    run.push([video_track(64)]).push(pictures(250));
    assert!(run.out.is_empty() && !run.segmenter.ready());
    run.push([picture(280, false)]);
    assert!(run.segmenter.ready());
    assert_eq!(run.frames(VIDEO).len(), 8);

    let mut run = Run::new();
    run.push([promise(true, true), video_track(64)])
        .push(pictures(1500));
    assert!(run.out.is_empty());

    let mut run = Run::new();
    run.push([promise(true, false), video_track(64)])
        .push(pictures(40));
    assert_eq!(run.frames(VIDEO).len(), 1);
}

#[test]
fn sound_alone_is_a_stream_after_1500_ms_and_is_cut_every_second() {
    let mut run = Run::new();
    run.push([audio_track(48_000)])
        .push((0..70).map(|n| sound(n * 1024)));
    assert!(!run.segmenter.ready());
    run.push((70..240).map(|n| sound(n * 1024))).finish();
    assert!(run.segmenter.ready());
    let sounds = run.frames(AUDIO);
    assert_eq!(sounds[0].dts, 5 * 48_000);
    assert_eq!(sounds.last().map(|frame| frame.group), Some(105));
    assert_eq!(run.catalogs()[1].target_duration_ms, Some(2005));

    let mut run = Run::new();
    run.push([promise(false, true), audio_track(48_000), sound(0)]);
    assert!(run.segmenter.ready());
}

#[test]
fn a_picture_that_comes_to_sound_starts_an_epoch_at_its_keyframe() {
    let mut run = Run::new();
    run.push([audio_track(48_000)])
        .push((0..100).map(|n| sound(n * 1024)));
    run.push([video_track(64), picture(2100, false)]);
    assert!(run.catalogs().iter().all(|catalog| catalog.epoch == 7));
    run.push(programme(3000, 4000, 1000)).finish();
    let last = run.catalogs().pop().unwrap().clone();
    assert_eq!((last.epoch, last.version, last.tracks.len()), (8, 0, 2));
}

#[test]
fn a_new_configuration_of_the_picture_starts_an_epoch_where_the_last_ended() {
    let mut run = Run::new();
    run.push(both_tracks()).push(programme(0, 2000, 1000));
    run.push([video_track(64)])
        .push(programme(2000, 3000, 1000));
    assert!(run.catalogs().iter().all(|catalog| catalog.epoch == 7));
    run.push([video_track(128)])
        .push(programme(3040, 5000, 1000))
        .finish();
    let groups = run.groups();
    assert_eq!(groups[2..], [(7, 102, 2000), (8, 103, 3008)]);
    let catalog = run.catalogs().pop().unwrap().clone();
    // Fixed once for the stream; the start is the end of the sound, 8 ms after the picture's.
    assert_eq!((catalog.epoch, catalog.version), (8, 0));
    assert_eq!(catalog.target_duration_ms, Some(2000));
    assert_eq!(catalog.timeline_start_ms, 8008);
}

#[test]
fn a_new_configuration_of_the_sound_waits_for_a_keyframe() {
    let mut run = Run::new();
    run.push(both_tracks()).push(programme(0, 2480, 1000));
    run.push([audio_track(44_100)])
        .push(programme(2480, 4000, 1000))
        .finish();
    assert_eq!(run.groups()[2..], [(7, 102, 2000), (8, 103, 3000)]);
    assert_eq!(run.frames(VIDEO).len(), 100, "no picture is lost");
    assert_eq!(run.catalogs().last().unwrap().tracks[1].timescale, 44_100);
}

#[test]
fn a_jump_in_time_starts_an_epoch_and_leaves_no_hole() {
    for jump_ms in [-1_500_000_000, 60_000] {
        let mut run = Run::new();
        run.push(both_tracks()).push(programme(0, 1000, 1000));
        let shifted = programme(1000, 2000, 1000).into_iter().map(|event| {
            let SourceEvent::Sample(mut sample) = event else {
                return event;
            };
            let per_ms = if sample.track == 1 { 90 } else { 48 };
            sample.dts += jump_ms * per_ms;
            SourceEvent::Sample(sample)
        });
        run.push(shifted).finish();
        assert_eq!(
            run.groups(),
            [(7, 100, 0), (8, 101, 1002)],
            "jump {jump_ms}"
        );
        assert_eq!(run.frames(VIDEO).len(), 50);
    }
}

/// The events, with the stamps of one track moved.
fn moved(events: Vec<SourceEvent>, track: u32, by_ms: i64) -> impl Iterator<Item = SourceEvent> {
    events.into_iter().map(move |event| {
        let SourceEvent::Sample(mut sample) = event else {
            return event;
        };
        if sample.track == track {
            sample.dts += by_ms * if track == 1 { 90 } else { 48 };
        }
        SourceEvent::Sample(sample)
    })
}

/// Longest silence between bundles, and how far the last sound ends from the last
/// picture, both in milliseconds.
fn sound_beside_picture(run: &Run) -> (i64, i64) {
    let sounds = run.frames(AUDIO);
    let gaps = sounds.windows(2).map(|pair| pair[1].dts - pair[0].dts);
    let last = sounds.last().map_or(0, |frame| frame.dts / 48);
    let picture = run.frames(VIDEO).last().map_or(0, |frame| frame.dts / 90);
    (gaps.max().unwrap_or(0) / 48, (last - picture).abs())
}

#[test]
fn sound_that_jumps_alone_does_not_stop_the_picture_and_comes_back_beside_it() {
    for by_ms in [-1_500_000_000, -15_000, 60_000, 1_500_000_000] {
        let mut run = Run::new();
        run.push(both_tracks()).push(programme(0, 3000, 1000));
        run.push(moved(programme(3000, 9000, 1000), 2, by_ms));
        run.finish();
        assert_eq!(run.catalogs().last().unwrap().epoch, 7, "{by_ms}");
        assert_eq!(run.frames(VIDEO).len(), 225);
        let (silence_ms, apart_ms) = sound_beside_picture(&run);
        assert!(
            (1_900..2_300).contains(&silence_ms),
            "{by_ms}: {silence_ms}"
        );
        assert!(apart_ms < 100, "{by_ms}: {apart_ms}");
    }
}

#[test]
fn tracks_of_different_clocks_are_put_together() {
    for by_ms in [-1_500_000_000, 1_500_000_000] {
        let mut run = Run::new();
        run.push(both_tracks());
        run.push(moved(programme(0, 6000, 1000), 2, by_ms)).finish();
        assert_eq!(run.frames(VIDEO).len(), 150, "{by_ms}");
        assert!(sound_beside_picture(&run).1 < 100, "{by_ms}");
        assert!(run.frames(AUDIO).len() > 80);
    }
}

#[test]
fn a_picture_that_jumps_alone_goes_on_in_a_new_epoch_with_its_sound() {
    for by_ms in [-1_500_000_000, 60_000] {
        let mut run = Run::new();
        run.push(both_tracks()).push(programme(0, 2000, 1000));
        run.push(moved(programme(2000, 8000, 1000), 1, by_ms));
        run.finish();
        assert_eq!(run.frames(VIDEO).len(), 200, "{by_ms}");
        assert_eq!(run.catalogs().last().unwrap().epoch, 8);
        assert!(sound_beside_picture(&run).1 < 100, "{by_ms}");
    }
}

#[test]
fn a_film_that_runs_backwards_is_shown_frame_by_frame() {
    let mut run = Run::new();
    run.push([video_track(64), promise(true, false)]);
    let backwards = (0..500).map(|n| picture(1_000_000 - n * 40, n % 25 == 0));
    run.push(backwards).finish();
    // The last pictures of an epoch's clock wait for a keyframe.
    assert!(run.frames(VIDEO).len() > 250, "{}", run.frames(VIDEO).len());
}

#[test]
fn stamps_of_chance_are_refused_with_words_after_a_while() {
    let mut segmenter = Segmenter::new(START, Options::default());
    let now = Wall { unix_ms: 0 };
    segmenter.push(now, video_track(64)).unwrap();
    segmenter.push(now, promise(true, false)).unwrap();
    let refused = (0..1_000).find_map(|n| {
        let ms = if n % 2 == 0 { 0 } else { 100_000 };
        segmenter.push(now, picture(ms, true)).err()
    });
    assert_eq!(refused, Some(SegmentError::Restless));
}

#[test]
fn pictures_of_any_rate_keep_their_times() {
    let mut run = Run::new();
    run.push([video_track(64), promise(true, false)]);
    let times = [0, 16, 33, 500, 501, 3_000, 9_900, 9_933];
    run.push(times.map(|ms| picture(ms, ms == 0))).finish();
    let came: Vec<_> = run
        .frames(VIDEO)
        .iter()
        .map(|f| f.dts / 90 - 5000)
        .collect();
    assert_eq!(came, times);
    assert!(run.catalogs().iter().all(|catalog| catalog.epoch == 7));
}

#[test]
fn the_next_connection_goes_on_where_this_one_ended() {
    let mut run = Run::new();
    run.push(both_tracks())
        .push(programme(0, 1000, 1000))
        .finish();
    let position = run.segmenter.position().unwrap();
    assert_eq!((position.epoch, position.group), (8, 101));
    let mut next = Run::of(Segmenter::new(position.into(), Options::default()));
    next.push(both_tracks())
        .push(programme(0, 1000, 1000))
        .finish();
    let mut all = run.out;
    all.extend(next.out);
    check_all(&all);
    assert_eq!(position.end_ns, 6 * SECOND_NS + 2_666_666);
}

#[test]
fn a_waiting_segmenter_names_nothing_until_it_is_begun() {
    let mut run = Run::of(Segmenter::waiting(Options::default()));
    run.push(both_tracks());
    assert!(!run.segmenter.ready());
    run.push(programme(0, 200, 1000));
    assert!(run.segmenter.ready() && run.out.is_empty());
    assert_eq!(run.segmenter.position(), None);
    let held = run.segmenter.begin(START).unwrap();
    assert_eq!(run.segmenter.begin(START), Ok(vec![]));
    run.out.extend(held);
    run.finish();
    assert_eq!(run.frames(VIDEO).len(), 5);
}

#[test]
fn a_waiting_segmenter_holds_only_so_much() {
    let mut run = Run::of(Segmenter::waiting(Options::default()));
    run.push(both_tracks()).push([picture(0, true)]);
    let now = Wall { unix_ms: 0 };
    let result = (1..5000).find_map(|n| run.segmenter.push(now, sound(n * 1024)).err());
    assert_eq!(result, Some(SegmentError::HeldTooMuch));
}

#[test]
fn the_end_ends_groups_once_and_for_all() {
    let mut run = Run::new();
    run.push(both_tracks()).push(programme(0, 500, 1000));
    run.push([SourceEvent::End])
        .push(programme(500, 2000, 1000));
    run.finish();
    let ends = run
        .out
        .iter()
        .filter(|item| matches!(item, Segmented::GroupEnd { .. }));
    assert_eq!(ends.count(), 2);
}

#[test]
fn stamps_that_stand_still_are_spread_and_presentation_times_kept() {
    let mut run = Run::new();
    run.push([video_track(64), promise(true, false)]);
    run.push([(0, true), (40, false), (40, false)].map(|(ms, key)| picture(ms, key)));
    run.finish();
    let frames = run.frames(VIDEO);
    let times: Vec<(i64, i32)> = frames.iter().map(|frame| (frame.dts, frame.cts)).collect();
    let start = 5 * 90_000;
    assert_eq!(times, [(start, 0), (start + 3600, 0), (start + 3601, -1)]);
}

#[test]
fn impossible_tracks_and_frames_are_refused() {
    let mut segmenter = Segmenter::new(START, Options::default());
    let now = Wall { unix_ms: 0 };
    let SourceEvent::Track(mut track) = audio_track(48_000) else {
        unreachable!();
    };
    track.timescale = 40;
    let error = SegmentError::Timescale {
        track: 2,
        timescale: 40,
    };
    let result = segmenter.push(now, SourceEvent::Track(track));
    assert_eq!(result, Err(error));
    segmenter.push(now, video_track(64)).unwrap();
    let SourceEvent::Sample(mut sample) = picture(0, true) else {
        unreachable!();
    };
    sample.data = Bytes::from(vec![0; FRAME_BYTES_MAX + 1]);
    let result = segmenter.push(now, SourceEvent::Sample(sample));
    assert_eq!(result, Err(SegmentError::FrameTooLong(FRAME_BYTES_MAX + 1)));
}

/// A step of a random source: stamps go on from the last ones, mostly.
#[derive(Clone, Debug)]
enum Step {
    Picture {
        ms: i64,
        keyframe: bool,
    },
    Sound {
        ticks: i64,
    },
    Jump(i64),
    Track(SourceEvent),
    Raw {
        track: u32,
        dts: i64,
        duration: Option<u32>,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        30 => (prop_oneof![8 => Just(40), 2 => -50i64..200, 1 => -3000i64..12_000], prop::bool::weighted(0.15))
            .prop_map(|(ms, keyframe)| Step::Picture { ms, keyframe }),
        30 => prop_oneof![8 => Just(1024), 2 => -3000i64..9000, 1 => -60_000i64..600_000]
            .prop_map(|ticks| Step::Sound { ticks }),
        1 => (-100_000i64..100_000).prop_map(Step::Jump),
        1 => prop_oneof![
            Just(video_track(64)), Just(video_track(65)), Just(audio_track(48_000)),
            Just(audio_track(44_100)), Just(promise(true, true)), Just(promise(false, true)),
        ].prop_map(Step::Track),
        1 => (0u32..4, any::<i64>(), any::<Option<u32>>())
            .prop_map(|(track, dts, duration)| Step::Raw { track, dts, duration }),
    ]
}

fn events(steps: Vec<Step>) -> Vec<SourceEvent> {
    let (mut ms, mut ticks) = (0, 0);
    let mut events = Vec::new();
    for step in steps {
        events.push(match step {
            Step::Picture { ms: by, keyframe } => {
                ms += by;
                picture(ms, keyframe)
            }
            Step::Sound { ticks: by } => {
                ticks += by;
                sound(ticks)
            }
            Step::Jump(by) => {
                (ms, ticks) = (ms + by, ticks + by * 48);
                continue;
            }
            Step::Track(event) => event,
            Step::Raw {
                track,
                dts,
                duration,
            } => SourceEvent::Sample(Sample {
                track,
                dts,
                cts: dts as i32,
                duration,
                keyframe: dts & 1 == 0,
                discardable: false,
                data: Bytes::from_static(b"raw"),
            }),
        });
    }
    events
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_rules_hold_for_any_source(
        first in 0usize..4,
        steps in prop::collection::vec(step(), 0..400),
        connections in 1usize..4,
    ) {
        let mut all = Vec::new();
        let mut start = START;
        for _ in 0..connections {
            let mut run = Run::of(Segmenter::new(start, Options::default()));
            run.push(both_tracks().into_iter().take(first));
            run.push(events(steps.clone())).finish();
            start = run.segmenter.position().unwrap().into();
            all.extend(run.out);
        }
        check_all(&all);
    }
}
