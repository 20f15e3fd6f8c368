//! Positions in a text: PostgreSQL counts characters, an editor lines and columns.

/// The line and the column of a byte, both from 1; a column is a character.
pub fn line_and_column(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line_start = before.rfind('\n').map_or(0, |index| index + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

/// The byte at which a character begins, counted from 1 as PostgreSQL does; the end of the text if there are fewer.
pub fn byte_of_character(text: &str, character: usize) -> usize {
    text.char_indices().nth(character.saturating_sub(1)).map_or(text.len(), |(byte, _)| byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_characters() {
        let text = "é\nab é x";
        for (character, position) in [(1, (1, 1)), (2, (1, 2)), (3, (2, 1)), (8, (2, 6)), (99, (2, 7))] {
            assert_eq!(line_and_column(text, byte_of_character(text, character)), position, "{character}");
        }
    }
}
