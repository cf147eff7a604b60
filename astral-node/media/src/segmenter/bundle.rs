//! Audio frames gathered into one: short ones would cost more to sign than to send.

use bytes::Bytes;

use crate::frame::pack_audio;

/// Length from which a bundle is complete, in thousandths of a second: two AAC frames at 48 kHz.
const COMPLETE_MS: i64 = 40;
/// Most codec frames in a bundle (readers take 64), reached only by very short ones.
const UNITS_MAX: usize = 32;
/// Bytes from which a bundle is complete; real ones have about 1 KiB.
const BYTES_MAX: usize = 64 << 10;

/// Codec frames without a gap between them.
#[derive(Debug)]
pub(super) struct Bundle {
    /// First decoding time and end, ticks.
    pub(super) dts: i64,
    pub(super) end: i64,
    /// Presentation minus decoding time of the first, ticks.
    pub(super) cts: i32,
    /// Samples per channel in each codec frame.
    pub(super) unit_samples: u32,
    units: Vec<Bytes>,
    bytes: usize,
}

impl Bundle {
    pub(super) fn new(dts: i64, cts: i32, unit_samples: u32) -> Self {
        Self {
            dts,
            end: dts,
            cts,
            unit_samples,
            units: Vec::new(),
            bytes: 0,
        }
    }

    pub(super) fn push(&mut self, unit: Bytes, end: i64) {
        self.bytes += unit.len();
        self.units.push(unit);
        self.end = end;
    }

    pub(super) fn is_complete(&self, timescale: u32) -> bool {
        let long = (self.end - self.dts) * 1000 >= COMPLETE_MS * i64::from(timescale);
        long || self.units.len() >= UNITS_MAX || self.bytes >= BYTES_MAX
    }

    pub(super) fn payload(&self) -> Bytes {
        pack_audio(&self.units)
    }
}
