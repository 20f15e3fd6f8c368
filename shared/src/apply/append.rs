//! Events: each key once, within its partition.

use std::collections::BTreeMap;

use tokio_postgres::Row as Found;

use super::copy::Rows;
use super::session::Session;
use super::statement::{self, Array, parameters};
use super::{ApplyError, Hints, Refused, Written, records};
use crate::database::fault::is_unique_violation;
use crate::names::TableName;
use crate::plan::merge::Fate;
use crate::plan::{Row, TableWrite};

/// Copies the rows whose keys are not there yet. Where none is expected to be, it copies first and looks only when refused:
/// that costs nothing where nothing is delivered twice.
pub async fn append(
    session: &Session<'_>,
    write: &TableWrite,
    rows: &[Row],
    look_first: bool,
) -> Result<Written, Refused> {
    let mut there = if look_first { existing(session, write, rows).await? } else { vec![false; rows.len()] };
    loop {
        match copy_others(session, write, rows, &there).await {
            Ok(count) => return Ok(written(write, rows, &there, count)),
            Err(refused) => {
                let ApplyError::Database(error) = &refused.error else { return Err(refused) };
                if !is_unique_violation(error) {
                    return Err(refused);
                }
                session.undo().await?;
                let now = existing(session, write, rows).await?;
                // Somebody else's key is there now, or it is another constraint than the key's.
                if now == there {
                    return Err(refused);
                }
                there = now;
            }
        }
    }
}

async fn copy_others(session: &Session<'_>, write: &TableWrite, rows: &[Row], there: &[bool]) -> Result<u64, Refused> {
    let mut copied = Rows::new(write, None);
    let missing: Vec<usize> = (0..rows.len()).filter(|&index| !there[index]).collect();
    for &index in &missing {
        copied.push_whole(write.cells(write.newest(&rows[index]), 0..write.columns.len()));
    }
    let by_place =
        |refused: Refused| Refused { row: refused.row.and_then(|line| missing.get(line).copied()), ..refused };
    copied.write(session).await.map_err(by_place)
}

/// For each row, whether its key is in its partition already. Asked of the partitions themselves: their indexes are small.
async fn existing(session: &Session<'_>, write: &TableWrite, rows: &[Row]) -> Result<Vec<bool>, ApplyError> {
    let mut by_partition: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, row) in rows.iter().enumerate() {
        by_partition.entry(row.partition).or_default().push(index);
    }
    let mut there = vec![false; rows.len()];
    for (partition, places) in by_partition {
        let relation = write.table.partitions.get(partition).map_or(&write.table.name, |partition| &partition.name);
        let keys = places.iter().map(|&place| &rows[place]);
        for found in existing_in(session, write, relation, keys).await? {
            let ordinal = found.get::<_, i64>(0) as usize - 1;
            there[places[ordinal]] = true;
        }
    }
    Ok(there)
}

async fn existing_in<'r>(
    session: &Session<'_>,
    write: &TableWrite,
    relation: &TableName,
    rows: impl Iterator<Item = &'r Row>,
) -> Result<Vec<Found>, ApplyError> {
    let keys = key_arrays(write, rows);
    let statement = statement::existing_keys(write, relation);
    Ok(session.client.query_typed(&statement, &parameters(&keys)).await?)
}

/// The keys of rows, one array a column.
pub fn key_arrays<'r>(write: &TableWrite, rows: impl Iterator<Item = &'r Row>) -> Vec<Array> {
    let mut arrays: Vec<Array> =
        statement::columns(write).take(write.key).map(|column| Array::of(column.kind)).collect();
    for row in rows {
        for (place, array) in arrays.iter_mut().enumerate() {
            array.push(write.cell(write.newest(row), place));
        }
    }
    arrays.into_iter().map(Array::finished).collect()
}

fn written(write: &TableWrite, rows: &[Row], there: &[bool], count: u64) -> Written {
    let fate = |known: bool| if known { Fate::Duplicate } else { Fate::Applied };
    let fates =
        rows.iter().zip(there).flat_map(|(row, &known)| records(write, row).map(move |record| (record, fate(known))));
    let met = Hints { look_first: there.contains(&true), all_new: false };
    Written { rows: count, fates: fates.collect(), met }
}
