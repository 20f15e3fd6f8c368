//! The members of JSON objects, one by one: how change records are read and, without what is private, written again.

use std::borrow::Cow;

use super::scan::Scanner;
use crate::rejection::Rejection;

/// Gives each member of the object that comes next to `member`, which has to read it.
pub fn each<'a>(
    scanner: &mut Scanner<'a>,
    mut member: impl FnMut(&str, &mut Scanner<'a>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    scanner.enter_object()?;
    let mut first = true;
    while let Some(key) = scanner.key(first)? {
        member(&key, scanner)?;
        first = false;
    }
    Ok(())
}

/// Writes an object again, its members by `member`.
pub fn rewrite<'a>(
    scanner: &mut Scanner<'a>,
    out: &mut String,
    member: &mut dyn FnMut(&str, &mut Scanner<'a>, &mut String) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut comma = '{';
    each(scanner, |key, scanner| {
        out.push(std::mem::replace(&mut comma, ','));
        out.push_str(&serde_json::Value::from(key).to_string());
        out.push(':');
        member(key, scanner, out)
    })?;
    push(out, if comma == '{' { "{}" } else { "}" })
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
