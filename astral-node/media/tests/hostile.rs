//! Broken and odd fragmented MP4: refused or taken, never a panic, never much memory.

mod clips;

use std::io::Cursor;
use std::sync::LazyLock;

use astral_media::file::Mp4File;
use astral_media::fmp4::Demuxer;
use astral_media::fmp4::demux::{MAX_BOX, MAX_SAMPLE};
use astral_media::source::SourceEvent;
use proptest::collection::vec;
use proptest::prelude::*;

/// Two real clips: absolute offsets with the first samples in `moov`, and CMAF.
static CLIPS: LazyLock<[Vec<u8>; 3]> = LazyLock::new(|| {
    let clips = clips::Clips::new();
    let make = |name: &str, options: &str| {
        let options: Vec<_> = options.split(' ').collect();
        std::fs::read(clips.make(name, 1, &options)).expect("the clip")
    };
    [
        make("every.mp4", "-s 64x48 -bf 2 -movflags +frag_every_frame"),
        make("cmaf.mp4", "-s 64x48 -g 10 -movflags +cmaf+frag_keyframe"),
        make("plain.mp4", "-s 64x48 -g 10 -movflags +faststart"),
    ]
});

/// Events up to the first error, and the error's words.
fn demux<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<SourceEvent>, Option<String>) {
    let mut demuxer = Demuxer::new();
    let mut events = Vec::new();
    for piece in pieces {
        let result = demuxer.push(piece, &mut events);
        assert!(demuxer.buffered() as u64 <= u64::from(MAX_SAMPLE).max(MAX_BOX) + (64 << 10));
        if let Err(error) = result {
            return (events, Some(error.to_string()));
        }
    }
    let error = demuxer.finish(&mut events).err();
    (events, error.map(|error| error.to_string()))
}

fn read_file(bytes: &[u8]) {
    if let Ok(file) = Mp4File::open(Cursor::new(bytes)) {
        file.take(10_000).for_each(drop);
    }
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

/// Mutations near the front hit the boxes; further back, mostly media.
fn mutations() -> impl Strategy<Value = Vec<(usize, u8)>> {
    let place = prop_oneof![3 => 0usize..3_000, 1 => 0usize..60_000];
    vec((place, any::<u8>()), 1..12)
}

/// Where the size fields of boxes, and the first fields after their names, stand.
fn fields(bytes: &[u8]) -> Vec<usize> {
    let names = "ftyp moov mvhd trak tkhd mdia mdhd minf stbl stsd avc1 avcC mp4a esds stts ctts \
                 stsc stsz stco mvex trex edts elst moof mfhd traf tfhd tfdt trun mdat mfra";
    let names: Vec<_> = names.split_whitespace().map(str::as_bytes).collect();
    let at_name = |at: &usize| names.contains(&&bytes[*at..*at + 4]);
    let found = (4..bytes.len().saturating_sub(24)).filter(at_name);
    found
        .flat_map(|at| [at - 4, at + 4, at + 8, at + 12, at + 16])
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cutting_into_pieces_gives_the_same_events(
        clip in 0usize..3,
        sizes in vec(1usize..5_000, 1..20),
    ) {
        let bytes = &CLIPS[clip];
        let whole = demux(std::iter::once(bytes.as_slice()));
        prop_assert_eq!(&whole.1, &None);
        prop_assert!(whole.0.len() > 50);
        prop_assert_eq!(demux(cut(bytes, &sizes)), whole);
    }

    #[test]
    fn mutations_do_no_harm_and_pieces_still_make_no_difference(
        clip in 0usize..3,
        mutations in mutations(),
        sizes in vec(1usize..5_000, 1..20),
    ) {
        let mut bytes = CLIPS[clip].clone();
        let length = bytes.len();
        for (place, value) in mutations {
            bytes[place % length] = value;
        }
        let whole = demux(std::iter::once(bytes.as_slice()));
        prop_assert_eq!(demux(cut(&bytes, &sizes)), whole);
        read_file(&bytes);
    }

    #[test]
    fn bad_sizes_and_counts_do_no_harm(
        clip in 0usize..3,
        changes in vec((any::<prop::sample::Index>(), prop_oneof![
            prop::sample::select(vec![0, 1, 2, 7, 8, 9, 0x7fff_ffff, 0x8000_0000, u32::MAX]),
            any::<u32>(),
            0u32..5_000,
        ]), 1..4),
    ) {
        let mut bytes = CLIPS[clip].clone();
        let fields = fields(&bytes);
        for (place, value) in changes {
            let at = fields[place.index(fields.len())];
            bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        let whole = demux(std::iter::once(bytes.as_slice()));
        prop_assert_eq!(demux(cut(&bytes, &[977])), whole);
        read_file(&bytes);
    }

    #[test]
    fn a_cut_clip_is_reported_as_such(clip in 0usize..3, end in any::<prop::sample::Index>()) {
        let bytes = &CLIPS[clip];
        let end = end.index(bytes.len());
        let (events, error) = demux(std::iter::once(&bytes[..end]));
        prop_assert!(error.is_some() || events.last() == Some(&SourceEvent::End));
        read_file(&bytes[..end]);
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in vec(any::<u8>(), 0..3_000)) {
        demux(std::iter::once(bytes.as_slice()));
        read_file(&bytes);
        let _ = astral_media::catalog::Catalog::decode(&bytes);
        let _ = astral_media::h264::AvcConfig::parse(&bytes);
        let _ = astral_media::aac::AudioSpecificConfig::parse(&bytes);
        let _ = astral_media::frame::audio_units(&bytes.into());
    }

    #[test]
    fn random_boxes_do_no_harm(
        boxes in vec((prop::sample::select(vec![*b"moof", *b"mdat", *b"moov", *b"free"]),
            vec(any::<u8>(), 0..300)), 0..8),
    ) {
        let mut bytes = CLIPS[0][..1441.min(CLIPS[0].len())].to_vec();
        for (kind, body) in boxes {
            bytes.extend((body.len() as u32 + 8).to_be_bytes());
            bytes.extend(kind);
            bytes.extend(body);
        }
        demux(std::iter::once(bytes.as_slice()));
        read_file(&bytes);
    }
}
