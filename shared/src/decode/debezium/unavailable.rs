//! What Debezium writes for a value that it does not have, such as a large one that has not changed.
//!
//! The connector's `unavailable.value.placeholder` is a text, or bytes in hexadecimal after `hex:`. It appears in a form that
//! fits the column, as Debezium's classes `UnchangedToastedPlaceholder`, `UnchangedToastedReplicationMessageColumn`,
//! `OracleValueConverters` and `ReselectColumnsPostProcessor` list them (<https://github.com/debezium/debezium>):
//!
//! | column | form |
//! |---|---|
//! | text, JSON, and all types that are not below | the text |
//! | bytes, by `binary.handling.mode` | Base64, Base64 for URLs, hexadecimal |
//! | `text[]`, `varchar[]`, `char[]`, `json[]`, `jsonb[]` | an array with the text as its only element |
//! | `bytea[]` | an array with the bytes as its only element |
//! | `integer[]`, `bigint[]`, `date[]` | an array with each byte of the placeholder as a signed number |
//! | `uuid[]` | an array with the UUID (version 3) of the bytes as its only element |
//! | `hstore`, by `hstore.handling.mode` | a map with the text as its only key and value, or that map's JSON as a text |
//! | `geometry`, `geography`, `point` | an object with a fixed point outside the range of coordinates, or at its very edge |

use base64_simd::{STANDARD, URL_SAFE, URL_SAFE_NO_PAD};
use md5::{Digest, Md5};

use super::super::json_objects::{for_each_member, read_string, skip_value};
use crate::json_scanner::JsonScanner;
use crate::names::hex;
use crate::rejection::Rejection;

/// The default of `unavailable.value.placeholder`:
/// <https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-property-unavailable-value-placeholder>.
const PLACEHOLDER_DEFAULT: &str = "__debezium_unavailable_value";

/// The member `wkb` of the placeholders of `geometry` and `geography`, which do not depend on the configuration:
/// `POINT(-99999999 -99999999)` and `POINT(179.999999 89.999999)` with SRID 4326.
const GEOMETRY_WKB: [&str; 2] =
    ["0101000020e6100000000000fc83d797c1000000fc83d797c1", "0101000020e61000000c21e7fdff7f66401842cefbff7f5640"];

/// The coordinate of the placeholder of `point`.
const POINT_COORDINATE: f64 = -99_999_999.0;

/// The longest JSON of a geometry's placeholder.
const GEOMETRY_BYTES_MAX: usize = 256;

/// A character of a JSON string takes at most this many bytes: `\u0000`.
const ESCAPE_BYTES: usize = 6;

/// The forms of a connector's placeholder.
#[derive(Debug)]
pub struct UnavailableValue {
    /// The text.
    text: String,
    /// All texts that stand for a scalar, the text among them.
    texts: Vec<String>,
    /// The text of the only element of an array of UUIDs.
    uuid: String,
    /// The elements of an array of integers.
    integers: Vec<String>,
    /// No form is longer.
    json_bytes_max: usize,
}

impl UnavailableValue {
    /// The forms of the configured placeholder, or of Debezium's default.
    pub fn new(configured: Option<&[u8]>) -> Self {
        let bytes = configured.unwrap_or(PLACEHOLDER_DEFAULT.as_bytes());
        let text = String::from_utf8_lossy(bytes).into_owned();
        let quoted = serde_json::Value::from(text.as_str());
        let hexadecimal = hex(bytes);
        let texts = vec![
            text.clone(),
            STANDARD.encode_to_string(bytes),
            URL_SAFE.encode_to_string(bytes),
            URL_SAFE_NO_PAD.encode_to_string(bytes),
            hexadecimal.to_ascii_uppercase(),
            hexadecimal,
            format!("{{{quoted}:{quoted}}}"),
        ];
        let integers: Vec<String> = bytes.iter().map(|byte| byte.cast_signed().to_string()).collect();
        let longest = texts.iter().map(String::len).max().unwrap_or_default();
        let json_bytes_max = (longest * 2 * ESCAPE_BYTES + 16).max(bytes.len() * 8);
        Self { text, texts, uuid: name_uuid(bytes), integers, json_bytes_max }
    }

    /// Whether a column's value is the placeholder, in any form.
    pub fn is_unavailable(&self, json: &str) -> bool {
        if json.len() > self.json_bytes_max.max(GEOMETRY_BYTES_MAX) {
            return false;
        }
        match json.as_bytes().first() {
            Some(b'"') => self.is_text(json),
            Some(b'[') => self.is_array(json).unwrap_or(false),
            Some(b'{') => self.is_map(json).unwrap_or(false) || is_geometry(json).unwrap_or(false),
            _ => false,
        }
    }

    fn is_text(&self, json: &str) -> bool {
        let is_form = |text: &str| self.texts.iter().any(|form| form == text);
        let source = json.trim_matches('"');
        // Most strings need no decoding.
        is_form(source)
            || (source.contains('\\') && JsonScanner::new(json).string_value().is_ok_and(|text| is_form(&text)))
    }

    fn is_array(&self, json: &str) -> Result<bool, Rejection> {
        let (mut count, mut is_integers, mut is_text) = (0, true, true);
        let mut scanner = JsonScanner::new(json);
        scanner.enter_array()?;
        while (is_integers || is_text) && scanner.next_element(count == 0)? {
            let element = scanner.skip_value()?;
            is_integers &= self.integers.get(count).is_some_and(|integer| integer == element);
            is_text &= count == 0 && element.starts_with('"') && (self.is_text(element) || self.is_uuid(element));
            count += 1;
        }
        Ok((is_text && count == 1) || (is_integers && count == self.integers.len()))
    }

