//! The way of a batch: records, changes, plan, apply, report. What a function keeps between invocations is kept here.

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
use crate::plan::PlanError;
use crate::record::{Batch, EventError, EventReader};
use crate::rejection::{Rejection, RejectionReason};
use crate::report::{Report, StageTimes};
use crate::spec::KeyColumn;
pub use dry_run::{DeclaredTable, DryRun, DryRunResult};
use record_source::RecordSource;
use writer::{DecodeSummary, WriteResult, Writer};

/// How often a batch is planned anew because the database had changed, or was changed for it.
const PLAN_ATTEMPTS_MAX: u32 = 12;

/// A writer waits this long for a lock: longer than DDL does, shorter than the time-out of most functions.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// What tells a table's key (a control record, another function) may be on its way in another shard for this long; after
/// that the table's records are dead letters.
const KEY_TIMEOUT: Duration = Duration::from_secs(120);

/// Everything that ingests batches of records.
pub struct Ingest {
    config: Config,
    /// One for each source of the configuration.
    decoders: Vec<Decoder>,
    writer: Writer,
    archive: ObjectStore,
    reporter: OutcomeReporter,
}

/// Whether a batch is kept on S3.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum BackupPolicy {
    Keep(BatchOrigin),
    None,
}

/// Accounts for every record.
struct OutcomeReporter {
    dead_letters: DeadLetters,
}

/// Why a batch failed; Lambda delivers it again, and nothing was acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// An event that no stream sends.
    #[error(transparent)]
    Event(#[from] EventError),
    /// A stream that the configuration does not know.
    #[error("no configured source reads stream {0}")]
    UnknownStream(String),
    /// A DynamoDB stream that does not carry the items.
    #[error(transparent)]
    ViewType(Rejection),
    /// A table that cannot be filled.
    #[error(transparent)]
    Table(Rejection),
    /// Records whose table is not known yet; it may be as soon as another shard's records are read.
    #[error(transparent)]
    KeyNotKnownYet(Rejection),
    /// No connection.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The catalog could not be read.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A table cannot keep its keys unique.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The writing failed.
    #[error(transparent)]
    Apply(#[from] ApplyError),
    /// The tables kept changing.
    #[error("gave up after {PLAN_ATTEMPTS_MAX} plans because the schema kept changing{0}")]
    SchemaKeptChanging(String),
    /// The backup could not be stored.
    #[error("could not store the backup")]
    Backup(#[from] ObjectError),
    /// Dead letters could not be stored.
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// Without a queue, a refused record is told to Lambda by its sequence number, and this one has none.
    #[error(
        "a record without a sequence number was rejected and cannot be kept, as DEAD_LETTER_QUEUE_URL is not set: {0}"
    )]
    NoSequenceNumber(Rejection),
    /// An error of ours.
    #[error(transparent)]
    Unaccounted(#[from] Unaccounted),
}

impl IngestError {
    /// Whether operator action required before it can go on.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Event(_) | Self::UnknownStream(_) | Self::Plan(_) | Self::SchemaKeptChanging(_) => true,
            Self::NoSequenceNumber(_) | Self::Unaccounted(_) | Self::ViewType(_) | Self::Table(_) => true,
            Self::Apply(error) => error.needs_operator(),
            Self::Catalog(CatalogError::DefaultPartition(_)) => true,
            Self::Database(error) => error.needs_operator(),
            Self::Catalog(CatalogError::Database(_)) | Self::DeadLetter(_) => false,
            Self::KeyNotKnownYet(_) | Self::Backup(_) => false,
        }
    }

    /// Whether records were lost count of.
    pub fn is_unaccounted(&self) -> bool {
        matches!(self, Self::Unaccounted(_))
    }
}

impl Ingest {
    /// Ingests for the sources of the configuration.
    pub fn new(config: Config, database: Database, dead_letters: DeadLetters) -> Self {
        let decoders = config.sources.iter().cloned().map(Decoder::new).collect();
        let writer = Writer::new(database);
        let archive = dead_letters.archive().clone();
        Self { config, decoders, writer, archive, reporter: OutcomeReporter { dead_letters } }
    }

    /// Brings one batch into the database. `time_left` is what the invocation still has.
    ///
    /// # Errors
    /// Whatever keeps the whole batch from being durable; bad records do not.
    pub async fn process_event(&mut self, event: &[u8], time_left: Duration) -> Result<Report, IngestError> {
        let started = Instant::now();
        let mut incoming = RecordSource::Event(EventReader::open(event)?);
        if incoming.read_until(1)?.records.iter().all(|record| record.position.stream.is_empty()) {
            incoming.read_all()?;
        }
        let Some(index) = self.source_for_batch(incoming.batch())? else { return Ok(empty_report(incoming.batch())) };
        let backup = self.backup_policy(index, BatchOrigin::Stream);
        // Boxed: with the SDK's futures within, the future is deeper than the compiler likes.
        let report = Box::pin(self.process(index, &mut incoming, backup, started, time_left)).await?;
        if report.counts.any_committed() {
            let time_left = time_left.saturating_sub(started.elapsed());
            self.writer.publish_freshness(&self.config.sources[index].name, incoming.batch(), time_left).await;
        }
        Ok(report)
    }

