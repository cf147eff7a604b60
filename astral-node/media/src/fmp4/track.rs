//! One track of an MP4: its configuration, its clock, and its samples made clean.

use mp4_atom::{Atom, Codec as Entry, Encode, Moov, Trak, Trex};

use super::boxes::BoxHeader;
use super::error::{Fmp4Error, FourCc, IgnoredTrack};
use crate::catalog::{MAX_TIMESCALE, MAX_TRACKS};
use crate::codec::{Codec, CodecError, CodecKind};
use crate::opus::{OpusHead, packet_samples};
use crate::source::{Sample, SourceEvent, SourceTrack};
use crate::track::{CodecConfig, TrackKind};

/// Latest time stamp taken, in ticks either side of zero.
///
/// 2⁶⁰ ticks of 100 ns are 3,600 years; sums of a few such still fit `i64`.
pub(crate) const MAX_TIME: i64 = 1 << 60;

/// Object types of MPEG-4 AAC and MPEG-2 AAC-LC in `esds`.
const AAC_OBJECT_TYPES: [u8; 2] = [0x40, 0x67];

/// Where a sample is and when, before its bytes are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Index of its track.
    pub(crate) track: usize,
    /// First byte, from the start of the stream or file.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) size: u32,
    /// Decoding time in ticks, the edit list applied.
    pub(crate) dts: i64,
    /// Presentation minus decoding time in ticks.
    pub(crate) cts: i32,
    /// Duration in ticks; 0 if the container does not know.
    pub(crate) duration: u32,
}

/// A track that is carried.
#[derive(Clone, Debug)]
pub(crate) struct TrackState {
    pub(crate) id: u32,
    pub(crate) timescale: u32,
    codec: Codec,
    /// Media time at which presentation starts, less leading empty edits; in ticks.
    edit_shift: i64,
    /// Container's decoding time of the next sample, before the edit list.
    next_time: i64,
    /// Whether any sample had a duration so far.
    has_durations: bool,
    clock: AudioClock,
    /// The configuration last sent as an event.
    announced: Option<CodecConfig>,
}

/// What a `moov` says, cut down to what is carried.
#[derive(Clone, Debug, Default)]
pub(crate) struct MoovTracks {
    pub(crate) tracks: Vec<TrackState>,
    pub(crate) ignored: Vec<IgnoredTrack>,
    pub(crate) defaults: Vec<Trex>,
}

impl MoovTracks {
    /// Reads the tracks of a `moov`; sample tables are left to [`super::table`].
    pub(crate) fn read(moov: &Moov, header: &BoxHeader) -> Result<Self, Fmp4Error> {
        let mut found = Self::default();
        let mut unseen = None;
        for trak in &moov.trak {
            match TrackState::read(trak, moov.mvhd.timescale, header)? {
                Ok(track) => found.add(track, header)?,
                Err(ignored) => {
                    let pictures = trak.mdia.hdlr.handler == (*b"vide").into();
                    unseen = unseen.or(pictures.then_some(ignored.codec));
                    found.ignored.push(ignored);
                }
            }
        }
        // Sound alone is not what someone wanted who sends pictures, too.
        if let (Some(codec), false) = (unseen, found.has_video()) {
            return Err(Fmp4Error::UnsupportedCodec(codec));
        }
        if let Some(mvex) = &moov.mvex {
            found.defaults.clone_from(&mvex.trex);
        }
        match (found.tracks.first(), found.ignored.first()) {
            (Some(_), _) => Ok(found),
            (None, Some(ignored)) => Err(Fmp4Error::UnsupportedCodec(ignored.codec)),
            (None, None) => Err(Fmp4Error::NoTracks {
                offset: header.offset,
            }),
        }
    }

    fn has_video(&self) -> bool {
        self.tracks.iter().any(TrackState::is_video)
    }

