//! Entities whose newest change is the whole row: one statement that inserts what is new and replaces what is older.
//!
//! At first it is believed that every change is news. Where that was wrong (something was there that is as new, or newer),
//! the statement is undone, what is stored is read, and only what is news then is written. Every attempt takes its locks
//! in the one order of the keys, for rows that are there and rows that are not.

use tokio_postgres::Row as Found;

use super::copy::Rows;
use super::merge::{decide_all, delete, merge, read, written};
use super::session::Session;
use super::statement::{self, Lock, parameters};
use super::tombstone::{self, KeyDigest};
use super::tuples::Tuples;
use super::{ApplyError, Hints, Refused, Written};
use crate::change::{Operation, Version};
use crate::database::fault::is_unique_violation;
use crate::plan::merge::{Action, Stored};
use crate::plan::{Row, TableWrite};
use crate::spec::{Merge, VERSION};

/// Replaces the rows.
pub async fn replace(
    session: &Session<'_>,
    write: &TableWrite,
    rows: &[Row],
    hints: Hints,
) -> Result<Written, Refused> {
    let Some(replacing) = Replacing::new(session, write, rows) else {
        return merge(session, write, rows, Merge::Row).await;
    };
    if !hints.look_first {
        if let Some(written) = replacing.believe(hints).await? {
            return Ok(written);
        }
        session.undo().await?;
    }
    replacing.look().await
}

/// Replaces the rows, or gives up where not all of them are news.
pub async fn replace_quickly(
    session: &Session<'_>,
    write: &TableWrite,
    hints: Hints,
) -> Result<Option<Written>, Refused> {
    match Replacing::new(session, write, &write.rows).filter(|_| !hints.look_first) {
        Some(replacing) => replacing.believe(hints).await,
        None => Ok(None),
    }
}

struct Replacing<'r> {
    session: &'r Session<'r>,
    write: &'r TableWrite,
    rows: &'r [Row],
    target: String,
    /// The keys as tombstones know them; empty where nothing is deleted.
    keys: Vec<KeyDigest>,
}

/// How many rows were written, and how many of them were not there before.
#[derive(Clone, Copy)]
struct Count {
    all: u64,
    new: u64,
}

impl<'r> Replacing<'r> {
    /// `None` where one statement cannot do it.
    fn new(session: &'r Session<'r>, write: &'r TableWrite, rows: &'r [Row]) -> Option<Self> {
        let target = statement::conflict_target(write).filter(|_| !write.exclusive())?;
        Some(Self { session, write, rows, target, keys: tombstone::digests(write, rows) })
    }

    /// Writes all rows; `None` if not all of them were news.
    async fn believe(&self, hints: Hints) -> Result<Option<Written>, Refused> {
        let all: Vec<usize> = (0..self.rows.len()).collect();
        let count = match if hints.all_new { self.copy().await? } else { None } {
            Some(count) => count,
            None => self.upsert(&all).await?,
        };
        if count.all < all.len() as u64 || !self.delete(&all).await? {
            return Ok(None);
        }
        let older = vec![Stored::default(); self.rows.len()];
        let decisions = decide_all(self.write, self.rows, Merge::Row, &older)?;
        let met = Hints { look_first: false, all_new: count.new == count.all };
        Ok(Some(Written { met, ..written(self.write, self.rows, &decisions, count.all) }))
    }

    /// Reads what is stored, and writes what is news; again, as long as others come between.
    async fn look(&self) -> Result<Written, Refused> {
        let mut stored = self.read().await?;
        loop {
            let decisions = decide_all(self.write, self.rows, Merge::Row, &stored)?;
            let news: Vec<usize> =
                (0..self.rows.len()).filter(|&index| decisions[index].action != Action::Keep).collect();
            let count = self.upsert(&news).await?;
            if count.all >= news.len() as u64 && self.delete(&news).await? {
                return Ok(written(self.write, self.rows, &decisions, count.all));
            }
            self.session.undo().await?;
            let now = self.read().await?;
            if now == stored {
                // A trigger of the owner's keeps rows out: only under locks is it known that nobody comes between.
                return merge(self.session, self.write, self.rows, Merge::Row).await;
            }
            stored = now;
        }
    }

    async fn read(&self) -> Result<Vec<Stored>, ApplyError> {
        read(self.session, self.write, self.rows, VERSION, &self.keys, Lock::Nothing).await
    }

    /// Copies all rows, if none of their keys is there.
    async fn copy(&self) -> Result<Option<Count>, Refused> {
        let mut copied = Rows::new(self.write, Some(VERSION));
        for row in self.rows {
            copied.push(self.write.newest_cells(row), &self.version(row).to_string());
        }
        match copied.write(self.session).await {
            Ok(all) => Ok(Some(Count { all, new: all })),
            Err(Refused { error: ApplyError::Database(error), .. }) if is_unique_violation(&error) => {
                self.session.undo().await?;
                Ok(None)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Inserts and replaces some of the rows, those that are older than they; a delete makes a row, too: it locks the key.
    async fn upsert(&self, rows: &[usize]) -> Result<Count, ApplyError> {
        if rows.is_empty() {
            return Ok(Count { all: 0, new: 0 });
        }
        let mut tuples = Tuples::new(self.write, VERSION, Vec::new());
        for row in rows.iter().map(|&index| &self.rows[index]) {
            tuples.push(self.write.newest_cells(row), &self.version(row).to_string(), &[]);
        }
        let statement = statement::upsert(self.write, VERSION, &self.target, &tuples.source());
        let arrays = tuples.arrays();
        let found: Vec<Found> = self.session.client.query_typed(&statement, &parameters(&arrays)).await?;
        let count = |column: usize| found.first().map_or(0, |row| row.get::<_, i64>(column) as u64);
        Ok(Count { all: count(0), new: count(1) })
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
        tombstone::bury(self.session, self.write, &buried).await?;
        let dead: Vec<&Row> = dead.iter().map(|&index| &self.rows[index]).collect();
        delete(self.session, self.write, &dead).await?;
        Ok(true)
    }

    fn version(&self, row: &Row) -> Version {
        self.write.newest(row).version.unwrap_or_default()
    }
}
