//! Changes of DynamoDB tables: records of their streams, the same through Kinesis, and lines of exports to S3.
//!
//! An attribute becomes a value of its own type: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/HowItWorks.NamingRulesDataTypes.html>.
//! Within lists and maps, which become JSON, numbers stay digits and bytes stay base64.

mod attributes;
mod redact;

use std::borrow::Cow;

use xxhash_rust::xxh3::xxh3_64;

use super::json_objects::{for_each_member, read_raw, read_string, skip_value};
use super::malformed;
use super::replica::{DecodeOutput, ReplicaTable, ReplicaTables, RowVersion};
use crate::change::Version;
use crate::config::SourceConfig;
use crate::field::FieldTree;
use crate::json_scanner::JsonScanner;
use crate::record::Record;
use crate::rejection::{Rejection, RejectionReason};
use crate::spec::{MergeBy, TableRegistry};
use crate::timestamp::Timestamp;
use attributes::{attributes, each_key, key_columns};
use redact::redact_record;

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
        let privacy = self.replica_tables.privacy();
        let version = parts.version(record.arrival, || {
            privacy.document_digest(record, json, || self.redact(record, json, output.fields, output.tables))
        })?;
        let image = if deleted { parts.keys.map(ItemImage::Raw) } else { parts.new_image.or(parts.item) };
        match image.ok_or_else(|| malformed("record has neither Keys nor an image"))? {
            ItemImage::Decoded => {}
            ItemImage::Raw(image) => {
                output.changes.values.truncate(start);
                attributes(&mut JsonScanner::new(image), table.root_field, output.fields, &mut output.changes.values)?;
            }
        }
        let row = RowVersion { table, record: index, version, start };
        if deleted {
            let deleted_at = parts.change_time().unwrap_or(record.arrival);
            self.replica_tables.delete(row, deleted_at, output);
        } else {
            self.replica_tables.put(row, output);
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
        redact_record(json, root_field, fields)
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
