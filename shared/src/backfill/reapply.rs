//! The backup again: every object of the time, table by table, in the order of arrival.

use futures_util::stream::{self, StreamExt};

use super::{BackfillCursor, BackfillError, BackfillRun};
use crate::backup;
use crate::object_store::{ListMode, ObjectStore};
use crate::timestamp::Timestamp;

/// So many objects are read while others are written: most are small.
const OBJECTS_AHEAD: usize = 8;

/// Applies what arrived from the first moment on and before the second.
pub async fn reapply_backup(
    piece: &mut BackfillRun<'_, '_>,
    source: &str,
    (from, to): (Timestamp, Timestamp),
    table: Option<&str>,
) -> Result<(), BackfillError> {
    let prefix = backup::prefix(source);
    let folders = match table {
        Some(table) => vec![backup::table_prefix(source, table)],
        None => folders_in_range(&piece.backfill.archive, &prefix).await?,
    };
    let done = piece.progress.cursor.clone().unwrap_or_default().object;
    for folder in folders {
        let first = format!("{folder}{}", backup::hour(from));
        // Behind the last moment, and still within the folder.
        let end = format!("{folder}{}0", backup::hour(to));
        if done >= end {
            continue;
        }
        let mut behind = done.clone().max(first);
        loop {
            let listed = piece.backfill.archive.list(&folder, &behind, ListMode::Objects).await?;
            let mut reading = Vec::new();
            for key in listed.keys.iter().filter(|key| **key < end) {
                reading.push(read(piece.backfill.archive.clone(), key.clone()));
            }
            let mut objects = stream::iter(reading).buffered(OBJECTS_AHEAD);
            while let Some(object) = objects.next().await {
                let object = object?;
                apply(piece, &object, (from, to)).await?;
                if piece.is_out_of_time() {
                    return piece.write(BackfillCursor { object: object.key, ..BackfillCursor::default() }).await;
                }
            }
            match listed.keys.last().filter(|last| listed.more && **last < end) {
                Some(last) => behind = last.clone(),
                None => break,
            }
        }
    }
    piece.write(BackfillCursor::default()).await?;
    piece.finish();
    Ok(())
}

/// Every table's folder.
async fn folders_in_range(archive: &ObjectStore, prefix: &str) -> Result<Vec<String>, BackfillError> {
    let (mut folders, mut behind) = (Vec::new(), String::new());
    loop {
        let listed = archive.list(prefix, &behind, ListMode::CommonPrefixes).await?;
        folders.extend(listed.folders);
        match folders.last().filter(|_| listed.more) {
            // Behind everything that the last folder holds.
            Some(last) => behind = format!("{last}{}", char::MAX),
            None => return Ok(folders),
        }
    }
}

/// An object of the backup: what one batch said of one table, and no more than an invocation holds.
struct FetchedObject {
    key: String,
    address: String,
    text: Vec<u8>,
}

async fn read(archive: ObjectStore, key: String) -> Result<FetchedObject, BackfillError> {
    let address = archive.address(&key)?;
    let text = archive.read(&address).await?;
    Ok(FetchedObject { key, address, text })
}

/// Small objects share a batch; a large one fills several.
async fn apply(
    piece: &mut BackfillRun<'_, '_>,
    object: &FetchedObject,
    (from, to): (Timestamp, Timestamp),
) -> Result<(), BackfillError> {
    for (number, line) in (1..).zip(object.text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty())) {
        let pushed = backup::push_line(line, from, to, &mut piece.batch);
        pushed.map_err(|source| BackfillError::Line { address: object.address.clone(), line: number, source })?;
        if piece.is_full() {
            let cursor = piece.progress.cursor.clone().unwrap_or_default();
            piece.write(cursor).await?;
        }
    }
    piece.progress.bytes += object.text.len() as u64;
    Ok(())
}
