//! Tracks and their decoder configuration.

use bytes::Bytes;

use crate::aac::AudioSpecificConfig;
use crate::h264::AvcConfig;

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

    /// The codec's name for players, such as `avc1.64001f` (RFC 6381).
    ///
    /// A configuration that does not parse (none that a demuxer or catalog made)
    /// gives the bare name of its sample entry.
    pub fn codec_string(&self) -> String {
        match self {
            Self::H264 { avcc, .. } => AvcConfig::parse(avcc)
                .map_or_else(|_| "avc1".to_owned(), |config| config.codec_string()),
            Self::Aac { asc, .. } => AudioSpecificConfig::parse(asc)
                .map_or_else(|_| "mp4a.40".to_owned(), |config| config.codec_string()),
        }
    }

    /// Samples per channel in one coded frame of sound, at the configuration's
    /// `sample_rate`; none for pictures.
    pub fn samples_per_frame(&self) -> Option<u32> {
        match self {
            Self::H264 { .. } => None,
            Self::Aac { asc, .. } => AudioSpecificConfig::parse(asc)
                .ok()
                .map(|config| config.samples_per_frame),
        }
    }

    /// A coded frame of silence, where one is known: AAC-LC of one or two channels.
    pub fn silence(&self) -> Option<&'static [u8]> {
        match self {
            Self::H264 { .. } => None,
            Self::Aac { asc, .. } => AudioSpecificConfig::parse(asc).ok()?.silence(),
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

impl Track {
    /// Length of one coded frame of sound in the track's ticks, rounded to nearest;
    /// none for pictures.
    pub fn audio_frame_ticks(&self) -> Option<u32> {
        let CodecConfig::Aac { sample_rate, .. } = &self.config else {
            return None;
        };
        let samples = u64::from(self.config.samples_per_frame()?);
        let rate = u64::from(*sample_rate).max(1);
        let ticks = (samples * u64::from(self.timescale) + rate / 2) / rate;
        u32::try_from(ticks.max(1)).ok()
    }
}
