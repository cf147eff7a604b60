use super::*;

/// 640x360 video at 15,360 ticks and stereo AAC of 48 kHz.
pub(crate) fn sample() -> Catalog {
    let record = crate::h264::tests::small().record().clone();
    let video = CodecConfig::H264 {
        avcc: record,
        width: 640,
        height: 360,
    };
    let audio = CodecConfig::Aac {
        asc: Bytes::from_static(&[0x11, 0x90]),
        sample_rate: 48_000,
        channels: 2,
    };
    let track = |id, timescale, config| Track {
        id,
        timescale,
        config,
    };
    Catalog {
        version: 3,
        epoch: 7,
        first_group: 1 << 40,
        first_sequence: 12,
        target_duration_ms: None,
        part_target_ms: 200,
        timeline_start_ms: -5,
        wall_clock_start_ms: 1_790_000_000_000,
        bitrate_bps: Some(3_000_000),
        tracks: vec![track(1, 15_360, video), track(2, 48_000, audio)],
    }
}

#[test]
fn a_catalog_survives_the_wire_and_mime_names_its_codecs() {
    let catalog = sample();
    let bytes = catalog.encode().unwrap();
    assert_eq!(Catalog::decode(&bytes).unwrap(), catalog);
    assert_eq!(
        catalog.mime(),
        "video/mp4; codecs=\"avc1.4d401e,mp4a.40.2\""
    );
}

#[test]
fn unknown_keys_and_codecs_are_passed_over() {
    let mut wire = Wire::from(&sample());
    wire.tracks[0].codec = 99;
    let mut bytes = minicbor::to_vec(wire).unwrap();
    assert_eq!(bytes[0] & 0xe0, 0xa0, "a map of known length");
    bytes[0] += 1;
    bytes.extend([0x18, 0x63, 0x82, 0x01, 0xf6]); // 99: [1, null]
    let catalog = Catalog::decode(&bytes).unwrap();
    assert_eq!(catalog.tracks, sample().tracks[1..]);
    assert_eq!(catalog.mime(), "audio/mp4; codecs=\"mp4a.40.2\"");
}

#[test]
fn values_that_would_hurt_later_are_refused() {
    let refused = |change: fn(&mut Catalog)| {
        let mut catalog = sample();
        change(&mut catalog);
        let bytes = minicbor::to_vec(Wire::from(&catalog)).unwrap();
        assert!(catalog.encode().is_err());
        Catalog::decode(&bytes).unwrap_err().to_string()
    };
    refused(|catalog| catalog.tracks.clear());
    refused(|catalog| catalog.tracks[0].id = 0);
    refused(|catalog| catalog.tracks[0].id = 64);
    refused(|catalog| catalog.tracks[0].id = 2);
    refused(|catalog| catalog.tracks[0].timescale = 0);
    refused(|catalog| catalog.tracks[0].timescale = MAX_TIMESCALE + 1);
    let record = refused(|catalog| {
        catalog.tracks[0].config = CodecConfig::H264 {
            avcc: Bytes::from_static(b"no"),
            width: 1,
            height: 1,
        };
    });
    assert_eq!(record, "track 1: H.264 configuration record is cut short");
}

#[test]
fn cut_or_lengthened_bytes_are_refused() {
    let bytes = sample().encode().unwrap();
    for end in 0..bytes.len() {
        assert!(Catalog::decode(&bytes[..end]).is_err(), "cut at {end}");
    }
    let longer = [bytes.as_ref(), &[0]].concat();
    assert!(matches!(
        Catalog::decode(&longer),
        Err(CatalogError::Trailing(1))
    ));
    let huge = vec![0; MAX_CATALOG + 1];
    assert!(matches!(
        Catalog::decode(&huge),
        Err(CatalogError::TooLong(_))
    ));
}
