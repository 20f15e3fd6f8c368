//! An export of a DynamoDB table: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataExport.Output.html>.

use serde::Deserialize;

use super::{BackfillError, Cursor, Piece};
use crate::record::{Place, Record, SequenceNumber};
use crate::spec::KeyColumn;
use crate::timestamp::Timestamp;

/// What is needed of `manifest-summary.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    table_arn: String,
    /// Of a full export: the moment whose state it holds.
    export_time: Option<String>,
    /// Of an incremental one: the end of its time.
    export_to_time: Option<String>,
    s3_bucket: String,
    manifest_files_s3_key: String,
    item_count: Option<u64>,
    output_format: String,
}

/// A line of `manifest-files.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DataFile {
    data_file_s3_key: String,
    item_count: u64,
}

/// Loads the data files, or the one that is asked for.
pub async fn work(
    piece: &mut Piece<'_, '_>,
    manifest: &str,
    only: Option<&str>,
    key: &[String],
) -> Result<(), BackfillError> {
    let wrong = |reason: String| BackfillError::Manifest { address: manifest.to_owned(), reason };
    let text = piece.backfill.archive.read_text(manifest).await?;
    let summary: Summary = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if summary.output_format != "DYNAMODB_JSON" {
        return Err(wrong(format!("its format is {}, and only DYNAMODB_JSON is read", summary.output_format)));
    }
    let time = summary.export_time.as_deref().or(summary.export_to_time.as_deref());
    let time = time.and_then(Timestamp::parse).ok_or_else(|| wrong("it tells no exportTime".to_owned()))?;
    let table = summary.table_arn.rsplit('/').next().unwrap_or_default().to_owned();
    piece.learn_key(&table, key).await?;
    let files = files(piece, &summary, only).await?;
    piece.progress.total = if only.is_some() { files.first().map(|file| file.item_count) } else { summary.item_count };
    let Cursor { object, line, .. } = piece.progress.cursor.clone().unwrap_or_default();
    let begun = files.iter().position(|file| file.data_file_s3_key == object).unwrap_or(0);
    for (number, file) in files.iter().enumerate().skip(begun) {
        let skipped = if number == begun { line } else { 0 };
        if load(piece, &summary, file, time, skipped).await? == Loaded::InPart {
            return Ok(());
        }
    }
    piece.finish();
    Ok(())
}

async fn files(piece: &Piece<'_, '_>, summary: &Summary, only: Option<&str>) -> Result<Vec<DataFile>, BackfillError> {
    let address = format!("s3://{}/{}", summary.s3_bucket, summary.manifest_files_s3_key);
    let mut lines = piece.backfill.archive.lines(&address).await?;
    let mut files = Vec::new();
    while let Some(line) = lines.next().await? {
        let file: DataFile = serde_json::from_slice(line)
            .map_err(|error| BackfillError::Manifest { address: address.clone(), reason: error.to_string() })?;
        if only.is_none_or(|only| only == file.data_file_s3_key) {
            files.push(file);
        }
    }
    match only.filter(|_| files.is_empty()) {
        Some(only) => Err(BackfillError::Manifest { address, reason: format!("it has no file {only}") }),
        None => Ok(files),
    }
}

#[derive(PartialEq, Eq)]
enum Loaded {
    Whole,
    InPart,
}

async fn load(
    piece: &mut Piece<'_, '_>,
    summary: &Summary,
    file: &DataFile,
    time: Timestamp,
    skipped: u64,
) -> Result<Loaded, BackfillError> {
    let object = &file.data_file_s3_key;
    let mut lines = piece.backfill.archive.lines(&format!("s3://{}/{object}", summary.s3_bucket)).await?;
    let (mut number, mut bytes) = (0, 0);
    while let Some(line) = lines.next().await? {
        number += 1;
        if number <= skipped {
            continue;
        }
        piece.push(&summary.table_arn, object, number, time, line);
        if piece.is_full() {
            piece.progress.bytes += lines.bytes - bytes;
            bytes = lines.bytes;
            piece.write(Cursor { object: object.clone(), line: number, key: None }).await?;
            if piece.time_is_up() {
                return Ok(Loaded::InPart);
            }
        }
    }
    if number <= skipped {
        // It was done before; the piece goes on with the next one, however little time it has.
        return Ok(Loaded::Whole);
    }
    piece.progress.bytes += lines.bytes - bytes;
    piece.write(Cursor { object: object.clone(), line: number, key: None }).await?;
    Ok(if piece.time_is_up() { Loaded::InPart } else { Loaded::Whole })
}

impl Piece<'_, '_> {
    /// Puts a line of a table into the batch. It is known by its object and line.
    pub(super) fn push(&mut self, table_arn: &str, object: &str, line: u64, time: Timestamp, document: &[u8]) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(document);
        let place = Place {
            stream: table_arn.into(),
            shard: object.into(),
            sequence: SequenceNumber(line.to_string().into()),
            sub_sequence: 0,
        };
        let payload = start..self.batch.bytes.len();
        self.batch.records.push(Record::new(place, time, "".into(), payload));
    }

    /// Tells the table's key: as the task does, or else as DynamoDB does. A table that is gone there has to be here already.
    pub(super) async fn learn_key(&mut self, table: &str, told: &[String]) -> Result<(), BackfillError> {
        let key = if told.is_empty() {
            self.backfill.tables.key(table).await?
        } else {
            told.iter().map(|name| KeyColumn { name: name.clone(), sql_type: None }).collect()
        };
        self.backfill.ingest.learn_key(self.source, table, &key)?;
        self.key = Some((table.to_owned(), key));
        Ok(())
    }
}
