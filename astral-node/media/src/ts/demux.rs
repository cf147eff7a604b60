//! From bytes of a transport stream, in any pieces, to source events.

use super::clock::Clock;
use super::packet::Packet;
use super::psi::{self, Listed, Program, Sections, What};
use super::stream::Elementary;
use super::sync::Sync;
use super::{PES_BYTES_MAX, TsError};
use crate::codec::CodecKind;
use crate::source::SourceEvent;
use crate::track::TrackKind;

/// Packets before a program is known: 16 MiB.
const PACKETS_WITHOUT_PROGRAM_MAX: usize = (16 << 20) / super::PACKET;
/// PID of the PAT.
const PAT_PID: u16 = 0;

/// How a source was damaged so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that packets did not follow each other in the bytes.
    pub resyncs: u64,
    /// Times that packets were missing, by their counters.
    pub gaps: u64,
    /// Pictures left out because of that.
    pub dropped: u64,
}

/// Turns the bytes of a transport stream into events.
///
/// Holds two unfinished PES packets at most, each up to [`PES_BYTES_MAX`], and the
/// piece that is being read. The track numbers are [`VIDEO_TRACK`](super::VIDEO_TRACK)
/// and [`AUDIO_TRACK`](super::AUDIO_TRACK), also when the program's streams change.
#[derive(Debug, Default)]
pub struct TsDemuxer {
    sync: Sync,
    pat: Sections,
    program: Option<Reading>,
    clock: Clock,
    video: Option<Carried>,
    audio: Option<Carried>,
    promised: bool,
    unexplained: usize,
    /// Damage of streams that are no longer read.
    past: Counts,
    refused: Option<TsError>,
}

/// The program that is read.
#[derive(Debug)]
struct Reading {
    program: Program,
    sections: Sections,
    /// The PMT that is in force.
    section: Vec<u8>,
}

#[derive(Debug)]
struct Carried {
    listed: Listed,
    stream: Elementary,
}

