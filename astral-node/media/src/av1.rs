//! AV1 as containers carry it: configuration records and temporal units.
//!
//! Follows "AV1 Bitstream & Decoding Process" (OBUs, §5) and "AV1 Codec ISO Media
//! File Format Binding" (record, samples, §2). Every temporal unit that leaves here
//! has OBUs with sizes, no delimiters, and begins with its sequence header if a
//! decoder can start with it. Tiles are never decoded. No frame is called
//! discardable: what refers to what stands too deep in the frame headers.

mod obu;
mod sequence;

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

use crate::track::CodecConfig;
use obu::{Obu, Obus, put_obu};
pub use sequence::SequenceHeader;

/// Longest `av1C` that is taken or written, in bytes: real ones have 15 to 60.
pub const MAX_RECORD: usize = 4096;
/// Most OBUs in one temporal unit: as many tile groups as tiles, and some metadata.
pub const MAX_OBUS: usize = 8192;

/// Bytes of a record before its OBUs.
const HEAD: usize = 4;
/// Marker bit and version of the record.
const VERSION: u8 = 0x81;

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;
const FRAME_HEADER: u8 = 3;
const FRAME: u8 = 6;
const TILE_LIST: u8 = 8;
const PADDING: u8 = 15;

/// Why AV1 bytes were refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Av1Error {
    /// It ends too early.
    #[error("AV1 {0} is cut short")]
    Truncated(&'static str),
    /// Marker and version are not those of `av1C`.
    #[error("AV1 configuration record begins with {0:#04x} instead of 0x81")]
    Version(u8),
    /// The record passes [`MAX_RECORD`].
    #[error("AV1 configuration record of {0} bytes is longer than 4096")]
    RecordTooLong(usize),
    /// A sequence header holds a value that the specification or our limits exclude.
    #[error("AV1 sequence header has a bad {0}")]
    SequenceHeader(&'static str),
    /// An OBU claims more bytes than its temporal unit has.
    #[error("AV1 OBU at byte {at} of a temporal unit of {size} bytes is broken")]
    Obu {
        /// Where the OBU starts.
        at: usize,
        /// Size of the temporal unit.
        size: usize,
    },
    /// The temporal unit has more than [`MAX_OBUS`] OBUs.
    #[error("AV1 temporal unit has more than 8192 OBUs")]
    TooManyObus,
}

/// A decoder configuration, checked, with the record that says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Av1Config {
    record: Bytes,
    /// The sequence header's OBU payload, and what it says.
    sequence: Option<(Bytes, SequenceHeader)>,
}

impl Av1Config {
    /// A configuration without a sequence header: it is to come within the first
    /// temporal unit.
    pub fn empty() -> Self {
        Self {
            record: Bytes::from_static(&[VERSION, 0, 0, 0]),
            sequence: None,
        }
    }

    /// Reads an `AV1CodecConfigurationRecord` (the body of `av1C`).
    ///
    /// A record without sequence header is taken; it is not
    /// [complete](Self::is_complete) until [`Self::with_sequence`].
    ///
    /// # Errors
    /// See [`Av1Error`]; the record's length is checked first.
    pub fn parse(record: &[u8]) -> Result<Self, Av1Error> {
        if record.len() > MAX_RECORD {
            return Err(Av1Error::RecordTooLong(record.len()));
        }
        let short = Av1Error::Truncated("configuration record");
        let (head, obus) = record.split_first_chunk::<HEAD>().ok_or(short)?;
        if head[0] != VERSION {
            return Err(Av1Error::Version(head[0]));
        }
        let mut sequence = None;
        for obu in Obus::new(obus) {
            let obu = obu?;
            if obu.kind == SEQUENCE_HEADER && sequence.is_none() {
                let header = SequenceHeader::parse(obu.payload)?;
                sequence = Some((Bytes::copy_from_slice(obu.payload), header));
            }
        }
        Ok(Self {
            record: Bytes::copy_from_slice(record),
            sequence,
        })
    }

    /// The record: as it was parsed, or made of a sequence header.
    pub fn record(&self) -> &Bytes {
        &self.record
    }

    /// Whether the record says what its pictures are.
    pub fn is_complete(&self) -> bool {
        self.sequence.is_some()
    }

    /// Largest picture width and height in pixels; none without a sequence header.
    pub fn size(&self) -> Option<(u32, u32)> {
        let (_, header) = self.sequence.as_ref()?;
        Some((header.width, header.height))
    }

