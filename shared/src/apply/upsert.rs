//! Entities whose newest change is the whole row: one statement that inserts what is new and replaces what is older.
//!
//! At first it is believed that every change is news. Where that was wrong (something was there that is as new, or newer),
//! the statement is undone, what is stored is read, and only what is news then is written. Every attempt takes its locks
//! in the one order of the keys, for rows that are there and rows that are not.

use tokio_postgres::Row as Found;

use super::copy::RowCopy;
use super::locked_merge::{attempt_result, decide_rows, delete, merge_locked, read_stored};
use super::row_params::RowParams;
use super::sql::{self, RowLock, parameters};
use super::tombstone::{self, KeyDigest};
use super::transaction::WriteTransaction;
use super::{ApplyError, AttemptResult, RejectedAttempt, TableHints};
use crate::change::{Operation, Version};
use crate::database::sqlstate::is_unique_violation;
use crate::plan::merge::{RowAction, StoredState};
use crate::plan::{KeyChanges, TableWrite};
use crate::spec::{MergeBy, VERSION};

/// Replaces the rows.
pub async fn upsert_rows(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    hints: TableHints,
) -> Result<AttemptResult, RejectedAttempt> {
    let Some(replacing) = UpsertAttempt::new(session, write, rows) else {
        return merge_locked(session, write, rows, MergeBy::Row).await;
    };
    if !hints.expect_existing {
        if let Some(written) = replacing.try_upsert(hints).await? {
            return Ok(written);
        }
        session.rollback_attempt().await?;
    }
    replacing.read_then_upsert().await
}

/// Replaces the rows, or gives up where not all of them are news.
pub async fn upsert_optimistic(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    hints: TableHints,
) -> Result<Option<AttemptResult>, RejectedAttempt> {
    match UpsertAttempt::new(session, write, &write.rows).filter(|_| !hints.expect_existing) {
        Some(replacing) => replacing.try_upsert(hints).await,
        None => Ok(None),
    }
}

struct UpsertAttempt<'r> {
    session: &'r WriteTransaction<'r>,
    write: &'r TableWrite,
    rows: &'r [KeyChanges],
    target: String,
    /// The keys as tombstones know them; empty where nothing is deleted.
    keys: Vec<KeyDigest>,
}

/// How many rows were written, and how many of them were not there before.
#[derive(Clone, Copy)]
struct UpsertCounts {
    written: u64,
    inserted: u64,
}

impl<'r> UpsertAttempt<'r> {
    /// `None` where one statement cannot do it.
    fn new(session: &'r WriteTransaction<'r>, write: &'r TableWrite, rows: &'r [KeyChanges]) -> Option<Self> {
        let target = sql::conflict_target(write).filter(|_| !write.needs_exclusive_lock())?;
        Some(Self { session, write, rows, target, keys: tombstone::key_digests(write, rows) })
    }

    /// Writes all rows; `None` if not all of them were news.
    async fn try_upsert(&self, hints: TableHints) -> Result<Option<AttemptResult>, RejectedAttempt> {
        let all: Vec<usize> = (0..self.rows.len()).collect();
        let count = match if hints.expect_new { self.copy().await? } else { None } {
            Some(count) => count,
            None => self.upsert(&all).await?,
        };
        if count.written < all.len() as u64 || !self.delete(&all).await? {
            return Ok(None);
        }
        let older = vec![StoredState::default(); self.rows.len()];
        let decisions = decide_rows(self.write, self.rows, MergeBy::Row, &older)?;
        let met = TableHints { expect_existing: false, expect_new: count.inserted == count.written };
        Ok(Some(AttemptResult { observed: met, ..attempt_result(self.write, self.rows, &decisions, count.written) }))
    }

