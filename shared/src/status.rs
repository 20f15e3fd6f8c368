//! Status of a system: each source's last commit, lag, and tables with their rows and partitions; the totals; and the queues.
//!
//! The status is read from PostgreSQL's catalogs and the tables in the schema `millstream`, in a read-only transaction, and from SQS. It does
//! not query the functions, CloudWatch or the streams. It is therefore correct after any restart, and does not include records
//! in a stream that have not been read yet: a source whose last commit is old is either idle or stuck.
//!
//! - **Last commit** and **lag** are published by the writers after their batch has been committed, at most once a second per
//!   shard ([`crate::apply::Freshness`] says what that costs). The lag of a shard is the time from the arrival in the stream of
//!   the oldest record of its last batch to the commit. The lag of a source is the largest of its shards that committed in the
//!   last hour or, if none did, of the shard that committed last.
//! - **Rows** are PostgreSQL's own estimates, unless they are counted.
//! - **Transforms** are those of the files next to the configuration, with the outcome of the last run of each.
//! - **Totals** are described by [`crate::totals::health`].
//! - **Messages** of queues are SQS's approximate numbers. A queue serves all sources; its messages do not belong to one.

use serde::{Serialize, Serializer};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::apply::{self, ApplyError, Limits};
use crate::aws::Aws;
use crate::catalog::comment::{names_source, parse_note};
use crate::catalog::{CatalogError, DbTable};
use crate::config::{Config, Environment, FileError, Files, SourceConfig};
use crate::database::sqlstate::describe;
use crate::database::{Database, DatabaseError};
use crate::feed::FeedError;
use crate::feed::problems::{FeedProblem, find_problems};
use crate::maintain::{self, MaintainError, PartitionedTable, pending};
use crate::names::{Identifier, TableName};
use crate::object_store::ObjectError;
use crate::queue::{Queue, QueueDepth, QueueError};
use crate::timestamp::Timestamp;
use crate::totals::TotalError;
use crate::totals::health::{TotalHealth, read_configured};
use crate::transform::{self, TransformError, TransformState};

mod alarm;

pub use alarm::{Alarm, Thresholds};

/// A shard without a commit for this long, in microseconds, does not count for the lag unless it committed last: it is idle
/// or closed.
const ACTIVE_SHARD_MICROS: i64 = 3_600_000_000;

/// How row counts are obtained.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowCountMode {
    /// From PostgreSQL's estimates, which is fast.
    Estimated,
    /// By counting them, which reads every table.
    Counted,
}

/// The status of a system at a point in time.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Status {
    /// When the status was read, by the database's clock.
    #[serde(serialize_with = "serialize_time")]
    pub at: Timestamp,
    /// The sources, in the order of the configuration.
    pub sources: Vec<SourceStatus>,
    /// The totals of these sources, in the order of the configuration.
    pub totals: Vec<TotalHealth>,
    /// The transforms of the configuration, by name.
    pub transforms: Vec<TransformState>,
    /// What is, or would be, written past a change log.
    pub change_logs: Vec<FeedProblem>,
    /// The queues that the environment names.
    pub queues: Vec<QueueStatus>,
}

/// The status of a source.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct SourceStatus {
    /// Its name in the configuration.
    pub name: String,
    /// The PostgreSQL schema that it fills.
    pub schema: String,
    /// The last commit of any of its batches, to the second; `None` before the first.
    #[serde(serialize_with = "serialize_optional_time")]
    pub last_commit: Option<Timestamp>,
    /// Seconds since then.
    pub age_seconds: Option<f64>,
    /// Seconds from arrival in the stream to commit, for the last batches.
    pub lag_seconds: Option<f64>,
    /// Its shards, most recent commit first.
    pub shards: Vec<ShardStatus>,
    /// Rows of all its tables.
    pub rows: i64,
    /// Its tables, by name.
    pub tables: Vec<TableStatus>,
}

/// The status of a shard.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct ShardStatus {
    /// The stream's ARN.
    pub stream: String,
    /// The shard. Empty for DynamoDB streams, whose records do not name it: the whole stream counts as one shard.
    pub shard: String,
    /// Its last commit, to the second.
    #[serde(serialize_with = "serialize_time")]
    pub last_commit: Timestamp,
    /// Seconds from the arrival of the last batch's oldest record to its commit.
    pub lag_seconds: f64,
}

