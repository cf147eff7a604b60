//! Named frames: what the segmenter makes, the network carries and the muxers take.
//!
//! A video frame's payload is one access unit with length-prefixed NAL units.
//! An audio frame's payload is a *bundle* of one or more codec frames of equal
//! duration, each behind its length as a QUIC variable-length integer
//! (RFC 9000 §16): short frames would cost more to sign than to send.

use bytes::{BufMut, Bytes, BytesMut};
use thiserror::Error;

/// Most codec frames in one audio bundle.
///
/// 64 AAC frames of 48 kHz are 1.4 s; bundles are made of 20 to 60 ms.
pub const MAX_AUDIO_UNITS: usize = 64;

/// One coded picture, or some tens of milliseconds of sound, under its global name.
///
/// `(epoch, track, group, index)` names the frame everywhere and for ever; the
/// times are on the stream's one timeline, which goes on across epochs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Track number, from 1.
    pub track: u8,
    /// Epoch: changes when the encoder reconnects, is configured anew or jumps in time.
    pub epoch: u32,
    /// Group number; goes on across epochs, common to all tracks.
    pub group: u64,
    /// Position within this track's part of the group, from 0.
    pub index: u32,
    /// Position among all frames of all tracks of this group, from 0: the order
    /// in which a muxer writes them.
    pub order: u32,
    /// Decoding time in ticks of the track's timescale.
    pub dts: i64,
    /// Presentation time minus decoding time, in ticks.
    pub cts: i32,
    /// Expected duration in ticks; exact for audio and fMP4 sources, the last
    /// known distance for RTMP video. `dts` of the next frame is what counts.
    pub duration: u32,
    /// A decoder can start here.
    pub keyframe: bool,
    /// No other frame refers to this one: it goes first when there is no room.
    pub discardable: bool,
    /// First frame of a group that had to be cut without a keyframe.
    pub no_keyframe: bool,
    /// Coded bytes (see the module's words for their layout).
    pub payload: Bytes,
}

/// Why an audio bundle was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The bundle, or a codec frame in it, has no bytes.
    #[error("audio bundle or a codec frame in it is empty")]
    Empty,
    /// A length field or a codec frame runs past the end of the payload.
    #[error("audio bundle is cut short at byte {0}")]
    Truncated(usize),
    /// More than [`MAX_AUDIO_UNITS`] codec frames.
    #[error("audio bundle has more than 64 codec frames")]
    TooManyUnits,
}

/// Makes a bundle, the payload of an audio [`Frame`], of codec frames.
///
/// Readers refuse more than [`MAX_AUDIO_UNITS`] and frames without bytes.
pub fn pack_audio(units: &[Bytes]) -> Bytes {
    let size = units.iter().map(|unit| unit.len() + 8).sum();
    let mut out = BytesMut::with_capacity(size);
    for unit in units {
        put_varint(&mut out, unit.len() as u64);
        out.put_slice(unit);
    }
    out.freeze()
}

/// The codec frames of a bundle, sharing its memory.
///
/// # Errors
/// See [`FrameError`]; a bundle has at least one codec frame.
pub fn audio_units(payload: &Bytes) -> Result<Vec<Bytes>, FrameError> {
    let mut units = Vec::new();
    let mut at = 0;
    while at < payload.len() {
        if units.len() == MAX_AUDIO_UNITS {
            return Err(FrameError::TooManyUnits);
        }
        let short = FrameError::Truncated(at);
        let (length, prefix) = varint(&payload[at..]).ok_or(short)?;
        let length = usize::try_from(length).map_err(|_| short)?;
        if length == 0 {
            return Err(FrameError::Empty);
        }
        let start = at + prefix;
        let end = start.checked_add(length).ok_or(short)?;
        if end > payload.len() {
            return Err(short);
        }
        units.push(payload.slice(start..end));
        at = end;
    }
    if units.is_empty() {
        return Err(FrameError::Empty);
    }
    Ok(units)
}

/// Writes a variable-length integer (RFC 9000 §16) in its shortest form; values
/// beyond 62 bits do not occur, since these are lengths in memory.
fn put_varint(out: &mut BytesMut, value: u64) {
    match value {
        0..=0x3f => out.put_u8(value as u8),
        0x40..=0x3fff => out.put_u16(0x4000 | value as u16),
        0x4000..=0x3fff_ffff => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value),
    }
}

/// Reads a variable-length integer; answers its value and size in bytes.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let size = 1 << (first >> 6);
    let rest = bytes.get(1..size)?;
    let value = rest.iter().fold(u64::from(first & 0x3f), |value, &byte| {
        value << 8 | u64::from(byte)
    });
    Some((value, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_gives_back_its_codec_frames() {
        let units: Vec<Bytes> = [1usize, 63, 64, 300, 16_383, 16_384]
            .iter()
            .map(|&size| Bytes::from(vec![size as u8; size]))
            .collect();
        assert_eq!(audio_units(&pack_audio(&units)), Ok(units));
    }

    #[test]
    fn broken_bundles_are_refused() {
        let parse = |bytes: &'static [u8]| audio_units(&Bytes::from_static(bytes));
        assert_eq!(parse(&[]), Err(FrameError::Empty));
        assert_eq!(parse(&[0]), Err(FrameError::Empty));
        assert_eq!(parse(&[1, 7, 2, 7]), Err(FrameError::Truncated(2)));
        assert_eq!(parse(&[0xff; 8]), Err(FrameError::Truncated(0)));
        let many = vec![Bytes::from_static(b"x"); MAX_AUDIO_UNITS + 1];
        assert_eq!(
            audio_units(&pack_audio(&many)),
            Err(FrameError::TooManyUnits)
        );
    }

    #[test]
    fn varints_match_the_examples_of_rfc_9000() {
        let eight = [0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c];
        assert_eq!(varint(&eight), Some((151_288_809_941_952_652, 8)));
        assert_eq!(varint(&[0x9d, 0x7f, 0x3e, 0x7d]), Some((494_878_333, 4)));
        assert_eq!(varint(&[0x7b, 0xbd]), Some((15_293, 2)));
        assert_eq!(varint(&[0x40]), None);
    }
}
