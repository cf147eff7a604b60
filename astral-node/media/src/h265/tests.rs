use proptest::prelude::*;

use super::*;
use crate::track::CodecConfig;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// 320x180, Main, level 2.0, as x265 wrote it, with the start of its SEI.
const SMALL: &str = "0101600000009000000000003cf000fcfdf8f800000f04a00001001840010c01ffff0160000003009000\
     0003000003003c959409a10001002b42010101600000030090000003000003003ca00a080c1f3e595952\
     930bc05a020000030002000003003c10a2000100064401c073c189270001000a4e0105ffffffffffffff";
/// 322x182, Main 10.
const TEN_BITS: &str = "0102200000009000000000003cf000fcfdfafa00000f03200001001840010c01ffff0220000003009000\
     0003000003003c959409210001002b42010102200000030090000003000003003ca00a880c1c44cd9656\
     54a4c2f0168080000003008000000f0422000100064401c073c189";

pub(crate) fn small() -> HevcConfig {
    HevcConfig::parse(&hex(SMALL)).unwrap()
}

/// A NAL unit of a type, of layer 0 and the lowest temporal sub-layer.
fn nal(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind << 1, 1][..], body].concat()
}

fn access_unit(nals: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for nal in nals {
        out.extend((nal.len() as u32).to_be_bytes());
        out.extend_from_slice(nal);
    }
    out
}

#[test]
fn records_of_x265_give_size_and_name() {
    let small = small();
    assert_eq!(small.size(), Some((320, 180)));
    assert_eq!(small.codec_string(), "hvc1.1.6.L60.90");
    assert!(small.is_complete());
    let ten = HevcConfig::parse(&hex(TEN_BITS)).unwrap();
    assert_eq!(ten.size(), Some((322, 182)));
    assert_eq!(ten.codec_string(), "hvc1.2.4.L60.90");
}

#[test]
fn the_written_record_has_complete_sets_and_no_words_of_the_encoder() {
    let small = small();
    let written = HevcConfig::parse(small.record()).unwrap();
    assert_eq!(written.record(), small.record());
    assert_eq!(small.record()[22], 3, "arrays");
    assert_eq!(small.record()[23], 0x80 | VPS);
    assert!(matches!(
        small.codec_config(),
        Some(CodecConfig::H265 { width: 320, height: 180, hvcc }) if hvcc == *small.record()
    ));
}

#[test]
fn a_record_is_made_of_the_sets_within_a_picture() {
    for text in [SMALL, TEN_BITS] {
        let config = HevcConfig::parse(&hex(text)).unwrap();
        let sets = config.parameter_sets();
        let nals = [&sets.vps[0], &sets.sps[0], &sets.pps[0]].map(|nal| nal.to_vec());
        let idr = nal(19, &[0x80]);
        let data = access_unit(&[&nals[..], std::slice::from_ref(&idr)].concat());
        let empty = HevcConfig::empty();
        assert!(!empty.is_complete() && empty.codec_config().is_none());
        let unit = clean_access_unit(&empty, &data).unwrap();
        assert_eq!(unit.data, access_unit(&[idr]));
        let made = empty.with_parameter_sets(&unit.changed).unwrap();
        assert_eq!(made.record(), config.record());
        let again = clean_access_unit(&made, &data).unwrap();
        assert!(again.changed.is_empty());
    }
}

#[test]
fn irap_pictures_are_keyframes() {
    let config = small();
    for (kind, keyframe) in [(0, false), (1, false), (16, true), (19, true), (21, true)] {
        let unit = clean_access_unit(&config, &access_unit(&[nal(kind, &[0x80])])).unwrap();
        assert_eq!(unit.keyframe, keyframe, "type {kind}");
        assert!(unit.has_slices);
    }
}

#[test]
fn only_non_reference_pictures_of_the_highest_sub_layer_are_discardable() {
    let discardable = |layers: u8, kind: u8, temporal_id: u8| {
        let header = Header {
            kind,
            layer: 0,
            temporal_id,
        };
        header.is_unreferenced(layers)
    };
    assert!(discardable(1, 0, 0));
    assert!(discardable(1, 8, 0));
    assert!(!discardable(1, 1, 0));
    assert!(!discardable(1, 16, 0));
    assert!(!discardable(3, 0, 0));
    assert!(discardable(3, 2, 2));
}

#[test]
fn delimiters_filler_and_other_layers_go_and_the_rest_stays() {
    let (sei, slice, end) = (nal(39, &[1, 2]), nal(1, &[0x80]), nal(36, &[]));
    let other_layer = vec![1 << 1, 1 << 3 | 1, 0x80];
    let dirty = [
        nal(AUD, &[0x50]),
        sei.clone(),
        slice.clone(),
        other_layer,
        nal(FILLER, &[0xff; 9]),
        vec![],
        vec![2],
        end.clone(),
    ];
    let unit = clean_access_unit(&small(), &access_unit(&dirty)).unwrap();
    assert_eq!(unit.data, access_unit(&[sei, slice, end]));
}

#[test]
fn broken_bytes_are_refused_with_words() {
    let whole = hex(SMALL);
    let words = |bytes: &[u8]| HevcConfig::parse(bytes).unwrap_err().to_string();
    assert_eq!(
        words(&whole[..60]),
        "H.265 configuration record is cut short"
    );
    let mut version = whole.clone();
    version[0] = 2;
    assert!(words(&version).contains("version 2"));
    let mut lengths = whole.clone();
    lengths[21] = 0x0e;
    assert!(words(&lengths).contains("lengths of 3 bytes"));
    let long = vec![1; MAX_SOURCE_RECORD + 1];
    assert!(words(&long).contains("too long"));
    let cut = clean_access_unit(&small(), &[0, 0, 0, 9, 2, 1]);
    assert_eq!(
        cut.unwrap_err().to_string(),
        "H.265 NAL unit at byte 0 of an access unit of 6 bytes runs past its end"
    );
}

proptest! {
    #[test]
    fn changed_records_and_pictures_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..10),
        picture in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = hex(SMALL);
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        let config = HevcConfig::parse(&bytes).unwrap_or_else(|_| small());
        prop_assert!(config.record().len() <= MAX_RECORD);
        let _ = config.codec_string();
        if let Ok(unit) = clean_access_unit(&config, &picture) {
            let _ = config.with_parameter_sets(&unit.changed);
        }
        let whole = access_unit(&[nal(SPS, &picture), nal(VPS, &bytes), nal(PPS, &picture)]);
        let unit = clean_access_unit(&config, &whole).unwrap();
        let _ = config.with_parameter_sets(&unit.changed);
        let _ = Sps::parse(&picture);
    }
}
