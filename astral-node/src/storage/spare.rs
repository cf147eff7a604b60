//! Room for marks that is there also when the disk is full.
//!
//! `<data-dir>/node.marks` is written once in its whole length. What is put down later
//! takes the place of bytes that are there already, for which a file system that does not
//! copy on write needs no room. A stream has a pair of slots, of which the older is
//! replaced: whatever becomes of a write, the marks before it stay. All integers are
//! little-endian; a slot of 64 bytes is
//!
//! | bytes | what |
//! |---|---|
//! | 0 | form of the slot, 1; 0 if it is empty |
//! | 1..17 | id of the stream |
//! | 17..21, 21..29, 29..37 | epoch, group, time in nanoseconds |
//! | 37..41 | CRC-32 (IEEE 802.3) of the bytes before |

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use astral_proto::ids::StreamId;

use super::private_file::write_private;
use super::stream::Marks;

/// First byte of a slot that holds marks.
const SLOT_VERSION: u8 = 1;
/// Bytes of a slot: none of them lies on two sectors.
const SLOT: usize = 64;
/// Bytes of a slot that its checksum covers.
const COVERED: usize = 37;
/// Streams for which there is room.
pub(super) const STREAMS_MAX: usize = 512;
/// Bytes of the file.
const LEN: usize = STREAMS_MAX * 2 * SLOT;

/// The open file, and what it holds.
#[derive(Debug)]
pub(super) struct Spare {
    file: File,
    streams: BTreeMap<StreamId, Pair>,
}

/// Where a stream's marks are.
#[derive(Debug)]
struct Pair {
    /// Which pair of slots.
    number: usize,
    /// Which of the two is written next.
    next: usize,
    /// The highest of both.
    marks: Marks,
}

impl Pair {
    /// What these two slots hold; none if both are empty or spoilt.
    fn read(number: usize, slots: &[u8]) -> Option<(StreamId, Self)> {
        let (first, second) = slots.split_at(SLOT);
        let found = [decode(first), decode(second)];
        let (stream, _) = *found.iter().flatten().next()?;
        let of = |slot: usize| match found[slot] {
            Some((id, marks)) if id == stream => marks,
            Some(_) | None => Marks::default(),
        };
        let mut marks = of(0);
        marks.raise(of(1));
        let pair = Self {
            number,
            // The one that is written later is the higher one.
            next: usize::from(of(0) == marks),
            marks,
        };
        Some((stream, pair))
    }
}

impl Spare {
    /// Opens the file at `path`, made if it is not there.
    ///
    /// # Errors
    /// The file system refuses, for instance since there is no room to make it.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        if !path.exists() {
            write_private(path, &[0; LEN])?;
        }
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut bytes = Vec::with_capacity(LEN);
        (&mut file).take(LEN as u64).read_to_end(&mut bytes)?;
        if bytes.len() < LEN {
            file.write_all(&vec![0; LEN - bytes.len()])?;
            file.sync_all()?;
        }
        let pairs = bytes.chunks_exact(2 * SLOT).enumerate();
        let streams = pairs.filter_map(|(number, slots)| Pair::read(number, slots));
        let streams = streams.collect();
        Ok(Self { file, streams })
    }

    /// A stream's marks; all 0 if there are none.
    pub(super) fn marks(&self, stream: StreamId) -> Marks {
        self.streams
            .get(&stream)
            .map_or(Marks::default(), |pair| pair.marks)
    }

    /// Every stream that has marks here.
    pub(super) fn streams(&self) -> Vec<(StreamId, Marks)> {
        let pairs = self.streams.iter();
        pairs.map(|(id, pair)| (*id, pair.marks)).collect()
    }

    /// Raises a stream's marks; durable when it returns.
    ///
    /// # Errors
    /// There is no place left, or the file system refuses.
    pub(super) fn raise(&mut self, stream: StreamId, marks: Marks) -> io::Result<()> {
        let (number, slot, mut highest) = match self.streams.get(&stream) {
            Some(pair) => (pair.number, pair.next, pair.marks),
            None => (self.free()?, 0, Marks::default()),
        };
        highest.raise(marks);
        self.write(number * 2 + slot, &encode(stream, highest))?;
        let pair = Pair {
            number,
            next: 1 - slot,
            marks: highest,
        };
        self.streams.insert(stream, pair);
        Ok(())
    }

    /// Forgets a stream; an unknown one is no error.
    ///
    /// # Errors
    /// The file system refuses.
    pub(super) fn remove(&mut self, stream: StreamId) -> io::Result<()> {
        if let Some(pair) = self.streams.get(&stream) {
            let number = pair.number;
            self.write(number * 2, &[0; SLOT])?;
            self.write(number * 2 + 1, &[0; SLOT])?;
            self.streams.remove(&stream);
        }
        Ok(())
    }

    fn free(&self) -> io::Result<usize> {
        let is_free = |number: &usize| self.streams.values().all(|pair| pair.number != *number);
        let free = (0..STREAMS_MAX).find(is_free);
        free.ok_or_else(|| io::Error::from(io::ErrorKind::StorageFull))
    }

    fn write(&mut self, slot: usize, bytes: &[u8; SLOT]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start((slot * SLOT) as u64))?;
        self.file.write_all(bytes)?;
        self.file.sync_data()
    }
}

