//! Entities with care: what is stored is read under a lock, decided upon, and written; nobody can come between.

use std::collections::BTreeMap;

use tokio_postgres::Row as Found;

use super::append::key_arrays;
use super::copy::Rows;
use super::session::Session;
use super::statement::{self, Array, COLUMNS_A_MASK, Lock, NEW_FIELDS, Set, mask_name, parameters};
use super::tombstone::{self, KeyDigest};
use super::tuples::Tuples;
use super::{ApplyError, Hints, Refused, Written, records};
use crate::catalog::Kind;
use crate::database::fault::is_unique_violation;
use crate::plan::merge::{Action, Decision, Stored, StoredRow, Take, by_field, decide};
use crate::plan::{Row, TableWrite, cell};
use crate::spec::{Merge, OVERFLOW, VERSION, VERSIONS};

/// With more different sets of columns than this, one statement with masks is cheaper than one for each set.
const SETS_MAX: usize = 8;

/// Merges the rows.
pub async fn merge(session: &Session<'_>, write: &TableWrite, rows: &[Row], rule: Merge) -> Result<Written, Refused> {
    let merging = Merging { session, write, rows, rule, keys: tombstone::digests(write, rows) };
    let mut stored = merging.read().await?;
    loop {
        let decisions = decide_all(write, rows, rule, &stored)?;
        match merging.write(&stored, &decisions).await {
            Ok(Some(count)) => return Ok(written(write, rows, &decisions, count)),
            // Another writer deleted a key that was not there: its lock could not be had before the row was.
            Ok(None) => {
                session.undo().await?;
                stored = merging.read().await?;
            }
            Err(refused) => {
                let ApplyError::Database(error) = &refused.error else { return Err(refused) };
                if !is_unique_violation(error) {
                    return Err(refused);
                }
                // Another writer's new key: its row is there now. The locks taken so far are given back first, so that
                // they are again taken in the order of the keys.
                session.undo().await?;
                let now = merging.read().await?;
                let absent = |stored: &Stored| stored.row == StoredRow::Absent;
                if !now.iter().zip(&stored).any(|(now, before)| !absent(now) && absent(before)) {
                    return Err(refused);
                }
                stored = now;
            }
        }
    }
}

/// The column that keeps a row's version.
pub fn version_column(rule: Merge) -> &'static str {
    match rule {
        Merge::Row => VERSION,
        Merge::Column => VERSIONS,
    }
}

struct Merging<'m> {
    session: &'m Session<'m>,
    write: &'m TableWrite,
    rows: &'m [Row],
    rule: Merge,
    /// The keys as tombstones know them; empty where nothing is deleted.
    keys: Vec<KeyDigest>,
}

impl Merging<'_> {
    /// Reads what is stored of each key, under locks. Rows first: who holds a row's lock finds its tombstones settled.
    async fn read(&self) -> Result<Vec<Stored>, ApplyError> {
        read(self.session, self.write, self.rows, version_column(self.rule), &self.keys, Lock::Rows).await
    }

    /// Does what was decided; how many rows were written or deleted. `None` if a tombstone came between.
    async fn write(&self, stored: &[Stored], decisions: &[Decision]) -> Result<Option<u64>, Refused> {
        let absent = |index: &usize| stored[*index].row == StoredRow::Absent;
        let of = |action: Action| (0..self.rows.len()).filter(move |&index| decisions[index].action == action);
        // A delete makes a row, too, where there is none: the entry in the index is the lock of its key.
        let locks_keys = !self.write.exclusive();
        let inserts = |index: &usize| match decisions[*index].action {
            Action::Keep => false,
            Action::Put => true,
            Action::Delete => locks_keys,
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
        let changed: Vec<usize> = of(Action::Put).filter(|index| !absent(index)).collect();
        let updated = self.update(&changed, decisions).await?;
        let dead = decisions.iter().zip(&self.keys);
        let dead: Vec<_> = dead.filter_map(|(decision, key)| Some((*key, decision.tombstone?))).collect();
        tombstone::bury(self.session, self.write, &dead).await?;
        let deleted: Vec<&Row> = of(Action::Delete).map(|index| &self.rows[index]).collect();
        delete(self.session, self.write, &deleted).await?;
        let stubs = new.iter().filter(|&&index| decisions[index].action == Action::Delete).count();
        let written = inserted + updated + deleted.len() as u64;
        // A trigger of the owner's may have kept some out.
        Ok(Some(written.saturating_sub(stubs as u64)))
    }

    async fn insert(&self, new: &[usize], decisions: &[Decision]) -> Result<u64, Refused> {
        let mut copied = Rows::new(self.write, Some(version_column(self.rule)));
        for &index in new {
            let decision = &decisions[index];
            let mut overflow = Vec::new();
            if let Some(json) = &decision.overflow {
                cell::write_jsonb(json, &mut overflow);
            }
            copied.push(cells(self.write, &self.rows[index], decision, &overflow), &decision.versions);
        }
        let by_place =
            |refused: Refused| Refused { row: refused.row.and_then(|line| new.get(line).copied()), ..refused };
        copied.write(self.session).await.map_err(by_place)
    }

    /// Updates the rows, those with the same set of columns in one statement.
    async fn update(&self, changed: &[usize], decisions: &[Decision]) -> Result<u64, ApplyError> {
        let mut by_set: BTreeMap<Vec<usize>, Vec<usize>> = BTreeMap::new();
        for &index in changed {
            let columns = decisions[index].columns.iter().enumerate().skip(self.write.key);
            let set = columns.filter(|(_, take)| **take != Take::Keep).map(|(place, _)| place).collect();
            by_set.entry(set).or_default().push(index);
        }
        if by_set.len() > SETS_MAX {
            return self.update_set(&Set::Masked, changed, decisions).await;
        }
        let mut count = 0;
        for (places, rows) in &by_set {
            count += self.update_set(&Set::Same(places), rows, decisions).await?;
        }
        Ok(count)
    }

    async fn update_set(&self, set: &Set<'_>, rows: &[usize], decisions: &[Decision]) -> Result<u64, ApplyError> {
        let write = self.write;
        let version = version_column(self.rule);
        let merges_fields = rows.iter().any(|&index| decisions[index].overflow.is_some());
        let by_field = overflow_place(write).filter(|_| by_field(write) && merges_fields);
        let masks = match set {
            Set::Same(_) => 0,
            Set::Masked => write.columns.len().div_ceil(COLUMNS_A_MASK),
        };
        let fields = by_field.map(|_| (NEW_FIELDS.to_owned(), Kind::Text { characters_max: None }));
        let extra = fields.into_iter().chain((0..masks).map(|number| (mask_name(number), Kind::Int8)));
        let mut tuples = Tuples::new(write, version, extra.collect());
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
            own.extend(decision.columns.chunks(COLUMNS_A_MASK).take(masks).map(mask_cell));
            let own: Vec<&[u8]> = own.iter().map(Vec::as_slice).collect();
            tuples.push(cells(write, &self.rows[index], decision, &[]), &decision.versions, &own);
        }
        let statement = statement::update(write, version, set, by_field, &tuples.source());
        let arrays = tuples.arrays();
        Ok(self.session.client.execute_typed(&statement, &parameters(&arrays)).await?)
    }
}

