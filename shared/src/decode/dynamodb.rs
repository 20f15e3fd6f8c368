//! Changes of DynamoDB tables: records of their streams, the same through Kinesis, and lines of exports to S3.
//!
//! An attribute becomes a value of its own type: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>.
//! Within lists and maps, which become JSON, numbers stay digits and bytes stay base64.

use std::borrow::Cow;

use base64_simd::STANDARD;
use xxhash_rust::xxh3::xxh3_64;

use super::flatten::{hash_text, hashed_json, redact_text};
use super::json_objects::{
    JsonWriter, append, copy_value, for_each_member, read_raw, read_string, rewrite_document, rewrite_elements,
    rewrite_object, skip_value, write_null,
};
use super::replica::{DecodeOutput, ReplicaTable, ReplicaTables};
use super::{malformed, redacted_digest};
use crate::change::{Value, Version};
use crate::config::SourceConfig;
use crate::decimal::Decimal;
use crate::field::{FieldId, FieldTree, Privacy};
use crate::json_scanner::JsonScanner;
use crate::record::Record;
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{KeyColumn, MergeBy, TableRegistry};
use crate::timestamp::Timestamp;

/// Digits of a sequence number that fit in a version's order; the leading digits of a longer one raise its origin.
const ORDER_DIGITS: usize = 38;

/// The tables of a DynamoDB source.
#[derive(Debug)]
pub struct Dynamodb {
    /// The tables seen so far.
    pub replica_tables: ReplicaTables,
}

/// The parts of a record; its images are raw JSON or already decoded.
#[derive(Default)]
struct DynamodbRecord<'a> {
    event: Option<Cow<'a, str>>,
    event_id: Option<Cow<'a, str>>,
    table: Option<Cow<'a, str>>,
    keys: Option<&'a str>,
    new_image: Option<ItemImage<'a>>,
    /// The whole item: a line of a full export, or a scanned item.
    item: Option<ItemImage<'a>>,
    sequence_number: Option<Cow<'a, str>>,
    view_type: Option<Cow<'a, str>>,
    creation_time: Option<&'a str>,
    write_timestamp: Option<&'a str>,
}

/// A record's image, or a whole item.
#[derive(Clone, Copy)]
enum ItemImage<'a> {
    /// Raw JSON.
    Raw(&'a str),
    /// Its attributes are already decoded.
    Decoded,
}

impl Dynamodb {
    /// The tables of a source.
    pub fn new(source: &SourceConfig) -> Self {
        Self { replica_tables: ReplicaTables::new(source, "DynamoDB table", MergeBy::Row) }
    }

    /// Appends the change that a record describes.
    pub fn document<'a>(
        &mut self,
        index: usize,
        record: &Record,
        json: &'a str,
        output: &mut DecodeOutput<'_, 'a>,
    ) -> Result<(), Rejection> {
        let start = output.changes.values.len();
        // Most records belong to a known table: one pass over the document is enough for those.
        let known_table =
            table_from_arn(record).and_then(|name| self.replica_tables.table_with_key(name, output.tables));
        let parts = DynamodbRecord::read(json, &mut |scanner| match known_table {
            Some(table) => {
                output.changes.values.truncate(start);
                attributes(scanner, table.root_field, output.fields, &mut output.changes.values)?;
                Ok((output.changes.values.len() > start).then_some(ItemImage::Decoded))
            }
            None => raw_image(scanner),
        })?;
        let table = match known_table {
            Some(table) => {
                // The key is already known, but the record's must still be valid.
                parts.keys.map_or(Ok(()), |keys| each_key(keys, |_name, _type| ()))?;
                table
            }
            None => self.resolve_table(&parts, record, output)?,
        };
        let deleted = parts.is_delete()?;
        let version = parts.version(record.arrival, || match self.replica_tables.has_private_fields() {
            true => self.redact(record, json, output.fields, output.tables).map(|redacted| redacted_digest(&redacted)),
            false => Ok(record.digest(json.as_bytes())),
        })?;
        let image = if deleted { parts.keys.map(ItemImage::Raw) } else { parts.new_image.or(parts.item) };
        match image.ok_or_else(|| malformed("record has neither Keys nor an image"))? {
            ItemImage::Decoded => {}
            ItemImage::Raw(image) => {
                output.changes.values.truncate(start);
                attributes(&mut JsonScanner::new(image), table.root_field, output.fields, &mut output.changes.values)?;
            }
        }
        if deleted {
            let deleted_at = parts.change_time().unwrap_or(record.arrival);
            self.replica_tables.delete(table, index, version, deleted_at, start, output);
        } else {
            self.replica_tables.put(table, index, version, start, output);
        }
        Ok(())
    }

    /// The table of the first record seen for it, or of the first that provides its key; a whole item provides none.
    fn resolve_table(
        &mut self,
        parts: &DynamodbRecord<'_>,
        record: &Record,
        output: &mut DecodeOutput<'_, '_>,
    ) -> Result<ReplicaTable, Rejection> {
        let name = parts.table_name(record)?;
        let key = parts.keys.map(key_columns).transpose()?.unwrap_or_default();
        self.replica_tables.table(name, &key, output.fields, output.tables)
    }

    /// The record without its private attributes.
    pub fn redact(
        &mut self,
        record: &Record,
        json: &str,
        fields: &mut FieldTree,
        tables: &mut TableRegistry,
    ) -> Result<String, Rejection> {
        let parts = DynamodbRecord::read(json, &mut raw_image)?;
        let root_field = self.replica_tables.table(parts.table_name(record)?, &[], fields, tables)?.root_field;
        let mut member = |key: &str, scanner: &mut JsonScanner<'_>, out: &mut String| match key {
            "dynamodb" => rewrite_object(scanner, out, &mut |key, scanner, out| {
                redact_image(key, root_field, fields, scanner, out)
            }),
            _ => redact_image(key, root_field, fields, scanner, out),
        };
        rewrite_document(json, |scanner, out| rewrite_object(scanner, out, &mut member))
    }
}