impl TsDemuxer {
    /// A demuxer at the start of a source, which may begin anywhere in a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes and appends what they amount to. Damage is passed over.
    ///
    /// # Errors
    /// [`TsError`]: the source is of no use, and every later call says so again.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<SourceEvent>) -> Result<(), TsError> {
        self.sync.push(bytes);
        self.packets(false, out)
    }

    /// Takes the end of the source; a picture whose end was not known is whole now.
    ///
    /// # Errors
    /// As [`Self::push`], and [`TsError::NoProgram`] if there was none at all.
    pub fn finish(&mut self, out: &mut Vec<SourceEvent>) -> Result<(), TsError> {
        self.packets(true, out)?;
        if self.video.is_none() && self.audio.is_none() {
            return self.refuse(TsError::NoProgram(self.unexplained));
        }
        let (clock, streams) = (&mut self.clock, [&mut self.video, &mut self.audio]);
        for carried in streams.into_iter().flatten() {
            carried.stream.finish(clock, out)?;
        }
        out.push(SourceEvent::End);
        Ok(())
    }

    /// Bytes held, at most two PES packets and what was last given.
    pub fn buffered(&self) -> usize {
        let streams = [&self.video, &self.audio].into_iter().flatten();
        let held: usize = streams.map(|carried| carried.stream.buffered()).sum();
        debug_assert!(held <= 4 * PES_BYTES_MAX, "streams hold what they may");
        self.sync.buffered() + held
    }

    /// How the source was damaged so far.
    pub fn counts(&self) -> Counts {
        let mut counts = self.past;
        counts.resyncs = self.sync.resyncs();
        for carried in [&self.video, &self.audio].into_iter().flatten() {
            counts.add(&carried.stream);
        }
        counts
    }

    fn packets(&mut self, last: bool, out: &mut Vec<SourceEvent>) -> Result<(), TsError> {
        if let Some(error) = &self.refused {
            return Err(error.clone());
        }
        loop {
            let taken = match self.sync.next(last) {
                Ok(None) => return Ok(()),
                // Whose packet was damaged, the counter of the next one tells.
                Ok(Some(bytes)) => {
                    Packet::parse(&bytes).map_or(Ok(()), |packet| self.packet(&packet, out))
                }
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                return self.refuse(error);
            }
        }
    }

    fn refuse(&mut self, error: TsError) -> Result<(), TsError> {
        self.refused = Some(error.clone());
        Err(error)
    }

    fn packet(&mut self, packet: &Packet<'_>, out: &mut Vec<SourceEvent>) -> Result<(), TsError> {
        let streams = [&mut self.video, &mut self.audio].into_iter().flatten();
        for carried in streams {
            if carried.listed.pid == packet.pid {
                if packet.scrambled {
                    return Err(TsError::Encrypted);
                }
                return carried.stream.push(packet, &mut self.clock, out);
            }
        }
        if packet.pid == PAT_PID {
            self.pat(packet);
        } else if let Some(reading) = &mut self.program
            && reading.program.pmt_pid == packet.pid
        {
            let (program, sections) = (reading.program, reading.sections.push(packet));
            for section in sections {
                self.pmt(program, section, out)?;
            }
        }
        if self.video.is_none() && self.audio.is_none() {
            self.unexplained += 1;
            if self.unexplained > PACKETS_WITHOUT_PROGRAM_MAX {
                return Err(TsError::NoProgram(self.unexplained));
            }
        }
        Ok(())
    }

    fn pat(&mut self, packet: &Packet<'_>) {
        for section in self.pat.push(packet) {
            let Some(program) = psi::first_program(&section) else {
                continue;
            };
            let known = self.program.as_ref();
            if known.is_none_or(|reading| reading.program != program) {
                self.program = Some(Reading {
                    program,
                    sections: Sections::default(),
                    section: Vec::new(),
                });
            }
        }
    }

    fn pmt(
        &mut self,
        program: Program,
        section: Vec<u8>,
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), TsError> {
        let Some(reading) = self.program.as_mut().filter(|it| it.section != section) else {
            return Ok(());
        };
        let Some(listed) = psi::streams(&section, program) else {
            return Ok(());
        };
        reading.section = section;
        let video = choose(&listed, TrackKind::Video)?;
        let audio = choose(&listed, TrackKind::Audio)?;
        let (clock, past) = (&mut self.clock, &mut self.past);
        replace(&mut self.video, video, clock, past, out)?;
        replace(&mut self.audio, audio, clock, past, out)?;
        let (video, audio) = (self.video.is_some(), self.audio.is_some());
        if (video || audio) && !std::mem::replace(&mut self.promised, true) {
            out.push(SourceEvent::Promised { video, audio });
        }
        Ok(())
    }
}

impl Counts {
    fn add(&mut self, stream: &Elementary) {
        let (gaps, dropped) = stream.counts();
        self.gaps += gaps;
        self.dropped += dropped;
    }
}

/// The first stream of a kind that is carried.
///
/// # Errors
/// There are streams of the kind, and none is carried: the first one's words.
fn choose(listed: &[Listed], kind: TrackKind) -> Result<Option<Listed>, TsError> {
    let carried = listed.iter().find(|listed| match listed.what {
        What::Carried(codec) => codec.track() == kind,
        What::Opus(_) => CodecKind::Opus.track() == kind,
        What::Refused(..) | What::Encrypted => false,
    });
    if let Some(carried) = carried {
        return Ok(Some(*carried));
    }
    for listed in listed {
        match listed.what {
            What::Refused(of, words) if of == kind => {
                return Err(TsError::UnsupportedCodec(words));
            }
            What::Encrypted => return Err(TsError::Encrypted),
            What::Refused(..) | What::Carried(_) | What::Opus(_) => {}
        }
    }
    Ok(None)
}

/// Goes over to another stream, unless it is the same one.
fn replace(
    slot: &mut Option<Carried>,
    listed: Option<Listed>,
    clock: &mut Clock,
    past: &mut Counts,
    out: &mut Vec<SourceEvent>,
) -> Result<(), TsError> {
    if slot.as_ref().map(|carried| carried.listed) == listed {
        return Ok(());
    }
    if let Some(mut before) = slot.take() {
        before.stream.finish(clock, out)?;
        past.add(&before.stream);
    }
    *slot = listed.and_then(|listed| {
        let stream = Elementary::new(listed.what)?;
        Some(Carried { listed, stream })
    });
    Ok(())
}

#[cfg(test)]
#[path = "demux_tests.rs"]
mod tests;
