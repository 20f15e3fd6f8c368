//! A row's changes, merged column by column. A delete is a floor: what is not newer than it is gone, whenever it arrives.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::versions::ColumnVersions;
use super::{ColumnSource, MergeDecision, RowAction, StoredRow, StoredState, repeated_are_duplicates};
use crate::catalog::DbColumn;
use crate::change::{Operation, Version};
use crate::outcome::ChangeOutcome;
use crate::plan::rows::{RowChange, TableWrite};
use crate::spec::{DeleteMode, MergeBy, MissingColumns, OVERFLOW, WriteMode};

/// Parts the overflow column's name from the field's within `_versions`: the overflow is merged field by field.
const OVERFLOW_PREFIX: &str = "_overflow/";

/// A cell's length and `jsonb`'s version stand before its text.
const JSONB_HEADER: usize = 5;

/// Whether the overflow is merged field by field. Where changes tell whole rows, they tell the whole overflow, too.
pub fn merges_overflow_by_field(write: &TableWrite) -> bool {
    write.write_mode == WriteMode::Merge(MergeBy::Column) && write.absent == MissingColumns::Keep
}

/// Decides about a row whose columns have these versions.
pub fn decide<'s>(
    write: &'s TableWrite,
    members: &'s [RowChange],
    versions: ColumnVersions<'s>,
    stored: &'s StoredState,
) -> MergeDecision {
    let mut columns = ColumnMerge::new(write, members, versions, stored);
    // From the newest change to the oldest, the first that carries a column offers it; older ones cannot win it any more.
    (0..members.len()).rev().for_each(|index| columns.merge_change(index));
    columns.decision()
}

/// A row's columns while its changes are offered to them.
struct ColumnMerge<'s> {
    write: &'s TableWrite,
    members: &'s [RowChange],
    stored: &'s StoredState,
    /// The newest delete among the changes.
    newest_delete: Option<Version>,
    /// The newest delete of all.
    floor: Option<Version>,
    versions: ColumnVersions<'s>,
    sources: Vec<ColumnSource>,
    /// The overflow's new fields, by the names that `_versions` knows them by.
    overflow: BTreeMap<String, &'s str>,
    outcomes: Vec<Option<ChangeOutcome>>,
    /// Whether the row is written even if no column takes anything.
    row_version_won: bool,
}

impl<'s> ColumnMerge<'s> {
    fn new(
        write: &'s TableWrite,
        members: &'s [RowChange],
        mut versions: ColumnVersions<'s>,
        stored: &'s StoredState,
    ) -> Self {
        let deletes = |member: &&RowChange| member.operation == Operation::Delete && write.deletes == DeleteMode::Hard;
        let newest_delete = members.iter().filter(deletes).filter_map(|member| member.version).max();
        let floor = stored.tombstone.max(newest_delete);
        let name = |place: usize| write.table.columns[write.columns[place]].name.as_str();
        let cleared = versions.drop_up_to(name(0), floor);
        let mut sources = vec![ColumnSource::Unchanged; write.columns.len()];
        if cleared {
            let gone = (write.key..write.columns.len()).filter(|&place| !versions.has_value(name(place)));
            gone.for_each(|place| sources[place] = ColumnSource::Null);
        }
        let outcomes = vec![None; members.len()];
        let overflow = BTreeMap::new();
        Self {
            write,
            members,
            stored,
            newest_delete,
            floor,
            versions,
            sources,
            overflow,
            outcomes,
            row_version_won: cleared,
        }
    }

