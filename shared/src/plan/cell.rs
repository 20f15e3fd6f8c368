//! Encodes one value for its column's type, exactly or not at all.
//!
//! A cell is a length (four bytes, big-endian) and that many bytes in PostgreSQL's binary format; the length -1 is NULL.
//! A binary `COPY` and an array parameter use the same cell, so that a value is encoded once.

use std::borrow::Cow;

use bytes::BufMut;

use base64_simd::STANDARD as BASE64;

use super::expansion::{
    COLUMN_EXPANSION_BYTES_MAX, OVERFLOW_EXPANSION_BYTES_MAX, bounded_json, json_expansion, may_expand,
    number_expansion,
};
use crate::catalog::{ArrayElement, ColumnType};
use crate::change::Value;
use crate::decimal::{Decimal, format_numeric};
use crate::rejection::Mismatch;
use crate::timestamp::{Timestamp, date_from_postgres, date_to_postgres, format_date, parse_date};

/// The cell of a NULL.
pub const NULL: [u8; 4] = (-1i32).to_be_bytes();

/// `jsonb`'s binary format is a version and the JSON's text.
const JSONB_VERSION: u8 = 1;

/// Appends the cell of a value. On a mismatch, `out` is unchanged.
pub fn encode(kind: ColumnType, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Mismatch> {
    if matches!(value, Value::Null | Value::TypedNull) {
        out.extend_from_slice(&NULL);
        return Ok(());
    }
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    match encode_content(kind, value, out) {
        Ok(()) => {
            let length = i32::try_from(out.len() - start - 4).map_err(|_too_long| Mismatch::Length)?;
            out[start..start + 4].copy_from_slice(&length.to_be_bytes());
            Ok(())
        }
        Err(mismatch) => {
            out.truncate(start);
            Err(mismatch)
        }
    }
}

fn encode_content(kind: ColumnType, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Mismatch> {
    match kind {
        ColumnType::Text { characters_max } => text(value, characters_max, out)?,
        ColumnType::Enum => text(value, None, out)?,
        ColumnType::Other => other(value, out)?,
        ColumnType::ArrayText(_) => text(&Value::Text(Cow::Owned(array_literal(value)?)), None, out)?,
        ColumnType::Bytea => out.extend_from_slice(bytes(value)?),
        ColumnType::Array(element) => array(element, value, out)?,
        ColumnType::Bool => out.push(u8::from(boolean(value)?)),
        ColumnType::Int2 => out.extend_from_slice(&integer::<i16>(value)?.to_be_bytes()),
        ColumnType::Int4 => out.extend_from_slice(&integer::<i32>(value)?.to_be_bytes()),
        ColumnType::Int8 => out.extend_from_slice(&integer::<i64>(value)?.to_be_bytes()),
        ColumnType::Numeric { modifier } => {
            let number = number(value)?;
            number.fits_numeric(modifier).then(|| number.write_numeric(out)).ok_or(Mismatch::Range)?;
        }
        ColumnType::Float4 => {
            out.extend_from_slice(&number(value)?.to_f32_exact().ok_or(Mismatch::Range)?.to_be_bytes())
        }
        ColumnType::Float8 => {
            out.extend_from_slice(&number(value)?.to_f64_exact().ok_or(Mismatch::Range)?.to_be_bytes())
        }
        ColumnType::Timestamp { digits, .. } => {
            let micros = timestamp(value)?.to_postgres();
            let unit = 10i64.pow(6u32.saturating_sub(digits));
            (micros % unit == 0).then(|| out.extend_from_slice(&micros.to_be_bytes())).ok_or(Mismatch::Range)?;
        }
        ColumnType::Date => out.extend_from_slice(&date(value)?.to_be_bytes()),
        ColumnType::Uuid => out.extend_from_slice(&uuid(value)?.to_be_bytes()),
        ColumnType::Json => out.extend_from_slice(as_json(value)?.as_bytes()),
        ColumnType::Jsonb => {
            out.push(JSONB_VERSION);
            out.extend_from_slice(bounded_json(as_json(value)?, COLUMN_EXPANSION_BYTES_MAX).as_bytes());
        }
    }
    Ok(())
}

/// Whether the value has the column's own type, and is not just convertible to it.
pub fn is_exact_type(kind: ColumnType, value: &Value<'_>) -> bool {
    match (kind, value) {
        (_, Value::Null | Value::TypedNull | Value::Unchanged) => true,
        (ColumnType::Text { .. } | ColumnType::Enum | ColumnType::Other, Value::Text(_)) => true,
        (ColumnType::Int2 | ColumnType::Int4 | ColumnType::Int8 | ColumnType::Numeric { .. }, Value::Number(_)) => true,
        (ColumnType::Float4 | ColumnType::Float8, Value::Number(_)) => true,
        (ColumnType::Bool, Value::Bool(_)) | (ColumnType::Bytea, Value::Bytes(_)) => true,
        (ColumnType::Timestamp { .. }, Value::Time(_)) | (ColumnType::Date, Value::Date(_)) => true,
        (ColumnType::Json | ColumnType::Jsonb, Value::Json(_)) => true,
        (ColumnType::Array(element) | ColumnType::ArrayText(element), Value::List(values)) => {
            values.iter().all(|value| is_exact_type(element.column_type(), value))
        }
        (_, _) => false,
    }
}

/// Text accepts every value: numbers and JSON as they were written, booleans as `true` and `false`.
fn text(value: &Value<'_>, characters_max: Option<usize>, out: &mut Vec<u8>) -> Result<(), Mismatch> {
    // A borrowed value is a slice of JSON, where control characters are always escaped.
    let is_json = matches!(value, Value::Text(Cow::Borrowed(_)) | Value::Number(_) | Value::Json(Cow::Borrowed(_)));
    let text: Cow<'_, str> = match value {
        Value::Text(text) | Value::Json(text) => Cow::Borrowed(text),
        Value::Number(text) => Cow::Borrowed(text),
        Value::Date(days) => Cow::Owned(format_date(*days)),
        Value::Bool(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
        Value::Time(time) => Cow::Owned(time.to_string()),
        Value::Bytes(bytes) => Cow::Owned(BASE64.encode_to_string(bytes)),
        Value::List(_) => as_json(value)?,
        Value::Null | Value::TypedNull | Value::Unchanged => return Err(Mismatch::Type),
    };
    if !is_json && memchr::memchr(0, text.as_bytes()).is_some() {
        return Err(Mismatch::NulCharacter);
    }
    if characters_max.is_some_and(|limit| text.len() > limit && text.chars().count() > limit) {
        return Err(Mismatch::Length);
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// A text that PostgreSQL casts, perhaps to a domain over `jsonb`, whose text must not be too long either.
fn other(value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Mismatch> {
    if let Value::Json(json) = value
        && !may_expand(json.len(), json_expansion(json), COLUMN_EXPANSION_BYTES_MAX)
    {
        return Err(Mismatch::Range);
    }
    text(value, None, out)
}

fn boolean(value: &Value<'_>) -> Result<bool, Mismatch> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::Text(text) if text == "true" => Ok(true),
        Value::Text(text) if text == "false" => Ok(false),
        Value::Text(_) | Value::Null | Value::Number(_) | Value::Json(_) | Value::Time(_) => Err(Mismatch::Type),
        Value::TypedNull | Value::Unchanged | Value::Date(_) | Value::Bytes(_) | Value::List(_) => Err(Mismatch::Type),
    }
}

/// Text is never converted to bytes: its encoding is unknown.
fn bytes<'a>(value: &'a Value<'_>) -> Result<&'a [u8], Mismatch> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => Err(Mismatch::Type),
        Value::TypedNull | Value::Unchanged => Err(Mismatch::Type),
        Value::Json(_) | Value::Time(_) | Value::Date(_) | Value::List(_) => Err(Mismatch::Type),
    }
}

/// An array of one dimension, or of none if it is empty: <https://www.postgresql.org/docs/current/arrays.html>.
fn array(element: ArrayElement, value: &Value<'_>, out: &mut Vec<u8>) -> Result<(), Mismatch> {
    let Value::List(values) = value else { return Err(Mismatch::Type) };
    bound_numbers(values)?;
    let kind = element.column_type();
    let dimensions = i32::from(!values.is_empty());
    for word in [dimensions, 0, kind.element_type().oid() as i32] {
        out.put_i32(word);
    }
    if dimensions > 0 {
        out.put_i32(i32::try_from(values.len()).map_err(|_too_many| Mismatch::Length)?);
        out.put_i32(1);
    }
    values.iter().try_for_each(|value| encode(kind, value, out))
}

/// Rejects an array of numbers whose text in PostgreSQL would be too long.
fn bound_numbers(values: &[Value<'_>]) -> Result<(), Mismatch> {
    let (mut bytes, mut expansion) = (0, 0usize);
    for value in values {
        if let Value::Number(number) = value {
            bytes += number.len();
            expansion = expansion.saturating_add(number_expansion(number));
        }
    }
    if may_expand(bytes, expansion, COLUMN_EXPANSION_BYTES_MAX) { Ok(()) } else { Err(Mismatch::Range) }
}

/// An array in PostgreSQL's text format, with bytes in hexadecimal.
fn array_literal(value: &Value<'_>) -> Result<String, Mismatch> {
    let Value::List(values) = value else { return Err(Mismatch::Type) };
    bound_numbers(values)?;
    let element = |value: &Value<'_>| {
        let text = match value {
            Value::Bytes(bytes) => format!("\\x{}", crate::names::hex(bytes)),
            Value::Text(text) => text.to_string(),
            Value::Number(text) => text.to_string(),
            Value::Null | Value::TypedNull | Value::Unchanged | Value::Bool(_) => return Err(Mismatch::Type),
            Value::Json(_) | Value::Time(_) | Value::Date(_) | Value::List(_) => return Err(Mismatch::Type),
        };
        Ok(format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")))
    };
    let elements: Vec<String> = values.iter().map(element).collect::<Result<_, Mismatch>>()?;
    Ok(format!("{{{}}}", elements.join(",")))
}

fn number<'a>(value: &'a Value<'_>) -> Result<Decimal<'a>, Mismatch> {
    let text = match value {
        Value::Number(text) | Value::Text(text) => text,
        Value::Null | Value::Bool(_) | Value::Json(_) | Value::Time(_) => return Err(Mismatch::Type),
        Value::TypedNull | Value::Unchanged | Value::Date(_) | Value::Bytes(_) | Value::List(_) => {
            return Err(Mismatch::Type);
        }
    };
    Decimal::parse(text).ok_or(Mismatch::Type)
}

fn integer<T: TryFrom<i128>>(value: &Value<'_>) -> Result<T, Mismatch> {
    number(value)?.to_integer().and_then(|whole| T::try_from(whole).ok()).ok_or(Mismatch::Range)
}

/// A timestamp from text. Numbers are rejected: they could be seconds or milliseconds.
pub fn timestamp(value: &Value<'_>) -> Result<Timestamp, Mismatch> {
    match value {
        Value::Time(time) => Ok(*time),
        Value::Text(text) => Timestamp::parse(text).ok_or(Mismatch::Range),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Json(_) => Err(Mismatch::Type),
        Value::TypedNull | Value::Unchanged | Value::Date(_) | Value::Bytes(_) | Value::List(_) => Err(Mismatch::Type),
    }
}

fn date(value: &Value<'_>) -> Result<i32, Mismatch> {
    match value {
        Value::Date(days) => date_to_postgres(*days).ok_or(Mismatch::Range),
        Value::Text(text) => parse_date(text).ok_or(Mismatch::Range),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Json(_) | Value::Time(_) => Err(Mismatch::Type),
        Value::TypedNull | Value::Unchanged | Value::Bytes(_) | Value::List(_) => Err(Mismatch::Type),
    }
}

/// A UUID with or without hyphens. PostgreSQL prints it with hyphens and in lower case, which is the same UUID.
fn uuid(value: &Value<'_>) -> Result<u128, Mismatch> {
    let Value::Text(text) = value else { return Err(Mismatch::Type) };
    let hyphens = text.len() == 36 && [8, 13, 18, 23].iter().all(|&at| text.as_bytes()[at] == b'-');
    let digits: Cow<'_, str> = if hyphens { Cow::Owned(text.replace('-', "")) } else { Cow::Borrowed(text) };
    let is_hexadecimal = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hexadecimal.then(|| u128::from_str_radix(&digits, 16).ok()).flatten().ok_or(Mismatch::Type)
}

/// Any value as JSON, with numbers as they were written. PostgreSQL's `jsonb` cannot hold U+0000.
pub fn as_json<'a>(value: &'a Value<'_>) -> Result<Cow<'a, str>, Mismatch> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let json = match value {
        Value::Null | Value::TypedNull | Value::Unchanged => Cow::Borrowed("null"),
        Value::Bool(flag) => Cow::Borrowed(if *flag { "true" } else { "false" }),
        Value::Number(text) => Cow::Borrowed(&**text),
        Value::Json(text) => Cow::Borrowed(&**text),
        Value::Text(text) => Cow::Owned(quoted(text)),
        Value::Time(time) => Cow::Owned(quoted(&time.to_string())),
        Value::Date(days) => Cow::Owned(quoted(&format_date(*days))),
        Value::Bytes(bytes) => Cow::Owned(quoted(&BASE64.encode_to_string(bytes))),
        Value::List(values) => {
            let elements: Vec<_> = values.iter().map(as_json).collect::<Result<_, Mismatch>>()?;
            Cow::Owned(format!("[{}]", elements.join(",")))
        }
    };
    if holds_escaped_nul(json.as_bytes()) { Err(Mismatch::NulCharacter) } else { Ok(json) }
}

/// A value as the overflow column holds it.
pub fn overflow_field<'a>(value: &'a Value<'_>) -> Result<Cow<'a, str>, Mismatch> {
    Ok(bounded_json(as_json(value)?, OVERFLOW_EXPANSION_BYTES_MAX))
}

/// Whether valid JSON contains the escape `\u0000`, whose backslash is not itself escaped.
fn holds_escaped_nul(json: &[u8]) -> bool {
    memchr::memmem::find_iter(json, b"\\u0000").any(|at| {
        let before = json[..at].iter().rev().take_while(|&&byte| byte == b'\\').count();
        before % 2 == 0
    })
}

/// Appends the cell of JSON that is known to fit `jsonb`.
pub fn write_jsonb(json: &str, out: &mut impl BufMut) {
    out.put_i32(json.len() as i32 + 1);
    out.put_u8(JSONB_VERSION);
    out.put_slice(json.as_bytes());
}

/// Appends the cell of text that is known to fit.
pub fn write_text(text: &str, out: &mut impl BufMut) {
    out.put_i32(text.len() as i32);
    out.put_slice(text.as_bytes());
}

/// The length in bytes of the first cell in `cells`, including its length word.
pub fn length(cells: &[u8]) -> usize {
    let word = cells.first_chunk::<4>().map_or(-1, |word| i32::from_be_bytes(*word));
    4 + usize::try_from(word).unwrap_or(0)
}

/// A cell as human-readable text, for plans and golden files.
pub fn format_cell(kind: ColumnType, cell: &[u8]) -> String {
    let Some(content) = cell.get(4..) else { return "(absent)".to_owned() };
    if cell[..4] == NULL {
        return "NULL".to_owned();
    }
    let from_be_bytes = |bytes: &[u8]| bytes.iter().fold(0i64, |sum, &byte| (sum << 8) | i64::from(byte));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match kind {
        ColumnType::Text { .. }
        | ColumnType::Enum
        | ColumnType::Other
        | ColumnType::ArrayText(_)
        | ColumnType::Json => {
            format!("{:?}", text(content))
        }
        ColumnType::Jsonb => text(content.get(1..).unwrap_or_default()),
        ColumnType::Bool => (content == [1]).to_string(),
        ColumnType::Int2 => (from_be_bytes(content) as i16).to_string(),
        ColumnType::Int4 => (from_be_bytes(content) as i32).to_string(),
        ColumnType::Int8 => from_be_bytes(content).to_string(),
        ColumnType::Numeric { .. } => format_numeric(content).unwrap_or_default(),
        ColumnType::Float4 => f32::from_bits(from_be_bytes(content) as u32).to_string(),
        ColumnType::Float8 => f64::from_bits(from_be_bytes(content) as u64).to_string(),
        ColumnType::Timestamp { .. } => Timestamp::from_postgres(from_be_bytes(content)).to_string(),
        ColumnType::Date => date_from_postgres(from_be_bytes(content) as i32).to_string()[..10].to_owned(),
        ColumnType::Uuid | ColumnType::Bytea | ColumnType::Array(_) => crate::names::hex(content),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(kind: ColumnType, value: Value<'_>) -> Result<String, Mismatch> {
        let mut out = Vec::new();
        encode(kind, &value, &mut out).map(|()| format_cell(kind, &out))
    }

    #[test]
    fn values_are_converted_to_the_type_that_the_column_has() {
        assert_eq!(cell(ColumnType::Int8, Value::Text("42".into())).unwrap(), "42");
        assert_eq!(cell(ColumnType::Int2, Value::Number("-7.0".into())).unwrap(), "-7");
        assert_eq!(cell(ColumnType::Text { characters_max: None }, Value::Number("1.50".into())).unwrap(), "\"1.50\"");
        assert_eq!(cell(ColumnType::Bool, Value::Text("true".into())).unwrap(), "true");
        assert_eq!(cell(ColumnType::Date, Value::Text("2026-02-08".into())).unwrap(), "2026-02-08");
        let uuid = "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11";
        assert_eq!(cell(ColumnType::Uuid, Value::Text(uuid.into())).unwrap(), uuid.replace('-', "").to_lowercase());
    }

    #[test]
    fn a_value_that_would_be_altered_does_not_fit() {
        let timestamp = ColumnType::Timestamp { zoned: true, digits: 3 };
        for (kind, value, mismatch) in [
            (ColumnType::Int2, Value::Number("32768".into()), Mismatch::Range),
            (ColumnType::Int8, Value::Number("1.5".into()), Mismatch::Range),
            (ColumnType::Text { characters_max: Some(2) }, Value::Text("äöü".into()), Mismatch::Length),
            (ColumnType::Text { characters_max: None }, Value::Text("a\0".to_owned().into()), Mismatch::NulCharacter),
            (ColumnType::Jsonb, Value::Json(r#"["\u0000"]"#.into()), Mismatch::NulCharacter),
            (ColumnType::Float8, Value::Number("0.1234567890123456789".into()), Mismatch::Range),
            (timestamp, Value::Text("2026-02-08T00:00:00.0001Z".into()), Mismatch::Range),
            (timestamp, Value::Number("1770593460".into()), Mismatch::Type),
            (ColumnType::Date, Value::Text("2026-02-08T10:00:00Z".into()), Mismatch::Range),
            (ColumnType::Numeric { modifier: None }, Value::Text("NaN".into()), Mismatch::Type),
        ] {
            assert_eq!(cell(kind, value.clone()), Err(mismatch), "{kind:?} {value:?}");
        }
        assert!(cell(ColumnType::Jsonb, Value::Json(r#"["C:\\u0000"]"#.into())).is_ok());
    }
}
