//! What outlives the process: the node's key, its own streams and the numbers that
//! must never be used twice.
//!
//! One redb database, `<data-dir>/node.redb`, whose lock also keeps a second node out
//! of the folder, and the key beside it in `node.key`, so that it can be backed up or
//! moved alone. A running stream's marks go to `node.marks` while the database cannot
//! grow, so that a full disk stops no stream. Every write is on disk when the call
//! returns. All calls block: async code goes through `spawn_blocking`. Nothing is ever
//! deleted to get over an error.

mod memory;
mod private_file;
mod rows;
mod spare;
mod stream;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use astral_proto::ids::{SecretKey, StreamId};
use redb::{Database, DatabaseError, Durability, ReadableDatabase as _, ReadableTable as _};
use redb::{TableDefinition, WriteTransaction};
use tracing::{info, warn};

use self::spare::Spare;
use crate::lock::lock;
pub(crate) use memory::{RememberedPeer, RememberedSlug, WantedStream};
pub(crate) use private_file::write_private;
pub(crate) use stream::{Marks, OwnStream};

/// Own streams by the 16 bytes of their id.
const STREAMS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("streams");
/// Single numbers by name.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Layout of the tables in this database.
const LAYOUT: &str = "layout";
/// Last `seq` of this node's own record.
const RECORD_SEQ: &str = "record_seq";
/// The layout that this program writes.
const LAYOUT_VERSION: u64 = 1;
/// Memory for pages, in bytes: the database is a few pages, redb's default is 1 GiB.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// The data folder counts as writable again when nothing has failed for so long.
const QUIET: Duration = Duration::from_secs(20);

/// Why something could not be kept or found again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    /// Another process works on this data folder.
    #[error(
        "another astral-node is running on {}: stop it (astral shutdown), or give this one its own \
         --data-dir", .0.display()
    )]
    AlreadyRunning(PathBuf),
    /// The database is of a later version of this program.
    #[error(
        "{} was written by a newer astral-node (layout {found}, this one knows {LAYOUT_VERSION}): \
         update astral-node", .path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its layout.
        found: u64,
    },
    /// The database cannot be understood.
    #[error(
        "{} is damaged, or written by another program ({detail}); it was left as it is: restore it \
         from a backup, or move it away to start without this node's streams", .path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What redb or the decoder says.
        detail: String,
    },
    /// The key file cannot be understood.
    #[error(
        "{} is not a node's key (64 hexadecimal digits); it was left as it is: restore it from a \
         backup, or move it away to start as a new node", .0.display()
    )]
    Key(PathBuf),
    /// A stream that this node does not publish.
    #[error("stream {0} is not one of this node's own")]
    UnknownStream(StreamId),
    /// The file system refuses.
    #[error("{}: {source}", .path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database refuses, for instance after the disk was full.
    #[error("{}: {detail}", .path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What redb says.
        detail: String,
    },
    /// The operating system gives no random numbers.
    #[error("no random numbers from the operating system: {0}")]
    Random(#[from] getrandom::Error),
}

/// The data folder of a node; clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Storage {
    shared: Arc<Shared>,
    dir: Arc<Path>,
}

struct Shared {
    open: Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>,
    /// Closed after it failed: redb answers nothing more until it is opened anew.
    database: Mutex<Option<Database>>,
    /// Why a write failed last, and when, until one succeeds [`QUIET`] later: on a full
    /// disk a small one still does now and then.
    failing: Mutex<Option<(String, Instant)>>,
    /// Where marks go when the database cannot be written; not there if it could not be made.
    spare: Mutex<Option<Spare>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Storage {
    /// Opens the data folder, made if it is not there (mode 0700).
    ///
    /// # Errors
    /// [`StorageError::AlreadyRunning`], [`StorageError::Newer`], [`StorageError::Damaged`],
    /// or the file system refuses.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, StorageError> {
        make_dir(data_dir).map_err(|source| StorageError::Io {
            path: data_dir.to_owned(),
            source,
        })?;
        let path = database_path(data_dir);
        Self::open_by(data_dir, move || {
            redb::Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create(&path)
        })
    }

