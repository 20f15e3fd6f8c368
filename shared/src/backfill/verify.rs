//! Compares a source table with its replica: every item by key and column, then every row that has no item.
//!
//! While the source changes, rows differ until pending changes arrive: differing items are read again before they are
//! reported.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::{BackfillCursor, BackfillError, BackfillRun, parse_time};
use crate::apply::RowDifference;
use crate::dynamodb_tables::KEYS_MAX;
use crate::record::Batch;
use crate::spec::KeyColumn;
use crate::timestamp::Timestamp;

/// Number of differences reported individually; the others are only counted.
const EXAMPLES_MAX: usize = 100;

/// The differences between a table and its replica.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct Differences {
    /// Items of the source that have no row.
    pub missing: u64,
    /// Rows that have no item.
    pub extra: u64,
    /// Rows whose values differ from their item.
    pub differing: u64,
    /// The first differences, identified by key.
    pub examples: Vec<Difference>,
}

/// A difference in one row.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct Difference {
    /// Its key, as text.
    pub key: String,
    /// The kind of difference: `missing`, `extra`, or the columns that differ.
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

/// The cursor's object after the last item: from here on, rows are checked.
const ROWS: &str = "rows";

/// Compares the table of a source with its replica.
pub async fn verify_table(run: &mut BackfillRun<'_, '_>, table: &str) -> Result<(), BackfillError> {
    let key = run.set_table_key(table, &[]).await?;
    let started = parse_time(run.progress.started.as_deref().unwrap_or_default())?;
    let mut cursor = run.progress.cursor.clone().unwrap_or_default();
    while cursor.object != ROWS {
        let page = run.backfill.tables.scan(table, 0, 1, cursor.key.as_deref()).await?;
        compare_items(run, (table, &key), &page.items, started).await?;
        cursor.line += page.items.len() as u64;
        cursor.key = page.next;
        if cursor.key.is_none() {
            cursor.object = ROWS.to_owned();
        }
        run.save_progress(&cursor, cursor.line);
        if run.deadline().has_passed() {
            return Ok(());
        }
    }
    loop {
        let start_after: Option<Vec<String>> = cursor.key.as_deref().and_then(|key| serde_json::from_str(key).ok());
        let (names, keys) =
            run.backfill.ingest.list_keys(run.source, table, start_after.as_deref(), KEYS_MAX as i64).await?;
        // In the order of the key in PostgreSQL.
        let sql_type = |name: &str| key.iter().find(|column| column.name == name).and_then(|column| column.sql_type);
        let key_column = |name: String| KeyColumn { sql_type: sql_type(&name), name };
        let key_columns: Vec<KeyColumn> = names.into_iter().map(key_column).collect();
        find_extra_rows(run, table, &key_columns, &keys).await?;
        let Some(last) = keys.last() else { break };
        cursor.key = serde_json::to_string(last).ok();
        run.save_progress(&cursor, cursor.line);
        if run.deadline().has_passed() {
            return Ok(());
        }
    }
    run.finish();
    Ok(())
}

/// Compares items; reads those that differ again and compares them once more.
async fn compare_items(
    run: &mut BackfillRun<'_, '_>,
    (table, key): (&str, &[KeyColumn]),
    items: &[String],
    started: Timestamp,
) -> Result<(), BackfillError> {
    if compare(run, table, items, started).await?.is_empty() {
        return Ok(());
    }
    let mut current_items = Vec::new();
    let keys: Vec<String> = items.iter().filter_map(|item| key_json(item, key)).collect();
    for keys in keys.chunks(KEYS_MAX) {
        current_items.extend(run.backfill.tables.items(table, keys).await?);
    }
    for RowDifference { key, columns } in compare(run, table, &current_items, started).await? {
        let what = columns.map_or("missing".to_owned(), |columns| columns.join(", "));
        run.progress.differences.get_or_insert_default().add(key, what);
    }
    Ok(())
}

async fn compare(
    run: &mut BackfillRun<'_, '_>,
    table: &str,
    items: &[String],
    started: Timestamp,
) -> Result<Vec<RowDifference>, BackfillError> {
    for (number, item) in (1..).zip(items) {
        run.push_item(table, "verify", number, started, item);
    }
    let batch: Batch = std::mem::take(&mut run.batch);
    Ok(run.backfill.ingest.diff_rows(run.source, &batch, run.deadline().unit_time()).await?)
}

/// Returns the key of an item, in DynamoDB's JSON.
fn key_json(item: &str, key: &[KeyColumn]) -> Option<String> {
    let attributes: HashMap<&str, &serde_json::value::RawValue> = serde_json::from_str(item).ok()?;
    let member = |KeyColumn { name, .. }: &KeyColumn| {
        Some(format!("{}:{}", serde_json::Value::from(&**name), attributes.get(&**name)?.get()))
    };
    Some(format!("{{{}}}", key.iter().map(member).collect::<Option<Vec<_>>>()?.join(",")))
}

/// Reports the rows whose items do not exist.
async fn find_extra_rows(
    run: &mut BackfillRun<'_, '_>,
    table: &str,
    key: &[KeyColumn],
    rows: &[Vec<String>],
) -> Result<(), BackfillError> {
    let descriptor = |sql_type: Option<&str>| match sql_type {
        Some("numeric") => "N",
        Some("bytea") => "B",
        _ => "S",
    };
    let row_key_json = |row: &Vec<String>| {
        let member = |(KeyColumn { name, sql_type }, value): (&KeyColumn, &String)| {
            let quoted = |text: &str| serde_json::Value::from(text).to_string();
            format!("{}:{{\"{}\":{}}}", quoted(name), descriptor(*sql_type), quoted(value))
        };
        format!("{{{}}}", key.iter().zip(row).map(member).collect::<Vec<_>>().join(","))
    };
    let row_keys: Vec<String> = rows.iter().map(row_key_json).collect();
    let items = run.backfill.tables.items(table, &row_keys).await?;
    if items.len() == rows.len() {
        return Ok(());
    }
    let item_keys: Vec<String> = items.iter().filter_map(|item| key_json(item, key)).collect();
    for (row, row_key) in rows.iter().zip(&row_keys) {
        if !item_keys.contains(row_key) {
            run.progress.differences.get_or_insert_default().add(row.join(", "), "extra".to_owned());
        }
    }
    Ok(())
}

impl BackfillRun<'_, '_> {
    fn save_progress(&mut self, cursor: &BackfillCursor, records: u64) {
        self.progress.records = records;
        self.progress.cursor = Some(cursor.clone());
        self.backfill.call.report(&self.progress);
    }
}
