//! A row that PostgreSQL refuses costs only itself, whatever the number and position of such rows.
//!
//! A refused attempt is undone and cut at the row that PostgreSQL named, or else in the middle; each part is tried for
//! itself. Whether a row is bad is only ever decided by trying it alone, so that a wrong hint costs time, never a row.

use super::append::append;
use super::merge::merge;
use super::replace::replace;
use super::session::Session;
use super::{Applied, ApplyError, Experience, Hints, Refused, Written, records};
use crate::database::fault::{Verdict, describe, judge};
use crate::plan::{Row, TableWrite};
use crate::rejection::{Reason, Rejection};
use crate::spec::{Merge, Rule};

/// Writes one table's rows, all but those that PostgreSQL refuses; so many deadlocks are lived through.
pub async fn write(
    session: &Session<'_>,
    write: &TableWrite,
    deadlocks_max: u32,
    experience: &mut Experience,
    applied: &mut Applied,
) -> Result<(), ApplyError> {
    let hints = experience.0.get(&write.table.name).copied().unwrap_or_default();
    // The parts still to be tried, the next one last, and how many rows are tried at once: fewer after a refusal, more
    // after each success, so that many bad rows do not make every good one travel again for each of them.
    let mut parts: Vec<Vec<Row>> = vec![write.rows.clone()];
    let mut size = write.rows.len();
    let mut deadlocks = 0;
    let mut met = Hints { look_first: false, all_new: true };
    while let Some(mut rows) = parts.pop() {
        if rows.len() > size {
            parts.push(rows.split_off(size));
        }
        // The attempt's first statement is on its way before the savepoint is heard of.
        let setting = session.savepoint();
        let hints = Hints { look_first: hints.look_first || met.look_first, ..hints };
        let (set, outcome) = futures_util::future::join(setting, attempt(session, write, &rows, hints)).await;
        set?;
        match outcome {
            Ok(written) => {
                session.keep();
                size = size.saturating_mul(2);
                met.look_first |= written.met.look_first;
                met.all_new &= written.met.all_new;
                applied.rows += written.rows;
                applied.fates.extend(written.fates);
            }
            Err(refused) if deadlocks < deadlocks_max && is_deadlock(&refused.error) => {
                session.give_up().await?;
                deadlocks += 1;
                parts.push(rows);
            }
            Err(refused) => {
                let rejection = bad_row(refused.error)?;
                session.give_up().await?;
                size = (rows.len() / 4).max(1);
                match cut(&rows, refused.row) {
                    Some(smaller) => parts.extend(smaller.into_iter().rev().filter(|part| !part.is_empty())),
                    None => reject(write, &rows, &rejection, applied),
                }
            }
        }
    }
    experience.0.insert(write.table.name.clone(), met);
    Ok(())
}

async fn attempt(session: &Session<'_>, write: &TableWrite, rows: &[Row], hints: Hints) -> Result<Written, Refused> {
    match write.rule {
        Rule::Append => append(session, write, rows, hints.look_first).await,
        Rule::Merge(Merge::Row) => replace(session, write, rows, hints).await,
        Rule::Merge(Merge::Column) => merge(session, write, rows, Merge::Column).await,
    }
}

/// Known keys are locked before new ones are made, so that two writers may come to wait for each other.
fn is_deadlock(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Database(error) if error.code().is_some_and(|code| code.code() == "40P01"))
}

/// The data error, if it is one; anything else concerns the whole batch.
fn bad_row(error: ApplyError) -> Result<Rejection, ApplyError> {
    let ApplyError::Database(database) = &error else { return Err(error) };
    match judge(database) {
        Verdict::Reject => Ok(Rejection {
            reason: Reason::Refused(describe(database)),
            table: None,
            sqlstate: database.code().map(|code| code.code().to_owned()),
        }),
        Verdict::Retry | Verdict::Stale | Verdict::Halt => Err(error),
    }
}

/// Smaller parts; `None` where there is but one change left.
fn cut(rows: &[Row], hint: Option<usize>) -> Option<Vec<Vec<Row>>> {
    match (rows, hint) {
        ([row], _) if row.members.len() == 1 => None,
        ([row], _) => {
            // Changes of one key that were folded: the newest alone, and the others.
            let newest = row.members.end - 1;
            let part = |members| vec![Row { partition: row.partition, members }];
            Some(vec![part(row.members.start..newest), part(newest..row.members.end)])
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

fn reject(write: &TableWrite, rows: &[Row], rejection: &Rejection, applied: &mut Applied) {
    let rejection = Rejection { table: Some(write.table.name.plain()), ..rejection.clone() };
    applied.rejected.extend(rows.iter().flat_map(|row| records(write, row)).map(|record| (record, rejection.clone())));
}
