//! Entities whose newest change is the whole row: one statement inserts new rows and replaces older ones.
//!
//! The first attempt is optimistic and assumes that every change is newer than the stored row. If that is wrong,
//! because a stored row has the same or a newer version, the attempt is rolled back, the stored state is read, and only
//! newer changes are written. Every attempt takes its locks in the order of the keys, for existing and missing rows
//! alike.

use tokio_postgres::Row;

use super::copy::{RowCopy, copy_rows};
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

/// Upserts the rows.
pub async fn upsert_rows(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    hints: TableHints,
) -> Result<AttemptResult, RejectedAttempt> {
    let Some(attempt) = UpsertAttempt::new(transaction, write, rows) else {
        return merge_locked(transaction, write, rows, MergeBy::Row).await;
    };
    if !hints.expect_existing {
        if let Some(written) = attempt.try_upsert(hints).await? {
            return Ok(written);
        }
        transaction.rollback_attempt().await?;
    }
    attempt.read_then_upsert().await
}

/// Upserts the rows; `None` if not all of them are newer.
pub async fn upsert_optimistic(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    hints: TableHints,
) -> Result<Option<AttemptResult>, RejectedAttempt> {
    match UpsertAttempt::new(transaction, write, &write.rows).filter(|_| !hints.expect_existing) {
        Some(attempt) => attempt.try_upsert(hints).await,
        None => Ok(None),
    }
}

struct UpsertAttempt<'r> {
    transaction: &'r WriteTransaction<'r>,
    write: &'r TableWrite,
    rows: &'r [KeyChanges],
    target: String,
    /// The keys as stored in tombstones; empty if nothing is deleted.
    key_digests: Vec<KeyDigest>,
}

/// How many rows were written, and how many of them did not exist before.
#[derive(Clone, Copy)]
struct UpsertCounts {
    written: u64,
    inserted: u64,
}

impl<'r> UpsertAttempt<'r> {
    /// `None` if one statement is not sufficient.
    fn new(transaction: &'r WriteTransaction<'r>, write: &'r TableWrite, rows: &'r [KeyChanges]) -> Option<Self> {
        let target = sql::conflict_target(write).filter(|_| !write.needs_exclusive_lock())?;
        Some(Self { transaction, write, rows, target, key_digests: tombstone::key_digests(write, rows) })
    }

    /// Writes all rows; `None` if not all of them were newer.
    async fn try_upsert(&self, hints: TableHints) -> Result<Option<AttemptResult>, RejectedAttempt> {
        let all: Vec<usize> = (0..self.rows.len()).collect();
        let count = match if hints.expect_new { self.copy().await? } else { None } {
            Some(count) => count,
            None => self.upsert(&all).await?,
        };
        if count.written < all.len() as u64 || !self.delete(&all).await? {
            return Ok(None);
        }
        let nothing_stored = vec![StoredState::default(); self.rows.len()];
        let decisions = decide_rows(self.write, self.rows, MergeBy::Row, &nothing_stored)?;
        let observed = TableHints { expect_existing: false, expect_new: count.inserted == count.written };
        Ok(Some(AttemptResult { observed, ..attempt_result(self.write, self.rows, &decisions, count.written) }))
    }

    /// Reads the stored state and writes the newer changes; repeats this as long as other writers interfere.
    async fn read_then_upsert(&self) -> Result<AttemptResult, RejectedAttempt> {
        let mut stored = self.read().await?;
        loop {
            let decisions = decide_rows(self.write, self.rows, MergeBy::Row, &stored)?;
            let newer: Vec<usize> =
                (0..self.rows.len()).filter(|&index| decisions[index].action != RowAction::Skip).collect();
            let count = self.upsert(&newer).await?;
            if count.written >= newer.len() as u64 && self.delete(&newer).await? {
                return Ok(attempt_result(self.write, self.rows, &decisions, count.written));
            }
            self.transaction.rollback_attempt().await?;
            let stored_now = self.read().await?;
            if stored_now == stored {
                // A trigger of the table owner suppresses rows. Only locks rule out that another writer interferes.
                return merge_locked(self.transaction, self.write, self.rows, MergeBy::Row).await;
            }
            stored = stored_now;
        }
    }

    async fn read(&self) -> Result<Vec<StoredState>, ApplyError> {
        read_stored(self.transaction, self.write, self.rows, VERSION, &self.key_digests, RowLock::None).await
    }

    /// Copies all rows; `None` if any of their keys exists.
    async fn copy(&self) -> Result<Option<UpsertCounts>, RejectedAttempt> {
        let push = |copy: &mut RowCopy<'_>, index: usize| {
            let row = &self.rows[index];
            copy.push(self.write.newest_cells(row), &self.version(row).to_string());
        };
        match copy_rows(self.transaction, self.write, Some(VERSION), self.rows.iter().enumerate(), push).await {
            Ok(count) => Ok(Some(UpsertCounts { written: count, inserted: count })),
            Err(RejectedAttempt { error: ApplyError::Database(error), .. }) if is_unique_violation(&error) => {
                self.transaction.rollback_attempt().await?;
                Ok(None)
            }
            Err(rejected) => Err(rejected),
        }
    }

    /// Inserts the given rows or replaces older ones. A delete inserts a row, too, which locks the key.
    async fn upsert(&self, rows: &[usize]) -> Result<UpsertCounts, ApplyError> {
        if rows.is_empty() {
            return Ok(UpsertCounts { written: 0, inserted: 0 });
        }
        let mut params = RowParams::new(self.write, VERSION, Vec::new());
        for row in rows.iter().map(|&index| &self.rows[index]) {
            params.push(self.write.newest_cells(row), &self.version(row).to_string(), &[]);
        }
        let statement = sql::upsert(self.write, VERSION, &self.target, &params.source());
        let arrays = params.arrays();
        let counts: Vec<Row> = self.transaction.client.query_typed(&statement, &parameters(&arrays)).await?;
        let count = |column: usize| counts.first().map_or(0, |row| row.get::<_, i64>(column) as u64);
        Ok(UpsertCounts { written: count(0), inserted: count(1) })
    }

    /// Deletes the rows of deletes, now that the keys are locked; `false` if a tombstone is as new as one of the rows,
    /// or newer.
    async fn delete(&self, rows: &[usize]) -> Result<bool, ApplyError> {
        if self.key_digests.is_empty() || rows.is_empty() {
            return Ok(true);
        }
        let keys: Vec<KeyDigest> = rows.iter().map(|&index| self.key_digests[index]).collect();
        let tombstones = tombstone::read(self.transaction, self.write, &keys).await?;
        let version = |index: usize| self.version(&self.rows[index]);
        if rows.iter().zip(tombstones).any(|(&index, tombstone)| tombstone >= Some(version(index))) {
            return Ok(false);
        }
        let is_delete = |index: &usize| self.write.newest(&self.rows[*index]).operation == Operation::Delete;
        let deletes: Vec<usize> = rows.iter().copied().filter(is_delete).collect();
        let tombstones: Vec<_> = deletes.iter().map(|&index| (self.key_digests[index], version(index))).collect();
        tombstone::record_tombstones(self.transaction, self.write, &tombstones).await?;
        let deleted_rows: Vec<&KeyChanges> = deletes.iter().map(|&index| &self.rows[index]).collect();
        delete(self.transaction, self.write, &deleted_rows).await?;
        Ok(true)
    }

    fn version(&self, row: &KeyChanges) -> Version {
        self.write.newest(row).version.unwrap_or_default()
    }
}
