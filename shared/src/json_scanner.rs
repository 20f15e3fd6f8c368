//! A JSON scanner that reads a document in one pass and keeps every digit.
//!
//! No crate is used, because none offers all that is needed: numbers as text, nested JSON as a slice of the input, keys
//! and strings that outlive the next call, and skipping a value without validating it. `serde_json`'s `RawValue` scans
//! nested values once per level. `jiter` returns slices for numbers and nested JSON, but its keys and strings borrow
//! from the parser, so they cannot be kept while it reads on; it validates every value that it skips; and it adds
//! `num-bigint` and `lexical-parse-float` to every function.
//!
//! [`JsonScanner::skip_value`] accepts exactly what `serde_json` accepts, and also numbers outside the range of `f64`
//! (a test compares the two). `serde_json` decodes the escapes.

use std::borrow::Cow;

use crate::change::Value;

/// Most strings end within this many bytes, where a plain loop is faster than `memchr`.
const SHORT_STRING_BYTES: usize = 24;

/// Deeper nesting is rejected, as by `serde_json`, because it would exhaust the stack.
const DEPTH_MAX: u32 = 127;

/// A syntax error and its position.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid JSON at byte {byte}: {message}")]
pub struct JsonError {
    byte: usize,
    message: &'static str,
}

/// A cursor in a document.
pub struct JsonScanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> JsonScanner<'a> {
    /// Creates a scanner at the first value of the document.
    pub fn new(text: &'a str) -> Self {
        let mut scanner = Self { text, at: 0, depth: 0 };
        scanner.skip_space();
        scanner
    }

    /// The first byte of the next value.
    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The position of the next value.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The text from `start` to here, without trailing space.
    pub fn slice_from(&self, start: usize) -> &'a str {
        self.text[start..self.at].trim_ascii_end()
    }

    /// Checks that the document ends here.
    pub fn expect_end(&self) -> Result<(), JsonError> {
        if self.at == self.text.len() { Ok(()) } else { Err(self.error("unexpected data after the document")) }
    }

    fn error(&self, message: &'static str) -> JsonError {
        JsonError { byte: self.at, message }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn consume(&mut self, byte: u8) -> bool {
        let matches = self.peek() == Some(byte);
        self.at += usize::from(matches);
        matches
    }

    /// Enters the next value, an object.
    pub fn enter_object(&mut self) -> Result<(), JsonError> {
        self.enter(b'{', "expected an object")
    }

    fn enter(&mut self, bracket: u8, message: &'static str) -> Result<(), JsonError> {
        if !self.consume(bracket) {
            return Err(self.error(message));
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("nested more than 127 levels deep"));
        }
        self.skip_space();
        Ok(())
    }

    /// Whether another member or element follows, and not the closing bracket; `first` is true if none was read yet.
    fn has_next(&mut self, bracket: u8, first: bool) -> Result<bool, JsonError> {
        if self.consume(bracket) {
            self.depth -= 1;
            self.skip_space();
            return Ok(false);
        }
        if !first {
            if !self.consume(b',') {
                return Err(self.error("expected ',' or a closing bracket"));
            }
            self.skip_space();
        }
        Ok(true)
    }

    /// Reads the key of the next member, whose value comes next; returns `None` after the last member.
    pub fn next_key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, JsonError> {
        if !self.has_next(b'}', first)? {
            return Ok(None);
        }
        let key = self.string()?;
        self.skip_space();
        if !self.consume(b':') {
            return Err(self.error("expected ':'"));
        }
        self.skip_space();
        Ok(Some(key))
    }

    /// Reads a value that is neither object nor array.
    pub fn scalar(&mut self) -> Result<Value<'a>, JsonError> {
        let scalar = match self.peek() {
            Some(b'"') => Value::Text(self.string()?),
            Some(b't') => self.literal("true", Value::Bool(true))?,
            Some(b'f') => self.literal("false", Value::Bool(false))?,
            Some(b'n') => self.literal("null", Value::Null)?,
            Some(b'-' | b'0'..=b'9') => Value::Number(Cow::Borrowed(self.number()?)),
            _ => return Err(self.error("expected a value")),
        };
        self.skip_space();
        Ok(scalar)
    }

    /// Enters the next value, an array.
    pub fn enter_array(&mut self) -> Result<(), JsonError> {
        self.enter(b'[', "expected an array")
    }

    /// Whether another element follows; `first` is true if none was read yet.
    pub fn next_element(&mut self, first: bool) -> Result<bool, JsonError> {
        self.has_next(b']', first)
    }

    /// Calls `element` for each element of the next value, an array; it must read the element.
    pub fn each_element<E: From<JsonError>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.enter_array()?;
        let mut first = true;
        while self.next_element(first)? {
            element(self)?;
            first = false;
        }
        Ok(())
    }

    /// Calls `member` with the key of each member of the next value, an object; it must read the member's value.
    pub fn each_member<E: From<JsonError>>(
        &mut self,
        mut member: impl FnMut(Cow<'a, str>, &mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.enter_object()?;
        let mut first = true;
        while let Some(key) = self.next_key(first)? {
            member(key, self)?;
            first = false;
        }
        Ok(())
    }

    /// Reads a string.
    pub fn string_value(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let text = self.string()?;
        self.skip_space();
        Ok(text)
    }

    /// Skips any value without validating it, at any depth, and returns its text; later readers validate it.
    pub fn skip_unchecked(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        let mut open = 0u32;
        loop {
            match self.peek() {
                None => return Err(self.error("expected a value")),
                Some(b'"') => self.skip_string_unchecked()?,
                Some(b'{' | b'[') => {
                    open += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if open > 0 => {
                    open -= 1;
                    self.at += 1;
                }
                Some(b'}' | b']' | b',' | b':') if open == 0 => return Err(self.error("expected a value")),
                Some(_) if open > 0 => self.at += 1,
                Some(_) => self.skip_word_unchecked(),
            }
            if open == 0 {
                self.skip_space();
                return Ok(self.slice_from(start));
            }
        }
    }

    fn skip_word_unchecked(&mut self) {
        while !matches!(self.peek(), None | Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn skip_string_unchecked(&mut self) -> Result<(), JsonError> {
        self.at += 1;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let head = &rest[..rest.len().min(SHORT_STRING_BYTES)];
            let special = head.iter().position(|&byte| byte == b'"' || byte == b'\\');
            let special = special.or_else(|| memchr::memchr2(b'"', b'\\', rest));
            let offset = special.ok_or(self.error("unterminated string"))?;
            self.at += offset + 1;
            if rest[offset] == b'"' {
                return Ok(());
            }
            // Skip the escaped character as well: an escaped quote does not end the string.
            self.at += 1;
        }
    }

    /// Skips any value, validating it, and returns its text.
    pub fn skip_value(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.each_member(|_key, scanner| scanner.skip_value().map(drop))?,
            Some(b'[') => self.each_element(|scanner| scanner.skip_value().map(drop))?,
            _ => drop(self.scalar()?),
        }
        Ok(self.slice_from(start))
    }

    fn literal(&mut self, word: &'static str, value: Value<'a>) -> Result<Value<'a>, JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("expected a value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn digits(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.error("expected a digit")) }
    }

    fn number(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        self.consume(b'-');
        if !self.consume(b'0') {
            self.digits()?;
        }
        if self.consume(b'.') {
            self.digits()?;
        }
        if self.consume(b'e') || self.consume(b'E') {
            let _sign = self.consume(b'+') || self.consume(b'-');
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.at;
        if !self.consume(b'"') {
            return Err(self.error("expected a string"));
        }
        let mut escaped = false;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let special = rest.iter().position(|byte| SPECIAL[*byte as usize]);
            let offset = special.ok_or(self.error("unterminated string"))?;
            self.at += offset;
            match rest[offset] {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    // Skip the escaped character as well: an escaped quote does not end the string.
                    self.at += 2;
                    if !self.text.is_char_boundary(self.at) {
                        return Err(self.error("invalid escape sequence"));
                    }
                }
                _ => return Err(self.error("unescaped control character in string")),
            }
        }
        self.at += 1;
        if !escaped {
            return Ok(Cow::Borrowed(&self.text[start + 1..self.at - 1]));
        }
        let unescaped: Result<String, _> = serde_json::from_str(&self.text[start..self.at]);
        unescaped
            .map(Cow::Owned)
            .map_err(|_error_quotes_the_value| JsonError { byte: start, message: "escape is not a Unicode character" })
    }
}

