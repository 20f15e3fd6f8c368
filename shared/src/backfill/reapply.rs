//! The backup again: every object of the time, table by table, in the order of arrival.

use super::{BackfillError, Cursor, Piece};
use crate::archive::Folders;
use crate::backup;
use crate::timestamp::Timestamp;

/// Applies what arrived from the first moment on and before the second.
pub async fn work(
    piece: &mut Piece<'_, '_>,
    source: &str,
    (from, to): (Timestamp, Timestamp),
    table: Option<&str>,
) -> Result<(), BackfillError> {
    let prefix = backup::prefix(source);
    let folders = match table {
        Some(table) => vec![backup::table_prefix(source, table)],
        None => piece.backfill.archive.list(&prefix, "", Folders::Together).await?.folders,
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
            let listed = piece.backfill.archive.list(&folder, &behind, Folders::Apart).await?;
            for key in listed.keys.iter().filter(|key| **key < end) {
                apply(piece, key, (from, to)).await?;
                if piece.time_is_up() {
                    return piece.write(Cursor { object: key.clone(), ..Cursor::default() }).await;
                }
            }
            match listed.keys.last().filter(|last| listed.more && **last < end) {
                Some(last) => behind = last.clone(),
                None => break,
            }
        }
    }
    piece.write(Cursor::default()).await?;
    piece.finish();
    Ok(())
}

/// Small objects share a batch; a large one fills several.
async fn apply(piece: &mut Piece<'_, '_>, key: &str, (from, to): (Timestamp, Timestamp)) -> Result<(), BackfillError> {
    let address = piece.backfill.archive.address(key)?;
    let mut lines = piece.backfill.archive.lines(&address).await?;
    let mut number = 0;
    while let Some(line) = lines.next().await? {
        number += 1;
        let pushed = backup::push_line(line, from, to, &mut piece.batch);
        pushed.map_err(|source| BackfillError::Line { address: address.clone(), line: number, source })?;
        if piece.is_full() {
            let cursor = piece.progress.cursor.clone().unwrap_or_default();
            piece.write(cursor).await?;
        }
    }
    piece.progress.bytes += lines.bytes;
    Ok(())
}
