//! Flattens a JSON document into fields and values. Numbers and nested JSON stay text: nothing is altered.

use std::borrow::Cow;

use super::json_objects::{
    JsonWriter, append, copy_value, for_each_member, rewrite_document, rewrite_elements, skip_value,
};
use super::malformed;
use crate::change::Value;
use crate::field::{FieldId, FieldTree, Privacy};
use crate::json_scanner::{JsonError, JsonScanner};
use crate::rejection::Rejection;

impl From<JsonError> for Rejection {
    fn from(error: JsonError) -> Self {
        malformed(error.to_string())
    }
}

/// Calls `member` for each member of a document; it must read the member's value.
pub fn each_member<'a>(
    json: &'a str,
    fields: &mut FieldTree,
    mut member: impl FnMut(&mut FieldTree, FieldId, &mut JsonScanner<'a>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut scanner = JsonScanner::new(json);
    members(&mut scanner, fields, FieldId::ROOT, &mut member)?;
    Ok(scanner.expect_end()?)
}

fn members<'a>(
    scanner: &mut JsonScanner<'a>,
    fields: &mut FieldTree,
    parent: FieldId,
    member: &mut impl FnMut(&mut FieldTree, FieldId, &mut JsonScanner<'a>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut previous = None;
    scanner.each_member(|key, scanner| {
        let field = fields.child_after(parent, previous, &key)?;
        previous = Some(field);
        member(fields, field, scanner)
    })
}

/// Appends the leaves of the value at `field`: an object's members one by one, everything else as it is. Private fields
/// are dropped or hashed here, before any other code sees them.
pub fn flatten<'a>(
    fields: &mut FieldTree,
    field: FieldId,
    scanner: &mut JsonScanner<'a>,
    values: &mut Vec<(FieldId, Value<'a>)>,
) -> Result<(), Rejection> {
    match fields.privacy(field) {
        Some(Privacy::Drop) => return skip_value(scanner),
        Some(Privacy::Sha256) => {
            values.push((field, hash_value(fields, scanner)?));
            return Ok(());
        }
        None => {}
    }
    match scanner.peek() {
        Some(b'{') => {
            let start = scanner.position();
            members(scanner, fields, field, &mut |fields, child, scanner| flatten(fields, child, scanner, values))?;
            if fields.wants_whole_object(field) {
                values.push((field, Value::Json(without_private_fields(fields, field, scanner.slice_from(start))?)));
            }
        }
        Some(b'[') => {
            let json = scanner.skip_value()?;
            values.push((field, Value::Json(without_private_fields(fields, field, json)?)));
        }
        Some(b'"') if fields.has_private_descendant(field) => {
            let text = scanner.string_value()?;
            values.push((field, Value::Text(redact_text(fields, field, text))));
        }
        _ => values.push((field, scanner.scalar()?)),
    }
    Ok(())
}

/// A value that is not flattened: an array or object stays whole.
pub fn value<'a>(fields: &mut FieldTree, field: FieldId, json: &'a str) -> Result<Value<'a>, Rejection> {
    match json.as_bytes().first() {
        Some(b'{' | b'[') => Ok(Value::Json(without_private_fields(fields, field, json)?)),
        _ => Ok(JsonScanner::new(json).scalar()?),
    }
}

/// A whole array or object, without its private fields.
fn without_private_fields<'a>(
    fields: &mut FieldTree,
    field: FieldId,
    json: &'a str,
) -> Result<Cow<'a, str>, Rejection> {
    Ok(if fields.has_private_descendant(field) {
        Cow::Owned(redact(fields, field, json)?)
    } else {
        Cow::Borrowed(json)
    })
}

/// What replaces a private value: the hash of a string's text, or of any other value's JSON. A null and an empty string hold
/// nothing to hide and stay as they are.
pub fn hash_value(fields: &mut FieldTree, scanner: &mut JsonScanner<'_>) -> Result<Value<'static>, Rejection> {
    Ok(match scanner.peek() {
        Some(b'"') => hash_text(fields, &scanner.string_value()?),
        Some(b'n') => {
            skip_value(scanner)?;
            Value::Null
        }
        _ => Value::Text(fields.hash(scanner.skip_value()?).into()),
    })
}

/// What replaces a private text: its hash, unless it is empty.
pub fn hash_text(fields: &mut FieldTree, text: &str) -> Value<'static> {
    Value::Text(if text.is_empty() { "".into() } else { fields.hash(text).into() })
}

/// A hashed value as JSON; hashes need no escapes.
pub fn hashed_json(value: &Value<'_>) -> String {
    if let Value::Text(hash) = value { format!("\"{hash}\"") } else { "null".to_owned() }
}

/// A text at `field`. If it holds a JSON object or array, its private members are removed.
pub fn redact_text<'a>(fields: &mut FieldTree, field: FieldId, text: Cow<'a, str>) -> Cow<'a, str> {
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{' | b'[') => fields.count_hashes(|fields| redact(fields, field, &text)).map_or(text, Cow::Owned),
        _ => text,
    }
}

/// The JSON at `field`, without its private fields. An array's elements are treated as if each were at `field`. Fields that
/// are neither private nor may contain a private one are copied without being added, and no limit applies.
pub fn redact(fields: &mut FieldTree, field: FieldId, json: &str) -> Result<String, Rejection> {
    rewrite_document(json, |scanner, out| redact_value(fields, field, scanner, out))
}

