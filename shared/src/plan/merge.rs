//! What becomes of an entity's row: the newest word counts, whole or column by column, whatever the order of arrival.
//!
//! Pure: what is stored and what has come, in; what is to be written, out. The stored versions are text in the row itself:
//! `_version` holds one, `_versions` a JSON object from each version to the columns that it wrote last.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::rows::{Member, Row, TableWrite};
use crate::change::Version;
use crate::spec::{Merge, OVERFLOW};

/// Parts the overflow column's name from the field's within `_versions`: the overflow is merged field by field.
const OVERFLOW_PREFIX: &str = "_overflow/";

/// A cell's length and `jsonb`'s version stand before its text.
const JSONB_HEADER: usize = 5;

/// What is to be done about one row.
#[derive(Debug, PartialEq)]
pub struct Decision {
    /// For each column written: the change whose value it takes, by its place among the row's members.
    pub winners: Vec<Option<usize>>,
    /// The overflow fields that are written, as a JSON object.
    pub overflow: Option<String>,
    /// The row's new `_version` or `_versions`; `None` where nothing is written.
    pub versions: Option<String>,
    /// What became of each member.
    pub members: Vec<Fate>,
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

/// What the database holds of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Stored {
    /// No row.
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
    let unreadable = || UnreadableVersion(write.table.name.plain());
    let text = match stored {
        Stored::Absent | Stored::Present(None) => None,
        Stored::Present(Some(text)) => Some(text),
    };
    match merge {
        Merge::Row => {
            let version = text.map(|text| Version::parse(text).ok_or_else(unreadable)).transpose()?;
            Ok(decide_row(write, members, version))
        }
        Merge::Column => {
            let versions = text.map(|text| parse_versions(text).ok_or_else(unreadable)).transpose()?;
            Ok(decide_columns(write, members, versions.unwrap_or_default(), *stored == Stored::Absent))
        }
    }
}

fn decide_row(write: &TableWrite, members: &[Member], stored: Option<Version>) -> Decision {
    let newest = members.last().and_then(|member| member.version);
    let wins = newest > stored;
    let mut fates: Vec<Fate> = members
        .iter()
        .map(|member| match member.version {
            version if version == newest && wins => Fate::Applied,
            version if version == stored => Fate::Duplicate,
            _ => Fate::Superseded,
        })
        .collect();
    repeated_are_duplicates(members, &mut fates);
    Decision {
        winners: vec![wins.then(|| members.len() - 1); write.columns.len()],
        overflow: None,
        versions: newest.filter(|_| wins).map(|version| version.to_string()),
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

fn decide_columns(write: &TableWrite, members: &[Member], mut versions: Versions, new: bool) -> Decision {
    let mut fates: Vec<Option<Fate>> = vec![None; members.len()];
    let mut winners = vec![None; write.columns.len()];
    let mut overflow = BTreeMap::new();
    // From the newest change to the oldest, the first that carries a column offers it; older ones cannot win it any more.
    for (index, member) in members.iter().enumerate().rev() {
        for place in (write.key..write.columns.len()).filter(|&place| !write.cell(member, place).is_empty()) {
            let column = &write.table.columns[write.columns[place]];
            if column.name.as_str() == OVERFLOW {
                for (name, json) in overflow_fields(write.cell(member, place)) {
                    let fate = settle(&mut versions, &name, member.version);
                    fates[index] = fates[index].max(Some(fate));
                    if fate == Fate::Applied {
                        overflow.insert(name, json);
                    }
                }
            } else {
                let fate = settle(&mut versions, column.name.as_str(), member.version);
                fates[index] = fates[index].max(Some(fate));
                winners[place] = (fate == Fate::Applied).then_some(index).or(winners[place]);
            }
        }
    }
    // A change that carries nothing but the key makes the row, or says nothing new.
    let mut fates: Vec<Fate> = fates.into_iter().map(|fate| fate.unwrap_or(Fate::Duplicate)).collect();
    if new && let Some(fate) = fates.last_mut() {
        *fate = Fate::Applied;
    }
    repeated_are_duplicates(members, &mut fates);
    let wins = new || !overflow.is_empty() || winners.iter().any(Option::is_some);
    // The key belongs to every change alike.
    winners[..write.key].fill(Some(members.len() - 1));
    let member = |(name, json): (&String, &&str)| {
        let path = name.strip_prefix(OVERFLOW_PREFIX).unwrap_or(name);
        format!("{}:{json}", serde_json::Value::from(path))
    };
    let overflow =
        (!overflow.is_empty()).then(|| format!("{{{}}}", overflow.iter().map(member).collect::<Vec<_>>().join(",")));
    Decision { winners, overflow, versions: wins.then(|| write_versions(&versions)), members: fates }
}

/// The version of each column, and of each field of the overflow. Rows are narrow enough to look through.
type Versions = Vec<(String, Version)>;

/// Offers a column's (or overflow field's) value of a version; tells what becomes of it, and remembers the winner.
fn settle(versions: &mut Versions, name: &str, version: Option<Version>) -> Fate {
    let Some(version) = version else { return Fate::Superseded };
    match versions.iter_mut().find(|(known, _)| known == name) {
        Some((_, stored)) if *stored == version => Fate::Duplicate,
        Some((_, stored)) if *stored > version => Fate::Superseded,
        Some((_, stored)) => {
            *stored = version;
            Fate::Applied
        }
        None => {
            versions.push((name.to_owned(), version));
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

#[derive(Deserialize)]
struct Written<'a>(#[serde(borrow)] BTreeMap<Cow<'a, str>, Vec<Cow<'a, str>>>);

/// Reads `{"VERSION": ["column", …], …}`.
fn parse_versions(text: &str) -> Option<Versions> {
    let stored: Written<'_> = serde_json::from_str(text).ok()?;
    let mut versions = Versions::new();
    for (version, columns) in stored.0 {
        let version = Version::parse(&version)?;
        versions.extend(columns.into_iter().map(|column| (column.into_owned(), version)));
    }
    Some(versions)
}

fn write_versions(versions: &Versions) -> String {
    let mut by_version: BTreeMap<Version, Vec<&str>> = BTreeMap::new();
    for (column, version) in versions {
        by_version.entry(*version).or_default().push(column);
    }
    let member = |(version, columns): (&Version, &mut Vec<&str>)| {
        columns.sort_unstable();
        format!("\"{version}\":{}", serde_json::Value::from(&**columns))
    };
    format!("{{{}}}", by_version.iter_mut().map(member).collect::<Vec<_>>().join(","))
}
