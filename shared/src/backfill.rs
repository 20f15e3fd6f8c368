//! Fills tables from other copies of the data: the backup, a DynamoDB export to S3, or a scan.
//!
//! Streaming continues meanwhile. Exported and scanned rows lose against every change from the stream, and the records of a
//! backup repeat changes that were already applied. A task runs until its deadline and returns the progress from which the
//! next call continues. Repeating a part of the work has the same effect as doing it once. Memory use does not depend on the
//! size of the source: at most one batch, and the few backup objects that are read ahead.

mod export;
mod reapply;
mod scan;
mod verify;

pub use verify::{Difference, Differences};

use serde::{Deserialize, Serialize};

use crate::backup::InvalidBackupLine;
use crate::clock::now;
use crate::dynamodb_tables::{DynamodbTables, TableError};
use crate::ingest::{Ingest, IngestError};
use crate::object_store::{ObjectError, ObjectStore};
use crate::record::{Batch, Record, SequenceNumber, StreamPosition};
use crate::spec::KeyColumn;
use crate::task::{Deadline, Resumable, TaskCall};
use crate::timestamp::Timestamp;

/// A batch is written when it reaches this many records or bytes: the maximum that a stream invocation receives.
const BATCH_RECORDS: usize = 4_000;
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Unreadable lines that are named; the others are only counted. A task must fit the 256 KB that Step Functions passes on.
const UNREADABLE_EXAMPLES_MAX: usize = 20;

/// A backfill task: what to do, and the progress so far.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct BackfillTask {
    /// Source whose tables to fill, by its name in the configuration.
    pub source: String,
    /// The data to fill them with.
    #[serde(flatten)]
    pub job: BackfillJob,
    /// Progress of the earlier calls.
    #[serde(default)]
    pub progress: BackfillProgress,
}

/// The work of a task.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum BackfillJob {
    /// Reapply the backup for a range of arrival times.
    Reapply {
        /// Start of the arrival times, inclusive, as RFC 3339.
        from: String,
        /// End, exclusive, as RFC 3339.
        to: String,
        /// Reapply only this table, given by its name in PostgreSQL.
        #[serde(default)]
        table: Option<String>,
    },
    /// Load an export of a DynamoDB table to S3, full or incremental.
    Export {
        /// S3 address of its `manifest-summary.json`.
        manifest: String,
        /// Load only this data file, given by its S3 key; for parallel loads.
        #[serde(default)]
        file: Option<String>,
        /// Key attributes of the table; required if the DynamoDB table no longer exists.
        #[serde(default)]
        key: Vec<String>,
    },
    /// Scan a DynamoDB table (for small tables).
    Scan {
        /// The DynamoDB table.
        table: String,
        /// Segment number, from 0.
        #[serde(default)]
        segment: u32,
        /// Number of parallel segments.
        #[serde(default = "one")]
        segments: u32,
    },
    /// Compare a DynamoDB table with its replica, without writing.
    Verify {
        /// The DynamoDB table.
        table: String,
    },
}

impl Resumable for BackfillTask {
    fn is_done(&self) -> bool {
        self.progress.done
    }
}

fn one() -> u32 {
    1
}

/// Progress of a task. The numbers are totals over all its calls.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct BackfillProgress {
    /// The task is complete.
    pub done: bool,
    /// Records read.
    pub records: u64,
    /// Rows inserted and updated.
    pub rows: u64,
    /// Rejected records, sent to the dead-letter queue.
    pub dead_lettered: u64,
    /// Bytes read: as stored for an export, after decompression for a backup, as JSON for a scan.
    pub bytes: u64,
    /// Total number of records, if the source provides it.
    pub total: Option<u64>,
    /// The differences found by a comparison.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Differences>,
    /// The lines of a backup that could not be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<UnreadableLines>,
    /// When the task began. Scanned rows have this timestamp.
    pub started: Option<String>,
    /// Where to continue.
    pub cursor: Option<BackfillCursor>,
}

