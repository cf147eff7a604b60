//! Tracks and their decoder configuration.

use bytes::Bytes;

use crate::aac::AudioSpecificConfig;
use crate::av1::Av1Config;
use crate::h264::AvcConfig;
use crate::h265::HevcConfig;
use crate::opus;

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
    /// H.265 with length-prefixed NAL units.
    H265 {
        /// `HEVCDecoderConfigurationRecord` (ISO/IEC 14496-15 §8.3.3.1), its arrays of
        /// parameter sets complete.
        hvcc: Bytes,
        /// Picture width in pixels, after cropping.
        width: u32,
        /// Picture height in pixels, after cropping.
        height: u32,
    },
    /// AV1 in temporal units of OBUs with sizes, without delimiters.
    Av1 {
        /// `AV1CodecConfigurationRecord` (ISO binding §2.3.3), with the sequence header.
        av1c: Bytes,
        /// Largest picture width in pixels.
        width: u32,
        /// Largest picture height in pixels.
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
    /// Opus packets (RFC 6716 §3), not self-delimiting.
    Opus {
        /// `OpusHead` (RFC 7845 §5.1), as Ogg, Matroska, FLV and WebCodecs have it;
        /// MP4's `dOps` is made of it ([`opus::OpusHead::to_dops`]).
        head: Bytes,
        /// Samples per second of the decoder's clock, always 48,000.
        sample_rate: u32,
        /// Channels, 1 to 8.
        channels: u8,
    },
}

impl CodecConfig {
    /// Whether this is picture or sound.
    pub fn kind(&self) -> TrackKind {
        match self {
            Self::H264 { .. } | Self::H265 { .. } | Self::Av1 { .. } => TrackKind::Video,
            Self::Aac { .. } | Self::Opus { .. } => TrackKind::Audio,
        }
    }

    /// Picture width and height in pixels; none for sound.
    pub fn size(&self) -> Option<(u32, u32)> {
        match self {
            Self::H264 { width, height, .. }
            | Self::H265 { width, height, .. }
            | Self::Av1 { width, height, .. } => Some((*width, *height)),
            Self::Aac { .. } | Self::Opus { .. } => None,
        }
    }

    /// Samples per second and channels; none for pictures.
    pub fn sound(&self) -> Option<(u32, u8)> {
        match self {
            Self::H264 { .. } | Self::H265 { .. } | Self::Av1 { .. } => None,
            Self::Aac {
                sample_rate,
                channels,
                ..
            }
            | Self::Opus {
                sample_rate,
                channels,
                ..
            } => Some((*sample_rate, *channels)),
        }
    }

    /// The codec's name for players, such as `avc1.64001f` (RFC 6381).
    ///
    /// A configuration that does not parse (none that a demuxer or catalog made)
    /// gives the bare name of its sample entry.
    pub fn codec_string(&self) -> String {
        let name = match self {
            Self::H264 { avcc, .. } => AvcConfig::parse(avcc).ok().map(|c| c.codec_string()),
            Self::H265 { hvcc, .. } => HevcConfig::parse(hvcc).ok().map(|c| c.codec_string()),
            Self::Av1 { av1c, .. } => Av1Config::parse(av1c).ok().map(|c| c.codec_string()),
            Self::Aac { asc, .. } => AudioSpecificConfig::parse(asc)
                .ok()
                .map(|c| c.codec_string()),
            Self::Opus { .. } => None,
        };
        name.unwrap_or_else(|| {
            let bare = match self {
                Self::H264 { .. } => "avc1",
                Self::H265 { .. } => "hvc1",
                Self::Av1 { .. } => "av01",
                Self::Aac { .. } => "mp4a.40",
                Self::Opus { .. } => "opus",
            };
            bare.to_owned()
        })
    }

    /// Samples per channel in this coded frame of sound, at the configuration's
    /// [rate](Self::sound); none for pictures and for what is no frame of the codec.
    ///
    /// AAC's frames all have the same number, Opus packets say it in their first bytes.
    pub fn frame_samples(&self, frame: &[u8]) -> Option<u32> {
        match self {
            Self::H264 { .. } | Self::H265 { .. } | Self::Av1 { .. } => None,
            Self::Aac { asc, .. } => AudioSpecificConfig::parse(asc)
                .ok()
                .map(|config| config.samples_per_frame),
            Self::Opus { .. } => opus::packet_samples(frame),
        }
    }

    /// A coded frame of silence, where one is known: for AAC-LC of one or two channels
    /// and for Opus without a channel table.
    pub fn silence(&self) -> Option<&'static [u8]> {
        match self {
            Self::H264 { .. } | Self::H265 { .. } | Self::Av1 { .. } => None,
            Self::Aac { asc, .. } => AudioSpecificConfig::parse(asc).ok()?.silence(),
            Self::Opus { channels, .. } => (*channels <= 2).then_some(&opus::SILENCE),
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
    /// Length of this coded frame of sound in the track's ticks, rounded to nearest;
    /// none for pictures.
    pub fn audio_frame_ticks(&self, frame: &[u8]) -> Option<u32> {
        let (sample_rate, _) = self.config.sound()?;
        let samples = u64::from(self.config.frame_samples(frame)?);
        let rate = u64::from(sample_rate).max(1);
        let ticks = (samples * u64::from(self.timescale) + rate / 2) / rate;
        u32::try_from(ticks.max(1)).ok()
    }
}
