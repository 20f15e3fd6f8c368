//! The end of a batch: accounts for every record, and reports the batch once its dead letters are stored.

use std::collections::BTreeSet;
use std::ops::Range;
use std::time::Instant;

use super::record_source::RecordSource;
use super::rejections::RejectionLog;
use super::writer::{DecodeSummary, WriteResult};
use super::{IngestError, KEY_TIMEOUT, OutcomeReporter};
use crate::clock::now;
use crate::decode::Decoder;
use crate::names::TableName;
use crate::outcome::{Outcome, OutcomeCounts, OutcomeLedger};
use crate::record::{Batch, BatchExtent, SequenceNumber};
use crate::rejection::{Rejection, RejectionReason};
use crate::report::{Report, StageTimes};
use crate::unwritable::UnwritableTable;

/// A batch that has been written: the outcomes of all its records.
#[derive(Default)]
pub(super) struct CommittedBatch {
    pub(super) counts: OutcomeCounts,
    pub(super) rejections: RejectionLog,
    /// The number of rows inserted, updated and deleted.
    pub(super) rows: u64,
    /// The number of statements that changed the schema.
    pub(super) ddl: usize,
    pub(super) extent: BatchExtent,
    pub(super) empty_records: usize,
    /// The tables that were written.
    pub(super) tables: BTreeSet<TableName>,
    /// The rejection of a record whose table's key another record may still provide.
    pub(super) key_not_known_yet: Option<Rejection>,
}

impl CommittedBatch {
    /// The outcomes of a batch that is in memory.
    ///
    /// # Errors
    /// Returns an error if a record has no outcome.
    pub(super) fn new(
        batch: &Batch,
        decoded: DecodeSummary,
        written: WriteResult,
        rejected_outcome: Outcome,
    ) -> Result<Self, IngestError> {
        let mut committed = Self { empty_records: batch.empty_records, ..Self::default() };
        committed.extent.include(batch);
        committed.awaits_key(batch, &written);
        committed.account_for(0, 0..batch.records.len(), decoded, written, rejected_outcome)?;
        committed.rejections.add_positions(0, batch);
        Ok(committed)
    }

    /// Notes whether a table's key may still be provided for a rejected record of the batch.
    pub(super) fn awaits_key(&mut self, batch: &Batch, written: &WriteResult) {
        let is_recent = |record: usize| Report::batch_age(Some(batch.records[record].arrival), now()) < KEY_TIMEOUT;
        let awaits_key = |(record, rejection): &&(usize, Rejection)| {
            matches!(rejection.reason, RejectionReason::NoKey(_)) && is_recent(*record)
        };
        if self.key_not_known_yet.is_none() {
            self.key_not_known_yet = written.rejected.iter().find(awaits_key).map(|(_, rejection)| rejection.clone());
        }
    }

    /// Adds the outcomes of some records. Their indexes count from `first`, which is an index in the whole batch.
    ///
    /// # Errors
    /// Returns an error if a record has no outcome, or if too many were rejected.
    pub(super) fn account_for(
        &mut self,
        first: usize,
        records: Range<usize>,
        decoded: DecodeSummary,
        written: WriteResult,
        rejected_outcome: Outcome,
    ) -> Result<(), IngestError> {
        let mut ledger = OutcomeLedger::new(records);
        decoded.control_records.into_iter().for_each(|record| ledger.record(record, Outcome::Control));
        written.outcomes.iter().for_each(|(record, outcome)| ledger.record(*record, (*outcome).into()));
        written.repeated_in_batch.iter().for_each(|record| ledger.record(*record, Outcome::Duplicate));
        written.expired.iter().for_each(|record| ledger.record(*record, Outcome::Expired));
        let rejected = decoded.rejected.iter().chain(&written.rejected);
        rejected.for_each(|(record, _)| ledger.record(*record, rejected_outcome));
        self.counts += ledger.counts()?;
        self.rejections.extend(first, decoded.rejected.into_iter().chain(written.rejected));
        if self.rejections.is_full() {
            return Err(IngestError::TooManyRejections(self.rejections.count()));
        }
        self.rows += written.rows;
        self.ddl += written.ddl;
        self.tables.extend(written.tables);
        Ok(())
    }
}

impl OutcomeReporter {
    /// The outcome of a rejected record.
    pub(super) fn rejected_outcome(&self) -> Outcome {
        if self.dead_letters.has_queue() { Outcome::DeadLettered } else { Outcome::Retry }
    }

    /// Stores the dead letters of a batch that is committed, and then reports it.
    pub(super) async fn report(
        &self,
        source: &str,
        decoder: &mut Decoder,
        incoming: &mut RecordSource<'_>,
        committed: CommittedBatch,
        mut times: StageTimes,
    ) -> Result<Report, IngestError> {
        let CommittedBatch { counts, rejections, rows, ddl, extent, empty_records, key_not_known_yet, tables: _ } =
            committed;
        if let Some(rejection) = key_not_known_yet {
            return Err(IngestError::KeyNotKnownYet(rejection));
        }
        let storing = Instant::now();
        let retry_from = if self.dead_letters.has_queue() {
            self.store(source, decoder, incoming, &rejections).await?;
            None
        } else {
            retry_from(incoming, &rejections)?
        };
        times.dead_letters = storing.elapsed();
        let unwritable = rejections.unwritable_tables();
        log_unwritable(source, &unwritable);
        Ok(Report {
            source: source.to_owned(),
            counts,
            empty_records: empty_records as u64,
            rows,
            ddl: ddl as u64,
            reasons: rejections.classes(),
            rejections: rejections.events(),
            unwritable_tables: unwritable.len() as u64,
            batch_age: Report::batch_age(extent.oldest_arrival, now()),
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

/// Without a queue, Lambda receives the lowest rejected sequence number, and delivers everything from there again.
fn retry_from(incoming: &mut RecordSource<'_>, rejections: &RejectionLog) -> Result<Option<String>, IngestError> {
    if rejections.count() == 0 {
        return Ok(None);
    }
    let mut lowest: Option<SequenceNumber> = None;
    let mut parts = incoming.parts()?;
    while parts.read_next()? {
        let (first, records) = (parts.first(), &parts.batch().records);
        for (index, rejection) in rejections.within(first..first + records.len()) {
            let sequence = &records[index - first].position.sequence_number;
            if sequence.0.is_empty() {
                return Err(IngestError::NoSequenceNumber(rejection.clone()));
            }
            if lowest.as_ref().is_none_or(|lowest| sequence < lowest) {
                lowest = Some(sequence.clone());
            }
        }
    }
    Ok(lowest.map(|sequence| sequence.0.to_string()))
}