/// The status of a table.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct TableStatus {
    /// The table, as `schema.table`.
    pub name: String,
    /// Its rows.
    pub rows: i64,
    /// Its partitions, if it has any.
    pub partitions: Option<PartitionStatus>,
    /// What prevents maintenance of its partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// The status of a table's partitions.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct PartitionStatus {
    /// Number of partitions.
    pub count: usize,
    /// Start of the oldest partition; `None` if there are no partitions, or it is unbounded.
    #[serde(serialize_with = "serialize_optional_time")]
    pub from: Option<Timestamp>,
    /// End of the newest partition.
    #[serde(serialize_with = "serialize_optional_time")]
    pub to: Option<Timestamp>,
    /// Number of partitions expected from now on: the current one and those ahead.
    pub wanted: usize,
    /// How many of those are missing.
    #[serde(rename = "lacking")]
    pub missing: usize,
    /// Number of partitions that hold only expired rows and are waiting to be dropped.
    pub expired: usize,
    /// Seconds since the first of them expired.
    pub expired_seconds: Option<f64>,
}

/// The status of a queue.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct QueueStatus {
    /// What it holds.
    pub holds: QueueRole,
    /// Its URL.
    pub url: String,
    /// Approximate numbers of messages.
    #[serde(flatten)]
    pub messages: QueueDepth,
}

/// What a queue holds.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum QueueRole {
    /// Rejected records (`DEAD_LETTER_QUEUE_URL`).
    DeadLetters,
    /// Batches that Lambda discarded (`ON_FAILURE_QUEUE_URL`).
    Undelivered,
}