    fn add(&mut self, track: TrackState, header: &BoxHeader) -> Result<(), Fmp4Error> {
        if self.tracks.iter().any(|other| other.id == track.id) {
            return Err(header.invalid("two tracks have the same number"));
        }
        self.tracks.push(track);
        if self.tracks.len() > MAX_TRACKS {
            return Err(Fmp4Error::TooManyTracks {
                offset: header.offset,
                count: self.tracks.len(),
            });
        }
        Ok(())
    }

    /// Index of a carried track.
    pub(crate) fn index_of(&self, id: u32) -> Option<usize> {
        self.tracks.iter().position(|track| track.id == id)
    }
}

impl TrackState {
    fn read(
        trak: &Trak,
        movie_timescale: u32,
        header: &BoxHeader,
    ) -> Result<Result<Self, IgnoredTrack>, Fmp4Error> {
        let id = trak.tkhd.track_id;
        let entry = trak.mdia.minf.stbl.stsd.codecs.first();
        let entry = entry.ok_or_else(|| header.invalid("a track has no sample entry"))?;
        let Some(codec) = read_codec(entry, id, header)? else {
            let codec = entry_kind(entry);
            return Ok(Err(IgnoredTrack { id, codec }));
        };
        let timescale = trak.mdia.mdhd.timescale;
        if !(1..=MAX_TIMESCALE).contains(&timescale) {
            return Err(header.invalid("a track's time scale is 0 or above 10,000,000"));
        }
        Ok(Ok(Self {
            id,
            timescale,
            clock: AudioClock::new(&codec, timescale),
            codec,
            edit_shift: edit_shift(trak, timescale, movie_timescale, header)?,
            next_time: 0,
            has_durations: false,
            announced: None,
        }))
    }

    /// Goes on from an earlier `moov`'s track, if it is the same one.
    pub(crate) fn resume(&mut self, earlier: &Self) {
        self.announced.clone_from(&earlier.announced);
        let same = self.config() == earlier.config() && self.timescale == earlier.timescale;
        if same {
            self.next_time = earlier.next_time;
            self.has_durations = earlier.has_durations;
            self.clock = earlier.clock;
            self.codec.clone_from(&earlier.codec);
        } else {
            self.announced = None;
        }
    }

    /// The decoder configuration, once it is complete.
    pub(crate) fn config(&self) -> Option<CodecConfig> {
        self.codec.config()
    }

    /// The track as it is announced, once its configuration is complete.
    pub(crate) fn source_track(&self) -> Option<SourceTrack> {
        Some(SourceTrack {
            id: self.id,
            timescale: self.timescale,
            config: self.config()?,
        })
    }

    /// Sends the track if it is new, or not as it was sent last.
    pub(crate) fn announce(&mut self, out: &mut Vec<SourceEvent>) {
        let Some(track) = self.source_track() else {
            return;
        };
        if self.announced.as_ref() != Some(&track.config) {
            self.announced = Some(track.config.clone());
            out.push(SourceEvent::Track(track));
        }
    }

    /// Sets the container's clock, as a `tfdt` does.
    pub(crate) fn set_time(&mut self, time: u64) -> Option<()> {
        let time = i64::try_from(time).ok().filter(|&time| time <= MAX_TIME)?;
        self.next_time = time;
        Some(())
    }

    /// Takes the `tfdt` of a fragment with one sample that is said to take no time;
    /// answers the duration that is meant, in ticks.
    ///
    /// ffmpeg's `frag_every_frame` does not know yet how long a picture lasts when it
    /// writes it: it says 0, and has the picture's end for its time. That of a writer who
    /// never says how long a sample lasts is its time.
    pub(crate) fn set_end(&mut self, time: u64) -> Option<u32> {
        let (start, repairs) = (self.next_time, self.has_durations && self.is_video());
        self.set_time(time)?;
        let lasts = u32::try_from(self.next_time - start).unwrap_or(0);
        if repairs && lasts > 0 {
            self.next_time = start;
            return Some(lasts);
        }
        Some(0)
    }

    fn is_video(&self) -> bool {
        self.codec.kind().track() == TrackKind::Video
    }

