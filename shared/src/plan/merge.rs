//! What becomes of an entity's row: the newest word counts, whole or column by column, whatever the order of arrival.
//!
//! Pure: what is stored and what has come, in; what is to be written, out. The stored versions are text in the row itself:
//! `_version` holds one, `_versions` a JSON object from each version to the columns that it wrote last.

mod columns;
mod versions;

pub use columns::merges_overflow_by_field;

use super::rows::{KeyChanges, RowChange, TableWrite};
use crate::change::{Operation, Version};
use crate::outcome::ChangeOutcome;
use crate::spec::MergeBy;
use versions::ColumnVersions;

/// What is to be done about one row.
#[derive(Debug, PartialEq)]
pub struct MergeDecision {
    /// What becomes of the row.
    pub action: RowAction,
    /// For each column written: what it takes.
    pub columns: Vec<ColumnSource>,
    /// The overflow fields that are written, as a JSON object, where the overflow is merged field by field.
    pub overflow: Option<String>,
    /// The row's new `_version` or `_versions`, where it is put.
    pub versions: String,
    /// The version of a delete that is to be remembered.
    pub tombstone: Option<Version>,
    /// What became of each member.
    pub outcomes: Vec<ChangeOutcome>,
}

/// What becomes of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowAction {
    /// It stays as it is.
    Skip,
    /// It is written.
    Upsert,
    /// It is deleted.
    Delete,
}

/// What a column takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ColumnSource {
    /// It keeps what it has; NULL in a new row.
    Unchanged,
    /// NULL: its value is older than a delete.
    Null,
    /// The value of a change, by its place among the row's members.
    Change(usize),
}

/// The stored version cannot be read: somebody else wrote it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid stored version in {0}; only Millstream may write _version and _versions")]
pub struct InvalidStoredVersion(String);

impl InvalidStoredVersion {
    /// Of a table.
    pub fn of(table: &str) -> Self {
        Self(table.to_owned())
    }
}

/// What the database holds of a key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct StoredState {
    /// The row.
    pub row: StoredRow,
    /// The version of the newest delete that is remembered.
    pub tombstone: Option<Version>,
}

/// The row of a key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum StoredRow {
    /// No row.
    #[default]
    Absent,
    /// A row and its version column; a row without a version is older than any change.
    Present(Option<String>),
}

/// Decides about a row.
///
/// # Errors
/// A version column that the writer has not written.
pub fn decide(
    write: &TableWrite,
    row: &KeyChanges,
    merge: MergeBy,
    stored: &StoredState,
) -> Result<MergeDecision, InvalidStoredVersion> {
    let members = &write.changes[row.changes.clone()];
    let unreadable = || InvalidStoredVersion::of(&write.table.name.unquoted());
    let text = match &stored.row {
        StoredRow::Absent | StoredRow::Present(None) => None,
        StoredRow::Present(Some(text)) => Some(text),
    };
    match merge {
        MergeBy::Row => {
            let version = text.map(|text| Version::parse(text).ok_or_else(unreadable)).transpose()?;
            Ok(decide_row(write, members, version.max(stored.tombstone)))
        }
        MergeBy::Column => {
            let versions = text.map(|text| ColumnVersions::parse(text).ok_or_else(unreadable)).transpose()?;
            Ok(columns::decide(write, members, versions.unwrap_or_default(), stored))
        }
    }
}

fn decide_row(write: &TableWrite, members: &[RowChange], stored: Option<Version>) -> MergeDecision {
    let newest = members.last();
    let version = newest.and_then(|member| member.version);
    let wins = version > stored;
    let mut fates: Vec<ChangeOutcome> = members
        .iter()
        .map(|member| match member.version {
            of_member if of_member == version && wins => ChangeOutcome::Applied,
            of_member if of_member == stored => ChangeOutcome::Duplicate,
            _ => ChangeOutcome::Superseded,
        })
        .collect();
    repeated_are_duplicates(members, &mut fates);
    let deleted = newest.is_some_and(|newest| newest.operation == Operation::Delete);
    MergeDecision {
        action: match (wins, deleted) {
            (false, _) => RowAction::Skip,
            (true, false) => RowAction::Upsert,
            (true, true) => RowAction::Delete,
        },
        columns: vec![ColumnSource::Change(members.len() - 1); write.columns.len()],
        overflow: None,
        versions: version.map(|version| version.to_string()).unwrap_or_default(),
        tombstone: version.filter(|_| wins && deleted),
        outcomes: fates,
    }
}

/// Of changes with the same version only the last is applied.
fn repeated_are_duplicates(members: &[RowChange], fates: &mut [ChangeOutcome]) {
    for (index, pair) in members.windows(2).enumerate() {
        if pair[0].version == pair[1].version {
            fates[index] = ChangeOutcome::Duplicate;
        }
    }
}
