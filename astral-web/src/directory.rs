//! Where records are kept over a restart.
//!
//! The rules are the [`crate::catalog`]'s; a directory only keeps rows and gives
//! them back. Leases are wall-clock times, so they run on while nobody does.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use minicbor::{Decode, Encode};
use redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase as _, ReadableTable as _,
    TableDefinition, TableError,
};
use uuid::Uuid;

/// Rows by kind and id.
const ROWS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("rows");
/// Facts about the database itself.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Version of the layout.
const VERSION: u64 = 1;

/// Kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum KindOf {
    Node,
    Stream,
}

impl KindOf {
    fn key(self, id: Uuid) -> [u8; 17] {
        let mut key = [match self {
            Self::Node => b'n',
            Self::Stream => b's',
        }; 17];
        key[1..].copy_from_slice(id.as_bytes());
        key
    }

    fn of(key: &[u8]) -> Option<(Self, Uuid)> {
        let (kind, id) = key.split_first()?;
        let kind = match kind {
            b'n' => Self::Node,
            b's' => Self::Stream,
            _ => return None,
        };
        Some((kind, Uuid::from_slice(id).ok()?))
    }
}

/// A row as it is kept; times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Kept {
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub(crate) record: Vec<u8>,
    #[n(1)]
    pub(crate) since: u64,
    #[n(2)]
    pub(crate) renewed: u64,
    #[n(3)]
    pub(crate) expires: u64,
    #[n(4)]
    pub(crate) prefix: Option<[u8; 7]>,
    /// What is remembered of a record that is gone; the record is empty then.
    #[n(5)]
    pub(crate) mark: Option<KeptMark>,
}

/// What a mark has besides times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub(crate) struct KeptMark {
    #[n(0)]
    pub(crate) seq: u64,
    #[n(1)]
    pub(crate) name: u64,
}

/// A change to be kept: `None` removes the row.
pub(crate) type Change = (KindOf, Uuid, Option<Kept>);
/// Changes by what they are about.
pub(crate) type Changes = BTreeMap<(KindOf, Uuid), Option<Kept>>;

/// Keeps rows.
pub(crate) trait Directory: Send + 'static {
    /// All rows.
    ///
    /// # Errors
    /// They cannot be read.
    fn load(&self) -> anyhow::Result<Vec<(KindOf, Uuid, Kept)>>;
    /// Keeps these changes, all or none; durable when it returns. After an error it may be
    /// tried again.
    ///
    /// # Errors
    /// They cannot be written.
    fn keep(&mut self, changes: &Changes) -> anyhow::Result<()>;
}

/// A directory in a redb file, for one machine.
pub(crate) struct Redb {
    path: PathBuf,
    /// `None` after an error of the disk: redb writes no more until it is opened anew.
    database: Option<Database>,
}

impl Redb {
    /// Opens or makes the database. One that is damaged, newer or in use is left as it is.
    ///
    /// # Errors
    /// Why it cannot be used, and what helps.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let database = open(path).with_context(|| format!("directory {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
            database: Some(database),
        })
    }
}

fn open(path: &Path) -> anyhow::Result<Database> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let exists = std::fs::metadata(path).is_ok_and(|file| file.len() > 0);
    if exists {
        inspect(path)?;
    }
    let database = Database::create(path).map_err(explain)?;
    let begun = database.begin_write()?;
    {
        begun.open_table(ROWS)?;
        let mut meta = begun.open_table(META)?;
        let version = meta.get("version")?.map(|version| version.value());
        check(version.unwrap_or(VERSION))?;
        meta.insert("version", VERSION)?;
    }
    begun.commit()?;
    Ok(database)
}

/// Looks without writing.
fn inspect(path: &Path) -> anyhow::Result<()> {
    let database = match ReadOnlyDatabase::open(path) {
        // Killed in the middle: only opening it for writing mends it.
        Err(DatabaseError::RepairAborted) => return Ok(()),
        opened => opened.map_err(explain)?,
    };
    match database.begin_read()?.open_table(META) {
        Ok(meta) => check(meta.get("version")?.map_or(VERSION, |v| v.value())),
        Err(TableError::TableDoesNotExist(_)) => {
            bail!("this is a database of another program; give --directory another path")
        }
        Err(error) => Err(error.into()),
    }
}

fn check(version: u64) -> anyhow::Result<()> {
    if version > VERSION {
        bail!(
            "it was written by a newer astral-web (layout {version}); use that one, or another path"
        );
    }
    Ok(())
}

fn explain(error: DatabaseError) -> anyhow::Error {
    if matches!(error, DatabaseError::DatabaseAlreadyOpen) {
        return anyhow::anyhow!("another astral-web is using it");
    }
    anyhow::Error::new(error)
        .context("it is damaged or no database; move it away to start with an empty one")
}

impl Directory for Redb {
    fn load(&self) -> anyhow::Result<Vec<(KindOf, Uuid, Kept)>> {
        let database = self.database.as_ref().context("it is not open")?;
        let rows = database.begin_read()?.open_table(ROWS)?;
        let mut all = Vec::new();
        for entry in rows.iter()? {
            let (key, value) = entry?;
            let Some((kind, id)) = KindOf::of(key.value()) else {
                bail!("it has a row of an unknown kind");
            };
            all.push((kind, id, minicbor::decode(value.value())?));
        }
        Ok(all)
    }

    fn keep(&mut self, changes: &Changes) -> anyhow::Result<()> {
        let database = match self.database.take() {
            Some(database) => database,
            None => open(&self.path)?,
        };
        write(&database, changes)?;
        self.database = Some(database);
        Ok(())
    }
}

fn write(database: &Database, changes: &Changes) -> anyhow::Result<()> {
    let begun = database.begin_write()?;
    {
        let mut rows = begun.open_table(ROWS)?;
        for ((kind, id), kept) in changes {
            let key = kind.key(*id);
            match kept {
                Some(kept) => {
                    let bytes = minicbor::to_vec(kept).expect("writing to memory does not fail");
                    rows.insert(key.as_slice(), bytes.as_slice())?;
                }
                None => {
                    rows.remove(key.as_slice())?;
                }
            }
        }
    }
    begun.commit()?;
    Ok(())
}
