//! AAC's configuration (ISO/IEC 14496-3 §1.6.2.1) and silent frames.
//!
//! The LC family is read: Main, LC, SSR and LTP, with SBR and PS signalled in the
//! open. Rates and frame lengths are those of the core coder, before SBR doubles
//! both, so that frame length over rate is the true duration either way.

use thiserror::Error;

use crate::bits::Bits;
use crate::track::CodecConfig;

/// Longest `AudioSpecificConfig` taken, in bytes; real ones have 2 to 7, with a
/// program configuration element some 30 more.
pub const MAX_CONFIG: usize = 256;

/// Silence of 1,024 samples, AAC-LC, one channel (also in hls.js `aac-helper.ts`).
const SILENCE_MONO: [u8; 6] = [0x00, 0xc8, 0x00, 0x80, 0x23, 0x80];
/// Silence of 1,024 samples, AAC-LC, two channels (also in hls.js `aac-helper.ts`).
const SILENCE_STEREO: [u8; 9] = [0x21, 0x00, 0x49, 0x90, 0x02, 0x19, 0x00, 0x23, 0x80];

const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000,
    7_350,
];
const LC: u8 = 2;
const SBR: u8 = 5;
const PS: u8 = 29;
const SBR_SYNC: u32 = 0x2b7;
const PS_SYNC: u32 = 0x548;

/// Why an `AudioSpecificConfig` was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AacError {
    /// It ends too early.
    #[error("AAC configuration is cut short")]
    Truncated,
    /// It passes [`MAX_CONFIG`].
    #[error("AAC configuration of {0} bytes is longer than 256")]
    TooLong(usize),
    /// Not of the LC family.
    #[error("AAC object type {0} is not supported, only Main, LC, SSR, LTP and HE-AAC")]
    ObjectType(u8),
    /// A reserved rate index, or a rate outside 1 to 192,000.
    #[error("AAC sample rate is reserved or out of range")]
    SampleRate,
    /// A reserved channel configuration, or more than eight channels.
    #[error("AAC channel configuration {0} is not supported")]
    Channels(u8),
}

/// What an `AudioSpecificConfig` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// Audio object type as first named: 2 for LC, 5 for HE-AAC, 29 for HE-AAC v2.
    pub object_type: u8,
    /// Object type of the core coder, 1 to 4.
    pub core_type: u8,
    /// Samples per second of the core coder.
    pub sample_rate: u32,
    /// Samples per second after SBR, where signalled.
    pub extension_rate: Option<u32>,
    /// Channels of the core coder, 1 to 8.
    pub channels: u8,
    /// Samples per channel in a frame of the core coder: 1,024 or 960.
    pub samples_per_frame: u32,
}

impl AudioSpecificConfig {
    /// Reads the configuration; bytes after it are ignored.
    ///
    /// # Errors
    /// See [`AacError`].
    pub fn parse(config: &[u8]) -> Result<Self, AacError> {
        if config.len() > MAX_CONFIG {
            return Err(AacError::TooLong(config.len()));
        }
        let mut bits = Bits::new(config);
        let object_type = object_type(&mut bits)?;
        let sample_rate = sample_rate(&mut bits)?;
        let channels = channel_configuration(&mut bits)?;
        let mut parsed = Self {
            object_type,
            core_type: object_type,
            sample_rate,
            extension_rate: None,
            channels,
            samples_per_frame: 1024,
        };
        if matches!(object_type, SBR | PS) {
            parsed.extension_rate = Some(self::sample_rate(&mut bits)?);
            parsed.core_type = self::object_type(&mut bits)?;
        }
        if !matches!(parsed.core_type, 1..=4) {
            return Err(AacError::ObjectType(parsed.core_type));
        }
        parsed.read_general(&mut bits)?;
        parsed.read_sync_extension(&mut bits);
        Ok(parsed)
    }

    /// RFC 6381 §3.3: `mp4a.40.` and the object type.
    pub fn codec_string(&self) -> String {
        format!("mp4a.40.{}", self.object_type)
    }

    /// The track's configuration; `config` is what was parsed.
    pub fn codec_config(&self, config: &[u8]) -> CodecConfig {
        CodecConfig::Aac {
            asc: bytes::Bytes::copy_from_slice(config),
            sample_rate: self.sample_rate,
            channels: self.channels,
        }
    }

    /// A silent frame for this configuration, if there is one (see [`silence`]).
    pub fn silence(&self) -> Option<&'static [u8]> {
        let plain = self.object_type == LC && self.samples_per_frame == 1024;
        plain.then(|| silence(self.channels)).flatten()
    }

    /// `GASpecificConfig` (§4.4.1).
    fn read_general(&mut self, bits: &mut Bits<'_>) -> Result<(), AacError> {
        if bits.flag().ok_or(AacError::Truncated)? {
            self.samples_per_frame = 960;
        }
        if bits.flag().ok_or(AacError::Truncated)? {
            bits.skip(14).ok_or(AacError::Truncated)?;
        }
        bits.flag().ok_or(AacError::Truncated)?;
        if self.channels == 0 {
            self.channels = program_channels(bits).ok_or(AacError::Truncated)?;
            if !(1..=8).contains(&self.channels) {
                return Err(AacError::Channels(self.channels));
            }
        }
        Ok(())
    }

    /// SBR told behind the core's configuration, where old decoders do not look.
    fn read_sync_extension(&mut self, bits: &mut Bits<'_>) {
        if self.extension_rate.is_some() || bits.left() < 16 {
            return;
        }
        if bits.take(11) != Some(SBR_SYNC) || object_type(bits) != Ok(SBR) {
            return;
        }
        if bits.flag() != Some(true) {
            return;
        }
        self.extension_rate = sample_rate(bits).ok();
        self.object_type = SBR;
        if bits.left() >= 12 && bits.take(11) == Some(PS_SYNC) && bits.flag() == Some(true) {
            self.object_type = PS;
        }
    }
}

