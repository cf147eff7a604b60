use bytes::BytesMut;

use super::super::{AUDIO_TRACK, PACKET, VIDEO_TRACK};
use super::*;
use crate::source::{Sample, SourceTrack};
use crate::track::CodecConfig;

const PROGRAM: Program = Program {
    number: 1,
    pmt_pid: 0x1000,
};
/// Parameter sets of 640x360, as x264 wrote them.
const SPS: [u8; 24] = [
    0x67, 0x4d, 0x40, 0x1e, 0xec, 0xa0, 0x50, 0x17, 0xfc, 0xb8, 0x08, 0x80, 0, 0, 3, 0, 0x80, 0, 0,
    0x1e, 0x07, 0x8b, 0x16, 0xcb,
];
const PPS: [u8; 4] = [0x68, 0xce, 0x0f, 0xc8];

/// A writer of packets that is not the muxer's own.
#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    counters: std::collections::BTreeMap<u16, u8>,
}

impl Writer {
    fn packet(&mut self, pid: u16, starts: bool, payload: &[u8]) {
        let counter = self.counters.entry(pid).or_default();
        let flags = if starts { 0x40 } else { 0 };
        let head = [0x47, flags | (pid >> 8) as u8, pid as u8];
        self.bytes.extend(head);
        let filling = PACKET - 4 - payload.len();
        let adaptation = if filling > 0 { 0x20 } else { 0 };
        self.bytes.push(0x10 | adaptation | *counter);
        *counter = (*counter + 1) & 15;
        if filling > 0 {
            self.bytes.push(filling as u8 - 1);
            self.bytes.extend(vec![0xff; filling - 1]);
            if filling > 1 {
                let at = self.bytes.len() - filling + 1;
                self.bytes[at] = 0;
            }
        }
        self.bytes.extend(payload);
    }

    fn split(&mut self, pid: u16, bytes: &[u8]) {
        for (n, chunk) in bytes.chunks(PACKET - 4).enumerate() {
            self.packet(pid, n == 0, chunk);
        }
    }

    fn tables(&mut self, version: u8, streams: &[(u16, u8, &[u8])]) {
        let entries: Vec<_> = streams
            .iter()
            .map(|&(pid, kind, descriptors)| psi::Entry {
                pid,
                kind,
                descriptors: descriptors.to_vec(),
            })
            .collect();
        let pat = [&[0], &psi::pat(PROGRAM)[..]].concat();
        let pmt = [&[0], &psi::pmt(1, version, 0x100, &entries)[..]].concat();
        self.split(0, &pat);
        self.split(0x1000, &pmt);
    }

    fn pes(&mut self, pid: u16, id: u8, stamp: u64, data: &[u8]) {
        let mut header = BytesMut::new();
        super::super::pes::put_header(&mut header, id, stamp, None, data.len());
        self.split(pid, &[&header[..], data].concat());
    }

    /// A picture with one slice.
    fn picture(&mut self, pid: u16, stamp: u64, keyframe: bool) {
        let start = [0, 0, 1];
        let mut data = [&start[..], &[9, 0xf0]].concat();
        if keyframe {
            for set in [&SPS[..], &PPS] {
                data.extend(start);
                data.extend(set);
            }
        }
        let slice = if keyframe { 0x65 } else { 0x41 };
        data.extend([&start[..], &[slice], &[7; 300]].concat());
        self.pes(pid, 0xe0, stamp, &data);
    }

    /// So many frames of stereo AAC of 48 kHz.
    fn sound(&mut self, pid: u16, stamp: u64, frames: usize) {
        let writer = super::super::adts::Writer::new(&[0x11, 0x90]).unwrap();
        let mut data = BytesMut::new();
        (0..frames).for_each(|n| assert!(writer.put(&mut data, &[0x21, n as u8])));
        self.pes(pid, 0xc0, stamp, &data);
    }
}

fn demux(bytes: &[u8]) -> Result<(Vec<SourceEvent>, Counts), TsError> {
    let (mut demuxer, mut events) = (TsDemuxer::new(), Vec::new());
    demuxer.push(bytes, &mut events)?;
    demuxer.finish(&mut events)?;
    Ok((events, demuxer.counts()))
}

fn samples(events: &[SourceEvent]) -> Vec<&Sample> {
    let samples = events.iter().filter_map(|event| match event {
        SourceEvent::Sample(sample) => Some(sample),
        SourceEvent::Track(_) | SourceEvent::Promised { .. } | SourceEvent::End => None,
    });
    samples.collect()
}