fn encode(stream: StreamId, marks: Marks) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[0] = SLOT_VERSION;
    slot[1..17].copy_from_slice(stream.0.as_bytes());
    slot[17..21].copy_from_slice(&marks.epoch.to_le_bytes());
    slot[21..29].copy_from_slice(&marks.group.to_le_bytes());
    slot[29..37].copy_from_slice(&marks.time_ns.to_le_bytes());
    let checksum = checksum(&slot);
    slot[COVERED..COVERED + 4].copy_from_slice(&checksum.to_le_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(StreamId, Marks)> {
    let slot: &[u8; SLOT] = slot.try_into().ok()?;
    let field = |at: usize| -> [u8; 8] { slot[at..at + 8].try_into().expect("8 bytes") };
    let word = |at: usize| -> [u8; 4] { slot[at..at + 4].try_into().expect("4 bytes") };
    if slot[0] != SLOT_VERSION || u32::from_le_bytes(word(COVERED)) != checksum(slot) {
        return None;
    }
    let stream = uuid::Uuid::from_slice(&slot[1..17]).ok()?;
    let marks = Marks {
        epoch: u32::from_le_bytes(word(17)),
        group: u64::from_le_bytes(field(21)),
        time_ns: i64::from_le_bytes(field(29)),
    };
    Some((StreamId(stream), marks))
}

fn checksum(slot: &[u8; SLOT]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(&slot[..COVERED]);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> StreamId {
        StreamId(uuid::Uuid::from_u64_pair(8, number))
    }

    fn marks(number: u32) -> Marks {
        Marks {
            epoch: number,
            group: number.into(),
            time_ns: -1 + i64::from(number),
        }
    }

    #[test]
    fn marks_only_rise_and_are_there_when_it_is_opened_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        for round in [3, 7, 5, 9] {
            let mut spare = Spare::open(&path).unwrap();
            for number in 0..4 {
                spare.raise(id(number), marks(round)).unwrap();
                spare.raise(id(number), marks(round - 1)).unwrap();
            }
        }
        let spare = Spare::open(&path).unwrap();
        assert_eq!(spare.streams().len(), 4);
        assert_eq!(spare.marks(id(3)), marks(9));
        assert_eq!(spare.marks(id(4)), Marks::default());
        assert_eq!(std::fs::metadata(&path).unwrap().len(), LEN as u64);
    }

    #[test]
    fn a_write_that_was_cut_off_takes_nothing_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        for rounds in 1..6 {
            let mut spare = Spare::open(&path).unwrap();
            spare.raise(id(1), marks(rounds)).unwrap();
            let before = std::fs::read(&path).unwrap();
            spare.raise(id(1), marks(rounds + 1)).unwrap();
            let after = std::fs::read(&path).unwrap();
            for cut in 1..COVERED + 4 {
                let slot = (0..2)
                    .find(|slot| before[slot * SLOT..][..SLOT] != after[slot * SLOT..][..SLOT]);
                let at = slot.unwrap() * SLOT;
                let mut torn = before.clone();
                torn[at..at + cut].copy_from_slice(&after[at..at + cut]);
                std::fs::write(&path, &torn).unwrap();
                let kept = Spare::open(&path).unwrap().marks(id(1));
                assert!(
                    kept == marks(rounds) || kept == marks(rounds + 1),
                    "{cut}: {kept:?}"
                );
            }
            std::fs::write(&path, &before).unwrap();
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_again_when_one_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut spare = Spare::open(&dir.path().join("marks")).unwrap();
        for number in 0..STREAMS_MAX as u64 {
            spare.raise(id(number), marks(1)).unwrap();
        }
        assert!(spare.raise(id(9_999), marks(1)).is_err());
        spare.remove(id(7)).unwrap();
        spare.raise(id(9_999), marks(1)).unwrap();
    }

    #[test]
    fn any_bytes_are_opened_and_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("marks");
        for bytes in [vec![], vec![1; 100], vec![0xff; LEN + 1000]] {
            std::fs::write(&path, &bytes).unwrap();
            let mut spare = Spare::open(&path).unwrap();
            assert_eq!(spare.streams(), []);
            spare.raise(id(1), marks(2)).unwrap();
            drop(spare);
            assert_eq!(Spare::open(&path).unwrap().marks(id(1)), marks(2));
        }
    }
}