/// The index of a usual sample rate, as ADTS headers have it.
pub(crate) fn rate_index(sample_rate: u32) -> Option<u8> {
    let index = RATES.iter().position(|rate| *rate == sample_rate)?;
    u8::try_from(index).ok()
}

/// An AAC-LC frame of 1,024 silent samples: for one or two channels only.
pub fn silence(channels: u8) -> Option<&'static [u8]> {
    match channels {
        1 => Some(&SILENCE_MONO),
        2 => Some(&SILENCE_STEREO),
        _ => None,
    }
}

fn object_type(bits: &mut Bits<'_>) -> Result<u8, AacError> {
    let mut value = bits.take(5).ok_or(AacError::Truncated)?;
    if value == 31 {
        value = 32 + bits.take(6).ok_or(AacError::Truncated)?;
    }
    u8::try_from(value).map_err(|_| AacError::Truncated)
}

fn sample_rate(bits: &mut Bits<'_>) -> Result<u32, AacError> {
    let index = bits.take(4).ok_or(AacError::Truncated)?;
    let rate = match index {
        15 => bits.take(24).ok_or(AacError::Truncated)?,
        _ => *RATES.get(index as usize).ok_or(AacError::SampleRate)?,
    };
    if (1..=192_000).contains(&rate) {
        Ok(rate)
    } else {
        Err(AacError::SampleRate)
    }
}

/// Number of channels; 0 if a program configuration element says it.
fn channel_configuration(bits: &mut Bits<'_>) -> Result<u8, AacError> {
    match bits.take(4).ok_or(AacError::Truncated)? {
        count @ 0..=6 => Ok(count as u8),
        7 | 12 | 14 => Ok(8),
        11 => Ok(7),
        reserved => Err(AacError::Channels(reserved as u8)),
    }
}

/// Counts the channels of a `program_config_element` (§4.4.1.1).
fn program_channels(bits: &mut Bits<'_>) -> Option<u8> {
    bits.skip(10)?;
    let elements = bits.take(4)? + bits.take(4)? + bits.take(4)?;
    let low_frequency = bits.take(2)?;
    bits.skip(7)?;
    for skipped in [4, 4, 3] {
        if bits.flag()? {
            bits.skip(skipped)?;
        }
    }
    let mut channels = low_frequency;
    for _ in 0..elements {
        channels += 1 + u32::from(bits.flag()?);
        bits.skip(4)?;
    }
    u8::try_from(channels).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stereo_lc_of_48_khz_as_ffmpeg_writes_it() {
        let config = AudioSpecificConfig::parse(&[0x11, 0x90, 0x56, 0xe5, 0x00]).unwrap();
        assert_eq!(config.codec_string(), "mp4a.40.2");
        assert_eq!((config.sample_rate, config.channels), (48_000, 2));
        assert_eq!(config.samples_per_frame, 1024);
        assert_eq!(config.silence(), silence(2));
    }

    #[test]
    fn explicit_rate_of_24_bits_is_read() {
        // 5 bits LC, 4 bits 15, 24 bits 44,056, 4 bits mono, 3 bits of zeros.
        let bits: u64 = 2 << 35 | 15 << 31 | 44_056 << 7 | 1 << 3;
        let config = AudioSpecificConfig::parse(&bits.to_be_bytes()[3..]).unwrap();
        assert_eq!((config.sample_rate, config.channels), (44_056, 1));
    }

    #[test]
    fn he_aac_names_the_core_rate_and_the_extension() {
        // SBR, 24 kHz, stereo, extension 48 kHz, LC, GASpecificConfig zeros.
        let bits: u32 = 5 << 27 | 6 << 23 | 2 << 19 | 3 << 15 | 2 << 10;
        let config = AudioSpecificConfig::parse(&bits.to_be_bytes()).unwrap();
        assert_eq!(config.codec_string(), "mp4a.40.5");
        assert_eq!(config.sample_rate, 24_000);
        assert_eq!(config.extension_rate, Some(48_000));
        assert_eq!(config.silence(), None);
    }

    #[test]
    fn frames_of_960_samples_are_told_apart() {
        let config = AudioSpecificConfig::parse(&[0x11, 0x94]).unwrap();
        assert_eq!(config.samples_per_frame, 960);
    }

    #[test]
    fn odd_configurations_are_refused_with_words() {
        assert_eq!(
            AudioSpecificConfig::parse(&[0x11]),
            Err(AacError::Truncated)
        );
        assert_eq!(
            AudioSpecificConfig::parse(&[0x16, 0x90]),
            Err(AacError::SampleRate)
        );
        assert_eq!(
            AudioSpecificConfig::parse(&[0xf9, 0x46, 0x20]),
            Err(AacError::ObjectType(42))
        );
    }
}
