//! Changes of DynamoDB tables: records of their streams, the same through Kinesis, and lines of exports to S3.
//!
//! An attribute becomes a value of its own type: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>.
//! Within lists and maps, which become JSON, numbers stay digits and bytes stay base64.

use std::borrow::Cow;

use base64_simd::STANDARD;
use xxhash_rust::xxh3::xxh3_64;

use super::json_objects::{
    JsonWriter, append, copy_value, for_each_member, read_raw, read_string, rewrite_document, rewrite_elements,
    rewrite_object, skip_value, write_null,
};
use super::malformed;
use super::replica::{DecodeOutput, ReplicaTable, ReplicaTables};
use crate::change::{Value, Version};
use crate::config::SourceConfig;
use crate::decimal::Decimal;
use crate::field::{FieldId, FieldTree, Privacy};
use crate::json_scanner::JsonScanner;
use crate::record::Record;
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{KeyColumn, MergeBy, TableRegistry};
use crate::timestamp::Timestamp;

/// Digits of a sequence number that an order holds; of longer ones the first digits count as eras.
const ORDER_DIGITS: usize = 38;

/// The tables of a DynamoDB source.
#[derive(Debug)]
pub struct Dynamodb {
    /// What it has in common with others.
    pub replica: ReplicaTables,
}

/// A record, what it holds of the item still untouched or read on the way.
#[derive(Default)]
struct DynamodbRecord<'a> {
    event: Option<Cow<'a, str>>,
    event_id: Option<Cow<'a, str>>,
    table: Option<Cow<'a, str>>,
    keys: Option<&'a str>,
    new: Option<ItemImage<'a>>,
    /// The whole item: a line of a full export, or a scanned item.
    item: Option<ItemImage<'a>>,
    sequence: Option<Cow<'a, str>>,
    view: Option<Cow<'a, str>>,
    created: Option<&'a str>,
    written: Option<&'a str>,
}

/// A record's image, or a whole item.
#[derive(Clone, Copy)]
enum ItemImage<'a> {
    /// As it stands.
    Raw(&'a str),
    /// Its attributes have been read already.
    Decoded,
}

impl Dynamodb {
    /// The tables of a source.
    pub fn new(source: &SourceConfig) -> Self {
        Self { replica: ReplicaTables::new(source, "DynamoDB table", MergeBy::Row) }
    }

