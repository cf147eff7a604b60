//! Who comes late: it begins where it can catch up, and misses nothing from there on.

use std::time::Duration;

use astral_tests::chain::{flows, join};
use astral_tests::ffmpeg::{Clip, Encoder};
use astral_tests::process::Launch;
use astral_tests::recording::Recording;
use astral_tests::turn;
use astral_tests::wait::s;

/// Longest way from one player to another that a test bears on a busy machine.
const LATE_MAX: Duration = s(2);

/// How much later the last hundred pictures came at one player than at the other: the
/// median and the most.
fn late(at: &Recording, before: &Recording) -> (Duration, Duration) {
    let (there, here) = (at.received(), before.received());
    let (there, here) = (there.by_time(), here.by_time());
    let pictures = there.iter().rev().filter(|((track, _), _)| *track == 1);
    let mut late: Vec<Duration> = pictures
        .filter_map(|(name, (_, at))| Some(at.saturating_duration_since(here.get(name)?.1)))
        .take(100)
        .collect();
    late.sort();
    assert!(!late.is_empty(), "both have played the same");
    (late[late.len() / 2], late[late.len() - 1])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_behind_a_thin_uplink_with_long_groups_does_not_fall_behind() {
    let _turn = turn::alone().await;
    // As OBS makes them unless told otherwise: a keyframe every 8.3 s.
    let clip = Clip::small(90).gop(250);
    // Room for the stream and a third of it, so that a whole group takes 20 s to catch up.
    let publisher = Launch::new("publisher").limit(clip.bps() * 16 / 10);
    let publisher = publisher.start().await;
    let (stream, ingest) = publisher.api.publish("Long Groups").await;
    let _encoder = Encoder::rtmp(clip, &ingest);
    let here = Recording::start(&publisher.api, &stream.slug, "target_ms=0");
    // Deep in the first group.
    let enough = |came: &astral_tests::recording::Received| came.samples(1) > 180;
    here.wait("six seconds of pictures", s(30), enough).await;
    let viewer = Launch::new("viewer")
        .limit(0)
        .peer(&publisher)
        .start()
        .await;
    join(&viewer, &stream).await;
    let there = Recording::start(&viewer.api, &stream.slug, "target_ms=0");
    there
        .wait("pictures", s(30), |came| came.samples(1) > 120)
        .await;
    let (median, most) = late(&there, &here);
    println!("pictures come {median:?} later than at the publisher, {most:?} at the most");
    assert!(median <= LATE_MAX, "{median:?}");
    there.assert_whole(clip);
    let local = viewer.api.stream(&stream.slug).await.local;
    assert_eq!((local.frames_lost, local.switches), (0, 0), "{local:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_who_come_at_once_to_a_thin_uplink_miss_nothing() {
    let _turn = turn::alone().await;
    let clip = Clip::small(90);
    // Room for three copies, and for one to catch up at a time.
    let limit = clip.bps() * 115 / 100 * 4;
    let publisher = Launch::new("publisher").limit(limit).start().await;
    let (stream, ingest) = publisher.api.publish("All At Once").await;
    let _encoder = Encoder::rtmp(clip, &ingest);
    flows(&publisher, &stream).await;
    let mut viewers = Vec::new();
    for name in ["first", "second", "third"] {
        viewers.push(Launch::new(name).limit(0).peer(&publisher).start().await);
    }
    let mut recordings = Vec::new();
    let joins = viewers.iter().map(|viewer| join(viewer, &stream));
    futures_util::future::join_all(joins).await;
    for viewer in &viewers {
        let slug = stream.id.to_string();
        recordings.push(Recording::start(&viewer.api, &slug, "target_ms=0"));
    }
    for recording in &recordings {
        recording
            .wait("pictures", s(40), |came| came.samples(1) > 240)
            .await;
        recording.assert_whole(clip);
    }
}
