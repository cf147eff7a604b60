//! One elementary stream: from its PES packets to samples.
//!
//! A picture is one PES packet, or several of which only the first has stamps. Sound
//! has many frames in one, which may run from one into the next; the stamp is that of
//! the first frame that begins in it, and the others follow by their samples.

use super::adts;
use super::annexb;
use super::clock::{Clock, difference};
use super::opus::{Channels, Packets};
use super::packet::Packet;
use super::pes::{Assembler, Pes};
use super::psi::What;
use super::{AUDIO_TRACK, TIMESCALE, TsError, VIDEO_TRACK};
use crate::aac::AudioSpecificConfig;
use crate::codec::{Codec, CodecKind};
use crate::source::{Sample, SourceEvent, SourceTrack};

/// Furthest that a picture may be shown from its decoding, ticks: a minute. More is an error.
const CTS_MAX: i64 = 60 * TIMESCALE as i64;
/// Frames of sound that are refused before the source is, none having been taken.
const REFUSED_MAX: u32 = 8;

/// A stream that is carried.
#[derive(Debug)]
pub(super) struct Elementary {
    assembler: Assembler,
    lane: Lane,
}

#[derive(Debug)]
enum Lane {
    Video(Video),
    Audio(Audio),
}

#[derive(Debug)]
struct Video {
    codec: Codec,
    announced: bool,
    /// Something was lost: pictures are dropped up to the next keyframe.
    waiting: bool,
    /// A picture that may go on in the next PES packet.
    open: Option<Pes>,
    dropped: u64,
}

#[derive(Debug, Default)]
struct Audio {
    /// Channels of Opus; none for AAC.
    opus: Option<Channels>,
    codec: Option<Codec>,
    sample_rate: u32,
    reader: adts::Reader,
    /// Where the next frame is expected, in samples; none before the first stamp.
    next: Option<i64>,
    refused: u32,
    taken: bool,
}

impl Elementary {
    /// A stream of this kind; none for what is not carried.
    pub(super) fn new(what: What) -> Option<Self> {
        let lane = match what {
            What::Opus(channels) => Lane::Audio(Audio {
                opus: Some(channels),
                ..Audio::default()
            }),
            What::Carried(CodecKind::Aac) => Lane::Audio(Audio::default()),
            What::Carried(kind) => Lane::Video(Video {
                codec: Codec::in_band(kind)?,
                announced: false,
                waiting: true,
                open: None,
                dropped: 0,
            }),
            What::Refused(..) | What::Encrypted => return None,
        };
        Some(Self {
            assembler: Assembler::default(),
            lane,
        })
    }

    /// Takes a packet of its PID.
    ///
    /// # Errors
    /// [`TsError`]: the source is of no use.
    pub(super) fn push(
        &mut self,
        packet: &Packet<'_>,
        clock: &mut Clock,
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), TsError> {
        let mut whole = Vec::new();
        self.assembler.push(packet, &mut whole)?;
        self.take(whole, clock, out)
    }

    /// Nothing more comes.
    pub(super) fn finish(
        &mut self,
        clock: &mut Clock,
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), TsError> {
        let mut whole = Vec::new();
        self.assembler.flush(&mut whole);
        self.take(whole, clock, out)?;
        if let Lane::Video(video) = &mut self.lane {
            video.flush(clock, out);
        }
        Ok(())
    }

    /// Losses, and pictures dropped for them.
    pub(super) fn counts(&self) -> (u64, u64) {
        let dropped = match &self.lane {
            Lane::Video(video) => video.dropped,
            Lane::Audio(_) => 0,
        };
        (self.assembler.gaps(), dropped)
    }

    /// Bytes held.
    pub(super) fn buffered(&self) -> usize {
        let held = match &self.lane {
            Lane::Video(video) => video.open.as_ref().map_or(0, |open| open.data().len()),
            Lane::Audio(audio) => audio.reader.buffered(),
        };
        self.assembler.buffered() + held
    }

    fn take(
        &mut self,
        whole: Vec<Pes>,
        clock: &mut Clock,
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), TsError> {
        for pes in whole {
            match &mut self.lane {
                Lane::Video(video) => video.pes(pes, clock, out)?,
                Lane::Audio(audio) => audio.pes(&pes, clock, out)?,
            }
        }
        Ok(())
    }
}

impl Video {
    fn pes(
        &mut self,
        pes: Pes,
        clock: &mut Clock,
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), TsError> {
        if pes.gap {
            self.open = None;
            self.waiting = true;
        }
        if pes.dts.is_some() {
            self.flush(clock, out);
            self.open = Some(pes);
        } else if let Some(open) = &mut self.open {
            open.join(&pes)?;
            if !pes.is_full() {
                self.flush(clock, out);
            }
            return Ok(());
        }
        if self.open.as_ref().is_some_and(|open| !open.is_full()) {
            self.flush(clock, out);
        }
        Ok(())
    }