    /// Reads what is stored, and writes what is news; again, as long as others come between.
    async fn read_then_upsert(&self) -> Result<AttemptResult, RejectedAttempt> {
        let mut stored = self.read().await?;
        loop {
            let decisions = decide_rows(self.write, self.rows, MergeBy::Row, &stored)?;
            let news: Vec<usize> =
                (0..self.rows.len()).filter(|&index| decisions[index].action != RowAction::Skip).collect();
            let count = self.upsert(&news).await?;
            if count.written >= news.len() as u64 && self.delete(&news).await? {
                return Ok(attempt_result(self.write, self.rows, &decisions, count.written));
            }
            self.session.rollback_attempt().await?;
            let now = self.read().await?;
            if now == stored {
                // A trigger of the owner's keeps rows out: only under locks is it known that nobody comes between.
                return merge_locked(self.session, self.write, self.rows, MergeBy::Row).await;
            }
            stored = now;
        }
    }

    async fn read(&self) -> Result<Vec<StoredState>, ApplyError> {
        read_stored(self.session, self.write, self.rows, VERSION, &self.keys, RowLock::None).await
    }

    /// Copies all rows, if none of their keys is there.
    async fn copy(&self) -> Result<Option<UpsertCounts>, RejectedAttempt> {
        let mut copied = RowCopy::new(self.write, Some(VERSION));
        for row in self.rows {
            copied.push(self.write.newest_cells(row), &self.version(row).to_string());
        }
        match copied.write(self.session).await {
            Ok(all) => Ok(Some(UpsertCounts { written: all, inserted: all })),
            Err(RejectedAttempt { error: ApplyError::Database(error), .. }) if is_unique_violation(&error) => {
                self.session.rollback_attempt().await?;
                Ok(None)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Inserts and replaces some of the rows, those that are older than they; a delete makes a row, too: it locks the key.
    async fn upsert(&self, rows: &[usize]) -> Result<UpsertCounts, ApplyError> {
        if rows.is_empty() {
            return Ok(UpsertCounts { written: 0, inserted: 0 });
        }
        let mut tuples = RowParams::new(self.write, VERSION, Vec::new());
        for row in rows.iter().map(|&index| &self.rows[index]) {
            tuples.push(self.write.newest_cells(row), &self.version(row).to_string(), &[]);
        }
        let statement = sql::upsert(self.write, VERSION, &self.target, &tuples.source());
        let arrays = tuples.arrays();
        let found: Vec<Found> = self.session.client.query_typed(&statement, &parameters(&arrays)).await?;
        let count = |column: usize| found.first().map_or(0, |row| row.get::<_, i64>(column) as u64);
        Ok(UpsertCounts { written: count(0), inserted: count(1) })
    }

    /// Now that the keys are locked, the rows of deletes go; `false` if a newer delete stands against one of the rows.
    async fn delete(&self, rows: &[usize]) -> Result<bool, ApplyError> {
        if self.keys.is_empty() || rows.is_empty() {
            return Ok(true);
        }
        let keys: Vec<KeyDigest> = rows.iter().map(|&index| self.keys[index]).collect();
        let tombstones = tombstone::read(self.session, self.write, &keys).await?;
        let version = |index: usize| self.version(&self.rows[index]);
        if rows.iter().zip(tombstones).any(|(&index, tombstone)| tombstone >= Some(version(index))) {
            return Ok(false);
        }
        let gone = |index: &usize| self.write.newest(&self.rows[*index]).operation == Operation::Delete;
        let dead: Vec<usize> = rows.iter().copied().filter(gone).collect();
        let buried: Vec<_> = dead.iter().map(|&index| (self.keys[index], version(index))).collect();
        tombstone::record_tombstones(self.session, self.write, &buried).await?;
        let dead: Vec<&KeyChanges> = dead.iter().map(|&index| &self.rows[index]).collect();
        delete(self.session, self.write, &dead).await?;
        Ok(true)
    }

    fn version(&self, row: &KeyChanges) -> Version {
        self.write.newest(row).version.unwrap_or_default()
    }
}
