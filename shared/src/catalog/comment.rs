//! What the comments of tables and columns say: the owner's words, and on a line behind them the writer's.

/// What the writer's words begin with.
const NOTE_PREFIX: &str = "Millstream: ";

/// The writer's words in a comment: of a table what fills it, of a column the path whose values it holds.
pub fn parse_note(comment: &str) -> Option<&str> {
    match comment.strip_prefix(NOTE_PREFIX) {
        Some(told) => Some(told),
        None => comment
            .match_indices(NOTE_PREFIX)
            .find_map(|(at, _)| comment[..at].ends_with('\n').then(|| &comment[at + NOTE_PREFIX.len()..])),
    }
}

/// A comment in which the writer says `told` behind what the owner says.
pub fn with_note(owner: Option<&str>, told: &str) -> String {
    match owner {
        Some(owner) => format!("{owner}\n{NOTE_PREFIX}{told}"),
        None => format!("{NOTE_PREFIX}{told}"),
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
