//! What becomes of an entity's row: the newest word counts, whole or column by column, whatever the order of arrival.
//!
//! Pure: what is stored and what has come, in; what is to be written, out. The stored versions are text in the row itself:
//! `_version` holds one, `_versions` a JSON object from each version to the columns that it wrote last.

mod columns;
mod versions;

pub use columns::by_field;

use super::rows::{Member, Row, TableWrite};
use crate::change::{Operation, Version};
use crate::spec::Merge;
use versions::Versions;

/// What is to be done about one row.
#[derive(Debug, PartialEq)]
pub struct Decision {
    /// What becomes of the row.
    pub action: Action,
    /// For each column written: what it takes.
    pub columns: Vec<Take>,
    /// The overflow fields that are written, as a JSON object, where the overflow is merged field by field.
    pub overflow: Option<String>,
    /// The row's new `_version` or `_versions`, where it is put.
    pub versions: String,
    /// The version of a delete that is to be remembered.
    pub tombstone: Option<Version>,
    /// What became of each member.
    pub members: Vec<Fate>,
}

/// What becomes of a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It stays as it is.
    Keep,
    /// It is written.
    Put,
    /// It is deleted.
    Delete,
}

/// What a column takes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Take {
    /// It keeps what it has; NULL in a new row.
    Keep,
    /// NULL: its value is older than a delete.
    Null,
    /// The value of a change, by its place among the row's members.
    Of(usize),
}

/// What became of one change.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fate {
    /// Newer changes say otherwise in all that it says; whether it was there before, nobody can tell any more.
    Superseded,
    /// It was there already.
    Duplicate,
    /// It is in the row.
    Applied,
}

/// The stored version cannot be read: somebody else wrote it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the stored version of a row of {0} cannot be read: the column is the writer's own")]
pub struct UnreadableVersion(String);

impl UnreadableVersion {
    /// Of a table.
    pub fn of(table: &str) -> Self {
        Self(table.to_owned())
    }
}

/// What the database holds of a key.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Stored {
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
pub fn decide(write: &TableWrite, row: &Row, merge: Merge, stored: &Stored) -> Result<Decision, UnreadableVersion> {
    let members = &write.members[row.members.clone()];
    let unreadable = || UnreadableVersion::of(&write.table.name.plain());
    let text = match &stored.row {
        StoredRow::Absent | StoredRow::Present(None) => None,
        StoredRow::Present(Some(text)) => Some(text),
    };
    match merge {
        Merge::Row => {
            let version = text.map(|text| Version::parse(text).ok_or_else(unreadable)).transpose()?;
            Ok(decide_row(write, members, version.max(stored.tombstone)))
        }
        Merge::Column => {
            let versions = text.map(|text| Versions::parse(text).ok_or_else(unreadable)).transpose()?;
            Ok(columns::decide(write, members, versions.unwrap_or_default(), stored))
        }
    }
}

fn decide_row(write: &TableWrite, members: &[Member], stored: Option<Version>) -> Decision {
    let newest = members.last();
    let version = newest.and_then(|member| member.version);
    let wins = version > stored;
    let mut fates: Vec<Fate> = members
        .iter()
        .map(|member| match member.version {
            of_member if of_member == version && wins => Fate::Applied,
            of_member if of_member == stored => Fate::Duplicate,
            _ => Fate::Superseded,
        })
        .collect();
    repeated_are_duplicates(members, &mut fates);
    let deleted = newest.is_some_and(|newest| newest.operation == Operation::Delete);
    Decision {
        action: match (wins, deleted) {
            (false, _) => Action::Keep,
            (true, false) => Action::Put,
            (true, true) => Action::Delete,
        },
        columns: vec![Take::Of(members.len() - 1); write.columns.len()],
        overflow: None,
        versions: version.map(|version| version.to_string()).unwrap_or_default(),
        tombstone: version.filter(|_| wins && deleted),
        members: fates,
    }
}

/// Of changes with the same version only the last is applied.
fn repeated_are_duplicates(members: &[Member], fates: &mut [Fate]) {
    for (index, pair) in members.windows(2).enumerate() {
        if pair[0].version == pair[1].version {
            fates[index] = Fate::Duplicate;
        }
    }
}
