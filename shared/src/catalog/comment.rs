//! What the comments of tables and columns say: the owner's words, and on a line behind them the writer's.

/// What the writer's words begin with.
const OWN: &str = "Millstream: ";

/// The writer's words in a comment: of a table what fills it, of a column the path whose values it holds.
pub fn told(comment: &str) -> Option<&str> {
    match comment.strip_prefix(OWN) {
        Some(told) => Some(told),
        None => comment
            .match_indices(OWN)
            .find_map(|(at, _)| comment[..at].ends_with('\n').then(|| &comment[at + OWN.len()..])),
    }
}

/// A comment in which the writer says `told` behind what the owner says.
pub fn telling(owner: Option<&str>, told: &str) -> String {
    match owner {
        Some(owner) => format!("{owner}\n{OWN}{told}"),
        None => format!("{OWN}{told}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_s_words_are_not_the_writer_s() {
        for owner in [None, Some("email"), Some("An address.\nNot Millstream: a path."), Some("")] {
            assert_eq!(owner.and_then(told), None);
            for path in ["email", "a.b", "two\nlines\nMillstream: x"] {
                assert_eq!(told(&telling(owner, path)), Some(path), "{owner:?}");
            }
        }
    }
}
