//! An export of a DynamoDB table: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataExport.Output.html>.

use serde::Deserialize;

use super::{BackfillCursor, BackfillError, BackfillRun};
use crate::timestamp::Timestamp;

/// What is needed of `manifest-summary.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestSummary {
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
pub async fn load_export(
    piece: &mut BackfillRun<'_, '_>,
    manifest: &str,
    only: Option<&str>,
    key: &[String],
) -> Result<(), BackfillError> {
    let wrong = |reason: String| BackfillError::Manifest { address: manifest.to_owned(), reason };
    let text = piece.backfill.archive.read_text(manifest).await?;
    let summary: ManifestSummary = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if summary.output_format != "DYNAMODB_JSON" {
        return Err(wrong(format!("the format is {}; only DYNAMODB_JSON is supported", summary.output_format)));
    }
    let time = summary.export_time.as_deref().or(summary.export_to_time.as_deref());
    let time = time.and_then(Timestamp::parse).ok_or_else(|| wrong("exportTime is missing".to_owned()))?;
    let table = summary.table_arn.rsplit('/').next().unwrap_or_default().to_owned();
    piece.set_table_key(&table, key).await?;
    let files = data_files(piece, &summary, only).await?;
    piece.progress.total = if only.is_some() { files.first().map(|file| file.item_count) } else { summary.item_count };
    let BackfillCursor { object, line, .. } = piece.progress.cursor.clone().unwrap_or_default();
    let begun = files.iter().position(|file| file.data_file_s3_key == object).unwrap_or(0);
    for (number, file) in files.iter().enumerate().skip(begun) {
        let skipped = if number == begun { line } else { 0 };
        if load_file(piece, &summary, file, time, skipped).await? == FileProgress::Partial {
            return Ok(());
        }
    }
    piece.finish();
    Ok(())
}

async fn data_files(
    piece: &BackfillRun<'_, '_>,
    summary: &ManifestSummary,
    only: Option<&str>,
) -> Result<Vec<DataFile>, BackfillError> {
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
        Some(only) => Err(BackfillError::Manifest { address, reason: format!("it lists no data file {only}") }),
        None => Ok(files),
    }
}

#[derive(PartialEq, Eq)]
enum FileProgress {
    Complete,
    Partial,
}

async fn load_file(
    piece: &mut BackfillRun<'_, '_>,
    summary: &ManifestSummary,
    file: &DataFile,
    time: Timestamp,
    skipped: u64,
) -> Result<FileProgress, BackfillError> {
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
            piece.write(BackfillCursor { object: object.clone(), line: number, key: None }).await?;
            if piece.is_out_of_time() {
                return Ok(FileProgress::Partial);
            }
        }
    }
    if number <= skipped {
        // It was done before; the piece goes on with the next one, however little time it has.
        return Ok(FileProgress::Complete);
    }
    piece.progress.bytes += lines.bytes - bytes;
    piece.write(BackfillCursor { object: object.clone(), line: number, key: None }).await?;
    Ok(if piece.is_out_of_time() { FileProgress::Partial } else { FileProgress::Complete })
}
