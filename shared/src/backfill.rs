//! Filling tables from what is kept elsewhere: the backup, an export of DynamoDB to S3, a scan.
//!
//! The stream goes on meanwhile: what is loaded loses against all that it has said, and a backup's records say again what they
//! said before. A task works for as long as it is given, and tells where the next one goes on; whatever is done twice ends
//! as if done once. No more is in memory than one batch, whatever the size of the source.

mod export;
mod reapply;
mod scan;
mod verify;

pub use verify::{Difference, Differences};

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::backup::InvalidBackupLine;
use crate::clock::now;
use crate::dynamodb_tables::{DynamodbTables, TableError};
use crate::ingest::{Ingest, IngestError};
use crate::object_store::{ObjectError, ObjectStore};
use crate::record::{Batch, Record, SequenceNumber, StreamPosition};
use crate::spec::KeyColumn;
use crate::timestamp::Timestamp;

/// A batch is written when it holds so many records, or so many bytes: what an invocation by a stream holds at most.
const BATCH_RECORDS: usize = 4_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// What is to be done, and how far it is.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct BackfillTask {
    /// Source whose tables to fill, by its name in the configuration.
    pub source: String,
    /// What with.
    #[serde(flatten)]
    pub job: BackfillJob,
    /// Where an earlier piece of the work has ended.
    #[serde(default)]
    pub progress: BackfillProgress,
}

/// What a task fills tables with.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum BackfillJob {
    /// Reapply the backup for a range of arrival times.
    Reapply {
        /// The first moment of arrival, as RFC 3339.
        from: String,
        /// End, exclusive, as RFC 3339.
        to: String,
        /// Reapply only this table, given by its name in PostgreSQL.
        #[serde(default)]
        table: Option<String>,
    },
    /// An export of a DynamoDB table to S3, full or incremental.
    Export {
        /// The address of its `manifest-summary.json`.
        manifest: String,
        /// Load only this data file, given by its S3 key: one piece of a parallel load.
        #[serde(default)]
        file: Option<String>,
        /// Key attributes of the table; required if the DynamoDB table no longer exists.
        #[serde(default)]
        key: Vec<String>,
    },
    /// Scan a DynamoDB table (for small tables).
    Scan {
        /// The table.
        table: String,
        /// Segment number, from 0.
        #[serde(default)]
        segment: u32,
        /// Number of parallel segments.
        #[serde(default = "one")]
        segments: u32,
    },
    /// Nothing: a DynamoDB table is compared with its replica.
    Verify {
        /// The table.
        table: String,
    },
}

fn one() -> u32 {
    1
}

/// How far a task is. The numbers are sums over all its pieces.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct BackfillProgress {
    /// Nothing is left.
    pub done: bool,
    /// Records read.
    pub records: u64,
    /// Rows inserted and updated.
    pub rows: u64,
    /// Records that were refused, and are on the queue.
    pub dead_lettered: u64,
    /// Bytes read, as they lie in the source.
    pub bytes: u64,
    /// Records in all, where the source tells.
    pub total: Option<u64>,
    /// What a comparison has found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Differences>,
    /// When the work began: rows of a scan are as old as that.
    pub started: Option<String>,
    /// Where to go on.
    pub cursor: Option<BackfillCursor>,
}

/// A place in a source.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct BackfillCursor {
    /// The last object that is done, or the one that is being read.
    pub object: String,
    /// Lines of it that are done.
    pub line: u64,
    /// Where a scan goes on: a key as DynamoDB writes it.
    pub key: Option<String>,
}

/// Why a piece of the work failed. What was written before stays; the piece may be done again.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// The configuration knows no such source.
    #[error("unknown source `{0}`")]
    UnknownSource(String),
    /// Not a moment.
    #[error("invalid timestamp `{0}`; expected e.g. 2026-02-08T00:00:00Z")]
    Time(String),
    /// Not the manifest of an export.
    #[error("invalid export manifest {address}: {reason}")]
    Manifest {
        /// The object.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// A damaged object of the backup.
    #[error("{address}, line {line}")]
    Line {
        /// The object.
        address: String,
        /// The line, from 1.
        line: u64,
        /// What is wrong.
        #[source]
        source: InvalidBackupLine,
    },
    /// A refused record, and no queue to keep it.
    #[error("record {0} was rejected and cannot be kept: DEAD_LETTER_QUEUE_URL is not set")]
    Refused(String),
    /// S3.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// DynamoDB.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Writing.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl BackfillError {
    /// Whether operator action required before it can go on.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::UnknownSource(_) | Self::Time(_) | Self::Manifest { .. } => true,
            Self::Line { .. } | Self::Refused(_) => true,
            Self::Ingest(error) => error.needs_operator(),
            Self::Object(_) | Self::Table(_) => false,
        }
    }
}

/// What a piece of the work has at hand.
pub struct Backfill<'b> {
    /// What writes.
    pub ingest: &'b mut Ingest,
    /// Where exports and the backup are.
    pub archive: ObjectStore,
    /// Where tables are scanned.
    pub tables: DynamodbTables,
    /// The end of the time for this piece.
    pub until: Instant,
    /// Is told after each batch how far the work is.
    pub watch: &'b (dyn Fn(&BackfillProgress) + Send + Sync),
}

