//! The errors of a configuration, collected with their positions and reported together.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// All errors of a configuration: of its file, and of the files next to it.
#[derive(Debug)]
pub struct ConfigErrors {
    /// The file to which errors are added.
    file: Arc<str>,
    /// Byte offset at which each line begins.
    line_starts: Vec<usize>,
    list: Vec<ConfigError>,
}

#[derive(Debug)]
struct ConfigError {
    file: Arc<str>,
    line: usize,
    column: usize,
    key: String,
    message: String,
}

impl ConfigErrors {
    /// Creates an empty list; `text` is the text of the file, to whose lines the positions refer.
    pub fn new(file: &str, text: &str) -> Self {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(index, _)| index + 1);
        Self { file: file.into(), line_starts: std::iter::once(0).chain(starts).collect(), list: Vec::new() }
    }

    /// The line and the column of a byte offset, from 1.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|&start| start <= offset);
        (line, offset - self.line_starts[line - 1] + 1)
    }

    /// The position of `key`, as in the messages.
    pub fn position(&self, span: Range<usize>, key: &str) -> String {
        let (line, column) = self.line_and_column(span.start);
        format!("{}:{line}:{column}: {key}", self.file)
    }

    /// Adds an error in `key` at `span`.
    pub fn add(&mut self, span: Range<usize>, key: &str, message: impl Into<String>) {
        let (line, column) = self.line_and_column(span.start);
        self.add_at(line, column, key, message);
    }

    /// Adds an error in `key` at a line and a column, from 1.
    pub fn add_at(&mut self, line: usize, column: usize, key: &str, message: impl Into<String>) {
        let (file, key) = (self.file.clone(), key.to_owned());
        self.list.push(ConfigError { file, line, column, key, message: message.into() });
    }

    /// Adds the errors of another file, after those of this one.
    pub fn append(&mut self, mut other: Self) {
        self.sort();
        other.sort();
        self.list.append(&mut other.list);
    }

    /// Sorts the errors of each file by position, and keeps the order of the files.
    fn sort(&mut self) {
        for errors in self.list.chunk_by_mut(|a, b| a.file == b.file) {
            errors.sort_by_key(|error| (error.line, error.column));
        }
    }

    /// Returns `value` if there are no errors.
    ///
    /// # Errors
    /// Returns all errors.
    pub fn or<T>(mut self, value: T) -> Result<T, Self> {
        self.sort();
        if self.list.is_empty() { Ok(value) } else { Err(self) }
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "errors in the configuration ({}):", self.list.len())?;
        for ConfigError { file, line, column, key, message } in &self.list {
            let colon = if key.is_empty() { "" } else { ": " };
            write!(f, "\n  {file}:{line}:{column}: {key}{colon}{message}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_other_files_follow_with_their_own_positions() {
        let mut errors = ConfigErrors::new("millstream.toml", "a\nb");
        errors.add(2..3, "b", "second");
        let mut schema = ConfigErrors::new("schemas/a.json", "{\n}");
        schema.add_at(2, 1, "", "expected a value");
        schema.add(0..1, "", "first");
        errors.append(schema);
        assert_eq!(
            errors.or(()).unwrap_err().to_string(),
            "errors in the configuration (3):\n  millstream.toml:2:1: b: second\n  schemas/a.json:1:1: first\n  \
             schemas/a.json:2:1: expected a value"
        );
    }
}
