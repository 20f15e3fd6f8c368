//! Reads the JSON objects of change records member by member, and rewrites them without private data.

use std::borrow::Cow;

use crate::json_scanner::JsonScanner;
use crate::rejection::Rejection;

/// Calls `member` for each member of the next object; it must read the member's value.
pub fn for_each_member<'a>(
    scanner: &mut JsonScanner<'a>,
    mut member: impl FnMut(&str, &mut JsonScanner<'a>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    scanner.each_member(|key, scanner| member(&key, scanner))
}

/// Writes an object or array.
pub struct JsonWriter<'o> {
    out: &'o mut String,
    empty: bool,
    close: char,
}

impl<'o> JsonWriter<'o> {
    /// Starts an object.
    pub fn object(out: &'o mut String) -> Self {
        out.push('{');
        Self { out, empty: true, close: '}' }
    }

    /// Starts an array.
    pub fn array(out: &'o mut String) -> Self {
        out.push('[');
        Self { out, empty: true, close: ']' }
    }

    /// Writes the name of the object's next member, and returns where to write its value.
    pub fn member(&mut self, name: &str) -> &mut String {
        let out = self.element();
        out.push_str(&serde_json::Value::from(name).to_string());
        out.push(':');
        out
    }

    /// Returns where to write the array's next element.
    pub fn element(&mut self) -> &mut String {
        if !std::mem::take(&mut self.empty) {
            self.out.push(',');
        }
        self.out
    }

    /// Closes the object or array.
    pub fn end(self) -> Result<(), Rejection> {
        self.out.push(self.close);
        Ok(())
    }
}

/// Rewrites a whole document with `write`.
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

/// Rewrites an object, each member's value with `member`.
pub fn rewrite_object<'a>(
    scanner: &mut JsonScanner<'a>,
    out: &mut String,
    member: &mut dyn FnMut(&str, &mut JsonScanner<'a>, &mut String) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut object = JsonWriter::object(out);
    for_each_member(scanner, |key, scanner| member(key, scanner, object.member(key)))?;
    object.end()
}

/// Rewrites an array, each element with `element`.
pub fn rewrite_elements<'a>(
    scanner: &mut JsonScanner<'a>,
    out: &mut String,
    mut element: impl FnMut(&mut JsonScanner<'a>, &mut String) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut array = JsonWriter::array(out);
    scanner.each_element(|scanner| element(scanner, array.element()))?;
    array.end()
}

/// Reads a value as raw JSON.
pub fn read_raw<'a>(scanner: &mut JsonScanner<'a>, into: &mut Option<&'a str>) -> Result<(), Rejection> {
    *into = Some(scanner.skip_value()?);
    Ok(())
}

/// Reads a string; any other value, such as null, is skipped.
pub fn read_string<'a>(scanner: &mut JsonScanner<'a>, into: &mut Option<Cow<'a, str>>) -> Result<(), Rejection> {
    match scanner.peek() {
        Some(b'"') => *into = Some(scanner.string_value()?),
        _ => drop(scanner.skip_value()?),
    }
    Ok(())
}

/// Copies a value unchanged.
pub fn copy_value(scanner: &mut JsonScanner<'_>, out: &mut String) -> Result<(), Rejection> {
    append(out, scanner.skip_value()?)
}

/// Writes null in place of a value.
pub fn write_null(scanner: &mut JsonScanner<'_>, out: &mut String) -> Result<(), Rejection> {
    skip_value(scanner)?;
    append(out, "null")
}

/// Appends a text; returns a `Result` because most functions that write a value end with it.
pub fn append(out: &mut String, text: &str) -> Result<(), Rejection> {
    out.push_str(text);
    Ok(())
}

/// Skips a value.
pub fn skip_value(scanner: &mut JsonScanner<'_>) -> Result<(), Rejection> {
    scanner.skip_value()?;
    Ok(())
}
