//! Stand-ins until the catalog is there.

use bytes::Bytes;

use crate::track::{CodecConfig, Track};

/// See the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Catalog {
    pub version: u32,
    pub epoch: u32,
    pub first_group: u64,
    pub first_sequence: u64,
    pub target_duration_ms: Option<u32>,
    pub part_target_ms: u32,
    pub timeline_start_ms: i64,
    pub wall_clock_start_ms: u64,
    pub bitrate_bps: Option<u32>,
    pub tracks: Vec<Track>,
}

pub(super) fn pack_audio(units: &[Bytes]) -> Bytes {
    let mut out = Vec::new();
    for unit in units {
        let length = unit.len() as u32 | 0x8000_0000;
        out.extend(length.to_be_bytes());
        out.extend(unit);
    }
    out.into()
}

pub(super) fn samples_per_frame(_config: &CodecConfig) -> Option<u32> {
    Some(1024)
}