/// Lines of a backup that could not be read: their records are not restored.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
pub struct UnreadableLines {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub examples: Vec<UnreadableLine>,
}

/// A line of a backup that could not be read.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct UnreadableLine {
    /// The object.
    pub object: String,
    /// The line, from 1.
    pub line: u64,
    /// What is wrong.
    pub error: String,
}

/// A position in a source.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, Debug)]
#[serde(default)]
pub struct BackfillCursor {
    /// The last completed object, or the one being read.
    pub object: String,
    /// Number of its lines completed.
    pub line: u64,
    /// Where a scan continues: a key in DynamoDB's JSON.
    pub key: Option<String>,
}

/// Why a backfill failed. Batches already written stay; repeating them is safe.
#[derive(Debug, thiserror::Error)]
pub enum BackfillError {
    /// The configuration has no such source.
    #[error("unknown source `{0}`")]
    UnknownSource(String),
    /// Invalid timestamp.
    #[error("invalid timestamp `{0}`; expected e.g. 2026-02-08T00:00:00Z")]
    Time(String),
    /// Not a manifest of a supported export.
    #[error("invalid export manifest {address}: {reason}")]
    Manifest {
        /// The object.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// A record was rejected and no dead-letter queue is configured.
    #[error("record {0} was rejected and cannot be kept: DEAD_LETTER_QUEUE_URL is not set")]
    Rejected(String),
    /// S3 failed.
    #[error(transparent)]
    Object(#[from] ObjectError),
    /// DynamoDB failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// Writing the records failed.
    #[error(transparent)]
    Ingest(#[from] IngestError),
}

impl BackfillError {
    /// Whether operator action is required before a retry can succeed.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::UnknownSource(_) | Self::Time(_) | Self::Manifest { .. } => true,
            Self::Rejected(_) => true,
            Self::Ingest(error) => error.needs_operator(),
            Self::Object(_) | Self::Table(_) => false,
        }
    }
}

/// The resources of a backfill.
pub struct Backfill<'b> {
    /// Writes the records.
    pub ingest: &'b mut Ingest,
    /// Holds exports and the backup.
    pub object_store: ObjectStore,
    /// The DynamoDB tables to scan.
    pub tables: DynamodbTables,
    /// This call of the task.
    pub call: TaskCall<'b, BackfillProgress>,
}

/// Runs the task until it is complete or the deadline has passed. To continue, call it again with the task and the returned
/// progress.
///
/// # Errors
/// Fails if this call cannot make progress. Bad records are dead-lettered and are not errors.
pub async fn run(backfill: &mut Backfill<'_>, task: &BackfillTask) -> Result<BackfillProgress, BackfillError> {
    let source = backfill.ingest.source_by_name(&task.source);
    let source = source.ok_or_else(|| BackfillError::UnknownSource(task.source.clone()))?;
    let mut progress = task.progress.clone();
    progress.started.get_or_insert_with(|| now().to_string());
    let mut run = BackfillRun { backfill, source, progress, batch: Batch::default(), key: None };
    match &task.job {
        BackfillJob::Reapply { from, to, table } => {
            let (from, to) = (parse_time(from)?, parse_time(to)?);
            reapply::reapply_backup(&mut run, &task.source, (from, to), table.as_deref()).await?;
        }
        BackfillJob::Export { manifest, file, key } => {
            export::load_export(&mut run, manifest, file.as_deref(), key).await?
        }
        BackfillJob::Scan { table, segment, segments } => {
            scan::scan_table(&mut run, table, *segment, *segments).await?
        }
        BackfillJob::Verify { table } => verify::verify_table(&mut run, table).await?,
    }
    Ok(run.progress)
}

fn parse_time(text: &str) -> Result<Timestamp, BackfillError> {
    Timestamp::parse(text).ok_or_else(|| BackfillError::Time(text.to_owned()))
}