    fn flush(&mut self, clock: &mut Clock, out: &mut Vec<SourceEvent>) {
        let Some(pes) = self.open.take() else {
            return;
        };
        let (Some(pts), Some(dts)) = (pes.pts, pes.dts) else {
            return;
        };
        let cts = difference(pts as i64, dts as i64);
        let cts = if cts.abs() > CTS_MAX { 0 } else { cts };
        let dts = clock.unwrap(dts);
        let Ok((changed, unit)) = self.codec.unit(&annexb::to_lengths(pes.data())) else {
            self.dropped += 1;
            self.waiting = true;
            return;
        };
        if changed || !self.announced {
            self.announce(out);
        }
        let Some(unit) = unit else {
            return;
        };
        if self.waiting && !unit.keyframe {
            self.dropped += 1;
            return;
        }
        self.waiting = false;
        out.push(SourceEvent::Sample(Sample {
            track: VIDEO_TRACK,
            dts,
            // A minute of ticks fits.
            cts: cts as i32,
            duration: None,
            keyframe: unit.keyframe,
            discardable: unit.discardable,
            data: unit.data,
        }));
    }

    fn announce(&mut self, out: &mut Vec<SourceEvent>) {
        if let Some(config) = self.codec.config() {
            self.announced = true;
            out.push(SourceEvent::Track(SourceTrack {
                id: VIDEO_TRACK,
                timescale: TIMESCALE,
                config,
            }));
        }
    }
}

impl Audio {
    fn pes(
        &mut self,
        pes: &Pes,
        clock: &mut Clock,
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), TsError> {
        if pes.gap {
            self.reader.clear();
            self.next = None;
        }
        let stamp = pes.pts.map(|pts| clock.unwrap(pts));
        match self.opus {
            Some(channels) => {
                self.opus(channels, pes.data(), stamp, out);
                Ok(())
            }
            None => self.aac(pes.data(), stamp, out),
        }
    }

    fn opus(
        &mut self,
        channels: Channels,
        data: &[u8],
        stamp: Option<i64>,
        out: &mut Vec<SourceEvent>,
    ) {
        let mut stamp = stamp;
        for (trim, packet) in Packets(data) {
            if self.codec.is_none() {
                let head = channels.head(trim);
                self.sample_rate = crate::opus::SAMPLE_RATE;
                self.announce(Codec::Opus(head), out);
            }
            self.frame(packet, stamp.take(), out);
        }
    }

    fn aac(
        &mut self,
        data: &[u8],
        stamp: Option<i64>,
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), TsError> {
        let mut reader = std::mem::take(&mut self.reader);
        reader.push(data);
        let mut stamp = stamp;
        while let Some((header, frame, left)) = reader.next() {
            if !self.configure(&header, out)? {
                continue;
            }
            // Who began in the PES packet before has its time from there.
            let own = (left <= data.len()).then(|| stamp.take()).flatten();
            self.frame(frame, own, out);
        }
        self.reader = reader;
        Ok(())
    }

    /// Takes note of a header; false if its frame cannot be carried.
    fn configure(
        &mut self,
        header: &adts::Header,
        out: &mut Vec<SourceEvent>,
    ) -> Result<bool, TsError> {
        let config = AudioSpecificConfig::parse(&header.config).ok();
        let Some(config) = config.filter(|_| header.is_plain) else {
            self.refused += 1;
            if !self.taken && self.refused >= REFUSED_MAX {
                return Err(TsError::UnsupportedCodec(
                    "AAC with several blocks in a frame, or channels of its own order,",
                ));
            }
            return Ok(false);
        };
        self.taken = true;
        let same = matches!(&self.codec, Some(Codec::Aac { asc, .. }) if asc[..] == header.config);
        if !same {
            // The expected time counts samples of another rate.
            if self.sample_rate != config.sample_rate {
                self.next = None;
            }
            self.sample_rate = config.sample_rate;
            let asc = bytes::Bytes::copy_from_slice(&header.config);
            self.announce(Codec::Aac { config, asc }, out);
        }
        Ok(true)
    }

    fn announce(&mut self, codec: Codec, out: &mut Vec<SourceEvent>) {
        if let Some(config) = codec.config() {
            out.push(SourceEvent::Track(SourceTrack {
                id: AUDIO_TRACK,
                timescale: self.sample_rate,
                config,
            }));
        }
        self.codec = Some(codec);
    }

    /// One coded frame, which begins at `stamp` if it has its own.
    fn frame(&mut self, frame: &[u8], stamp: Option<i64>, out: &mut Vec<SourceEvent>) {
        let stamped = stamp.map(|stamp| samples(stamp, self.sample_rate));
        let Some(codec) = &mut self.codec else {
            return;
        };
        let Some(dts) = stamped.or(self.next) else {
            return;
        };
        let length = codec
            .config()
            .and_then(|config| config.frame_samples(frame));
        let (Ok((_, Some(unit))), Some(length)) = (codec.unit(frame), length) else {
            return;
        };
        self.next = dts.checked_add(i64::from(length));
        out.push(SourceEvent::Sample(Sample {
            track: AUDIO_TRACK,
            dts,
            cts: 0,
            duration: None,
            keyframe: true,
            discardable: false,
            data: unit.data,
        }));
    }
}

/// Ticks of 90 kHz in samples, rounded to the nearest.
fn samples(ticks: i64, sample_rate: u32) -> i64 {
    let scaled = 2 * i128::from(ticks) * i128::from(sample_rate) + i128::from(TIMESCALE);
    let samples = scaled.div_euclid(2 * i128::from(TIMESCALE));
    i64::try_from(samples).unwrap_or(if ticks < 0 { i64::MIN } else { i64::MAX })
}
