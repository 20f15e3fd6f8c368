//! Reads the header of a transform's file, and collects its mistakes.

use std::time::Duration;

use super::syntax::{parse_duration, parse_names, skip_comments};
use super::{Dependency, TIMEOUT_DEFAULT, TargetMode, TransformFile, position};
use crate::config::edit_distance;
use crate::names::{Identifier, SYSTEM_SCHEMA, TableName};

/// The names of a header.
const HEADER: [&str; 9] = ["target", "key", "mode", "full_run", "changes", "depends", "every", "after", "timeout"];

/// A transform's name is part of tables, metrics and commands.
const NAME_BYTES_MAX: usize = 63;

/// The longest text that PostgreSQL is sent as one statement without a good reason.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// A line of the header.
#[derive(Clone, Copy)]
struct HeaderEntry<'t> {
    name: &'static str,
    value: &'t str,
    /// Where the value begins, in bytes.
    start: usize,
}

/// A file while its header is read.
pub struct HeaderReader<'t> {
    file: &'t str,
    text: &'t str,
    entries: Vec<HeaderEntry<'t>>,
    mistakes: Vec<String>,
}

impl<'t> HeaderReader<'t> {
    /// Starts with nothing read.
    pub fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, entries: Vec::new(), mistakes: Vec::new() }
    }

    /// Reads the header.
    ///
    /// # Errors
    /// Returns all mistakes.
    pub fn read(mut self, name: &str) -> Result<TransformFile, Vec<String>> {
        self.read_entries();
        self.check_text(name);
        let query_start = self.query_start();
        match self.transform(name, query_start) {
            Some(transform) if self.mistakes.is_empty() => Ok(transform),
            Some(_) | None => Err(self.mistakes),
        }
    }

    fn mistake(&mut self, byte: usize, reason: &str) {
        self.mistakes.push(format!("{}: {reason}", position(self.file, self.text, byte)));
    }

    fn read_entries(&mut self) {
        let mut start = 0;
        for line in self.text.split_inclusive('\n') {
            let trimmed = line.trim_start();
            if !trimmed.is_empty() {
                let Some(comment) = trimmed.strip_prefix("--") else { return };
                self.read_comment(comment, start + line.len() - comment.len());
            }
            start += line.len();
        }
    }

    fn read_comment(&mut self, comment: &'t str, start: usize) {
        let Some((name, value)) = comment.split_once(':') else { return };
        let value_start = start + name.len() + 1 + (value.len() - value.trim_start().len());
        let (written, value) = (name.trim(), value.trim());
        let Some(name) = HEADER.into_iter().find(|known| *known == written) else {
            if let Some(known) = misspelt(written) {
                let reason = format!("unknown name `{written}` in the header; did you mean `{known}`?");
                self.mistake(start, &reason);
            }
            return;
        };
        if self.entries.iter().any(|entry| entry.name == name) {
            self.mistake(start, &format!("`{name}` is set twice"));
        } else if value.is_empty() {
            self.mistake(start, &format!("`{name}` has no value"));
        } else {
            self.entries.push(HeaderEntry { name, value, start: value_start });
        }
    }

    fn check_text(&mut self, name: &str) {
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_valid) {
            let reason =
                format!("the file's name must be 1 to {NAME_BYTES_MAX} letters, digits, `_`, `-` and `.`, then `.sql`");
            self.mistake(0, &reason);
        }
        if self.text.len() > TEXT_BYTES_MAX {
            self.mistake(0, &format!("the file has more than {TEXT_BYTES_MAX} bytes"));
        }
        if let Some(byte) = self.text.find('\0') {
            self.mistake(byte, "the file contains U+0000");
        }
    }

    /// Where the query begins.
    fn query_start(&mut self) -> usize {
        let start = self.text.len() - skip_comments(self.text).len();
        if self.text[start..].trim_matches(|c: char| c.is_whitespace() || c == ';').is_empty() {
            self.mistake(start, "the file holds no query");
        }
        start
    }

    fn entry(&self, name: &str) -> Option<HeaderEntry<'t>> {
        self.entries.iter().find(|entry| entry.name == name).copied()
    }

    fn transform(&mut self, name: &str, query_start: usize) -> Option<TransformFile> {
        let target = self.target();
        let key = self.columns("key");
        let changes = self.tables("changes");
        let (mode, full_run) = self.modes(&key, &changes);
        let depends = self.depends();
        let (every, timeout) = (self.duration("every"), self.duration("timeout"));
        let after = self.after();
        let runs = every.is_some() || !after.is_empty() || !depends.is_empty();
        if !runs && self.entry("every").is_none() && self.entry("after").is_none() {
            self.mistake(
                query_start,
                "nothing runs it; set `-- every: 5 minutes`, `-- after: load.NAME` or `-- depends: NAME` in its header",
            );
        }
        let (target, target_position) = target?;
        if let Some(entry) = self.entry("changes").filter(|_| changes.contains(&target)) {
            self.mistake(entry.start, "a transform cannot read the changes of its own target");
        }
        Some(TransformFile {
            name: name.to_owned(),
            file: self.file.to_owned(),
            text: self.text.to_owned(),
            query_start,
            target,
            target_position,
            key,
            mode,
            full_run,
            changes,
            depends,
            every,
            after,
            timeout: timeout.unwrap_or(TIMEOUT_DEFAULT),
        })
    }

    fn target(&mut self) -> Option<(TableName, String)> {
        let Some(entry) = self.entry("target") else {
            self.mistake(0, "the header names no target; add a line such as `-- target: schema.table`");
            return None;
        };
        let tables = self.tables("target");
        if tables.len() > 1 {
            self.mistake(entry.start, "`target` must be one table");
        }
        let position = position(self.file, self.text, entry.start);
        let target = tables.into_iter().next()?;
        if is_reserved(target.schema.as_str()) {
            self.mistake(entry.start, &format!("the schema `{}` is reserved", target.schema.as_str()));
        }
        Some((target, position))
    }

    /// What happens to rows that the query does not return, and in a full run.
    fn modes(&mut self, key: &[Identifier], changes: &[TableName]) -> (TargetMode, TargetMode) {
        let by_default = if changes.is_empty() { TargetMode::Replace } else { TargetMode::Upsert };
        let mode = self.keyword("mode", &[("replace", TargetMode::Replace), ("upsert", TargetMode::Upsert)]);
        let full_run = self.keyword("full_run", &[("replace", TargetMode::Replace), ("keep", TargetMode::Upsert)]);
        let start = |name| self.entry(name).map(|entry| entry.start);
        let (mode_start, full_run_start) = (start("mode"), start("full_run"));
        if let (Some(start), Some(TargetMode::Replace), false) = (mode_start, mode, changes.is_empty()) {
            self.mistake(start, "`replace` would delete all that has not changed; set `upsert`, or remove `changes`");
        }
        if let (Some(start), true) = (full_run_start, changes.is_empty()) {
            self.mistake(start, "only valid together with `changes`");
        }
        let mode = mode.unwrap_or(by_default);
        if mode == TargetMode::Upsert && key.is_empty() && self.entry("key").is_none() {
            let at = start_of(mode_start, self.entry("changes"));
            self.mistake(
                at,
                "`key` is required: the columns that identify a row of the target, by which rows are updated",
            );
        }
        (mode, full_run.unwrap_or(TargetMode::Upsert))
    }

    fn keyword<T: Copy>(&mut self, name: &str, keywords: &[(&str, T)]) -> Option<T> {
        let entry = self.entry(name)?;
        let found = keywords.iter().find(|(keyword, _)| *keyword == entry.value).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let expected: Vec<String> = keywords.iter().map(|(keyword, _)| format!("`{keyword}`")).collect();
            self.mistake(entry.start, &format!("`{name}` must be {}", expected.join(" or ")));
        }
        found
    }

    fn tables(&mut self, name: &str) -> Vec<TableName> {
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let mut tables = Vec::new();
        for item in items(entry) {
            let names = parse_names(item.value);
            let table = names.and_then(|names| <[Identifier; 2]>::try_from(names).ok());
            match table {
                Some([schema, table]) => tables.push(TableName { schema, table }),
                None => {
                    let reason = format!("`{}` is not a table such as `schema.table`", item.value);
                    self.mistake(item.start, &reason);
                }
            }
        }
        self.reject_repeated(entry, &tables);
        tables
    }

    fn columns(&mut self, name: &str) -> Vec<Identifier> {
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let mut columns = Vec::new();
        for item in items(entry) {
            let names = parse_names(item.value);
            match names.and_then(|names| <[Identifier; 1]>::try_from(names).ok()) {
                Some([column]) => columns.push(column),
                None => self.mistake(item.start, &format!("`{}` is not the name of a column", item.value)),
            }
        }
        self.reject_repeated(entry, &columns);
        columns
    }

    fn reject_repeated<T: PartialEq>(&mut self, entry: HeaderEntry<'_>, list: &[T]) {
        if list.iter().enumerate().any(|(index, item)| list[..index].contains(item)) {
            self.mistake(entry.start, &format!("`{}` names something twice", entry.name));
        }
    }

    fn depends(&mut self) -> Vec<Dependency> {
        let Some(entry) = self.entry("depends") else { return Vec::new() };
        let dependency = |item: HeaderEntry<'_>| Dependency {
            name: item.value.to_owned(),
            position: position(self.file, self.text, item.start),
        };
        items(entry).into_iter().map(dependency).collect()
    }

    fn after(&mut self) -> Vec<String> {
        let Some(entry) = self.entry("after") else { return Vec::new() };
        let mut loads = Vec::new();
        for item in items(entry) {
            match item.value.strip_prefix("load.").filter(|load| !load.is_empty()) {
                Some(load) => loads.push(load.to_owned()),
                None => self.mistake(item.start, &format!("`{}` is not a load such as `load.NAME`", item.value)),
            }
        }
        loads
    }

    fn duration(&mut self, name: &str) -> Option<Duration> {
        let entry = self.entry(name)?;
        let duration = parse_duration(entry.value);
        if duration.is_none() {
            let reason = format!("`{name}` must be a duration such as `5 minutes`, `1 hour` or `2 days`");
            self.mistake(entry.start, &reason);
        }
        duration
    }
}

