//! Frames to fragmented MP4, without state (ISO/IEC 14496-12, brands iso5 and iso6).
//!
//! Every byte is a function of the catalog's tracks and the frame: no clock, no
//! counter, no arrival order. So two nodes serve the same bytes under one name.

use bytes::Bytes;
use thiserror::Error;

use crate::catalog::Catalog;
use crate::frame::{Frame, FrameError, audio_units};
use crate::opus::OpusHead;
use crate::track::{CodecConfig, Track, TrackKind};

/// `sample_depends_on` 2: an I picture, or sound.
const FLAGS_SYNC: u32 = 0x0200_0000;
/// `sample_depends_on` 1 and `sample_is_non_sync_sample`.
const FLAGS_DEPENDENT: u32 = 0x0101_0000;
/// `sample_is_depended_on` 2: nobody needs it.
const FLAGS_DISPOSABLE: u32 = 0x0080_0000;

const TFHD_DEFAULT_BASE_IS_MOOF: u32 = 0x02_0000;
const TFHD_DEFAULT_FLAGS: u32 = 0x20;
const TRUN_DATA_OFFSET: u32 = 0x001;
const TRUN_DURATION: u32 = 0x100;
const TRUN_SIZE: u32 = 0x200;
const TRUN_CTS: u32 = 0x800;

/// The unity matrix of `mvhd` and `tkhd`, in 16.16 and 2.30 fixed point.
const MATRIX: [u32; 9] = [0x1_0000, 0, 0, 0, 0x1_0000, 0, 0, 0, 0x4000_0000];

/// Why a frame cannot be a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum MuxError {
    /// The frame belongs to another track than the one given.
    #[error("frame of track {frame} was given to track {track}")]
    WrongTrack {
        /// Number of the track.
        track: u8,
        /// Track number of the frame.
        frame: u8,
    },
    /// `tfdt` is unsigned: the timeline must not start before 0.
    #[error("track {track} has decoding time {dts}, before 0")]
    NegativeTime {
        /// Number of the track.
        track: u8,
        /// Decoding time in ticks.
        dts: i64,
    },
    /// The payload passes 4 GiB, or is empty.
    #[error("track {0} has a frame whose size cannot be written")]
    Size(u8),
    /// The audio bundle does not parse.
    #[error("track {track}: {error}")]
    Bundle {
        /// Number of the track.
        track: u8,
        /// What is wrong with it.
        error: FrameError,
    },
}

/// The initialisation segment: `ftyp` and `moov`, track numbers as in the catalog.
///
/// Only the tracks count; a new epoch of the same tracks gives the same bytes.
pub fn init_segment(catalog: &Catalog) -> Bytes {
    let mut out = Writer::default();
    out.boxed(b"ftyp", |out| {
        out.bytes(b"iso6");
        out.u32(0);
        out.bytes(b"iso5iso6mp41");
    });
    out.boxed(b"moov", |out| {
        movie_header(out, catalog);
        for track in &catalog.tracks {
            out.boxed(b"trak", |out| track_box(out, track));
        }
        out.boxed(b"mvex", |out| {
            for track in &catalog.tracks {
                out.full(b"trex", 0, 0, |out| {
                    out.u32(track.id.into());
                    out.u32(1);
                    out.zeros(12);
                });
            }
        });
    });
    out.0.into()
}

/// One frame as `moof` and `mdat`; a bundle of sound becomes as many samples.
///
/// # Errors
/// See [`MuxError`].
pub fn fragment(track: &Track, frame: &Frame) -> Result<Bytes, MuxError> {
    if track.id != frame.track {
        return Err(MuxError::WrongTrack {
            track: track.id,
            frame: frame.track,
        });
    }
    let time = u64::try_from(frame.dts).map_err(|_| MuxError::NegativeTime {
        track: track.id,
        dts: frame.dts,
    })?;
    let samples = samples(track, frame)?;
    let data: usize = samples.iter().map(|sample| sample.data.len()).sum();
    // 8 bytes of header still fit the 32-bit size of `mdat`.
    let data = u32::try_from(data).ok().filter(|data| *data < u32::MAX - 8);
    let data = data.ok_or(MuxError::Size(track.id))?;
    let mut out = Writer(Vec::with_capacity(data as usize + 160 + 12 * samples.len()));
    let mut data_offset_at = 0;
    out.boxed(b"moof", |out| {
        out.full(b"mfhd", 0, 0, |out| out.u32(sequence(frame)));
        out.boxed(b"traf", |out| {
            let flags = TFHD_DEFAULT_BASE_IS_MOOF | TFHD_DEFAULT_FLAGS;
            out.full(b"tfhd", 0, flags, |out| {
                out.u32(track.id.into());
                out.u32(sample_flags(track, frame));
            });
            out.full(b"tfdt", 1, 0, |out| out.u64(time));
            let cts = (frame.cts != 0).then_some(frame.cts);
            data_offset_at = run(out, &samples, cts);
        });
    });
    let moof_size = out.0.len() as u32;
    out.0[data_offset_at..data_offset_at + 4].copy_from_slice(&(moof_size + 8).to_be_bytes());
    out.boxed(b"mdat", |out| {
        for sample in &samples {
            out.bytes(&sample.data);
        }
    });
    Ok(out.0.into())
}

