use super::*;
use crate::catalog::tests::sample;
use crate::fmp4::Demuxer;
use crate::frame::pack_audio;
use crate::source::{Sample, SourceEvent};

fn video() -> Frame {
    Frame {
        track: 1,
        epoch: 7,
        group: 0x1_0002,
        index: 4,
        order: 5,
        dts: 1 << 40,
        cts: -512,
        duration: 512,
        keyframe: false,
        discardable: true,
        no_keyframe: false,
        payload: Bytes::from_static(b"\0\0\0\x02\x01b"),
    }
}

fn audio() -> Frame {
    let units = [&b"one"[..], b"two two", b"x"];
    Frame {
        track: 2,
        dts: 4096,
        cts: 0,
        duration: 3073,
        keyframe: true,
        discardable: false,
        payload: pack_audio(&units.map(Bytes::from_static)),
        ..video()
    }
}

#[test]
fn what_is_muxed_is_demuxed_the_same() {
    let catalog = sample();
    let mut bytes = init_segment(&catalog).to_vec();
    bytes.extend(fragment(&catalog.tracks[0], &video()).unwrap());
    bytes.extend(fragment(&catalog.tracks[1], &audio()).unwrap());
    let mut events = Vec::new();
    let mut demuxer = Demuxer::new();
    demuxer.push(&bytes, &mut events).unwrap();
    demuxer.finish(&mut events).unwrap();
    for (event, track) in events.iter().zip(&catalog.tracks) {
        let SourceEvent::Track(found) = event else {
            panic!("{event:?} is no track");
        };
        assert_eq!((found.id, &found.config), (track.id.into(), &track.config));
    }
    let samples: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            SourceEvent::Sample(Sample { dts, cts, data, .. }) => Some((*dts, *cts, data.len())),
            SourceEvent::Track(_) | SourceEvent::Promised { .. } | SourceEvent::End => None,
        })
        .collect();
    let expected = [(1 << 40, -512, 6), (4096, 0, 3), (5120, 0, 7), (6144, 0, 1)];
    assert_eq!(samples, expected);
    assert_eq!(events.last(), Some(&SourceEvent::End));
}

#[test]
fn a_fragment_is_these_very_bytes() {
    let bytes = fragment(&sample().tracks[0], &video()).unwrap();
    let expected: &[&[u8]] = &[
        b"\0\0\0\x68moof\0\0\0\x10mfhd\0\0\0\0\0\x02\0\x05\0\0\0\x50traf",
        b"\0\0\0\x14tfhd\0\x02\0\x20\0\0\0\x01\x01\x81\0\0",
        b"\0\0\0\x14tfdt\x01\0\0\0\0\0\x01\0\0\0\0\0",
        b"\0\0\0\x20trun\x01\0\x0b\x01\0\0\0\x01\0\0\0\x70\0\0\x02\0\0\0\0\x06\xff\xff\xfe\0",
        b"\0\0\0\x0emdat\0\0\0\x02\x01b",
    ];
    assert_eq!(bytes, expected.concat());
}

#[test]
fn frames_that_cannot_be_written_are_refused() {
    let catalog = sample();
    let refused = |frame: &Frame| fragment(&catalog.tracks[0], frame).unwrap_err();
    assert_eq!(
        refused(&audio()),
        MuxError::WrongTrack { track: 1, frame: 2 }
    );
    let early = Frame { dts: -1, ..video() };
    assert_eq!(
        refused(&early),
        MuxError::NegativeTime { track: 1, dts: -1 }
    );
    let empty = Frame {
        payload: Bytes::new(),
        ..video()
    };
    assert_eq!(refused(&empty), MuxError::Size(1));
    let broken = Frame {
        payload: Bytes::from_static(&[9]),
        ..audio()
    };
    let error = FrameError::Truncated(0);
    assert_eq!(
        fragment(&catalog.tracks[1], &broken),
        Err(MuxError::Bundle { track: 2, error })
    );
}