fn stamps(events: &[SourceEvent]) -> Vec<(u32, i64)> {
    let samples = samples(events).into_iter();
    samples.map(|sample| (sample.track, sample.dts)).collect()
}

fn tracks(events: &[SourceEvent]) -> Vec<&SourceTrack> {
    let tracks = events.iter().filter_map(|event| match event {
        SourceEvent::Track(track) => Some(track),
        SourceEvent::Sample(_) | SourceEvent::Promised { .. } | SourceEvent::End => None,
    });
    tracks.collect()
}

const BOTH: [(u16, u8, &[u8]); 2] = [(0x100, psi::TYPE_H264, &[]), (0x101, psi::TYPE_AAC, &[])];

#[test]
fn pictures_and_sound_come_out_with_their_configurations() {
    let mut writer = Writer::default();
    writer.tables(0, &BOTH);
    writer.picture(0x100, 90_000, true);
    writer.sound(0x101, 91_920, 3);
    writer.picture(0x100, 93_000, false);
    let (events, counts) = demux(&writer.bytes).unwrap();
    assert_eq!(counts, Counts::default());
    let promised = SourceEvent::Promised {
        video: true,
        audio: true,
    };
    assert_eq!(events.first(), Some(&promised));
    assert_eq!(events.last(), Some(&SourceEvent::End));
    let sizes: Vec<_> = tracks(&events).iter().map(|t| t.config.size()).collect();
    assert_eq!(sizes, [Some((640, 360)), None]);
    let first = 91_920 * 48 / 90;
    assert_eq!(
        stamps(&events),
        [
            (VIDEO_TRACK, 90_000),
            (AUDIO_TRACK, first),
            (AUDIO_TRACK, first + 1024),
            (AUDIO_TRACK, first + 2048),
            (VIDEO_TRACK, 93_000),
        ]
    );
    // What stays of a picture is its slice, behind a length.
    assert_eq!(samples(&events)[0].data[..5], [0, 0, 1, 45, 0x65]);
}

#[test]
fn a_lost_packet_costs_the_pictures_up_to_the_next_keyframe() {
    let mut writer = Writer::default();
    writer.tables(0, &BOTH);
    for n in 0..9 {
        writer.picture(0x100, 90_000 + n * 3_000, n % 4 == 0);
    }
    let per_picture = (writer.bytes.len() / PACKET - 2) / 9;
    let lost = (2 + per_picture) * PACKET + PACKET;
    writer.bytes.drain(lost..lost + PACKET);
    let (events, counts) = demux(&writer.bytes).unwrap();
    let expected = [0, 4, 5, 6, 7, 8].map(|n| (VIDEO_TRACK, 90_000 + n * 3_000));
    assert_eq!(stamps(&events), expected);
    assert_eq!((counts.gaps, counts.dropped), (1, 2));
}

#[test]
fn streams_that_move_to_other_pids_keep_their_tracks() {
    let mut writer = Writer::default();
    writer.tables(0, &BOTH);
    writer.picture(0x100, 90_000, true);
    writer.tables(
        1,
        &[(0x200, psi::TYPE_H264, &[]), (0x101, psi::TYPE_AAC, &[])],
    );
    writer.picture(0x100, 93_000, true);
    writer.picture(0x200, 96_000, true);
    writer.sound(0x101, 96_000, 1);
    let (events, _) = demux(&writer.bytes).unwrap();
    let expected = [
        (VIDEO_TRACK, 90_000),
        (VIDEO_TRACK, 96_000),
        (AUDIO_TRACK, 51_200),
    ];
    assert_eq!(stamps(&events), expected, "the old PID is nothing any more");
}

#[test]
fn opus_says_its_channels_in_the_table_and_its_priming_in_its_first_packet() {
    let mut writer = Writer::default();
    let descriptors = b"\x05\x04Opus\x7f\x02\x80\x06";
    writer.tables(0, &[(0x101, psi::TYPE_PRIVATE, descriptors)]);
    let packet = [0x7f, 0xf0, 2, 0x01, 0x38, 0xfc, 1];
    writer.pes(0x101, 0xbd, 90_000, &[packet, packet].concat());
    let (events, _) = demux(&writer.bytes).unwrap();
    let CodecConfig::Opus { head, channels, .. } = &tracks(&events)[0].config else {
        panic!("{events:?}");
    };
    assert_eq!((*channels, head[10..12].to_vec()), (6, vec![0x38, 1]));
    assert_eq!(
        stamps(&events),
        [(AUDIO_TRACK, 48_000), (AUDIO_TRACK, 48_960)]
    );
}

