//! What can be wrong with an MP4, with the box and the byte where it stands.

use std::fmt;

use thiserror::Error;

use crate::codec::CodecError;

/// A box's or codec's four-character code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub [u8; 4]);

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{}", byte.escape_ascii())?;
        }
        Ok(())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FourCc({self})")
    }
}

/// A track that was left out, because its codec is not carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IgnoredTrack {
    /// The container's track number.
    pub id: u32,
    /// Its sample entry.
    pub codec: FourCc,
}

/// Why an MP4 was refused. Offsets are in bytes from the start of the stream or file.
#[derive(Debug, Error)]
pub enum Fmp4Error {
    /// A size field that cannot be.
    #[error("box `{kind}` at byte {offset} has a bad size")]
    BoxSize {
        /// The box.
        kind: FourCc,
        /// Where its header starts.
        offset: u64,
    },
    /// A box that is held whole passes its limit.
    #[error("box `{kind}` at byte {offset} has {size} bytes, the limit is {limit}")]
    BoxTooLarge {
        /// The box.
        kind: FourCc,
        /// Where its header starts.
        offset: u64,
        /// Bytes of its body.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A box whose content does not parse.
    #[error("box `{kind}` at byte {offset}: {error}")]
    Malformed {
        /// The box.
        kind: FourCc,
        /// Where its header starts.
        offset: u64,
        /// What the parser said.
        error: mp4_atom::Error,
    },
    /// A box whose values contradict each other.
    #[error("box `{kind}` at byte {offset}: {reason}")]
    Invalid {
        /// The box.
        kind: FourCc,
        /// Where its header starts.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// Media came before any `moov`.
    #[error("box `{kind}` at byte {offset} comes before any `moov`")]
    NoMoov {
        /// The box.
        kind: FourCc,
        /// Where its header starts.
        offset: u64,
    },
    /// Protected media (Common Encryption).
    #[error("track {track} is encrypted (`{entry}`); send it without protection")]
    Encrypted {
        /// The container's track number.
        track: u32,
        /// Sample entry: `encv` or `enca`.
        entry: FourCc,
    },
    /// The pictures, or all tracks, have codecs that are not carried; this is the first one's.
    #[error("codec `{0}` is not supported; send H.264, H.265 or AV1 video and AAC or Opus audio")]
    UnsupportedCodec(FourCc),
    /// `moov` lists no track at all.
    #[error("`moov` at byte {offset} has no track")]
    NoTracks {
        /// Where its header starts.
        offset: u64,
    },
    /// More usable tracks than [`crate::catalog::MAX_TRACKS`].
    #[error("`moov` at byte {offset} has {count} tracks, the limit is 8")]
    TooManyTracks {
        /// Where the box's header starts.
        offset: u64,
        /// How many.
        count: usize,
    },
    /// More samples than [`super::demux::MAX_SAMPLES`] are announced and not yet here.
    #[error("box `{kind}` at byte {offset} announces more than 20000 samples")]
    TooManySamples {
        /// The box.
        kind: FourCc,
        /// Where its header starts.
        offset: u64,
    },
    /// A sample larger than [`super::demux::MAX_SAMPLE`].
    #[error("track {track} has a sample of {size} bytes, the limit is 8 MiB")]
    SampleTooLarge {
        /// The container's track number.
        track: u32,
        /// Bytes.
        size: u32,
    },
    /// A sample lies where no media data is, or where it has gone by.
    #[error("track {track} has a sample at byte {offset} that is not in a coming `mdat`")]
    SamplePosition {
        /// The container's track number.
        track: u32,
        /// Where the sample should be.
        offset: u64,
    },
    /// A configuration or coded frame that does not parse.
    #[error("track {track} at byte {offset}: {error}")]
    Codec {
        /// The container's track number.
        track: u32,
        /// Where the configuration's `moov` or the sample starts.
        offset: u64,
        /// What is wrong.
        error: CodecError,
    },
    /// The source ended inside a box, or before the samples that it announced.
    #[error("the source ended at byte {offset}, inside `{kind}`")]
    Truncated {
        /// The box that was not complete.
        kind: FourCc,
        /// Bytes received.
        offset: u64,
    },
    /// An error before this one already ended the stream.
    #[error("the stream was refused before")]
    Poisoned,
}
