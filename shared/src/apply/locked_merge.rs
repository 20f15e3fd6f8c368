//! Entities with care: what is stored is read under a lock, decided upon, and written; nobody can come between.

use std::collections::BTreeMap;

use tokio_postgres::Row as Found;

use super::append::key_arrays;
use super::copy::RowCopy;
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

/// With more different sets of columns than this, one statement with masks is cheaper than one for each set.
const SETS_MAX: usize = 8;

/// Merges the rows.
pub async fn merge_locked(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    rule: MergeBy,
) -> Result<AttemptResult, RejectedAttempt> {
    let merging = LockedMerge { session, write, rows, merge_by: rule, keys: tombstone::key_digests(write, rows) };
    let mut stored = merging.read().await?;
    loop {
        let decisions = decide_rows(write, rows, rule, &stored)?;
        match merging.write(&stored, &decisions).await {
            Ok(Some(count)) => return Ok(attempt_result(write, rows, &decisions, count)),
            // Another writer deleted a key that was not there: its lock could not be had before the row was.
            Ok(None) => {
                session.rollback_attempt().await?;
                stored = merging.read().await?;
            }
            Err(refused) => {
                let ApplyError::Database(error) = &refused.error else { return Err(refused) };
                if !is_unique_violation(error) {
                    return Err(refused);
                }
                // Another writer's new key: its row is there now. The locks taken so far are given back first, so that
                // they are again taken in the order of the keys.
                session.rollback_attempt().await?;
                let now = merging.read().await?;
                let absent = |stored: &StoredState| stored.row == StoredRow::Absent;
                if !now.iter().zip(&stored).any(|(now, before)| !absent(now) && absent(before)) {
                    return Err(refused);
                }
                stored = now;
            }
        }
    }
}

/// The column that keeps a row's version.
pub fn version_column(rule: MergeBy) -> &'static str {
    match rule {
        MergeBy::Row => VERSION,
        MergeBy::Column => VERSIONS,
    }
}

struct LockedMerge<'m> {
    session: &'m WriteTransaction<'m>,
    write: &'m TableWrite,
    rows: &'m [KeyChanges],
    merge_by: MergeBy,
    /// The keys as tombstones know them; empty where nothing is deleted.
    keys: Vec<KeyDigest>,
}

impl LockedMerge<'_> {
    /// Reads what is stored of each key, under locks. Rows first: who holds a row's lock finds its tombstones settled.
    async fn read(&self) -> Result<Vec<StoredState>, ApplyError> {
        read_stored(self.session, self.write, self.rows, version_column(self.merge_by), &self.keys, RowLock::Rows).await
    }

    /// Does what was decided; how many rows were written or deleted. `None` if a tombstone came between.
    async fn write(&self, stored: &[StoredState], decisions: &[MergeDecision]) -> Result<Option<u64>, RejectedAttempt> {
        let absent = |index: &usize| stored[*index].row == StoredRow::Absent;
        let of = |action: RowAction| (0..self.rows.len()).filter(move |&index| decisions[index].action == action);
        // A delete makes a row, too, where there is none: the entry in the index is the lock of its key.
        let locks_keys = !self.write.needs_exclusive_lock();
        let inserts = |index: &usize| match decisions[*index].action {
            RowAction::Skip => false,
            RowAction::Upsert => true,
            RowAction::Delete => locks_keys,
        };
        // In the order of the keys, as every writer does.
        let new: Vec<usize> = (0..self.rows.len()).filter(|index| inserts(index) && absent(index)).collect();
        let inserted = self.insert(&new, decisions).await?;
        if !new.is_empty() && !self.keys.is_empty() {
            let keys: Vec<KeyDigest> = new.iter().map(|&index| self.keys[index]).collect();
            let now = tombstone::read(self.session, self.write, &keys).await?;
            if new.iter().zip(now).any(|(&index, now)| now != stored[index].tombstone) {
                return Ok(None);
            }
        }
        let changed: Vec<usize> = of(RowAction::Upsert).filter(|index| !absent(index)).collect();
        let updated = self.update(&changed, decisions).await?;
        let dead = decisions.iter().zip(&self.keys);
        let dead: Vec<_> = dead.filter_map(|(decision, key)| Some((*key, decision.tombstone?))).collect();
        tombstone::record_tombstones(self.session, self.write, &dead).await?;
        let deleted: Vec<&KeyChanges> = of(RowAction::Delete).map(|index| &self.rows[index]).collect();
        delete(self.session, self.write, &deleted).await?;
        let stubs = new.iter().filter(|&&index| decisions[index].action == RowAction::Delete).count();
        let written = inserted + updated + deleted.len() as u64;
        // A trigger of the owner's may have kept some out.
        Ok(Some(written.saturating_sub(stubs as u64)))
    }

    async fn insert(&self, new: &[usize], decisions: &[MergeDecision]) -> Result<u64, RejectedAttempt> {
        let mut copied = RowCopy::new(self.write, Some(version_column(self.merge_by)));
        for &index in new {
            let decision = &decisions[index];
            let mut overflow = Vec::new();
            if let Some(json) = &decision.overflow {
                cell::write_jsonb(json, &mut overflow);
            }
            copied.push(cells(self.write, &self.rows[index], decision, &overflow), &decision.versions);
        }
        let by_place = |refused: RejectedAttempt| RejectedAttempt {
            row: refused.row.and_then(|line| new.get(line).copied()),
            ..refused
        };
        copied.write(self.session).await.map_err(by_place)
    }

    /// Updates the rows, those with the same set of columns in one statement.
    async fn update(&self, changed: &[usize], decisions: &[MergeDecision]) -> Result<u64, ApplyError> {
        let mut by_set: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for &index in changed {
            let columns = decisions[index].columns.iter().enumerate().skip(self.write.key);
            let set = columns.filter(|(_, take)| **take != ColumnSource::Unchanged).map(|(place, _)| place).collect();
            by_set.entry(set).or_default().push(index);
        }
        if by_set.len() > SETS_MAX {
            return self.update_set(&UpdateColumns::Masked, changed, decisions).await;
        }
        let mut count = 0;
        for (places, rows) in &by_set {
            count += self.update_set(&UpdateColumns::Same(places), rows, decisions).await?;
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
        let by_field = overflow_index(write).filter(|_| merges_overflow_by_field(write) && merges_fields);
        let masks = match set {
            UpdateColumns::Same(_) => 0,
            UpdateColumns::Masked => write.columns.len().div_ceil(COLUMNS_PER_MASK),
        };
        let fields = by_field.map(|_| (NEW_FIELDS.to_owned(), ColumnType::Text { characters_max: None }));
        let extra = fields.into_iter().chain((0..masks).map(|number| (mask_name(number), ColumnType::Int8)));
        let mut tuples = RowParams::new(write, version, extra.collect());
        for &index in rows {
            let decision = &decisions[index];
            let mut own: Vec<Vec<u8>> = Vec::new();
            if by_field.is_some() {
                let mut cell = Vec::new();
                match &decision.overflow {
                    Some(json) => cell::write_text(json, &mut cell),
                    None => cell.extend_from_slice(&cell::NULL),
                }
                own.push(cell);
            }
            own.extend(decision.columns.chunks(COLUMNS_PER_MASK).take(masks).map(mask_cell));
            let own: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
            tuples.push(cells(write, &self.rows[index], decision, &[]), &decision.versions, &own);
        }
        let statement = sql::update(write, version, set, by_field, &tuples.source());
        let arrays = tuples.arrays();
        Ok(self.session.client.execute_typed(&statement, &parameters(&arrays)).await?)
    }
}

