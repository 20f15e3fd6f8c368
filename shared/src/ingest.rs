//! How a batch is processed: records, changes, plan, apply, report. [`Ingest`] holds the state that a function keeps between
//! invocations.

mod after_commit;
mod dead_letters;
mod dry_run;
mod parts;
mod record_source;
mod rejections;
mod report;
mod slices;
mod table_findings;
mod writer;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::apply::{ApplyError, Limits, RowDifference};
use crate::backup::{self, BatchOrigin};
use crate::catalog::CatalogError;
use crate::change::Changes;
use crate::config::Config;
use crate::database::{Database, DatabaseError};
use crate::dead_letter::{DeadLetterError, DeadLetters};
use crate::decode::Decoder;
use crate::object_store::{NewObject, ObjectError, ObjectStore};
use crate::outcome::Unaccounted;
use crate::record::{Batch, EventError, EventReader};
use crate::rejection::Rejection;
use crate::report::{Report, StageTimes};
use crate::spec::KeyColumn;
use crate::unwritable::UnwritableTable;
use after_commit::ReportedBatch;
pub use dry_run::{DeclaredTable, DryRun, DryRunResult};
use parts::PartsWrite;
use record_source::RecordSource;
use report::CommittedBatch;
use writer::{DecodeSummary, WriteResult, Writer};

/// A batch is planned at most this many times. It is planned again if the schema has changed, or was changed for it.
const PLAN_ATTEMPTS_MAX: u32 = 12;

/// A writer waits this long for a lock: longer than DDL does, shorter than the timeout of most functions.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// A control record of another shard, or another function, may still provide a table's key for this long. After that, the
/// table's records become dead letters.
const KEY_TIMEOUT: Duration = Duration::from_secs(120);

/// The changes of a batch that is written at once take at most about this many bytes: more than those of Lambda's largest event
/// usually do. A batch with more is written in parts.
const BATCH_CHANGES_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Ingests batches of records.
pub struct Ingest {
    config: Config,
    /// One per configured source.
    decoders: Vec<Decoder>,
    writer: Writer,
    object_store: ObjectStore,
    reporter: OutcomeReporter,
}

/// Whether a batch is backed up to S3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BackupPolicy {
    Keep(BatchOrigin),
    None,
}

/// How the records of a batch are backed up.
#[derive(Clone, Copy)]
struct BatchBackup<'b> {
    policy: BackupPolicy,
    object_store: &'b ObjectStore,
    source: &'b str,
}

/// Accounts for every record.
struct OutcomeReporter {
    dead_letters: DeadLetters,
}

/// Why a batch failed. Nothing was acknowledged, and Lambda delivers the batch again.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// The event does not come from a stream.
    #[error(transparent)]
    Event(#[from] EventError),
    /// No configured source reads the stream.
    #[error("no configured source reads stream {0}")]
    UnknownStream(String),
    /// The view type of the DynamoDB stream omits the items.
    #[error(transparent)]
    ViewType(Rejection),
    /// The configuration excludes the table.
    #[error(transparent)]
    Table(Rejection),
    /// A table's key is not known yet; records of another shard may still provide it.
    #[error(transparent)]
    KeyNotKnownYet(Rejection),
    /// The connection failed.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A table cannot be written, and its configuration says that the source waits.
    #[error("{0}; the source waits, because on_unwritable is \"stop\"")]
    Unwritable(UnwritableTable),
    /// The write failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The schema kept changing.
    #[error("gave up after {PLAN_ATTEMPTS_MAX} plans because the schema kept changing{0}")]
    SchemaKeptChanging(String),
    /// The backup could not be stored.
    #[error("could not store the backup")]
    Backup(#[from] ObjectError),
    /// Dead letters could not be stored.
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// Without a queue, a rejected record is reported to Lambda by its sequence number, and this one has none.
    #[error(
        "a record without a sequence number was rejected and cannot be kept, as DEAD_LETTER_QUEUE_URL is not set: {0}"
    )]
    NoSequenceNumber(Rejection),
    /// More rejected records than memory holds. A single record of the stream never has as many: Lambda bisects the batch.
    #[error("{0} documents of the batch were rejected for alternating reasons, which are too many for one invocation")]
    TooManyRejections(u64),
    /// A bug in Millstream: a record has no outcome.
    #[error(transparent)]
    Unaccounted(#[from] Unaccounted),
}

