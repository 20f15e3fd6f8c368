//! Reading JSON in one pass, without losing a digit.
//!
//! Ours, because no kept library gives both: numbers as their text, nested JSON as its text, and each byte looked at once.
//! It accepts exactly what `serde_json` accepts (a test holds it to that); escapes are left to `serde_json`.

use std::borrow::Cow;

use crate::change::Value;

/// Most strings end before it pays to look for their end in wider steps.
const SHORT: usize = 24;

/// Deeper nesting is refused, as `serde_json` does: it would exhaust the stack.
const DEPTH_MAX: u32 = 127;

/// What is wrong with a document, and where.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("no JSON from byte {at}: {what}")]
pub struct ScanError {
    at: usize,
    what: &'static str,
}

/// A place in a document.
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

impl<'a> Scanner<'a> {
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
    pub fn since(&self, start: usize) -> &'a str {
        self.text[start..self.at].trim_ascii_end()
    }

    /// Makes sure that nothing follows.
    pub fn end(&self) -> Result<(), ScanError> {
        if self.at == self.text.len() { Ok(()) } else { Err(self.error("something follows the document")) }
    }

    fn error(&self, what: &'static str) -> ScanError {
        ScanError { at: self.at, what }
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
    pub fn enter_object(&mut self) -> Result<(), ScanError> {
        self.enter(b'{', "an object is wanted")
    }

    fn enter(&mut self, bracket: u8, what: &'static str) -> Result<(), ScanError> {
        if !self.take(bracket) {
            return Err(self.error(what));
        }
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.error("it is nested too deeply"));
        }
        self.skip_space();
        Ok(())
    }

    /// Whether another member or element follows, or the closing bracket does; `first` is whether none was read yet.
    fn more(&mut self, bracket: u8, first: bool) -> Result<bool, ScanError> {
        if self.take(bracket) {
            self.depth -= 1;
            self.skip_space();
            return Ok(false);
        }
        if !first {
            if !self.take(b',') {
                return Err(self.error("a comma or the closing bracket is wanted"));
            }
            self.skip_space();
        }
        Ok(true)
    }

    /// The next member's key, its value coming next; `None` behind the last.
    pub fn key(&mut self, first: bool) -> Result<Option<Cow<'a, str>>, ScanError> {
        if !self.more(b'}', first)? {
            return Ok(None);
        }
        let key = self.string()?;
        self.skip_space();
        if !self.take(b':') {
            return Err(self.error("a colon is wanted"));
        }
        self.skip_space();
        Ok(Some(key))
    }

    /// Reads a value that is neither object nor array.
    pub fn scalar(&mut self) -> Result<Value<'a>, ScanError> {
        let scalar = match self.peek() {
            Some(b'"') => Value::Text(self.string()?),
            Some(b't') => self.word("true", Value::Bool(true))?,
            Some(b'f') => self.word("false", Value::Bool(false))?,
            Some(b'n') => self.word("null", Value::Null)?,
            Some(b'-' | b'0'..=b'9') => Value::Number(Cow::Borrowed(self.number()?)),
            _ => return Err(self.error("a value is wanted")),
        };
        self.skip_space();
        Ok(scalar)
    }

    /// Enters the array that comes next.
    pub fn enter_array(&mut self) -> Result<(), ScanError> {
        self.enter(b'[', "an array is wanted")
    }

    /// Whether another element comes next; `first` is whether none was read yet.
    pub fn element(&mut self, first: bool) -> Result<bool, ScanError> {
        self.more(b']', first)
    }

    /// Gives each element of the array that comes next to `element`, which has to read it.
    pub fn each_element<E: From<ScanError>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.enter_array()?;
        let mut first = true;
        while self.element(first)? {
            element(self)?;
            first = false;
        }
        Ok(())
    }

    /// Gives each member of the object that comes next to `member`, which has to read its value.
    pub fn each_member<E: From<ScanError>>(
        &mut self,
        mut member: impl FnMut(Cow<'a, str>, &mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.enter_object()?;
        let mut first = true;
        while let Some(key) = self.key(first)? {
            member(key, self)?;
            first = false;
        }
        Ok(())
    }

    /// Reads a string.
    pub fn text(&mut self) -> Result<Cow<'a, str>, ScanError> {
        let text = self.string()?;
        self.skip_space();
        Ok(text)
    }

    /// Passes over any value without looking into it: what is within, however deep, is for those to judge who read it.
    pub fn pass(&mut self) -> Result<&'a str, ScanError> {
        let start = self.at;
        let mut open = 0u32;
        loop {
            match self.peek() {
                None => return Err(self.error("a value is wanted")),
                Some(b'"') => self.pass_string()?,
                Some(b'{' | b'[') => {
                    open += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if open > 0 => {
                    open -= 1;
                    self.at += 1;
                }
                Some(b'}' | b']' | b',' | b':') if open == 0 => return Err(self.error("a value is wanted")),
                Some(_) if open > 0 => self.at += 1,
                Some(_) => self.pass_word(),
            }
            if open == 0 {
                self.skip_space();
                return Ok(self.since(start));
            }
        }
    }

    fn pass_word(&mut self) {
        while !matches!(self.peek(), None | Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    fn pass_string(&mut self) -> Result<(), ScanError> {
        self.at += 1;
        loop {
            let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
            let near = &rest[..rest.len().min(SHORT)];
            let special = near.iter().position(|&byte| byte == b'"' || byte == b'\\');
            let special = special.or_else(|| memchr::memchr2(b'"', b'\\', rest));
            let plain = special.ok_or(self.error("the string has no end"))?;
            self.at += plain + 1;
            if rest[plain] == b'"' {
                return Ok(());
            }
            // The escaped character, too: a quote there does not end the string.
            self.at += 1;
        }
    }

    /// Passes over any value; its text.
    pub fn skip(&mut self) -> Result<&'a str, ScanError> {
        let start = self.at;
        match self.peek() {
            Some(b'{') => self.each_member(|_key, scanner| scanner.skip().map(drop))?,
            Some(b'[') => self.each_element(|scanner| scanner.skip().map(drop))?,
            _ => drop(self.scalar()?),
        }
        Ok(self.since(start))
    }

    fn word(&mut self, word: &'static str, meaning: Value<'a>) -> Result<Value<'a>, ScanError> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(self.error("a value is wanted"));
        }
        self.at += word.len();
        Ok(meaning)
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(self.error("a digit is wanted")) }
    }

    fn number(&mut self) -> Result<&'a str, ScanError> {
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

    fn string(&mut self) -> Result<Cow<'a, str>, ScanError> {
        let start = self.at;
        if !self.take(b'"') {
            return Err(self.error("a string is wanted"));
        }
        let mut escaped = false;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let plain =
                rest.iter().position(|byte| SPECIAL[*byte as usize]).ok_or(self.error("the string has no end"))?;
            self.at += plain;
            match rest[plain] {
                b'"' => break,
                b'\\' => {
                    escaped = true;
                    // The escaped character, too: a quote there does not end the string.
                    self.at += 2;
                    if !self.text.is_char_boundary(self.at) {
                        return Err(self.error("no such escape"));
                    }
                }
                _ => return Err(self.error("a control character stands in a string")),
            }
        }
        self.at += 1;
        if !escaped {
            return Ok(Cow::Borrowed(&self.text[start + 1..self.at - 1]));
        }
        let unescaped: Result<String, _> = serde_json::from_str(&self.text[start..self.at]);
        unescaped
            .map(Cow::Owned)
            .map_err(|_a_value_would_be_told| ScanError { at: start, what: "an escape is no character" })
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
        let mut scanner = Scanner::new(text);
        scanner.skip().and_then(|_| scanner.end()).is_ok()
    }

    #[test]
    fn it_accepts_what_serde_json_accepts_and_nothing_else() {
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
    fn what_is_passed_over_ends_where_it_ends() {
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
                let mut scanner = Scanner::new(&text);
                assert_eq!((scanner.pass(), scanner.peek()), (Ok(value), rest.trim_start().bytes().next()));
            }
        }
        for text in ["", "{\"a\":1", "\"\\", "\"", "]", ","] {
            assert!(Scanner::new(text).pass().is_err(), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_ends() {
        assert!(accepts(&format!("{}{}", "[".repeat(127), "]".repeat(127))));
        assert!(!accepts(&"[".repeat(1_000_000)));
    }
}