/// The bytes with a special meaning in a string: control characters, `"` and `\`.
const SPECIAL: [bool; 256] = {
    let mut special = [false; 256];
    let mut control = 0;
    while control < 0x20 {
        special[control] = true;
        control += 1;
    }
    special[b'"' as usize] = true;
    special[b'\\' as usize] = true;
    special
};

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str) -> bool {
        let mut scanner = JsonScanner::new(text);
        scanner.skip_value().and_then(|_| scanner.expect_end()).is_ok()
    }

    #[test]
    fn it_accepts_exactly_what_serde_json_accepts() {
        let seeds = [
            r#"{"a":[1,-2.5e+10,0.0,true,false,null,{"b":{}}],"c":"x\"\\\u00e9\ud83d\ude00é","d":[]}"#,
            r#" [ "\ud800" , 01 , 1. , .5 , +1 , nul , "tab	" , {"k" : } , [,] , {"a":1,} ] "#,
            "\"\\",
            "",
            " ",
            "{",
            "[[[",
            "\"",
            "1e",
            "-",
            "{\"a\"}",
            "12 34",
            "\"\\é\"",
            "\u{a0}1",
        ];
        let mut random = 1u64;
        let mut next = |limit: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) as usize % limit
        };
        for round in 0..60_000 {
            let mut bytes = seeds[next(seeds.len())].as_bytes().to_vec();
            for _ in 0..round % 4 {
                let insert = b"{}[]\",:\\ 0-.eEtnu\n\x1f"[next(19)];
                let at = next(bytes.len() + 1);
                match next(3) {
                    0 => bytes.insert(at, insert),
                    1 if at < bytes.len() => drop(bytes.remove(at)),
                    _ if at < bytes.len() => bytes[at] = insert,
                    _ => {}
                }
            }
            let Ok(text) = String::from_utf8(bytes) else { continue };
            // Parsed into a value, not skipped: only then does serde_json check escapes.
            let expected = serde_json::from_str::<serde_json::Value>(&text);
            let out_of_range = expected.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            assert!(out_of_range || expected.is_ok() == accepts(&text), "{text:?}: {expected:?}");
        }
    }

    #[test]
    fn a_skipped_value_ends_where_it_ends() {
        for value in [
            r#""a\\\"b""#,
            "-1.5e3",
            "null",
            r#"{"a":["}",{"b":"\ud800"}],"c":[[]]}"#,
            "[]",
            "\"0123456789012345678901234567890123456789\"",
            &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)),
        ] {
            for suffix in ["", " ,1", "}", " ]"] {
                let text = format!("{value}{suffix}");
                let mut scanner = JsonScanner::new(&text);
                assert_eq!((scanner.skip_unchecked(), scanner.peek()), (Ok(value), suffix.trim_start().bytes().next()));
            }
        }
        for text in ["", "{\"a\":1", "\"\\", "\"", "]", ","] {
            assert!(JsonScanner::new(text).skip_unchecked().is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_rejected_before_the_stack_overflows() {
        assert!(accepts(&format!("{}{}", "[".repeat(127), "]".repeat(127))));
        assert!(!accepts(&"[".repeat(1_000_000)));
    }
}