    /// Takes the next sample's duration; answers its decoding time and duration.
    ///
    /// None if the time passes [`MAX_TIME`].
    pub(crate) fn tick(&mut self, duration: u32) -> Option<(i64, u32)> {
        let time = self.next_time;
        self.has_durations |= duration > 0;
        if time > MAX_TIME {
            return None;
        }
        self.next_time = time + i64::from(duration);
        let (time, duration) = match &self.codec {
            Codec::Aac { config, .. } => self.clock.tick(time, config.samples_per_frame),
            Codec::H264(_) | Codec::H265(_) | Codec::Av1(_) | Codec::Opus(_) => (time, duration),
        };
        Some((time - self.edit_shift, duration))
    }

    /// Turns a sample's bytes into events: a frame, and before it the track if a
    /// parameter set in the bytes changed it.
    ///
    /// Nothing comes of access units without a picture, and of pictures before the
    /// first parameter sets.
    pub(crate) fn deliver(
        &mut self,
        planned: &Planned,
        data: &[u8],
        out: &mut Vec<SourceEvent>,
    ) -> Result<(), Fmp4Error> {
        let unit = self.codec.unit(data).map_err(|error| Fmp4Error::Codec {
            track: self.id,
            offset: planned.offset,
            error,
        })?;
        let (_, Some(unit)) = unit else {
            return Ok(());
        };
        let (dts, duration) = match &self.codec {
            // Only the packet itself says how long it lasts.
            Codec::Opus(_) => {
                let samples = packet_samples(&unit.data).unwrap_or(0);
                self.clock.tick(planned.dts, samples)
            }
            Codec::H264(_) | Codec::H265(_) | Codec::Av1(_) | Codec::Aac { .. } => {
                (planned.dts, planned.duration)
            }
        };
        self.announce(out);
        out.push(SourceEvent::Sample(Sample {
            track: self.id,
            dts,
            cts: planned.cts,
            duration: Some(duration).filter(|&duration| duration > 0),
            keyframe: unit.keyframe,
            discardable: unit.discardable,
            data: unit.data,
        }));
        Ok(())
    }
}

/// Sound's own clock: a frame lasts as long as its codec says.
///
/// ffmpeg's `frag_every_frame` gives a third of its audio samples no duration and
/// writes the next `tfdt` one frame too late; the container is believed only when it
/// is off by more than a frame.
#[derive(Clone, Copy, Debug, Default)]
struct AudioClock {
    /// Time of a frame, and how many samples ago it began; none before the first.
    anchor: Option<(i64, u64)>,
    sample_rate: u32,
    timescale: u32,
}

impl AudioClock {
    fn new(codec: &Codec, timescale: u32) -> Self {
        let sound = codec.config().and_then(|config| config.sound());
        Self {
            anchor: None,
            sample_rate: sound.map_or(0, |(sample_rate, _)| sample_rate),
            timescale,
        }
    }

    /// Time and duration of the next frame, which has so many samples and which the
    /// container has at `time`.
    fn tick(&mut self, time: i64, samples: u32) -> (i64, u32) {
        let frame = self.ticks(samples.into());
        let (anchor, before) = match self.anchor {
            Some((anchor, before))
                if time.abs_diff(anchor + self.ticks(before)) <= frame.unsigned_abs() =>
            {
                (anchor, before)
            }
            Some(_) | None => (time, 0),
        };
        let after = before + u64::from(samples);
        self.anchor = Some((anchor, after));
        let start = anchor + self.ticks(before);
        let duration = anchor + self.ticks(after) - start;
        (start, u32::try_from(duration).unwrap_or(0))
    }

    /// Length of so many samples in ticks, rounded down; a second has at most 10⁷ and
    /// a stream cannot have 2⁵⁰ samples, so it fits.
    fn ticks(&self, samples: u64) -> i64 {
        let scaled = u128::from(samples) * u128::from(self.timescale);
        let ticks = scaled / u128::from(self.sample_rate.max(1));
        i64::try_from(ticks).unwrap_or(MAX_TIME)
    }
}

