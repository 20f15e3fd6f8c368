//! Reapplies the backup: every object of a time range, table by table, in order of arrival.
//!
//! Each line is applied, outside the time range, or reported as unreadable; none is skipped silently.

use futures_util::stream::{self, StreamExt};

use super::{BackfillCursor, BackfillError, BackfillRun};
use crate::backup::{self, UNKNOWN_ARRIVAL};
use crate::object_store::{ListMode, ObjectStore};
use crate::timestamp::Timestamp;

/// Number of objects read ahead while others are written: most are small.
const OBJECTS_AHEAD: usize = 8;

/// Reapplies the records that arrived at or after `from` and before `to`.
pub async fn reapply_backup(
    run: &mut BackfillRun<'_, '_>,
    source: &str,
    (from, to): (Timestamp, Timestamp),
    table: Option<&str>,
) -> Result<(), BackfillError> {
    let prefix = backup::prefix(source);
    let folders = match table {
        Some(table) => vec![backup::table_prefix(source, table)],
        None => table_folders(&run.backfill.object_store, &prefix).await?,
    };
    for folder in folders {
        for keys in key_ranges(&folder, from, to) {
            if reapply_objects(run, &folder, keys, (from, to)).await? == RangeProgress::OutOfTime {
                return Ok(());
            }
        }
    }
    run.write(BackfillCursor::default()).await?;
    run.finish();
    Ok(())
}

/// A range of a folder's keys.
struct KeyRange {
    /// Where it starts, exclusive.
    first: String,
    /// Where it ends, exclusive.
    end: String,
}

#[derive(PartialEq, Eq)]
enum RangeProgress {
    Complete,
    OutOfTime,
}

/// The keys of the hours from `from` to `to`. Before them, in the order of the keys, those of records that arrived at an
/// unknown time.
fn key_ranges(folder: &str, from: Timestamp, to: Timestamp) -> Vec<KeyRange> {
    let hours = |from: Timestamp, to: Timestamp| KeyRange {
        first: format!("{folder}{}", backup::hour(from)),
        // Sorts after the last hour, and is still within the folder.
        end: format!("{folder}{}0", backup::hour(to)),
    };
    let mut ranges = vec![hours(from, to)];
    if from > UNKNOWN_ARRIVAL {
        ranges.insert(0, hours(UNKNOWN_ARRIVAL, UNKNOWN_ARRIVAL));
    }
    ranges
}

/// Applies the objects of a range that earlier calls have not applied.
async fn reapply_objects(
    run: &mut BackfillRun<'_, '_>,
    folder: &str,
    KeyRange { first, end }: KeyRange,
    times: (Timestamp, Timestamp),
) -> Result<RangeProgress, BackfillError> {
    let mut start_after = run.progress.cursor.clone().unwrap_or_default().object.max(first);
    while start_after < end {
        let page = run.backfill.object_store.list(folder, &start_after, ListMode::Objects).await?;
        let mut reads = Vec::new();
        for key in page.keys.iter().filter(|key| **key < end) {
            reads.push(read(run.backfill.object_store.clone(), key.clone()));
        }
        let mut objects = stream::iter(reads).buffered(OBJECTS_AHEAD);
        while let Some(object) = objects.next().await {
            let object = object?;
            apply(run, &object, times).await?;
            if run.deadline().has_passed() {
                run.write(BackfillCursor { object: object.key, ..BackfillCursor::default() }).await?;
                return Ok(RangeProgress::OutOfTime);
            }
        }
        match page.keys.last().filter(|last| page.more && **last < end) {
            Some(last) => start_after = last.clone(),
            None => break,
        }
    }
    Ok(RangeProgress::Complete)
}

/// Lists the folder of every table.
async fn table_folders(object_store: &ObjectStore, prefix: &str) -> Result<Vec<String>, BackfillError> {
    let (mut folders, mut start_after) = (Vec::new(), String::new());
    loop {
        let page = object_store.list(prefix, &start_after, ListMode::CommonPrefixes).await?;
        folders.extend(page.folders);
        match folders.last().filter(|_| page.more) {
            // Sorts after everything in the last folder.
            Some(last) => start_after = format!("{last}{}", char::MAX),
            None => return Ok(folders),
        }
    }
}

/// An object of the backup: the records of one batch for one table, at most what an invocation receives.
struct FetchedObject {
    key: String,
    address: String,
    text: Vec<u8>,
}

async fn read(object_store: ObjectStore, key: String) -> Result<FetchedObject, BackfillError> {
    let address = object_store.address(&key)?;
    let text = object_store.read(&address).await?;
    Ok(FetchedObject { key, address, text })
}

/// Adds the records of an object to the batch. Small objects share a batch; a large one fills several.
async fn apply(
    run: &mut BackfillRun<'_, '_>,
    object: &FetchedObject,
    (from, to): (Timestamp, Timestamp),
) -> Result<(), BackfillError> {
    for (number, line) in (1..).zip(object.text.split(|&byte| byte == b'\n')) {
        if line.is_empty() {
            continue;
        }
        if let Err(error) = backup::push_line(line, from, to, &mut run.batch) {
            run.report_unreadable(&object.address, number, &error);
        }
        if run.is_full() {
            let cursor = run.progress.cursor.clone().unwrap_or_default();
            run.write(cursor).await?;
        }
    }
    run.progress.bytes += object.text.len() as u64;
    Ok(())
}
