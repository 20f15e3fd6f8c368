//! Texts of bounded length. A path or a key may be as long as the record; a message on SQS may not.

/// The text, if it has at most `bytes_max` bytes; otherwise its beginning and its end, with a note of its length between them.
pub fn bounded(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let note = format!(" … ({} bytes) … ", text.len());
    let kept = bytes_max.saturating_sub(note.len());
    // A message ends with the reason: the end is worth as much as the path's beginning.
    let start = text.floor_char_boundary(kept - kept / 2);
    let end = text.ceil_char_boundary(text.len() - kept / 2);
    format!("{}{note}{}", &text[..start], &text[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_keeps_its_beginning_its_end_and_its_length() {
        let text = format!("`{}` has no column", "é".repeat(70_000));
        let bounded = bounded(&text, 100);
        assert!(bounded.len() <= 100 && bounded.starts_with("`éé"), "{bounded}");
        assert!(bounded.contains(" … (140016 bytes) … é") && bounded.ends_with("é` has no column"), "{bounded}");
    }

    #[test]
    fn a_text_within_the_limit_is_unchanged() {
        assert_eq!(bounded(&"x".repeat(100), 100), "x".repeat(100));
        assert!(bounded(&"x".repeat(101), 100).contains("(101 bytes)"));
    }
}
