//! The incremental backup: the records of each batch, stored on S3 in order of arrival, to be reapplied at any time.
//!
//! A batch becomes one object per table and hour, `backup/SOURCE/TABLE/yyyy-MM-dd/HH/SHARD-FIRST-LAST.ndjson.gz`: lines
//! of JSON, compressed with gzip. A redelivered batch overwrites its own objects. Records are stored as received,
//! without their private fields, so that reapplying them uses the current configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::sync::Arc;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use xxhash_rust::xxh3::Xxh3;

use crate::decode::Decoder;
use crate::object_store::NewObject;
use crate::record::{Batch, Record, SequenceNumber, StreamPosition};
use crate::spec::TableId;
use crate::timestamp::Timestamp;

/// The folder of records without a table.
const CONTROL: &str = "_control";

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
    #[serde(borrow)]
    record: &'a RawValue,
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

/// The objects of a batch. They omit records that could not be decoded, which are dead letters.
pub fn build_objects(
    source: &str,
    decoder: &mut Decoder,
    batch: &Batch,
    tables: &[(usize, TableId)],
    control: &[usize],
    origin: BatchOrigin,
) -> Vec<NewObject> {
    let tables_of_changes = tables.iter().map(|&(record, table)| (record, Some(table)));
    // Under each of its tables, because a table is restored only from its own folder.
    let tables: BTreeSet<_> = control.iter().map(|&record| (record, None)).chain(tables_of_changes).collect();
    let mut objects: BTreeMap<String, BackupObject> = BTreeMap::new();
    for (index, table) in tables {
        let record = &batch.records[index];
        let document = batch.payload(record);
        let Some((payload, digest)) = decoder.redact(record, document).zip(decoder.digest(record, document)) else {
            continue;
        };
        let table = table.map_or(CONTROL.to_owned(), |table| decoder.tables.get(table).name.table.as_str().to_owned());
        let key = format!("{}{}/", table_prefix(source, &table), hour(record.arrival));
        objects.entry(key).or_default().push(record, digest, &decoder.partition_key(record), payload);
    }
    objects.into_iter().map(|(folder, object)| object.finish(&folder, origin)).collect()
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
        let payload: Vec<u8> =
            payload.into_iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect();
        let text = String::from_utf8(payload).unwrap_or_default();
        let Ok(document) = serde_json::from_str::<&RawValue>(&text) else { return };
        let line = BackupLine {
            stream: (&*position.stream).into(),
            shard: (&*position.shard).into(),
            sequence_number: (&*position.sequence_number.0).into(),
            sub_sequence_number: position.sub_sequence_number,
            digest,
            arrival: record.arrival.to_string(),
            partition_key: partition_key.into(),
            record: document,
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

/// A line that is not a record: the object is not a backup, or is damaged.
#[derive(Debug, thiserror::Error)]
#[error("not a backup record: {0}")]
pub struct InvalidBackupLine(#[from] serde_json::Error);

/// Appends the record of a line to a batch, if it arrived within the time range.
///
/// # Errors
/// Returns an error if the line is not a valid record.
pub fn push_line(line: &[u8], from: Timestamp, to: Timestamp, batch: &mut Batch) -> Result<(), InvalidBackupLine> {
    let line: BackupLine<'_> = serde_json::from_slice(line)?;
    let arrival = Timestamp::parse(&line.arrival).unwrap_or(Timestamp(0));
    if arrival < from || arrival >= to {
        return Ok(());
    }
    let start = batch.bytes.len();
    batch.bytes.extend_from_slice(line.record.get().as_bytes());
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
