//! The first bytes of a tag body: which codec, which kind of packet.

use super::FlvError;
use crate::codec::CodecKind;

/// What a tag body carries.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// Something that says nothing about the stream.
    Ignored,
    /// Decoder configuration.
    Configuration { codec: CodecKind, record: &'a [u8] },
    /// One access unit or audio frame.
    Coded {
        codec: CodecKind,
        /// Presentation minus decoding time, milliseconds, 24 signed bits.
        cts_ms: i32,
        data: &'a [u8],
    },
    /// The encoder ends a sequence; another one may follow.
    SequenceEnd,
}

/// Packet types of Enhanced RTMP (`VideoPacketType`, `AudioPacketType`).
mod packet {
    pub(super) const SEQUENCE_START: u8 = 0;
    pub(super) const CODED: u8 = 1;
    pub(super) const SEQUENCE_END: u8 = 2;
    /// Coded video without a composition time.
    pub(super) const CODED_X: u8 = 3;
    pub(super) const VIDEO_METADATA: u8 = 4;
    pub(super) const AUDIO_MULTITRACK: u8 = 5;
    pub(super) const VIDEO_MULTITRACK: u8 = 6;
    pub(super) const MOD_EX: u8 = 7;
}

/// Forms of a packet with several tracks (`AvMultitrackType`); 1 is many of one codec.
mod multi {
    pub(super) const ONE_TRACK: u8 = 0;
    pub(super) const MANY_CODECS: u8 = 2;
}

/// Frame type of a video command, which carries no picture.
const VIDEO_COMMAND: u8 = 5;

/// Reads a video tag body (FLV §E.4.3.1).
pub(super) fn video(body: &[u8]) -> Result<Packet<'_>, FlvError> {
    let Some((&first, rest)) = body.split_first() else {
        return Ok(Packet::Ignored);
    };
    if first & 0x80 != 0 {
        return enhanced_video(first, rest);
    }
    if first >> 4 == VIDEO_COMMAND {
        return Ok(Packet::Ignored);
    }
    match first & 0x0f {
        7 => classic_picture(CodecKind::H264, rest),
        12 => classic_picture(CodecKind::H265, rest),
        codec => Err(FlvError::UnsupportedCodec(video_codec(codec))),
    }
}

fn classic_picture(codec: CodecKind, rest: &[u8]) -> Result<Packet<'_>, FlvError> {
    let (&[kind], rest) = split::<1>(rest)?;
    let (time, data) = split::<3>(rest)?;
    Ok(match kind {
        0 => Packet::Configuration {
            codec,
            record: data,
        },
        1 => Packet::Coded {
            codec,
            cts_ms: signed24(time),
            data,
        },
        2 => Packet::SequenceEnd,
        _ => Packet::Ignored,
    })
}

fn enhanced_video(first: u8, rest: &[u8]) -> Result<Packet<'_>, FlvError> {
    let (kind, rest) = skip_mod_ex(first & 0x0f, rest)?;
    let command = (first >> 4) & 0x07 == VIDEO_COMMAND;
    if kind == packet::VIDEO_METADATA || command {
        return Ok(Packet::Ignored);
    }
    let Some((kind, fourcc, data)) = tracks(kind, packet::VIDEO_MULTITRACK, rest)? else {
        return Ok(Packet::Ignored);
    };
    let codec = match fourcc {
        b"avc1" => CodecKind::H264,
        b"hvc1" => CodecKind::H265,
        b"av01" => CodecKind::Av1,
        _ => return Err(FlvError::UnsupportedCodec(fourcc_name(fourcc))),
    };
    Ok(match kind {
        packet::SEQUENCE_START => Packet::Configuration {
            codec,
            record: data,
        },
        // AV1 has no time of composition: a temporal unit is shown when it is decoded.
        packet::CODED if codec != CodecKind::Av1 => {
            let (time, data) = split::<3>(data)?;
            Packet::Coded {
                codec,
                cts_ms: signed24(time),
                data,
            }
        }
        packet::CODED | packet::CODED_X => Packet::Coded {
            codec,
            cts_ms: 0,
            data,
        },
        packet::SEQUENCE_END => Packet::SequenceEnd,
        _ => Packet::Ignored,
    })
}

/// Reads an audio tag body (FLV §E.4.2.1).
pub(super) fn audio(body: &[u8]) -> Result<Packet<'_>, FlvError> {
    let Some((&first, rest)) = body.split_first() else {
        return Ok(Packet::Ignored);
    };
    match first >> 4 {
        9 => enhanced_audio(first, rest),
        10 => classic_aac(rest),
        format => Err(FlvError::UnsupportedCodec(audio_codec(format))),
    }
}

fn classic_aac(rest: &[u8]) -> Result<Packet<'_>, FlvError> {
    let codec = CodecKind::Aac;
    let (&[kind], data) = split::<1>(rest)?;
    Ok(match kind {
        0 => Packet::Configuration {
            codec,
            record: data,
        },
        1 => Packet::Coded {
            codec,
            cts_ms: 0,
            data,
        },
        _ => Packet::Ignored,
    })
}

