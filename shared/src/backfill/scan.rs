//! A scan of a DynamoDB table, one of its segments.

use super::{BackfillError, BackfillRun, parse_time};

/// Loads the segment's items. They are as old as the scan's beginning: an item that changes meanwhile is in the stream.
pub async fn scan_table(
    piece: &mut BackfillRun<'_, '_>,
    table: &str,
    segment: u32,
    segments: u32,
) -> Result<(), BackfillError> {
    piece.set_table_key(table, &[]).await?;
    let started = parse_time(piece.progress.started.as_deref().unwrap_or_default())?;
    let shard = format!("segment {segment} of {segments}");
    let mut cursor = piece.progress.cursor.clone().unwrap_or_default();
    loop {
        let page = piece.backfill.tables.scan(table, segment, segments, cursor.key.as_deref()).await?;
        for item in &page.items {
            cursor.line += 1;
            piece.progress.bytes += item.len() as u64;
            piece.push_item(table, &shard, cursor.line, started, item);
        }
        cursor.key = page.next;
        let last = cursor.key.is_none();
        if piece.is_full() || last || piece.is_out_of_time() {
            piece.write(cursor.clone()).await?;
        }
        if last {
            piece.finish();
        }
        if last || piece.is_out_of_time() {
            return Ok(());
        }
    }
}