impl<'a> DynamodbRecord<'a> {
    /// Reads a record; `image` reads its new image, or its item.
    fn read(
        json: &'a str,
        image: &mut dyn FnMut(&mut JsonScanner<'a>) -> Result<Option<ItemImage<'a>>, Rejection>,
    ) -> Result<Self, Rejection> {
        let mut parts = Self::default();
        let mut read_image = |scanner: &mut JsonScanner<'a>, into: &mut Option<ItemImage<'a>>| {
            match scanner.peek() {
                Some(b'{') => *into = image(scanner)?,
                _ => drop(scanner.skip_value()?),
            }
            Ok(())
        };
        let mut scanner = JsonScanner::new(json);
        for_each_member(&mut scanner, |key, scanner| match key {
            "eventName" => read_string(scanner, &mut parts.event),
            "eventID" => read_string(scanner, &mut parts.event_id),
            "tableName" => read_string(scanner, &mut parts.table),
            "Item" => read_image(scanner, &mut parts.item),
            "Keys" => read_raw(scanner, &mut parts.keys),
            "NewImage" => read_image(scanner, &mut parts.new_image),
            "Metadata" => for_each_member(scanner, |key, scanner| match key {
                "WriteTimestampMicros" => {
                    for_each_member(scanner, |_type, scanner| read_raw(scanner, &mut parts.write_timestamp))
                }
                _ => skip_value(scanner),
            }),
            "dynamodb" => for_each_member(scanner, |key, scanner| match key {
                "ApproximateCreationDateTime" => read_raw(scanner, &mut parts.creation_time),
                "Keys" => read_raw(scanner, &mut parts.keys),
                "NewImage" => read_image(scanner, &mut parts.new_image),
                "SequenceNumber" => read_string(scanner, &mut parts.sequence_number),
                "StreamViewType" => read_string(scanner, &mut parts.view_type),
                _ => skip_value(scanner),
            }),
            _ => skip_value(scanner),
        })?;
        scanner.expect_end()?;
        parts.keys = parts.keys.filter(|keys| is_non_empty(keys));
        Ok(parts)
    }

    /// The table's name by the stream's ARN, or else by the record.
    fn table_name<'r>(&'r self, record: &'r Record) -> Result<&'r str, Rejection> {
        let name = table_from_arn(record).or(self.table.as_deref());
        name.ok_or_else(|| malformed("neither `tableName` nor the stream's ARN names a table"))
    }

    fn is_delete(&self) -> Result<bool, Rejection> {
        match self.event.as_deref() {
            Some("REMOVE") => Ok(true),
            Some("INSERT" | "MODIFY") if self.new_image.is_some() => Ok(false),
            Some("INSERT" | "MODIFY") => match self.view_type.as_deref() {
                Some(view @ ("KEYS_ONLY" | "OLD_IMAGE")) => {
                    Err(Rejection::new(RejectionReason::ViewType(view.to_owned())))
                }
                Some(_) | None => Err(malformed("NewImage is missing")),
            },
            Some(other) => {
                Err(malformed(format!("unknown eventName {:?}", other.chars().take(20).collect::<String>())))
            }
            // A line of an export: a whole item, or the net change of a key within the time range of the export.
            None if self.item.is_some() => Ok(false),
            None if self.write_timestamp.is_some() => Ok(self.new_image.is_none()),
            None => Err(malformed("eventName is missing")),
        }
    }

    /// When the change was made, if the record says so.
    fn change_time(&self) -> Option<Timestamp> {
        Timestamp::parse_epoch(self.creation_time?)
    }

    /// Stream records are ordered by sequence number; records through Kinesis, which have none, by when the change was
    /// made. Loaded items are older than both. `digest` calculates the document's digest, which few of them need.
    fn version(
        &self,
        arrival: Timestamp,
        digest: impl FnOnce() -> Result<u64, Rejection>,
    ) -> Result<Version, Rejection> {
        if let Some(sequence) = &self.sequence_number {
            return sequence_version(sequence)
                .ok_or_else(|| malformed("SequenceNumber is not a number of up to 40 digits"));
        }
        if let Some(write_timestamp) = self.write_timestamp {
            let micros = write_timestamp
                .trim_matches('"')
                .parse()
                .map_err(|_no| malformed("WriteTimestampMicros is not a number"))?;
            return Ok(Version { origin: Version::SNAPSHOT, order: micros, digest: digest()? });
        }
        if self.item.is_some() {
            let order = i128::from(arrival.0);
            return Ok(Version { origin: Version::SNAPSHOT, order, digest: digest()? });
        }
        let changed_at = self
            .change_time()
            .ok_or_else(|| malformed("record has neither SequenceNumber nor ApproximateCreationDateTime"))?;
        let digest = self.event_id.as_ref().map_or_else(digest, |id| Ok(xxh3_64(id.as_bytes())))?;
        Ok(Version { origin: Version::STREAM, order: i128::from(changed_at.0), digest })
    }
}

/// The table that a stream's ARN names: `…:table/NAME/stream/…`.
fn table_from_arn(record: &Record) -> Option<&str> {
    record.position.stream.split_once(":table/").and_then(|(_, rest)| rest.split('/').next())
}

/// Whether an image has members; a null or an empty object counts as missing.
fn is_non_empty(image: &str) -> bool {
    image.starts_with('{') && image[1..].trim_ascii_start() != "}"
}

fn raw_image<'a>(scanner: &mut JsonScanner<'a>) -> Result<Option<ItemImage<'a>>, Rejection> {
    Ok(Some(scanner.skip_value()?).filter(|image| is_non_empty(image)).map(ItemImage::Raw))
}

