//! Values whose text in PostgreSQL is much longer than their JSON.
//!
//! `jsonb` and `numeric` keep `1e131071` in a few bytes but write it with 131,072 digits. A row is sent, copied and dumped as
//! text, and a text has at most 1 GB, so a value of a few kilobytes can make `pg_dump` fail for the whole table. Each limit
//! below is an allowance per value plus a multiple of the value's own length. A record has at most 32 MB and a table 1,600
//! columns, so together they keep a row below 1 GB.

use std::borrow::Cow;

use crate::decimal::plain_text_bytes;

/// The digits that a column's value may add to its text: enough for any number that `numeric` can hold.
pub const COLUMN_EXPANSION_BYTES_MAX: usize = 256 * 1024;

/// The digits that one field of the overflow column may add: enough for any double. The fields add up over the life of a row.
pub const OVERFLOW_EXPANSION_BYTES_MAX: usize = 1024;

/// Per byte of JSON, the bytes that numbers with an exponent may add beyond the allowance.
const EXPANSION_FACTOR: usize = 16;

/// Whether a value of this length may have a text that is `expansion` bytes longer.
pub fn may_expand(bytes: usize, expansion: usize, allowance: usize) -> bool {
    expansion <= allowance.saturating_add(bytes.saturating_mul(EXPANSION_FACTOR))
}

/// The JSON as `jsonb` is to hold it: as it is, or as a string with its source if its text would be too long or if it contains
/// a number that `numeric` cannot hold.
pub fn bounded_json(json: Cow<'_, str>, allowance: usize) -> Cow<'_, str> {
    if may_expand(json.len(), json_expansion(&json), allowance) {
        return json;
    }
    Cow::Owned(serde_json::Value::from(&*json).to_string())
}

/// How many bytes longer than its source the text of valid JSON is in PostgreSQL, because of its numbers with an exponent.
pub fn json_expansion(json: &str) -> usize {
    let bytes = json.as_bytes();
    if !may_contain_exponent(bytes) {
        return 0;
    }
    let (mut at, mut total) = (0, 0usize);
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => at = string_end(bytes, at),
            b'-' | b'0'..=b'9' => {
                let end = at + bytes[at..].iter().take_while(|byte| is_number_byte(**byte)).count();
                total = total.saturating_add(number_expansion(&json[at..end]));
                at = end;
            }
            _ => at += 1,
        }
    }
    total
}

/// How many bytes longer than `number` its text is in PostgreSQL; the maximum if `numeric` cannot hold it. 0 without an
/// exponent.
pub fn number_expansion(number: &str) -> usize {
    let Some((mantissa, exponent)) = number.split_once(['e', 'E']) else { return 0 };
    plain_text_bytes(mantissa, exponent).map_or(usize::MAX, |plain| plain.saturating_sub(number.len()))
}

/// Whether there is an exponent, perhaps only in a string. Nearly all JSON has none, and this search costs little.
fn may_contain_exponent(bytes: &[u8]) -> bool {
    memchr::memchr2_iter(b'e', b'E', bytes).any(|at| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        let after = bytes.get(at + 1);
        before.is_some_and(u8::is_ascii_digit) && after.is_some_and(|byte| matches!(byte, b'+' | b'-' | b'0'..=b'9'))
    })
}

/// The position after the string that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(offset) = bytes.get(at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)) {
        match bytes[at + offset] {
            b'"' => return at + offset + 1,
            _ => at += offset + 2,
        }
    }
    bytes.len()
}

fn is_number_byte(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_with_an_exponent_expand() {
        for (json, expansion) in [
            ("[1,2.5,-0]", 0),
            ("true", 0),
            ("\"1e5\"", 0),
            (r#"{"1e99":"a\"1e99","b":[1e3,{"c":-2.5e+4}]}"#, 1),
            ("1e131071", 131_072 - 8),
            ("-1.5e131071", 131_073 - 11),
            ("1e-16383", 16_385 - 8),
            ("0e-3", 1),
            ("1e131072", usize::MAX),
            ("[1,1e-16384]", usize::MAX),
            ("1e99999999999999999999999", usize::MAX),
        ] {
            assert_eq!(json_expansion(json), expansion, "{json}");
        }
        assert_eq!(json_expansion("[1e131071,1e131071]"), 2 * (131_072 - 8));
    }

    #[test]
    fn json_that_expands_too_much_becomes_a_string_with_its_source() {
        let bounded = |json: &str, allowance| bounded_json(Cow::Borrowed(json), allowance).into_owned();
        for json in ["1e131071", "[1e131071]", r#"{"a":1e308}"#, r#"["a\"b"]"#] {
            assert_eq!(bounded(json, COLUMN_EXPANSION_BYTES_MAX), json);
        }
        assert_eq!(bounded("1e131071", OVERFLOW_EXPANSION_BYTES_MAX), r#""1e131071""#);
        assert_eq!(bounded(r#"{"a":[1e400000]}"#, COLUMN_EXPANSION_BYTES_MAX), r#""{\"a\":[1e400000]}""#);
        let many = format!("[{}]", vec!["1e131071"; 9_000].join(","));
        assert_eq!(bounded(&many, COLUMN_EXPANSION_BYTES_MAX), format!("\"{many}\""));
        let doubles = format!("[{}]", vec!["1.5e-10"; 20_000].join(","));
        assert_eq!(bounded(&doubles, COLUMN_EXPANSION_BYTES_MAX), doubles);
    }
}
