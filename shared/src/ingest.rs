//! How a batch is processed: records, changes, plan, apply, report. [`Ingest`] holds the state that a function keeps between
//! invocations.

mod dead_letters;
mod dry_run;
mod record_source;
mod slices;
mod writer;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::apply::{ApplyError, Limits, RowDifference};
use crate::backup::{self, BatchOrigin};
use crate::catalog::CatalogError;
use crate::clock::now;
use crate::config::Config;
use crate::database::{Database, DatabaseError};
use crate::dead_letter::{DeadLetterError, DeadLetters};
use crate::decode::Decoder;
use crate::object_store::{NewObject, ObjectError, ObjectStore};
use crate::outcome::{Outcome, OutcomeLedger, Unaccounted};
use crate::plan::unwritable_tables;
use crate::record::{Batch, EventError, EventReader};
use crate::rejection::{Rejection, RejectionReason};
use crate::report::{Report, StageTimes};
use crate::spec::KeyColumn;
use crate::unwritable::UnwritableTable;
pub use dry_run::{DeclaredTable, DryRun, DryRunResult};
use record_source::RecordSource;
use writer::{DecodeSummary, WriteResult, Writer};

/// A batch is planned at most this many times. It is planned again if the schema has changed, or was changed for it.
const PLAN_ATTEMPTS_MAX: u32 = 12;

