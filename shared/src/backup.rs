//! The incremental backup: the records of each batch, stored on S3 in order of arrival, to be reapplied at any time.
//!
//! A batch becomes one object per table and hour, `backup/SOURCE/TABLE/yyyy-MM-dd/HH/SHARD-FIRST-LAST.ndjson.gz`: lines
//! of JSON, compressed with gzip. A redelivered batch overwrites its own objects. Records are stored as received,
//! without their private fields, so that reapplying them uses the current configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

use base64_simd::STANDARD;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use crate::decode::Decoder;
use crate::object_store::NewObject;
use crate::record::{Batch, Record, SequenceNumber, StreamPosition};
use crate::spec::TableId;
use crate::timestamp::Timestamp;

/// The folder of records without a table.
const CONTROL: &str = "_control";

/// The arrival of a record that does not say when it arrived, such as a DynamoDB record without a creation time. It is part
/// of every time range.
pub const UNKNOWN_ARRIVAL: Timestamp = Timestamp(0);

/// One record, as a line.
#[derive(Serialize, Deserialize)]
struct BackupLine<'a> {
    #[serde(borrow)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    shard: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    sequence_number: std::borrow::Cow<'a, str>,
    sub_sequence_number: u32,
    /// The XXH3 of the document without its private fields: versions contain it.
    digest: u64,
    arrival: String,
    #[serde(borrow)]
    partition_key: std::borrow::Cow<'a, str>,
    /// The document; null if it is not JSON.
    #[serde(borrow)]
    record: &'a RawValue,
    /// A document that is not JSON, as base64.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    payload: Option<std::borrow::Cow<'a, str>>,
}

/// The key prefix of a source's backup.
pub fn prefix(source: &str) -> String {
    format!("backup/{}/", folder(source))
}

/// The key prefix of one table's backup.
pub fn table_prefix(source: &str, table: &str) -> String {
    format!("{}{}/", prefix(source), folder(table))
}

/// The part of a key for the hour of a timestamp: `yyyy-MM-dd/HH`.
pub fn hour(timestamp: Timestamp) -> String {
    let text = timestamp.to_string();
    format!("{}/{}", &text[..10], &text[11..13])
}

/// Where the records of a batch come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchOrigin {
    /// A shard: its records are consecutive, so that the first and the last one identify them all.
    Stream,
    /// Dead letters: any selection of records.
    Redrive,
}

/// The objects of a batch, and the written records that they omit because their private fields cannot be identified. Records
/// that could not be decoded are dead letters, and not part of either.
pub fn build_objects(
    source: &str,
    decoder: &mut Decoder,
    batch: &Batch,
    tables: &[(usize, TableId)],
    control: &[usize],
    origin: BatchOrigin,
) -> (Vec<NewObject>, BTreeSet<usize>) {
    let tables_of_changes = tables.iter().map(|&(record, table)| (record, Some(table)));
    // Under each of its tables, because a table is restored only from its own folder.
    let tables: BTreeSet<_> = control.iter().map(|&record| (record, None)).chain(tables_of_changes).collect();
    let (mut objects, mut omitted): (BTreeMap<String, BackupObject>, _) = (BTreeMap::new(), BTreeSet::new());
    for (index, table) in tables {
        let record = &batch.records[index];
        let document = batch.payload(record);
        let Some((payload, digest)) = decoder.redact(record, document) else {
            omitted.extend(table.map(|_| index));
            continue;
        };
        let table = table.map_or(CONTROL.to_owned(), |table| decoder.tables.get(table).name.table.as_str().to_owned());
        let key = format!("{}{}/", table_prefix(source, &table), hour(record.arrival));
        objects.entry(key).or_default().push(record, digest, &decoder.partition_key(record), payload);
    }
    (objects.into_iter().map(|(folder, object)| object.finish(&folder, origin)).collect(), omitted)
}

/// A name as a folder name.
fn folder(name: &str) -> String {
    name.replace('/', "_")
}

/// The records of one object.
struct BackupObject {
    lines: GzEncoder<Vec<u8>>,
    shard: Arc<str>,
    first: Option<String>,
    last: String,
    /// Of all stream positions.
    position_digest: Xxh3,
}

impl Default for BackupObject {
    fn default() -> Self {
        let lines = GzEncoder::new(Vec::new(), Compression::fast());
        Self { lines, shard: "".into(), first: None, last: String::new(), position_digest: Xxh3::new() }
    }
}

impl BackupObject {
    fn push(&mut self, record: &Record, digest: u64, partition_key: &str, payload: Vec<u8>) {
        let position = &record.position;
        // JSON has line breaks only between tokens, where a space is equivalent.
        let one_line: Vec<u8> =
            payload.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }).collect();
        let document = serde_json::from_slice::<&RawValue>(&one_line);
        let not_json = document.is_err().then(|| STANDARD.encode_to_string(&payload).into());
        let line = BackupLine {
            stream: (&*position.stream).into(),
            shard: (&*position.shard).into(),
            sequence_number: (&*position.sequence_number.0).into(),
            sub_sequence_number: position.sub_sequence_number,
            digest,
            arrival: record.arrival.to_string(),
            partition_key: partition_key.into(),
            record: document.unwrap_or(RawValue::NULL),
            payload: not_json,
        };
        // Writes to memory do not fail.
        serde_json::to_writer(&mut self.lines, &line).unwrap_or_default();
        self.lines.write_all(b"\n").unwrap_or_default();
        self.shard = position.shard.clone();
        self.last = format!("{}.{}", position.sequence_number.0, position.sub_sequence_number);
        self.first.get_or_insert_with(|| self.last.clone());
        self.position_digest.update(position.to_string().as_bytes());
    }

    fn finish(self, folder: &str, origin: BatchOrigin) -> NewObject {
        let shard = if self.shard.is_empty() { "stream" } else { &self.shard };
        let name = format!("{shard}-{}-{}", self.first.unwrap_or_default(), self.last);
        let key = match origin {
            BatchOrigin::Stream => format!("{folder}{name}.ndjson.gz"),
            // A distinct name: the batch in which the records were rejected may have begun and ended with the same
            // ones.
            BatchOrigin::Redrive => format!("{folder}redriven-{name}-{:016x}.ndjson.gz", self.position_digest.digest()),
        };
        NewObject { key, body: self.lines.finish().unwrap_or_default() }
    }
}