/// One call of [`run`]: the batch being filled, and the progress before it.
struct BackfillRun<'p, 'b> {
    backfill: &'p mut Backfill<'b>,
    source: usize,
    progress: BackfillProgress,
    batch: Batch,
    /// A table whose records do not contain its key, and the key.
    key: Option<(String, Vec<KeyColumn>)>,
}

impl BackfillRun<'_, '_> {
    fn is_full(&self) -> bool {
        self.batch.records.len() >= BATCH_RECORDS || self.batch.bytes.len() >= BATCH_BYTES
    }

    fn deadline(&self) -> Deadline {
        self.backfill.call.deadline
    }

    /// Sets and returns the table's key: the task's or, if it has none, DynamoDB's. If the table no longer exists in DynamoDB,
    /// it must already exist in PostgreSQL.
    async fn set_table_key(&mut self, table: &str, key_names: &[String]) -> Result<Vec<KeyColumn>, BackfillError> {
        let key: Vec<KeyColumn> = if key_names.is_empty() {
            self.backfill.tables.key(table).await?
        } else {
            key_names.iter().map(|name| KeyColumn { name: name.clone(), sql_type: None }).collect()
        };
        self.backfill.ingest.set_table_key(self.source, table, &key)?;
        self.key = Some((table.to_owned(), key.clone()));
        Ok(key)
    }

    /// Adds a line to the batch. It is identified by its object and line number.
    fn push(&mut self, table_arn: &str, object: &str, line: u64, time: Timestamp, document: &[u8]) {
        let start = self.batch.bytes.len();
        self.batch.bytes.extend_from_slice(document);
        let position = StreamPosition {
            stream: table_arn.into(),
            shard: object.into(),
            sequence_number: SequenceNumber(line.to_string().into()),
            sub_sequence_number: 0,
        };
        let payload = start..self.batch.bytes.len();
        self.batch.records.push(Record::new(position, time, "".into(), payload));
    }

    /// Counts a line that could not be read. The other lines are written: a damaged line costs only itself.
    fn report_unreadable(&mut self, object: &str, line: u64, error: &InvalidBackupLine) {
        let unreadable = self.progress.unreadable.get_or_insert_default();
        unreadable.count += 1;
        if unreadable.examples.len() < UNREADABLE_EXAMPLES_MAX {
            tracing::error!(object, line, %error, "unreadable line of the backup");
            unreadable.examples.push(UnreadableLine { object: object.to_owned(), line, error: error.to_string() });
        }
    }

    /// Adds an item to the batch, in the form of an export.
    fn push_item(&mut self, table: &str, object: &str, line: u64, time: Timestamp, item: &str) {
        let (arn, document) = (format!("scan:table/{table}"), format!("{{\"Item\":{item}}}"));
        self.push(&arn, object, line, time, document.as_bytes());
    }

    /// Writes the batch; once it is committed, moves the progress to the cursor.
    async fn write(&mut self, cursor: BackfillCursor) -> Result<(), BackfillError> {
        let batch = std::mem::take(&mut self.batch);
        if !batch.records.is_empty() {
            let time_left = self.deadline().unit_time();
            if let Some((table, key)) = &self.key {
                // Set each time: a decoder that has seen too many paths is reset and loses the key.
                self.backfill.ingest.set_table_key(self.source, table, key)?;
            }
            let report = self.backfill.ingest.reapply(self.source, &batch, time_left).await?;
            if let Some(sequence) = report.retry_from {
                return Err(BackfillError::Rejected(sequence));
            }
            self.progress.records += report.counts.total();
            self.progress.rows += report.rows;
            self.progress.dead_lettered += report.counts.dead_lettered;
        }
        self.progress.cursor = Some(cursor);
        self.backfill.call.report(&self.progress);
        Ok(())
    }

    fn finish(&mut self) {
        self.progress.done = true;
        self.backfill.call.report(&self.progress);
    }
}
