//! Scans one segment of a DynamoDB table.

use super::{BackfillError, BackfillRun, parse_time};

/// Loads the segment's items, with the start of the scan as their timestamp: an item that changes later is in the stream.
pub async fn scan_table(
    run: &mut BackfillRun<'_, '_>,
    table: &str,
    segment: u32,
    segments: u32,
) -> Result<(), BackfillError> {
    run.set_table_key(table, &[]).await?;
    let started = parse_time(run.progress.started.as_deref().unwrap_or_default())?;
    let shard = format!("segment {segment} of {segments}");
    let mut cursor = run.progress.cursor.clone().unwrap_or_default();
    loop {
        let page = run.backfill.tables.scan(table, segment, segments, cursor.key.as_deref()).await?;
        for item in &page.items {
            cursor.line += 1;
            run.progress.bytes += item.len() as u64;
            run.push_item(table, &shard, cursor.line, started, item);
        }
        cursor.key = page.next;
        let is_last = cursor.key.is_none();
        if run.is_full() || is_last || run.deadline().has_passed() {
            run.write(cursor.clone()).await?;
        }
        if is_last {
            run.finish();
        }
        if is_last || run.deadline().has_passed() {
            return Ok(());
        }
    }
}