fn redact_value(
    fields: &mut FieldTree,
    field: FieldId,
    scanner: &mut JsonScanner<'_>,
    out: &mut String,
) -> Result<(), Rejection> {
    match scanner.peek() {
        Some(b'{') if fields.has_private_descendant(field) => {
            let mut object = JsonWriter::object(out);
            for_each_member(scanner, |key, scanner| {
                let Some(child) = fields.find_private(field, key) else {
                    return copy_value(scanner, object.member(key));
                };
                match fields.privacy(child) {
                    Some(Privacy::Drop) => skip_value(scanner),
                    Some(Privacy::Sha256) => {
                        let hashed = hash_value(fields, scanner)?;
                        append(object.member(key), &hashed_json(&hashed))
                    }
                    None => redact_value(fields, child, scanner, object.member(key)),
                }
            })?;
            object.end()
        }
        Some(b'[') if fields.has_private_descendant(field) => {
            rewrite_elements(scanner, out, |scanner, out| redact_value(fields, field, scanner, out))
        }
        Some(b'"') if fields.has_private_descendant(field) => {
            let text = scanner.string_value()?;
            append(out, &serde_json::Value::from(redact_text(fields, field, text)).to_string())
        }
        _ => copy_value(scanner, out),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::Naming;

    fn leaves(json: &str, private: &[(&str, Privacy)]) -> String {
        let mut fields = FieldTree::new(Naming::Segment);
        let private: Vec<_> = private.iter().map(|(path, privacy)| (fields.intern_path(path), *privacy)).collect();
        fields.set_private(&private);
        let mut values = Vec::new();
        each_member(json, &mut fields, |fields, field, scanner| flatten(fields, field, scanner, &mut values)).unwrap();
        let leaves = values.iter().map(|(field, value)| format!("{}={value:?}", fields.path(*field)));
        leaves.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn numbers_and_nested_json_stay_text() {
        let json = r#"{"a":{"b":12345678901234567890.10,"c":[1,{"d":1e400}]},"e":"x\u00e9","f":null}"#;
        let expected = r#"a.b=Number("12345678901234567890.10") a.c=Json("[1,{\"d\":1e400}]") e=Text("xé") f=Null"#;
        assert_eq!(leaves(json, &[]), expected);
    }

    #[test]
    fn private_fields_are_removed_before_decoding() {
        let json = r#"{"ip":"1.2.3.4","who":{"email":"a@x"},"list":[{"ip":1,"n":2}]}"#;
        let private = [("ip", Privacy::Drop), ("who.email", Privacy::Sha256), ("list.ip", Privacy::Drop)];
        let flattened = leaves(json, &private);
        assert!(
            flattened.starts_with("who.email=Text(\"") && flattened.ends_with(r#"list=Json("[{\"n\":2}]")"#),
            "{flattened}"
        );
        assert!(!flattened.contains("a@x") && !flattened.contains("1.2.3.4"));
    }

    #[test]
    fn other_spellings_and_json_in_a_text_are_private_too() {
        let private = [("ip", Privacy::Drop), ("who.email", Privacy::Sha256), ("list.ip", Privacy::Drop)];
        for json in [
            r#"{"IP":"secret"}"#,
            r#"{"who.email":"secret"}"#,
            r#"{"Who":{"Email ":"secret"}}"#,
            r#"{"who":"{\"EMAIL\":\"secret\"}"}"#,
            r#"{"who":["{\"EMAIL\":\"secret\"}",{"email":["secret"]}]}"#,
            r#"{"who":[[{"email":{"a":"secret"}}]],"List":[{"Ip":"secret"}]}"#,
            r#"{"list":"[\"{\\\"ip\\\":\\\"secret\\\"}\"]"}"#,
        ] {
            let found = leaves(json, &private);
            assert!(!found.contains("secret"), "{json}: {found}");
        }
        let kept = r#"{"who":"secret","list":"[secret","ips":"secret","e-mail":"secret"}"#;
        assert_eq!(leaves(kept, &private).matches("secret").count(), 4);
    }

    #[test]
    fn null_and_an_empty_text_are_not_hashed() {
        let private = [("a", Privacy::Sha256)];
        let found = [r#"{"a":null}"#, r#"{"a":""}"#].map(|json| leaves(json, &private));
        assert_eq!(found, ["a=Null", r#"a=Text("")"#]);
        assert!(leaves(r#"{"a":0}"#, &private).starts_with(r#"a=Text("5feceb66ffc8"#));
    }

    #[test]
    fn a_lone_surrogate_is_rejected_and_an_escaped_nul_is_read() {
        let text = |json| JsonScanner::new(json).scalar();
        assert!(text(r#""\ud800""#).is_err());
        assert_eq!(text(r#""a\\u0000""#), Ok(Value::Text(r"a\u0000".into())));
        assert_eq!(text(r#""a\u0000""#), Ok(Value::Text("a\0".into())));
    }

    #[test]
    fn a_document_is_an_object_and_nothing_else() {
        for json in ["[1]", "1", "{}{}", "{\"a\":1", "{\"a\":1}x"] {
            let mut fields = FieldTree::new(Naming::Segment);
            assert!(
                each_member(json, &mut fields, |_, _, scanner| Ok(scanner.skip_value().map(str::len).map(drop)?))
                    .is_err(),
                "{json}"
            );
        }
    }
}