    /// Appends the change that a record tells.
    pub fn document<'a>(
        &mut self,
        index: usize,
        record: &Record,
        json: &'a str,
        page: &mut DecodeOutput<'_, 'a>,
    ) -> Result<(), Rejection> {
        let start = page.changes.values.len();
        // Most records are of a table that has been met: one way through the document is enough for those.
        let met = table_from_arn(record).and_then(|name| self.replica.table_with_key(name, page.tables));
        let parts = DynamodbRecord::read(json, &mut |scanner| match met {
            Some(known) => {
                page.changes.values.truncate(start);
                attributes(scanner, known.root_field, page.fields, &mut page.changes.values)?;
                Ok((page.changes.values.len() > start).then_some(ItemImage::Decoded))
            }
            None => raw_image(scanner),
        })?;
        let known = match met {
            Some(known) => {
                // Nothing is learnt from its key; but what is none, is none.
                parts.keys.map_or(Ok(()), |keys| each_key(keys, |_name, _type| ()))?;
                known
            }
            None => self.resolve_table(&parts, record, page)?,
        };
        let deleted = parts.is_delete()?;
        let version = parts.version(record, json)?;
        let image = if deleted { parts.keys.map(ItemImage::Raw) } else { parts.new.or(parts.item) };
        match image.ok_or_else(|| malformed("record has neither Keys nor an image"))? {
            ItemImage::Decoded => {}
            ItemImage::Raw(image) => {
                page.changes.values.truncate(start);
                attributes(&mut JsonScanner::new(image), known.root_field, page.fields, &mut page.changes.values)?;
            }
        }
        if deleted {
            let at = parts.change_time().unwrap_or(record.arrival);
            self.replica.delete(known, index, version, at, start, page);
        } else {
            self.replica.put(known, index, version, start, page);
        }
        Ok(())
    }

    /// The table of a record that is the first of it, or the first that tells its key; a whole item does not.
    fn resolve_table(
        &mut self,
        parts: &DynamodbRecord<'_>,
        record: &Record,
        page: &mut DecodeOutput<'_, '_>,
    ) -> Result<ReplicaTable, Rejection> {
        let name = parts.table_name(record)?;
        let key = parts.keys.map(key_columns).transpose()?.unwrap_or_default();
        self.replica.table(name, &key, page.fields, page.tables)
    }

    /// The record again, without its private attributes.
    pub fn redact(
        &mut self,
        record: &Record,
        json: &str,
        fields: &mut FieldTree,
        tables: &mut TableRegistry,
    ) -> Result<String, Rejection> {
        let parts = DynamodbRecord::read(json, &mut raw_image)?;
        let node = self.replica.table(parts.table_name(record)?, &[], fields, tables)?.root_field;
        let mut member = |key: &str, scanner: &mut JsonScanner<'_>, out: &mut String| match key {
            "dynamodb" => {
                rewrite_object(scanner, out, &mut |key, scanner, out| redact_image(key, node, fields, scanner, out))
            }
            _ => redact_image(key, node, fields, scanner, out),
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
            "NewImage" => read_image(scanner, &mut parts.new),
            "Metadata" => for_each_member(scanner, |key, scanner| match key {
                "WriteTimestampMicros" => {
                    for_each_member(scanner, |_type, scanner| read_raw(scanner, &mut parts.written))
                }
                _ => skip_value(scanner),
            }),
            "dynamodb" => for_each_member(scanner, |key, scanner| match key {
                "ApproximateCreationDateTime" => read_raw(scanner, &mut parts.created),
                "Keys" => read_raw(scanner, &mut parts.keys),
                "NewImage" => read_image(scanner, &mut parts.new),
                "SequenceNumber" => read_string(scanner, &mut parts.sequence),
                "StreamViewType" => read_string(scanner, &mut parts.view),
                _ => skip_value(scanner),
            }),
            _ => skip_value(scanner),
        })?;
        scanner.expect_end()?;
        parts.keys = parts.keys.filter(|keys| is_non_empty(keys));
        Ok(parts)
    }

    /// The stream's ARN, or the record's own word.
    fn table_name<'r>(&'r self, record: &'r Record) -> Result<&'r str, Rejection> {
        let name = table_from_arn(record).or(self.table.as_deref());
        name.ok_or_else(|| malformed("neither `tableName` nor the stream's ARN names a table"))
    }

    fn is_delete(&self) -> Result<bool, Rejection> {
        match self.event.as_deref() {
            Some("REMOVE") => Ok(true),
            Some("INSERT" | "MODIFY") if self.new.is_some() => Ok(false),
            Some("INSERT" | "MODIFY") => match self.view.as_deref() {
                Some(view @ ("KEYS_ONLY" | "OLD_IMAGE")) => {
                    Err(Rejection::new(RejectionReason::ViewType(view.to_owned())))
                }
                Some(_) | None => Err(malformed("NewImage is missing")),
            },
            Some(other) => {
                Err(malformed(format!("unknown eventName {:?}", other.chars().take(20).collect::<String>())))
            }
            // A line of an export: a whole item, or what became of a key within a span of time.
            None if self.item.is_some() => Ok(false),
            None if self.written.is_some() => Ok(self.new.is_none()),
            None => Err(malformed("eventName is missing")),
        }
    }

    /// When the change was made, where the record tells it.
    fn change_time(&self) -> Option<Timestamp> {
        Timestamp::parse_epoch(self.created?)
    }

    /// Streams are ordered by their sequence numbers; changes through Kinesis, which have none, by when they were made;
    /// what was loaded is older than both.
    fn version(&self, record: &Record, json: &str) -> Result<Version, Rejection> {
        if let Some(sequence) = &self.sequence {
            return sequence_version(sequence)
                .ok_or_else(|| malformed("SequenceNumber is not a number of up to 40 digits"));
        }
        if let Some(written) = self.written {
            let micros =
                written.trim_matches('"').parse().map_err(|_no| malformed("WriteTimestampMicros is not a number"))?;
            return Ok(Version { origin: Version::SNAPSHOT, order: micros, digest: record.digest(json.as_bytes()) });
        }
        if self.item.is_some() {
            let order = i128::from(record.arrival.0);
            return Ok(Version { origin: Version::SNAPSHOT, order, digest: record.digest(json.as_bytes()) });
        }
        let made = self
            .change_time()
            .ok_or_else(|| malformed("record has neither SequenceNumber nor ApproximateCreationDateTime"))?;
        let identity = self.event_id.as_deref().unwrap_or(json.trim_ascii());
        Ok(Version { origin: Version::STREAM, order: i128::from(made.0), digest: xxh3_64(identity.as_bytes()) })
    }
}

