//! Comments of tables and columns: the owner's text, followed by Millstream's note on a line of its own.
//!
//! A note is a proof: Millstream fills, alters and drops only what carries one, or what the configuration declares.

use crate::partition::TimeRange;
use crate::timestamp::Timestamp;

/// The prefix of a note.
const NOTE_PREFIX: &str = "Millstream: ";

/// Ends the note of a partition that maintenance detaches, so that the next run knows it from one that its owner detached.
pub const DETACHED: &str = "; detached by maintain";

/// The note in a comment: for a table what fills it, for a column the path of its values in the source.
pub fn parse_note(comment: &str) -> Option<&str> {
    split_note(comment).1
}

/// The owner's text and the note of a comment.
pub fn split_note(comment: &str) -> (Option<&str>, Option<&str>) {
    if let Some(note) = comment.strip_prefix(NOTE_PREFIX) {
        return (None, Some(note));
    }
    for (start, _) in comment.match_indices(NOTE_PREFIX) {
        if let Some(owner) = comment[..start].strip_suffix('\n') {
            return (Some(owner), Some(&comment[start + NOTE_PREFIX.len()..]));
        }
    }
    (Some(comment), None)
}

/// Whether the note of a table names the source. A label follows the name, if the source fills several tables.
pub fn names_source(note: &str, source: &str) -> bool {
    let label = note.strip_prefix("source ").and_then(|rest| rest.strip_prefix(source));
    // The name of another source may contain a comma: what follows the name must be one of Millstream's own labels.
    label.is_some_and(|label| label.is_empty() || is_label(label))
}

/// What follows the name of the source in the note of a table; empty if the source fills one table, `None` if the note names
/// no source.
pub fn label(note: &str) -> Option<&str> {
    let rest = note.strip_prefix("source ")?;
    let start = rest.match_indices(", ").map(|(start, _)| start).find(|&start| is_label(&rest[start..]));
    Some(start.map_or("", |start| &rest[start..]))
}

/// Whether the text is a label, with the comma before it.
fn is_label(text: &str) -> bool {
    const KINDS: [&str; 6] = ["track ", "identify ", "page ", "screen ", "group ", "alias "];
    text.strip_prefix(", ").is_some_and(|label| KINDS.iter().any(|kind| label.starts_with(kind)))
}

/// The note of a partition. `table` is its parent, as `schema.table`.
pub fn partition_note(table: &str, bounds: TimeRange) -> String {
    format!("partition of {table} {bounds}")
}

/// The note of a partition that maintenance is about to detach.
pub fn detached_note(table: &str, bounds: TimeRange) -> String {
    partition_note(table, bounds) + DETACHED
}

/// The note of a partition without the mark of [`detached_note`]; `None` if it has none.
pub fn without_detached_mark(note: &str) -> Option<&str> {
    note.strip_suffix(DETACHED)
}

/// The end of a partition that maintenance detached from `table`; `None` for any other note.
pub fn detached_partition_end(note: &str, table: &str) -> Option<Timestamp> {
    let partition = without_detached_mark(note)?.strip_prefix("partition of ")?.strip_prefix(table)?;
    let (_, end) = partition.strip_prefix(" [")?.strip_suffix(')')?.rsplit_once(", ")?;
    Timestamp::parse(end)
}

/// A comment with the owner's text followed by the note.
pub fn with_note(owner: Option<&str>, note: &str) -> String {
    match owner {
        Some(owner) => format!("{owner}\n{NOTE_PREFIX}{note}"),
        None => format!("{NOTE_PREFIX}{note}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_kept_apart_from_the_owner_s_comment() {
        for owner in [None, Some("email"), Some("An address.\nNot Millstream: a path."), Some("")] {
            assert_eq!(owner.and_then(parse_note), None);
            for path in ["email", "a.b", "two\nlines\nMillstream: x"] {
                assert_eq!(split_note(&with_note(owner, path)), (owner, Some(path)));
            }
        }
    }

    #[test]
    fn a_note_names_one_source() {
        for note in ["source a", "source a, track event X", "source a, identify calls", "source a, track events X, Y"] {
            assert!(names_source(note, "a"), "{note}");
        }
        for note in
            ["source ab", "source a, b", "source b, track event a", "DynamoDB table a", "partition of a.b [1, 2)"]
        {
            assert!(!names_source(note, "a"), "{note}");
        }
    }

    #[test]
    fn a_label_follows_the_name_of_the_source() {
        assert_eq!(label("source a, b, track event X, track event Y"), Some(", track event X, track event Y"));
        assert_eq!(label("source a, b"), Some(""));
        assert_eq!(label("DynamoDB table a"), None);
    }

    #[test]
    fn only_maintenance_marks_a_partition_as_detached() {
        let day = crate::partition::PartitionWidth::Day.bounds(Timestamp(0));
        let note = detached_note("log.click", day);
        assert_eq!(detached_partition_end(&note, "log.click"), day.to);
        assert_eq!(detached_partition_end(&note, "log.clic"), None);
        assert_eq!(detached_partition_end(&partition_note("log.click", day), "log.click"), None);
        let unbounded = TimeRange { from: None, to: None };
        assert_eq!(detached_partition_end(&detached_note("log.click", unbounded), "log.click"), None);
    }
}
