//! Writes the results where they are documented: the table into docs/benchmarks.md, a summary into README.md. Each page marks
//! with two comments what is replaced; the rest of it is not changed.

use std::path::Path;

use super::line::{Figure, Line, grouped};
use super::machine::Machine;

/// How the lines begin from which the summary takes its figures. What measures them begins its description with these.
pub mod lines {
    /// Appending in Lambda's largest usual batches.
    pub const APPEND: &str = "append, batches of 4,000";
    /// Appending in batches of one size: from that of 1,000 the cost is computed.
    pub const APPEND_SIZE: &str = "append, batches of ";
    /// Merging by `row` or by `column`.
    pub const MERGE: &str = "merge by ";
    /// How soon the slowest function asks for an event.
    pub const START: &str = "process start to first poll";
    /// The largest function's package.
    pub const PACKAGE: &str = "package size";
    /// The memory for one full batch.
    pub const MEMORY: &str = "peak memory, batch of ";
    /// The load of an export.
    pub const LOAD: &str = "load of a 1 GB export";
    /// The memory for that.
    pub const LOAD_MEMORY: &str = "peak memory of that load";
}

/// Why results cannot be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A page cannot be read.
    #[error("reading {file} failed")]
    Read {
        /// The page.
        file: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// A page cannot be written.
    #[error("writing {file} failed")]
    Write {
        /// The page.
        file: &'static str,
        #[source]
        source: std::io::Error,
    },
    /// A page has no marker for what is to be replaced.
    #[error("{file}: the marker {marker} is missing; add it where `make bench` writes its results")]
    NoMarker {
        /// The page.
        file: &'static str,
        /// The comment.
        marker: String,
    },
    /// The summary needs a line that was not measured.
    #[error("the summary in README.md needs the figure of {0:?}, and no result has it")]
    NoLine(String),
}

/// The part of a page between two markers.
struct Section {
    file: &'static str,
    name: &'static str,
}

const TABLE: Section = Section { file: "docs/benchmarks.md", name: "bench" };
const SUMMARY: Section = Section { file: "README.md", name: "bench-summary" };

impl Section {
    fn read(&self, workspace: &Path) -> Result<String, PublishError> {
        let read = std::fs::read_to_string(workspace.join(self.file));
        read.map_err(|source| PublishError::Read { file: self.file, source })
    }

    fn write(&self, workspace: &Path, page: &str) -> Result<(), PublishError> {
        let written = std::fs::write(workspace.join(self.file), page);
        written.map_err(|source| PublishError::Write { file: self.file, source })
    }

    /// The page with other content between the markers.
    fn replace(&self, page: &str, content: &str) -> Result<String, PublishError> {
        let [begin, end] = ["begin", "end"].map(|side| format!("<!-- {}:{side} -->", self.name));
        let missing = |marker: &str| PublishError::NoMarker { file: self.file, marker: marker.to_owned() };
        let (before, rest) = page.split_once(&begin).ok_or_else(|| missing(&begin))?;
        let (_, after) = rest.split_once(&end).ok_or_else(|| missing(&end))?;
        Ok(format!("{before}{begin}\n\n{content}\n\n{end}{after}"))
    }
}

/// Whether the pages are ready, before anything is measured.
///
/// # Errors
/// Returns an error if a page cannot be read, or a marker is missing.
pub fn check(workspace: &Path) -> Result<(), PublishError> {
    for section in [TABLE, SUMMARY] {
        section.replace(&section.read(workspace)?, "")?;
    }
    Ok(())
}

/// Writes all results of one run. No page is written if one of them cannot be.
///
/// # Errors
/// See [`check`]; also if a line that the summary needs is missing.
pub fn publish(workspace: &Path, machine: &Machine, results: &[Line]) -> Result<(), PublishError> {
    let table = TABLE.replace(&TABLE.read(workspace)?, &table(machine, results))?;
    let summary = SUMMARY.replace(&SUMMARY.read(workspace)?, &summary(machine, results)?)?;
    TABLE.write(workspace, &table)?;
    SUMMARY.write(workspace, &summary)
}

