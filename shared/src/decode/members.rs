//! The members of JSON objects, one by one: how change records are read and, without what is private, written again.

use std::borrow::Cow;

use crate::rejection::Rejection;
use crate::scan::Scanner;

/// Gives each member of the object that comes next to `member`, which has to read it.
pub fn each<'a>(
    scanner: &mut Scanner<'a>,
    mut member: impl FnMut(&str, &mut Scanner<'a>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    scanner.each_member(|key, scanner| member(&key, scanner))
}

/// An object or array that is being written.
pub struct Writing<'o> {
    out: &'o mut String,
    empty: bool,
    close: char,
}

impl<'o> Writing<'o> {
    /// An object without members so far.
    pub fn object(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, empty: true, close: '}' }
    }

    /// An array without elements so far.
    pub fn array(out: &'o mut String) -> Self {
        out.push('[');
        Self { out, empty: true, close: ']' }
    }

    /// Where the value of the object's next member is to be written; its name is.
    pub fn member(&mut self, name: &str) -> &mut String {
        let out = self.element();
        out.push_str(&serde_json::Value::from(name).to_string());
        out.push(':');
        out
    }

    /// Where the array's next element is to be written.
    pub fn element(&mut self) -> &mut String {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        self.out
    }

    /// Nothing follows.
    pub fn end(self) -> Result<(), Rejection> {
        self.out.push(self.close);
        Ok(())
    }
}

/// A whole document again, as `write` writes the value that it is.
pub fn rewritten<'a>(
    json: &'a str,
    write: impl FnOnce(&mut Scanner<'a>, &mut String) -> Result<(), Rejection>,
) -> Result<String, Rejection> {
    let mut scanner = Scanner::new(json);
    let mut out = String::with_capacity(json.len());
    write(&mut scanner, &mut out)?;
    scanner.end()?;
    Ok(out)
}

/// Writes an object again, its members by `member`.
pub fn rewrite<'a>(
    scanner: &mut Scanner<'a>,
    out: &mut String,
    member: &mut dyn FnMut(&str, &mut Scanner<'a>, &mut String) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut object = Writing::object(out);
    each(scanner, |key, scanner| member(key, scanner, object.member(key)))?;
    object.end()
}

/// Writes an array again, its elements by `element`.
pub fn rewrite_elements<'a>(
    scanner: &mut Scanner<'a>,
    out: &mut String,
    mut element: impl FnMut(&mut Scanner<'a>, &mut String) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut array = Writing::array(out);
    scanner.each_element(|scanner| element(scanner, array.element()))?;
    array.end()
}

/// A value as it is written.
pub fn raw<'a>(scanner: &mut Scanner<'a>, into: &mut Option<&'a str>) -> Result<(), Rejection> {
    *into = Some(scanner.skip()?);
    Ok(())
}

/// A text, or nothing where a null stands.
pub fn text<'a>(scanner: &mut Scanner<'a>, into: &mut Option<Cow<'a, str>>) -> Result<(), Rejection> {
    match scanner.peek() {
        Some(b'"') => *into = Some(scanner.text()?),
        _ => drop(scanner.skip()?),
    }
    Ok(())
}

/// Writes a value again, as it is.
pub fn copy(scanner: &mut Scanner<'_>, out: &mut String) -> Result<(), Rejection> {
    push(out, scanner.skip()?)
}

/// Writes a null in the place of a value.
pub fn as_null(scanner: &mut Scanner<'_>, out: &mut String) -> Result<(), Rejection> {
    skip(scanner)?;
    push(out, "null")
}

/// Appends a text: what ends most ways of writing a value.
pub fn push(out: &mut String, text: &str) -> Result<(), Rejection> {
    out.push_str(text);
    Ok(())
}

/// Passes over a value.
pub fn skip(scanner: &mut Scanner<'_>) -> Result<(), Rejection> {
    scanner.skip()?;
    Ok(())
}
