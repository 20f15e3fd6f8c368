//! Writes a batch whose records unpack to more than memory should hold. It is read in parts, and each part is decoded, planned
//! and written slice by slice, all in one transaction: the batch becomes visible as a whole, like any other.
//!
//! The event is read as often as needed. If a pass finds that the database is missing something, nothing of it is committed;
//! another pass creates what is missing, and the batch is read again. A deadlock with another writer is resolved in the same
//! way: the transaction is rolled back and repeated.

use std::ops::Range;
use std::time::Instant;

use super::record_source::RecordSource;
use super::table_findings::TableFindings;
use super::writer::{DecodeSummary, WriteResult, Writer, changed_tables, read_catalog};
use super::{BatchBackup, CommittedBatch, IngestError, PLAN_ATTEMPTS_MAX};
use crate::apply::{self, ActivityLog, ApplyError, Limits, WriteHints, WriteTransaction, write_slice};
use crate::catalog::Catalog;
use crate::change::Changes;
use crate::clock::now;
use crate::database::Connection;
use crate::decode::Decoder;
use crate::outcome::Outcome;
use crate::plan::{PartialPlan, Plan, plan_changes, resolve_keys_and_names};
use crate::record::{Batch, EventError};
use crate::rejection::Rejection;
use crate::report::StageTimes;
use crate::spec::{DeleteMode, TableId};

/// The changes of a slice take about this many bytes until they are written: several slices' worth fits into the smallest
/// function, beside the event and the largest record.
const SLICE_BYTES: usize = 16 * 1024 * 1024;

/// A slice has at most this many records.
const SLICE_RECORDS: usize = 8_000;

/// After this many deadlocks with other writers, the invocation fails, and Lambda delivers the batch again.
const DEADLOCKS_MAX: u32 = 5;

/// What all passes over a batch have in common.
pub(super) struct PartsWrite<'w> {
    pub(super) backup: BatchBackup<'w>,
    /// The outcome of a record that is rejected.
    pub(super) rejected_outcome: Outcome,
    pub(super) limits: Limits,
}

/// Why a pass ended before the batch was committed.
enum PassError {
    /// A table, column or partition is missing, or a table has not been loaded.
    SchemaMissing,
    Failed(IngestError),
}

impl<E: Into<IngestError>> From<E> for PassError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// The changes of some records of a part.
struct Slice<'b> {
    records: Range<usize>,
    changes: Changes<'b>,
    rejected: Vec<(usize, Rejection)>,
}

impl<'b> Slice<'b> {
    /// Decodes the records from `start` on that fit into a slice, at least one.
    fn decode(decoder: &mut Decoder, batch: &'b Batch, start: usize, times: &mut StageTimes) -> Self {
        let decoding = Instant::now();
        decoder.reset_if_too_large();
        let (mut changes, mut rejected) = (Changes::default(), Vec::new());
        let records = start..(start + SLICE_RECORDS).min(batch.records.len());
        let end = decoder.decode_within(batch, records, SLICE_BYTES, &mut changes, &mut rejected);
        times.decode += decoding.elapsed();
        Self { records: start..end, changes, rejected }
    }
}

