//! A transform's file: one SQL query, and a header of comment lines that says what it fills and when it runs. Pure.
//!
//! ```sql
//! -- How fast users are verified, by the day on which they were created.
//! --
//! -- target: warehouse.verification_velocity
//! -- key: day
//! -- changes: warehouse.user_created, warehouse.user_verified
//! -- every: 5 minutes
//! SELECT …
//! ```
//!
//! The header is the comment lines before the query. A line with a name of the header and a colon sets it; any other line is a
//! comment. Names of tables and columns are written as in SQL: folded to lower case unless they are quoted.

use std::time::Duration;

use super::position::line_and_column;
use crate::config::edit_distance;
use crate::names::{Identifier, TableName};

/// The names of a header.
const HEADER: [&str; 9] = ["target", "key", "mode", "full_run", "changes", "depends", "every", "after", "timeout"];

/// Bounds a query whose header sets no timeout.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

/// A schedule or a timeout is at most this long; a longer one is a mistake.
const DURATION_MAX: Duration = Duration::from_secs(366 * 86_400);

/// A transform's name is part of tables, metrics and commands.
const NAME_BYTES_MAX: usize = 63;

/// The longest text that PostgreSQL is sent as one statement without a good reason.
const TEXT_BYTES_MAX: usize = 1024 * 1024;

/// A transform, as its file says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransformFile {
    /// Its name: that of the file, without the ending.
    pub name: String,
    /// The path or address of the file, for messages.
    pub file: String,
    /// The whole text, which is sent to PostgreSQL as it is.
    pub text: String,
    /// Where the query begins, in bytes.
    pub query_start: usize,
    /// The table that it fills.
    pub target: TableName,
    /// Where the header names the target.
    pub target_position: String,
    /// The columns that identify a row of the target; empty if no row is identified.
    pub key: Vec<Identifier>,
    /// What happens to rows of the target that the query does not return.
    pub mode: TargetMode,
    /// The same, in a full run of a query that otherwise returns only what has changed.
    pub full_run: TargetMode,
    /// The tables whose changes it reads.
    pub changes: Vec<TableName>,
    /// The transforms that must run before it.
    pub depends: Vec<Dependency>,
    /// How often it runs.
    pub every: Option<Duration>,
    /// The loads after which it runs.
    pub after: Vec<String>,
    /// Bounds each of its statements.
    pub timeout: Duration,
}

/// What happens to rows of the target that the query does not return.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetMode {
    /// They are deleted: the query returns the whole target.
    Replace,
    /// They stay, unless the query returns their key with `_deleted`.
    Upsert,
}

/// A transform that must run first, as the header names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dependency {
    /// Its name.
    pub name: String,
    /// Where the header names it.
    pub position: String,
}

impl TransformFile {
    /// The position of the query, for errors that PostgreSQL reports without one.
    pub fn query_position(&self) -> String {
        self.position_of(self.query_start)
    }

    /// A position of the text: the file, the line and the column.
    pub fn position_of(&self, byte: usize) -> String {
        position(&self.file, &self.text, byte)
    }
}

fn position(file: &str, text: &str, byte: usize) -> String {
    let (line, column) = line_and_column(text, byte);
    format!("{file}:{line}:{column}")
}

/// Reads a file. `file` is only used in messages.
///
/// # Errors
/// Returns all mistakes of the header, each with its position.
pub fn parse(name: &str, file: &str, text: &str) -> Result<TransformFile, Vec<String>> {
    let mut reader = HeaderReader { file, text, entries: Vec::new(), mistakes: Vec::new() };
    reader.read_entries();
    reader.check_text(name);
    let query_start = reader.query_start();
    let transform = reader.transform(name, query_start);
    match transform {
        Some(transform) if reader.mistakes.is_empty() => Ok(transform),
        Some(_) | None => Err(reader.mistakes),
    }
}

/// A line of the header.
#[derive(Clone, Copy)]
struct HeaderEntry<'t> {
    name: &'static str,
    value: &'t str,
    /// Where the value begins, in bytes.
    start: usize,
}

struct HeaderReader<'t> {
    file: &'t str,
    text: &'t str,
    entries: Vec<HeaderEntry<'t>>,
    mistakes: Vec<String>,
}

