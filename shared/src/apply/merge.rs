//! Entities: what is stored is read under a lock, decided upon, and written; nobody can come between.

use tokio_postgres::Row as Found;

use super::append::key_arrays;
use super::copy::Rows;
use super::session::Session;
use super::statement::{self, Array, COLUMNS_A_MASK, parameters};
use super::{ApplyError, Refused, Written};
use crate::catalog::Kind;
use crate::database::fault::is_unique_violation;
use crate::plan::merge::{Decision, Stored, decide};
use crate::plan::{Row, TableWrite, cell};
use crate::spec::{Merge, OVERFLOW, VERSION, VERSIONS};

/// Merges the rows.
pub async fn merge(session: &Session<'_>, write: &TableWrite, rows: &[Row], rule: Merge) -> Result<Written, Refused> {
    let mut stored = read(session, write, rows, rule).await?;
    loop {
        let decisions = decide_all(write, rows, rule, &stored)?;
        match insert(session, write, rows, rule, &stored, &decisions).await {
            Ok(inserted) => {
                let updated = update(session, write, rows, rule, &stored, &decisions).await?;
                return Ok(written(write, rows, &decisions, inserted + updated));
            }
            Err(refused) => {
                let ApplyError::Database(error) = &refused.error else { return Err(refused) };
                if !is_unique_violation(error) {
                    return Err(refused);
                }
                // Another writer's new key: its row is there now. The locks taken so far are given back first, so that
                // they are again taken in the order of the keys.
                session.undo().await?;
                let now = read(session, write, rows, rule).await?;
                let appeared = |(now, before): (&Stored, &Stored)| *now != Stored::Absent && *before == Stored::Absent;
                if !now.iter().zip(&stored).any(appeared) {
                    return Err(refused);
                }
                stored = now;
            }
        }
    }
}

/// The column that keeps a row's version.
fn version_column(rule: Merge) -> &'static str {
    match rule {
        Merge::Row => VERSION,
        Merge::Column => VERSIONS,
    }
}

async fn read(session: &Session<'_>, write: &TableWrite, rows: &[Row], rule: Merge) -> Result<Vec<Stored>, ApplyError> {
    let keys = key_arrays(write, rows.iter());
    let statement = statement::locked_versions(write, version_column(rule));
    let mut stored = vec![Stored::Absent; rows.len()];
    let found: Vec<Found> = session.client.query_typed(&statement, &parameters(&keys)).await?;
    for row in found {
        let ordinal = row.get::<_, i64>(0) as usize - 1;
        stored[ordinal] = Stored::Present(row.get(1));
    }
    Ok(stored)
}

fn decide_all(write: &TableWrite, rows: &[Row], rule: Merge, stored: &[Stored]) -> Result<Vec<Decision>, ApplyError> {
    rows.iter().zip(stored).map(|(row, stored)| Ok(decide(write, row, rule, stored)?)).collect()
}

/// The cells of a row as decided: the winner's, or NULL.
fn cells<'w>(
    write: &'w TableWrite,
    row: &Row,
    decision: &'w Decision,
    overflow: &'w [u8],
) -> impl Iterator<Item = &'w [u8]> {
    let members = &write.members[row.members.clone()];
    let overflow_place = if overflow.is_empty() { None } else { overflow_place(write) };
    decision.winners.iter().enumerate().map(move |(place, winner)| match winner {
        _ if Some(place) == overflow_place => overflow,
        Some(member) => {
            Some(write.cell(&members[*member], place)).filter(|cell| !cell.is_empty()).unwrap_or(&cell::NULL)
        }
        None => &cell::NULL,
    })
}

fn overflow_place(write: &TableWrite) -> Option<usize> {
    statement::columns(write).position(|column| column.name.as_str() == OVERFLOW)
}

async fn insert(
    session: &Session<'_>,
    write: &TableWrite,
    rows: &[Row],
    rule: Merge,
    stored: &[Stored],
    decisions: &[Decision],
) -> Result<u64, Refused> {
    let mut copied = Rows::new(write, Some(version_column(rule)));
    let new: Vec<usize> = (0..rows.len()).filter(|&index| stored[index] == Stored::Absent).collect();
    for &index in &new {
        let decision = &decisions[index];
        let mut overflow = Vec::new();
        if let Some(json) = &decision.overflow {
            cell::write_jsonb(json, &mut overflow);
        }
        copied.push(cells(write, &rows[index], decision, &overflow), decision.versions.as_deref().unwrap_or_default());
    }
    let by_place = |refused: Refused| Refused { row: refused.row.and_then(|line| new.get(line).copied()), ..refused };
    copied.write(session).await.map_err(by_place)
}

async fn update(
    session: &Session<'_>,
    write: &TableWrite,
    rows: &[Row],
    rule: Merge,
    stored: &[Stored],
    decisions: &[Decision],
) -> Result<u64, ApplyError> {
    let text = Kind::Text { characters_max: None };
    let masks = write.columns.len().div_ceil(COLUMNS_A_MASK);
    let mut arrays: Vec<Array> = statement::columns(write).map(|column| Array::of(column.kind)).collect();
    arrays.extend([Array::of(text), Array::of(text)]);
    arrays.extend((0..masks).map(|_| Array::of(Kind::Int8)));
    let mut count = 0;
    for (index, decision) in decisions.iter().enumerate().filter(|(index, _)| stored[*index] != Stored::Absent) {
        let Some(versions) = &decision.versions else { continue };
        count += 1;
        let (columns, own) = arrays.split_at_mut(write.columns.len());
        columns.iter_mut().zip(cells(write, &rows[index], decision, &[])).for_each(|(array, cell)| array.push(cell));
        own[0].push_text(versions);
        match &decision.overflow {
            Some(json) => own[1].push_text(json),
            None => own[1].push(&cell::NULL),
        }
        own[2..]
            .iter_mut()
            .zip(decision.winners.chunks(COLUMNS_A_MASK))
            .for_each(|(array, chunk)| array.push_number(mask(chunk)));
    }
    if count == 0 {
        return Ok(0);
    }
    let arrays: Vec<Array> = arrays.into_iter().map(Array::finished).collect();
    let by_field = (rule == Merge::Column).then(|| overflow_place(write)).flatten();
    let statement = statement::update(write, version_column(rule), by_field);
    Ok(session.client.execute_typed(&statement, &parameters(&arrays)).await?)
}

/// A bit for each column that is written.
fn mask(winners: &[Option<usize>]) -> i64 {
    winners.iter().enumerate().map(|(bit, winner)| i64::from(winner.is_some()) << bit).sum()
}

fn written(write: &TableWrite, rows: &[Row], decisions: &[Decision], count: u64) -> Written {
    let fates = rows
        .iter()
        .zip(decisions)
        .flat_map(|(row, decision)| super::records(write, row).zip(decision.members.iter().copied()));
    Written { rows: count, fates: fates.collect(), met_known_keys: false }
}
