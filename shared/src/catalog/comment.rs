//! Comments of tables and columns: the owner's text, followed by Millstream's note on a line of its own.

/// The prefix of a note.
const NOTE_PREFIX: &str = "Millstream: ";

/// The note in a comment: for a table what fills it, for a column the path of its values in the source.
pub fn parse_note(comment: &str) -> Option<&str> {
    match comment.strip_prefix(NOTE_PREFIX) {
        Some(note) => Some(note),
        None => comment
            .match_indices(NOTE_PREFIX)
            .find_map(|(start, _)| comment[..start].ends_with('\n').then(|| &comment[start + NOTE_PREFIX.len()..])),
    }
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
                assert_eq!(parse_note(&with_note(owner, path)), Some(path), "{owner:?}");
            }
        }
    }
}
