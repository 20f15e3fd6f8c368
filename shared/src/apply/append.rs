//! Events: each key once, within its partition.

use std::collections::BTreeMap;

use tokio_postgres::Row as Found;

use super::copy::RowCopy;
use super::sql::{self, Array, parameters};
use super::transaction::WriteTransaction;
use super::{ApplyError, AttemptResult, RejectedAttempt, TableHints, records};
use crate::database::sqlstate::is_unique_violation;
use crate::names::TableName;
use crate::outcome::ChangeOutcome;
use crate::plan::{KeyChanges, TableWrite};

/// Copies the rows whose keys are not there yet. Where none is expected to be, it copies first and looks only when refused:
/// that costs nothing where nothing is delivered twice.
pub async fn append(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    look_first: bool,
) -> Result<AttemptResult, RejectedAttempt> {
    let mut there = if look_first { find_existing_keys(session, write, rows).await? } else { vec![false; rows.len()] };
    loop {
        match copy_missing(session, write, rows, &there).await {
            Ok(count) => return Ok(attempt_result(write, rows, &there, count)),
            Err(refused) => {
                let ApplyError::Database(error) = &refused.error else { return Err(refused) };
                if !is_unique_violation(error) {
                    return Err(refused);
                }
                session.rollback_attempt().await?;
                let now = find_existing_keys(session, write, rows).await?;
                // Somebody else's key is there now, or it is another constraint than the key's.
                if now == there {
                    return Err(refused);
                }
                there = now;
            }
        }
    }
}

async fn copy_missing(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    there: &[bool],
) -> Result<u64, RejectedAttempt> {
    let mut copied = RowCopy::new(write, None);
    let missing: Vec<usize> = (0..rows.len()).filter(|&index| !there[index]).collect();
    for &index in &missing {
        copied.push_encoded_row(write.cells(write.newest(&rows[index]), 0..write.columns.len()));
    }
    let by_place = |refused: RejectedAttempt| RejectedAttempt {
        row: refused.row.and_then(|line| missing.get(line).copied()),
        ..refused
    };
    copied.write(session).await.map_err(by_place)
}

/// For each row, whether its key is in its partition already. Asked of the partitions themselves: their indexes are small.
async fn find_existing_keys(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
) -> Result<Vec<bool>, ApplyError> {
    let mut by_partition: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        by_partition.entry(row.partition).or_default().push(index);
    }
    let mut there = vec![false; rows.len()];
    for (partition, places) in by_partition {
        let relation = write.table.partitions.get(partition).map_or(&write.table.name, |partition| &partition.name);
        let keys = places.iter().map(|&place| &rows[place]);
        for found in find_existing_in(session, write, relation, keys).await? {
            let ordinal = found.get::<_, i64>(0) as usize - 1;
            there[places[ordinal]] = true;
        }
    }
    Ok(there)
}

async fn find_existing_in<'r>(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    relation: &TableName,
    rows: impl Iterator<Item = &'r KeyChanges>,
) -> Result<Vec<Found>, ApplyError> {
    let keys = key_arrays(write, rows);
    let statement = sql::select_existing_keys(write, relation);
    Ok(session.client.query_typed(&statement, &parameters(&keys)).await?)
}

/// The keys of rows, one array a column.
pub fn key_arrays<'r>(write: &TableWrite, rows: impl Iterator<Item = &'r KeyChanges>) -> Vec<Array> {
    let mut arrays: Vec<Array> =
        sql::columns(write).take(write.key).map(|column| Array::for_type(column.kind)).collect();
    for row in rows {
        for (place, array) in arrays.iter_mut().enumerate() {
            array.push(write.cell(write.newest(row), place));
        }
    }
    arrays.into_iter().map(Array::with_length).collect()
}

fn attempt_result(write: &TableWrite, rows: &[KeyChanges], there: &[bool], count: u64) -> AttemptResult {
    let fate = |known: bool| if known { ChangeOutcome::Duplicate } else { ChangeOutcome::Applied };
    let fates =
        rows.iter().zip(there).flat_map(|(row, &known)| records(write, row).map(move |record| (record, fate(known))));
    let met = TableHints { expect_existing: there.contains(&true), expect_new: false };
    AttemptResult { rows: count, outcomes: fates.collect(), observed: met }
}
