//! Merges entities under locks: stored rows are locked, read, resolved and written. No other writer can interfere.

use std::collections::BTreeMap;

use tokio_postgres::Row;

use super::append::key_arrays;
use super::copy::{RowCopy, copy_rows};
use super::row_params::RowParams;
use super::sql::{self, Array, COLUMNS_PER_MASK, NEW_FIELDS, RowLock, UpdateColumns, mask_name, parameters};
use super::tombstone::{self, KeyDigest};
use super::transaction::WriteTransaction;
use super::{ApplyError, AttemptResult, RejectedAttempt, TableHints, records};
use crate::catalog::ColumnType;
use crate::database::sqlstate::is_unique_violation;
use crate::plan::merge::{
    ColumnSource, MergeDecision, RowAction, StoredRow, StoredState, decide, merges_overflow_by_field,
};
use crate::plan::{KeyChanges, TableWrite, cell};
use crate::spec::{MergeBy, OVERFLOW, VERSION, VERSIONS};

/// With more sets of columns than this, one statement with masks is cheaper than one statement per set.
const SETS_MAX: usize = 8;

/// Merges the rows.
pub async fn merge_locked(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    merge_by: MergeBy,
) -> Result<AttemptResult, RejectedAttempt> {
    let merge = LockedMerge { transaction, write, rows, merge_by, key_digests: tombstone::key_digests(write, rows) };
    let mut stored = merge.read().await?;
    loop {
        let decisions = decide_rows(write, rows, merge_by, &stored)?;
        match merge.write(&stored, &decisions).await {
            Ok(Some(count)) => return Ok(attempt_result(write, rows, &decisions, count)),
            // Another writer deleted a key that has no row: the key could not be locked before its row existed.
            Ok(None) => {
                transaction.rollback_attempt().await?;
                stored = merge.read().await?;
            }
            Err(rejected) => {
                let ApplyError::Database(error) = &rejected.error else { return Err(rejected) };
                if !is_unique_violation(error) {
                    return Err(rejected);
                }
                // Another writer inserted the key, and its row exists now. Release the locks taken so far first, so
                // that they are taken again in the order of the keys.
                transaction.rollback_attempt().await?;
                let stored_now = merge.read().await?;
                let is_absent = |stored: &StoredState| stored.row == StoredRow::Absent;
                if !stored_now.iter().zip(&stored).any(|(now, before)| !is_absent(now) && is_absent(before)) {
                    return Err(rejected);
                }
                stored = stored_now;
            }
        }
    }
}

/// The column that stores a row's version.
pub fn version_column(merge_by: MergeBy) -> &'static str {
    match merge_by {
        MergeBy::Row => VERSION,
        MergeBy::Column => VERSIONS,
    }
}

struct LockedMerge<'m> {
    transaction: &'m WriteTransaction<'m>,
    write: &'m TableWrite,
    rows: &'m [KeyChanges],
    merge_by: MergeBy,
    /// The keys as stored in tombstones; empty if nothing is deleted.
    key_digests: Vec<KeyDigest>,
}

