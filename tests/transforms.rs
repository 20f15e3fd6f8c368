//! Transforms, and the change logs that they read: what is new is delivered once, whoever writes it and however; a failure leaves
//! everything as it was.

mod concurrent;
mod failures;
mod incarnations;
mod log;
mod reads;
mod targets;
mod tasks;
mod warehouse;

use std::time::Duration;

use millstream::feed::{FeedState, ensure};
use millstream::names::TableName;
use millstream::task::Deadline;
use millstream::transform::{
    RunOutcome, RunReport, TransformError, TransformFile, TransformOptions, TransformSet, run,
};
use tokio_postgres::Client;

pub use crate::support::{client, database};

/// A table with a key and a version, with two partitions, and one without partitions.
pub const TABLES: &str = "CREATE SCHEMA s; \
    CREATE TABLE s.item (id bigint, day integer, v bigint, _version text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); \
    CREATE TABLE s.item_1 PARTITION OF s.item FOR VALUES FROM (1) TO (2); \
    CREATE TABLE s.item_2 PARTITION OF s.item FOR VALUES FROM (2) TO (3); \
    CREATE TABLE s.plain (id bigint PRIMARY KEY, v bigint)";

/// The rows of `s.item`, kept in another table.
pub const MIRROR: &str = "-- target: s.mirror\n-- key: id, day\n-- changes: s.item\n-- every: 1 minute\n\
    SELECT c.id, c.day, c.v, false AS _deleted FROM millstream.changes(NULL::s.item) c\n\
    UNION ALL SELECT r.id, r.day, NULL::bigint, true FROM millstream.removed_keys(NULL::s.item) r;\n";

/// A database with the tables.
pub async fn tables() -> Client {
    let client = client(&database().await).await;
    client.batch_execute(TABLES).await.unwrap();
    client
}

/// A transform from its text.
pub fn transform(name: &str, text: &str) -> TransformFile {
    let set = set(&[(name, text)]);
    assert_eq!((&set.rejected, &set.graph.problems), (&Vec::new(), &vec![None]));
    set.transforms.into_iter().next().unwrap()
}

/// A set of transforms from their names and texts.
pub fn set(files: &[(&str, &str)]) -> TransformSet {
    let file = |(name, text): &(&str, &str)| ((*name).to_owned(), format!("transforms/{name}.sql"), (*text).to_owned());
    TransformSet::new(&files.iter().map(file).collect::<Vec<_>>())
}

/// A minute is patience enough.
pub fn options() -> TransformOptions {
    TransformOptions { deadline: Deadline::after(Duration::from_secs(60)), is_full: false }
}

/// Runs a transform.
pub async fn try_run(client: &Client, transform: &TransformFile) -> Result<RunOutcome, TransformError> {
    run(client, transform, &["s".to_owned()], options()).await
}

/// Runs a transform that must succeed.
pub async fn run_once(client: &Client, transform: &TransformFile) -> RunReport {
    match try_run(client, transform).await.unwrap_or_else(|error| panic!("{error}")) {
        RunOutcome::Committed(report) => report,
        RunOutcome::Waiting { reason } => panic!("{reason}"),
    }
}

/// What a run has written and deleted, and whether it was a full run.
pub async fn run_counts(client: &Client, transform: &TransformFile) -> (u64, u64, bool) {
    let report = run_once(client, transform).await;
    (report.rows_written, report.rows_deleted, report.full_run)
}

/// The error of a transform that must fail.
pub async fn run_error(client: &Client, transform: &TransformFile) -> String {
    try_run(client, transform).await.unwrap_err().to_string()
}

/// Creates the log of a table that can have one; returns whether it has begun anew.
pub async fn ensured(client: &Client, table: &str) -> bool {
    match ensure(client, &table_name(table), 30).await.unwrap_or_else(|error| panic!("{error}")) {
        FeedState::Ready { is_new } => is_new,
        FeedState::Waiting { reason } => panic!("{reason}"),
    }
}

pub fn table_name(table: &str) -> TableName {
    TableName::from_catalog("s", table)
}

/// The log of a table of the schema `s`, as it is written in SQL.
pub fn log_of(table: &str) -> String {
    millstream::feed::FeedSql::new(&table_name(table)).log()
}