impl Writer {
    /// Writes a batch in one transaction, reading it in parts.
    ///
    /// # Errors
    /// Returns an error if the batch as a whole cannot be written.
    pub(super) async fn write_in_parts(
        &mut self,
        decoder: &mut Decoder,
        incoming: &mut RecordSource<'_>,
        write: &PartsWrite<'_>,
        times: &mut StageTimes,
    ) -> Result<CommittedBatch, IngestError> {
        scan_for_keys(decoder, incoming)?;
        let (mut ddl, mut deadlocks, mut reconnected, mut surveyed) = (0, 0, false, false);
        let (mut findings, mut cause) = (TableFindings::default(), String::new());
        for _ in 0..PLAN_ATTEMPTS_MAX {
            let Self { database, catalog, hints, activity, .. } = self;
            let connection = database.connection().await?;
            let client = &connection;
            let mut pass =
                Pass { client, decoder, catalog, hints, activity, write, surveyed, times, findings: &mut findings };
            match pass.commit(incoming).await {
                Ok(committed) => {
                    connection.release();
                    return Ok(CommittedBatch { ddl, ..committed });
                }
                Err(PassError::SchemaMissing) => {
                    ddl += pass.create_missing(incoming).await?;
                    surveyed = true;
                    connection.release();
                }
                Err(PassError::Failed(IngestError::Apply(ApplyError::Stale { tables, cause: stale_cause }))) => {
                    tables.iter().for_each(|table| self.catalog.invalidate(table));
                    findings.add_stale(tables, &stale_cause);
                    (surveyed, cause) = (false, stale_cause);
                }
                Err(PassError::Failed(IngestError::Apply(ApplyError::Unwritable(tables)))) => {
                    findings.add_unwritable(tables)?;
                }
                // After Lambda froze the function, the connection may be dead although it looked alive.
                Err(PassError::Failed(IngestError::Apply(ApplyError::Database(error))))
                    if error.is_closed() && !reconnected =>
                {
                    reconnected = true;
                }
                Err(PassError::Failed(error)) if is_deadlock(&error) && deadlocks < DEADLOCKS_MAX => deadlocks += 1,
                Err(PassError::Failed(error)) => return Err(error),
            }
        }
        Err(IngestError::SchemaKeptChanging(cause))
    }
}

/// Collects the table keys that records of the batch provide.
fn scan_for_keys(decoder: &mut Decoder, incoming: &mut RecordSource<'_>) -> Result<(), EventError> {
    if decoder.needs_key_scan() {
        let mut parts = incoming.parts()?;
        while parts.read_next()? {
            decoder.scan_for_keys(parts.batch());
        }
    }
    Ok(())
}

/// Slices of one batch lock rows in an order of their own, so that two writers can wait for each other.
fn is_deadlock(error: &IngestError) -> bool {
    let IngestError::Apply(ApplyError::Database(error)) = error else { return false };
    error.code().is_some_and(|code| code.code() == "40P01")
}

/// One pass over the batch.
struct Pass<'p, 'w> {
    client: &'p Connection,
    decoder: &'p mut Decoder,
    catalog: &'p mut Catalog,
    hints: &'p mut WriteHints,
    activity: &'p mut ActivityLog,
    write: &'p PartsWrite<'w>,
    /// Whether a pass has created what was missing.
    surveyed: bool,
    times: &'p mut StageTimes,
    findings: &'p mut TableFindings,
}

impl Pass<'_, '_> {
    /// Writes all slices and commits.
    async fn commit(&mut self, incoming: &mut RecordSource<'_>) -> Result<CommittedBatch, PassError> {
        let mut transaction = WriteTransaction::begin(self.client, self.write.limits, &[]).await?;
        match self.write_all(&mut transaction, incoming).await {
            Ok(committed) => {
                transaction.commit().await?;
                Ok(committed)
            }
            Err(error) => {
                transaction.roll_back().await;
                Err(error)
            }
        }
    }

    async fn write_all(
        &mut self,
        transaction: &mut WriteTransaction<'_>,
        incoming: &mut RecordSource<'_>,
    ) -> Result<CommittedBatch, PassError> {
        let mut committed = CommittedBatch::default();
        let mut parts = incoming.parts()?;
        while parts.read_next()? {
            let batch = parts.batch();
            committed.extent.include(batch);
            let mut start = 0;
            while start < batch.records.len() {
                let slice = Slice::decode(self.decoder, batch, start, self.times);
                start = slice.records.end;
                let records = slice.records.clone();
                let (decoded, written) = self.write_slice(transaction, batch, slice).await?;
                committed.awaits_key(batch, &written);
                committed.account_for(parts.first(), records, decoded, written, self.write.rejected_outcome)?;
                committed.rejections.add_positions(parts.first(), batch);
            }
        }
        committed.empty_records = parts.batch().empty_records;
        Ok(committed)
    }

