//! The incremental backup: what each batch said, kept on S3 in the order of arrival, to be applied again at any time.
//!
//! A batch becomes one object for each table and hour: `backup/SOURCE/TABLE/yyyy-MM-dd/HH/SHARD-FIRST-LAST.ndjson.gz`, lines of
//! gzipped JSON. A batch that is delivered again overwrites its own objects. Records are kept as they came, without their
//! private fields, so that they go through today's configuration when they are applied again.

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

/// The folder of records that concern no table.
const CONTROL: &str = "_control";

/// A record, as a line.
#[derive(Serialize, Deserialize)]
struct BackupLine<'a> {
    #[serde(borrow)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    shard: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    sequence_number: std::borrow::Cow<'a, str>,
    sub_sequence_number: u32,
    /// The XXH3 of the document as the source sent it: versions hold it.
    digest: u64,
    arrival: String,
    #[serde(borrow)]
    partition_key: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    record: &'a RawValue,
}

/// The beginning of the keys of a source's backup.
pub fn prefix(source: &str) -> String {
    format!("backup/{}/", folder(source))
}

/// The beginning of the keys of one table's backup.
pub fn table_prefix(source: &str, table: &str) -> String {
    format!("{}{}/", prefix(source), folder(table))
}

/// The part of a key that stands for the hour of a moment: `yyyy-MM-dd/HH`.
pub fn hour(moment: Timestamp) -> String {
    let text = moment.to_string();
    format!("{}/{}", &text[..10], &text[11..13])
}

/// Where the records of a batch come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BatchOrigin {
    /// A shard: they follow one another, and the first and the last tell them all.
    Stream,
    /// Dead letters: any records together.
    Redrive,
}

/// The objects of a batch. Records that could not be decoded are dead letters, and no part of it.
pub fn build_objects(
    source: &str,
    decoder: &mut Decoder,
    batch: &Batch,
    tables: &[(usize, TableId)],
    control: &[usize],
    origin: BatchOrigin,
) -> Vec<NewObject> {
    let of_changes = tables.iter().map(|&(record, table)| (record, Some(table)));
    // Under each of its tables: a table is restored from its own folder alone.
    let tables: BTreeSet<_> = control.iter().map(|&record| (record, None)).chain(of_changes).collect();
    let mut groups: BTreeMap<String, BackupObject> = BTreeMap::new();
    for (index, table) in tables {
        let record = &batch.records[index];
        let Some(payload) = decoder.redact(record, batch.payload(record)) else { continue };
        let table = table.map_or(CONTROL.to_owned(), |table| decoder.tables.get(table).name.table.as_str().to_owned());
        let key = format!("{}{}/", table_prefix(source, &table), hour(record.arrival));
        let digest = record.digest(batch.payload(record));
        groups.entry(key).or_default().push(record, digest, &decoder.partition_key(record), payload);
    }
    groups.into_iter().map(|(folder, group)| group.object(&folder, origin)).collect()
}

/// A name as a folder.
fn folder(name: &str) -> String {
    name.replace('/', "_")
}

/// The records of one object.
struct BackupObject {
    lines: GzEncoder<Vec<u8>>,
    shard: Arc<str>,
    first: Option<String>,
    last: String,
    /// Of all their places.
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
        let place = &record.position;
        // A line's end can stand between the tokens of JSON only, where a space is as good.
        let payload: Vec<u8> =
            payload.into_iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }).collect();
        let text = String::from_utf8(payload).unwrap_or_default();
        let Ok(document) = serde_json::from_str::<&RawValue>(&text) else { return };
        let line = BackupLine {
            stream: (&*place.stream).into(),
            shard: (&*place.shard).into(),
            sequence_number: (&*place.sequence_number.0).into(),
            sub_sequence_number: place.sub_sequence_number,
            digest,
            arrival: record.arrival.to_string(),
            partition_key: partition_key.into(),
            record: document,
        };
        // Memory takes all that is written to it.
        serde_json::to_writer(&mut self.lines, &line).unwrap_or_default();
        self.lines.write_all(b"\n").unwrap_or_default();
        self.shard = place.shard.clone();
        self.last = format!("{}.{}", place.sequence_number.0, place.sub_sequence_number);
        self.first.get_or_insert_with(|| self.last.clone());
        self.position_digest.update(place.to_string().as_bytes());
    }

    fn object(self, folder: &str, origin: BatchOrigin) -> NewObject {
        let shard = if self.shard.is_empty() { "stream" } else { &self.shard };
        let name = format!("{shard}-{}-{}", self.first.unwrap_or_default(), self.last);
        let key = match origin {
            BatchOrigin::Stream => format!("{folder}{name}.ndjson.gz"),
            // A name of its own: the batch in which they were refused may have begun and ended with the same records.
            BatchOrigin::Redrive => format!("{folder}redriven-{name}-{:016x}.ndjson.gz", self.position_digest.digest()),
        };
        NewObject { key, body: self.lines.finish().unwrap_or_default() }
    }
}

/// A line that is no record: the object is not a backup's, or was damaged.
#[derive(Debug, thiserror::Error)]
#[error("not a backup record: {0}")]
pub struct InvalidBackupLine(#[from] serde_json::Error);

/// Puts the record of a line behind those of a batch, if it arrived within the time.
///
/// # Errors
/// What is wrong with the line.
pub fn push_line(line: &[u8], from: Timestamp, to: Timestamp, batch: &mut Batch) -> Result<(), InvalidBackupLine> {
    let line: BackupLine<'_> = serde_json::from_slice(line)?;
    let arrival = Timestamp::parse(&line.arrival).unwrap_or(Timestamp(0));
    if arrival < from || arrival >= to {
        return Ok(());
    }
    let start = batch.bytes.len();
    batch.bytes.extend_from_slice(line.record.get().as_bytes());
    let place = StreamPosition {
        stream: line.stream.into(),
        shard: line.shard.into(),
        sequence_number: SequenceNumber(line.sequence_number.into()),
        sub_sequence_number: line.sub_sequence_number,
    };
    let record = Record::new(place, arrival, line.partition_key.into(), start..batch.bytes.len());
    batch.records.push(Record { archived_digest: Some(line.digest), ..record });
    Ok(())
}