impl LockedMerge<'_> {
    /// Reads the stored state of each key under locks. Rows come first: the tombstones of a locked row cannot change.
    async fn read(&self) -> Result<Vec<StoredState>, ApplyError> {
        read_stored(
            self.transaction,
            self.write,
            self.rows,
            version_column(self.merge_by),
            &self.key_digests,
            RowLock::Rows,
        )
        .await
    }

    /// Carries out the decisions and returns how many rows were written or deleted. `None` if another writer recorded a
    /// tombstone in between.
    async fn write(&self, stored: &[StoredState], decisions: &[MergeDecision]) -> Result<Option<u64>, RejectedAttempt> {
        let is_absent = |index: &usize| stored[*index].row == StoredRow::Absent;
        let rows_with =
            |action: RowAction| (0..self.rows.len()).filter(move |&index| decisions[index].action == action);
        // A delete of a missing row inserts one, too: its entry in the unique index locks the key.
        let locks_keys = !self.write.needs_exclusive_lock();
        let needs_insert = |index: &usize| match decisions[*index].action {
            RowAction::Skip => false,
            RowAction::Upsert => true,
            RowAction::Delete => locks_keys,
        };
        // In the order of the keys, as in every writer.
        let new: Vec<usize> = (0..self.rows.len()).filter(|index| needs_insert(index) && is_absent(index)).collect();
        let inserted = self.insert(&new, decisions).await?;
        if !new.is_empty() && !self.key_digests.is_empty() {
            let keys: Vec<KeyDigest> = new.iter().map(|&index| self.key_digests[index]).collect();
            let tombstones = tombstone::read(self.transaction, self.write, &keys).await?;
            if new.iter().zip(tombstones).any(|(&index, tombstone)| tombstone != stored[index].tombstone) {
                return Ok(None);
            }
        }
        let changed: Vec<usize> = rows_with(RowAction::Upsert).filter(|index| !is_absent(index)).collect();
        let updated = self.update(&changed, decisions).await?;
        let tombstones = decisions.iter().zip(&self.key_digests);
        let tombstones: Vec<_> = tombstones.filter_map(|(decision, key)| Some((*key, decision.tombstone?))).collect();
        tombstone::record_tombstones(self.transaction, self.write, &tombstones).await?;
        let deleted: Vec<&KeyChanges> = rows_with(RowAction::Delete).map(|index| &self.rows[index]).collect();
        delete(self.transaction, self.write, &deleted).await?;
        let key_placeholders = new.iter().filter(|&&index| decisions[index].action == RowAction::Delete).count();
        let written = inserted + updated + deleted.len() as u64;
        // A trigger of the table owner may have suppressed some rows.
        Ok(Some(written.saturating_sub(key_placeholders as u64)))
    }

    async fn insert(&self, new: &[usize], decisions: &[MergeDecision]) -> Result<u64, RejectedAttempt> {
        let push = |copy: &mut RowCopy<'_>, index: usize| {
            let decision = &decisions[index];
            let mut overflow = Vec::new();
            if let Some(json) = &decision.overflow {
                cell::write_jsonb(json, &mut overflow);
            }
            copy.push(cells(self.write, &self.rows[index], decision, &overflow), &decision.versions);
        };
        let rows = new.iter().map(|&index| (index, &self.rows[index]));
        copy_rows(self.transaction, self.write, Some(version_column(self.merge_by)), rows, push).await
    }

    /// Updates the rows, one statement for all rows with the same set of columns.
    async fn update(&self, changed: &[usize], decisions: &[MergeDecision]) -> Result<u64, ApplyError> {
        let mut by_set: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for &index in changed {
            let columns = decisions[index].columns.iter().enumerate().skip(self.write.key_column_count);
            let set =
                columns.filter(|(_, source)| **source != ColumnSource::Unchanged).map(|(column, _)| column).collect();
            by_set.entry(set).or_default().push(index);
        }
        if by_set.len() > SETS_MAX {
            return self.update_set(&UpdateColumns::Masked, changed, decisions).await;
        }
        let mut count = 0;
        for (columns, rows) in &by_set {
            count += self.update_set(&UpdateColumns::Same(columns), rows, decisions).await?;
        }
        Ok(count)
    }

    async fn update_set(
        &self,
        set: &UpdateColumns<'_>,
        rows: &[usize],
        decisions: &[MergeDecision],
    ) -> Result<u64, ApplyError> {
        let write = self.write;
        let version = version_column(self.merge_by);
        let merges_fields = rows.iter().any(|&index| decisions[index].overflow.is_some());
        let merged_overflow = overflow_index(write).filter(|_| merges_overflow_by_field(write) && merges_fields);
        let masks = match set {
            UpdateColumns::Same(_) => 0,
            UpdateColumns::Masked => write.column_indexes.len().div_ceil(COLUMNS_PER_MASK),
        };
        let new_fields = merged_overflow.map(|_| (NEW_FIELDS.to_owned(), ColumnType::Text { characters_max: None }));
        let extra = new_fields.into_iter().chain((0..masks).map(|number| (mask_name(number), ColumnType::Int8)));
        let mut params = RowParams::new(write, version, extra.collect());
        for &index in rows {
            let decision = &decisions[index];
            let mut extra_cells: Vec<Vec<u8>> = Vec::new();
            if merged_overflow.is_some() {
                let mut cell = Vec::new();
                match &decision.overflow {
                    Some(json) => cell::write_text(json, &mut cell),
                    None => cell.extend_from_slice(&cell::NULL),
                }
                extra_cells.push(cell);
            }
            extra_cells.extend(decision.columns.chunks(COLUMNS_PER_MASK).take(masks).map(mask_cell));
            let extra_cells: Vec<&[u8]> = extra_cells.iter().map(Vec::as_slice).collect();
            params.push(cells(write, &self.rows[index], decision, &[]), &decision.versions, &extra_cells);
        }
        let statement = sql::update(write, version, set, merged_overflow, &params.source());
        let arrays = params.arrays();
        Ok(self.transaction.client.execute_typed(&statement, &parameters(&arrays)).await?)
    }
}