impl IngestError {
    /// Whether an operator must act before a retry can succeed.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Event(_) | Self::UnknownStream(_) | Self::Unwritable(_) | Self::SchemaKeptChanging(_) => true,
            Self::NoSequenceNumber(_) | Self::Unaccounted(_) | Self::ViewType(_) | Self::Table(_) => true,
            Self::Apply(error) => error.needs_operator(),
            Self::Catalog(error) => error.needs_operator(),
            Self::Database(error) => error.needs_operator(),
            Self::DeadLetter(error) => error.needs_operator(),
            Self::KeyNotKnownYet(_) | Self::Backup(_) | Self::TooManyRejections(_) => false,
        }
    }

    /// Whether a record has no outcome.
    pub fn is_unaccounted(&self) -> bool {
        matches!(self, Self::Unaccounted(_))
    }
}

impl Ingest {
    /// Creates the state for the configured sources.
    pub fn new(config: Config, database: Database, dead_letters: DeadLetters) -> Self {
        let decoders = config.sources.iter().cloned().map(Decoder::new).collect();
        let writer = Writer::new(database, config.totals.clone());
        let object_store = dead_letters.object_store().clone();
        Self { config, decoders, writer, object_store, reporter: OutcomeReporter { dead_letters } }
    }

    /// Loads one batch into the database. `time_left` is the time left to the invocation.
    ///
    /// # Errors
    /// Returns an error if the batch as a whole cannot be made durable. A rejected record is an error only if there is
    /// neither a dead-letter queue nor a sequence number to report.
    pub async fn process_event(&mut self, event: &[u8], time_left: Duration) -> Result<Report, IngestError> {
        let started = Instant::now();
        let mut incoming = RecordSource::Event(EventReader::open(event)?);
        if incoming.read_until(1)?.records.iter().all(|record| record.position.stream.is_empty()) {
            incoming.read_all()?;
        }
        let Some(index) = self.source_for_batch(incoming.batch())? else { return Ok(empty_report(incoming.batch())) };
        let backup = self.backup_policy(index, BatchOrigin::Stream);
        // Boxed: with the SDK's futures inside, the type nests too deeply for the compiler.
        Box::pin(self.process(index, &mut incoming, backup, started, time_left)).await
    }

    /// Loads records of a source that do not come from its stream. They are not backed up: a copy exists already.
    ///
    /// # Errors
    /// See [`Ingest::process_event`].
    pub async fn reapply(&mut self, source: usize, batch: &Batch, time_left: Duration) -> Result<Report, IngestError> {
        self.process_batch(source, batch, BackupPolicy::None, time_left).await
    }

    /// Loads records of a source that were rejected before. A record that is rejected again becomes a dead letter again.
    ///
    /// # Errors
    /// See [`Ingest::process_event`].
    pub async fn redrive(&mut self, source: usize, batch: &Batch, time_left: Duration) -> Result<Report, IngestError> {
        let backup = self.backup_policy(source, BatchOrigin::Redrive);
        self.process_batch(source, batch, backup, time_left).await
    }

    async fn process_batch(
        &mut self,
        source: usize,
        batch: &Batch,
        backup: BackupPolicy,
        time_left: Duration,
    ) -> Result<Report, IngestError> {
        let mut incoming = RecordSource::Batch(batch);
        Box::pin(self.process(source, &mut incoming, backup, Instant::now(), time_left)).await
    }

    fn backup_policy(&self, source: usize, origin: BatchOrigin) -> BackupPolicy {
        if self.config.sources[source].backup { BackupPolicy::Keep(origin) } else { BackupPolicy::None }
    }

    /// Whether rejected records are sent to a queue.
    pub fn has_dead_letter_queue(&self) -> bool {
        self.reporter.dead_letters.has_queue()
    }

