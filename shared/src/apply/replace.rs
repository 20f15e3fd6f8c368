//! Entities whose newest change is the whole row: one statement that inserts what is new and replaces what is older.
//!
//! It is believed that every change is news. Where that was wrong (something was there that is as new, or newer), the
//! statement is undone and [`merge`] takes its time to find out what became of each change.

use tokio_postgres::Row as Found;

use super::copy::Rows;
use super::merge::{delete, merge};
use super::session::Session;
use super::statement::{self, parameters};
use super::tombstone::{self, KeyDigest};
use super::tuples::Tuples;
use super::{ApplyError, Hints, Refused, Written, records};
use crate::change::{Operation, Version};
use crate::database::fault::is_unique_violation;
use crate::plan::merge::Fate;
use crate::plan::{Row, TableWrite};
use crate::spec::{Deletes, Merge, VERSION};

/// Replaces the rows.
pub async fn replace(
    session: &Session<'_>,
    write: &TableWrite,
    rows: &[Row],
    hints: Hints,
) -> Result<Written, Refused> {
    let target = statement::conflict_target(write).filter(|_| !hints.look_first && !write.exclusive());
    let Some(target) = target else { return merge(session, write, rows, Merge::Row).await };
    let replacing = Replacing { session, write, rows, target };
    if hints.all_new
        && let Some(written) = replacing.copy().await?
    {
        return Ok(written);
    }
    match replacing.upsert().await? {
        Some(written) => Ok(written),
        None => {
            session.undo().await?;
            merge(session, write, rows, Merge::Row).await
        }
    }
}

struct Replacing<'r> {
    session: &'r Session<'r>,
    write: &'r TableWrite,
    rows: &'r [Row],
    target: String,
}

impl Replacing<'_> {
    /// Copies the rows, if none of their keys is there.
    async fn copy(&self) -> Result<Option<Written>, Refused> {
        let mut copied = Rows::new(self.write, Some(VERSION));
        for row in self.rows {
            copied.push(self.cells(row), &self.version(row).to_string());
        }
        match copied.write(self.session).await {
            Ok(count) => self.after(count, count).await,
            Err(Refused { error: ApplyError::Database(error), .. }) if is_unique_violation(&error) => {
                self.session.undo().await?;
                Ok(None)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Inserts and replaces, if all changes are news.
    async fn upsert(&self) -> Result<Option<Written>, Refused> {
        let mut tuples = Tuples::new(self.write, VERSION, Vec::new());
        for row in self.rows {
            tuples.push(self.cells(row), &self.version(row).to_string(), &[]);
        }
        let statement = statement::upsert(self.write, VERSION, &self.target, &tuples.source());
        let arrays = tuples.arrays();
        let found: Vec<Found> =
            self.session.client.query_typed(&statement, &parameters(&arrays)).await.map_err(ApplyError::from)?;
        let count = |column: usize| found.first().map_or(0, |row| row.get::<_, i64>(column) as u64);
        self.after(count(0), count(1)).await
    }

    /// What is to be seen to once the rows are there: all of them, no tombstone against one, and deletes.
    async fn after(&self, count: u64, new: u64) -> Result<Option<Written>, Refused> {
        if count < self.rows.len() as u64 {
            return Ok(None);
        }
        if self.write.deletes == Deletes::Hard {
            let keys = tombstone::digests(self.write, self.rows);
            let tombstones = tombstone::read(self.session, self.write, &keys).await?;
            if self.rows.iter().zip(tombstones).any(|(row, tombstone)| tombstone >= Some(self.version(row))) {
                return Ok(None);
            }
            self.delete(&keys).await?;
        }
        let fates = self.rows.iter().flat_map(|row| {
            let members = &self.write.members[row.members.clone()];
            let newest = members.len() - 1;
            // Of changes with the same version only the last counts.
            let fate = move |(index, version): (usize, Option<Version>)| match () {
                () if index == newest => Fate::Applied,
                () if version == members[newest].version => Fate::Duplicate,
                () => Fate::Superseded,
            };
            records(self.write, row).zip(members.iter().map(|member| member.version).enumerate().map(fate))
        });
        let all_new = new == self.rows.len() as u64;
        Ok(Some(Written { rows: count, fates: fates.collect(), met_known_keys: false, all_new }))
    }

    /// Rows of deletes have locked their keys; now they go.
    async fn delete(&self, keys: &[KeyDigest]) -> Result<(), ApplyError> {
        let gone = |row: &Row| self.write.newest(row).operation == Operation::Delete;
        let dead = self.rows.iter().zip(keys).filter(|(row, _)| gone(row));
        let dead: Vec<_> = dead.map(|(row, key)| (*key, self.version(row))).collect();
        tombstone::bury(self.session, self.write, &dead).await?;
        let rows: Vec<&Row> = self.rows.iter().filter(|row| gone(row)).collect();
        delete(self.session, self.write, &rows).await?;
        Ok(())
    }

    fn cells(&self, row: &Row) -> impl Iterator<Item = &[u8]> {
        let newest = self.write.newest(row);
        (0..self.write.columns.len()).map(move |place| self.write.cell(newest, place))
    }

    fn version(&self, row: &Row) -> Version {
        self.write.newest(row).version.unwrap_or_default()
    }
}