    fn open_by(
        data_dir: &Path,
        open: impl Fn() -> Result<Database, DatabaseError> + Send + Sync + 'static,
    ) -> Result<Self, StorageError> {
        let database = open().map_err(|error| not_opened(data_dir, error))?;
        let storage = Self {
            shared: Arc::new(Shared {
                open: Box::new(open),
                database: Mutex::new(Some(database)),
                failing: Mutex::default(),
                spare: Mutex::default(),
            }),
            dir: data_dir.into(),
        };
        storage.check_layout()?;
        storage.open_spare();
        Ok(storage)
    }

    /// Opens the spare room, and moves what it holds into the database as far as that
    /// takes it.
    fn open_spare(&self) {
        let path = self.dir.join("node.marks");
        let mut spare = match Spare::open(&path) {
            Ok(spare) => spare,
            Err(error) => {
                warn!(
                    path = %path.display(), %error,
                    "no room is kept back: a full disk will end streams"
                );
                return;
            }
        };
        for (id, marks) in spare.streams() {
            let moved = match self.raise_stored_marks(id, marks) {
                Ok(()) | Err(StorageError::UnknownStream(_)) => spare.remove(id),
                Err(_) => continue,
            };
            if let Err(error) = moved {
                warn!(path = %path.display(), %error, "kept what is in the database, too");
            }
        }
        *lock(&self.shared.spare) = Some(spare);
    }

