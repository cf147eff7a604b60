//! Tables whose rows are small values with a version in front.
//!
//! Rows of a form that this program does not know are passed over when read, and stay
//! where they are: a later version wrote them.

use redb::{ReadableDatabase as _, ReadableTable as _, TableDefinition, TableError};

use super::{Storage, StorageError};

/// First byte of a row: how the rest is laid out.
const ROW_VERSION: u8 = 1;

/// Rows by key.
pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

impl Storage {
    /// Every row of `table` that `decode` understands, by key; none if there is no table yet.
    pub(super) fn rows<T>(
        &self,
        table: Table,
        decode: impl Fn(&[u8], &[u8]) -> Option<T>,
    ) -> Result<Vec<T>, StorageError> {
        let read = |database: &redb::Database| -> Result<Vec<T>, redb::Error> {
            let table = match database.begin_read()?.open_table(table) {
                Ok(table) => table,
                Err(TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
                Err(error) => return Err(error.into()),
            };
            let mut rows = Vec::new();
            for row in table.iter()? {
                let (key, value) = row?;
                if let [ROW_VERSION, value @ ..] = value.value() {
                    rows.extend(decode(key.value(), value));
                }
            }
            Ok(rows)
        };
        self.with(read)
    }

    /// Writes rows, or removes those without a value, in one transaction.
    pub(super) fn put_rows(
        &self,
        table: Table,
        rows: &[(Vec<u8>, Option<Vec<u8>>)],
    ) -> Result<(), StorageError> {
        if rows.is_empty() {
            return Ok(());
        }
        self.note(self.with(|database| {
            let transaction = super::begin(database)?;
            {
                let mut table = transaction.open_table(table)?;
                for (key, value) in rows {
                    match value {
                        Some(value) => table.insert(key.as_slice(), versioned(value).as_slice())?,
                        None => table.remove(key.as_slice())?,
                    };
                }
            }
            Ok(transaction.commit()?)
        }))
    }
}

fn versioned(value: &[u8]) -> Vec<u8> {
    let mut row = Vec::with_capacity(value.len() + 1);
    row.push(ROW_VERSION);
    row.extend_from_slice(value);
    row
}
