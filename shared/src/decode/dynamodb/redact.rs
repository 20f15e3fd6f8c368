//! DynamoDB's records without their private attributes.

use super::super::flatten::redact_text;
use super::super::json_objects::{
    JsonWriter, append, copy_value, for_each_member, rewrite_document, rewrite_elements, rewrite_object, skip_value,
    write_null,
};
use super::attributes::hash_attribute;
use crate::change::Value;
use crate::field::{FieldId, FieldTree, Privacy};
use crate::json_scanner::JsonScanner;
use crate::rejection::Rejection;

/// A record without the private attributes of its table.
pub fn redact_record(json: &str, root_field: FieldId, fields: &mut FieldTree) -> Result<String, Rejection> {
    let mut member = |key: &str, scanner: &mut JsonScanner<'_>, out: &mut String| match key {
        "dynamodb" => {
            rewrite_object(scanner, out, &mut |key, scanner, out| redact_image(key, root_field, fields, scanner, out))
        }
        _ => redact_image(key, root_field, fields, scanner, out),
    };
    rewrite_document(json, |scanner, out| rewrite_object(scanner, out, &mut member))
}

/// Members of a record that describe the change and not the item.
const METADATA: &[&str] = &[
    "ApproximateCreationDateTime",
    "ApproximateCreationDateTimePrecision",
    "Metadata",
    "SequenceNumber",
    "SizeBytes",
    "StreamViewType",
    "awsRegion",
    "eventID",
    "eventName",
    "eventSource",
    "eventSourceARN",
    "eventVersion",
    "recordFormat",
    "tableName",
    "userIdentity",
];

/// Writes a member of a record: an image without its private attributes, metadata unchanged, and null for anything else,
/// which may hold attributes, too.
fn redact_image(
    key: &str,
    root_field: FieldId,
    fields: &mut FieldTree,
    scanner: &mut JsonScanner<'_>,
    out: &mut String,
) -> Result<(), Rejection> {
    match key {
        "Keys" | "NewImage" | "OldImage" | "Item" if scanner.peek() == Some(b'{') => {
            redact_attributes(scanner, root_field, fields, out)
        }
        _ if METADATA.contains(&key) => copy_value(scanner, out),
        _ => write_null(scanner, out),
    }
}

pub fn redact_attributes(
    scanner: &mut JsonScanner<'_>,
    parent: FieldId,
    fields: &mut FieldTree,
    out: &mut String,
) -> Result<(), Rejection> {
    let mut object = JsonWriter::object(out);
    for_each_member(scanner, |key, scanner| {
        let Some(field) = fields.find_private(parent, key) else { return copy_value(scanner, object.member(key)) };
        match fields.privacy(field) {
            Some(Privacy::Drop) => skip_value(scanner),
            Some(Privacy::Sha256) => {
                let hashed = hash_attribute(fields, scanner)?;
                let attribute = if let Value::Text(hash) = &hashed {
                    format!("{{\"S\":\"{hash}\"}}")
                } else {
                    r#"{"NULL":true}"#.to_owned()
                };
                append(object.member(key), &attribute)
            }
            None => redact_attribute(scanner, field, fields, object.member(key)),
        }
    })?;
    object.end()
}

fn redact_attribute(
    scanner: &mut JsonScanner<'_>,
    field: FieldId,
    fields: &mut FieldTree,
    out: &mut String,
) -> Result<(), Rejection> {
    if !fields.has_private_descendant(field) {
        return copy_value(scanner, out);
    }
    rewrite_object(scanner, out, &mut |descriptor, scanner, out| match descriptor {
        "M" => redact_attributes(scanner, field, fields, out),
        "L" => rewrite_elements(scanner, out, |scanner, out| redact_attribute(scanner, field, fields, out)),
        "S" => write_redacted_text(scanner, field, fields, out),
        _ => copy_value(scanner, out),
    })
}

pub fn write_redacted_text(
    scanner: &mut JsonScanner<'_>,
    field: FieldId,
    fields: &mut FieldTree,
    out: &mut String,
) -> Result<(), Rejection> {
    let text = scanner.string_value()?;
    append(out, &serde_json::Value::from(redact_text(fields, field, text)).to_string())
}
