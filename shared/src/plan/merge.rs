//! Merges changes into an entity's row: the newest version wins, by row or by column, whatever the order of arrival.
//!
//! Pure: stored state and new changes in, a decision out. The stored versions are text in the row itself: `_version` holds
//! one version, `_versions` a JSON object that maps each version to the columns it wrote last.

mod columns;
mod versions;

pub use columns::merges_overflow_by_field;

use super::rows::{KeyChanges, RowChange, TableWrite};
use crate::change::{Operation, Version};
use crate::outcome::ChangeOutcome;
use crate::spec::MergeBy;
use versions::ColumnVersions;

/// What to write for one row.
#[derive(Debug, PartialEq)]
pub struct MergeDecision {
    /// What happens to the row.
    pub action: RowAction,
    /// For each written column, the source of its value.
    pub columns: Vec<ColumnSource>,
    /// The overflow fields to write, as a JSON object, if the overflow is merged field by field.
    pub overflow: Option<String>,
    /// The row's new `_version` or `_versions`, if it is written.
    pub versions: String,
    /// The version of a delete that must be recorded.
    pub tombstone: Option<Version>,
    /// The outcome of each change.
    pub outcomes: Vec<ChangeOutcome>,
}

/// What happens to a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowAction {
    /// It stays as it is.
    Skip,
    /// It is written.
    Upsert,
    /// It is deleted.
    Delete,
}

/// The source of a column's value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ColumnSource {
    /// The column is unchanged; NULL in a new row.
    Unchanged,
    /// NULL: the stored value is older than a delete.
    Null,
    /// The value of a change, by its index among the row's changes.
    Change(usize),
}

/// The stored version is invalid: it was not written by Millstream.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid stored version in {0}; only Millstream may write _version and _versions")]
pub struct InvalidStoredVersion(String);

impl InvalidStoredVersion {
    /// The error for a table.
    pub fn for_table(table: &str) -> Self {
        Self(table.to_owned())
    }
}

/// What the database has stored for a key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct StoredState {
    /// The row.
    pub row: StoredRow,
    /// The version of the newest recorded delete.
    pub tombstone: Option<Version>,
}

/// The row of a key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum StoredRow {
    /// No row.
    #[default]
    Absent,
    /// A row and its version column. A row without a version is older than any change.
    Present(Option<String>),
}

/// Decides what to write for a row.
///
/// # Errors
/// Returns an error if the stored version cannot be parsed.
pub fn decide(
    write: &TableWrite,
    row: &KeyChanges,
    merge: MergeBy,
    stored: &StoredState,
) -> Result<MergeDecision, InvalidStoredVersion> {
    let changes = &write.changes[row.changes.clone()];
    let invalid = || InvalidStoredVersion::for_table(&write.table.name.unquoted());
    let text = match &stored.row {
        StoredRow::Absent | StoredRow::Present(None) => None,
        StoredRow::Present(Some(text)) => Some(text),
    };
    match merge {
        MergeBy::Row => {
            let version = text.map(|text| Version::parse(text).ok_or_else(invalid)).transpose()?;
            Ok(decide_row(write, changes, version.max(stored.tombstone)))
        }
        MergeBy::Column => {
            let versions = text.map(|text| ColumnVersions::parse(text).ok_or_else(invalid)).transpose()?;
            Ok(columns::decide(write, changes, versions.unwrap_or_default(), stored))
        }
    }
}

fn decide_row(write: &TableWrite, changes: &[RowChange], stored: Option<Version>) -> MergeDecision {
    let newest = changes.last();
    let version = newest.and_then(|change| change.version);
    let wins = version > stored;
    let mut outcomes: Vec<ChangeOutcome> = changes
        .iter()
        .map(|change| match change.version {
            change_version if change_version == version && wins => ChangeOutcome::Applied,
            change_version if change_version == stored => ChangeOutcome::Duplicate,
            _ => ChangeOutcome::Superseded,
        })
        .collect();
    mark_repeated_as_duplicates(changes, &mut outcomes);
    let deleted = newest.is_some_and(|newest| newest.operation == Operation::Delete);
    MergeDecision {
        action: match (wins, deleted) {
            (false, _) => RowAction::Skip,
            (true, false) => RowAction::Upsert,
            (true, true) => RowAction::Delete,
        },
        columns: vec![ColumnSource::Change(changes.len() - 1); write.column_indexes.len()],
        overflow: None,
        versions: version.map(|version| version.to_string()).unwrap_or_default(),
        tombstone: version.filter(|_| wins && deleted),
        outcomes,
    }
}

/// Of changes with the same version only the last is applied.
fn mark_repeated_as_duplicates(changes: &[RowChange], outcomes: &mut [ChangeOutcome]) {
    for (index, pair) in changes.windows(2).enumerate() {
        if pair[0].version == pair[1].version {
            outcomes[index] = ChangeOutcome::Duplicate;
        }
    }
}
