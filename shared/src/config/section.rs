//! A table of the configuration file. Keys are read one by one; keys that were never read are unknown.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigErrors;
use crate::names::Identifier;

/// A section while it is being read.
pub struct Section<'a> {
    /// Key path of the section, for messages.
    path: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
    known_keys: RefCell<Vec<&'static str>>,
    /// Keys with an error of their own: they are not unknown, and are not listed as known.
    rejected_keys: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub fn root(document: &'a Spanned<DeTable<'a>>) -> Self {
        Self {
            path: String::new(),
            span: 0..0,
            table: document.get_ref(),
            known_keys: RefCell::default(),
            rejected_keys: RefCell::default(),
        }
    }

    /// The last step of the section's path.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// Where the section begins in the file.
    pub fn start(&self) -> usize {
        self.span.start
    }

    /// The key path of one of the section's keys.
    pub fn key(&self, key: &str) -> String {
        match (&*self.path, key) {
            ("", key) => key.to_owned(),
            (path, "") => path.to_owned(),
            (path, key) => format!("{path}.{key}"),
        }
    }

    /// Adds an error in a key, at its value or, if the key is missing, at the section.
    pub fn error(&self, errors: &mut ConfigErrors, key: &str, message: impl Into<String>) {
        let span = self.table.get(key).map_or(self.span.clone(), |value| value.span());
        errors.add(span, &self.key(key), message);
    }

    /// The position of a key's value, for messages about it that are found later.
    pub fn position(&self, errors: &ConfigErrors, key: &str) -> String {
        let span = self.table.get(key).map_or(self.span.clone(), |value| value.span());
        errors.position(span, &self.key(key))
    }

    /// The value of a key that has been read.
    pub fn value(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(key)
    }

    /// Whether a key is set to a table.
    pub fn is_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(|value| value.get_ref().is_table())
    }

    fn take(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        let mut known_keys = self.known_keys.borrow_mut();
        if !known_keys.contains(&key) {
            known_keys.push(key);
        }
        self.table.get(key)
    }

    /// Reads a key with `read`, which returns `None` for an invalid value; `expected` describes a valid one.
    pub fn read<T>(
        &self,
        errors: &mut ConfigErrors,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let result = read(value.get_ref());
        if result.is_none() {
            errors.add(value.span(), &self.key(key), format!("must be {expected}"));
        }
        result
    }

    /// Reads a non-empty string.
    pub fn string(&self, errors: &mut ConfigErrors, key: &'static str) -> Option<&'a str> {
        self.read(errors, key, "a non-empty string", |value| value.as_str().filter(|text| !text.is_empty()))
    }

    /// Reads a required string.
    pub fn required(&self, errors: &mut ConfigErrors, key: &'static str, meaning: &str) -> Option<&'a str> {
        if self.table.get(key).is_none() {
            self.take(key);
            errors.add(self.span.clone(), &self.key(key), format!("required: {meaning}"));
            return None;
        }
        self.string(errors, key)
    }

    /// Reads one of several keywords.
    pub fn one_of<T: Copy>(&self, errors: &mut ConfigErrors, key: &'static str, keywords: &[(&str, T)]) -> Option<T> {
        let expected: Vec<_> = keywords.iter().map(|(keyword, _)| format!("\"{keyword}\"")).collect();
        self.read(errors, key, &expected.join(" or "), |value| {
            let text = value.as_str()?;
            keywords.iter().find(|(keyword, _)| *keyword == text).map(|(_, meaning)| *meaning)
        })
    }

    /// Reads a list of strings; empty if the key is missing.
    pub fn string_list(&self, errors: &mut ConfigErrors, key: &'static str) -> Vec<String> {
        let read = |value: &DeValue<'_>| {
            let strings = value.as_array()?.iter().map(|element| element.get_ref().as_str().map(str::to_owned));
            strings.collect::<Option<Vec<_>>>().filter(|strings| !strings.is_empty())
        };
        self.read(errors, key, "a list of strings", read).unwrap_or_default()
    }

    /// Reads a required string or list of strings.
    pub fn string_or_list(&self, errors: &mut ConfigErrors, key: &'static str, meaning: &str) -> Vec<String> {
        if self.table.get(key).is_some_and(|value| value.get_ref().is_array()) {
            return self.string_list(errors, key);
        }
        self.required(errors, key, meaning).map(str::to_owned).into_iter().collect()
    }

    /// Reads an integer in a range.
    pub fn integer(&self, errors: &mut ConfigErrors, key: &'static str, range: Range<u32>) -> Option<u32> {
        let expected = format!("an integer from {} to {}", range.start, range.end - 1);
        self.read(errors, key, &expected, |value| {
            value.as_integer()?.as_str().parse().ok().filter(|number| range.contains(number))
        })
    }

    /// Reads a boolean.
    pub fn boolean(&self, errors: &mut ConfigErrors, key: &'static str) -> Option<bool> {
        self.read(errors, key, "true or false", DeValue::as_bool)
    }

    /// Reads a duration in whole hours, days, weeks or years of 365 days, as microseconds.
    pub fn duration(&self, errors: &mut ConfigErrors, key: &'static str) -> Option<i64> {
        self.read(errors, key, "a duration such as \"90 days\", \"12 hours\", \"2 weeks\" or \"5 years\"", |value| {
            let (count, unit) = value.as_str()?.split_once(' ')?;
            let hours = match unit {
                "hour" | "hours" => 1,
                "day" | "days" => 24,
                "week" | "weeks" => 7 * 24,
                "year" | "years" => 365 * 24,
                _ => return None,
            };
            count
                .parse::<i64>()
                .ok()
                .filter(|count| (1..=1_000_000).contains(count))
                .map(|count| count * hours * 3_600_000_000)
        })
    }

    /// Reads an identifier that PostgreSQL does not truncate.
    pub fn identifier(&self, errors: &mut ConfigErrors, key: &'static str) -> Option<Identifier> {
        self.read(errors, key, "a name of 1 to 63 bytes", |value| Identifier::exact(value.as_str()?))
    }

    /// Reads a nested section.
    pub fn section(&self, errors: &mut ConfigErrors, key: &'static str) -> Option<Section<'a>> {
        let value = self.take(key)?;
        match value.get_ref().as_table() {
            Some(table) => Some(Section {
                path: self.key(key),
                span: value.span(),
                table,
                known_keys: RefCell::default(),
                rejected_keys: RefCell::default(),
            }),
            None => {
                errors.add(value.span(), &self.key(key), "must be a table");
                None
            }
        }
    }

    /// Reads all `[key.NAME]` sections.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(DeValue::Table(table)) = self.take(key).map(Spanned::get_ref) else { return Vec::new() };
        let section = |(name, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let table = value.get_ref().as_table()?;
            let path = format!("{key}.{}", name.get_ref());
            Some(Section {
                path,
                span: name.span(),
                table,
                known_keys: RefCell::default(),
                rejected_keys: RefCell::default(),
            })
        };
        table.iter().filter_map(section).collect()
    }

    /// Returns the entries of a section whose keys are user-defined names.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Spanned<DeValue<'a>>)> {
        self.table.iter().map(|(name, value)| (&**name.get_ref(), value))
    }

    /// Returns the nested section of an entry; `None` if its value is not a table.
    pub fn entry(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Option<Section<'a>> {
        let table = value.get_ref().as_table()?;
        Some(Section {
            path: self.key(name),
            span: value.span(),
            table,
            known_keys: RefCell::default(),
            rejected_keys: RefCell::default(),
        })
    }

    /// Rejects a key, if it is set, for a reason that it does not share with unknown keys.
    pub fn reject_key(&self, errors: &mut ConfigErrors, key: &'static str, reason: &str) {
        if self.table.contains_key(key) {
            self.error(errors, key, reason);
            self.rejected_keys.borrow_mut().push(key);
        }
    }

    /// Rejects every key that was not read.
    pub fn reject_unknown_keys(self, errors: &mut ConfigErrors) {
        let (known_keys, rejected_keys) = (self.known_keys.borrow(), self.rejected_keys.borrow());
        let is_unknown = |name: &str| !known_keys.contains(&name) && !rejected_keys.contains(&name);
        for (name, _) in self.table.iter().filter(|(name, _)| is_unknown(name.get_ref())) {
            let closest = known_keys.iter().min_by_key(|known| edit_distance(known, name.get_ref()));
            let hint = match closest.filter(|known| edit_distance(known, name.get_ref()) <= 2) {
                Some(known) => format!("; did you mean `{known}`?"),
                None => format!("; known keys: {}", known_keys.join(", ")),
            };
            errors.add(name.span(), &self.key(name.get_ref()), format!("unknown key{hint}"));
        }
    }
}

/// Levenshtein distance.
pub fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