/// Decides on each row, given the stored state of its key.
pub fn decide_rows(
    write: &TableWrite,
    rows: &[KeyChanges],
    merge_by: MergeBy,
    stored: &[StoredState],
) -> Result<Vec<MergeDecision>, ApplyError> {
    rows.iter().zip(stored).map(|(row, stored)| Ok(decide(write, row, merge_by, stored)?)).collect()
}

/// Reads the stored state of the rows' keys; `key_digests` are the keys as stored in tombstones, empty if nothing is
/// deleted.
pub async fn read_stored(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    version: &str,
    key_digests: &[KeyDigest],
    lock: RowLock,
) -> Result<Vec<StoredState>, ApplyError> {
    let keys_to_read = key_arrays(write, rows.iter());
    let statement = sql::select_versions(write, version, lock);
    let mut stored = vec![StoredState::default(); rows.len()];
    let stored_versions: Vec<Row> = transaction.client.query_typed(&statement, &parameters(&keys_to_read)).await?;
    for row in stored_versions {
        let ordinal = row.get::<_, i64>(0) as usize - 1;
        stored[ordinal].row = StoredRow::Present(row.get(1));
    }
    if !key_digests.is_empty() {
        let tombstones = tombstone::read(transaction, write, key_digests).await?;
        stored.iter_mut().zip(tombstones).for_each(|(stored, tombstone)| stored.tombstone = tombstone);
    }
    Ok(stored)
}

/// Deletes the rows of the given keys.
pub async fn delete(
    transaction: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[&KeyChanges],
) -> Result<u64, ApplyError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let keys: Vec<Array> = key_arrays(write, rows.iter().copied());
    Ok(transaction.client.execute_typed(&sql::delete(write), &parameters(&keys)).await?)
}

/// The cells of a row, as decided.
fn cells<'w>(
    write: &'w TableWrite,
    row: &KeyChanges,
    decision: &'w MergeDecision,
    overflow: &'w [u8],
) -> impl Iterator<Item = &'w [u8]> {
    let changes = &write.changes[row.changes.clone()];
    let overflow_column = if overflow.is_empty() { None } else { overflow_index(write) };
    decision.columns.iter().enumerate().map(move |(column, source)| match source {
        _ if Some(column) == overflow_column => overflow,
        ColumnSource::Change(change) => {
            Some(write.cell(&changes[*change], column)).filter(|cell| !cell.is_empty()).unwrap_or(&cell::NULL)
        }
        ColumnSource::Unchanged | ColumnSource::Null => &cell::NULL,
    })
}

fn overflow_index(write: &TableWrite) -> Option<usize> {
    sql::columns(write).position(|column| column.name.as_str() == OVERFLOW)
}

/// One bit for each column that is written.
fn mask_cell(columns: &[ColumnSource]) -> Vec<u8> {
    let mask: i64 =
        columns.iter().enumerate().map(|(bit, source)| i64::from(*source != ColumnSource::Unchanged) << bit).sum();
    [&8i32.to_be_bytes()[..], &mask.to_be_bytes()[..]].concat()
}

/// The outcomes of the rows, as decided.
pub fn attempt_result(
    write: &TableWrite,
    rows: &[KeyChanges],
    decisions: &[MergeDecision],
    count: u64,
) -> AttemptResult {
    let outcomes = rows.iter().zip(decisions);
    let outcomes = outcomes.flat_map(|(row, decision)| records(write, row).zip(decision.outcomes.iter().copied()));
    let expect_existing = decisions.iter().any(|decision| decision.action == RowAction::Skip);
    AttemptResult {
        rows: count,
        outcomes: outcomes.collect(),
        observed: TableHints { expect_existing, expect_new: false },
    }
}