    /// Brings records of a source into the database that come from elsewhere than its stream: they are kept already.
    ///
    /// # Errors
    /// As [`Ingest::batch`].
    pub async fn reapply(&mut self, source: usize, batch: &Batch, time_left: Duration) -> Result<Report, IngestError> {
        Box::pin(self.process(source, &mut RecordSource::Batch(batch), BackupPolicy::None, Instant::now(), time_left))
            .await
    }

    /// Brings records of a source into the database that were refused before; what is refused again is a dead letter again.
    ///
    /// # Errors
    /// As [`Ingest::batch`].
    pub async fn redrive(&mut self, source: usize, batch: &Batch, time_left: Duration) -> Result<Report, IngestError> {
        let backup = self.backup_policy(source, BatchOrigin::Redrive);
        Box::pin(self.process(source, &mut RecordSource::Batch(batch), backup, Instant::now(), time_left)).await
    }

    fn backup_policy(&self, source: usize, origin: BatchOrigin) -> BackupPolicy {
        if self.config.sources[source].backup { BackupPolicy::Keep(origin) } else { BackupPolicy::None }
    }

    /// Whether refused records are kept on a queue.
    pub fn has_dead_letter_queue(&self) -> bool {
        self.reporter.dead_letters.has_queue()
    }

    /// What the configuration calls a source.
    pub fn source_name(&self, source: usize) -> &str {
        &self.config.sources[source].name
    }

    /// The number of the source that reads a stream.
    pub fn source_by_stream(&self, stream: &str) -> Option<usize> {
        self.config.source_by_stream(stream).map(|(index, _)| index)
    }

    /// The number of the source that the configuration calls so.
    pub fn source_by_name(&self, name: &str) -> Option<usize> {
        self.config.sources.iter().position(|source| source.name == name)
    }

    /// Tells the key of a source's table, and the types of its columns, where its records do not.
    ///
    /// # Errors
    /// A table that the configuration leaves out.
    pub fn set_table_key(&mut self, source: usize, table: &str, key: &[KeyColumn]) -> Result<(), IngestError> {
        self.decoders[source].set_table_key(table, key).map_err(IngestError::Table)
    }

    /// Compares records of a source with the rows that are there; what differs. Writes nothing.
    ///
    /// # Errors
    /// As [`Ingest::batch`].
    pub async fn diff_rows(
        &mut self,
        source: usize,
        batch: &Batch,
        time_left: Duration,
    ) -> Result<Vec<RowDifference>, IngestError> {
        let decoder = &mut self.decoders[source];
        let (changes, rejected) = decoder.decode(batch);
        let limits = limits(time_left);
        let mut differing = Box::pin(self.writer.diff_rows(decoder, &changes, limits)).await?;
        differing.extend(rejected.into_iter().map(rejected_row));
        Ok(differing)
    }

    /// The keys of a replicated table behind one of them, in their order, and the names of their parts at the source; see
    /// [`apply::keys`].
    ///
    /// # Errors
    /// As [`Ingest::batch`].
    pub async fn list_keys(
        &mut self,
        source: usize,
        table: &str,
        behind: Option<&[String]>,
        limit: i64,
    ) -> Result<(Vec<String>, Vec<Vec<String>>), IngestError> {
        let decoder = &mut self.decoders[source];
        let Some(table) = decoder.replicated_table(table) else { return Ok((Vec::new(), Vec::new())) };
        self.writer.list_keys(decoder, table, behind, limit).await
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
                self.archive.put_all(backup_objects(backup, &self.archive, source, decoder, batch, &decoded)).await?;
                (decoded, written)
            }
            None => {
                let decoding = Instant::now();
                let batch = incoming.read_all()?;
                let (changes, rejected) = decoder.decode(batch);
                times.decode += decoding.elapsed();
                let decoded = DecodeSummary::of(&changes, rejected);
                decoded.check()?;
                // Side by side: both are only told when both are done.
                let storing =
                    self.archive.put_all(backup_objects(backup, &self.archive, source, decoder, batch, &decoded));
                let writing = self.writer.write(decoder, &changes, limits, &mut times);
                let (stored, written) = futures_util::future::join(storing, writing).await;
                let written = written?;
                stored?;
                (decoded, written)
            }
        };
        let batch = incoming.batch();
        let young = |record: usize| Report::batch_age(Some(batch.records[record].arrival), now()) < KEY_TIMEOUT;
        let unkeyed = |(record, rejection): &&(usize, Rejection)| {
            matches!(rejection.reason, RejectionReason::NoKey(_)) && young(*record)
        };
        if let Some((_, rejection)) = written.rejected.iter().find(unkeyed) {
            return Err(IngestError::KeyNotKnownYet(rejection.clone()));
        }
        self.reporter.report(source, decoder, batch, decoded, written, times).await
    }

    /// The source that reads the batch's stream; `None` where there is no record.
    fn source_for_batch(&self, batch: &Batch) -> Result<Option<usize>, IngestError> {
        let named = batch.records.iter().map(|record| &*record.position.stream).find(|stream| !stream.is_empty());
        match named {
            Some(stream) => {
                self.source_by_stream(stream).map(Some).ok_or_else(|| IngestError::UnknownStream(stream.to_owned()))
            }
            None if batch.records.is_empty() => Ok(None),
            // Elements that are no records tell no stream; with one source there is no doubt.
            None if self.decoders.len() == 1 => Ok(Some(0)),
            None => Err(IngestError::UnknownStream("(no record names its stream)".to_owned())),
        }
    }
}