struct MuxSample {
    data: Bytes,
    duration: u32,
}

fn samples(track: &Track, frame: &Frame) -> Result<Vec<MuxSample>, MuxError> {
    if frame.payload.is_empty() {
        return Err(MuxError::Size(track.id));
    }
    let units = match track.config.kind() {
        TrackKind::Video => vec![frame.payload.clone()],
        TrackKind::Audio => audio_units(&frame.payload).map_err(|error| MuxError::Bundle {
            track: track.id,
            error,
        })?,
    };
    let count = units.len() as u32;
    let each = frame.duration / count;
    let last = frame.duration - each * (count - 1);
    let mut samples: Vec<_> = units
        .into_iter()
        .map(|data| MuxSample {
            data,
            duration: each,
        })
        .collect();
    if let Some(sample) = samples.last_mut() {
        sample.duration = last;
    }
    Ok(samples)
}

/// Writes `trun`; answers where its data offset stands, to be filled in.
fn run(out: &mut Writer, samples: &[MuxSample], cts: Option<i32>) -> usize {
    let fields = TRUN_DATA_OFFSET | TRUN_DURATION | TRUN_SIZE;
    let flags = fields | if cts.is_some() { TRUN_CTS } else { 0 };
    let mut data_offset_at = 0;
    out.full(b"trun", 1, flags, |out| {
        out.u32(samples.len() as u32);
        data_offset_at = out.0.len();
        out.u32(0);
        for sample in samples {
            out.u32(sample.duration);
            out.u32(sample.data.len() as u32);
            if let Some(cts) = cts {
                out.bytes(&cts.to_be_bytes());
            }
        }
    });
    data_offset_at
}

/// `mfhd` only has to differ and grow; group and order make it the same everywhere.
fn sequence(frame: &Frame) -> u32 {
    ((frame.group as u32) << 16).wrapping_add(frame.order & 0xffff)
}

fn sample_flags(track: &Track, frame: &Frame) -> u32 {
    match track.config.kind() {
        TrackKind::Audio => FLAGS_SYNC,
        TrackKind::Video if frame.keyframe => FLAGS_SYNC,
        TrackKind::Video if frame.discardable => FLAGS_DEPENDENT | FLAGS_DISPOSABLE,
        TrackKind::Video => FLAGS_DEPENDENT,
    }
}

fn movie_header(out: &mut Writer, catalog: &Catalog) {
    let last = catalog.tracks.iter().map(|track| track.id).max();
    out.full(b"mvhd", 0, 0, |out| {
        out.zeros(8);
        out.u32(1000);
        out.u32(0);
        out.u32(0x1_0000);
        out.u16(0x100);
        out.zeros(10);
        MATRIX.iter().for_each(|&value| out.u32(value));
        out.zeros(24);
        out.u32(u32::from(last.unwrap_or(0)) + 1);
    });
}

fn track_box(out: &mut Writer, track: &Track) {
    let (width, height) = track.config.size().unwrap_or((0, 0));
    let volume = match track.config.kind() {
        TrackKind::Video => 0,
        TrackKind::Audio => 0x100,
    };
    // Flags 3: enabled and in the movie.
    out.full(b"tkhd", 0, 3, |out| {
        out.zeros(8);
        out.u32(track.id.into());
        out.zeros(8);
        out.zeros(12);
        out.u16(volume);
        out.u16(0);
        MATRIX.iter().for_each(|&value| out.u32(value));
        out.u32(width << 16);
        out.u32(height << 16);
    });
    out.boxed(b"mdia", |out| {
        out.full(b"mdhd", 0, 0, |out| {
            out.zeros(8);
            out.u32(track.timescale);
            out.u32(0);
            out.u16(0x55c4); // "und", the language nobody named
            out.u16(0);
        });
        handler(out, track.config.kind());
        out.boxed(b"minf", |out| media_info(out, track));
    });
}

fn handler(out: &mut Writer, kind: TrackKind) {
    let handler = match kind {
        TrackKind::Video => b"vide",
        TrackKind::Audio => b"soun",
    };
    out.full(b"hdlr", 0, 0, |out| {
        out.u32(0);
        out.bytes(handler);
        out.zeros(12);
        out.bytes(b"\0");
    });
}

