//! What becomes of an entity's row: the newest word counts, whole or column by column, whatever the order of arrival.
//!
//! Pure: what is stored and what has come, in; what is to be written, out. The stored versions are text in the row itself:
//! `_version` holds one, `_versions` a JSON object from each version to the columns that it wrote last.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::rows::{Member, Row, TableWrite};
use crate::catalog::Column;
use crate::change::{Operation, Version};
use crate::spec::{Absent, Deletes, Merge, OVERFLOW, Rule};

/// Parts the overflow column's name from the field's within `_versions`: the overflow is merged field by field.
const OVERFLOW_PREFIX: &str = "_overflow/";

/// A cell's length and `jsonb`'s version stand before its text.
const JSONB_HEADER: usize = 5;

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
            let versions = text.map(|text| parse_versions(text).ok_or_else(unreadable)).transpose()?;
            Ok(decide_columns(write, members, versions.unwrap_or_default(), stored))
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

/// Column by column. A delete is a floor: what is not newer than it is gone, whenever it arrives.
fn decide_columns<'s>(
    write: &'s TableWrite,
    members: &[Member],
    mut versions: Versions<'s>,
    stored: &Stored,
) -> Decision {
    let deletes = |member: &&Member| member.operation == Operation::Delete && write.deletes == Deletes::Hard;
    let deletes = members.iter().filter(deletes);
    let newest_delete = deletes.filter_map(|member| member.version).max();
    let floor = stored.tombstone.max(newest_delete);
    let mut columns = vec![Take::Keep; write.columns.len()];
    let column = |place: usize| &write.table.columns[write.columns[place]];
    let name = |place: usize| column(place).name.as_str();
    let cleared = forget(&mut versions, name(0), floor);
    let told = |place: usize| versions.iter().any(|(column, version)| column == name(place) && *version != UNTOLD);
    if cleared {
        (write.key..write.columns.len()).filter(|&place| !told(place)).for_each(|place| columns[place] = Take::Null);
    }
    let mut fates: Vec<Option<Fate>> = vec![None; members.len()];
    let mut overflow: BTreeMap<String, &str> = BTreeMap::new();
    let mut wins = cleared;
    // From the newest change to the oldest, the first that carries a column offers it; older ones cannot win it any more.
    for (index, member) in members.iter().enumerate().rev() {
        if member.version <= floor {
            let remembered = member.operation == Operation::Delete && member.version == stored.tombstone;
            let buried = member.operation == Operation::Delete && member.version == floor && !remembered;
            fates[index] = Some(if buried {
                Fate::Applied
            } else if remembered {
                Fate::Duplicate
            } else {
                Fate::Superseded
            });
            continue;
        }
        // Where a change tells the whole row, that it does is a word of its own, kept with the key's first column.
        let whole = write.absent == Absent::Null && member.operation == Operation::Put;
        if whole {
            let fate = settle(&mut versions, name(0).into(), member.version);
            wins |= fate == Fate::Applied;
            fates[index] = Some(fate);
            let untold = (write.key..write.columns.len()).filter(|&place| write.cell(member, place).is_empty());
            for place in untold {
                if !knows(&versions, column(place)) {
                    versions.push((name(place).into(), UNTOLD));
                }
            }
            for path in write.untold(member).iter().map(|path| format!("{UNTOLD_PREFIX}{path}")) {
                if !versions.iter().any(|(known, _)| *known == path) {
                    versions.push((path.into(), UNTOLD));
                }
            }
        }
        let row = versions.iter().find(|(column, _)| column == name(0)).map(|(_, version)| *version);
        for place in (write.key..write.columns.len()).filter(|&place| !write.cell(member, place).is_empty()) {
            // A column that was made after a newer change had told the whole row: it told a NULL.
            if write.absent == Absent::Null && member.version < row && !knows(&versions, column(place)) {
                fates[index] = fates[index].max(Some(Fate::Superseded));
                continue;
            }
            if by_field(write) && name(place) == OVERFLOW {
                for (name, json) in overflow_fields(write.cell(member, place)) {
                    let fate = settle(&mut versions, name.clone().into(), member.version);
                    fates[index] = fates[index].max(Some(fate));
                    if fate == Fate::Applied {
                        overflow.insert(name, json);
                    }
                }
            } else {
                let fate = settle(&mut versions, name(place).into(), member.version);
                fates[index] = fates[index].max(Some(fate));
                if fate == Fate::Applied {
                    columns[place] = Take::Of(index);
                }
            }
        }
    }
    let absent = stored.row == StoredRow::Absent;
    let survives = members.last().is_some_and(|member| member.version > floor)
        || (write.deletes == Deletes::Hard && versions.iter().any(|(column, _)| column == name(0)))
        || (write.deletes != Deletes::Hard && !absent);
    let mut fates: Vec<Fate> = fates.into_iter().map(|fate| fate.unwrap_or(Fate::Duplicate)).collect();
    // A change that carries nothing but the key makes the row, or says nothing new.
    if absent
        && survives
        && let Some(fate) = fates.last_mut()
    {
        *fate = Fate::Applied;
    }
    repeated_are_duplicates(members, &mut fates);
    wins |= absent || !overflow.is_empty() || columns.iter().any(|take| *take != Take::Keep);
    let tombstone = newest_delete.filter(|_| newest_delete > stored.tombstone);
    // The key belongs to every change alike.
    columns[..write.key].fill(Take::Of(members.len() - 1));
    let member = |(name, json): (&String, &&str)| {
        let path = name.strip_prefix(OVERFLOW_PREFIX).unwrap_or(name);
        format!("{}:{json}", serde_json::Value::from(path))
    };
    let overflow =
        (!overflow.is_empty()).then(|| format!("{{{}}}", overflow.iter().map(member).collect::<Vec<_>>().join(",")));
    let action = match (survives, tombstone) {
        (true, _) if wins => Action::Put,
        (false, Some(_)) => Action::Delete,
        (true | false, _) => Action::Keep,
    };
    let versions = if action == Action::Put { write_versions(&versions) } else { "{}".to_owned() };
    Decision { action, columns, overflow, versions, tombstone, members: fates }
}

