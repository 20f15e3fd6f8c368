//! DynamoDB's attribute values, such as `{"S":"x"}`: each becomes a value of its own type.

use std::borrow::Cow;

use base64_simd::STANDARD;

use super::super::flatten::{hash_text, hashed_json, redact_text};
use super::super::json_objects::{
    JsonWriter, append, copy_value, for_each_member, rewrite_elements, skip_value, write_null,
};
use super::super::malformed;
use super::redact::write_redacted_text;
use crate::change::Value;
use crate::decimal::Decimal;
use crate::field::{FieldId, FieldTree, Privacy};
use crate::json_scanner::JsonScanner;
use crate::rejection::Rejection;
use crate::spec::KeyColumn;

/// The key's attributes and their column types, sorted by name: the record does not say which is the hash key.
pub fn key_columns(keys: &str) -> Result<Vec<KeyColumn>, Rejection> {
    let mut columns = Vec::new();
    each_key(keys, |name, sql_type| columns.push(KeyColumn { name: name.to_owned(), sql_type: Some(sql_type) }))?;
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(columns)
}

pub fn each_key(keys: &str, mut key: impl FnMut(&str, &'static str)) -> Result<(), Rejection> {
    for_each_member(&mut JsonScanner::new(keys), |name, scanner| {
        check_name(name)?;
        let sql_type = typed(scanner, |descriptor, scanner| {
            skip_value(scanner)?;
            match descriptor {
                "S" => Ok("text"),
                "N" => Ok("numeric"),
                "B" => Ok("bytea"),
                _ => Err(malformed(format!("key attribute {name:?} must have type S, N or B"))),
            }
        })?;
        key(name, sql_type);
        Ok(())
    })
}

/// Appends an image's attributes.
pub fn attributes<'a>(
    scanner: &mut JsonScanner<'a>,
    root_field: FieldId,
    fields: &mut FieldTree,
    values: &mut Vec<(FieldId, Value<'a>)>,
) -> Result<(), Rejection> {
    let mut previous = None;
    for_each_member(scanner, |key, scanner| {
        check_name(key)?;
        let field = fields.child_after(root_field, previous, key)?;
        previous = Some(field);
        match fields.privacy(field) {
            Some(Privacy::Drop) => return skip_value(scanner),
            Some(Privacy::Sha256) => values.push((field, hash_attribute(fields, scanner)?)),
            None => values.push((field, attribute(scanner, field, fields)?)),
        }
        Ok(())
    })
}

/// Reads an attribute value such as `{"S":"x"}`.
fn attribute<'a>(
    scanner: &mut JsonScanner<'a>,
    field: FieldId,
    fields: &mut FieldTree,
) -> Result<Value<'a>, Rejection> {
    typed(scanner, |descriptor, scanner| {
        Ok(match descriptor {
            "S" => {
                let text = scanner.string_value()?;
                Value::Text(if fields.has_private_descendant(field) { redact_text(fields, field, text) } else { text })
            }
            "N" => Value::Number(Cow::Borrowed(number(scanner)?)),
            "B" => Value::Bytes(Cow::Owned(bytes(scanner)?)),
            "BOOL" => Some(scanner.scalar()?)
                .filter(|value| matches!(value, Value::Bool(_)))
                .ok_or_else(|| malformed("BOOL is not true or false"))?,
            "NULL" => {
                scanner.skip_value()?;
                Value::TypedNull
            }
            "SS" => set(scanner, |scanner| Ok(Value::Text(scanner.string_value()?)))?,
            "NS" => set(scanner, |scanner| Ok(Value::Number(Cow::Borrowed(number(scanner)?))))?,
            "BS" => set(scanner, |scanner| Ok(Value::Bytes(Cow::Owned(bytes(scanner)?))))?,
            "L" | "M" => {
                let mut json = String::new();
                write_typed(descriptor, scanner, Some(field), fields, &mut json)?;
                Value::Json(Cow::Owned(json))
            }
            other => return Err(unknown_type(other)),
        })
    })
}

/// Names are stored in comments, which cannot be empty or contain U+0000; DynamoDB has no empty names either.
fn check_name(name: &str) -> Result<(), Rejection> {
    let is_valid = !name.is_empty() && !name.contains('\0');
    is_valid.then_some(()).ok_or_else(|| malformed("an attribute name is empty or contains U+0000"))
}