/// A line that is not a record: the object is not a backup, or is damaged. The text contains nothing of the line.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBackupLine {
    /// Not JSON, or not the JSON of a backup.
    #[error("not a backup record: {} at column {}", problem(.0), .0.column())]
    Json(serde_json::Error),
    /// The record would be in no time range.
    #[error("the arrival is not a timestamp")]
    Arrival,
    /// The document is lost.
    #[error("the payload is not base64")]
    Payload,
}

fn problem(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        Category::Syntax | Category::Io => "invalid JSON",
        Category::Eof => "the line ends early",
        Category::Data => "a member is missing or has the wrong type",
    }
}

/// Appends the record of a line to a batch, if it arrived within the time range or at an unknown time.
///
/// # Errors
/// Returns an error if the line is not a valid record.
pub fn push_line(line: &[u8], from: Timestamp, to: Timestamp, batch: &mut Batch) -> Result<(), InvalidBackupLine> {
    let line: BackupLine<'_> = serde_json::from_slice(line).map_err(InvalidBackupLine::Json)?;
    let arrival = Timestamp::parse(&line.arrival).ok_or(InvalidBackupLine::Arrival)?;
    if arrival != UNKNOWN_ARRIVAL && (arrival < from || arrival >= to) {
        return Ok(());
    }
    let start = batch.bytes.len();
    match &line.payload {
        None => batch.bytes.extend_from_slice(line.record.get().as_bytes()),
        Some(payload) => {
            let payload = STANDARD.decode_to_vec(&**payload);
            batch.bytes.extend_from_slice(&payload.map_err(|_not_base64| InvalidBackupLine::Payload)?);
        }
    }
    let position = StreamPosition {
        stream: line.stream.into(),
        shard: line.shard.into(),
        sequence_number: SequenceNumber(line.sequence_number.into()),
        sub_sequence_number: line.sub_sequence_number,
    };
    let record = Record::new(position, arrival, line.partition_key.into(), start..batch.bytes.len());
    batch.records.push(Record { archived_digest: Some(line.digest), ..record });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arrival: Timestamp, document: &[u8]) -> Vec<u8> {
        let sequence_number = SequenceNumber("1".into());
        let position =
            StreamPosition { stream: "s".into(), shard: "0".into(), sequence_number, sub_sequence_number: 0 };
        let mut object = BackupObject::default();
        object.push(&Record::new(position, arrival, "k".into(), 0..0), 7, "k", document.to_vec());
        let mut lines = Vec::new();
        let object = object.finish("", BatchOrigin::Stream);
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&object.body[..]), &mut lines).unwrap();
        lines
    }

    fn documents(lines: &[&[u8]], (from, to): (i64, i64)) -> Vec<String> {
        let mut batch = Batch::default();
        for line in lines {
            push_line(line, Timestamp(from), Timestamp(to), &mut batch).unwrap();
        }
        let documents = batch.records.iter().map(|record| String::from_utf8_lossy(batch.payload(record)).into_owned());
        documents.collect()
    }

    #[test]
    fn a_record_that_is_not_json_is_kept() {
        for document in ["{\"a\":", "", "a\nb", "null", "{\"a\": 1e400}"] {
            assert_eq!(documents(&[&line(Timestamp(5), document.as_bytes())], (5, 6)), [document]);
        }
        assert_eq!(documents(&[&line(Timestamp(5), b"{\"a\":\n1}")], (5, 6)), ["{\"a\": 1}"]);
    }

    #[test]
    fn a_record_that_arrived_at_an_unknown_time_is_in_every_range() {
        let lines = [line(UNKNOWN_ARRIVAL, b"0"), line(Timestamp(4), b"4"), line(Timestamp(5), b"5")];
        let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
        assert_eq!(documents(&lines, (5, 6)), ["0", "5"]);
    }

    #[test]
    fn a_line_that_is_not_a_record_is_an_error_without_its_text() {
        let good = String::from_utf8(line(Timestamp(5), b"1")).unwrap();
        let arrival = good.replace("1970-01-01T00:00:00.000005Z", "yesterday, secret");
        assert_ne!(good, arrival);
        for (line, error) in [
            (&*arrival, "the arrival is not a timestamp"),
            (&good.replace("\"record\":1", "\"record\":null,\"payload\":\"secret\""), "the payload is not base64"),
            (
                &good.replace("\"digest\":7", "\"digest\":\"secret\""),
                "not a backup record: a member is missing or has the wrong type at column",
            ),
            (&good[..20], "not a backup record: the line ends early at column"),
            ("secret", "not a backup record: invalid JSON at column 1"),
        ] {
            let mut batch = Batch::default();
            let found = push_line(line.as_bytes(), Timestamp(0), Timestamp(9), &mut batch).unwrap_err().to_string();
            assert!(found.starts_with(error) && !found.contains("secret"), "{line}: {found}");
            assert!(batch.records.is_empty());
        }
    }
}
