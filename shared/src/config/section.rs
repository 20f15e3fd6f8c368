//! A table of the configuration's text, from which keys are taken one by one; what is left over is unknown.

use std::cell::RefCell;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::ConfigErrors;
use crate::names::Identifier;

/// A section while it is being read.
pub struct Section<'a> {
    /// The key path of the section, for messages.
    path: String,
    span: Range<usize>,
    table: &'a DeTable<'a>,
    known_keys: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub fn root(document: &'a Spanned<DeTable<'a>>) -> Self {
        Self { path: String::new(), span: 0..0, table: document.get_ref(), known_keys: RefCell::default() }
    }

    /// The last step of the section's path.
    pub fn name(&self) -> &str {
        self.path.rsplit('.').next().unwrap_or_default()
    }

    /// The key path of one of the section's keys.
    pub fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Adds a mistake about a key, at its value or, if it is missing, at the section.
    pub fn error(&self, mistakes: &mut ConfigErrors, key: &str, message: impl Into<String>) {
        let span = self.table.get(key).map_or(self.span.clone(), |value| value.span());
        mistakes.add(span, &self.key(key), message);
    }

    fn take(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known_keys.borrow_mut().push(key);
        self.table.get(key)
    }

    /// Takes a key that must hold what `read` understands; `wanted` says what that is.
    pub fn read<T>(
        &self,
        mistakes: &mut ConfigErrors,
        key: &'static str,
        wanted: &str,
        read: impl FnOnce(&'a DeValue<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let found = read(value.get_ref());
        if found.is_none() {
            mistakes.add(value.span(), &self.key(key), format!("must be {wanted}"));
        }
        found
    }

    /// Takes a text.
    pub fn string(&self, mistakes: &mut ConfigErrors, key: &'static str) -> Option<&'a str> {
        self.read(mistakes, key, "a non-empty string", |value| value.as_str().filter(|text| !text.is_empty()))
    }

    /// Takes a text that must be there.
    pub fn required(&self, mistakes: &mut ConfigErrors, key: &'static str, meaning: &str) -> Option<&'a str> {
        if self.table.get(key).is_none() {
            self.take(key);
            mistakes.add(self.span.clone(), &self.key(key), format!("required: {meaning}"));
            return None;
        }
        self.string(mistakes, key)
    }

    /// Takes one of several words.
    pub fn one_of<T: Copy>(&self, mistakes: &mut ConfigErrors, key: &'static str, words: &[(&str, T)]) -> Option<T> {
        let wanted: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        self.read(mistakes, key, &wanted.join(" or "), |value| {
            let text = value.as_str()?;
            words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning)
        })
    }

    /// Takes a list of texts; empty where the key is missing.
    pub fn string_list(&self, mistakes: &mut ConfigErrors, key: &'static str) -> Vec<String> {
        let read = |value: &DeValue<'_>| {
            let texts = value.as_array()?.iter().map(|element| element.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<Vec<_>>>().filter(|texts| !texts.is_empty())
        };
        self.read(mistakes, key, "a list of strings", read).unwrap_or_default()
    }

    /// Takes a text or a list of texts that must be there.
    pub fn string_or_list(&self, mistakes: &mut ConfigErrors, key: &'static str, meaning: &str) -> Vec<String> {
        if self.table.get(key).is_some_and(|value| value.get_ref().is_array()) {
            return self.string_list(mistakes, key);
        }
        self.required(mistakes, key, meaning).map(str::to_owned).into_iter().collect()
    }

    /// Takes a whole number in a range.
    pub fn integer(&self, mistakes: &mut ConfigErrors, key: &'static str, range: Range<u32>) -> Option<u32> {
        let wanted = format!("an integer from {} to {}", range.start, range.end - 1);
        self.read(mistakes, key, &wanted, |value| {
            value.as_integer()?.as_str().parse().ok().filter(|number| range.contains(number))
        })
    }

    /// Takes true or false.
    pub fn boolean(&self, mistakes: &mut ConfigErrors, key: &'static str) -> Option<bool> {
        self.read(mistakes, key, "true or false", DeValue::as_bool)
    }

    /// Takes a duration in whole hours, days or weeks, as microseconds.
    pub fn duration(&self, mistakes: &mut ConfigErrors, key: &'static str) -> Option<i64> {
        self.read(mistakes, key, "a duration such as \"90 days\", \"12 hours\" or \"2 weeks\"", |value| {
            let (count, unit) = value.as_str()?.split_once(' ')?;
            let hours = match unit {
                "hour" | "hours" => 1,
                "day" | "days" => 24,
                "week" | "weeks" => 7 * 24,
                _ => return None,
            };
            count
                .parse::<i64>()
                .ok()
                .filter(|count| (1..=1_000_000).contains(count))
                .map(|count| count * hours * 3_600_000_000)
        })
    }

    /// Takes an identifier that PostgreSQL holds uncut.
    pub fn identifier(&self, mistakes: &mut ConfigErrors, key: &'static str) -> Option<Identifier> {
        self.read(mistakes, key, "a name of 1 to 63 bytes", |value| Identifier::exact(value.as_str()?))
    }

    /// Takes a section within this one.
    pub fn section(&self, mistakes: &mut ConfigErrors, key: &'static str) -> Option<Section<'a>> {
        let value = self.take(key)?;
        match value.get_ref().as_table() {
            Some(table) => {
                Some(Section { path: self.key(key), span: value.span(), table, known_keys: RefCell::default() })
            }
            None => {
                mistakes.add(value.span(), &self.key(key), "must be a table");
                None
            }
        }
    }

    /// Takes all `[key.NAME]` sections.
    pub fn sections(&mut self, key: &'static str) -> Vec<Section<'a>> {
        let Some(DeValue::Table(table)) = self.take(key).map(Spanned::get_ref) else { return Vec::new() };
        let section = |(name, value): (&'a Spanned<_>, &'a Spanned<DeValue<'a>>)| {
            let table = value.get_ref().as_table()?;
            let path = format!("{key}.{}", name.get_ref());
            Some(Section { path, span: name.span(), table, known_keys: RefCell::default() })
        };
        table.iter().filter_map(section).collect()
    }

    /// Takes every entry of a section whose keys are the owner's: the name, and its value as a section of one key.
    pub fn entries(&self) -> impl Iterator<Item = (&'a str, &'a Spanned<DeValue<'a>>)> {
        self.table.iter().map(|(name, value)| (&**name.get_ref(), value))
    }

    /// The section that an entry holds.
    pub fn entry(&self, name: &str, value: &'a Spanned<DeValue<'a>>) -> Option<Section<'a>> {
        let table = value.get_ref().as_table()?;
        Some(Section { path: self.key(name), span: value.span(), table, known_keys: RefCell::default() })
    }

    /// Ends the reading: whatever was not taken is unknown.
    pub fn reject_unknown_keys(self, mistakes: &mut ConfigErrors) {
        let taken = self.known_keys.borrow();
        for (name, _) in self.table.iter().filter(|(name, _)| !taken.contains(&&**name.get_ref())) {
            let closest = taken.iter().min_by_key(|known| distance(known, name.get_ref()));
            let hint = match closest.filter(|known| distance(known, name.get_ref()) <= 2) {
                Some(known) => format!("; did you mean `{known}`?"),
                None => format!("; known keys: {}", taken.join(", ")),
            };
            mistakes.add(name.span(), &self.key(name.get_ref()), format!("unknown key{hint}"));
        }
    }
}

/// How many letters differ (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
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
