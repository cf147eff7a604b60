//! Tracks and their decoder configuration.

use bytes::Bytes;

/// What a track carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrackKind {
    /// Coded pictures.
    Video,
    /// Coded sound.
    Audio,
}

/// Decoder configuration, as the codec's own specification lays it out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CodecConfig {
    /// H.264 with length-prefixed NAL units.
    H264 {
        /// `AVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §5.3.3.1).
        avcc: Bytes,
        /// Picture width in pixels, after cropping.
        width: u32,
        /// Picture height in pixels, after cropping.
        height: u32,
    },
    /// AAC in raw access units (no ADTS header).
    Aac {
        /// `AudioSpecificConfig` (ISO/IEC 14496-3 §1.6.2.1).
        asc: Bytes,
        /// Samples per second.
        sample_rate: u32,
        /// Channels, 1 to 8.
        channels: u8,
    },
}

impl CodecConfig {
    /// Whether this is picture or sound.
    pub fn kind(&self) -> TrackKind {
        match self {
            Self::H264 { .. } => TrackKind::Video,
            Self::Aac { .. } => TrackKind::Audio,
        }
    }
}

/// One track of a stream, as its catalog lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// Number of the track, from 1; 0 is the catalog itself.
    pub id: u8,
    /// Ticks per second of the track's time stamps: 90,000 for video from RTMP,
    /// the source's own for fMP4, the sample rate for audio.
    pub timescale: u32,
    /// Decoder configuration.
    pub config: CodecConfig,
}