/// The version of a change with a sequence number: 21 to 40 digits
/// (<https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_StreamRecord.html>).
fn sequence_version(sequence: &str) -> Option<Version> {
    if sequence.is_empty() || !sequence.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits = sequence.trim_start_matches('0');
    let (leading, order) = digits.split_at(digits.len().saturating_sub(ORDER_DIGITS));
    let leading: u8 = if leading.is_empty() { 0 } else { leading.parse().ok()? };
    let order = if order.is_empty() { 0 } else { order.parse().ok()? };
    Some(Version { origin: Version::STREAM.checked_add(leading)?, order, digest: 0 })
}

/// The key's attributes and their column types, sorted by name: the record does not say which is the hash key.
fn key_columns(keys: &str) -> Result<Vec<KeyColumn>, Rejection> {
    let mut columns = Vec::new();
    each_key(keys, |name, sql_type| columns.push(KeyColumn { name: name.to_owned(), sql_type: Some(sql_type) }))?;
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(columns)
}

fn each_key(keys: &str, mut key: impl FnMut(&str, &'static str)) -> Result<(), Rejection> {
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
fn attributes<'a>(
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
fn hash_attribute(fields: &mut FieldTree, scanner: &mut JsonScanner<'_>) -> Result<Value<'static>, Rejection> {
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

fn redact_attributes(
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

fn write_redacted_text(
    scanner: &mut JsonScanner<'_>,
    field: FieldId,
    fields: &mut FieldTree,
    out: &mut String,
) -> Result<(), Rejection> {
    let text = scanner.string_value()?;
    append(out, &serde_json::Value::from(redact_text(fields, field, text)).to_string())
}