/// Decides about each row, by what is stored of its key.
pub fn decide_all(
    write: &TableWrite,
    rows: &[Row],
    rule: Merge,
    stored: &[Stored],
) -> Result<Vec<Decision>, ApplyError> {
    rows.iter().zip(stored).map(|(row, stored)| Ok(decide(write, row, rule, stored)?)).collect()
}

/// Reads what is stored of the rows' keys; `keys` are the keys as tombstones know them, empty where nothing is deleted.
pub async fn read(
    session: &Session<'_>,
    write: &TableWrite,
    rows: &[Row],
    version: &str,
    keys: &[KeyDigest],
    lock: Lock,
) -> Result<Vec<Stored>, ApplyError> {
    let parameters_of_keys = key_arrays(write, rows.iter());
    let statement = statement::versions(write, version, lock);
    let mut stored = vec![Stored::default(); rows.len()];
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
pub async fn delete(session: &Session<'_>, write: &TableWrite, rows: &[&Row]) -> Result<u64, ApplyError> {
    if rows.is_empty() {
        return Ok(0);
    }
    let keys: Vec<Array> = key_arrays(write, rows.iter().copied());
    Ok(session.client.execute_typed(&statement::delete(write), &parameters(&keys)).await?)
}

/// The cells of a row as decided.
fn cells<'w>(
    write: &'w TableWrite,
    row: &Row,
    decision: &'w Decision,
    overflow: &'w [u8],
) -> impl Iterator<Item = &'w [u8]> {
    let members = &write.members[row.members.clone()];
    let overflow_place = if overflow.is_empty() { None } else { overflow_place(write) };
    decision.columns.iter().enumerate().map(move |(place, take)| match take {
        _ if Some(place) == overflow_place => overflow,
        Take::Of(member) => {
            Some(write.cell(&members[*member], place)).filter(|cell| !cell.is_empty()).unwrap_or(&cell::NULL)
        }
        Take::Keep | Take::Null => &cell::NULL,
    })
}

fn overflow_place(write: &TableWrite) -> Option<usize> {
    statement::columns(write).position(|column| column.name.as_str() == OVERFLOW)
}

/// A bit for each column that is written.
fn mask_cell(columns: &[Take]) -> Vec<u8> {
    let mask: i64 = columns.iter().enumerate().map(|(bit, take)| i64::from(*take != Take::Keep) << bit).sum();
    [&8i32.to_be_bytes()[..], &mask.to_be_bytes()[..]].concat()
}

/// What became of the rows, as decided.
pub fn written(write: &TableWrite, rows: &[Row], decisions: &[Decision], count: u64) -> Written {
    let fates = rows.iter().zip(decisions);
    let fates = fates.flat_map(|(row, decision)| records(write, row).zip(decision.members.iter().copied()));
    let look_first = decisions.iter().any(|decision| decision.action == Action::Keep);
    Written { rows: count, fates: fates.collect(), met: Hints { look_first, all_new: false } }
}
