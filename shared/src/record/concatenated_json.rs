//! Several concatenated JSON documents in one record.

use std::ops::Range;

use memchr::memchr_iter;
use serde_json::{Deserializer, value::RawValue};

/// The range of each document in `bytes`. From the first unreadable document on, the rest is one range, because the
/// start of the next document is unknown.
pub fn split(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut stream = Deserializer::from_slice(bytes).into_iter::<&RawValue>();
    let mut start = 0;
    std::iter::from_fn(move || {
        let document = stream.next()?;
        let end = if document.is_ok() { stream.byte_offset() } else { bytes.len() };
        Some(std::mem::replace(&mut start, end)..end)
    })
}

/// A cheap test for a second document: documents are objects, and within an object `}` is never followed by `{` without
/// a comma, except inside a string.
pub fn may_hold_several(bytes: &[u8]) -> bool {
    memchr_iter(b'}', bytes)
        .any(|brace| bytes[brace + 1..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'{'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(bytes: &str) -> Vec<&str> {
        split(bytes.as_bytes()).map(|range| bytes[range].trim()).collect()
    }

    #[test]
    fn documents_are_separated_however_they_follow_each_other() {
        assert_eq!(texts(r#"{"a":1}{"b":{"c":2}}"#), [r#"{"a":1}"#, r#"{"b":{"c":2}}"#]);
        assert_eq!(texts("{\"a\":1}\n{\"b\":2}\r\n"), [r#"{"a":1}"#, r#"{"b":2}"#]);
        assert_eq!(texts(r#"{"a":"}{"}"#), [r#"{"a":"}{"}"#]);
        assert_eq!(texts("{ \"pretty\": {\n } }"), ["{ \"pretty\": {\n } }"]);
    }

    #[test]
    fn an_unreadable_document_does_not_affect_those_before_it() {
        assert_eq!(texts(r#"{"a":1}{"b":oops}{"c":3}"#), [r#"{"a":1}"#, r#"{"b":oops}{"c":3}"#]);
        assert_eq!(texts(r#"garbage"#), ["garbage"]);
    }
}
