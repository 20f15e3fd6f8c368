//! The members of JSON objects, one by one: how change records are read and, without what is private, written again.

use std::borrow::Cow;

use crate::json_scanner::JsonScanner;
use crate::rejection::Rejection;

/// Gives each member of the object that comes next to `member`, which has to read it.
pub fn for_each_member<'a>(
    scanner: &mut JsonScanner<'a>,
    mut member: impl FnMut(&str, &mut JsonScanner<'a>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    scanner.each_member(|key, scanner| member(&key, scanner))
}

/// An object or array that is being written.
pub struct JsonWriter<'o> {
    out: &'o mut String,
    empty: bool,
    close: char,
}

impl<'o> JsonWriter<'o> {
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
pub fn rewrite_document<'a>(
    json: &'a str,
    write: impl FnOnce(&mut JsonScanner<'a>, &mut String) -> Result<(), Rejection>,
) -> Result<String, Rejection> {
    let mut scanner = JsonScanner::new(json);
    let mut out = String::with_capacity(json.len());
    write(&mut scanner, &mut out)?;
    scanner.expect_end()?;
    Ok(out)
}

/// Writes an object again, its members by `member`.
pub fn rewrite_object<'a>(
    scanner: &mut JsonScanner<'a>,
    out: &mut String,
    member: &mut dyn FnMut(&str, &mut JsonScanner<'a>, &mut String) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut object = JsonWriter::object(out);
    for_each_member(scanner, |key, scanner| member(key, scanner, object.member(key)))?;
    object.end()
}

/// Writes an array again, its elements by `element`.
pub fn rewrite_elements<'a>(
    scanner: &mut JsonScanner<'a>,
    out: &mut String,
    mut element: impl FnMut(&mut JsonScanner<'a>, &mut String) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut array = JsonWriter::array(out);
    scanner.each_element(|scanner| element(scanner, array.element()))?;
    array.end()
}

/// A value as it is written.
pub fn read_raw<'a>(scanner: &mut JsonScanner<'a>, into: &mut Option<&'a str>) -> Result<(), Rejection> {
    *into = Some(scanner.skip_value()?);
    Ok(())
}

/// A text, or nothing where a null stands.
pub fn read_string<'a>(scanner: &mut JsonScanner<'a>, into: &mut Option<Cow<'a, str>>) -> Result<(), Rejection> {
    match scanner.peek() {
        Some(b'"') => *into = Some(scanner.string_value()?),
        _ => drop(scanner.skip_value()?),
    }
    Ok(())
}

/// Writes a value again, as it is.
pub fn copy_value(scanner: &mut JsonScanner<'_>, out: &mut String) -> Result<(), Rejection> {
    append(out, scanner.skip_value()?)
}

/// Writes a null in the place of a value.
pub fn write_null(scanner: &mut JsonScanner<'_>, out: &mut String) -> Result<(), Rejection> {
    skip_value(scanner)?;
    append(out, "null")
}

/// Appends a text: what ends most ways of writing a value.
pub fn append(out: &mut String, text: &str) -> Result<(), Rejection> {
    out.push_str(text);
    Ok(())
}

/// Passes over a value.
pub fn skip_value(scanner: &mut JsonScanner<'_>) -> Result<(), Rejection> {
    scanner.skip_value()?;
    Ok(())
}
