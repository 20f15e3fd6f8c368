//! Reapplies the backup: every object of a time range, table by table, in order of arrival.

use futures_util::stream::{self, StreamExt};

use super::{BackfillCursor, BackfillError, BackfillRun};
use crate::backup;
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
    let last_done = run.progress.cursor.clone().unwrap_or_default().object;
    for folder in folders {
        let first = format!("{folder}{}", backup::hour(from));
        // Sorts after the last hour, and is still within the folder.
        let end = format!("{folder}{}0", backup::hour(to));
        if last_done >= end {
            continue;
        }
        let mut start_after = last_done.clone().max(first);
        loop {
            let page = run.backfill.object_store.list(&folder, &start_after, ListMode::Objects).await?;
            let mut reads = Vec::new();
            for key in page.keys.iter().filter(|key| **key < end) {
                reads.push(read(run.backfill.object_store.clone(), key.clone()));
            }
            let mut objects = stream::iter(reads).buffered(OBJECTS_AHEAD);
            while let Some(object) = objects.next().await {
                let object = object?;
                apply(run, &object, (from, to)).await?;
                if run.is_out_of_time() {
                    return run.write(BackfillCursor { object: object.key, ..BackfillCursor::default() }).await;
                }
            }
            match page.keys.last().filter(|last| page.more && **last < end) {
                Some(last) => start_after = last.clone(),
                None => break,
            }
        }
    }
    run.write(BackfillCursor::default()).await?;
    run.finish();
    Ok(())
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
    for (number, line) in (1..).zip(object.text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())) {
        let pushed = backup::push_line(line, from, to, &mut run.batch);
        pushed.map_err(|source| BackfillError::Line { address: object.address.clone(), line: number, source })?;
        if run.is_full() {
            let cursor = run.progress.cursor.clone().unwrap_or_default();
            run.write(cursor).await?;
        }
    }
    run.progress.bytes += object.text.len() as u64;
    Ok(())
}