/// Decides about each row, by what is stored of its key.
pub fn decide_rows(
    write: &TableWrite,
    rows: &[KeyChanges],
    rule: MergeBy,
    stored: &[StoredState],
) -> Result<Vec<MergeDecision>, ApplyError> {
    rows.iter().zip(stored).map(|(row, stored)| Ok(decide(write, row, rule, stored)?)).collect()
}

/// Reads what is stored of the rows' keys; `keys` are the keys as tombstones know them, empty where nothing is deleted.
pub async fn read_stored(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[KeyChanges],
    version: &str,
    keys: &[KeyDigest],
    lock: RowLock,
) -> Result<Vec<StoredState>, ApplyError> {
    let parameters_of_keys = key_arrays(write, rows.iter());
    let statement = sql::select_versions(write, version, lock);
    let mut stored = vec![StoredState::default(); rows.len()];
    let found: Vec<Found> = session.client.query_typed(&statement, &parameters(&parameters_of_keys)).await?;
    for row in found {
        let ordinal = row.get::<_, i64>(0) as usize - 1;
        stored[ordinal].row = StoredRow::Present(row.get(1));
    }
    if !keys.is_empty() {
        let tombstones = tombstone::read(session, write, keys).await?;
        stored.iter_mut().zip(tombstones).for_each(|(stored, tombstone)| stored.tombstone = tombstone);
    }
    Ok(stored)
}

/// Deletes the rows of some keys.
pub async fn delete(
    session: &WriteTransaction<'_>,
    write: &TableWrite,
    rows: &[&KeyChanges],
) -> Result<u64, ApplyError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let keys: Vec<Array> = key_arrays(write, rows.iter().copied());
    Ok(session.client.execute_typed(&sql::delete(write), &parameters(&keys)).await?)
}

/// The cells of a row as decided.
fn cells<'w>(
    write: &'w TableWrite,
    row: &KeyChanges,
    decision: &'w MergeDecision,
    overflow: &'w [u8],
) -> impl Iterator<Item = &'w [u8]> {
    let members = &write.changes[row.changes.clone()];
    let overflow_place = if overflow.is_empty() { None } else { overflow_index(write) };
    decision.columns.iter().enumerate().map(move |(place, take)| match take {
        _ if Some(place) == overflow_place => overflow,
        ColumnSource::Change(member) => {
            Some(write.cell(&members[*member], place)).filter(|cell| !cell.is_empty()).unwrap_or(&cell::NULL)
        }
        ColumnSource::Unchanged | ColumnSource::Null => &cell::NULL,
    })
}

fn overflow_index(write: &TableWrite) -> Option<usize> {
    sql::columns(write).position(|column| column.name.as_str() == OVERFLOW)
}

/// A bit for each column that is written.
fn mask_cell(columns: &[ColumnSource]) -> Vec<u8> {
    let mask: i64 =
        columns.iter().enumerate().map(|(bit, take)| i64::from(*take != ColumnSource::Unchanged) << bit).sum();
    [&8i32.to_be_bytes()[..], &mask.to_be_bytes()[..]].concat()
}

/// What became of the rows, as decided.
pub fn attempt_result(
    write: &TableWrite,
    rows: &[KeyChanges],
    decisions: &[MergeDecision],
    count: u64,
) -> AttemptResult {
    let fates = rows.iter().zip(decisions);
    let fates = fates.flat_map(|(row, decision)| records(write, row).zip(decision.outcomes.iter().copied()));
    let look_first = decisions.iter().any(|decision| decision.action == RowAction::Skip);
    AttemptResult {
        rows: count,
        outcomes: fates.collect(),
        observed: TableHints { expect_existing: look_first, expect_new: false },
    }
}
