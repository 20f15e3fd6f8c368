//! How a system is: of each source the last commit, the lag, the tables with their rows and partitions; and the queues.
//!
//! Everything is read from PostgreSQL's catalogs, from `millstream.freshness` and from SQS, in a read-only transaction; nothing
//! is asked of a function, of CloudWatch, or of a stream. It is therefore right after any restart, and says nothing of records
//! that wait in a stream and that nobody has read yet: a source whose last commit is old is quiet, or stuck.
//!
//! - **Last commit** and **lag** are told by the writers, at most once a second a shard, after their batch has been committed
//!   ([`crate::apply::Freshness`] says what that costs). The lag of a shard is the time from the arrival of its last batch's
//!   oldest record in the stream to the commit; a source's is the largest of its shards that committed in the last hour.
//! - **Rows** are PostgreSQL's own estimates, unless they are counted.
//! - **Messages** of queues are SQS's approximate numbers. A queue serves all sources: its messages do not belong to one.

use serde::{Serialize, Serializer};
use tokio_postgres::Client;
use tokio_postgres::types::Type;

use crate::apply::{self, ApplyError, Limits};
use crate::aws::Aws;
use crate::catalog::comment::parse_note;
use crate::catalog::{CatalogError, DbTable};
use crate::config::{Config, Environment, SourceConfig};
use crate::database::sqlstate::describe;
use crate::database::{Database, DatabaseError};
use crate::maintain::{self, MaintainError, PartitionedTable, pending};
use crate::names::{Identifier, TableName};
use crate::queue::{Queue, QueueDepth, QueueError};
use crate::timestamp::Timestamp;

mod alarm;

pub use alarm::{Alarm, Thresholds};

/// A shard that has not committed for so long, in microseconds, says nothing of the lag: it is quiet, or long closed.
const ACTIVE_SHARD_MICROS: i64 = 3_600_000_000;

/// How rows are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RowCountMode {
    /// By PostgreSQL's estimates: at once.
    Estimated,
    /// By counting them, which reads every table.
    Counted,
}

/// How a system is at a moment.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct Status {
    /// The moment, by the database's clock.
    #[serde(serialize_with = "serialize_time")]
    pub at: Timestamp,
    /// The sources, in the order of the configuration.
    pub sources: Vec<SourceStatus>,
    /// The queues that the environment names.
    pub queues: Vec<QueueStatus>,
}

/// How a source is.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct SourceStatus {
    /// What the configuration calls it.
    pub name: String,
    /// The PostgreSQL schema that it fills.
    pub schema: String,
    /// The last commit of any of its batches, to the second; `None` before the first.
    #[serde(serialize_with = "serialize_optional_time")]
    pub last_commit: Option<Timestamp>,
    /// Seconds since then.
    pub age_seconds: Option<f64>,
    /// Seconds from source to commit, of the last batches.
    pub lag_seconds: Option<f64>,
    /// Its shards, the last commit first.
    pub shards: Vec<ShardStatus>,
    /// Rows of all its tables.
    pub rows: i64,
    /// Its tables, by name.
    pub tables: Vec<TableStatus>,
}

/// How a shard is.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct ShardStatus {
    /// The stream's ARN.
    pub stream: String,
    /// The shard; DynamoDB does not tell which, and a stream is one.
    pub shard: String,
    /// Its last commit, to the second.
    #[serde(serialize_with = "serialize_time")]
    pub last_commit: Timestamp,
    /// Seconds from the arrival of the last batch's oldest record to its commit.
    pub lag_seconds: f64,
}

/// How a table is.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct TableStatus {
    /// The table, as `schema.table`.
    pub name: String,
    /// Its rows.
    pub rows: i64,
    /// Its partitions, if it has any.
    pub partitions: Option<PartitionStatus>,
    /// What keeps its partitions from being looked after.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// How a table's partitions are.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct PartitionStatus {
    /// How many there are.
    pub count: usize,
    /// Where the oldest begins; `None` where there is none, or it has no beginning.
    #[serde(serialize_with = "serialize_optional_time")]
    pub from: Option<Timestamp>,
    /// Where the newest ends.
    #[serde(serialize_with = "serialize_optional_time")]
    pub to: Option<Timestamp>,
    /// How many are to be there: the present one, and those ahead of it.
    pub wanted: usize,
    /// How many of those are not there yet.
    pub lacking: usize,
    /// How many hold only rows that have expired, and wait to be dropped.
    pub expired: usize,
    /// Seconds for which the first of them has waited.
    pub expired_seconds: Option<f64>,
}

/// How a queue is.
#[derive(Clone, PartialEq, Serialize, Debug)]
pub struct QueueStatus {
    /// What it holds.
    pub holds: QueueRole,
    /// Its URL.
    pub url: String,
    /// Its messages, about.
    #[serde(flatten)]
    pub messages: QueueDepth,
}

/// What a queue holds.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum QueueRole {
    /// Records that were refused (`DEAD_LETTER_QUEUE_URL`).
    DeadLetters,
    /// Batches that Lambda gave up (`ON_FAILURE_QUEUE_URL`).
    Undelivered,
}

