//! The versions of a row's columns, as `_versions` keeps them: a JSON object from each version to the columns that it wrote
//! last.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use crate::catalog::DbColumn;
use crate::change::Version;
use crate::outcome::ChangeOutcome;

/// The version of a column that newer changes have left out because it had not changed: any change that tells it wins.
const UNCHANGED: Version = Version { origin: 0, order: i128::MIN + 1, digest: 0 };

/// Parts the path of a field that had no column when it was left out from the names of columns.
const UNCHANGED_PREFIX: &str = "_untold/";

/// The version of each column, and of each field of the overflow. Rows are narrow enough to look through.
#[derive(Default)]
pub struct ColumnVersions<'s>(Vec<(Cow<'s, str>, Version)>);

impl<'s> ColumnVersions<'s> {
    /// Reads what `Display` writes; names without an escape, which is nearly all, are borrowed.
    pub fn parse(text: &'s str) -> Option<Self> {
        if let Ok(plain) = serde_json::from_str::<BTreeMap<&str, Vec<&str>>>(text) {
            return Self::collect(plain);
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

    /// The version of a column, if one is known.
    pub fn of(&self, name: &str) -> Option<Version> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, version)| *version)
    }

    /// Whether a change has told the column's value, and nothing has left it out since.
    pub fn has_value(&self, name: &str) -> bool {
        self.of(name).is_some_and(|version| version != UNCHANGED)
    }

    /// Whether a version is known of the column, or that it was left out before it was made.
    pub fn is_tracked(&self, column: &DbColumn) -> bool {
        let untold = |known: &str| {
            known.strip_prefix(UNCHANGED_PREFIX).is_some_and(|path| Some(path) == column.source_path.as_deref())
        };
        self.0.iter().any(|(known, _)| *known == column.name.as_str() || untold(known))
    }

    /// Remembers that a change leaves the column out, where nothing is known of it.
    pub fn mark_unchanged(&mut self, column: &'s DbColumn) {
        if !self.is_tracked(column) {
            self.0.push((column.name.as_str().into(), UNCHANGED));
        }
    }

    /// The same of a field that has no column yet.
    pub fn mark_path_unchanged(&mut self, path: &str) {
        let name = format!("{UNCHANGED_PREFIX}{path}");
        if self.of(&name).is_none() {
            self.0.push((name.into(), UNCHANGED));
        }
    }

    /// Forgets what is not newer than a delete; whether there was anything. `key` stands for the row itself.
    pub fn drop_up_to(&mut self, key: &str, floor: Option<Version>) -> bool {
        let older = |version: &Version| Some(*version) <= floor && *version != UNCHANGED;
        let cleared = self.0.iter().any(|(_, version)| older(version));
        if self.of(key).is_some_and(|version| older(&version)) {
            self.0.clear();
        }
        // The row was told anew after the delete, and this column left out: its value is still to come.
        self.0.iter_mut().filter(|(_, version)| older(version)).for_each(|(_, version)| *version = UNCHANGED);
        cleared
    }

    /// Offers a column's (or overflow field's) value of a version; tells what becomes of it, and remembers the winner.
    pub fn advance(&mut self, name: Cow<'s, str>, version: Option<Version>) -> ChangeOutcome {
        let Some(version) = version else { return ChangeOutcome::Superseded };
        match self.0.iter_mut().find(|(known, _)| *known == name) {
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
        let member = |(version, columns): (&Version, &mut Vec<&str>)| {
            columns.sort_unstable();
            // A list of texts is always JSON.
            format!("\"{version}\":{}", serde_json::to_string(columns).unwrap_or_default())
        };
        write!(f, "{{{}}}", by_version.iter_mut().map(member).collect::<Vec<_>>().join(","))
    }
}
