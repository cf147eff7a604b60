//! Broken and odd transport streams: refused or taken, never a panic, never much memory.

mod clips;

use std::sync::LazyLock;

use astral_media::source::SourceEvent;
use astral_media::ts::{PACKET, PES_BYTES_MAX, TsDemuxer};
use proptest::collection::vec;
use proptest::prelude::*;

/// Two real clips: H.264 with AAC, and H.265 with Opus.
static CLIPS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let clips = clips::Clips::new();
    let make = |name: &str, options: &str| {
        let options: Vec<_> = options.split(' ').collect();
        std::fs::read(clips.make(name, 1, &options)).expect("the clip")
    };
    [
        make("h264.ts", "-s 64x48 -bf 2 -g 10"),
        make(
            "h265.ts",
            "-s 64x48 -g 10 -c:v libx265 -x265-params log-level=none -c:a libopus",
        ),
    ]
});

/// Events up to the first error, and the error's words.
fn demux<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<SourceEvent>, Option<String>) {
    let mut demuxer = TsDemuxer::new();
    let mut events = Vec::new();
    for piece in pieces {
        let result = demuxer.push(piece, &mut events);
        assert!(demuxer.buffered() <= PES_BYTES_MAX + (128 << 10));
        if let Err(error) = result {
            return (events, Some(error.to_string()));
        }
    }
    let error = demuxer.finish(&mut events).err();
    (events, error.map(|error| error.to_string()))
}

fn cut<'a>(bytes: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let size = (*sizes.next()?).min(rest.len());
        let (piece, tail) = rest.split_at(size);
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Headers of packets, tables and PES packets are hit as often as media.
fn mutations() -> impl Strategy<Value = Vec<(usize, usize, u8)>> {
    let place = prop_oneof![3 => 0usize..30, 1 => 0usize..PACKET];
    vec((0usize..200, place, any::<u8>()), 1..12)
}

fn mutated(clip: usize, mutations: &[(usize, usize, u8)]) -> Vec<u8> {
    let mut bytes = CLIPS[clip].clone();
    let length = bytes.len();
    for (packet, place, value) in mutations {
        bytes[(packet * PACKET + place) % length] = *value;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cutting_into_pieces_gives_the_same_events(
        clip in 0usize..2,
        sizes in vec(1usize..3_000, 1..20),
    ) {
        let bytes = &CLIPS[clip];
        let whole = demux(std::iter::once(bytes.as_slice()));
        prop_assert_eq!(&whole.1, &None);
        prop_assert!(whole.0.len() > 50);
        prop_assert_eq!(demux(cut(bytes, &sizes)), whole);
    }

    #[test]
    fn mutations_do_no_harm_and_pieces_still_make_no_difference(
        clip in 0usize..2,
        mutations in mutations(),
        sizes in vec(1usize..3_000, 1..20),
    ) {
        let bytes = mutated(clip, &mutations);
        let whole = demux(std::iter::once(bytes.as_slice()));
        prop_assert_eq!(demux(cut(&bytes, &sizes)), whole);
    }

    #[test]
    fn lost_and_doubled_bytes_do_no_harm(
        clip in 0usize..2,
        cuts in vec((any::<prop::sample::Index>(), 0usize..500), 1..6),
    ) {
        let mut bytes = CLIPS[clip].clone();
        for (place, length) in cuts {
            let at = place.index(bytes.len());
            let end = (at + length).min(bytes.len());
            if length % 2 == 0 {
                bytes.drain(at..end);
            } else {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
        }
        let whole = demux(std::iter::once(bytes.as_slice()));
        prop_assert_eq!(demux(cut(&bytes, &[977])), whole);
    }

    #[test]
    fn a_start_and_an_end_anywhere_do_no_harm(
        clip in 0usize..2,
        from in any::<prop::sample::Index>(),
        to in any::<prop::sample::Index>(),
    ) {
        let bytes = &CLIPS[clip];
        let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
        demux(std::iter::once(&bytes[from.min(to)..from.max(to)]));
    }

    #[test]
    fn random_packets_do_no_harm(
        packets in vec((prop::sample::select(vec![0u16, 0x1000, 0x100, 0x101, 0x1fff]),
            any::<[u8; 2]>(), vec(any::<u8>(), 0..184)), 0..40),
    ) {
        let mut bytes = CLIPS[0][..10 * PACKET].to_vec();
        for (pid, [flags, control], body) in packets {
            let mut packet = [0xff; PACKET];
            packet[0] = 0x47;
            packet[1..3].copy_from_slice(&(pid | u16::from(flags & 0x40) << 8).to_be_bytes());
            packet[3] = control & 0x3f;
            packet[4..4 + body.len()].copy_from_slice(&body);
            bytes.extend(packet);
        }
        demux(std::iter::once(bytes.as_slice()));
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..5_000)) {
        demux(std::iter::once(bytes.as_slice()));
    }
}
