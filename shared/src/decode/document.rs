//! A JSON document as fields and values. Numbers stay text, nested JSON stays text: nothing is altered on the way.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::malformed;
use crate::change::{Field, Fields, Privacy, Value};
use crate::names::hex;
use crate::rejection::Rejection;

/// A key or a text, borrowed where it holds no escape.
#[derive(Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

/// An object's members in their order, the values not yet read.
pub struct Members<'a>(pub Vec<(Cow<'a, str>, &'a str)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((Text(key), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
                    members.push((key, value.get()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// An array's elements, not yet read.
struct Elements<'a>(Vec<&'a str>);

impl<'de: 'a, 'a> Deserialize<'de> for Elements<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ElementsVisitor;
        impl<'de> Visitor<'de> for ElementsVisitor {
            type Value = Elements<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON array")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Elements<'de>, A::Error> {
                let mut elements = Vec::new();
                while let Some(element) = sequence.next_element::<&'de RawValue>()? {
                    elements.push(element.get());
                }
                Ok(Elements(elements))
            }
        }
        deserializer.deserialize_seq(ElementsVisitor)
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, Rejection> {
    serde_json::from_str(json).map_err(|error| malformed(error.to_string()))
}

/// The members of the object that `json` is.
pub fn members(json: &str) -> Result<Vec<(Cow<'_, str>, &str)>, Rejection> {
    read::<Members<'_>>(json).map(|Members(members)| members)
}

/// Reads one value that is valid JSON. Texts are unescaped; a lone surrogate is refused, for it is no character.
pub fn value(json: &str) -> Result<Value<'_>, Rejection> {
    Ok(match json.as_bytes().first() {
        Some(b'"') => Value::Text(text(json)?),
        Some(b'{' | b'[') => Value::Json(Cow::Borrowed(json)),
        Some(b't') => Value::Bool(true),
        Some(b'f') => Value::Bool(false),
        Some(b'n') | None => Value::Null,
        Some(_) => Value::Number(json),
    })
}

fn text(json: &str) -> Result<Cow<'_, str>, Rejection> {
    let inside = &json[1..json.len() - 1];
    if memchr::memchr(b'\\', inside.as_bytes()).is_none() {
        return Ok(Cow::Borrowed(inside));
    }
    read::<Text<'_>>(json).map(|Text(text)| text)
}

/// Appends the leaves of the value at `field`: an object's members one by one, everything else as it is. Private fields
/// are dropped or hashed here, before anyone else sees them.
pub fn flatten<'a>(
    fields: &mut Fields,
    field: Field,
    json: &'a str,
    values: &mut Vec<(Field, Value<'a>)>,
) -> Result<(), Rejection> {
    match fields.privacy(field) {
        Some(Privacy::Drop) => return Ok(()),
        Some(Privacy::Sha256) => {
            values.push((field, Value::Text(Cow::Owned(hashed(json)?))));
            return Ok(());
        }
        None => {}
    }
    match json.as_bytes().first() {
        Some(b'{') => {
            if fields.captured(field) {
                values.push((field, Value::Json(whole(fields, field, json)?)));
            }
            for (key, member) in members(json)? {
                let child = fields.child(field, &key);
                flatten(fields, child, member, values)?;
            }
        }
        Some(b'[') => values.push((field, Value::Json(whole(fields, field, json)?))),
        _ => values.push((field, value(json)?)),
    }
    Ok(())
}

/// An array or object in one piece, without its private fields.
fn whole<'a>(fields: &mut Fields, field: Field, json: &'a str) -> Result<Cow<'a, str>, Rejection> {
    Ok(if fields.private_within(field) { Cow::Owned(redact(fields, field, json)?) } else { Cow::Borrowed(json) })
}

/// The hash that stands for a private value: of the text itself, or of any other value's JSON.
fn hashed(json: &str) -> Result<String, Rejection> {
    let digest = match value(json)? {
        Value::Text(text) => Sha256::digest(text.as_bytes()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Json(_) | Value::Time(_) => {
            Sha256::digest(json.as_bytes())
        }
    };
    Ok(hex(&digest))
}

/// The JSON at `field` again, without its private fields. An array's elements are treated as if each stood at `field`.
pub fn redact(fields: &mut Fields, field: Field, json: &str) -> Result<String, Rejection> {
    let json = json.trim();
    if !fields.private_within(field) {
        return Ok(json.to_owned());
    }
    match json.as_bytes().first() {
        Some(b'{') => {
            let mut parts = Vec::new();
            for (key, member) in members(json)? {
                let child = fields.child(field, &key);
                let value = match fields.privacy(child) {
                    Some(Privacy::Drop) => continue,
                    Some(Privacy::Sha256) => format!("\"{}\"", hashed(member)?),
                    None => redact(fields, child, member)?,
                };
                parts.push(format!("{}:{value}", serde_json::Value::from(&*key)));
            }
            Ok(format!("{{{}}}", parts.join(",")))
        }
        Some(b'[') => {
            let Elements(elements) = read(json)?;
            let parts: Result<Vec<_>, _> = elements.into_iter().map(|element| redact(fields, field, element)).collect();
            Ok(format!("[{}]", parts?.join(",")))
        }
        _ => read::<&RawValue>(json).map(|value| value.get().to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Naming;

    fn leaves(json: &str, private: &[(&str, Privacy)]) -> String {
        let mut fields = Fields::new(Naming::Segment);
        for (path, privacy) in private {
            let field = fields.at(path);
            fields.set_privacy(field, *privacy);
        }
        let mut values = Vec::new();
        flatten(&mut fields, Field::ROOT, json, &mut values).unwrap();
        let shown = values.iter().map(|(field, value)| format!("{}={value:?}", fields.path(*field)));
        shown.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn numbers_and_nested_json_stay_text() {
        let json = r#"{"a":{"b":12345678901234567890.10,"c":[1,{"d":1e400}]},"e":"x\u00e9","f":null}"#;
        let expected = r#"a.b=Number("12345678901234567890.10") a.c=Json("[1,{\"d\":1e400}]") e=Text("xé") f=Null"#;
        assert_eq!(leaves(json, &[]), expected);
    }

    #[test]
    fn private_fields_are_gone_before_anyone_sees_them() {
        let json = r#"{"ip":"1.2.3.4","who":{"email":"a@x"},"list":[{"ip":1,"n":2}]}"#;
        let private = [("ip", Privacy::Drop), ("who.email", Privacy::Sha256), ("list.ip", Privacy::Drop)];
        let told = leaves(json, &private);
        assert!(told.starts_with("who.email=Text(\"") && told.ends_with(r#"list=Json("[{\"n\":2}]")"#), "{told}");
        assert!(!told.contains("a@x") && !told.contains("1.2.3.4"));
    }

    #[test]
    fn a_lone_surrogate_is_refused_and_an_escaped_nul_is_read() {
        assert!(value(r#""\ud800""#).is_err());
        assert_eq!(value(r#""a\\u0000""#).unwrap(), Value::Text(r"a\u0000".into()));
        assert_eq!(value(r#""a\u0000""#).unwrap(), Value::Text("a\0".into()));
    }
}
