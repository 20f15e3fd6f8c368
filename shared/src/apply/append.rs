//! Events: one row per key, within its partition.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::copy::{RowCopy, copy_rows};
use super::sql::{self, Array, parameters};
use super::transaction::WriteTransaction;
use super::{ApplyError, AttemptResult, RejectedAttempt, TableHints, records};
use crate::database::sqlstate::is_unique_violation;
use crate::names::TableName;
use crate::outcome::ChangeOutcome;
use crate::plan::{KeyChanges, TableWrite};

/// Copies the rows whose keys do not exist yet. Unless existing keys are expected, it copies first and looks for them
/// only if PostgreSQL rejects the copy. This costs nothing unless a record is delivered twice.
pub async fn append(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    expect_existing: bool,
) -> Result<AttemptResult, RejectedAttempt> {
    let mut exists =
        if expect_existing { find_existing_keys(transaction, write, rows).await? } else { vec![false; rows.len()] };
    loop {
        match copy_missing(transaction, write, rows, &exists).await {
            Ok(count) => return Ok(attempt_result(write, rows, &exists, count)),
            Err(rejected) => {
                let ApplyError::Database(error) = &rejected.error else { return Err(rejected) };
                if !is_unique_violation(error) {
                    return Err(rejected);
                }
                transaction.rollback_attempt().await?;
                let exists_now = find_existing_keys(transaction, write, rows).await?;
                // No further key exists: the violated constraint is not the key's.
                if exists_now == exists {
                    return Err(rejected);
                }
                exists = exists_now;
            }
        }
    }
}

async fn copy_missing(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    exists: &[bool],
) -> Result<u64, RejectedAttempt> {
    let missing = rows.iter().enumerate().filter(|(index, _)| !exists[*index]);
    let push = |copy: &mut RowCopy<'_>, index: usize| {
        copy.push_encoded_row(write.cells(write.newest(&rows[index]), 0..write.column_indexes.len()));
    };
    copy_rows(transaction, write, None, missing, push).await
}

/// For each row, whether its key exists in its partition. Queries the partitions directly, because their indexes are
/// small.
async fn find_existing_keys(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
) -> Result<Vec<bool>, ApplyError> {
    let mut by_partition: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        by_partition.entry(row.partition).or_default().push(index);
    }
    let mut exists = vec![false; rows.len()];
    for (partition, row_indices) in by_partition {
        let relation = write.table.partitions.get(partition).map_or(&write.table.name, |partition| &partition.name);
        let keys = row_indices.iter().map(|&index| &rows[index]);
        for row in find_existing_in(transaction, write, relation, keys).await? {
            let ordinal = row.get::<_, i64>(0) as usize - 1;
            exists[row_indices[ordinal]] = true;
        }
    }
    Ok(exists)
}

async fn find_existing_in<'r>(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    relation: &TableName,
    rows: impl Iterator<Item = &'r KeyChanges>,
) -> Result<Vec<Row>, ApplyError> {
    let keys = key_arrays(write, rows);
    let statement = sql::select_existing_keys(write, relation);
    Ok(transaction.client.query_typed(&statement, &parameters(&keys)).await?)
}

/// The keys of rows, one array per column.
pub fn key_arrays<'r>(write: &TableWrite, rows: impl Iterator<Item = &'r KeyChanges>) -> Vec<Array> {
    let mut arrays: Vec<Array> =
        sql::columns(write).take(write.key_column_count).map(|column| Array::for_type(column.column_type)).collect();
    for row in rows {
        for (column, array) in arrays.iter_mut().enumerate() {
            array.push(write.cell(write.newest(row), column));
        }
    }
    arrays.into_iter().map(Array::with_length).collect()
}

fn attempt_result(write: &TableWrite, rows: &[KeyChanges], exists: &[bool], count: u64) -> AttemptResult {
    let outcome = |exists: bool| if exists { ChangeOutcome::Duplicate } else { ChangeOutcome::Applied };
    let outcomes = rows
        .iter()
        .zip(exists)
        .flat_map(|(row, &exists)| records(write, row).map(move |record| (record, outcome(exists))));
    let observed = TableHints { expect_existing: exists.contains(&true), expect_new: false };
    AttemptResult { rows: count, outcomes: outcomes.collect(), observed }
}