    /// What is wrong with the data folder now, for people; empty if nothing is.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let failing = lock(&self.shared.failing);
        let words = failing.as_ref().map(|(error, _)| {
            format!(
                "the data folder cannot be written ({error}): streams go on, but what is changed \
                 now is lost at a restart; make room on its disk"
            )
        });
        words.into_iter().collect()
    }

    /// Works on the database, opened anew if it failed before.
    fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, StorageError> {
        let mut open = lock(&self.shared.database);
        let database = match open.take() {
            Some(database) => database,
            None => (self.shared.open)().map_err(|error| not_opened(&self.dir, error))?,
        };
        let done = work(&database);
        if !matches!(done, Err(redb::Error::Io(_) | redb::Error::PreviousIo)) {
            *open = Some(database);
        }
        done.map_err(|error| self.failed(&error))
    }

    /// Takes note of how a write went, and tells when that changes.
    fn note<T>(&self, written: Result<T, StorageError>) -> Result<T, StorageError> {
        let mut failing = lock(&self.shared.failing);
        match &written {
            Ok(_) if failing.as_ref().is_some_and(|(_, at)| at.elapsed() > QUIET) => {
                *failing = None;
                info!("the data folder can be written again");
            }
            Err(error @ (StorageError::Io { .. } | StorageError::Database { .. })) => {
                if failing.is_none() {
                    warn!(%error, "the data folder cannot be written; streams go on");
                }
                *failing = Some((error.to_string(), Instant::now()));
            }
            Ok(_) | Err(_) => {}
        }
        written
    }

    /// This node's key, made at the first start, in `node.key` (mode 0600).
    ///
    /// # Errors
    /// The file holds no key, or cannot be read or written.
    pub(crate) fn node_key(&self) -> Result<SecretKey, StorageError> {
        let path = self.dir.join("node.key");
        match std::fs::read(&path) {
            Ok(text) => seed_of(&text)
                .map(SecretKey::from_seed)
                .ok_or(StorageError::Key(path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut seed = [0; 32];
                getrandom::fill(&mut seed)?;
                let text = format!("{}\n", hex(&seed));
                write_private(&path, text.as_bytes())
                    .map_err(|source| StorageError::Io { path, source })?;
                Ok(SecretKey::from_seed(seed))
            }
            Err(source) => Err(StorageError::Io { path, source }),
        }
    }

    /// The streams that this node publishes, by id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn streams(&self) -> Result<Vec<OwnStream>, StorageError> {
        let rows = self.with(|database| -> Result<Vec<Vec<u8>>, redb::Error> {
            let table = database.begin_read()?.open_table(STREAMS)?;
            table
                .iter()?
                .map(|row| Ok(row?.1.value().to_vec()))
                .collect()
        });
        let mut streams: Vec<OwnStream> = rows?
            .iter()
            .map(|row| self.decode(row))
            .collect::<Result<_, _>>()?;
        if let Some(spare) = &*lock(&self.shared.spare) {
            for stream in &mut streams {
                stream.marks.raise(spare.marks(stream.id()));
            }
        }
        Ok(streams)
    }

    /// Keeps `stream`, new or changed. Its marks and `record_seq` only ever rise, so
    /// that a writer with an old copy cannot take back what another made durable.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(crate) fn put_stream(&self, stream: &OwnStream) -> Result<(), StorageError> {
        self.change_stream(stream.id(), |stored| {
            let mut stream = stream.clone();
            if let Some(stored) = stored {
                stream.marks.raise(stored.marks);
                stream.record_seq = stream.record_seq.max(stored.record_seq);
            }
            Ok(Some(stream))
        })
    }

    /// Forgets a stream and its key; an unknown one is no error.
    ///
    /// # Errors
    /// The database cannot be written.
    pub(crate) fn remove_stream(&self, id: StreamId) -> Result<(), StorageError> {
        self.change_stream(id, |_| Ok(None))
    }

    /// Makes it durable that everything signed so far stays within `marks`, in the room
    /// that is kept back if the database cannot be written. Never lowers one.
    ///
    /// # Errors
    /// [`StorageError::UnknownStream`], or nothing can be written at all.
    pub(crate) fn raise_marks(&self, id: StreamId, marks: Marks) -> Result<(), StorageError> {
        let raised = self.raise_stored_marks(id, marks);
        if let Err(StorageError::Io { .. } | StorageError::Database { .. }) = &raised
            && let Some(spare) = &mut *lock(&self.shared.spare)
            && spare.raise(id, marks).is_ok()
        {
            return Ok(());
        }
        raised
    }

    fn raise_stored_marks(&self, id: StreamId, marks: Marks) -> Result<(), StorageError> {
        self.change_stream(id, |stored| {
            let mut stream = stored.ok_or(StorageError::UnknownStream(id))?;
            stream.marks.raise(marks);
            Ok(Some(stream))
        })
    }

    /// Makes `seq` the last one used in the stream's record. Never lowers it.
    ///
    /// # Errors
    /// [`StorageError::UnknownStream`], or the database cannot be written.
    pub(crate) fn raise_stream_record_seq(
        &self,
        id: StreamId,
        seq: u64,
    ) -> Result<(), StorageError> {
        self.change_stream(id, |stored| {
            let mut stream = stored.ok_or(StorageError::UnknownStream(id))?;
            stream.record_seq = stream.record_seq.max(seq);
            Ok(Some(stream))
        })
    }

    /// Last `seq` used in this node's own record; 0 before the first.
    ///
    /// # Errors
    /// The database cannot be read.
    pub(crate) fn record_seq(&self) -> Result<u64, StorageError> {
        Ok(self.number(RECORD_SEQ)?.unwrap_or(0))
    }

    /// Makes `seq` the last one used in this node's own record. Never lowers it.
    ///
    /// # Errors
    /// The database cannot be read or written.
    pub(crate) fn raise_record_seq(&self, seq: u64) -> Result<(), StorageError> {
        self.note(self.with(|database| {
            let transaction = begin(database)?;
            {
                let mut table = transaction.open_table(NUMBERS)?;
                let stored = table.get(RECORD_SEQ)?.map_or(0, |number| number.value());
                table.insert(RECORD_SEQ, stored.max(seq))?;
            }
            Ok(transaction.commit()?)
        }))
    }

    /// Replaces one stream's row by what `change` makes of it, in one transaction; leaves
    /// it if nothing changed.
    fn change_stream(
        &self,
        id: StreamId,
        change: impl FnOnce(Option<OwnStream>) -> Result<Option<OwnStream>, StorageError>,
    ) -> Result<(), StorageError> {
        let changed = self.with(|database| {
            let transaction = begin(database)?;
            let stored = stored_row(&transaction, id)?;
            let row = match self.changed_row(stored.as_deref(), change) {
                Ok(row) if row == stored => return Ok(Ok(())),
                Ok(row) => row,
                Err(error) => return Ok(Err(error)),
            };
            replace_row(transaction, id, row.as_deref()).map(Ok)
        });
        self.note(changed)?
    }

    fn changed_row(
        &self,
        stored: Option<&[u8]>,
        change: impl FnOnce(Option<OwnStream>) -> Result<Option<OwnStream>, StorageError>,
    ) -> Result<Option<Vec<u8>>, StorageError> {
        let before = stored.map(|row| self.decode(row)).transpose()?;
        Ok(change(before)?.map(|stream| stream.encode()))
    }

    fn number(&self, name: &str) -> Result<Option<u64>, StorageError> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(NUMBERS)?;
            Ok(table.get(name)?.map(|number| number.value()))
        })
    }

    /// Makes the tables of a new database; refuses one of a later layout before
    /// anything is written to it.
    fn check_layout(&self) -> Result<(), StorageError> {
        let found = self.with(|database| {
            let transaction = begin(database)?;
            let found = {
                let mut numbers = transaction.open_table(NUMBERS)?;
                let found = numbers.get(LAYOUT)?.map(|number| number.value());
                if found.is_none() {
                    numbers.insert(LAYOUT, LAYOUT_VERSION)?;
                    transaction.open_table(STREAMS)?;
                }
                found
            };
            match found {
                Some(_) => transaction.abort()?,
                None => transaction.commit()?,
            }
            Ok(found.unwrap_or(LAYOUT_VERSION))
        });
        match found? {
            LAYOUT_VERSION => Ok(()),
            found => Err(StorageError::Newer {
                path: database_path(&self.dir),
                found,
            }),
        }
    }

    fn decode(&self, row: &[u8]) -> Result<OwnStream, StorageError> {
        OwnStream::decode(row).map_err(|detail| StorageError::Damaged {
            path: database_path(&self.dir),
            detail,
        })
    }

    fn failed(&self, error: &redb::Error) -> StorageError {
        let path = database_path(&self.dir);
        if let redb::Error::Io(source) = error {
            let source = io::Error::new(source.kind(), source.to_string());
            return StorageError::Io { path, source };
        }
        let detail = error.to_string();
        if matches!(
            error,
            redb::Error::Corrupted(_) | redb::Error::TableTypeMismatch { .. }
        ) {
            return StorageError::Damaged { path, detail };
        }
        StorageError::Database { path, detail }
    }
}

