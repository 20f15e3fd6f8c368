//! The result of a replay, short enough to be read.

use std::fmt;
use std::time::Duration;

use super::detect::Layout;
use super::rejections::{RejectedDocument, Rejections};
use super::tables::TableContent;
use crate::system::{Reported, SystemResult};

/// The number of tables shown with their columns and rows.
pub const TABLES_MAX: usize = 20;
const COLUMNS_MAX: usize = 100;
const ROW_CHARACTERS_MAX: usize = 400;
const LINE_CHARACTERS: usize = 100;

/// The result of a replay.
#[derive(Clone, PartialEq, Debug)]
pub struct Summary {
    /// The layout of the documents in the file.
    pub layout: Layout,
    /// Documents read, including those that are too long.
    pub documents: u64,
    /// Lines without a document.
    pub blank_lines: u64,
    /// Documents larger than a stream takes by default.
    pub large_documents: u64,
    /// Whether the file ends within an array or a document.
    pub is_truncated: bool,
    /// The function's response to a Lambda event.
    pub answer: Option<String>,
    /// What the function reported.
    pub reported: Reported,
    /// What was rejected.
    pub rejections: Rejections,
    /// The tables with their rows.
    pub tables: Vec<TableContent>,
    /// From the first document to the last commit.
    pub time: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for table in self.tables.iter().take(TABLES_MAX) {
            write_table(f, table)?;
        }
        if self.tables.len() > TABLES_MAX {
            writeln!(f, "{} more tables:", self.tables.len() - TABLES_MAX)?;
            let named = self.tables.iter().skip(TABLES_MAX).take(COLUMNS_MAX);
            write_list(f, named.map(|table| format!("{} ({})", table.name, thousands(table.rows.unsigned_abs()))))?;
            write_more(f, "  ", self.tables.len(), TABLES_MAX + COLUMNS_MAX)?;
            writeln!(f)?;
        }
        if let Some(answer) = &self.answer {
            writeln!(f, "Answer: {}", shortened(answer))?;
        }
        if self.documents > 0 {
            self.write_counts(f)?;
        }
        self.write_notes(f)?;
        for document in &self.rejections.first {
            writeln!(f, "  {}", self.format_rejection(document))?;
        }
        let shown = self.rejections.first.len();
        write_more(f, "  ", usize::try_from(self.rejections.count).unwrap_or(usize::MAX), shown)
    }
}

impl Summary {
    /// Nothing has been read yet.
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            documents: 0,
            blank_lines: 0,
            large_documents: 0,
            is_truncated: false,
            answer: None,
            reported: Reported::default(),
            rejections: Rejections::default(),
            tables: Vec::new(),
            time: Duration::ZERO,
        }
    }

    /// Checks that every document has an outcome. If a line holds several documents, there are more outcomes.
    ///
    /// # Errors
    /// Returns an error with the number of documents without an outcome.
    pub fn check_account(&self) -> SystemResult<()> {
        let rejected_unsent = self.rejections.count.saturating_sub(self.reported.dead_lettered);
        let missing = self.documents.saturating_sub(self.reported.records() + rejected_unsent);
        if missing > 0 {
            return Err(
                format!("{} of the file's {}s have no outcome: this is a bug", missing, self.layout.unit()).into()
            );
        }
        Ok(())
    }

    /// `1,000 lines in 0.3 s: 990 written, 7 duplicates, 3 rejected`
    fn write_counts(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Reported { applied, duplicate, superseded, expired, dead_lettered: _, control, rows } = self.reported;
        let documents = count(self.documents, self.layout.unit());
        write!(f, "{documents} in {:.1} s: {} written", self.time.as_secs_f64(), thousands(applied))?;
        if applied > 0 {
            write!(f, " ({} inserted or updated)", count(rows, "row"))?;
        }
        for (number, outcome) in [
            (duplicate, "already there"),
            (superseded, "older than the row"),
            (expired, "older than the table keeps"),
            (control, "without a row"),
        ] {
            if number > 0 {
                write!(f, ", {} {outcome}", thousands(number))?;
            }
        }
        write!(f, ", {} rejected", thousands(self.rejections.count))?;
        if self.blank_lines > 0 {
            write!(f, "; {} skipped", count(self.blank_lines, "blank line"))?;
        }
        writeln!(f)
    }

    fn write_notes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.layout.unit();
        if self.is_truncated {
            let open = if self.layout == Layout::Array { "its array" } else { "a document" };
            writeln!(f, "  The file ends within {open}: it may be truncated.")?;
        }
        if self.large_documents > 0 {
            let (large, verb) =
                (count(self.large_documents, unit), if self.large_documents == 1 { "is" } else { "are" });
            writeln!(
                f,
                "  {large} {verb} larger than 1 MiB: raise the Kinesis stream's MaxRecordSizeInKiB for such records."
            )?;
        }
        Ok(())
    }

    fn format_rejection(&self, document: &RejectedDocument) -> String {
        let RejectedDocument { number, sub_number, table, reason } = document;
        let within = if *sub_number > 0 { format!(" (document {})", sub_number + 1) } else { String::new() };
        let table = table.as_ref().map(|table| format!("{table}: ")).unwrap_or_default();
        shortened(&format!("{} {number}{within}: {table}{reason}", self.layout.unit()))
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, table: &TableContent) -> fmt::Result {
    writeln!(f, "Table {}: {}", table.name, count(table.rows.unsigned_abs(), "row"))?;
    let columns = table.columns.iter().take(COLUMNS_MAX);
    write_list(f, columns.map(|(name, sql_type)| format!("{name} {sql_type}")))?;
    write_more(f, "  ", table.columns.len(), COLUMNS_MAX)?;
    for row in &table.first_rows {
        writeln!(f, "    {}", shortened(row))?;
    }
    write_more(f, "    ", usize::try_from(table.rows).unwrap_or(usize::MAX), table.first_rows.len())?;
    writeln!(f)
}

