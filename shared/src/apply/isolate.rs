//! A row that PostgreSQL refuses costs only itself, whatever the number and position of such rows.
//!
//! A refused attempt is undone and cut at the row that PostgreSQL named, or else in the middle; each part is tried for
//! itself. Whether a row is bad is only ever decided by trying it alone, so that a wrong hint costs time, never a row.

use super::append::append;
use super::locked_merge::merge_locked;
use super::transaction::WriteTransaction;
use super::upsert::upsert_rows;
use super::{ApplyError, ApplyResult, AttemptResult, RejectedAttempt, TableHints, WriteHints, records};
use crate::database::sqlstate::{ErrorAction, classify, describe};
use crate::plan::{KeyChanges, TableWrite};
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{MergeBy, WriteMode};

/// Writes one table's rows, all but those that PostgreSQL refuses; so many deadlocks are lived through.
pub async fn write_isolating_bad_rows(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    deadlocks_max: u32,
    experience: &mut WriteHints,
    applied: &mut ApplyResult,
) -> Result<(), ApplyError> {
    let hints = experience.0.get(&write.table.name).copied().unwrap_or_default();
    // The parts still to be tried, the next one last, and how many rows are tried at once: fewer after a refusal, more
    // after each success, so that many bad rows do not make every good one travel again for each of them.
    let mut parts: Vec<Vec<KeyChanges>> = vec![write.rows.clone()];
    let mut size = write.rows.len();
    let mut deadlocks = 0;
    let mut met = TableHints { expect_existing: false, expect_new: true };
    while let Some(mut rows) = parts.pop() {
        if rows.len() > size {
            parts.push(rows.split_off(size));
        }
        // The attempt's first statement is on its way before the savepoint is heard of.
        let setting = session.savepoint();
        let hints = TableHints { expect_existing: hints.expect_existing || met.expect_existing, ..hints };
        let (set, outcome) = futures_util::future::join(setting, attempt(session, write, &rows, hints)).await;
        set?;
        match outcome {
            Ok(written) => {
                session.keep_attempt();
                size = size.saturating_mul(2);
                met.expect_existing |= written.observed.expect_existing;
                met.expect_new &= written.observed.expect_new;
                applied.rows += written.rows;
                applied.outcomes.extend(written.outcomes);
            }
            Err(refused) if deadlocks < deadlocks_max && is_deadlock(&refused.error) => {
                session.abandon_attempt().await?;
                deadlocks += 1;
                parts.push(rows);
            }
            Err(refused) => {
                let rejection = row_rejection(refused.error)?;
                session.abandon_attempt().await?;
                size = (rows.len() / 4).max(1);
                match split_at_suspect(&rows, refused.row) {
                    Some(smaller) => parts.extend(smaller.into_iter().rev().filter(|part| !part.is_empty())),
                    None => reject(write, &rows, &rejection, applied),
                }
            }
        }
    }
    experience.0.insert(write.table.name.clone(), met);
    Ok(())
}

async fn attempt(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    hints: TableHints,
) -> Result<AttemptResult, RejectedAttempt> {
    match write.write_mode {
        WriteMode::Append => append(session, write, rows, hints.expect_existing).await,
        WriteMode::Merge(MergeBy::Row) => upsert_rows(session, write, rows, hints).await,
        WriteMode::Merge(MergeBy::Column) => merge_locked(session, write, rows, MergeBy::Column).await,
    }
}

/// Known keys are locked before new ones are made, so that two writers may come to wait for each other.
fn is_deadlock(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Database(error) if error.code().is_some_and(|code| code.code() == "40P01"))
}

/// The data error, if it is one; anything else concerns the whole batch.
fn row_rejection(error: ApplyError) -> Result<Rejection, ApplyError> {
    let ApplyError::Database(database) = &error else { return Err(error) };
    match classify(database) {
        ErrorAction::RejectRow => Ok(Rejection {
            reason: RejectionReason::Refused(describe(database)),
            table: None,
            sqlstate: database.code().map(|code| code.code().to_owned()),
        }),
        ErrorAction::Retry | ErrorAction::RefreshCatalog | ErrorAction::Halt => Err(error),
    }
}

/// Smaller parts; `None` where there is but one change left.
fn split_at_suspect(rows: &[KeyChanges], hint: Option<usize>) -> Option<Vec<Vec<KeyChanges>>> {
    match (rows, hint) {
        ([row], _) if row.changes.len() == 1 => None,
        ([row], _) => {
            // Changes of one key that were folded: the newest alone, and the others.
            let newest = row.changes.end - 1;
            let part = |changes| vec![KeyChanges { partition: row.partition, changes }];
            Some(vec![part(row.changes.start..newest), part(newest..row.changes.end)])
        }
        (_, Some(at)) if at < rows.len() => {
            Some(vec![rows[..at].to_vec(), vec![rows[at].clone()], rows[at + 1..].to_vec()])
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
