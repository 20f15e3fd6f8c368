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

mod reader;
mod syntax;

use std::time::Duration;

use super::position::line_and_column;
use crate::names::{Identifier, TableName};
use reader::HeaderReader;

/// Bounds a query whose header sets no timeout.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);

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
    HeaderReader::new(file, text).read(name)
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
}
