//! Tombstones of deleted keys, so that an older change that arrives later does not bring the row back.
//!
//! One table in Millstream's own schema holds all of them. A tombstone is written only while the writer holds the lock
//! of the row's key (the row itself, or an entry in its unique index), so that no other writer misses it.

use bytes::BufMut;
use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};
use xxhash_rust::xxh3::xxh3_128;

use super::ddl::{self, SystemTable};
use super::transaction::WriteTransaction;
use super::{ApplyError, Limits};
use crate::catalog::ColumnType;
use crate::change::Version;
use crate::plan::merge::InvalidStoredVersion;
use crate::plan::{KeyChanges, TableWrite, cell};
use crate::spec::DeleteMode;

/// The table.
pub const TOMBSTONE_TABLE: SystemTable =
    SystemTable { name: "millstream.tombstone", ddl: include_str!("tombstone/create.sql") };

/// A key of a table, as a 16-byte digest: keys can be longer than an index entry allows.
pub type KeyDigest = [u8; 16];

/// The digests of the rows' keys, in the order of the rows; empty if the table has no hard deletes.
pub fn key_digests(write: &TableWrite, rows: &[KeyChanges]) -> Vec<KeyDigest> {
    match write.deletes {
        DeleteMode::Never | DeleteMode::Soft => return Vec::new(),
        DeleteMode::Hard => {}
    }
    let mut key = Vec::new();
    // In the order of their names: another process may have discovered the key's columns in another order.
    let mut columns: Vec<usize> = (0..write.key_column_count).collect();
    columns.sort_by_key(|&index| &write.table.columns[write.column_indexes[index]].name);
    rows.iter()
        .map(|row| {
            key.clear();
            for &index in &columns {
                let column = &write.table.columns[write.column_indexes[index]];
                canonical_key_cell(column.column_type, write.cell(write.newest(row), index), &mut key);
            }
            xxh3_128(&key).to_be_bytes()
        })
        .collect()
}

/// Encodes a cell so that equal values have equal bytes: 1.0 and 1.00 are the same number, also in an integer column.
fn canonical_key_cell(kind: ColumnType, cell: &[u8], out: &mut Vec<u8>) {
    if !matches!(kind, ColumnType::Numeric { .. } | ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8) {
        return out.put_slice(cell);
    }
    let text = cell::format_cell(kind, cell);
    let trimmed = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    cell::write_text(trimmed, out);
}

/// The tombstone's version for each key, if there is one.
pub async fn read(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    keys: &[KeyDigest],
) -> Result<Vec<Option<Version>>, ApplyError> {
    let table = write.table.name.unquoted();
    let keys: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 2] = [(&table, Type::TEXT), (&keys, Type::BYTEA_ARRAY)];
    let reading = transaction.client.query_typed(include_str!("tombstone/read.sql"), &parameters);
    let rows = reading.await.map_err(|error| ApplyError::from(error).in_system_table(TOMBSTONE_TABLE.name))?;
    let mut versions = vec![None; keys.len()];
    for row in rows {
        let version = Version::parse(row.get(1)).ok_or_else(|| InvalidStoredVersion::for_table(&table))?;
        versions[row.get::<_, i64>(0) as usize - 1] = Some(version);
    }
    Ok(versions)
}

/// Records deletes.
pub async fn record_tombstones(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    tombstones: &[(KeyDigest, Version)],
) -> Result<(), ApplyError> {
    if tombstones.is_empty() {
        return Ok(());
    }
    let table = write.table.name.unquoted();
    let (keys, versions): (Vec<&[u8]>, Vec<String>) =
        tombstones.iter().map(|(key, version)| (&key[..], version.to_string())).unzip();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&table, Type::TEXT), (&keys, Type::BYTEA_ARRAY), (&versions, Type::TEXT_ARRAY)];
    let recording = transaction.client.execute_typed(include_str!("tombstone/record.sql"), &parameters);
    recording.await.map_err(|error| ApplyError::from(error).in_system_table(TOMBSTONE_TABLE.name))?;
    Ok(())
}

/// Creates the table if it does not exist. Returns the number of statements that this took.
pub async fn ensure_tombstone_table(client: &Client, limits: Limits) -> Result<usize, ApplyError> {
    Ok(usize::from(ddl::ensure_system_table(client, &TOMBSTONE_TABLE, limits).await?))
}