/// The table that a stream's ARN names: `…:table/NAME/stream/…`.
fn table_from_arn(record: &Record) -> Option<&str> {
    record.position.stream.split_once(":table/").and_then(|(_, rest)| rest.split('/').next())
}

/// A null, or an object without a member, is as good as none.
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
    let (above, order) = digits.split_at(digits.len().saturating_sub(ORDER_DIGITS));
    let above: u8 = if above.is_empty() { 0 } else { above.parse().ok()? };
    let order = if order.is_empty() { 0 } else { order.parse().ok()? };
    Some(Version { origin: Version::STREAM.checked_add(above)?, order, digest: 0 })
}

/// The key's attributes and the types of their columns, by name: which of them is the hash key nobody tells.
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
    node: FieldId,
    fields: &mut FieldTree,
    values: &mut Vec<(FieldId, Value<'a>)>,
) -> Result<(), Rejection> {
    let mut before = None;
    for_each_member(scanner, |key, scanner| {
        check_name(key)?;
        let field = fields.child_after(node, before, key);
        before = Some(field);
        match fields.privacy(field) {
            Some(Privacy::Drop) => return skip_value(scanner),
            Some(Privacy::Sha256) => values.push((field, Value::Text(Cow::Owned(hash_attribute(fields, scanner)?)))),
            None => values.push((field, attribute(scanner, field, fields)?)),
        }
        Ok(())
    })
}

/// `{"S":"x"}` and its like.
fn attribute<'a>(
    scanner: &mut JsonScanner<'a>,
    field: FieldId,
    fields: &mut FieldTree,
) -> Result<Value<'a>, Rejection> {
    typed(scanner, |descriptor, scanner| {
        Ok(match descriptor {
            "S" => Value::Text(scanner.string_value()?),
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
                write_typed(descriptor, scanner, field, fields, &mut json)?;
                Value::Json(Cow::Owned(json))
            }
            other => return Err(invalid_record(other)),
        })
    })
}

/// Names are kept as comments, which hold no U+0000 and are not empty; DynamoDB has no empty name either.
fn check_name(name: &str) -> Result<(), Rejection> {
    let kept = !name.is_empty() && !name.contains('\0');
    kept.then_some(()).ok_or_else(|| malformed("an attribute name is empty or contains U+0000"))
}

/// What an attribute holds, which has exactly one type.
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

fn invalid_record(descriptor: &str) -> Rejection {
    malformed(format!("unknown attribute type {:?}", descriptor.chars().take(20).collect::<String>()))
}

/// A number as its text: 38 digits and exponents from -130 to 125 stay as they are.
fn number<'a>(scanner: &mut JsonScanner<'a>) -> Result<&'a str, Rejection> {
    match scanner.string_value()? {
        Cow::Borrowed(text) if Decimal::parse(text).is_some() => Ok(text),
        Cow::Borrowed(_) | Cow::Owned(_) => Err(malformed("N is not a number")),
    }
}