/// Whether the overflow is merged field by field. Where changes tell whole rows, they tell the whole overflow, too.
pub fn by_field(write: &TableWrite) -> bool {
    write.rule == Rule::Merge(Merge::Column) && write.absent == Absent::Keeps
}

/// The version of each column, and of each field of the overflow. Rows are narrow enough to look through.
type Versions<'s> = Vec<(Cow<'s, str>, Version)>;

/// The version of a column that newer changes have left out because it had not changed: any change that tells it wins.
const UNTOLD: Version = Version { era: 0, order: i128::MIN + 1, digest: 0 };

/// Forgets what is not newer than a delete; whether there was anything. `key` stands for the row itself.
fn forget(versions: &mut Versions<'_>, key: &str, floor: Option<Version>) -> bool {
    let older = |version: &Version| Some(*version) <= floor && *version != UNTOLD;
    let cleared = versions.iter().any(|(_, version)| older(version));
    if versions.iter().any(|(column, version)| column == key && older(version)) {
        versions.clear();
    }
    // The row was told anew after the delete, and this column left out: its value is still to come.
    versions.iter_mut().filter(|(_, version)| older(version)).for_each(|(_, version)| *version = UNTOLD);
    cleared
}

/// Parts the path of a field that had no column when it was left out from the names of columns.
const UNTOLD_PREFIX: &str = "_untold/";

/// Whether a version is known of the column, or that it was left out before it was made.
fn knows(versions: &Versions<'_>, column: &Column) -> bool {
    let untold =
        |known: &str| known.strip_prefix(UNTOLD_PREFIX).is_some_and(|path| Some(path) == column.original.as_deref());
    versions.iter().any(|(known, _)| *known == column.name.as_str() || untold(known))
}

/// Offers a column's (or overflow field's) value of a version; tells what becomes of it, and remembers the winner.
fn settle<'s>(versions: &mut Versions<'s>, name: Cow<'s, str>, version: Option<Version>) -> Fate {
    let Some(version) = version else { return Fate::Superseded };
    match versions.iter_mut().find(|(known, _)| *known == name) {
        Some((_, stored)) if *stored == version => Fate::Duplicate,
        Some((_, stored)) if *stored > version => Fate::Superseded,
        Some((_, stored)) => {
            *stored = version;
            Fate::Applied
        }
        None => {
            versions.push((name, version));
            Fate::Applied
        }
    }
}

/// The fields of an overflow cell, each under the name that `_versions` knows it by.
fn overflow_fields(cell: &[u8]) -> Vec<(String, &str)> {
    let json =
        cell.get(JSONB_HEADER..).and_then(|json| serde_json::from_slice::<BTreeMap<String, &RawValue>>(json).ok());
    json.into_iter().flatten().map(|(name, value)| (format!("{OVERFLOW_PREFIX}{name}"), value.get())).collect()
}

/// Reads `{"VERSION": ["column", …], …}`; names without an escape, which is nearly all, are borrowed.
fn parse_versions(text: &str) -> Option<Versions<'_>> {
    if let Ok(plain) = serde_json::from_str::<BTreeMap<&str, Vec<&str>>>(text) {
        return collect_versions(plain);
    }
    collect_versions(serde_json::from_str::<BTreeMap<String, Vec<String>>>(text).ok()?)
}

fn collect_versions<'s, T: AsRef<str> + Into<Cow<'s, str>>>(stored: BTreeMap<T, Vec<T>>) -> Option<Versions<'s>> {
    let mut versions = Versions::new();
    for (version, columns) in stored {
        let version = Version::parse(version.as_ref())?;
        versions.extend(columns.into_iter().map(|column| (column.into(), version)));
    }
    Some(versions)
}

fn write_versions(versions: &Versions<'_>) -> String {
    let mut by_version: BTreeMap<Version, Vec<&str>> = BTreeMap::new();
    for (column, version) in versions {
        by_version.entry(*version).or_default().push(column);
    }
    let member = |(version, columns): (&Version, &mut Vec<&str>)| {
        columns.sort_unstable();
        // A list of texts is always JSON.
        format!("\"{version}\":{}", serde_json::to_string(columns).unwrap_or_default())
    };
    format!("{{{}}}", by_version.iter_mut().map(member).collect::<Vec<_>>().join(","))
}
