use bytes::Bytes;

use super::super::packet::{Continuity, Follows, Packet};
use super::super::{PACKET, TsDemuxer};
use super::*;
use crate::catalog::tests::sample;
use crate::frame::pack_audio;
use crate::source::SourceEvent;
use crate::track::CodecConfig;

/// A picture at 30 fps, every tenth a keyframe, in a track of 15,360 ticks.
fn video(number: i64) -> Frame {
    Frame {
        track: 1,
        epoch: 7,
        group: number as u64 / 10,
        index: number as u32 % 10,
        order: number as u32 % 10,
        dts: number * 512,
        cts: 0,
        duration: 512,
        keyframe: number % 10 == 0,
        discardable: false,
        no_keyframe: false,
        payload: Bytes::from(picture(number % 10 == 0)),
    }
}

/// One slice behind its length.
fn picture(keyframe: bool) -> Vec<u8> {
    let mut slice = vec![7; 305];
    slice[..5].copy_from_slice(&[0, 0, 1, 45, if keyframe { 0x65 } else { 0x41 }]);
    slice
}

/// Two AAC frames.
fn audio(number: i64) -> Frame {
    let unit = Bytes::from_static(&[0x21, 0]);
    Frame {
        track: 2,
        dts: number * 2048,
        duration: 2048,
        keyframe: true,
        payload: pack_audio(&[unit.clone(), unit]),
        ..video(0)
    }
}

fn started() -> TsMuxer {
    let mut muxer = TsMuxer::new();
    muxer.catalog(&sample()).unwrap();
    muxer
}

fn write(muxer: &mut TsMuxer, frames: &[Frame]) -> BytesMut {
    let mut out = BytesMut::new();
    frames
        .iter()
        .for_each(|frame| muxer.frame(frame, &mut out).unwrap());
    out
}

/// Decoding times in milliseconds, by track.
fn read(bytes: &[u8]) -> Vec<(u32, i64)> {
    let (mut demuxer, mut events) = (TsDemuxer::new(), Vec::new());
    demuxer.push(bytes, &mut events).unwrap();
    demuxer.finish(&mut events).unwrap();
    let mut scales = std::collections::BTreeMap::new();
    let mut times = Vec::new();
    for event in events {
        match event {
            SourceEvent::Track(track) => {
                scales.insert(track.id, i64::from(track.timescale));
            }
            SourceEvent::Sample(sample) => {
                times.push((
                    sample.track,
                    sample.dts * 1000 / scales[&sample.track] - 1000,
                ));
            }
            SourceEvent::Promised { .. } | SourceEvent::End => {}
        }
    }
    times
}

/// Each packet's PID, adaptation flags and clock.
fn packets(bytes: &[u8]) -> Vec<(u16, u8, Option<u64>)> {
    let mut counters = std::collections::BTreeMap::<u16, Continuity>::new();
    let (packets, rest) = bytes.as_chunks::<PACKET>();
    assert!(rest.is_empty(), "whole packets");
    packets
        .iter()
        .map(|bytes| {
            let packet = Packet::parse(bytes).expect("our own packet");
            if packet.payload.is_some() {
                let counter = counters.entry(packet.pid).or_default();
                assert_eq!(counter.follow(&packet), Follows::Well);
            }
            let flags = if bytes[3] & 0x20 != 0 && bytes[4] > 0 {
                bytes[5]
            } else {
                0
            };
            let clock = (flags & 0x10 != 0).then(|| {
                let base = bytes[6..11]
                    .iter()
                    .fold(0, |all, &b| all << 8 | u64::from(b));
                base >> 7
            });
            (packet.pid, flags, clock)
        })
        .collect()
}

#[test]
fn what_is_written_is_read_with_its_times() {
    let mut frames: Vec<_> = (0..40).map(video).collect();
    frames.extend((0..30).map(audio));
    frames.sort_by_key(|frame| frame.dts * if frame.track == 1 { 100 } else { 32 });
    let times = read(&write(&mut started(), &frames));
    let of = |track| times.iter().filter(move |(id, _)| *id == track);
    assert_eq!(of(1).count(), 40);
    assert_eq!(of(2).count(), 60);
    for (n, (_, ms)) in of(1).enumerate() {
        assert!((ms - n as i64 * 1000 / 30).abs() <= 1);
    }
    for (n, (_, ms)) in of(2).enumerate() {
        assert!((ms - n as i64 * 64 / 3).abs() <= 1);
    }
}

#[test]
fn it_begins_with_tables_and_a_keyframe_and_no_sound_from_before_it() {
    let frames = [video(8), audio(0), video(9), video(10), audio(7), audio(8)];
    let bytes = write(&mut started(), &frames);
    let pids: Vec<_> = packets(&bytes).iter().map(|packet| packet.0).collect();
    assert_eq!(pids[..3], [0, 0x1000, 0x100]);
    assert_eq!(read(&bytes)[..2], [(1, 333), (2, 341)]);
}