    /// The configured name of a source.
    pub fn source_name(&self, source: usize) -> &str {
        &self.config.sources[source].name
    }

    /// The index of the source that reads a stream.
    pub fn source_by_stream(&self, stream: &str) -> Option<usize> {
        self.config.source_by_stream(stream).map(|(index, _)| index)
    }

    /// The index of the source with this name.
    pub fn source_by_name(&self, name: &str) -> Option<usize> {
        self.config.sources.iter().position(|source| source.name == name)
    }

    /// Sets the key of a source's table, and the types of the key's columns, if its records do not provide them.
    ///
    /// # Errors
    /// Returns an error if the configuration excludes the table.
    pub fn set_table_key(&mut self, source: usize, table: &str, key: &[KeyColumn]) -> Result<(), IngestError> {
        self.decoders[source].set_table_key(table, key).map_err(IngestError::Table)
    }

    /// Compares records of a source with the stored rows and returns the differences. Writes nothing.
    ///
    /// # Errors
    /// See [`Ingest::process_event`].
    pub async fn diff_rows(
        &mut self,
        source: usize,
        batch: &Batch,
        time_left: Duration,
    ) -> Result<Vec<RowDifference>, IngestError> {
        let decoder = &mut self.decoders[source];
        let (changes, rejected) = decoder.decode(batch);
        let limits = limits(time_left);
        let mut differences = Box::pin(self.writer.diff_rows(decoder, &changes, limits)).await?;
        differences.extend(rejected.into_iter().map(rejected_row));
        Ok(differences)
    }

    /// The source's names for the columns of a replicated table's key, and at most `limit` keys after `after`, in order. See
    /// [`crate::apply::list_keys`].
    ///
    /// # Errors
    /// See [`Ingest::process_event`].
    pub async fn list_keys(
        &mut self,
        source: usize,
        table: &str,
        after: Option<&[String]>,
        limit: i64,
    ) -> Result<(Vec<String>, Vec<Vec<String>>), IngestError> {
        let decoder = &mut self.decoders[source];
        let Some(table) = decoder.replicated_table(table) else { return Ok((Vec::new(), Vec::new())) };
        self.writer.list_keys(decoder, table, after, limit).await
    }

    async fn process(
        &mut self,
        index: usize,
        incoming: &mut RecordSource<'_>,
        backup: BackupPolicy,
        started: Instant,
        time_left: Duration,
    ) -> Result<Report, IngestError> {
        let mut times = StageTimes { decode: started.elapsed(), ..StageTimes::default() };
        let Self { config, decoders, writer, object_store, reporter } = self;
        let (source, decoder) = (&config.sources[index].name, &mut decoders[index]);
        decoder.reset_if_too_large();
        let backup = BatchBackup { policy: backup, object_store, source };
        let (rejected_outcome, limits) = (reporter.rejected_outcome(), limits(time_left));
        let write = PartsWrite { backup, rejected_outcome, limits };
        let committed = match write_in_memory(writer, decoder, incoming, &write, &mut times).await? {
            Some((decoded, written)) => CommittedBatch::new(incoming.batch(), decoded, written, rejected_outcome)?,
            None => writer.write_in_parts(decoder, incoming, &write, &mut times).await?,
        };
        let (extent, tables) = (committed.extent.clone(), committed.tables.clone());
        let report = reporter.report(source, decoder, incoming, committed, times).await?;
        let stream_extent = incoming.is_stream().then_some(&extent);
        let reported = ReportedBatch { report: &report, tables: &tables, stream_extent };
        writer.after_commit(reported, time_left.saturating_sub(started.elapsed())).await;
        Ok(report)
    }

    /// The index of the source that reads the batch's stream; `None` if the batch has no record.
    fn source_for_batch(&self, batch: &Batch) -> Result<Option<usize>, IngestError> {
        let stream = batch.records.iter().map(|record| &*record.position.stream).find(|stream| !stream.is_empty());
        match stream {
            Some(stream) => {
                self.source_by_stream(stream).map(Some).ok_or_else(|| IngestError::UnknownStream(stream.to_owned()))
            }
            None if batch.records.is_empty() => Ok(None),
            // Elements that are not records name no stream; with a single source there is no ambiguity.
            None if self.decoders.len() == 1 => Ok(Some(0)),
            None => Err(IngestError::UnknownStream("(no record names its stream)".to_owned())),
        }
    }
}