    async fn write_slice(
        &mut self,
        transaction: &mut WriteTransaction<'_>,
        batch: &Batch,
        slice: Slice<'_>,
    ) -> Result<(DecodeSummary, WriteResult), PassError> {
        let decoded = DecodeSummary::new(&slice.changes, slice.rejected);
        decoded.check()?;
        let plan = self.plan(&slice.changes)?;
        drop(slice.changes);
        let applying = Instant::now();
        // Concurrently. An error is returned only once both have finished.
        let backing_up = self.write.backup.store(self.decoder, batch, &decoded);
        let writing = async {
            transaction.lock_and_verify(&plan.writes).await?;
            write_slice(transaction, &plan, self.hints, &self.findings.refreshed).await
        };
        let (stored, applied) = futures_util::future::join(backing_up, writing).await;
        self.times.apply += applying.elapsed();
        let mut written = WriteResult::default();
        written.add(plan, applied?);
        stored.map_err(IngestError::from)?;
        Ok((decoded, written))
    }

    /// Plans a slice that needs no schema change.
    fn plan(&mut self, changes: &Changes<'_>) -> Result<Plan, PassError> {
        let planning = Instant::now();
        // Keys and names of tables that the records do not provide may be known only now.
        resolve_keys_and_names(&mut self.decoder.tables, &self.decoder.fields, self.catalog);
        if !changed_tables(changes).into_iter().all(|table| self.is_loaded(table)) {
            return Err(PassError::SchemaMissing);
        }
        let plan = self.plan_changes(changes).fold_by_key();
        self.times.plan += planning.elapsed();
        if self.findings.refresh_unwritable(&plan, self.catalog)? {
            return Err(PassError::SchemaMissing);
        }
        let is_complete = plan.diffs.is_empty() && (self.catalog.tombstone_table_exists || !plan.deletes());
        if is_complete { Ok(plan) } else { Err(PassError::SchemaMissing) }
    }

    fn plan_changes(&self, changes: &Changes<'_>) -> PartialPlan {
        let (fields, tables) = (&self.decoder.fields, &self.decoder.tables);
        plan_changes(changes, fields, tables, self.catalog, &self.findings.blocked, now())
    }

    /// Whether the table has been loaded. Others may have created a table whose key is unknown, so its absence counts only if
    /// it was found for this batch.
    fn is_loaded(&self, table: TableId) -> bool {
        let spec = self.decoder.tables.get(table);
        let may_exist_by_now =
            spec.replicated && spec.key.is_empty() && self.catalog.table(&spec.name).is_none() && !self.surveyed;
        self.catalog.is_loaded(&spec.name) && !may_exist_by_now
    }

    /// Creates what the database is missing for the batch, slice by slice, each in short transactions of its own. Returns the
    /// number of statements.
    async fn create_missing(&mut self, incoming: &mut RecordSource<'_>) -> Result<usize, IngestError> {
        let mut ddl = 0;
        let mut parts = incoming.parts()?;
        while parts.read_next()? {
            let batch = parts.batch();
            let mut start = 0;
            while start < batch.records.len() {
                let slice = Slice::decode(self.decoder, batch, start, self.times);
                start = slice.records.end;
                DecodeSummary::new(&slice.changes, slice.rejected).check()?;
                ddl += self.create_missing_for(&slice.changes).await?;
            }
        }
        Ok(ddl)
    }

    async fn create_missing_for(&mut self, changes: &Changes<'_>) -> Result<usize, IngestError> {
        let (limits, tables) = (self.write.limits, changed_tables(changes));
        let mut ddl = 0;
        for _ in 0..PLAN_ATTEMPTS_MAX {
            read_catalog(self.client, self.catalog, self.decoder, &tables, limits).await?;
            let plan = self.plan_changes(changes);
            if plan.diffs.is_empty() {
                break;
            }
            let changed = apply::create_missing(self.client, self.catalog, &plan.diffs, limits).await?;
            ddl += changed.statements.len();
            self.activity.add_events(self.decoder.source_name(), changed.statements);
            self.findings.add_blocked_changes(changed.unwritable);
        }
        let deletes = tables.iter().any(|&table| self.decoder.tables.get(table).deletes == DeleteMode::Hard);
        if deletes && !self.catalog.tombstone_table_exists {
            ddl += apply::ensure_tombstone_table(self.client, limits).await?;
            self.catalog.tombstone_table_exists = true;
        }
        Ok(ddl)
    }
}