/// A writer waits this long for a lock: longer than DDL does, shorter than the timeout of most functions.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// A control record of another shard, or another function, may still provide a table's key for this long. After that, the
/// table's records become dead letters.
const KEY_TIMEOUT: Duration = Duration::from_secs(120);

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
            Self::KeyNotKnownYet(_) | Self::Backup(_) => false,
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
        let report = Box::pin(self.process(index, &mut incoming, backup, started, time_left)).await?;
        if report.counts.any_committed() {
            let time_left = time_left.saturating_sub(started.elapsed());
            self.writer.publish_freshness(&self.config.sources[index].name, incoming.batch(), time_left).await;
        }
        Ok(report)
    }

    /// Loads records of a source that do not come from its stream. They are not backed up: a copy exists already.
    ///
    /// # Errors
    /// See [`Ingest::process_event`].
    pub async fn reapply(&mut self, source: usize, batch: &Batch, time_left: Duration) -> Result<Report, IngestError> {
        Box::pin(self.process(source, &mut RecordSource::Batch(batch), BackupPolicy::None, Instant::now(), time_left))
            .await
    }

    /// Loads records of a source that were rejected before. A record that is rejected again becomes a dead letter again.
    ///
    /// # Errors
    /// See [`Ingest::process_event`].
    pub async fn redrive(&mut self, source: usize, batch: &Batch, time_left: Duration) -> Result<Report, IngestError> {
        let backup = self.backup_policy(source, BatchOrigin::Redrive);
        Box::pin(self.process(source, &mut RecordSource::Batch(batch), backup, Instant::now(), time_left)).await
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
        let limits = limits(time_left);
        let (source, decoder) = (&self.config.sources[index].name, &mut self.decoders[index]);
        decoder.reset_if_too_large();
        let (decoded, written) = match self.writer.write_in_slices(decoder, incoming, limits, &mut times).await? {
            Some((decoded, written)) => {
                let batch = incoming.batch();
                self.object_store
                    .put_all(backup_objects(backup, &self.object_store, source, decoder, batch, &decoded))
                    .await?;
                (decoded, written)
            }
            None => {
                let decoding = Instant::now();
                let batch = incoming.read_all()?;
                let (changes, rejected) = decoder.decode(batch);
                times.decode += decoding.elapsed();
                let decoded = DecodeSummary::new(&changes, rejected);
                decoded.check()?;
                // Concurrently. An error is returned only once both have finished.
                let backing_up = self.object_store.put_all(backup_objects(
                    backup,
                    &self.object_store,
                    source,
                    decoder,
                    batch,
                    &decoded,
                ));
                let writing = self.writer.write(decoder, &changes, limits, &mut times);
                let (stored, written) = futures_util::future::join(backing_up, writing).await;
                let written = written?;
                stored?;
                (decoded, written)
            }
        };
        let batch = incoming.batch();
        let is_recent = |record: usize| Report::batch_age(Some(batch.records[record].arrival), now()) < KEY_TIMEOUT;
        let awaits_key = |(record, rejection): &&(usize, Rejection)| {
            matches!(rejection.reason, RejectionReason::NoKey(_)) && is_recent(*record)
        };
        if let Some((_, rejection)) = written.rejected.iter().find(awaits_key) {
            return Err(IngestError::KeyNotKnownYet(rejection.clone()));
        }
        let tables = written.tables.clone();
        let report = self.reporter.report(source, decoder, batch, decoded, written, times).await?;
        if report.counts.any_committed() {
            self.writer.update_totals(&tables, time_left.saturating_sub(started.elapsed())).await;
        }
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

/// The time limits of statements, given the time left to the invocation.
fn limits(time_left: Duration) -> Limits {
    // Less than the statement may take, so that there is time to find out who holds the lock.
    Limits { statement: time_left, lock: LOCK_TIMEOUT.min(time_left * 3 / 4) }
}

impl OutcomeReporter {
    /// Accounts for every record, stores the dead letters, and then reports.
    async fn report(
        &self,
        source: &str,
        decoder: &mut Decoder,
        batch: &Batch,
        decoded: DecodeSummary,
        written: WriteResult,
        mut times: StageTimes,
    ) -> Result<Report, IngestError> {
        let DecodeSummary { rejected, control_records, tables: _ } = decoded;
        let mut ledger = OutcomeLedger::new(batch.records.len());
        control_records.into_iter().for_each(|record| ledger.record(record, Outcome::Control));
        written.outcomes.iter().for_each(|(record, outcome)| ledger.record(*record, (*outcome).into()));
        written.repeated_in_batch.iter().for_each(|record| ledger.record(*record, Outcome::Duplicate));
        written.expired.iter().for_each(|record| ledger.record(*record, Outcome::Expired));
        let mut rejections: BTreeMap<usize, Rejection> = BTreeMap::new();
        for (record, rejection) in rejected.into_iter().chain(written.rejected) {
            rejections.entry(record).or_insert(rejection);
        }
        let rejected_outcome = if self.dead_letters.has_queue() { Outcome::DeadLettered } else { Outcome::Retry };
        rejections.keys().for_each(|record| ledger.record(*record, rejected_outcome));
        let counts = ledger.counts()?;
        let storing = Instant::now();
        let retry_from = if self.dead_letters.has_queue() {
            self.store(source, decoder, batch, &rejections).await?;
            None
        } else {
            retry_from(batch, &rejections)?
        };
        times.dead_letters = storing.elapsed();
        let unwritable = unwritable_tables(rejections.values());
        log_unwritable(source, &unwritable);
        let mut reasons = BTreeMap::new();
        for rejection in rejections.values() {
            *reasons.entry(rejection.reason.class()).or_insert(0) += 1;
        }
        Ok(Report {
            source: source.to_owned(),
            counts,
            empty_records: batch.empty_records as u64,
            rows: written.rows,
            ddl: written.ddl as u64,
            reasons,
            unwritable_tables: unwritable.len() as u64,
            batch_age: Report::batch_age(
                batch.records.iter().map(|record| record.arrival).filter(|at| at.0 > 0).min(),
                now(),
            ),
            times,
            retry_from,
        })
    }
}

/// Writes one ERROR line for each table that cannot be written.
fn log_unwritable(source: &str, tables: &[(&UnwritableTable, u64)]) {
    for (unwritable, records) in tables {
        tracing::error!(
            source,
            table = unwritable.table.unquoted(),
            records,
            error = %unwritable.problem,
            statement = unwritable.statement(),
            sqlstate = unwritable.sqlstate(),
            remedy = unwritable.remedy_text(),
            "operator action required: the table cannot be written"
        );
    }
}

/// The difference for an item that was rejected, and therefore has no row.
fn rejected_row((record, rejection): (usize, Rejection)) -> RowDifference {
    RowDifference { key: format!("item {record} of its page"), columns: Some(vec![rejection.to_string()]) }
}

/// The objects of a batch's backup; none without a bucket.
fn backup_objects(
    backup: BackupPolicy,
    object_store: &ObjectStore,
    source: &str,
    decoder: &mut Decoder,
    batch: &Batch,
    decoded: &DecodeSummary,
) -> Vec<NewObject> {
    match backup {
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

/// Without a queue, Lambda receives the lowest rejected sequence number, and delivers everything from there again.
fn retry_from(batch: &Batch, rejections: &BTreeMap<usize, Rejection>) -> Result<Option<String>, IngestError> {
    let lowest = rejections.iter().min_by(|(a, _), (b, _)| {
        let sequence = |index: &usize| &batch.records[*index].position.sequence_number;
        sequence(a).cmp(sequence(b))
    });
    match lowest {
        None => Ok(None),
        Some((index, rejection)) if batch.records[*index].position.sequence_number.0.is_empty() => {
            Err(IngestError::NoSequenceNumber(rejection.clone()))
        }
        Some((index, _)) => Ok(Some(batch.records[*index].position.sequence_number.0.to_string())),
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
        unwritable_tables: 0,
        batch_age: Duration::ZERO,
        times: StageTimes::default(),
        retry_from: None,
    }
}