/// Writes a batch that fits into memory; `None` if it does not fit, and nothing was written.
async fn write_in_memory(
    writer: &mut Writer,
    decoder: &mut Decoder,
    incoming: &mut RecordSource<'_>,
    write: &PartsWrite<'_>,
    times: &mut StageTimes,
) -> Result<Option<(DecodeSummary, WriteResult)>, IngestError> {
    if let Some((decoded, written)) = writer.write_in_slices(decoder, incoming, write.limits, times).await? {
        write.backup.store(decoder, incoming.batch(), &decoded).await?;
        return Ok(Some((decoded, written)));
    }
    let decoding = Instant::now();
    if !incoming.read_all()? {
        return Ok(None);
    }
    let batch = incoming.batch();
    let (mut changes, mut rejected) = (Changes::default(), Vec::new());
    decoder.scan_for_keys(batch);
    let decoded =
        decoder.decode_within(batch, 0..batch.records.len(), BATCH_CHANGES_BYTES_MAX, &mut changes, &mut rejected);
    times.decode += decoding.elapsed();
    if decoded < batch.records.len() {
        return Ok(None);
    }
    let decoded = DecodeSummary::new(&changes, rejected);
    decoded.check()?;
    // Concurrently. An error is returned only once both have finished.
    let backing_up = write.backup.store(decoder, batch, &decoded);
    let writing = writer.write(decoder, &changes, write.limits, times);
    let (stored, written) = futures_util::future::join(backing_up, writing).await;
    let written = written?;
    stored?;
    Ok(Some((decoded, written)))
}

/// The time limits of statements, given the time left to the invocation.
fn limits(time_left: Duration) -> Limits {
    // Less than the statement may take, so that there is time to find out who holds the lock.
    Limits { statement: time_left, lock: LOCK_TIMEOUT.min(time_left * 3 / 4) }
}

/// The difference for an item that was rejected, and therefore has no row.
fn rejected_row((record, rejection): (usize, Rejection)) -> RowDifference {
    RowDifference { key: format!("item {record} of its page"), columns: Some(vec![rejection.to_string()]) }
}

impl BatchBackup<'_> {
    /// Stores the backup of records, unless there is no bucket.
    ///
    /// The objects are built before the returned future is polled, which therefore does not borrow the decoder.
    fn store<'s>(
        &'s self,
        decoder: &mut Decoder,
        batch: &Batch,
        decoded: &DecodeSummary,
    ) -> impl Future<Output = Result<(), ObjectError>> + use<'s> {
        self.object_store.put_all(self.objects(decoder, batch, decoded))
    }

    fn objects(&self, decoder: &mut Decoder, batch: &Batch, decoded: &DecodeSummary) -> Vec<NewObject> {
        let Self { policy, object_store, source } = *self;
        match policy {
            BackupPolicy::Keep(origin) if object_store.has_bucket() => {
                let (tables, control) = (&decoded.tables, &decoded.control_records);
                let (objects, omitted) = backup::build_objects(source, decoder, batch, tables, control, origin);
                if let Some(first) = omitted.first() {
                    let place = &batch.records[*first].position;
                    tracing::error!(source, records = omitted.len(), first = %place, "records without a backup");
                }
                objects
            }
            BackupPolicy::Keep(_) | BackupPolicy::None => Vec::new(),
        }
    }
}

fn empty_report(batch: &Batch) -> Report {
    Report {
        source: String::new(),
        counts: Default::default(),
        empty_records: batch.empty_records as u64,
        rows: 0,
        ddl: 0,
        reasons: BTreeMap::new(),
        rejections: Vec::new(),
        unwritable_tables: 0,
        batch_age: Duration::ZERO,
        times: StageTimes::default(),
        retry_from: None,
    }
}