    fn is_uuid(&self, json: &str) -> bool {
        json.trim_matches('"') == self.uuid
    }

    fn is_map(&self, json: &str) -> Result<bool, Rejection> {
        let (mut count, mut is_placeholder) = (0, false);
        for_each_member(&mut JsonScanner::new(json), |key, scanner| {
            let mut value = None;
            read_string(scanner, &mut value)?;
            is_placeholder = key == self.text && value.is_some_and(|value| value == self.text);
            count += 1;
            Ok(())
        })?;
        Ok(is_placeholder && count == 1)
    }
}

/// Whether an object is the placeholder of a `geometry`, `geography` or `point`.
fn is_geometry(json: &str) -> Result<bool, Rejection> {
    let (mut wkb, mut x, mut y) = (None, None, None);
    for_each_member(&mut JsonScanner::new(json), |key, scanner| match key {
        "wkb" => read_string(scanner, &mut wkb),
        "x" => coordinate(scanner, &mut x),
        "y" => coordinate(scanner, &mut y),
        _ => skip_value(scanner),
    })?;
    let wkb = wkb.and_then(|wkb| STANDARD.decode_to_vec(wkb.as_bytes()).ok()).map(|bytes| hex(&bytes));
    let is_edge = wkb.is_some_and(|wkb| GEOMETRY_WKB.contains(&wkb.as_str()));
    Ok(is_edge || (x == Some(POINT_COORDINATE) && y == Some(POINT_COORDINATE)))
}

fn coordinate(scanner: &mut JsonScanner<'_>, into: &mut Option<f64>) -> Result<(), Rejection> {
    *into = scanner.skip_value()?.parse().ok();
    Ok(())
}

/// The UUID of a name without a namespace, as Java's `UUID.nameUUIDFromBytes` derives it: version 3 of RFC 4122.
fn name_uuid(name: &[u8]) -> String {
    let mut bytes: [u8; 16] = Md5::digest(name).into();
    bytes[6] = bytes[6] & 0x0f | 0x30;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let digits = hex(&bytes);
    format!("{}-{}-{}-{}-{}", &digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_placeholder_is_recognised_in_every_form() {
        let default = UnavailableValue::new(None);
        let integers: Vec<String> = PLACEHOLDER_DEFAULT.bytes().map(|byte| byte.to_string()).collect();
        for json in [
            r#""__debezium_unavailable_value""#,
            r#""__debezium\u005funavailable_value""#,
            r#"["__debezium_unavailable_value"]"#,
            r#"[ "__debezium_unavailable_value" ]"#,
            r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#,
            r#""{\"__debezium_unavailable_value\":\"__debezium_unavailable_value\"}""#,
            r#""X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==""#,
            r#""X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ""#,
            r#"["X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ=="]"#,
            r#""5f5f646562657a69756d5f756e617661696c61626c655f76616c7565""#,
            r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#,
            &format!("[{}]", integers.join(",")),
            &format!("[{}]", integers.join(", ")),
            r#"{"wkb":"AQEAACDmEAAAAAAA/IPXl8EAAAD8g9eXwQ==","srid":4326}"#,
            r#"{"wkb":"AQEAACDmEAAADCHn/f9/ZkAYQs77/39WQA==","srid":4326}"#,
            r#"{"x":-9.9999999E7,"y":-9.9999999E7,"wkb":"AQEAAAA=","srid":null}"#,
        ] {
            assert!(default.is_unavailable(json), "{json}");
        }
    }

    #[test]
    fn other_values_are_not_the_placeholder() {
        let default = UnavailableValue::new(None);
        for json in [
            "null",
            "true",
            "95",
            r#""""#,
            "[]",
            "{}",
            "[95,95]",
            &format!("[{}]", vec!["95"; 28].join(",")),
            r#""b68a35a7-17ad-35b3-af2a-ae46edb4545a""#,
            r#"["__debezium_unavailable_value","x"]"#,
            r#"["__debezium_unavailable_value",null]"#,
            r#"[["__debezium_unavailable_value"]]"#,
            r#"{"__debezium_unavailable_value":"x"}"#,
            r#"{"__debezium_unavailable_value":"__debezium_unavailable_value","a":"b"}"#,
            r#"{"x":1.0,"y":-9.9999999E7}"#,
            r#"{"wkb":null,"srid":4326}"#,
            &format!("\"{}\"", "x".repeat(10_000)),
        ] {
            assert!(!default.is_unavailable(json), "{json}");
        }
    }

    #[test]
    fn a_configured_placeholder_replaces_the_default() {
        let placeholder = "nicht verfügbar \"x\"";
        let text = UnavailableValue::new(Some(placeholder.as_bytes()));
        let integers: Vec<String> = placeholder.bytes().map(|byte| byte.cast_signed().to_string()).collect();
        for json in
            [r#""nicht verfügbar \"x\"""#, r#"["nicht verf\u00fcgbar \"x\""]"#, &format!("[{}]", integers.join(","))]
        {
            assert!(text.is_unavailable(json), "{json}");
        }
        assert!(integers.contains(&"-61".to_owned()));
        assert!(
            !text.is_unavailable(r#""__debezium_unavailable_value""#)
                && !text.is_unavailable(r#""nichtverfügbar \"x\"""#)
        );
        let bytes = UnavailableValue::new(Some(&[0, 255]));
        for json in [r#""AP8=""#, r#""AP8""#, r#""00ff""#, r#"["AP8="]"#, "[0,-1]", r#""\u0000�""#] {
            assert!(bytes.is_unavailable(json), "{json}");
        }
    }
}