fn media_info(out: &mut Writer, track: &Track) {
    match track.config.kind() {
        TrackKind::Video => out.full(b"vmhd", 0, 1, |out| out.zeros(8)),
        TrackKind::Audio => out.full(b"smhd", 0, 0, |out| out.zeros(4)),
    }
    out.boxed(b"dinf", |out| {
        out.full(b"dref", 0, 0, |out| {
            out.u32(1);
            // Flags 1: the media is in this same file.
            out.full(b"url ", 0, 1, |_| {});
        });
    });
    out.boxed(b"stbl", |out| {
        out.full(b"stsd", 0, 0, |out| {
            out.u32(1);
            sample_entry(out, track);
        });
        out.full(b"stts", 0, 0, |out| out.u32(0));
        out.full(b"stsc", 0, 0, |out| out.u32(0));
        out.full(b"stsz", 0, 0, |out| out.zeros(8));
        out.full(b"stco", 0, 0, |out| out.u32(0));
    });
}

fn sample_entry(out: &mut Writer, track: &Track) {
    let config = &track.config;
    match config {
        CodecConfig::H264 { avcc, .. } => visual_entry(out, b"avc1", config, b"avcC", avcc),
        CodecConfig::H265 { hvcc, .. } => visual_entry(out, b"hvc1", config, b"hvcC", hvcc),
        CodecConfig::Av1 { av1c, .. } => visual_entry(out, b"av01", config, b"av1C", av1c),
        CodecConfig::Aac { asc, .. } => audio_entry(out, b"mp4a", config, |out| {
            out.full(b"esds", 0, 0, |out| elementary_stream(out, asc));
        }),
        CodecConfig::Opus { head, .. } => audio_entry(out, b"Opus", config, |out| {
            // A catalog's header parses; a player refuses an empty box.
            let dops = OpusHead::parse(head).map(|head| head.to_dops());
            out.boxed(b"dOps", |out| out.bytes(&dops.unwrap_or_default()));
        }),
    }
}

/// `VisualSampleEntry` (ISO/IEC 14496-12 §12.1.3) with the codec's record.
fn visual_entry(
    out: &mut Writer,
    kind: &[u8; 4],
    config: &CodecConfig,
    record_kind: &[u8; 4],
    record: &[u8],
) {
    let (width, height) = config.size().unwrap_or((0, 0));
    out.boxed(kind, |out| {
        out.zeros(6);
        out.u16(1);
        out.zeros(16);
        out.u16(width as u16);
        out.u16(height as u16);
        out.u32(0x48_0000); // 72 dots per inch
        out.u32(0x48_0000);
        out.u32(0);
        out.u16(1);
        out.zeros(32);
        out.u16(0x18);
        out.u16(0xffff);
        out.boxed(record_kind, |out| out.bytes(record));
    });
}

/// `AudioSampleEntry` (ISO/IEC 14496-12 §12.2.3) with the codec's box.
fn audio_entry(
    out: &mut Writer,
    kind: &[u8; 4],
    config: &CodecConfig,
    specific: impl FnOnce(&mut Writer),
) {
    let (sample_rate, channels) = config.sound().unwrap_or((0, 0));
    out.boxed(kind, |out| {
        out.zeros(6);
        out.u16(1);
        out.zeros(8);
        out.u16(u16::from(channels));
        out.u16(16);
        out.zeros(4);
        // 16.16 fixed point; higher rates stand in the codec's configuration.
        out.u32(u32::from(u16::try_from(sample_rate).unwrap_or(0)) << 16);
        specific(out);
    });
}

/// `ES_Descriptor` (ISO/IEC 14496-1 §7.2.6.5) around the codec's configuration.
fn elementary_stream(out: &mut Writer, asc: &[u8]) {
    out.descriptor(3, |out| {
        out.u16(0);
        out.bytes(&[0]);
        out.descriptor(4, |out| {
            // MPEG-4 audio; audio stream, upstream 0, reserved 1.
            out.bytes(&[0x40, 0x15]);
            out.zeros(11);
            out.descriptor(5, |out| out.bytes(asc));
        });
        out.descriptor(6, |out| out.bytes(&[2]));
    });
}

/// Big-endian fields and boxes whose sizes are filled in when they close.
#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn boxed(&mut self, kind: &[u8; 4], body: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.u32(0);
        self.bytes(kind);
        body(self);
        let size = (self.0.len() - start) as u32;
        self.0[start..start + 4].copy_from_slice(&size.to_be_bytes());
    }

    fn full(&mut self, kind: &[u8; 4], version: u8, flags: u32, body: impl FnOnce(&mut Self)) {
        self.boxed(kind, |out| {
            out.u32(u32::from(version) << 24 | flags);
            body(out);
        });
    }

    /// A descriptor, its size in the long form of four bytes.
    fn descriptor(&mut self, tag: u8, body: impl FnOnce(&mut Self)) {
        self.bytes(&[tag]);
        let start = self.0.len();
        self.u32(0);
        body(self);
        let size = (self.0.len() - start - 4) as u32;
        let seven = |shift: u32| (size >> shift & 0x7f) as u8;
        let long = [
            seven(21) | 0x80,
            seven(14) | 0x80,
            seven(7) | 0x80,
            seven(0),
        ];
        self.0[start..start + 4].copy_from_slice(&long);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    fn u16(&mut self, value: u16) {
        self.bytes(&value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_be_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests;
