//! Merges a row's changes column by column. A delete is a floor: whatever is not newer is gone, in any order of arrival.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::versions::ColumnVersions;
use super::{ColumnSource, MergeDecision, RowAction, StoredRow, StoredState, mark_repeated_as_duplicates};
use crate::catalog::DbColumn;
use crate::change::{Operation, Version};
use crate::outcome::ChangeOutcome;
use crate::plan::rows::{RowChange, TableWrite};
use crate::spec::{DeleteMode, MergeBy, MissingColumns, OVERFLOW, WriteMode};

/// Marks an overflow field's name in `_versions`, where the overflow is merged field by field.
const OVERFLOW_PREFIX: &str = "_overflow/";

/// The text of a `jsonb` cell follows the cell's length and the format version.
const JSONB_HEADER: usize = 5;

/// Whether the overflow is merged field by field. Changes that carry whole rows carry the whole overflow, too.
pub fn merges_overflow_by_field(write: &TableWrite) -> bool {
    write.write_mode == WriteMode::Merge(MergeBy::Column) && write.missing_columns == MissingColumns::Keep
}

/// Decides what to write for a row whose columns have these versions.
pub fn decide<'s>(
    write: &'s TableWrite,
    changes: &'s [RowChange],
    versions: ColumnVersions<'s>,
    stored: &'s StoredState,
) -> MergeDecision {
    let mut columns = ColumnMerge::new(write, changes, versions, stored);
    // Newest first: of all changes that carry a column, only the newest can win it.
    (0..changes.len()).rev().for_each(|index| columns.merge_change(index));
    columns.decision()
}

/// A row's columns while its changes are merged.
struct ColumnMerge<'s> {
    write: &'s TableWrite,
    changes: &'s [RowChange],
    stored: &'s StoredState,
    /// The newest delete among the changes.
    newest_delete: Option<Version>,
    /// The newest delete, stored or among the changes.
    floor: Option<Version>,
    versions: ColumnVersions<'s>,
    sources: Vec<ColumnSource>,
    /// The overflow's new fields, by their names in `_versions`.
    overflow: BTreeMap<String, &'s str>,
    outcomes: Vec<Option<ChangeOutcome>>,
    /// Whether the row is written even if no column changes.
    row_version_won: bool,
}

impl<'s> ColumnMerge<'s> {
    fn new(
        write: &'s TableWrite,
        changes: &'s [RowChange],
        mut versions: ColumnVersions<'s>,
        stored: &'s StoredState,
    ) -> Self {
        let is_delete =
            |change: &&RowChange| change.operation == Operation::Delete && write.deletes == DeleteMode::Hard;
        let newest_delete = changes.iter().filter(is_delete).filter_map(|change| change.version).max();
        let floor = stored.tombstone.max(newest_delete);
        let name = |written_index: usize| write.table.columns[write.column_indexes[written_index]].name.as_str();
        let cleared = versions.drop_up_to(name(0), floor);
        let mut sources = vec![ColumnSource::Unchanged; write.column_indexes.len()];
        if cleared {
            for (written_index, source) in sources.iter_mut().enumerate().skip(write.key_column_count) {
                if !versions.has_value(name(written_index)) {
                    *source = ColumnSource::Null;
                }
            }
        }
        let outcomes = vec![None; changes.len()];
        let overflow = BTreeMap::new();
        Self {
            write,
            changes,
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

    fn column(&self, written_index: usize) -> &'s DbColumn {
        &self.write.table.columns[self.write.column_indexes[written_index]]
    }

    /// The name that stands for the row itself in `_versions`: the key's first column.
    fn row_name(&self) -> &'s str {
        self.column(0).name.as_str()
    }

    /// Merges all columns of a change.
    fn merge_change(&mut self, index: usize) {
        let change = &self.changes[index];
        if change.version <= self.floor {
            self.outcomes[index] = Some(self.outcome_below_delete(change));
            return;
        }
        if self.write.missing_columns == MissingColumns::SetNull && change.operation == Operation::Put {
            self.merge_row_version(index);
        }
        let row_version = self.versions.get(self.row_name());
        for written_index in self.write.key_column_count..self.write.column_indexes.len() {
            if !self.write.cell(change, written_index).is_empty() {
                self.merge_column(index, written_index, row_version);
            }
        }
    }

    /// The outcome of a change that is not newer than the newest delete.
    fn outcome_below_delete(&self, change: &RowChange) -> ChangeOutcome {
        match change.operation {
            Operation::Delete if change.version == self.stored.tombstone => ChangeOutcome::Duplicate,
            Operation::Delete if change.version == self.floor => ChangeOutcome::Applied,
            Operation::Delete | Operation::Put => ChangeOutcome::Superseded,
        }
    }

