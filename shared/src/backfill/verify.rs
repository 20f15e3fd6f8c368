//! A source's table compared with its replica: every item, by key and column, and then every row that no item stands for.
//!
//! While the source changes, what is on its way differs: items that differ are asked for again before they are told.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{BackfillCursor, BackfillError, BackfillRun, parse_time};
use crate::apply::RowDifference;
use crate::dynamodb_tables::KEYS_MAX;
use crate::record::Batch;
use crate::spec::KeyColumn;
use crate::timestamp::Timestamp;

/// So many differences are told one by one; the others are only counted.
const EXAMPLES_MAX: usize = 100;

/// What differs between a table and its replica.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Differences {
    /// Items of the source that have no row.
    pub missing: u64,
    /// Rows that no item stands for.
    pub extra: u64,
    /// Rows with another value than their item.
    pub differing: u64,
    /// The first of them, by key.
    pub examples: Vec<Difference>,
}

/// One row.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Difference {
    /// Its key, as text.
    pub key: String,
    /// What is wrong: `missing`, `extra`, or the columns that differ.
    pub what: String,
}

impl Differences {
    fn add(&mut self, key: String, what: String) {
        match &*what {
            "missing" => self.missing += 1,
            "extra" => self.extra += 1,
            _ => self.differing += 1,
        }
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(Difference { key, what });
        }
    }
}

/// The place behind the last item: rows are looked through from here on.
const ROWS: &str = "rows";

/// Compares the table of a source with its replica.
pub async fn verify_table(piece: &mut BackfillRun<'_, '_>, table: &str) -> Result<(), BackfillError> {
    let key = piece.set_table_key(table, &[]).await?;
    let started = parse_time(piece.progress.started.as_deref().unwrap_or_default())?;
    let mut cursor = piece.progress.cursor.clone().unwrap_or_default();
    while cursor.object != ROWS {
        let page = piece.backfill.tables.scan(table, 0, 1, cursor.key.as_deref()).await?;
        compare_items(piece, (table, &key), &page.items, started).await?;
        cursor.line += page.items.len() as u64;
        cursor.key = page.next;
        if cursor.key.is_none() {
            cursor.object = ROWS.to_owned();
        }
        piece.save_progress(&cursor, cursor.line);
        if piece.is_out_of_time() {
            return Ok(());
        }
    }
    loop {
        let behind: Option<Vec<String>> = cursor.key.as_deref().and_then(|key| serde_json::from_str(key).ok());
        let (names, keys) =
            piece.backfill.ingest.list_keys(piece.source, table, behind.as_deref(), KEYS_MAX as i64).await?;
        // Told in the order that the table here has them in.
        let sql_type = |name: &str| key.iter().find(|known| known.name == name).and_then(|known| known.sql_type);
        let typed = |name: String| KeyColumn { sql_type: sql_type(&name), name };
        let named: Vec<KeyColumn> = names.into_iter().map(typed).collect();
        find_extra_rows(piece, table, &named, &keys).await?;
        let Some(last) = keys.last() else { break };
        cursor.key = serde_json::to_string(last).ok();
        piece.save_progress(&cursor, cursor.line);
        if piece.is_out_of_time() {
            return Ok(());
        }
    }
    piece.finish();
    Ok(())
}

/// Compares items, and those that differ once more.
async fn compare_items(
    piece: &mut BackfillRun<'_, '_>,
    (table, key): (&str, &[KeyColumn]),
    items: &[String],
    started: Timestamp,
) -> Result<(), BackfillError> {
    if compare(piece, table, items, started).await?.is_empty() {
        return Ok(());
    }
    let mut now = Vec::new();
    let keys: Vec<String> = items.iter().filter_map(|item| key_json(item, key)).collect();
    for keys in keys.chunks(KEYS_MAX) {
        now.extend(piece.backfill.tables.items(table, keys).await?);
    }
    for RowDifference { key, columns } in compare(piece, table, &now, started).await? {
        let what = columns.map_or("missing".to_owned(), |columns| columns.join(", "));
        piece.progress.differences.get_or_insert_default().add(key, what);
    }
    Ok(())
}

async fn compare(
    piece: &mut BackfillRun<'_, '_>,
    table: &str,
    items: &[String],
    started: Timestamp,
) -> Result<Vec<RowDifference>, BackfillError> {
    for (number, item) in (1..).zip(items) {
        piece.push_item(table, "verify", number, started, item);
    }
    let batch: Batch = std::mem::take(&mut piece.batch);
    Ok(piece.backfill.ingest.diff_rows(piece.source, &batch, piece.batch_time()).await?)
}

/// The key of an item, both as the JSON of DynamoDB.
fn key_json(item: &str, key: &[KeyColumn]) -> Option<String> {
    let attributes: HashMap<&str, &serde_json::value::RawValue> = serde_json::from_str(item).ok()?;
    let member = |KeyColumn { name, .. }: &KeyColumn| {
        Some(format!("{}:{}", serde_json::Value::from(&**name), attributes.get(&**name)?.get()))
    };
    Some(format!("{{{}}}", key.iter().map(member).collect::<Option<Vec<_>>>()?.join(",")))
}

/// Tells the rows whose items are not there.
async fn find_extra_rows(
    piece: &mut BackfillRun<'_, '_>,
    table: &str,
    key: &[KeyColumn],
    rows: &[Vec<String>],
) -> Result<(), BackfillError> {
    let descriptor = |sql_type: Option<&str>| match sql_type {
        Some("numeric") => "N",
        Some("bytea") => "B",
        _ => "S",
    };
    let json = |row: &Vec<String>| {
        let member = |(KeyColumn { name, sql_type }, value): (&KeyColumn, &String)| {
            let quoted = |text: &str| serde_json::Value::from(text).to_string();
            format!("{}:{{\"{}\":{}}}", quoted(name), descriptor(*sql_type), quoted(value))
        };
        format!("{{{}}}", key.iter().zip(row).map(member).collect::<Vec<_>>().join(","))
    };
    let wanted: Vec<String> = rows.iter().map(json).collect();
    let found = piece.backfill.tables.items(table, &wanted).await?;
    if found.len() == rows.len() {
        return Ok(());
    }
    let there: Vec<String> = found.iter().filter_map(|item| key_json(item, key)).collect();
    for (row, _) in rows.iter().zip(&wanted).filter(|(_, wanted)| !there.contains(wanted)) {
        piece.progress.differences.get_or_insert_default().add(row.join(", "), "extra".to_owned());
    }
    Ok(())
}

impl BackfillRun<'_, '_> {
    fn save_progress(&mut self, cursor: &BackfillCursor, records: u64) {
        self.progress.records = records;
        self.progress.cursor = Some(cursor.clone());
        (self.backfill.watch)(&self.progress);
    }
}
