//! A row that PostgreSQL rejects does not affect other rows, whatever the number and position of such rows.
//!
//! A rejected attempt is rolled back and split at the row that PostgreSQL named, or else in the middle. Each part is
//! tried separately. A row is rejected only after it was tried alone, so that a wrong hint costs time, never a row.

use super::append::append;
use super::locked_merge::merge_locked;
use super::transaction::WriteTransaction;
use super::upsert::upsert_rows;
use super::{ApplyError, ApplyResult, AttemptResult, RejectedAttempt, TableHints, WriteHints, records};
use crate::database::sqlstate::{ErrorAction, classify_row_error, describe};
use crate::plan::{KeyChanges, TableWrite};
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{MergeBy, WriteMode};

/// Writes one table's rows, except those that PostgreSQL rejects. Retries after up to `deadlocks_max` deadlocks.
pub async fn write_isolating_bad_rows(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    deadlocks_max: u32,
    write_hints: &mut WriteHints,
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    let hints = write_hints.0.get(&write.table.name).copied().unwrap_or_default();
    // The parts still to be tried, the next one last, and how many rows are tried at once: fewer after a rejection,
    // more after each success, so that good rows are not sent again for every bad row.
    let mut parts: Vec<Vec<KeyChanges>> = vec![write.rows.clone()];
    let mut size = write.rows.len();
    let mut deadlocks = 0;
    let mut observed = TableHints { expect_existing: false, expect_new: true };
    while let Some(mut rows) = parts.pop() {
        if rows.len() > size {
            parts.push(rows.split_off(size));
        }
        // The attempt's first statement is sent before the savepoint is confirmed.
        let setting_savepoint = transaction.savepoint();
        let hints = TableHints { expect_existing: hints.expect_existing || observed.expect_existing, ..hints };
        let (savepoint, result) =
            futures_util::future::join(setting_savepoint, attempt(transaction, write, &rows, hints)).await;
        savepoint?;
        match result {
            Ok(attempt) => {
                transaction.keep_attempt();
                size = size.saturating_mul(2);
                observed.expect_existing |= attempt.observed.expect_existing;
                observed.expect_new &= attempt.observed.expect_new;
                applied.rows += attempt.rows;
                applied.outcomes.extend(attempt.outcomes);
            }
            Err(rejected) if deadlocks < deadlocks_max && is_deadlock(&rejected.error) => {
                transaction.abandon_attempt().await?;
                deadlocks += 1;
                parts.push(rows);
            }
            Err(rejected) => {
                let rejection = row_rejection(rejected.error)?;
                transaction.abandon_attempt().await?;
                size = (rows.len() / 4).max(1);
                match split_at_suspect(&rows, rejected.row) {
                    Some(smaller) => parts.extend(smaller.into_iter().rev().filter(|part| !part.is_empty())),
                    None => reject(write, &rows, &rejection, applied),
                }
            }
        }
    }
    write_hints.0.insert(write.table.name.clone(), observed);
    Ok(())
}

async fn attempt(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    hints: TableHints,
) -> Result<AttemptResult, RejectedAttempt> {
    match write.write_mode {
        WriteMode::Append => append(transaction, write, rows, hints.expect_existing).await,
        WriteMode::Merge(MergeBy::Row) => upsert_rows(transaction, write, rows, hints).await,
        WriteMode::Merge(MergeBy::Column) => merge_locked(transaction, write, rows, MergeBy::Column).await,
    }
}

/// Existing keys are locked before new ones are inserted, so that two writers can wait for each other.
fn is_deadlock(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Database(error) if error.code().is_some_and(|code| code.code() == "40P01"))
}

/// The rejection, if it is a data error; any other error concerns the whole batch.
fn row_rejection(error: ApplyError) -> Result<Rejection, ApplyError> {
    let ApplyError::Database(database) = &error else { return Err(error) };
    match classify_row_error(database) {
        ErrorAction::RejectRow => Ok(Rejection {
            reason: RejectionReason::RejectedByDatabase(describe(database)),
            table: None,
            sqlstate: database.code().map(|code| code.code().to_owned()),
        }),
        ErrorAction::Retry | ErrorAction::RefreshCatalog | ErrorAction::Halt => Err(error),
    }
}

/// Smaller parts; `None` if only one change is left.
fn split_at_suspect(rows: &[KeyChanges], suspect: Option<usize>) -> Option<Vec<Vec<KeyChanges>>> {
    match (rows, suspect) {
        ([row], _) if row.changes.len() == 1 => None,
        ([row], _) => {
            // Folded changes of one key: the newest one alone, and the others.
            let newest = row.changes.end - 1;
            let part = |changes| vec![KeyChanges { partition: row.partition, changes }];
            Some(vec![part(row.changes.start..newest), part(newest..row.changes.end)])
        }
        (_, Some(suspect)) if suspect < rows.len() => {
            Some(vec![rows[..suspect].to_vec(), vec![rows[suspect].clone()], rows[suspect + 1..].to_vec()])
        }
        _ => {
            let (first, second) = rows.split_at(rows.len() / 2);
            Some(vec![first.to_vec(), second.to_vec()])
        }
    }
}

fn reject(write: &TableWrite, rows: &[KeyChanges], rejection: &Rejection, applied: &mut ApplyResult) {
    let rejection = Rejection { table: Some(write.table.name.unquoted()), ..rejection.clone() };
    applied.rejected.extend(rows.iter().flat_map(|row| records(write, row)).map(|record| (record, rejection.clone())));
}