/// Works on the task until it is done or the time is up. The same task, with the progress that is returned, goes on.
///
/// # Errors
/// Whatever keeps the piece from being done; bad records do not.
pub async fn run(backfill: &mut Backfill<'_>, task: &BackfillTask) -> Result<BackfillProgress, BackfillError> {
    let source = backfill.ingest.source_by_name(&task.source);
    let source = source.ok_or_else(|| BackfillError::UnknownSource(task.source.clone()))?;
    let mut progress = task.progress.clone();
    progress.started.get_or_insert_with(|| now().to_string());
    let mut piece = BackfillRun { backfill, source, progress, batch: Batch::default(), key: None };
    match &task.job {
        BackfillJob::Reapply { from, to, table } => {
            let (from, to) = (parse_time(from)?, parse_time(to)?);
            reapply::reapply_backup(&mut piece, &task.source, (from, to), table.as_deref()).await?;
        }
        BackfillJob::Export { manifest, file, key } => {
            export::load_export(&mut piece, manifest, file.as_deref(), key).await?
        }
        BackfillJob::Scan { table, segment, segments } => {
            scan::scan_table(&mut piece, table, *segment, *segments).await?
        }
        BackfillJob::Verify { table } => verify::verify_table(&mut piece, table).await?,
    }
    Ok(piece.progress)
}

fn parse_time(text: &str) -> Result<Timestamp, BackfillError> {
    Timestamp::parse(text).ok_or_else(|| BackfillError::Time(text.to_owned()))
}

/// A piece of the work: a batch that is being filled, and how far everything before it is.
struct BackfillRun<'p, 'b> {
    backfill: &'p mut Backfill<'b>,
    source: usize,
    progress: BackfillProgress,
    batch: Batch,
    /// A table whose records do not tell its key, and the key.
    key: Option<(String, Vec<KeyColumn>)>,
}

impl BackfillRun<'_, '_> {
    fn is_full(&self) -> bool {
        self.batch.records.len() >= BATCH_RECORDS || self.batch.bytes.len() >= BATCH_BYTES
    }

    fn is_out_of_time(&self) -> bool {
        self.time_left().is_zero()
    }

    fn time_left(&self) -> Duration {
        self.backfill.until.saturating_duration_since(Instant::now())
    }

    /// A batch that has begun is brought to its end: the piece's time has a margin for it.
    fn batch_time(&self) -> Duration {
        self.time_left().max(Duration::from_secs(30))
    }

    /// Tells the table's key, as the task does, or else as DynamoDB does; the key. A table that is gone there has to be here
    /// already.
    async fn set_table_key(&mut self, table: &str, told: &[String]) -> Result<Vec<KeyColumn>, BackfillError> {
        let key: Vec<KeyColumn> = if told.is_empty() {
            self.backfill.tables.key(table).await?
        } else {
            told.iter().map(|name| KeyColumn { name: name.clone(), sql_type: None }).collect()
        };
        self.backfill.ingest.set_table_key(self.source, table, &key)?;
        self.key = Some((table.to_owned(), key.clone()));
        Ok(key)
    }

    /// Puts a line of a table into the batch. It is known by its object and line.
    fn push(&mut self, table_arn: &str, object: &str, line: u64, time: Timestamp, document: &[u8]) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(document);
        let place = StreamPosition {
            stream: table_arn.into(),
            shard: object.into(),
            sequence_number: SequenceNumber(line.to_string().into()),
            sub_sequence_number: 0,
        };
        let payload = start..self.batch.bytes.len();
        self.batch.records.push(Record::new(place, time, "".into(), payload));
    }

    /// Puts an item of a table into the batch, as an export would tell it.
    fn push_item(&mut self, table: &str, object: &str, line: u64, time: Timestamp, item: &str) {
        let (arn, document) = (format!("scan:table/{table}"), format!("{{\"Item\":{item}}}"));
        self.push(&arn, object, line, time, document.as_bytes());
    }

    /// Writes the batch; once it is in the database, the work goes on from the cursor.
    async fn write(&mut self, cursor: BackfillCursor) -> Result<(), BackfillError> {
        let batch = std::mem::take(&mut self.batch);
        if !batch.records.is_empty() {
            let time_left = self.batch_time();
            if let Some((table, key)) = &self.key {
                // Told again each time: a decoder that has met too many paths begins anew.
                self.backfill.ingest.set_table_key(self.source, table, key)?;
            }
            let report = self.backfill.ingest.reapply(self.source, &batch, time_left).await?;
            if let Some(sequence) = report.retry_from {
                return Err(BackfillError::Refused(sequence));
            }
            self.progress.records += report.counts.total();
            self.progress.rows += report.rows;
            self.progress.dead_lettered += report.counts.dead_lettered;
        }
        self.progress.cursor = Some(cursor);
        (self.backfill.watch)(&self.progress);
        Ok(())
    }

    fn finish(&mut self) {
        self.progress.done = true;
        (self.backfill.watch)(&self.progress);
    }
}
