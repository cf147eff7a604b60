use super::*;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn nal(header: u8, body: &[u8]) -> Vec<u8> {
    [&[header][..], body].concat()
}

fn access_unit(nals: &[Vec<u8>], length_size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for nal in nals {
        let length = (nal.len() as u32).to_be_bytes();
        out.extend_from_slice(&length[4 - length_size..]);
        out.extend_from_slice(nal);
    }
    out
}

/// 640x360, Main, level 3.0, as x264 wrote it.
const SMALL: &str =
    "014d401effe10018674d401eeca05017fcb80880000003008000001e078b16cb01000468ce0fc8";
/// 1920x1080 interlaced, High, level 4.0: cropped by eight lines of two fields.
const INTERLACED: &str = "01640028ffe1001a67640028acd94078044fde0220000003002000000783e2c5b2c001000668fba3cb22c0fdf8f800";
/// 1918x1078, High 4:2:2 of ten bits.
const HIGH_422: &str =
    "017a0028ffe1001b677a0028b6ce8078044f5360220000030002000003003c3e2c5d4001000468de0fc8fefafa00";

pub(crate) fn small() -> AvcConfig {
    AvcConfig::parse(&hex(SMALL)).unwrap()
}

#[test]
fn picture_sizes_are_those_after_cropping() {
    let size = |record: &str| AvcConfig::parse(&hex(record)).unwrap().size();
    assert_eq!(size(SMALL), Some((640, 360)));
    assert_eq!(size(INTERLACED), Some((1920, 1080)));
    assert_eq!(size(HIGH_422), Some((1918, 1078)));
}

#[test]
fn codec_string_is_that_of_the_record() {
    let record = hex(INTERLACED);
    let expected = format!("avc1.{:02x}{:02x}{:02x}", record[1], record[2], record[3]);
    assert_eq!(AvcConfig::parse(&record).unwrap().codec_string(), expected);
}

#[test]
fn a_record_of_four_byte_lengths_is_kept_byte_for_byte() {
    assert_eq!(small().record().as_ref(), hex(SMALL));
}

#[test]
fn shorter_lengths_become_four_bytes_in_record_and_access_units() {
    for length_size in [1u8, 2] {
        let mut record = hex(SMALL);
        record[4] = 0xfc | (length_size - 1);
        let config = AvcConfig::parse(&record).unwrap();
        assert_eq!(config.record().as_ref(), hex(SMALL));
        let nals = [nal(0x65, &[1, 2, 3])];
        let unit =
            clean_access_unit(&config, &access_unit(&nals, usize::from(length_size))).unwrap();
        assert_eq!(unit.data.as_ref(), access_unit(&nals, 4));
        assert!(unit.keyframe);
    }
}

#[test]
fn delimiters_filler_and_known_parameter_sets_go() {
    let config = small();
    let slices = [nal(0x06, &[5, 1]), nal(0x65, &[7; 9]), nal(0x65, &[8; 9])];
    let mut nals = vec![nal(0x09, &[0x10]), config.sps[0].to_vec()];
    nals.push([config.pps[0].as_ref(), &[0, 0]].concat());
    nals.extend(slices.clone());
    nals.extend([
        nal(0x0c, &[0xff; 30]),
        nal(0x0a, &[]),
        nal(0x0b, &[]),
        vec![],
    ]);
    let unit = clean_access_unit(&config, &access_unit(&nals, 4)).unwrap();
    assert_eq!(unit.data.as_ref(), access_unit(&slices, 4));
    assert!(unit.changed.is_empty());
    assert!(unit.keyframe && !unit.discardable && unit.has_slices);
}

#[test]
fn pictures_without_reference_are_discardable() {
    let unit = |nals: &[Vec<u8>]| clean_access_unit(&small(), &access_unit(nals, 4)).unwrap();
    assert!(unit(&[nal(0x06, &[1]), nal(0x01, &[1]), nal(0x01, &[1])]).discardable);
    assert!(!unit(&[nal(0x01, &[1]), nal(0x41, &[1])]).discardable);
    let empty = unit(&[nal(0x09, &[1])]);
    assert!(!empty.has_slices && !empty.discardable && empty.data.is_empty());
}

#[test]
fn changed_parameter_sets_make_a_new_record() {
    let other = AvcConfig::parse(&hex(INTERLACED)).unwrap();
    let nals = [
        other.sps[0].to_vec(),
        other.pps[0].to_vec(),
        nal(0x65, &[1]),
    ];
    let unit = clean_access_unit(&small(), &access_unit(&nals, 4)).unwrap();
    assert_eq!(unit.data.as_ref(), access_unit(&nals[2..], 4));
    let next = small().with_parameter_sets(&unit.changed).unwrap();
    assert_eq!(next, AvcConfig::parse(next.record()).unwrap());
    assert_eq!(next.size(), Some((1920, 1080)));
    assert_eq!(next.record(), other.record());
    assert!(
        clean_access_unit(&next, &access_unit(&nals, 4))
            .unwrap()
            .changed
            .is_empty()
    );
}

#[test]
fn a_record_without_parameter_sets_waits_for_them() {
    let empty = AvcConfig::parse(&[1, 66, 192, 30, 0xff, 0xe0, 0]).unwrap();
    assert!(!empty.is_complete());
    assert_eq!(empty.codec_config(), None);
    let sets = ParameterSets {
        sps: small().sps,
        pps: small().pps,
    };
    let full = empty.with_parameter_sets(&sets).unwrap();
    assert_eq!(full.record(), small().record());
}

#[test]
fn broken_bytes_are_refused_with_words() {
    let record = hex(SMALL);
    for end in 0..record.len() {
        assert!(AvcConfig::parse(&record[..end]).is_err(), "cut at {end}");
    }
    assert_eq!(
        AvcConfig::parse(&[0; 5000]),
        Err(H264Error::RecordTooLong(5000))
    );
    let cut = clean_access_unit(&small(), &[0, 0, 0, 9, 0x65]);
    assert_eq!(cut, Err(H264Error::NalLength(NalLength { at: 0, size: 5 })));
    let many = access_unit(&vec![nal(0x01, &[]); MAX_NAL_UNITS + 1], 4);
    assert_eq!(
        clean_access_unit(&small(), &many),
        Err(H264Error::TooManyNalUnits)
    );
}

/// The parameter sets of another record than [`small`]'s.
pub(crate) fn interlaced_sets() -> [Bytes; 2] {
    let config = AvcConfig::parse(&hex(INTERLACED)).unwrap();
    [config.sps[0].clone(), config.pps[0].clone()]
}
