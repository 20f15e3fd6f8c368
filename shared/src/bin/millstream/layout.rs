//! Text output: aligned columns, counts, durations, and lines of at most 100 columns.

/// Maximum length of a line, if it can be broken.
const COLUMNS_MAX: usize = 100;

/// Alignment of a column's cells.
#[derive(Clone, Copy)]
pub enum Align {
    Left,
    Right,
}

/// Rows of cells under their headings.
pub struct TextTable {
    headings: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// Creates a table without rows.
    pub fn new(headings: &[(&'static str, Align)]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// Adds a row.
    pub fn push<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.into());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

impl std::fmt::Display for TextTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let length = |text: &str| text.chars().count();
        let widest = |(column, (heading, _)): (usize, &(&str, Align))| {
            self.rows.iter().map(|row| length(&row[column])).max().unwrap_or(0).max(length(heading))
        };
        let widths: Vec<usize> = self.headings.iter().enumerate().map(widest).collect();
        let headings: Vec<String> = self.headings.iter().map(|(heading, _)| (*heading).to_owned()).collect();
        for row in std::iter::once(&headings).chain(&self.rows) {
            let cells = row.iter().zip(&self.headings).zip(&widths).map(|((cell, (_, align)), width)| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            writeln!(f, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// `1234567` as `1,234,567`.
pub fn format_count(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap_or("")).collect();
    format!("{}{}", if number < 0 { "-" } else { "" }, groups.join(","))
}

/// Formats an unsigned number; one beyond `i64::MAX` is shown as `i64::MAX`.
pub fn format_count_of(number: u64) -> String {
    format_count(i64::try_from(number).unwrap_or(i64::MAX))
}

/// `3 batches`, `1 batch`.
pub fn format_number_of(number: usize, one: &str, many: &str) -> String {
    format!("{} {}", format_count_of(number as u64), if number == 1 { one } else { many })
}

/// Formats a duration in the most readable unit.
pub fn format_duration(seconds: f64) -> String {
    match seconds {
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..7_200.0 => format!("{:.0} min", seconds / 60.0),
        ..172_800.0 => format!("{:.0} h", seconds / 3_600.0),
        _ => format!("{:.0} days", seconds / 86_400.0),
    }
}

/// Breaks long lines at spaces outside quotes; continuation lines are indented further.
pub fn wrap(text: &str, indent: usize) -> String {
    text.lines().map(|line| wrap_line(line, indent)).collect()
}

fn wrap_line(line: &str, indent: usize) -> String {
    let mut text = " ".repeat(indent);
    let mut used = indent;
    for (number, word) in words(line).into_iter().enumerate() {
        let length = word.chars().count();
        if number > 0 && used + 1 + length > COLUMNS_MAX {
            text.push_str(&format!("\n{}", " ".repeat(indent + 4)));
            used = indent + 4;
        } else if number > 0 {
            text.push(' ');
            used += 1;
        }
        text.push_str(word);
        used += length;
    }
    text.push('\n');
    text
}

/// Splits a line at spaces outside quotes.
fn words(line: &str) -> Vec<&str> {
    let (mut words, mut start, mut quote) = (Vec::new(), 0, None);
    for (index, character) in line.char_indices() {
        match (character, quote) {
            ('\'' | '"', None) => quote = Some(character),
            (_, Some(open)) if character == open => quote = None,
            (' ', None) => {
                words.push(&line[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    words.push(&line[start..]);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_readable() {
        assert_eq!([0, 999, 1_000, -1_234_567].map(format_count), ["0", "999", "1,000", "-1,234,567"]);
        let durations = [0.04, 9.96, 45.2, 600.0, 86_400.0, 864_000.0].map(format_duration);
        assert_eq!(durations, ["0.0 s", "10.0 s", "45 s", "10 min", "24 h", "10 days"]);
    }

    #[test]
    fn lines_are_broken_only_outside_quotes() {
        let literal = format!("COMMENT ON TABLE t IS '{}'", "two words ".repeat(12));
        assert_eq!(wrap(&literal, 2), format!("  COMMENT ON TABLE t IS\n      '{}'\n", "two words ".repeat(12)));
        let long = "word ".repeat(30);
        assert!(wrap(&long, 2).lines().all(|line| line.len() <= COLUMNS_MAX));
        assert_eq!(wrap("short", 0), "short\n");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = TextTable::new(&[("NAME", Align::Left), ("ROWS", Align::Right)]);
        table.push(["sportsbook".to_owned(), "7".to_owned()]);
        assert_eq!(table.to_string(), "NAME        ROWS\nsportsbook     7\n");
    }
}