    /// "Codecs Parameter String" of the ISO binding, such as `av01.0.04M.08`.
    pub fn codec_string(&self) -> String {
        let header = self.sequence.as_ref().map(|(_, header)| *header);
        let header = header.unwrap_or_default();
        format!(
            "av01.{}.{:02}{}.{:02}",
            header.profile,
            header.level,
            if header.high_tier { 'H' } else { 'M' },
            header.bit_depth,
        )
    }

    /// The track's configuration, once [complete](Self::is_complete).
    pub fn codec_config(&self) -> Option<CodecConfig> {
        let (width, height) = self.size()?;
        Some(CodecConfig::Av1 {
            av1c: self.record.clone(),
            width,
            height,
        })
    }

    /// A configuration of this sequence header, an OBU's payload.
    ///
    /// # Errors
    /// [`Av1Error`] if it does not parse or is too long for a record.
    pub fn with_sequence(&self, payload: &[u8]) -> Result<Self, Av1Error> {
        let header = SequenceHeader::parse(payload)?;
        let mut out = BytesMut::new();
        out.put_slice(&[VERSION]);
        out.put_slice(&header.record_fields());
        put_obu(&mut out, SEQUENCE_HEADER, None, payload);
        if out.len() > MAX_RECORD {
            return Err(Av1Error::RecordTooLong(out.len()));
        }
        Ok(Self {
            record: out.freeze(),
            sequence: Some((Bytes::copy_from_slice(payload), header)),
        })
    }
}

/// One temporal unit, fit for an `av01` track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CleanTu {
    /// OBUs with sizes, in memory of their own.
    pub data: Bytes,
    /// It begins with a key frame that is shown: a decoder can start here.
    pub keyframe: bool,
    /// It has a frame at all; without one there is nothing to show or to send.
    pub has_frames: bool,
    /// Payload of a sequence header that differs from the record's: make a new record
    /// of it ([`Av1Config::with_sequence`]) before this picture.
    pub changed: Option<Bytes>,
}

/// Takes out of a temporal unit what does not belong in an `av01` sample, and puts
/// the sequence header in front of a key frame that comes without one.
///
/// Delimiters, padding and tile lists go; OBUs without a size get one.
///
/// # Errors
/// [`Av1Error::Obu`] if sizes do not add up, [`Av1Error::TooManyObus`], or
/// [`Av1Error::SequenceHeader`].
pub fn clean_temporal_unit(config: &Av1Config, data: &[u8]) -> Result<CleanTu, Av1Error> {
    let mut obus = Vec::new();
    for obu in Obus::new(data) {
        if obus.len() >= MAX_OBUS {
            return Err(Av1Error::TooManyObus);
        }
        let obu = obu?;
        if !matches!(obu.kind, TEMPORAL_DELIMITER | TILE_LIST | PADDING) {
            obus.push(obu);
        }
    }
    let sequence = obus.iter().find(|obu| obu.kind == SEQUENCE_HEADER);
    let known = config.sequence.as_ref().map(|(payload, _)| payload);
    let changed = sequence.filter(|obu| known.is_none_or(|known| known != obu.payload));
    let frame = obus
        .iter()
        .find(|obu| matches!(obu.kind, FRAME_HEADER | FRAME));
    let reduced = match changed {
        Some(obu) => SequenceHeader::parse(obu.payload)?.reduced_still_picture,
        None => (config.sequence.as_ref()).is_some_and(|(_, header)| header.reduced_still_picture),
    };
    let keyframe = frame.is_some_and(|frame| reduced || is_shown_key_frame(frame));
    let mut out = BytesMut::with_capacity(data.len() + known.map_or(0, |known| known.len() + 8));
    if let (true, None, Some(known)) = (keyframe, sequence, known) {
        put_obu(&mut out, SEQUENCE_HEADER, None, known);
    }
    for obu in &obus {
        put_obu(&mut out, obu.kind, obu.extension, obu.payload);
    }
    Ok(CleanTu {
        data: out.freeze(),
        keyframe,
        has_frames: frame.is_some(),
        changed: changed.map(|obu| Bytes::copy_from_slice(obu.payload)),
    })
}

/// `uncompressed_header` (§5.9.2) begins with `show_existing_frame`, two bits of
/// `frame_type` (0 is a key frame) and `show_frame`.
fn is_shown_key_frame(frame: &Obu<'_>) -> bool {
    let first = frame.payload.first();
    first.is_some_and(|first| first & 0xf0 == 0x10)
}

#[cfg(test)]
pub(crate) mod tests;
