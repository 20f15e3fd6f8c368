//! A row that PostgreSQL rejects does not affect other rows, whatever the number and position of such rows.
//!
//! A rejected attempt is rolled back and split at the row that PostgreSQL named, or else in the middle. Each part is
//! tried separately. A row is rejected only after it was tried alone, so that a wrong hint costs time, never a row.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::append::append;
use super::locked_merge::merge_locked;
use super::remedy::unwritable_by_rows;
use super::transaction::WriteTransaction;
use super::upsert::upsert_rows;
use super::{
    ApplyError, ApplyResult, AttemptResult, RejectedAttempt, TableHints, WriteHints, records, write_statement,
};
use crate::database::sqlstate::{
    DatabaseStep, ErrorAction, classify, concerns_table, describe, relation_without_partition,
};
use crate::plan::{KeyChanges, TableWrite};
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{MergeBy, OnUnwritable, WriteMode};
use crate::unwritable::UnwritableTable;

/// After so many rows of a partition that were rejected alone because of the table, and none that was accepted, the others are
/// not tried: they would cost a statement each.
const SUSPECTS_MAX: usize = 3;

/// How often, and how, the rows of a table are tried.
#[derive(Clone, Copy)]
pub struct Attempts {
    /// The deadlocks after which an attempt is repeated.
    pub deadlocks_max: u32,
    /// Whether the table's definition was read again after an error. If not, an error that a stale definition may have caused
    /// ends the batch.
    pub catalog_is_fresh: bool,
}

/// What a rejected attempt says about its rows.
enum Fault {
    /// A row is at fault.
    Row(Rejection),
    /// The table is at fault, unless it accepts other rows.
    Table(Suspicion),
}

/// Why the table may be at fault.
#[derive(Clone)]
struct Suspicion {
    /// The rejection of the row, if the table accepts others.
    rejection: Rejection,
    /// The table, if it accepts no row; `None` if a policy rejects each of them.
    unwritable: Option<Arc<UnwritableTable>>,
    /// Whether the problem concerns the row's partition, whatever becomes of other rows.
    is_certain: bool,
}

/// Rows that were rejected alone because of the table.
#[derive(Default)]
struct Suspects {
    rows: Vec<(KeyChanges, Suspicion)>,
    /// The partitions that have accepted a row.
    accepting: BTreeSet<usize>,
}

/// Writes one table's rows, except those that PostgreSQL rejects.
pub async fn write_isolating_bad_rows(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    attempts: Attempts,
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
    let mut suspects = Suspects::default();
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
                suspects.accept(&rows);
            }
            Err(rejected) if deadlocks < attempts.deadlocks_max && is_deadlock(&rejected.error) => {
                transaction.abandon_attempt().await?;
                deadlocks += 1;
                parts.push(rows);
            }
            Err(rejected) => {
                let action = action_after(&rejected.error, attempts);
                if matches!(action, ErrorAction::Retry | ErrorAction::RefreshCatalog | ErrorAction::Halt) {
                    return Err(rejected.error);
                }
                transaction.abandon_attempt().await?;
                size = (rows.len() / 4).max(1);
                if let Some(smaller) = split_at_suspect(&rows, rejected.row) {
                    parts.extend(smaller.into_iter().rev().filter(|part| !part.is_empty()));
                    continue;
                }
                match fault(transaction, write, action, &rejected.error).await? {
                    Fault::Row(rejection) => reject(write, &rows, &rejection, applied),
                    Fault::Table(suspicion) => suspects.add(&rows, &suspicion, &mut parts),
                }
            }
        }
    }
    write_hints.0.insert(write.table.name.clone(), observed);
    suspects.reject(write, applied)
}

/// What an error of an attempt means. If the table's definition is fresh, the error is real: the row or the table is at fault.
fn action_after(error: &ApplyError, attempts: Attempts) -> ErrorAction {
    let database = match error {
        ApplyError::Database(database) => database,
        ApplyError::Version(_) => return ErrorAction::RejectRow,
        ApplyError::System { .. }
        | ApplyError::CopyNotBegun(_)
        | ApplyError::Stale { .. }
        | ApplyError::Locked(_)
        | ApplyError::Unwritable(_)
        | ApplyError::Catalog(_) => return ErrorAction::Halt,
    };
    match classify(DatabaseStep::WriteRows, database) {
        ErrorAction::RefreshCatalog if !attempts.catalog_is_fresh => ErrorAction::RefreshCatalog,
        ErrorAction::RefreshCatalog if concerns_table(database) => ErrorAction::RejectTable,
        ErrorAction::RefreshCatalog => ErrorAction::RejectRow,
        action @ (ErrorAction::Retry | ErrorAction::RejectRow | ErrorAction::RejectTable | ErrorAction::Halt) => action,
    }
}