/// What the statements of an invocation with so much time left are allowed.
fn limits(time_left: Duration) -> Limits {
    Limits { statement: time_left, lock: LOCK_TIMEOUT.min(time_left) }
}

impl OutcomeReporter {
    /// Accounts for every record and stores the dead letters; only then is anything told.
    async fn report(
        &self,
        source: &str,
        decoder: &mut Decoder,
        batch: &Batch,
        decoded: DecodeSummary,
        written: WriteResult,
        mut times: StageTimes,
    ) -> Result<Report, IngestError> {
        let DecodeSummary { rejected, control_records: control, tables: _ } = decoded;
        let mut ledger = OutcomeLedger::new(batch.records.len());
        control.into_iter().for_each(|record| ledger.record(record, Outcome::Control));
        written.outcomes.iter().for_each(|(record, fate)| ledger.record(*record, (*fate).into()));
        written.repeated_in_batch.iter().for_each(|record| ledger.record(*record, Outcome::Duplicate));
        written.expired.iter().for_each(|record| ledger.record(*record, Outcome::Expired));
        let mut refused: BTreeMap<usize, Rejection> = BTreeMap::new();
        for (record, rejection) in rejected.into_iter().chain(written.rejected) {
            refused.entry(record).or_insert(rejection);
        }
        let refusal = if self.dead_letters.has_queue() { Outcome::DeadLettered } else { Outcome::Retry };
        refused.keys().for_each(|record| ledger.record(*record, refusal));
        let counts = ledger.counts()?;
        let storing = Instant::now();
        let retry_from = if self.dead_letters.has_queue() {
            self.store(source, decoder, batch, &refused).await?;
            None
        } else {
            retry_from(batch, &refused)?
        };
        times.dead_letters = storing.elapsed();
        let mut reasons = BTreeMap::new();
        for rejection in refused.values() {
            *reasons.entry(rejection.reason.class()).or_insert(0) += 1;
        }
        Ok(Report {
            source: source.to_owned(),
            counts,
            empty_records: batch.empty_records as u64,
            rows: written.rows,
            ddl: written.ddl as u64,
            reasons,
            batch_age: Report::batch_age(
                batch.records.iter().map(|record| record.arrival).filter(|at| at.0 > 0).min(),
                now(),
            ),
            times,
            retry_from,
        })
    }

    async fn store(
        &self,
        source: &str,
        decoder: &mut Decoder,
        batch: &Batch,
        refused: &BTreeMap<usize, Rejection>,
    ) -> Result<(), IngestError> {
        let drafts = refused.iter().map(|(&index, rejection)| {
            let record = &batch.records[index];
            let original = batch.payload(record);
            tracing::warn!(
                source,
                place = %record.position,
                class = rejection.reason.class(),
                table = rejection.table.as_deref(),
                sqlstate = rejection.sqlstate.as_deref(),
                error = %rejection,
                "dead letter"
            );
            let partition_key = decoder.partition_key(record).into_owned();
            let payload = decoder.redact(record, original);
            self.dead_letters.pending_dead_letter(source, record, original, payload, partition_key, rejection)
        });
        Ok(self.dead_letters.store(drafts.collect()).await?)
    }
}

/// An item that no row can be: it is a dead letter.
fn rejected_row((record, rejection): (usize, Rejection)) -> RowDifference {
    RowDifference { key: format!("item {record} of its page"), columns: Some(vec![rejection.to_string()]) }
}

/// What is kept of a batch.
fn backup_objects(
    backup: BackupPolicy,
    archive: &ObjectStore,
    source: &str,
    decoder: &mut Decoder,
    batch: &Batch,
    decoded: &DecodeSummary,
) -> Vec<NewObject> {
    match backup {
        BackupPolicy::Keep(origin) if archive.has_bucket() => {
            backup::build_objects(source, decoder, batch, &decoded.tables, &decoded.control_records, origin)
        }
        BackupPolicy::Keep(_) | BackupPolicy::None => Vec::new(),
    }
}

/// Without a queue Lambda is told the lowest refused sequence number, and delivers everything from there again.
fn retry_from(batch: &Batch, refused: &BTreeMap<usize, Rejection>) -> Result<Option<String>, IngestError> {
    let lowest = refused.iter().min_by(|(a, _), (b, _)| {
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
        batch_age: Duration::ZERO,
        times: StageTimes::default(),
        retry_from: None,
    }
}