/// Says how many are not shown.
fn write_more(f: &mut fmt::Formatter<'_>, indent: &str, all: usize, shown: usize) -> fmt::Result {
    match all.saturating_sub(shown) {
        0 => Ok(()),
        more => writeln!(f, "{indent}… and {} more", thousands(more as u64)),
    }
}

/// Items with commas between them, in lines that fit a terminal.
fn write_list(f: &mut fmt::Formatter<'_>, items: impl Iterator<Item = String>) -> fmt::Result {
    let mut line = String::new();
    for item in items {
        let characters = line.chars().count() + item.chars().count() + 2;
        if !line.is_empty() && characters + 2 > LINE_CHARACTERS {
            writeln!(f, "  {line},")?;
            line.clear();
        }
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(&item);
    }
    if line.is_empty() { Ok(()) } else { writeln!(f, "  {line}") }
}

/// One line, truncated if it is long.
fn shortened(text: &str) -> String {
    let text = text.replace(['\n', '\r'], " ");
    match text.char_indices().nth(ROW_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// `1 row`, `1,000 rows`.
fn count(number: u64, unit: &str) -> String {
    format!("{} {unit}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// `1,000,000`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        let reported = Reported { applied: 1_000, rows: 2_000, duplicate: 1, ..Reported::default() };
        let columns = vec![("id".to_owned(), "text".to_owned()), ("n".to_owned(), "numeric".to_owned())];
        let first_rows = vec![format!("{{\"id\":\"{}\"}}", "ü".repeat(500)), "{\"id\":\"b\\n\"}".to_owned()];
        let table = TableContent { name: "s.t".to_owned(), columns, rows: 1_002, first_rows };
        Summary {
            documents: 1_023,
            blank_lines: 1,
            reported,
            tables: vec![table],
            time: Duration::from_millis(1_250),
            ..Summary::new(Layout::Lines)
        }
    }

    #[test]
    fn a_document_without_an_outcome_is_an_error() {
        let mut summary = Summary { documents: 1_002, ..summary() };
        assert!(summary.check_account().unwrap_err().to_string().starts_with("1 of the file's lines"));
        summary.rejections.count = 1;
        summary.check_account().unwrap();
        summary.reported.dead_lettered = 2;
        summary.documents = 1_004;
        assert!(summary.check_account().is_err());
    }

    #[test]
    fn a_summary_is_bounded_and_says_how_much_more_there_is() {
        let mut summary = summary();
        for number in 1..=22_u32 {
            let (table, reason) = ((number == 1).then(|| "s.t".to_owned()), "invalid\nvalue".to_owned());
            summary.rejections.add(RejectedDocument {
                number: number.to_string(),
                sub_number: number / 2 % 2,
                table,
                reason,
            });
        }
        let text = summary.to_string();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[..2], ["Table s.t: 1,002 rows", "  id text, n numeric"]);
        assert_eq!((lines[2].chars().count(), lines[2].ends_with("ü…")), (405, true));
        assert_eq!(lines[3..6], ["    {\"id\":\"b\\n\"}", "    … and 1,000 more", ""]);
        let counts = "1,023 lines in 1.2 s: 1,000 written (2,000 rows inserted or updated), 1 already there, 22 rejected; 1 blank line skipped";
        assert_eq!(lines[6..9], [counts, "  line 1: s.t: invalid value", "  line 2 (document 2): invalid value"]);
        assert_eq!((lines.len(), lines[27]), (28, "  … and 2 more"));
    }

    #[test]
    fn many_tables_are_listed_without_their_rows() {
        let mut summary = summary();
        let table = summary.tables.remove(0);
        summary.tables = (0..200).map(|n| TableContent { name: format!("s.t{n}"), ..table.clone() }).collect();
        let text = summary.to_string();
        assert_eq!(text.matches("Table s.t").count(), TABLES_MAX);
        assert!(text.contains("\n180 more tables:\n  s.t20 (1,002), "), "{text}");
        assert!(text.contains("s.t119 (1,002)\n  … and 80 more\n"), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 405 && !line.ends_with(' ')), "{text}");
    }

    #[test]
    fn what_a_person_should_know_of_the_file_is_noted() {
        let summary = Summary { layout: Layout::Array, is_truncated: true, large_documents: 2, ..summary() };
        let text = summary.to_string();
        assert!(text.contains("\n  The file ends within its array: it may be truncated.\n"), "{text}");
        assert!(text.contains("\n  2 elements are larger than 1 MiB: raise"), "{text}");
    }
}