/// Why the status could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The connection to the database failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The partitioned tables could not be read.
    #[error(transparent)]
    Maintain(#[from] MaintainError),
    /// The transaction could not be started.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The totals could not be read.
    #[error(transparent)]
    Total(#[from] TotalError),
    /// The transforms could not be read.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// A file of the configuration could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The address of the configuration is invalid.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// The change logs could not be read.
    #[error(transparent)]
    Feed(#[from] FeedError),
    /// A query failed.
    #[error("could not read the status of the tables: {}", describe(.0))]
    Query(#[from] tokio_postgres::Error),
    /// SQS failed.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

fn serialize_time<S: Serializer>(timestamp: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(timestamp)
}

fn serialize_optional_time<S: Serializer>(timestamp: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match timestamp {
        Some(timestamp) => serializer.collect_str(timestamp),
        None => serializer.serialize_none(),
    }
}

/// Reads the status. `limits` bounds each statement; counting rows may take long.
///
/// # Errors
/// Returns an error if the database or SQS cannot be queried.
pub async fn read(
    config: &Config,
    environment: &Environment,
    database: &Database,
    aws: &Aws,
    (rows, limits): (RowCountMode, Limits),
) -> Result<Status, StatusError> {
    let set = transform::read_transforms(&Files::beside(&environment.config, aws)?).await?;
    let connection = database.connection().await?;
    apply::begin_read_only(&connection, limits).await?;
    let clock = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000000)::bigint";
    let at = Timestamp(query_i64(&connection, clock).await?);
    let has_freshness = apply::FRESHNESS_TABLE.exists(&connection).await?;
    let mut sources = Vec::new();
    for source in &config.sources {
        let shards = if has_freshness { shards(&connection, source).await? } else { Vec::new() };
        let tables = tables(&connection, source, rows, at).await?;
        sources.push(SourceStatus::new(source, at, shards, tables));
    }
    let transforms = transform::task::list(&connection, config, &set).await?;
    let change_logs = find_problems(&connection).await?;
    connection.batch_execute("COMMIT").await?;
    let totals = read_configured(&connection, config).await?;
    connection.release();
    let mut queues = Vec::new();
    let configured = [
        (QueueRole::DeadLetters, &environment.dead_letter_queue),
        (QueueRole::Undelivered, &environment.on_failure_queue),
    ];
    for (holds, url) in configured.into_iter().filter_map(|(holds, url)| Some((holds, url.clone()?))) {
        let messages = Queue::open(aws, &url).await.count().await?;
        queues.push(QueueStatus { holds, url, messages });
    }
    Ok(Status { at, sources, totals, transforms, change_logs, queues })
}

impl SourceStatus {
    fn new(source: &SourceConfig, at: Timestamp, shards: Vec<ShardStatus>, tables: Vec<TableStatus>) -> Self {
        let last_commit = shards.iter().map(|shard| shard.last_commit).max();
        let active_shards = shards
            .iter()
            .filter(|shard| at.0 - shard.last_commit.0 < ACTIVE_SHARD_MICROS || Some(shard.last_commit) == last_commit);
        Self {
            name: source.name.clone(),
            schema: source.schema.as_str().to_owned(),
            last_commit,
            age_seconds: last_commit.map(|last| seconds(at.0 - last.0)),
            lag_seconds: active_shards.map(|shard| shard.lag_seconds).reduce(f64::max),
            shards,
            rows: tables.iter().map(|table| table.rows).sum(),
            tables,
        }
    }
}

/// Returns the single number that a query yields.
async fn query_i64(client: &Client, query: &str) -> Result<i64, tokio_postgres::Error> {
    let rows = client.query_typed(query, &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// Converts to seconds. Clocks differ slightly, so negative values become zero.
fn seconds(micros: i64) -> f64 {
    micros.max(0) as f64 / 1e6
}

async fn shards(client: &Client, source: &SourceConfig) -> Result<Vec<ShardStatus>, StatusError> {
    let rows = client.query_typed(include_str!("status/shards.sql"), &[(&source.name, Type::TEXT)]).await?;
    let shard = |row: &tokio_postgres::Row| {
        let (committed, arrived): (i64, i64) = (row.get("committed_at"), row.get("arrived_at"));
        ShardStatus {
            stream: row.get("stream"),
            shard: row.get("shard"),
            last_commit: Timestamp(committed),
            lag_seconds: seconds(committed - arrived),
        }
    };
    Ok(rows.iter().map(shard).collect())
}

async fn tables(
    client: &Client,
    source: &SourceConfig,
    rows: RowCountMode,
    at: Timestamp,
) -> Result<Vec<TableStatus>, StatusError> {
    let partitioned_tables = maintain::partitioned_tables(client, source).await?;
    let schema = source.schema.as_str();
    let declared: Vec<&str> = source.tables.iter().map(|table| table.name.as_str()).collect();
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 2] =
        [(&schema, Type::TEXT), (&declared, Type::TEXT_ARRAY)];
    let mut tables = Vec::new();
    for row in client.query_typed(include_str!("status/tables.sql"), &parameters).await? {
        let (table, comment): (String, Option<&str>) = (row.get("relname"), row.get("comment"));
        if !belongs_to(comment, source) {
            continue;
        }
        let name = TableName { schema: source.schema.clone(), table: Identifier::truncated(&table, &table) };
        let rows = match rows {
            RowCountMode::Estimated => row.get("rows"),
            RowCountMode::Counted => query_i64(client, &format!("SELECT pg_catalog.count(*) FROM {name}")).await?,
        };
        let status = match partitioned_tables.iter().find(|partitioned| partitioned.name == name) {
            Some(partitioned) => partitions(client, partitioned, at).await?,
            None => Ok(None),
        };
        let fault = status.as_ref().err().cloned();
        tables.push(TableStatus { name: name.unquoted(), rows, partitions: status.unwrap_or_default(), fault });
    }
    Ok(tables)
}

/// Whether the table belongs to the source: two sources may share a schema, and a table's comment names its source.
fn belongs_to(comment: Option<&str>, source: &SourceConfig) -> bool {
    let note = comment.and_then(parse_note).filter(|note| note.starts_with("source "));
    note.is_none_or(|note| names_source(note, &source.name))
}

/// Returns the status of a table's partitions, or what prevents their maintenance.
async fn partitions(
    client: &Client,
    partitioned: &PartitionedTable,
    at: Timestamp,
) -> Result<Result<Option<PartitionStatus>, String>, StatusError> {
    let loaded = pending::load(client, partitioned).await.map_err(CatalogError::into_source)?;
    let Some(table) = loaded else { return Ok(Ok(None)) };
    Ok(match pending::obstacle(&table) {
        Some(obstacle) => Err(obstacle),
        None => Ok(Some(PartitionStatus::new(&table, partitioned, at))),
    })
}

impl PartitionStatus {
    fn new(table: &DbTable, partitioned: &PartitionedTable, at: Timestamp) -> Self {
        let cutoff = partitioned.policy.retention_cutoff(at);
        let first_expired_end =
            pending::expired(table, partitioned, at).filter_map(|partition| partition.bounds.to).min();
        Self {
            count: table.partitions.len(),
            from: table.partitions.first().and_then(|partition| partition.bounds.from),
            to: table.partitions.last().and_then(|partition| partition.bounds.to),
            wanted: partitioned.policy.partitions_ahead as usize + 1,
            missing: pending::missing_partitions(table, partitioned, at).partitions.len(),
            expired: pending::expired(table, partitioned, at).count(),
            expired_seconds: cutoff.zip(first_expired_end).map(|(cutoff, end)| seconds(cutoff.0 - end.0)),
        }
    }
}
