//! An export of a DynamoDB table: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/S3DataExport.Output.html>.

use serde::Deserialize;

use super::{BackfillCursor, BackfillError, BackfillRun};
use crate::timestamp::Timestamp;

/// The fields used from `manifest-summary.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestSummary {
    table_arn: String,
    /// Full export: the point in time that it contains.
    export_time: Option<String>,
    /// Incremental export: the end of its time range.
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

/// Loads all data files, or only the given one.
pub async fn load_export(
    run: &mut BackfillRun<'_, '_>,
    manifest: &str,
    only: Option<&str>,
    key: &[String],
) -> Result<(), BackfillError> {
    let invalid_manifest = |reason: String| BackfillError::Manifest { address: manifest.to_owned(), reason };
    let text = run.backfill.object_store.read_text(manifest).await?;
    let summary: ManifestSummary = serde_json::from_str(&text).map_err(|error| invalid_manifest(error.to_string()))?;
    if summary.output_format != "DYNAMODB_JSON" {
        return Err(invalid_manifest(format!(
            "the format is {}; only DYNAMODB_JSON is supported",
            summary.output_format
        )));
    }
    let time = summary.export_time.as_deref().or(summary.export_to_time.as_deref());
    let time = time.and_then(Timestamp::parse).ok_or_else(|| invalid_manifest("exportTime is missing".to_owned()))?;
    let table = summary.table_arn.rsplit('/').next().unwrap_or_default().to_owned();
    run.set_table_key(&table, key).await?;
    let files = data_files(run, &summary, only).await?;
    run.progress.total = if only.is_some() { files.first().map(|file| file.item_count) } else { summary.item_count };
    let BackfillCursor { object, line, .. } = run.progress.cursor.clone().unwrap_or_default();
    let first = files.iter().position(|file| file.data_file_s3_key == object).unwrap_or(0);
    for (index, file) in files.iter().enumerate().skip(first) {
        let skipped = if index == first { line } else { 0 };
        if load_file(run, &summary, file, time, skipped).await? == FileProgress::Partial {
            return Ok(());
        }
    }
    run.finish();
    Ok(())
}

async fn data_files(
    run: &BackfillRun<'_, '_>,
    summary: &ManifestSummary,
    only: Option<&str>,
) -> Result<Vec<DataFile>, BackfillError> {
    let address = format!("s3://{}/{}", summary.s3_bucket, summary.manifest_files_s3_key);
    let mut lines = run.backfill.object_store.lines(&address).await?;
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
    run: &mut BackfillRun<'_, '_>,
    summary: &ManifestSummary,
    file: &DataFile,
    time: Timestamp,
    skipped: u64,
) -> Result<FileProgress, BackfillError> {
    let object = &file.data_file_s3_key;
    let mut lines = run.backfill.object_store.lines(&format!("s3://{}/{object}", summary.s3_bucket)).await?;
    let (mut line_number, mut bytes) = (0, 0);
    while let Some(line) = lines.next().await? {
        line_number += 1;
        if line_number <= skipped {
            continue;
        }
        run.push(&summary.table_arn, object, line_number, time, line);
        if run.is_full() {
            run.progress.bytes += lines.bytes - bytes;
            bytes = lines.bytes;
            run.write(BackfillCursor { object: object.clone(), line: line_number, key: None }).await?;
            if run.deadline().has_passed() {
                return Ok(FileProgress::Partial);
            }
        }
    }
    if line_number <= skipped {
        // An earlier call completed it; continue with the next file even if the deadline has passed.
        return Ok(FileProgress::Complete);
    }
    run.progress.bytes += lines.bytes - bytes;
    run.write(BackfillCursor { object: object.clone(), line: line_number, key: None }).await?;
    Ok(if run.deadline().has_passed() { FileProgress::Partial } else { FileProgress::Complete })
}