impl<'t> HeaderReader<'t> {
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
    schema == crate::names::SYSTEM_SCHEMA || schema == "information_schema" || schema.starts_with("pg_")
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

/// Reads names that are separated by dots, as in SQL; `None` if one of them is none, or PostgreSQL would truncate it.
fn parse_names(text: &str) -> Option<Vec<Identifier>> {
    let mut names = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = parse_name(rest)?;
        names.push(Identifier::exact(&name)?);
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(names),
        }
    }
}

/// The first name of a text, and what follows it.
fn parse_name(text: &str) -> Option<(String, &str)> {
    if let Some(mut rest) = text.strip_prefix('"') {
        let mut name = String::new();
        loop {
            let (part, after) = rest.split_once('"')?;
            name.push_str(part);
            // A doubled quote stands for one.
            match after.strip_prefix('"') {
                Some(next) => {
                    name.push('"');
                    rest = next;
                }
                None => return Some((name, after)),
            }
        }
    }
    let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let end = text.find(|c: char| !is_part(c)).unwrap_or(text.len());
    let (name, after) = text.split_at(end);
    // PostgreSQL folds only ASCII letters in a database with several bytes per character.
    (name.starts_with(|c: char| c.is_alphabetic() || c == '_')).then(|| (name.to_ascii_lowercase(), after))
}

fn parse_duration(text: &str) -> Option<Duration> {
    let (count, unit) = text.split_once(' ')?;
    let seconds = match unit.trim() {
        "minute" | "minutes" => 60,
        "hour" | "hours" => 3_600,
        "day" | "days" => 86_400,
        "week" | "weeks" => 7 * 86_400,
        _ => return None,
    };
    let count: u64 = count.parse().ok()?;
    let duration = Duration::from_secs(count.checked_mul(seconds)?);
    (!duration.is_zero() && duration <= DURATION_MAX).then_some(duration)
}

/// The text without the white space and the comments that it begins with.
fn skip_comments(text: &str) -> &str {
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("--") {
            rest = comment.split_once('\n').map_or("", |(_, after)| after);
        } else if rest.starts_with("/*") {
            rest = skip_block_comment(rest);
        } else {
            return rest;
        }
    }
}