    fn column(&self, place: usize) -> &'s DbColumn {
        &self.write.table.columns[self.write.columns[place]]
    }

    /// What stands in `_versions` for the row itself: the key's first column.
    fn row(&self) -> &'s str {
        self.column(0).name.as_str()
    }

    /// Offers what a change carries.
    fn merge_change(&mut self, index: usize) {
        let member = &self.members[index];
        if member.version <= self.floor {
            self.outcomes[index] = Some(self.outcome_below_delete(member));
            return;
        }
        if self.write.absent == MissingColumns::SetNull && member.operation == Operation::Put {
            self.merge_row_version(index);
        }
        let row = self.versions.of(self.row());
        for place in self.write.key..self.write.columns.len() {
            if !self.write.cell(member, place).is_empty() {
                self.merge_column(index, place, row);
            }
        }
    }

    /// The fate of a change that is not newer than the newest delete.
    fn outcome_below_delete(&self, member: &RowChange) -> ChangeOutcome {
        match member.operation {
            Operation::Delete if member.version == self.stored.tombstone => ChangeOutcome::Duplicate,
            Operation::Delete if member.version == self.floor => ChangeOutcome::Applied,
            Operation::Delete | Operation::Put => ChangeOutcome::Superseded,
        }
    }

    /// Where a change tells the whole row, that it does is a word of its own, kept with the key's first column; and so are
    /// the columns that it leaves out because they had not changed.
    fn merge_row_version(&mut self, index: usize) {
        let (write, member) = (self.write, &self.members[index]);
        let fate = self.versions.advance(self.row().into(), member.version);
        self.row_version_won |= fate == ChangeOutcome::Applied;
        self.record_outcome(index, fate);
        for place in (write.key..write.columns.len()).filter(|&place| write.cell(member, place).is_empty()) {
            self.versions.mark_unchanged(self.column(place));
        }
        write.unchanged_paths(member).iter().for_each(|path| self.versions.mark_path_unchanged(path));
    }

    /// Offers a change's value of one column; `row` is the version of the newest change that has told the whole row.
    fn merge_column(&mut self, index: usize, place: usize, row: Option<Version>) {
        let (write, member, column) = (self.write, &self.members[index], self.column(place));
        // A column that was made after a newer change had told the whole row: it told a NULL.
        if write.absent == MissingColumns::SetNull && member.version < row && !self.versions.is_tracked(column) {
            return self.record_outcome(index, ChangeOutcome::Superseded);
        }
        if merges_overflow_by_field(write) && column.name.as_str() == OVERFLOW {
            return self.merge_overflow(index, write.cell(member, place));
        }
        let fate = self.versions.advance(column.name.as_str().into(), member.version);
        self.record_outcome(index, fate);
        if fate == ChangeOutcome::Applied {
            self.sources[place] = ColumnSource::Change(index);
        }
    }

    fn merge_overflow(&mut self, index: usize, cell: &'s [u8]) {
        for (name, json) in overflow_fields(cell) {
            let fate = self.versions.advance(name.clone().into(), self.members[index].version);
            self.record_outcome(index, fate);
            if fate == ChangeOutcome::Applied {
                self.overflow.insert(name, json);
            }
        }
    }

    /// A change's fate is the best that any of its columns has.
    fn record_outcome(&mut self, index: usize, fate: ChangeOutcome) {
        self.outcomes[index] = self.outcomes[index].max(Some(fate));
    }

    fn decision(mut self) -> MergeDecision {
        let survives = self.survives();
        let is_new = survives && self.stored.row == StoredRow::Absent;
        let tombstone = self.newest_delete.filter(|_| self.newest_delete > self.stored.tombstone);
        let changes =
            is_new || !self.overflow.is_empty() || self.sources.iter().any(|take| *take != ColumnSource::Unchanged);
        let action = match (survives, tombstone) {
            (true, _) if self.row_version_won || changes => RowAction::Upsert,
            (false, Some(_)) => RowAction::Delete,
            (true | false, _) => RowAction::Skip,
        };
        let mut members: Vec<ChangeOutcome> =
            self.outcomes.iter().map(|fate| fate.unwrap_or(ChangeOutcome::Duplicate)).collect();
        // A change that carries nothing but the key makes the row, or says nothing new.
        members.last_mut().into_iter().filter(|_| is_new).for_each(|fate| *fate = ChangeOutcome::Applied);
        repeated_are_duplicates(self.members, &mut members);
        // The key belongs to every change alike.
        self.sources[..self.write.key].fill(ColumnSource::Change(self.members.len() - 1));
        MergeDecision {
            action,
            overflow: self.overflow_json(),
            columns: self.sources,
            versions: if action == RowAction::Upsert { self.versions.to_string() } else { "{}".to_owned() },
            tombstone,
            outcomes: members,
        }
    }

    /// Whether there is a row once all changes are applied.
    fn survives(&self) -> bool {
        let newest = self.members.last().is_some_and(|member| member.version > self.floor);
        newest
            || match self.write.deletes {
                DeleteMode::Hard => self.versions.of(self.row()).is_some(),
                DeleteMode::Never | DeleteMode::Soft => self.stored.row != StoredRow::Absent,
            }
    }

    /// `{"path": value, …}`
    fn overflow_json(&self) -> Option<String> {
        let member = |(name, json): (&String, &&str)| {
            let path = name.strip_prefix(OVERFLOW_PREFIX).unwrap_or(name);
            format!("{}:{json}", serde_json::Value::from(path))
        };
        let members: Vec<String> = self.overflow.iter().map(member).collect();
        (!members.is_empty()).then(|| format!("{{{}}}", members.join(",")))
    }
}

/// The fields of an overflow cell, each under the name that `_versions` knows it by.
fn overflow_fields(cell: &[u8]) -> Vec<(String, &str)> {
    let json =
        cell.get(JSONB_HEADER..).and_then(|json| serde_json::from_slice::<BTreeMap<String, &RawValue>>(json).ok());
    json.into_iter().flatten().map(|(name, value)| (format!("{OVERFLOW_PREFIX}{name}"), value.get())).collect()
}
