//! Files and recordings read by the project's own demuxers: which coded frames there are.

use astral_media::flv::FlvFile;
use astral_media::fmp4::Demuxer;
use astral_media::source::{Sample, SourceEvent};
use astral_media::track::TrackKind;
use astral_media::ts::TsDemuxer;
use bytes::Bytes;

/// What is in these bytes, of any container that is carried; a cut end is passed over.
pub fn read(bytes: &[u8]) -> Vec<SourceEvent> {
    let mut events = Vec::new();
    match bytes {
        [b'F', b'L', b'V', ..] => {
            FlvFile::new()
                .push(bytes, &mut events)
                .expect("an FLV file");
        }
        [0x47, ..] => {
            let mut demuxer = TsDemuxer::new();
            demuxer.push(bytes, &mut events).expect("an MPEG-TS");
            let counts = demuxer.counts();
            assert_eq!(
                (counts.gaps, counts.resyncs),
                (0, 0),
                "whole packets in order"
            );
            // With too little for a program there is nothing yet.
            let _ = demuxer.finish(&mut events);
        }
        [] => {}
        _ => Demuxer::new()
            .push(bytes, &mut events)
            .expect("a fragmented MP4"),
    }
    events
}

/// Coded frames of a kind, in their order.
pub fn frames(events: &[SourceEvent], kind: TrackKind) -> Vec<Bytes> {
    let mut ids = Vec::new();
    let mut frames = Vec::new();
    for event in events {
        match event {
            SourceEvent::Track(track) if track.config.kind() == kind => ids.push(track.id),
            SourceEvent::Sample(Sample { track, data, .. }) if ids.contains(track) => {
                frames.push(data.clone());
            }
            SourceEvent::Track(_)
            | SourceEvent::Sample(_)
            | SourceEvent::Promised { .. }
            | SourceEvent::End => {}
        }
    }
    frames
}