fn enhanced_audio(first: u8, rest: &[u8]) -> Result<Packet<'_>, FlvError> {
    let (kind, rest) = skip_mod_ex(first & 0x0f, rest)?;
    let Some((kind, fourcc, data)) = tracks(kind, packet::AUDIO_MULTITRACK, rest)? else {
        return Ok(Packet::Ignored);
    };
    let codec = match fourcc {
        b"mp4a" => CodecKind::Aac,
        b"Opus" => CodecKind::Opus,
        _ => return Err(FlvError::UnsupportedCodec(fourcc_name(fourcc))),
    };
    Ok(match kind {
        packet::SEQUENCE_START => Packet::Configuration {
            codec,
            record: data,
        },
        packet::CODED => Packet::Coded {
            codec,
            cts_ms: 0,
            data,
        },
        packet::SEQUENCE_END => Packet::SequenceEnd,
        // Also `MultichannelConfig`: the configuration has the channels.
        _ => Packet::Ignored,
    })
}

/// What a packet is about: its type, codec and body.
type Body<'a> = (u8, &'a [u8; 4], &'a [u8]);

/// Takes codec and body of a packet, and of one with several tracks those of track 0;
/// none if that is not among them.
fn tracks(kind: u8, multitrack: u8, rest: &[u8]) -> Result<Option<Body<'_>>, FlvError> {
    if kind != multitrack {
        let (fourcc, data) = split::<4>(rest)?;
        return Ok(Some((kind, fourcc, data)));
    }
    let (&[head], mut rest) = split::<1>(rest)?;
    let (mode, kind) = (head >> 4, head & 0x0f);
    let mut common = None;
    if mode != multi::MANY_CODECS {
        let (fourcc, tail) = split::<4>(rest)?;
        (common, rest) = (Some(fourcc), tail);
    }
    while !rest.is_empty() {
        let (fourcc, tail) = match common {
            Some(fourcc) => (fourcc, rest),
            None => split::<4>(rest)?,
        };
        let (&[track], tail) = split::<1>(tail)?;
        let (data, tail) = if mode == multi::ONE_TRACK {
            (tail, &[][..])
        } else {
            let (&[high, middle, low], tail) = split::<3>(tail)?;
            let size = u32::from_be_bytes([0, high, middle, low]) as usize;
            tail.split_at_checked(size).ok_or(FlvError::Truncated)?
        };
        if track == 0 {
            return Ok(Some((kind, fourcc, data)));
        }
        rest = tail;
    }
    Ok(None)
}

/// Skips modifiers, which only refine what follows; returns the packet type after them.
fn skip_mod_ex(mut kind: u8, mut rest: &[u8]) -> Result<(u8, &[u8]), FlvError> {
    while kind == packet::MOD_EX {
        let (&[short], after) = split::<1>(rest)?;
        let (size, after) = match short {
            0xff => {
                let (long, after) = split::<2>(after)?;
                (usize::from(u16::from_be_bytes(*long)) + 1, after)
            }
            short => (usize::from(short) + 1, after),
        };
        let after = after.get(size..).ok_or(FlvError::Truncated)?;
        let (&[next], after) = split::<1>(after)?;
        (kind, rest) = (next & 0x0f, after);
    }
    Ok((kind, rest))
}

fn split<const N: usize>(bytes: &[u8]) -> Result<(&[u8; N], &[u8]), FlvError> {
    bytes.split_first_chunk().ok_or(FlvError::Truncated)
}

fn signed24(&[a, b, c]: &[u8; 3]) -> i32 {
    i32::from_be_bytes([a, b, c, 0]) >> 8
}

fn video_codec(id: u8) -> String {
    match id {
        2 => "Sorenson H.263 video".into(),
        3 | 6 => "Screen video".into(),
        4 | 5 => "VP6 video".into(),
        13 => "AV1 video".into(),
        id => format!("the video codec with FLV id {id}"),
    }
}

fn audio_codec(format: u8) -> String {
    match format {
        0 | 3 => "PCM audio".into(),
        1 => "ADPCM audio".into(),
        2 | 14 => "MP3 audio".into(),
        4..=6 => "Nellymoser audio".into(),
        7 | 8 => "G.711 audio".into(),
        11 => "Speex audio".into(),
        13 => "Opus audio".into(),
        format => format!("the audio codec with FLV format {format}"),
    }
}

fn fourcc_name(fourcc: &[u8; 4]) -> String {
    match fourcc {
        b"vp08" => "VP8 video".into(),
        b"vp09" => "VP9 video".into(),
        b"vvc1" => "H.266 video".into(),
        b"fLaC" => "FLAC audio".into(),
        b"ac-3" | b"ec-3" => "Dolby audio".into(),
        b".mp3" => "MP3 audio".into(),
        other => format!("the codec \"{}\"", other.escape_ascii()),
    }
}