    /// A change that carries the whole row has a version for the row itself, kept under the key's first column. The columns
    /// that it leaves out because they had not changed are marked, too.
    fn merge_row_version(&mut self, index: usize) {
        let (write, change) = (self.write, &self.changes[index]);
        let outcome = self.versions.advance(self.row_name().into(), change.version);
        self.row_version_won |= outcome == ChangeOutcome::Applied;
        self.record_outcome(index, outcome);
        for written_index in write.key_column_count..write.column_indexes.len() {
            if write.cell(change, written_index).is_empty() {
                self.versions.mark_unchanged(self.column(written_index));
            }
        }
        write.unchanged_paths(change).iter().for_each(|path| self.versions.mark_path_unchanged(path));
    }

    /// Merges a change's value of one column. `row_version` is that of the newest change that carried the whole row.
    fn merge_column(&mut self, index: usize, written_index: usize, row_version: Option<Version>) {
        let (write, change, column) = (self.write, &self.changes[index], self.column(written_index));
        // The column was created after a newer change had carried the whole row, and was NULL in that change.
        if write.missing_columns == MissingColumns::SetNull
            && change.version < row_version
            && !self.versions.is_tracked(column)
        {
            return self.record_outcome(index, ChangeOutcome::Superseded);
        }
        if merges_overflow_by_field(write) && column.name.as_str() == OVERFLOW {
            return self.merge_overflow(index, write.cell(change, written_index));
        }
        let outcome = self.versions.advance(column.name.as_str().into(), change.version);
        self.record_outcome(index, outcome);
        if outcome == ChangeOutcome::Applied {
            self.sources[written_index] = ColumnSource::Change(index);
        }
    }

    fn merge_overflow(&mut self, index: usize, cell: &'s [u8]) {
        for (name, json) in overflow_fields(cell) {
            let outcome = self.versions.advance(name.clone().into(), self.changes[index].version);
            self.record_outcome(index, outcome);
            if outcome == ChangeOutcome::Applied {
                self.overflow.insert(name, json);
            }
        }
    }

    /// The outcome of a change is the best outcome of its columns.
    fn record_outcome(&mut self, index: usize, outcome: ChangeOutcome) {
        self.outcomes[index] = self.outcomes[index].max(Some(outcome));
    }

    fn decision(mut self) -> MergeDecision {
        let survives = self.survives();
        let is_new = survives && self.stored.row == StoredRow::Absent;
        let tombstone = self.newest_delete.filter(|_| self.newest_delete > self.stored.tombstone);
        let has_new_values =
            is_new || !self.overflow.is_empty() || self.sources.iter().any(|source| *source != ColumnSource::Unchanged);
        let action = match (survives, tombstone) {
            (true, _) if self.row_version_won || has_new_values => RowAction::Upsert,
            (false, Some(_)) => RowAction::Delete,
            (true | false, _) => RowAction::Skip,
        };
        let mut outcomes: Vec<ChangeOutcome> =
            self.outcomes.iter().map(|outcome| outcome.unwrap_or(ChangeOutcome::Duplicate)).collect();
        // A change that carries only the key creates the row, or changes nothing.
        outcomes.last_mut().into_iter().filter(|_| is_new).for_each(|outcome| *outcome = ChangeOutcome::Applied);
        mark_repeated_as_duplicates(self.changes, &mut outcomes);
        // Every change carries the same key.
        self.sources[..self.write.key_column_count].fill(ColumnSource::Change(self.changes.len() - 1));
        MergeDecision {
            action,
            overflow: self.overflow_json(),
            columns: self.sources,
            versions: if action == RowAction::Upsert { self.versions.to_string() } else { "{}".to_owned() },
            tombstone,
            outcomes,
        }
    }

    /// Whether the row exists once all changes are applied.
    fn survives(&self) -> bool {
        let newest = self.changes.last().is_some_and(|change| change.version > self.floor);
        newest
            || match self.write.deletes {
                DeleteMode::Hard => self.versions.get(self.row_name()).is_some(),
                DeleteMode::Never | DeleteMode::Soft => self.stored.row != StoredRow::Absent,
            }
    }

    /// `{"path": value, …}`
    fn overflow_json(&self) -> Option<String> {
        let field = |(name, json): (&String, &&str)| {
            let path = name.strip_prefix(OVERFLOW_PREFIX).unwrap_or(name);
            format!("{}:{json}", serde_json::Value::from(path))
        };
        let fields: Vec<String> = self.overflow.iter().map(field).collect();
        (!fields.is_empty()).then(|| format!("{{{}}}", fields.join(",")))
    }
}

/// The fields of an overflow cell, by their names in `_versions`.
fn overflow_fields(cell: &[u8]) -> Vec<(String, &str)> {
    let json =
        cell.get(JSONB_HEADER..).and_then(|json| serde_json::from_slice::<BTreeMap<String, &RawValue>>(json).ok());
    json.into_iter().flatten().map(|(name, value)| (format!("{OVERFLOW_PREFIX}{name}"), value.get())).collect()
}