/// What a row that was rejected alone says.
async fn fault(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    action: ErrorAction,
    error: &ApplyError,
) -> Result<Fault, ApplyError> {
    let database = error.database_error();
    let rejection = Rejection {
        reason: RejectionReason::RejectedByDatabase(database.map_or_else(|| error.to_string(), describe)),
        table: Some(write.table.name.unquoted()),
        sqlstate: database.and_then(|error| error.code()).map(|code| code.code().to_owned()),
    };
    let Some(database) = database.filter(|_| action == ErrorAction::RejectTable) else {
        return Ok(Fault::Row(rejection));
    };
    let unwritable = unwritable_by_rows(transaction.client, write, write_statement(write), database).await?;
    let is_certain = relation_without_partition(database).is_some();
    Ok(Fault::Table(Suspicion { rejection, unwritable: unwritable.map(Arc::new), is_certain }))
}

impl Suspects {
    fn accept(&mut self, rows: &[KeyChanges]) {
        // Rows are sorted by partition.
        let by_partition = rows.chunk_by(|a, b| a.partition == b.partition);
        self.accepting.extend(by_partition.filter_map(|rows| rows.first()).map(|row| row.partition));
    }

    /// Adds a row that was rejected alone, and the untried rows of its partition if they need not be tried.
    fn add(&mut self, rows: &[KeyChanges], suspicion: &Suspicion, untried: &mut Vec<Vec<KeyChanges>>) {
        let Some(partition) = rows.first().map(|row| row.partition) else { return };
        self.rows.extend(rows.iter().map(|row| (row.clone(), suspicion.clone())));
        let count = self.rows.iter().filter(|(row, _)| row.partition == partition).count();
        if count < SUSPECTS_MAX || self.accepting.contains(&partition) {
            return;
        }
        for part in untried.iter_mut() {
            let others = part.extract_if(.., |row| row.partition == partition);
            self.rows.extend(others.map(|row| (row, suspicion.clone())));
        }
        untried.retain(|part| !part.is_empty());
    }

    /// Rejects the rows, because of the table unless their partition accepts others.
    fn reject(self, write: &TableWrite, applied: &mut ApplyResult) -> Result<(), ApplyError> {
        for (row, suspicion) in self.rows {
            let is_of_table = suspicion.is_certain || !self.accepting.contains(&row.partition);
            let rejection = match suspicion.unwritable.filter(|_| is_of_table) {
                Some(unwritable) if unwritable.on_unwritable == OnUnwritable::Stop => {
                    return Err(ApplyError::Unwritable(vec![unwritable]));
                }
                Some(unwritable) => {
                    Rejection::for_table(write.table.name.unquoted(), RejectionReason::Unwritable(unwritable))
                }
                None => suspicion.rejection,
            };
            reject(write, &[row], &rejection, applied);
        }
        Ok(())
    }
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
    error.database_error().and_then(|error| error.code()).is_some_and(|code| code.code() == "40P01")
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
    applied.rejected.extend(rows.iter().flat_map(|row| records(write, row)).map(|record| (record, rejection.clone())));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(partition: usize, index: usize) -> KeyChanges {
        KeyChanges { partition, changes: index..index + 1 }
    }

    fn suspicion() -> Suspicion {
        let reason = RejectionReason::RejectedByDatabase(String::new());
        Suspicion { rejection: Rejection::new(reason), unwritable: None, is_certain: false }
    }

    #[test]
    fn a_table_s_rejected_rows_do_not_cost_a_statement_each() {
        let mut untried = vec![(3..5_000).map(|index| row(0, index)).collect(), vec![row(1, 5_000), row(0, 5_001)]];
        let mut suspects = Suspects::default();
        for index in 0..SUSPECTS_MAX {
            assert_eq!(untried.len(), 2);
            suspects.add(&[row(0, index)], &suspicion(), &mut untried);
        }
        assert_eq!((suspects.rows.len(), untried), (5_001, vec![vec![row(1, 5_000)]]));
    }

    #[test]
    fn rows_of_a_partition_that_accepts_others_are_all_tried() {
        let mut untried = vec![vec![row(0, 9)]];
        let mut suspects = Suspects::default();
        suspects.accept(&[row(0, 0)]);
        for index in 1..6 {
            suspects.add(&[row(0, index)], &suspicion(), &mut untried);
        }
        assert_eq!((suspects.rows.len(), untried.len()), (5, 1));
    }
}