/// Why nothing can be said.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No connection.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// Tables could not be looked at.
    #[error(transparent)]
    Maintain(#[from] MaintainError),
    /// A transaction could not be begun.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// A question failed.
    #[error("could not read the status of the tables: {}", describe(.0))]
    Question(#[from] tokio_postgres::Error),
    /// SQS.
    #[error(transparent)]
    Queue(#[from] QueueError),
}

fn serialize_time<S: Serializer>(moment: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(moment)
}

fn serialize_optional_time<S: Serializer>(moment: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match moment {
        Some(moment) => serializer.collect_str(moment),
        None => serializer.serialize_none(),
    }
}

/// Reads how the system is. `limits` bound each statement; counting may take long.
///
/// # Errors
/// What cannot be reached or asked.
pub async fn read(
    config: &Config,
    environment: &Environment,
    database: &Database,
    aws: &Aws,
    (rows, limits): (RowCountMode, Limits),
) -> Result<Status, StatusError> {
    let connection = database.connection().await?;
    apply::begin_read_only(&connection, limits).await?;
    let clock = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let at = Timestamp(query_i64(&connection, clock).await?);
    let told = apply::FRESHNESS.exists(&connection).await?;
    let mut sources = Vec::new();
    for source in &config.sources {
        let shards = if told { shards(&connection, source).await? } else { Vec::new() };
        let tables = tables(&connection, source, rows, at).await?;
        sources.push(SourceStatus::of(source, at, shards, tables));
    }
    connection.batch_execute("COMMIT").await?;
    connection.release();
    let mut queues = Vec::new();
    let named = [
        (QueueRole::DeadLetters, &environment.dead_letter_queue),
        (QueueRole::Undelivered, &environment.on_failure_queue),
    ];
    for (holds, url) in named.into_iter().filter_map(|(holds, url)| Some((holds, url.clone()?))) {
        let messages = Queue::open(aws, &url).await.count().await?;
        queues.push(QueueStatus { holds, url, messages });
    }
    Ok(Status { at, sources, queues })
}

impl SourceStatus {
    fn of(source: &SourceConfig, at: Timestamp, shards: Vec<ShardStatus>, tables: Vec<TableStatus>) -> Self {
        let last_commit = shards.iter().map(|shard| shard.last_commit).max();
        let current = shards
            .iter()
            .filter(|shard| at.0 - shard.last_commit.0 < ACTIVE_SHARD_MICROS || Some(shard.last_commit) == last_commit);
        Self {
            name: source.name.clone(),
            schema: source.schema.as_str().to_owned(),
            last_commit,
            age_seconds: last_commit.map(|last| seconds(at.0 - last.0)),
            lag_seconds: current.map(|shard| shard.lag_seconds).reduce(f64::max),
            shards,
            rows: tables.iter().map(|table| table.rows).sum(),
            tables,
        }
    }
}

/// The one number that a question is answered with.
async fn query_i64(client: &Client, question: &str) -> Result<i64, tokio_postgres::Error> {
    let rows = client.query_typed(question, &[]).await?;
    Ok(rows.first().map_or(0, |row| row.get(0)))
}

/// Clocks differ a little: nothing is younger than now.
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
    let kept = maintain::partitioned_tables(client, source).await?;
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
            RowCountMode::Counted => query_i64(client, &format!("SELECT count(*) FROM {name}")).await?,
        };
        let found = match kept.iter().find(|kept| kept.name == name) {
            Some(kept) => partitions(client, kept, at).await?,
            None => Ok(None),
        };
        let fault = found.as_ref().err().cloned();
        tables.push(TableStatus { name: name.unquoted(), rows, partitions: found.unwrap_or_default(), fault });
    }
    Ok(tables)
}

/// Whether the table is the source's: two sources may share a schema, and the comment of a table names the source.
fn belongs_to(comment: Option<&str>, source: &SourceConfig) -> bool {
    let origin = comment.and_then(parse_note).and_then(|origin| origin.strip_prefix("source "));
    origin.is_none_or(|origin| origin.split(',').next() == Some(&source.name))
}

/// The partitions of a table, or what keeps them from being looked after.
async fn partitions(
    client: &Client,
    kept: &PartitionedTable,
    at: Timestamp,
) -> Result<Result<Option<PartitionStatus>, String>, StatusError> {
    match pending::load(client, kept).await {
        Ok(table) => Ok(Ok(table.map(|table| PartitionStatus::of(&table, kept, at)))),
        Err(error @ CatalogError::DefaultPartition(_)) => Ok(Err(error.to_string())),
        Err(CatalogError::Database(error)) => Err(error.into()),
    }
}

impl PartitionStatus {
    fn of(table: &DbTable, kept: &PartitionedTable, at: Timestamp) -> Self {
        let oldest = kept.period.retention_cutoff(at);
        let first = pending::expired(table, kept, at).filter_map(|partition| partition.bounds.to).min();
        Self {
            count: table.partitions.len(),
            from: table.partitions.first().and_then(|partition| partition.bounds.from),
            to: table.partitions.last().and_then(|partition| partition.bounds.to),
            wanted: kept.period.ahead as usize + 1,
            lacking: pending::missing_partitions(table, kept, at).partitions.len(),
            expired: pending::expired(table, kept, at).count(),
            expired_seconds: oldest.zip(first).map(|(oldest, first)| seconds(oldest.0 - first.0)),
        }
    }
}
