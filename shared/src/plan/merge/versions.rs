//! The versions of a row's columns, as stored in `_versions`: a JSON object that maps each version to the columns it wrote
//! last.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::catalog::DbColumn;
use crate::change::Version;
use crate::outcome::ChangeOutcome;

/// The version of a column that newer changes left out because it had not changed: any change that carries it wins.
const UNCHANGED: Version = Version { origin: 0, order: i128::MIN + 1, digest: 0 };

/// Marks the path of a field that had no column when it was left out. The stored text cannot change.
const UNCHANGED_PREFIX: &str = "_untold/";

/// The version of each column, and of each field of the overflow. Rows are narrow enough for a linear search.
#[derive(Default)]
pub struct ColumnVersions<'s>(Vec<(Cow<'s, str>, Version)>);

impl<'s> ColumnVersions<'s> {
    /// Parses the output of `Display`. Names without an escape, which is nearly all of them, are borrowed.
    pub fn parse(text: &'s str) -> Option<Self> {
        if let Ok(versions) = serde_json::from_str::<BTreeMap<&str, Vec<&str>>>(text) {
            return Self::collect(versions);
        }
        Self::collect(serde_json::from_str::<BTreeMap<String, Vec<String>>>(text).ok()?)
    }

    fn collect<T: AsRef<str> + Into<Cow<'s, str>>>(stored: BTreeMap<T, Vec<T>>) -> Option<Self> {
        let mut versions = Vec::new();
        for (version, columns) in stored {
            let version = Version::parse(version.as_ref())?;
            versions.extend(columns.into_iter().map(|column| (column.into(), version)));
        }
        Some(Self(versions))
    }

    /// The version of a column, if it is known.
    pub fn get(&self, name: &str) -> Option<Version> {
        self.0.iter().find(|(tracked, _)| tracked == name).map(|(_, version)| *version)
    }

    /// Whether a change carried the column's value, and no delete has removed it since.
    pub fn has_value(&self, name: &str) -> bool {
        self.get(name).is_some_and(|version| version != UNCHANGED)
    }

    /// Whether the column has a version, or was left out of a change before it was created.
    pub fn is_tracked(&self, column: &DbColumn) -> bool {
        let is_marked_path = |tracked: &str| {
            tracked.strip_prefix(UNCHANGED_PREFIX).is_some_and(|path| Some(path) == column.source_path.as_deref())
        };
        self.0.iter().any(|(tracked, _)| *tracked == column.name.as_str() || is_marked_path(tracked))
    }

    /// Records that a change leaves the column out, unless the column is tracked already.
    pub fn mark_unchanged(&mut self, column: &'s DbColumn) {
        if !self.is_tracked(column) {
            self.0.push((column.name.as_str().into(), UNCHANGED));
        }
    }

    /// Records the same for a field that has no column yet.
    pub fn mark_path_unchanged(&mut self, path: &str) {
        let name = format!("{UNCHANGED_PREFIX}{path}");
        if self.get(&name).is_none() {
            self.0.push((name.into(), UNCHANGED));
        }
    }

    /// Drops the versions that are not newer than a delete; returns whether there were any. `key` stands for the row itself.
    pub fn drop_up_to(&mut self, key: &str, floor: Option<Version>) -> bool {
        let is_older = |version: &Version| Some(*version) <= floor && *version != UNCHANGED;
        let cleared = self.0.iter().any(|(_, version)| is_older(version));
        if self.get(key).is_some_and(|version| is_older(&version)) {
            self.0.clear();
        }
        // A change after the delete carried the row but left this column out: its value is still to come.
        self.0.iter_mut().filter(|(_, version)| is_older(version)).for_each(|(_, version)| *version = UNCHANGED);
        cleared
    }

    /// Merges a value of a column or overflow field by its version: keeps the newer version, and returns the outcome.
    pub fn advance(&mut self, name: Cow<'s, str>, version: Option<Version>) -> ChangeOutcome {
        let Some(version) = version else { return ChangeOutcome::Superseded };
        match self.0.iter_mut().find(|(tracked, _)| *tracked == name) {
            Some((_, stored)) if *stored == version => ChangeOutcome::Duplicate,
            Some((_, stored)) if *stored > version => ChangeOutcome::Superseded,
            Some((_, stored)) => {
                *stored = version;
                ChangeOutcome::Applied
            }
            None => {
                self.0.push((name, version));
                ChangeOutcome::Applied
            }
        }
    }
}

/// `{"VERSION": ["column", …], …}`
impl fmt::Display for ColumnVersions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut by_version: BTreeMap<Version, Vec<&str>> = BTreeMap::new();
        for (column, version) in &self.0 {
            by_version.entry(*version).or_default().push(column);
        }
        let entry = |(version, columns): (&Version, &mut Vec<&str>)| {
            columns.sort_unstable();
            // A list of strings is always valid JSON.
            format!("\"{version}\":{}", serde_json::to_string(columns).unwrap_or_default())
        };
        write!(f, "{{{}}}", by_version.iter_mut().map(entry).collect::<Vec<_>>().join(","))
    }
}