/// Reads an attribute value, which must have exactly one type.
fn typed<'a, T>(
    scanner: &mut JsonScanner<'a>,
    mut read: impl FnMut(&str, &mut JsonScanner<'a>) -> Result<T, Rejection>,
) -> Result<T, Rejection> {
    let mut value = None;
    for_each_member(scanner, |descriptor, scanner| match value {
        Some(_) => Err(malformed("an attribute has more than one type")),
        None => {
            value = Some(read(descriptor, scanner)?);
            Ok(())
        }
    })?;
    value.ok_or_else(|| malformed("an attribute has no type"))
}

fn unknown_type(descriptor: &str) -> Rejection {
    malformed(format!("unknown attribute type {:?}", descriptor.chars().take(20).collect::<String>()))
}

/// A number as its text: all of its 38 digits, and exponents from -130 to 125, are preserved.
fn number<'a>(scanner: &mut JsonScanner<'a>) -> Result<&'a str, Rejection> {
    match scanner.string_value()? {
        Cow::Borrowed(text) if Decimal::parse(text).is_some() => Ok(text),
        Cow::Borrowed(_) | Cow::Owned(_) => Err(malformed("N is not a number")),
    }
}

fn bytes(scanner: &mut JsonScanner<'_>) -> Result<Vec<u8>, Rejection> {
    STANDARD.decode_to_vec(&*scanner.string_value()?).map_err(|_not_base64| malformed("B is not base64"))
}

/// The elements of a set have no order; they are sorted so that equal sets become equal arrays.
fn set<'a>(
    scanner: &mut JsonScanner<'a>,
    mut element: impl FnMut(&mut JsonScanner<'a>) -> Result<Value<'a>, Rejection>,
) -> Result<Value<'a>, Rejection> {
    let mut elements = Vec::new();
    scanner.each_element(|scanner| {
        elements.push(element(scanner)?);
        Ok::<(), Rejection>(())
    })?;
    elements.sort_by(|a, b| match (a, b) {
        (Value::Text(a), Value::Text(b)) => a.cmp(b),
        (Value::Number(a), Value::Number(b)) => a.cmp(b),
        (Value::Bytes(a), Value::Bytes(b)) => a.cmp(b),
        (_, _) => std::cmp::Ordering::Equal,
    });
    Ok(Value::List(elements))
}

/// Writes an attribute as plain JSON, without its private members. Where no field is known, nothing is private.
fn write_json(
    scanner: &mut JsonScanner<'_>,
    field: Option<FieldId>,
    fields: &mut FieldTree,
    out: &mut String,
) -> Result<(), Rejection> {
    typed(scanner, |descriptor, scanner| write_typed(descriptor, scanner, field, fields, out))
}

fn write_typed(
    descriptor: &str,
    scanner: &mut JsonScanner<'_>,
    field: Option<FieldId>,
    fields: &mut FieldTree,
    out: &mut String,
) -> Result<(), Rejection> {
    if let ("S", Some(field)) = (descriptor, field)
        && fields.has_private_descendant(field)
    {
        return write_redacted_text(scanner, field, fields, out);
    }
    match descriptor {
        "S" | "B" | "BOOL" | "SS" | "BS" => copy_value(scanner, out),
        "N" => append(out, number(scanner)?),
        "NULL" => write_null(scanner, out),
        "NS" => rewrite_elements(scanner, out, |scanner, out| append(out, number(scanner)?)),
        "L" => rewrite_elements(scanner, out, |scanner, out| write_json(scanner, field, fields, out)),
        "M" => {
            let mut object = JsonWriter::object(out);
            for_each_member(scanner, |key, scanner| {
                let child = field.and_then(|field| fields.find_private(field, key));
                match child.and_then(|child| fields.privacy(child)) {
                    Some(Privacy::Drop) => skip_value(scanner),
                    Some(Privacy::Sha256) => {
                        let hashed = hash_attribute(fields, scanner)?;
                        append(object.member(key), &hashed_json(&hashed))
                    }
                    None => write_json(scanner, child, fields, object.member(key)),
                }
            })?;
            object.end()
        }
        other => Err(unknown_type(other)),
    }
}

/// What replaces a private attribute: the hash of a string's text, of a number's digits, or of any other value's JSON. A null
/// and an empty string stay as they are.
pub fn hash_attribute(fields: &mut FieldTree, scanner: &mut JsonScanner<'_>) -> Result<Value<'static>, Rejection> {
    let mut hashed = Value::TypedNull;
    for_each_member(scanner, |descriptor, scanner| {
        hashed = match descriptor {
            "S" | "N" => hash_text(fields, &scanner.string_value()?),
            "NULL" => {
                skip_value(scanner)?;
                Value::TypedNull
            }
            _ => Value::Text(fields.hash(scanner.skip_value()?).into()),
        };
        Ok(())
    })?;
    Ok(hashed)
}