#[test]
fn frames_of_sound_may_run_over_into_the_next_pes_packet() {
    let mut sound = Writer::default();
    sound.sound(0x101, 0, 3);
    let adts: Vec<u8> = {
        let writer = super::super::adts::Writer::new(&[0x11, 0x90]).unwrap();
        let mut data = BytesMut::new();
        (0..4).for_each(|_| assert!(writer.put(&mut data, &[9; 100])));
        data.to_vec()
    };
    let mut writer = Writer::default();
    writer.tables(0, &BOTH);
    // One frame and a half, with the time of the first; then the rest, with the third's.
    writer.pes(0x101, 0xc0, 90_000, &adts[..150]);
    writer.pes(0x101, 0xc0, 90_000 + 2 * 1920, &adts[150..]);
    let (events, _) = demux(&writer.bytes).unwrap();
    let expected = [0, 1, 2, 3].map(|n| (AUDIO_TRACK, 48_000 + n * 1024));
    assert_eq!(stamps(&events), expected);
}

#[test]
fn a_picture_in_several_pes_packets_is_one_picture() {
    let mut writer = Writer::default();
    writer.tables(0, &BOTH);
    writer.picture(0x100, 90_000, true);
    // So long that its muxer had to cut it, in two parts of which one has a stamp.
    let slice = [&[0, 0, 1, 0x41][..], &[7; 65_500]].concat();
    writer.pes(0x100, 0xe0, 93_000, &slice);
    let mut rest = vec![0, 0, 1, 0xe0, 0, 103, 0x80, 0, 0];
    rest.extend([8; 100]);
    writer.split(0x100, &rest);
    writer.picture(0x100, 96_000, false);
    let (events, _) = demux(&writer.bytes).unwrap();
    let sizes: Vec<_> = samples(&events).iter().map(|s| s.data.len()).collect();
    assert_eq!(sizes, [305, 4 + 1 + 65_600, 305]);
}

#[test]
fn codecs_that_are_not_carried_are_refused_with_words() {
    let refusal = |streams: &[(u16, u8, &[u8])]| {
        let mut writer = Writer::default();
        writer.tables(0, streams);
        (0..5).for_each(|_| writer.sound(0x101, 0, 1));
        demux(&writer.bytes).unwrap_err().to_string()
    };
    let h264 = (0x100, psi::TYPE_H264, &[][..]);
    let latm = refusal(&[h264, (0x101, 0x11, &[])]);
    assert!(latm.starts_with("AAC in LATM in MPEG-TS is not supported: send"));
    assert!(refusal(&[(0x100, 2, &[])]).contains("MPEG-2 video"));
    assert!(refusal(&[(0x100, 6, b"\x05\x04AV01")]).starts_with("AV1 in"));
    assert!(refusal(&[(0x100, 0xdb, &[])]).contains("encrypted"));
    assert!(refusal(&[(0x100, 0x15, &[])]).contains("without a program"));
}

#[test]
fn several_languages_of_which_one_is_carried_are_taken() {
    let mut writer = Writer::default();
    writer.tables(0, &[(0x101, 0x81, &[]), (0x102, psi::TYPE_AAC, &[])]);
    writer.sound(0x102, 90_000, 1);
    assert_eq!(samples(&demux(&writer.bytes).unwrap().0).len(), 1);
}

#[test]
fn scrambled_packets_are_refused() {
    let mut writer = Writer::default();
    writer.tables(0, &BOTH);
    let at = writer.bytes.len();
    writer.picture(0x100, 90_000, true);
    writer.bytes[at + 3] |= 0x80;
    assert_eq!(demux(&writer.bytes), Err(TsError::Encrypted));
}

#[test]
fn megabytes_without_a_table_are_refused() {
    let mut writer = Writer::default();
    (0..200).for_each(|_| writer.sound(0x101, 0, 1));
    let (mut demuxer, mut events) = (TsDemuxer::new(), Vec::new());
    let refused = (0..1_000).find_map(|_| demuxer.push(&writer.bytes, &mut events).err());
    assert!(matches!(refused, Some(TsError::NoProgram(_))));
    assert_eq!(demuxer.push(&[], &mut events).err(), refused, "it stays so");
}