#[test]
fn tables_come_four_times_a_second_and_the_clock_ten_times() {
    // Pictures stay away for two seconds while the sound goes on.
    let mut frames = vec![video(0), video(1)];
    frames.extend((0..50).map(audio));
    let packets = packets(&write(&mut started(), &frames));
    let tables = packets.iter().filter(|packet| packet.0 == 0x1000).count();
    assert!((8..=10).contains(&tables), "{tables}");
    let clock: Vec<_> = packets.iter().filter_map(|packet| packet.2).collect();
    assert!(clock.len() > 18);
    assert!(clock.windows(2).all(|pair| pair[1] - pair[0] <= 9_000));
}

#[test]
fn the_clock_is_behind_the_times_and_never_goes_back() {
    let frames: Vec<_> = (0..90)
        .flat_map(|n| [audio(n * 7 / 10 + 2), video(n)])
        .collect();
    let bytes = write(&mut started(), &frames);
    let clock: Vec<_> = packets(&bytes)
        .iter()
        .filter_map(|packet| packet.2)
        .collect();
    assert!(clock.is_sorted());
    assert_eq!(clock[0], 90_000 - 36_000);
}

#[test]
fn after_a_loss_it_goes_on_with_the_next_keyframe() {
    let mut muxer = started();
    let mut bytes = write(&mut muxer, &[video(0), video(1)]);
    muxer.lost(1);
    bytes.extend(write(
        &mut muxer,
        &[video(3), video(9), video(10), video(11)],
    ));
    let times: Vec<_> = read(&bytes).into_iter().map(|(_, ms)| ms).collect();
    assert_eq!(times, [0, 33, 333, 366]);
}

#[test]
fn a_new_epoch_is_shown_on_each_stream_and_a_new_codec_is_another_stream() {
    let mut muxer = started();
    let before = write(&mut muxer, &[video(0), audio(0)]);
    assert!(packets(&before).iter().all(|packet| packet.1 & 0x80 == 0));
    let mut catalog = sample();
    catalog.epoch = 8;
    muxer.catalog(&catalog).unwrap();
    let late = write(&mut muxer, &[video(1)]);
    assert!(late.is_empty(), "a frame of the old epoch");
    let next = |frame: Frame| Frame { epoch: 8, ..frame };
    let frames = [
        next(video(10)),
        next(audio(8)),
        next(video(11)),
        next(audio(9)),
    ];
    let after = write(&mut muxer, &frames);
    let flagged: Vec<_> = packets(&after)
        .iter()
        .filter(|packet| packet.1 & 0x80 != 0)
        .map(|packet| packet.0)
        .collect();
    assert_eq!(flagged, [0x100, 0x110]);

    catalog.epoch = 9;
    let head = crate::opus::OpusHead::parse(b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0");
    catalog.tracks[1].config = head.unwrap().codec_config();
    muxer.catalog(&catalog).unwrap();
    let opus = Frame {
        epoch: 9,
        payload: pack_audio(&[Bytes::from_static(&crate::opus::SILENCE)]),
        ..audio(16)
    };
    let bytes = write(
        &mut muxer,
        &[
            Frame {
                epoch: 9,
                ..video(20)
            },
            opus,
        ],
    );
    assert!(packets(&bytes).iter().any(|packet| packet.0 == 0x111));
    let pmt = |bytes: &[u8]| {
        let (packets, _) = bytes.as_chunks::<PACKET>();
        let pmt = packets.iter().find(|packet| packet[1..3] == [0x50, 0]);
        pmt.map(|packet| packet[10] >> 1 & 0x1f).unwrap()
    };
    assert_eq!([pmt(&before), pmt(&after), pmt(&bytes)], [0, 0, 1]);
}

#[test]
fn sound_alone_has_the_clock() {
    let mut catalog = sample();
    catalog.tracks.remove(0);
    let mut muxer = TsMuxer::new();
    muxer.catalog(&catalog).unwrap();
    let bytes = write(&mut muxer, &[audio(3), audio(4)]);
    assert_eq!(read(&bytes).len(), 4);
    let clocks = packets(&bytes);
    assert_eq!(clocks.iter().filter(|packet| packet.2.is_some()).count(), 2);
}

#[test]
fn av1_and_odd_aac_are_refused_with_words() {
    let mut catalog = sample();
    catalog.tracks[1].config = CodecConfig::Aac {
        asc: Bytes::from_static(&[0x11, 0x94]),
        sample_rate: 48_000,
        channels: 2,
    };
    let error = TsMuxer::new().catalog(&catalog).unwrap_err();
    assert_eq!(error.to_string(), "mp4a.40.2 is not carried in MPEG-TS");
    let mut catalog = sample();
    catalog.tracks[0].config = CodecConfig::Av1 {
        av1c: Bytes::from_static(&[0x81, 0, 0, 0]),
        width: 64,
        height: 64,
    };
    let error = TsMuxer::new().catalog(&catalog).unwrap_err();
    assert!(error.to_string().starts_with("av01."));
}