fn start_of(first: Option<usize>, second: Option<HeaderEntry<'_>>) -> usize {
    first.or(second.map(|entry| entry.start)).unwrap_or(0)
}

/// The schemas that hold no table of the owner.
fn is_reserved(schema: &str) -> bool {
    schema == SYSTEM_SCHEMA || schema == "information_schema" || schema.starts_with("pg_")
}

/// The name of the header that a word probably stands for. A short word must be closer: prose has many.
fn misspelt(word: &str) -> Option<&'static str> {
    let lower = word.to_ascii_lowercase().replace(['-', ' '], "_");
    let distance_max = if lower.len() <= 5 { 1 } else { 2 };
    HEADER.into_iter().find(|known| edit_distance(known, &lower) <= distance_max)
}

/// The elements of a list, separated by commas.
fn items(entry: HeaderEntry<'_>) -> Vec<HeaderEntry<'_>> {
    let (mut list, mut start, mut is_quoted) = (Vec::new(), 0, false);
    let item = |range: std::ops::Range<usize>| {
        let text = &entry.value[range.clone()];
        let start = entry.start + range.start + (text.len() - text.trim_start().len());
        HeaderEntry { value: text.trim(), start, ..entry }
    };
    for (index, character) in entry.value.char_indices() {
        match character {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => {
                list.push(item(start..index));
                start = index + 1;
            }
            _ => {}
        }
    }
    list.push(item(start..entry.value.len()));
    list
}