/// The codec of a sample entry; none if it is not carried.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of all entries there are, few are carried"
)]
fn read_codec(entry: &Entry, track: u32, header: &BoxHeader) -> Result<Option<Codec>, Fmp4Error> {
    use mp4_atom::{Avc1, Avc3, Hev1, Hvc1};
    let checked = |codec: Result<Codec, CodecError>| {
        codec.map(Some).map_err(|error| Fmp4Error::Codec {
            track,
            offset: header.offset,
            error,
        })
    };
    match entry {
        Entry::Avc1(Avc1 { avcc, .. }) | Entry::Avc3(Avc3 { avcc, .. }) => {
            checked(Codec::parse(CodecKind::H264, &body(avcc, header)?))
        }
        Entry::Hvc1(Hvc1 { hvcc, .. }) | Entry::Hev1(Hev1 { hvcc, .. }) => {
            checked(Codec::parse(CodecKind::H265, &body(hvcc, header)?))
        }
        Entry::Av01(av01) => checked(Codec::parse(CodecKind::Av1, &body(&av01.av1c, header)?)),
        Entry::Mp4a(mp4a) => {
            let decoder = &mp4a.esds.es_desc.dec_config;
            if !AAC_OBJECT_TYPES.contains(&decoder.object_type_indication) {
                return Ok(None);
            }
            let specific = decoder.dec_specific.as_ref();
            let asc = specific.map_or(&[][..], |specific| &specific.raw);
            checked(Codec::parse(CodecKind::Aac, asc))
        }
        Entry::Opus(opus) => {
            let head = OpusHead::parse_dops(&body(&opus.dops, header)?);
            checked(head.map(Codec::Opus).map_err(CodecError::Opus))
        }
        other => {
            let kind = entry_kind(other);
            if matches!(&kind.0, b"encv" | b"enca") {
                return Err(Fmp4Error::Encrypted { track, entry: kind });
            }
            Ok(None)
        }
    }
}

/// A box's body, as it stood in the file.
fn body<A: Atom>(atom: &A, header: &BoxHeader) -> Result<Vec<u8>, Fmp4Error> {
    let mut body = Vec::new();
    atom.encode_body(&mut body)
        .map_err(|error| Fmp4Error::Malformed {
            kind: FourCc(A::KIND.into()),
            offset: header.offset,
            error,
        })?;
    Ok(body)
}

/// The name of a sample entry, as it stands in the file.
fn entry_kind(entry: &Entry) -> FourCc {
    if let Entry::Unknown(kind, _) = entry {
        return FourCc((*kind).into());
    }
    let mut bytes = Vec::new();
    let encoded = entry.encode(&mut bytes);
    match (encoded, bytes.get(4..8)) {
        (Ok(()), Some(&[a, b, c, d])) => FourCc([a, b, c, d]),
        (Ok(()) | Err(_), Some(_) | None) => FourCc(*b"????"),
    }
}

/// Presentation starts at the first real edit's media time, after the empty edits
/// before it (ISO/IEC 14496-12 §8.6.6), whose length is in the movie's time scale.
fn edit_shift(
    trak: &Trak,
    timescale: u32,
    movie_timescale: u32,
    header: &BoxHeader,
) -> Result<i64, Fmp4Error> {
    let edits = trak.edts.as_ref().and_then(|edts| edts.elst.as_ref());
    let mut empty = 0u128;
    for edit in edits.map_or(&[][..], |edits| &edits.entries) {
        let Some(media_time) = edit.media_time else {
            empty = empty.saturating_add(edit.segment_duration.into());
            continue;
        };
        let delay = empty * u128::from(timescale) / u128::from(movie_timescale.max(1));
        let delay = i64::try_from(delay).ok().filter(|&delay| delay <= MAX_TIME);
        let start = i64::try_from(media_time)
            .ok()
            .filter(|&start| start <= MAX_TIME);
        return match (start, delay) {
            (Some(start), Some(delay)) => Ok(start - delay),
            (None | Some(_), _) => Err(header.invalid("an edit list's times are out of range")),
        };
    }
    Ok(0)
}