/// The text after the block comment that it begins with. In PostgreSQL, block comments nest.
fn skip_block_comment(text: &str) -> &str {
    let mut depth = 0_usize;
    let mut rest = text;
    loop {
        if let Some(after) = rest.strip_prefix("/*") {
            (depth, rest) = (depth + 1, after);
        } else if let Some(after) = rest.strip_prefix("*/") {
            (depth, rest) = (depth - 1, after);
            if depth == 0 {
                return rest;
            }
        } else {
            let mut characters = rest.chars();
            if characters.next().is_none() {
                return "";
            }
            rest = characters.as_str();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VELOCITY: &str = "-- How fast users are verified.\n--\n-- target: warehouse.velocity\n-- key: day, \"Country\"\n\
        -- changes: Warehouse.user_created, warehouse.\"User, verified\"\n-- every: 5 minutes\n-- after: load.users\n\
        -- depends: users, other\n-- timeout: 1 hour\n/* a /* nested */ comment */\nSELECT 1;\n";

    fn mistakes(text: &str) -> String {
        parse("t", "t.sql", text).map(|_| ()).unwrap_err().join("\n")
    }

    #[test]
    fn a_header_says_what_is_filled_and_when() {
        let transform = parse("velocity", "transforms/velocity.sql", VELOCITY).unwrap();
        let table = |schema: &str, table: &str| TableName::from_catalog(schema, table);
        assert_eq!(transform.target, table("warehouse", "velocity"));
        assert_eq!(transform.key.iter().map(Identifier::as_str).collect::<Vec<_>>(), ["day", "Country"]);
        let changes = [table("warehouse", "user_created"), table("warehouse", "User, verified")];
        assert_eq!((transform.changes.as_slice(), transform.mode), (&changes[..], TargetMode::Upsert));
        assert_eq!((transform.every, transform.timeout), (Some(Duration::from_secs(300)), Duration::from_secs(3_600)));
        assert_eq!(transform.after, ["users"]);
        let depends: Vec<_> = transform.depends.iter().map(|other| (&*other.name, &*other.position)).collect();
        let file = "transforms/velocity.sql";
        assert_eq!(depends, [("users", &*format!("{file}:8:13")), ("other", &*format!("{file}:8:20"))]);
        assert_eq!(transform.query_position(), format!("{file}:11:1"));
        assert!(transform.text[transform.query_start..].starts_with("SELECT 1"));
    }

    #[test]
    fn all_mistakes_are_reported_with_their_position() {
        let text = "-- targt: a.b\n-- key: day,\n-- mode: merge\n-- every: soon\n-- every: 1 day\n-- after: users\n-- note: prose: is fine\nSELECT 1";
        let message = mistakes(text);
        for part in [
            "t.sql:1:3: unknown name `targt` in the header; did you mean `target`?",
            "t.sql:1:1: the header names no target",
            "t.sql:2:13: `` is not the name of a column",
            "t.sql:3:10: `mode` must be `replace` or `upsert`",
            "t.sql:4:11: `every` must be a duration",
            "t.sql:5:3: `every` is set twice",
            "t.sql:6:11: `users` is not a load such as `load.NAME`",
        ] {
            assert!(message.contains(part), "{part} is missing in:\n{message}");
        }
        assert_eq!(message.lines().count(), 7, "{message}");
    }

    #[test]
    fn a_header_must_make_sense() {
        let header = |lines: &str| format!("-- target: a.b\n{lines}\nSELECT 1");
        for (text, part) in [
            (header(""), "nothing runs it"),
            (header("-- every: 1 day\n-- changes: a.c"), "`key` is required"),
            (header("-- every: 1 day\n-- mode: upsert"), "`key` is required"),
            (
                header("-- every: 1 day\n-- changes: a.c\n-- key: k\n-- mode: replace"),
                "would delete all that has not changed",
            ),
            (header("-- every: 1 day\n-- full_run: keep"), "only valid together with `changes`"),
            (header("-- every: 1 day\n-- key: k\n-- changes: A.b"), "cannot read the changes of its own target"),
            (header("-- every: 1 day\n-- key: k, k"), "names something twice"),
            ("-- target: a\n-- every: 1 day\nSELECT 1".to_owned(), "`a` is not a table such as `schema.table`"),
            ("-- target: a.b, a.c\n-- every: 1 day\nSELECT 1".to_owned(), "must be one table"),
            ("-- target: millstream.b\n-- every: 1 day\nSELECT 1".to_owned(), "`millstream` is reserved"),
            ("-- target: a.b\n-- every: 0 days\nSELECT 1".to_owned(), "must be a duration"),
            ("-- target: a.b\n-- every: 1 day\n/* SELECT 1".to_owned(), "holds no query"),
            ("-- target: a.b\n-- every: 1 day\n ; ".to_owned(), "t.sql:3:2: the file holds no query"),
            ("-- target: a.b\n-- every: 1 day\nSELECT '\0'".to_owned(), "t.sql:3:9: the file contains U+0000"),
        ] {
            let message = mistakes(&text);
            assert!(message.contains(part), "{part} is missing in:\n{message}");
        }
        assert!(parse("a b", "a b.sql", &header("-- every: 1 day")).is_err());
    }

    #[test]
    fn names_are_read_as_in_sql() {
        let names = |text: &str| {
            parse_names(text).map(|names| names.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>())
        };
        for (text, expected) in [
            ("a.b", Some(vec!["a", "b"])),
            ("Abc_$1", Some(vec!["abc_$1"])),
            ("\"A.\"\"b\".c", Some(vec!["A.\"b", "c"])),
            ("Ünï", Some(vec!["Ünï"])),
            ("a.", None),
            ("1a", None),
            ("a b", None),
            ("\"a", None),
            ("\"\"", None),
        ] {
            assert_eq!(names(text), expected.map(|names| names.into_iter().map(str::to_owned).collect()), "{text}");
        }
        assert_eq!(names(&"x".repeat(64)), None);
    }
}
