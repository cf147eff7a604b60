use proptest::prelude::*;

use super::*;

/// 320x180, Main, 8 bits, as SVT-AV1 wrote it.
pub(crate) const RECORD: [u8; 17] = [
    0x81, 0x00, 0x0c, 0x00, 0x0a, 0x0b, 0x00, 0x00, 0x00, 0x04, 0x3c, 0xfe, 0xcc, 0x02, 0xf8, 0x00,
    0x40,
];
/// The sequence header of the same stream: other tools than the record says.
const SEQUENCE: [u8; 11] = [
    0x00, 0x00, 0x00, 0x04, 0x3c, 0xfe, 0xcc, 0xfb, 0xf9, 0x00, 0x40,
];
/// Starts of frames: shown key frame, hidden key frame, shown inter frame, an
/// existing one shown again.
const KEY: [u8; 3] = [0x10, 0, 0];
const HIDDEN_KEY: [u8; 3] = [0x00, 0, 0];
const INTER: [u8; 3] = [0x30, 0, 0];
const EXISTING: [u8; 1] = [0x90];

fn config() -> Av1Config {
    Av1Config::parse(&RECORD).unwrap()
}

fn unit(obus: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = BytesMut::new();
    for (kind, payload) in obus {
        put_obu(&mut out, *kind, None, payload);
    }
    out.to_vec()
}

#[test]
fn a_record_gives_size_and_name() {
    let config = config();
    assert_eq!(config.size(), Some((320, 180)));
    assert_eq!(config.codec_string(), "av01.0.00M.08");
    assert_eq!(config.record(), &RECORD[..]);
}

#[test]
fn a_record_is_made_of_the_sequence_header_within_a_picture() {
    let empty = Av1Config::empty();
    assert!(!empty.is_complete() && empty.codec_config().is_none());
    let data = unit(&[(SEQUENCE_HEADER, &SEQUENCE), (FRAME, &KEY)]);
    let clean = clean_temporal_unit(&empty, &data).unwrap();
    assert!(clean.keyframe);
    let config = empty.with_sequence(&clean.changed.unwrap()).unwrap();
    assert_eq!(config.record()[..4], RECORD[..4]);
    assert_eq!(Av1Config::parse(config.record()), Ok(config.clone()));
    let again = clean_temporal_unit(&config, &data).unwrap();
    assert_eq!((again.changed, again.data), (None, data.into()));
}

#[test]
fn shown_key_frames_are_keyframes() {
    let sequence = (SEQUENCE_HEADER, &SEQUENCE[..]);
    for (frame, keyframe) in [
        (&KEY[..], true),
        (&HIDDEN_KEY, false),
        (&INTER, false),
        (&EXISTING, false),
    ] {
        for kind in [FRAME, FRAME_HEADER] {
            let data = unit(&[sequence, (kind, frame)]);
            let clean = clean_temporal_unit(&config(), &data).unwrap();
            assert_eq!((clean.keyframe, clean.has_frames), (keyframe, true));
        }
    }
    let alone = clean_temporal_unit(&config(), &unit(&[sequence])).unwrap();
    assert!(!alone.keyframe && !alone.has_frames);
}

#[test]
fn delimiters_go_and_a_keyframe_gets_its_sequence_header() {
    let data = unit(&[
        (TEMPORAL_DELIMITER, &[]),
        (FRAME, &KEY),
        (PADDING, &[0; 200]),
    ]);
    let clean = clean_temporal_unit(&config(), &data).unwrap();
    let whole = unit(&[(SEQUENCE_HEADER, &RECORD[6..]), (FRAME, &KEY)]);
    assert_eq!(clean.data, whole);
    let data = unit(&[(TEMPORAL_DELIMITER, &[]), (FRAME, &INTER)]);
    let clean = clean_temporal_unit(&config(), &data).unwrap();
    assert_eq!(clean.data, unit(&[(FRAME, &INTER)]));
}

#[test]
fn units_without_a_size_get_one_and_long_ones_keep_theirs() {
    let long = [&INTER[..], &[7; 300]].concat();
    let mut unsized_obu = vec![FRAME << 3];
    unsized_obu.extend(&long);
    let clean = clean_temporal_unit(&config(), &unsized_obu).unwrap();
    assert_eq!(clean.data, unit(&[(FRAME, &long)]));
    let again = clean_temporal_unit(&config(), &clean.data).unwrap();
    assert_eq!(again.data, clean.data);
}

#[test]
fn broken_bytes_are_refused_with_words() {
    let words = |bytes: &[u8]| Av1Config::parse(bytes).unwrap_err().to_string();
    assert_eq!(words(&RECORD[..3]), "AV1 configuration record is cut short");
    assert!(words(&[1, 0, 0, 0]).contains("begins with 0x01"));
    assert!(words(&[0; MAX_RECORD + 1]).contains("4097 bytes"));
    assert_eq!(
        words(&[0x81, 0, 0, 0, 0x0a, 1, 0]),
        "AV1 sequence header is cut short"
    );
    let broken = |bytes: &[u8]| clean_temporal_unit(&config(), bytes).unwrap_err();
    assert_eq!(
        broken(&[FRAME << 3 | 2, 9]),
        Av1Error::Obu { at: 0, size: 2 }
    );
    assert_eq!(broken(&[0xff; 12]), Av1Error::Obu { at: 0, size: 12 });
    let endless_size = [&[FRAME << 3 | 2][..], &[0x80; 8], &[0]].concat();
    assert_eq!(broken(&endless_size), Av1Error::Obu { at: 0, size: 10 });
    let many = unit(&vec![(5, &[][..]); MAX_OBUS + 1]);
    assert_eq!(broken(&many), Av1Error::TooManyObus);
}

proptest! {
    #[test]
    fn changed_bytes_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..10),
        tail in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = [&RECORD[..], &unit(&[(FRAME, &KEY)]), &tail].concat();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let _ = Av1Config::parse(&bytes).map(|config| config.codec_string());
        if let Ok(clean) = clean_temporal_unit(&config(), &bytes[4..]) {
            prop_assert!(clean.data.len() <= bytes.len() + 64);
            let _ = clean.changed.map(|changed| config().with_sequence(&changed));
        }
        let _ = SequenceHeader::parse(&tail);
    }
}
