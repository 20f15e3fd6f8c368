//! A JSON document as fields and values. Numbers stay text, nested JSON stays text: nothing is altered on the way.

use std::borrow::Cow;

use super::malformed;
use super::members::{Writing, copy, push, rewrite_elements, rewritten, skip};
use crate::change::Value;
use crate::field::{Field, Fields, Privacy};
use crate::rejection::Rejection;
use crate::scan::{ScanError, Scanner};

impl From<ScanError> for Rejection {
    fn from(error: ScanError) -> Self {
        malformed(error.to_string())
    }
}

/// Gives each member of a document to `member`, which has to read its value.
pub fn each_member<'a>(
    json: &'a str,
    fields: &mut Fields,
    mut member: impl FnMut(&mut Fields, Field, &mut Scanner<'a>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut scanner = Scanner::new(json);
    members(&mut scanner, fields, Field::ROOT, &mut member)?;
    Ok(scanner.end()?)
}

fn members<'a>(
    scanner: &mut Scanner<'a>,
    fields: &mut Fields,
    parent: Field,
    member: &mut impl FnMut(&mut Fields, Field, &mut Scanner<'a>) -> Result<(), Rejection>,
) -> Result<(), Rejection> {
    let mut before = None;
    scanner.each_member(|key, scanner| {
        let field = fields.child_after(parent, before, &key);
        before = Some(field);
        member(fields, field, scanner)
    })
}

/// Appends the leaves of the value at `field`: an object's members one by one, everything else as it is. Private fields
/// are dropped or hashed here, before anyone else sees them.
pub fn flatten<'a>(
    fields: &mut Fields,
    field: Field,
    scanner: &mut Scanner<'a>,
    values: &mut Vec<(Field, Value<'a>)>,
) -> Result<(), Rejection> {
    match fields.privacy(field) {
        Some(Privacy::Drop) => return skip(scanner),
        Some(Privacy::Sha256) => {
            let hash = hashed(fields, scanner)?;
            values.push((field, Value::Text(Cow::Owned(hash))));
            return Ok(());
        }
        None => {}
    }
    match scanner.peek() {
        Some(b'{') => {
            let start = scanner.position();
            members(scanner, fields, field, &mut |fields, child, scanner| flatten(fields, child, scanner, values))?;
            if fields.captured(field) {
                values.push((field, Value::Json(whole(fields, field, scanner.since(start))?)));
            }
        }
        Some(b'[') => {
            let json = scanner.skip()?;
            values.push((field, Value::Json(whole(fields, field, json)?)));
        }
        _ => values.push((field, scanner.scalar()?)),
    }
    Ok(())
}

/// A value as it is, an array or object in one piece.
pub fn value<'a>(fields: &mut Fields, field: Field, json: &'a str) -> Result<Value<'a>, Rejection> {
    match json.as_bytes().first() {
        Some(b'{' | b'[') => Ok(Value::Json(whole(fields, field, json)?)),
        _ => Ok(Scanner::new(json).scalar()?),
    }
}

/// An array or object in one piece, without its private fields.
fn whole<'a>(fields: &mut Fields, field: Field, json: &'a str) -> Result<Cow<'a, str>, Rejection> {
    Ok(if fields.private_within(field) { Cow::Owned(redact(fields, field, json)?) } else { Cow::Borrowed(json) })
}

/// The hash that stands for a private value: of the text itself, or of any other value's JSON.
pub fn hashed(fields: &Fields, scanner: &mut Scanner<'_>) -> Result<String, Rejection> {
    Ok(match scanner.peek() {
        Some(b'"') => fields.hash(&scanner.text()?),
        _ => fields.hash(scanner.skip()?),
    })
}

/// The JSON at `field` again, without its private fields. An array's elements are treated as if each stood at `field`.
pub fn redact(fields: &mut Fields, field: Field, json: &str) -> Result<String, Rejection> {
    rewritten(json, |scanner, out| redact_value(fields, field, scanner, out))
}

fn redact_value(
    fields: &mut Fields,
    field: Field,
    scanner: &mut Scanner<'_>,
    out: &mut String,
) -> Result<(), Rejection> {
    match scanner.peek() {
        Some(b'{') if fields.private_within(field) => {
            let mut object = Writing::object(out);
            members(scanner, fields, field, &mut |fields, child, scanner| match fields.privacy(child) {
                Some(Privacy::Drop) => skip(scanner),
                Some(Privacy::Sha256) => {
                    let hash = hashed(fields, scanner)?;
                    push(object.member(fields.key(child)), &format!("\"{hash}\""))
                }
                None => {
                    let out = object.member(fields.key(child));
                    redact_value(fields, child, scanner, out)
                }
            })?;
            object.end()
        }
        Some(b'[') if fields.private_within(field) => {
            rewrite_elements(scanner, out, |scanner, out| redact_value(fields, field, scanner, out))
        }
        _ => copy(scanner, out),
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
        each_member(json, &mut fields, |fields, field, scanner| flatten(fields, field, scanner, &mut values)).unwrap();
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
        let text = |json| Scanner::new(json).scalar();
        assert!(text(r#""\ud800""#).is_err());
        assert_eq!(text(r#""a\\u0000""#), Ok(Value::Text(r"a\u0000".into())));
        assert_eq!(text(r#""a\u0000""#), Ok(Value::Text("a\0".into())));
    }

    #[test]
    fn a_document_is_an_object_and_nothing_else() {
        for json in ["[1]", "1", "{}{}", "{\"a\":1", "{\"a\":1}x"] {
            let mut fields = Fields::new(Naming::Segment);
            assert!(
                each_member(json, &mut fields, |_, _, scanner| Ok(scanner.skip().map(str::len).map(drop)?)).is_err(),
                "{json}"
            );
        }
    }
}
