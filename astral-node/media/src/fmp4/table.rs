//! `stbl` to samples, one by one (ISO/IEC 14496-12 §8.6 and §8.7).
//!
//! The tables stay as they were read; nothing is spread out, so a file of many hours
//! takes no more memory than its `moov`.

use mp4_atom::{Stbl, StscEntry, StszSamples};

use super::boxes::BoxHeader;
use super::demux::MAX_SAMPLE;
use super::error::Fmp4Error;
use super::track::{Planned, TrackState};

/// Walks one track's sample tables.
#[derive(Clone, Debug)]
pub(crate) struct SampleTable {
    header: BoxHeader,
    durations: Runs<u32>,
    offsets: Runs<i64>,
    sizes: StszSamples,
    chunks: Vec<u64>,
    map: Vec<StscEntry>,
    next_sample: u32,
    /// Index of the chunk being read, its entry in `map`, and what is left of it.
    chunk: usize,
    map_entry: usize,
    left_in_chunk: u32,
    position: u64,
}

/// A run-length table, read forwards.
#[derive(Clone, Debug)]
struct Runs<T> {
    entries: Vec<(u32, T)>,
    entry: usize,
    used: u32,
}

impl<T: Copy + Default> Runs<T> {
    fn new(entries: impl Iterator<Item = (u32, T)>) -> Self {
        Self {
            entries: entries.collect(),
            entry: 0,
            used: 0,
        }
    }

    /// The next value; the default one behind the end.
    fn take(&mut self) -> T {
        while let Some(&(count, value)) = self.entries.get(self.entry) {
            if self.used < count {
                self.used += 1;
                return value;
            }
            self.entry += 1;
            self.used = 0;
        }
        T::default()
    }
}

impl SampleTable {
    /// Takes the tables of a track out of a `moov` whose header is given.
    pub(crate) fn new(stbl: &Stbl, header: BoxHeader) -> Self {
        let durations = stbl.stts.entries.iter();
        let offsets = stbl.ctts.iter().flat_map(|ctts| &ctts.entries);
        let chunks = match (&stbl.co64, &stbl.stco) {
            (Some(co64), _) => co64.entries.clone(),
            (None, Some(stco)) => stco.entries.iter().map(|&at| at.into()).collect(),
            (None, None) => Vec::new(),
        };
        Self {
            header,
            durations: Runs::new(durations.map(|run| (run.sample_count, run.sample_delta))),
            offsets: Runs::new(offsets.map(|run| (run.sample_count, run.sample_offset))),
            sizes: stbl.stsz.samples.clone(),
            chunks,
            map: stbl.stsc.entries.clone(),
            next_sample: 0,
            chunk: 0,
            map_entry: 0,
            left_in_chunk: 0,
            position: 0,
        }
    }

    /// How many samples the tables have.
    pub(crate) fn len(&self) -> usize {
        match &self.sizes {
            StszSamples::Identical { count, .. } => *count as usize,
            StszSamples::Different { sizes } => sizes.len(),
        }
    }

    /// The next sample that has bytes; moves the track's clock on.
    pub(crate) fn next(
        &mut self,
        index: usize,
        state: &mut TrackState,
    ) -> Result<Option<Planned>, Fmp4Error> {
        while let Some(size) = self.take_size() {
            let offset = self.place(size)?;
            let (dts, duration) = state
                .tick(self.durations.take())
                .ok_or_else(|| self.header.invalid("a decoding time is out of range"))?;
            let cts = self.offsets.take() as i32;
            if size > MAX_SAMPLE {
                let track = state.id;
                return Err(Fmp4Error::SampleTooLarge { track, size });
            }
            if size > 0 {
                return Ok(Some(Planned {
                    track: index,
                    offset,
                    size,
                    dts,
                    cts,
                    duration,
                }));
            }
        }
        Ok(None)
    }

    fn take_size(&mut self) -> Option<u32> {
        let size = match &self.sizes {
            StszSamples::Identical { count, size } => (self.next_sample < *count).then_some(*size),
            StszSamples::Different { sizes } => sizes.get(self.next_sample as usize).copied(),
        };
        self.next_sample = self.next_sample.checked_add(1)?;
        size
    }

    /// Where the next sample, of this size, lies.
    fn place(&mut self, size: u32) -> Result<u64, Fmp4Error> {
        while self.left_in_chunk == 0 {
            self.open_chunk()?;
        }
        self.left_in_chunk -= 1;
        let offset = self.position;
        self.position = offset
            .checked_add(size.into())
            .ok_or_else(|| self.header.invalid("a chunk offset is out of range"))?;
        Ok(offset)
    }

    fn open_chunk(&mut self) -> Result<(), Fmp4Error> {
        let missing = "a sample table has more samples than chunks";
        let position = self.chunks.get(self.chunk).copied();
        self.position = position.ok_or_else(|| self.header.invalid(missing))?;
        // `first_chunk` counts from 1.
        let begins = |entry: &StscEntry| entry.first_chunk as usize <= self.chunk + 1;
        if self.map.get(self.map_entry + 1).is_some_and(begins) {
            self.map_entry += 1;
        }
        let entry = self.map.get(self.map_entry);
        let entry = entry.ok_or_else(|| self.header.invalid(missing))?;
        self.left_in_chunk = entry.samples_per_chunk;
        self.chunk += 1;
        Ok(())
    }
}
