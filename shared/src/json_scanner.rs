//! Reading JSON in one pass, without losing a digit.
//!
//! Ours, because no kept library gives both: numbers as their text, nested JSON as its text, and each byte looked at once.
//! It accepts exactly what `serde_json` accepts (a test holds it to that); escapes are left to `serde_json`.

use std::borrow::Cow;

use crate::change::Value;

/// Most strings end before it pays to look for their end in wider steps.
const SHORT_STRING_BYTES: usize = 24;

/// Deeper nesting is refused, as `serde_json` does: it would exhaust the stack.
const DEPTH_MAX: u32 = 127;

/// What is wrong with a document, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("invalid JSON at byte {byte}: {message}")]
pub struct JsonError {
    byte: usize,
    message: &'static str,
}

/// A place in a document.
pub struct JsonScanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> JsonScanner<'a> {
    /// At the first value of the document.
    pub fn new(text: &'a str) -> Self {
        let mut scanner = Self { text, at: 0, depth: 0 };
        scanner.skip_space();
        scanner
    }

    /// The byte that the next value begins with.
    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Where the next value begins.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The text from a position to here, the space behind the value left out.
    pub fn slice_from(&self, start: usize) -> &'a str {
        self.text[start..self.at].trim_ascii_end()
    }

    /// Makes sure that nothing follows.
    pub fn expect_end(&self) -> Result<(), JsonError> {
        if self.at == self.text.len() { Ok(()) } else { Err(self.error("unexpected data after the document")) }
    }

    fn error(&self, what: &'static str) -> JsonError {
        JsonError { byte: self.at, message: what }
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Enters the object that comes next.
    pub fn enter_object(&mut self) -> Result<(), JsonError> {
        self.enter(b'{', "expected an object")
    }

    fn enter(&mut self, bracket: u8, what: &'static str) -> Result<(), JsonError> {
        if !self.take(bracket) {
            return Err(self.error(what));
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("nested more than 127 levels deep"));
        }
        self.skip_space();
        Ok(())
    }

    /// Whether another member or element follows, or the closing bracket does; `first` is whether none was read yet.
    fn has_next(&mut self, bracket: u8, first: bool) -> Result<bool, JsonError> {
        if self.take(bracket) {
            self.depth -= 1;
            self.skip_space();
            return Ok(false);
        }
        if !first {
            if !self.take(b',') {
                return Err(self.error("expected ',' or a closing bracket"));
            }
            self.skip_space();
        }
        Ok(true)
    }

    /// The next member's key, its value coming next; `None` behind the last.
    pub fn next_key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, JsonError> {
        if !self.has_next(b'}', first)? {
            return Ok(None);
        }
        let key = self.string()?;
        self.skip_space();
        if !self.take(b':') {
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

    /// Enters the array that comes next.
    pub fn enter_array(&mut self) -> Result<(), JsonError> {
        self.enter(b'[', "expected an array")
    }

    /// Whether another element comes next; `first` is whether none was read yet.
    pub fn next_element(&mut self, first: bool) -> Result<bool, JsonError> {
        self.has_next(b']', first)
    }

    /// Gives each element of the array that comes next to `element`, which has to read it.
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

    /// Gives each member of the object that comes next to `member`, which has to read its value.
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

    /// Passes over any value without looking into it: what is within, however deep, is for those to judge who read it.
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
            let near = &rest[..rest.len().min(SHORT_STRING_BYTES)];
            let special = near.iter().position(|&byte| byte == b'"' || byte == b'\\');
            let special = special.or_else(|| memchr::memchr2(b'"', b'\\', rest));
            let plain = special.ok_or(self.error("unterminated string"))?;
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return Ok(());
            }
            // The escaped character, too: a quote there does not end the string.
            self.at += 1;
        }
    }

    /// Passes over any value; its text.
    pub fn skip_value(&mut self) -> Result<&'a str, JsonError> {
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.each_member(|_key, scanner| scanner.skip_value().map(drop))?,
            Some(b'[') => self.each_element(|scanner| scanner.skip_value().map(drop))?,
            _ => drop(self.scalar()?),
        }
        Ok(self.slice_from(start))
    }

    fn literal(&mut self, word: &'static str, meaning: Value<'a>) -> Result<Value<'a>, JsonError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("expected a value"));
        }
        self.at += word.len();
        Ok(meaning)
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
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn string(&mut self) -> Result<Cow<'a, str>, JsonError> {
        let start = self.at;
        if !self.take(b'"') {
            return Err(self.error("expected a string"));
        }
        let mut escaped = false;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let plain =
                rest.iter().position(|byte| SPECIAL[*byte as usize]).ok_or(self.error("unterminated string"))?;
            self.at += plain;
            match rest[plain] {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    // The escaped character, too: a quote there does not end the string.
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
            .map_err(|_a_value_would_be_told| JsonError { byte: start, message: "escape is not a Unicode character" })
    }
}

/// The bytes that do not stand for themselves within a string.
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
            // A value, not a pass over it: only then does serde_json look into escapes.
            let wanted = serde_json::from_str::<serde_json::Value>(&text);
            let out_of_range = wanted.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            assert!(out_of_range || wanted.is_ok() == accepts(&text), "{text:?}: {wanted:?}");
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
            for rest in ["", " ,1", "}", " ]"] {
                let text = format!("{value}{rest}");
                let mut scanner = JsonScanner::new(&text);
                assert_eq!((scanner.skip_unchecked(), scanner.peek()), (Ok(value), rest.trim_start().bytes().next()));
            }
        }
        for text in ["", "{\"a\":1", "\"\\", "\"", "]", ","] {
            assert!(JsonScanner::new(text).skip_unchecked().is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_ends() {
        assert!(accepts(&format!("{}{}", "[".repeat(127), "]".repeat(127))));
        assert!(!accepts(&"[".repeat(1_000_000)));
    }
}