fn bytes(scanner: &mut JsonScanner<'_>) -> Result<Vec<u8>, Rejection> {
    STANDARD.decode_to_vec(&*scanner.string_value()?).map_err(|_not_base64| malformed("B is not base64"))
}

/// The elements of a set have no order; here they get one, so that equal sets are equal arrays.
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

/// An attribute as plain JSON, without what is private in it.
fn write_json(
    scanner: &mut JsonScanner<'_>,
    field: FieldId,
    fields: &mut FieldTree,
    out: &mut String,
) -> Result<(), Rejection> {
    typed(scanner, |descriptor, scanner| write_typed(descriptor, scanner, field, fields, out))
}

fn write_typed(
    descriptor: &str,
    scanner: &mut JsonScanner<'_>,
    field: FieldId,
    fields: &mut FieldTree,
    out: &mut String,
) -> Result<(), Rejection> {
    match descriptor {
        "S" | "B" | "BOOL" | "SS" | "BS" => copy_value(scanner, out),
        "N" => append(out, number(scanner)?),
        "NULL" => write_null(scanner, out),
        "NS" => rewrite_elements(scanner, out, |scanner, out| append(out, number(scanner)?)),
        "L" => rewrite_elements(scanner, out, |scanner, out| write_json(scanner, field, fields, out)),
        "M" => {
            let mut object = JsonWriter::object(out);
            for_each_member(scanner, |key, scanner| {
                let child = fields.child(field, key);
                match fields.privacy(child) {
                    Some(Privacy::Drop) => skip_value(scanner),
                    Some(Privacy::Sha256) => {
                        append(object.member(key), &format!("\"{}\"", hash_attribute(fields, scanner)?))
                    }
                    None => write_json(scanner, child, fields, object.member(key)),
                }
            })?;
            object.end()
        }
        other => Err(invalid_record(other)),
    }
}

/// The hash of an attribute: of a text itself, of a number's digits, of anything else's JSON.
fn hash_attribute(fields: &FieldTree, scanner: &mut JsonScanner<'_>) -> Result<String, Rejection> {
    let mut found = String::new();
    for_each_member(scanner, |descriptor, scanner| {
        found = match descriptor {
            "S" | "N" => fields.hash(&scanner.string_value()?),
            _ => fields.hash(scanner.skip_value()?),
        };
        Ok(())
    })?;
    Ok(found)
}

/// A member of a record, if it is an image without its private attributes, otherwise as it is.
fn redact_image(
    key: &str,
    node: FieldId,
    fields: &mut FieldTree,
    scanner: &mut JsonScanner<'_>,
    out: &mut String,
) -> Result<(), Rejection> {
    match key {
        "Keys" | "NewImage" | "OldImage" | "Item" if scanner.peek() == Some(b'{') => {
            redact_attributes(scanner, node, fields, out)
        }
        _ => copy_value(scanner, out),
    }
}

fn redact_attributes(
    scanner: &mut JsonScanner<'_>,
    above: FieldId,
    fields: &mut FieldTree,
    out: &mut String,
) -> Result<(), Rejection> {
    let mut object = JsonWriter::object(out);
    for_each_member(scanner, |key, scanner| {
        let field = fields.child(above, key);
        match fields.privacy(field) {
            Some(Privacy::Drop) => skip_value(scanner),
            Some(Privacy::Sha256) => {
                append(object.member(key), &format!("{{\"S\":\"{}\"}}", hash_attribute(fields, scanner)?))
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
    if !fields.private_within(field) {
        return copy_value(scanner, out);
    }
    rewrite_object(scanner, out, &mut |descriptor, scanner, out| match descriptor {
        "M" => redact_attributes(scanner, field, fields, out),
        "L" => rewrite_elements(scanner, out, |scanner, out| redact_attribute(scanner, field, fields, out)),
        _ => copy_value(scanner, out),
    })
}
