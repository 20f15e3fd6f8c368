//! The errors of a configuration, collected with their positions and reported together.

use std::fmt;
use std::ops::Range;

/// All errors of a configuration.
#[derive(Debug)]
pub struct ConfigErrors {
    file: String,
    /// Byte offset at which each line begins.
    line_starts: Vec<usize>,
    list: Vec<ConfigError>,
}

#[derive(Debug)]
struct ConfigError {
    line: usize,
    column: usize,
    key: String,
    message: String,
}

impl ConfigErrors {
    /// Creates an empty list; `text` is the configuration, to whose lines the positions refer.
    pub(super) fn new(file: &str, text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
        Self { file: file.to_owned(), line_starts: std::iter::once(0).chain(starts).collect(), list: Vec::new() }
    }

    /// The line and the column of a byte offset, from 1.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|&start| start <= offset);
        (line, offset - self.line_starts[line - 1] + 1)
    }

    /// The position of `key`, as in the messages.
    pub(super) fn position(&self, span: Range<usize>, key: &str) -> String {
        let (line, column) = self.line_and_column(span.start);
        format!("{}:{line}:{column}: {key}", self.file)
    }

    /// Adds an error in `key` at `span`.
    pub(super) fn add(&mut self, span: Range<usize>, key: &str, message: impl Into<String>) {
        let (line, column) = self.line_and_column(span.start);
        self.list.push(ConfigError { line, column, key: key.to_owned(), message: message.into() });
    }

    /// Returns `value` if there are no errors.
    pub(super) fn or<T>(mut self, value: T) -> Result<T, Self> {
        self.list.sort_by_key(|error| (error.line, error.column));
        if self.list.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errors in the configuration ({}):", self.list.len())?;
        for ConfigError { line, column, key, message } in &self.list {
            let colon = if key.is_empty() { "" } else { ": " };
            write!(f, "\n  {}:{line}:{column}: {key}{colon}{message}", self.file)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
