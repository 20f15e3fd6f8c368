//! The mistakes of a configuration, collected with their places, told all at once.

use std::fmt;
use std::ops::Range;

/// All that is wrong with a configuration.
#[derive(Debug)]
pub struct ConfigErrors {
    file: String,
    /// The byte at which each line begins.
    lines: Vec<usize>,
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
    /// None yet; `text` is the configuration, whose lines the places refer to.
    pub(super) fn new(file: &str, text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { file: file.to_owned(), lines: std::iter::once(0).chain(starts).collect(), list: Vec::new() }
    }

    /// Adds what is wrong with `key`, found at `span`.
    pub(super) fn add(&mut self, span: Range<usize>, key: &str, message: impl Into<String>) {
        let line = self.lines.partition_point(|&start| start <= span.start);
        let column = span.start - self.lines[line - 1] + 1;
        self.list.push(ConfigError { line, column, key: key.to_owned(), message: message.into() });
    }

    /// `value`, if nothing is wrong.
    pub(super) fn or<T>(mut self, value: T) -> Result<T, Self> {
        self.list.sort_by_key(|mistake| (mistake.line, mistake.column));
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