fn begin(database: &Database) -> Result<WriteTransaction, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate)?;
    Ok(transaction)
}

fn stored_row(
    transaction: &WriteTransaction,
    id: StreamId,
) -> Result<Option<Vec<u8>>, redb::Error> {
    let table = transaction.open_table(STREAMS)?;
    let row = table.get(id.0.as_bytes().as_slice())?;
    Ok(row.map(|row| row.value().to_vec()))
}

fn replace_row(
    transaction: WriteTransaction,
    id: StreamId,
    row: Option<&[u8]>,
) -> Result<(), redb::Error> {
    {
        let mut table = transaction.open_table(STREAMS)?;
        let key = id.0.as_bytes().as_slice();
        match row {
            Some(row) => table.insert(key, row)?,
            None => table.remove(key)?,
        };
    }
    Ok(transaction.commit()?)
}

fn database_path(dir: &Path) -> PathBuf {
    dir.join("node.redb")
}

fn not_opened(dir: &Path, error: DatabaseError) -> StorageError {
    use DatabaseError::{DatabaseAlreadyOpen, LockProtocolMismatch};
    if matches!(error, DatabaseAlreadyOpen | LockProtocolMismatch) {
        return StorageError::AlreadyRunning(dir.to_owned());
    }
    let path = database_path(dir);
    let detail = error.to_string();
    // redb says "invalid data" of a file that is no database.
    if let DatabaseError::Storage(redb::StorageError::Io(source)) = error
        && source.kind() != io::ErrorKind::InvalidData
    {
        return StorageError::Io { path, source };
    }
    StorageError::Damaged { path, detail }
}

/// Makes the folder and what leads to it; a new one only its owner may enter.
pub(crate) fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder.create(dir)
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}

fn seed_of(text: &[u8]) -> Option<[u8; 32]> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut seed = [0; 32];
    for (byte, digits) in seed.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(seed)
}

#[cfg(test)]
mod tests;