/// The head of the table.
pub const HEAD: &str = "| measurement | result | target |\n|---|---|---|";

/// The machine and the table.
fn table(machine: &Machine, results: &[Line]) -> String {
    let lines: Vec<String> = results.iter().map(Line::to_string).collect();
    format!("Measured by `make bench` on {}: {machine}.\n\n{HEAD}\n{}", machine.date, lines.join("\n"))
}

/// Three lines for the README.
fn summary(machine: &Machine, results: &[Line]) -> Result<String, PublishError> {
    let (append, of_copy) = rate_and_ratio(results, lines::APPEND)?;
    let (_, by_row) = rate_and_ratio(results, &format!("{}row", lines::MERGE))?;
    let (_, by_column) = rate_and_ratio(results, &format!("{}column", lines::MERGE))?;
    let (by_thousands, _) = rate_and_ratio(results, &format!("{}1,000", lines::APPEND_SIZE))?;
    let [start, memory, package, load, load_memory] =
        [lines::START, lines::MEMORY, lines::PACKAGE, lines::LOAD, lines::LOAD_MEMORY];
    let seconds = find(results, load, |figure| match figure {
        Figure::Load { seconds, .. } => Some(seconds),
        Figure::Rates { .. } | Figure::Value { .. } => None,
    })?;
    Ok(format!(
        "- **Append:** {} rows/s in batches of 4,000, {of_copy:.2} of text `COPY`; full-row merge {by_row:.2} and column merge \
         {by_column:.2} of a raw upsert ({} cores shared with PostgreSQL {}).\n\
         - **Footprint:** {} from process start to first poll, {} peak for a 6 MB batch, {} package; a 1 GB export loads in \
         {seconds:.0} s within {}.\n\
         - **Cost:** about ${:.4} of Lambda per million events (computed; network, Kinesis, database and logs not included). \
         One machine, one run: measure your own.",
        grouped(append),
        machine.cores,
        machine.postgresql,
        value(results, start)?,
        value(results, memory)?,
        value(results, package)?,
        value(results, load_memory)?,
        dollars_per_million_events(by_thousands),
    ))
}

/// What Lambda costs for a million events in batches of 1,000, each event written as two rows at this rate, on one full core:
/// arm64 in us-east-1 (<https://aws.amazon.com/lambda/pricing/>).
fn dollars_per_million_events(rows_per_second: f64) -> f64 {
    const INVOCATIONS: f64 = 1_000.0;
    const ROWS: f64 = 2_000_000.0;
    /// Lambda gives a full core for 1,769 MB.
    const GIGABYTES: f64 = 1_769.0 / 1_024.0;
    const DOLLARS_PER_INVOCATION: f64 = 0.000_000_2;
    const DOLLARS_PER_GIGABYTE_SECOND: f64 = 0.000_013_333_4;
    let seconds = ROWS / rows_per_second;
    INVOCATIONS * DOLLARS_PER_INVOCATION + seconds * GIGABYTES * DOLLARS_PER_GIGABYTE_SECOND
}

fn rate_and_ratio(results: &[Line], prefix: &str) -> Result<(f64, f64), PublishError> {
    find(results, prefix, |figure| match figure {
        Figure::Rates { ours, raw } => Some((ours, ours / raw)),
        Figure::Load { .. } | Figure::Value { .. } => None,
    })
}

/// A value with its unit, as the table prints it.
fn value(results: &[Line], prefix: &str) -> Result<String, PublishError> {
    find(results, prefix, |figure| match figure {
        Figure::Value { .. } => Some(figure.to_string()),
        Figure::Rates { .. } | Figure::Load { .. } => None,
    })
}

/// Returns what is needed from the figure of the first line that starts with `prefix`.
fn find<T>(results: &[Line], prefix: &str, take: impl Fn(Figure) -> Option<T>) -> Result<T, PublishError> {
    let line = results.iter().find(|line| line.what.starts_with(prefix));
    line.and_then(|line| take(line.figure)).ok_or_else(|| PublishError::NoLine(prefix.to_owned()))
}

#[cfg(test)]
mod tests;
