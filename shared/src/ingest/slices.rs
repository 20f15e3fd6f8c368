//! Writes a large batch in slices: while PostgreSQL writes one, the next is decoded and planned.
//!
//! Two kinds of tables gain by it: those whose newest change is the whole row, which one statement writes, and event tables
//! that receive most records (Segment's `tracks`). All others are written at the end, once each: opening a table for every
//! slice would cost what the overlap saves.
//!
//! It is still one transaction, and for ordinary batches only. If the database is missing something, or anything fails,
//! nothing is committed, and the batch takes the fallback, [`Writer::write`].

use std::ops::Range;
use std::time::Instant;

use super::IngestError;
use super::record_source::RecordSource;
use super::writer::{DecodeSummary, WriteResult, Writer, changed_tables};
use crate::apply::{Limits, WriteHints, WriteTransaction, write_optimistic, write_slice};
use crate::catalog::Catalog;
use crate::change::Changes;
use crate::clock::now;
use crate::decode::Decoder;
use crate::plan::{EncodedChanges, PartialPlan, Plan, plan_changes, resolve_keys_and_names};
use crate::report::StageTimes;
use crate::spec::{TableId, TableRegistry, WriteMode};
use crate::unwritable::BlockedTables;

/// Large enough to keep PostgreSQL busy, small enough that the wait for the last slice is short.
const SLICE_RECORDS: usize = 1_000;

/// PostgreSQL is idle until the first slice is ready: slices start small, and double.
const FIRST_SLICE_RECORDS: usize = 250;

/// Yields to the connection after this many records, so that PostgreSQL does not wait for its next statement.
const YIELD_EVERY_RECORDS: usize = 16;

/// The batch needs the fallback: the database is missing something, or an error occurred that the fallback will report.
struct Fallback;

/// A slice that is ready to be written.
struct PreparedSlice {
    plan: Plan,
    decoded: DecodeSummary,
}

/// The tables that are written slice by slice.
enum SlicedTables {
    /// All: the newest change of each is the whole row.
    WholeRows,
    /// Event tables, by OID.
    Events(Vec<u32>),
}

impl Writer {
    /// Writes a large batch. Returns `None` if the batch is small or needs the fallback; then nothing was written.
    ///
    /// # Errors
    /// Returns an error if the event cannot be unpacked or the connection fails.
    pub async fn write_in_slices(
        &mut self,
        decoder: &mut Decoder,
        incoming: &mut RecordSource<'_>,
        limits: Limits,
        times: &mut StageTimes,
    ) -> Result<Option<(DecodeSummary, WriteResult)>, IngestError> {
        let can_slice =
            decoder.tables.all_merge_by_row() || decoder.tables.any(|spec| spec.write_mode == WriteMode::Append);
        if self.catalog.is_empty() || !can_slice {
            return Ok(None);
        }
        incoming.read_until(if decoder.needs_key_scan() { usize::MAX } else { FIRST_SLICE_RECORDS })?;
        if incoming.estimated_total() < 2 * SLICE_RECORDS {
            return Ok(None);
        }
        let Self { database, catalog, hints, .. } = self;
        decoder.scan_for_keys(incoming.batch());
        let mut planner = SlicePlanner::new(decoder, catalog, incoming);
        let Ok(Some(first)) = planner.next(times).await else { return Ok(None) };
        let applying = Instant::now();
        let connection = database.connection().await?;
        let Ok(mut transaction) = WriteTransaction::begin(&connection, limits, &first.plan.writes).await else {
            return Ok(None);
        };
        let (result, connection_is_clean) = match planner.run(&mut transaction, first, hints, times).await {
            Ok(result) => {
                let committed = transaction.commit().await.is_ok();
                (committed.then_some(result), committed)
            }
            Err(Fallback) => (None, transaction.roll_back().await),
        };
        // A connection whose state is unknown is closed.
        if connection_is_clean {
            connection.release();
        }
        times.apply += applying.elapsed();
        Ok(result)
    }
}

/// Decodes and plans one slice at a time.
struct SlicePlanner<'p, 'e> {
    decoder: &'p mut Decoder,
    catalog: &'p Catalog,
    incoming: &'p mut RecordSource<'e>,
    /// The records of the latest slice.
    records: Range<usize>,
    /// The memory of its changes, for reuse.
    reusable: Changes<'static>,
    sliced: Option<SlicedTables>,
    /// The changes that are written at the end.
    deferred: Vec<EncodedChanges>,
    done: bool,
}

impl<'p, 'e> SlicePlanner<'p, 'e> {
    fn new(decoder: &'p mut Decoder, catalog: &'p Catalog, incoming: &'p mut RecordSource<'e>) -> Self {
        let (reusable, sliced, deferred) = (Changes::default(), None, Vec::new());
        Self { decoder, catalog, incoming, records: 0..0, reusable, sliced, deferred, done: false }
    }

    async fn run(
        &mut self,
        transaction: &mut WriteTransaction<'_>,
        first: PreparedSlice,
        hints: &mut WriteHints,
        times: &mut StageTimes,
    ) -> Result<(DecodeSummary, WriteResult), Fallback> {
        let whole_rows = matches!(self.sliced, Some(SlicedTables::WholeRows));
        let (mut decoded, mut written) = (DecodeSummary::default(), WriteResult::default());
        let mut current = Some(first);
        while let Some(PreparedSlice { plan, decoded: summary }) = current {
            decoded.add(summary);
            let writing = async {
                transaction.lock_and_verify(&plan.writes).await.map_err(|_reported_by_fallback| Fallback)?;
                if whole_rows {
                    write_optimistic(transaction, &plan, hints).await.ok_or(Fallback)
                } else {
                    write_slice(transaction, &plan, hints).await.map_err(|_reported_by_fallback| Fallback)
                }
            };
            let (applied, next) = futures_util::future::join(writing, self.next(times)).await;
            written.add(plan, applied?);
            current = next?;
        }
        Ok((decoded, written))
    }

    /// The next slice; `None` after the last.
    async fn next(&mut self, times: &mut StageTimes) -> Result<Option<PreparedSlice>, Fallback> {
        if self.done {
            return Ok(None);
        }
        let (mut partial_plan, mut decoded) = (PartialPlan::default(), DecodeSummary::default());
        self.unpack(times).await?;
        if self.records.is_empty() {
            self.done = true;
            partial_plan.encoded = std::mem::take(&mut self.deferred);
            partial_plan.encoded.sort_by(|a, b| a.table().name.cmp(&b.table().name));
        } else {
            (partial_plan, decoded) = self.slice(times).await?;
            self.defer_small_tables(&mut partial_plan)?;
        }
        let plan = partial_plan.fold_by_key();
        let is_ordinary = (self.catalog.tombstone_table_exists || !plan.deletes())
            && !plan.writes.iter().any(|write| write.needs_exclusive_lock());
        if is_ordinary { Ok(Some(PreparedSlice { plan, decoded })) } else { Err(Fallback) }
    }

    /// Unpacks the next slice's records.
    async fn unpack(&mut self, times: &mut StageTimes) -> Result<(), Fallback> {
        let start = self.records.end;
        let slice_end = start + (2 * self.records.len()).clamp(FIRST_SLICE_RECORDS, SLICE_RECORDS);
        for end in (start..slice_end).step_by(YIELD_EVERY_RECORDS).chain([slice_end]) {
            let unpacking = Instant::now();
            self.incoming.read_until(end).map_err(|_reported_by_fallback| Fallback)?;
            times.decode += unpacking.elapsed();
            tokio::task::yield_now().await;
        }
        self.records = start..slice_end.min(self.incoming.batch().records.len());
        Ok(())
    }

    async fn slice(&mut self, times: &mut StageTimes) -> Result<(PartialPlan, DecodeSummary), Fallback> {
        let Self { decoder, catalog, .. } = self;
        let batch = self.incoming.batch();
        let (mut changes, mut rejected) = (std::mem::take(&mut self.reusable).into_empty(), Vec::new());
        let end = self.records.end;
        for start in self.records.clone().step_by(YIELD_EVERY_RECORDS) {
            let decoding = Instant::now();
            let range = start..(start + YIELD_EVERY_RECORDS).min(end);
            decoder.decode_some(batch, range, &mut changes, &mut rejected);
            times.decode += decoding.elapsed();
            tokio::task::yield_now().await;
        }
        // Keys and names of tables that the records do not provide may be known only now.
        resolve_keys_and_names(&mut decoder.tables, &decoder.fields, catalog);
        let has_key_and_catalog = |&table: &TableId| {
            let spec = decoder.tables.get(table);
            !spec.key.is_empty() && catalog.is_loaded(&spec.name)
        };
        let decoded = DecodeSummary::new(&changes, rejected);
        if decoded.check().is_err() || !changed_tables(&changes).iter().all(has_key_and_catalog) {
            return Err(Fallback);
        }
        let planning = Instant::now();
        let blocked = BlockedTables::new();
        let partial_plan = plan_changes(&changes, &decoder.fields, &decoder.tables, catalog, &blocked, now());
        times.plan += planning.elapsed();
        self.reusable = changes.into_empty();
        // What the catalog says against a table may be stale: the fallback reads it again.
        let can_write_all = |plan: &PartialPlan| {
            plan.diffs.is_empty() && plan.rejected.iter().all(|(_, rejection)| rejection.reason.unwritable().is_none())
        };
        Some(partial_plan).filter(can_write_all).map(|plan| (plan, decoded)).ok_or(Fallback)
    }

    /// Moves the changes that are written at the end out of a slice.
    fn defer_small_tables(&mut self, partial_plan: &mut PartialPlan) -> Result<(), Fallback> {
        let sliced = match &mut self.sliced {
            Some(sliced) => sliced,
            undecided => undecided
                .insert(SlicedTables::from_first_slice(&partial_plan.encoded, &self.decoder.tables).ok_or(Fallback)?),
        };
        if let SlicedTables::Events(tables) = sliced {
            for encoded in std::mem::take(&mut partial_plan.encoded) {
                let is_sliced = tables.contains(&encoded.table().oid);
                encoded.append_to(if is_sliced { &mut partial_plan.encoded } else { &mut self.deferred });
            }
        }
        Ok(())
    }
}

impl SlicedTables {
    /// Chooses the tables by what the first slice holds; `None` if no table would gain.
    fn from_first_slice(encoded: &[EncodedChanges], tables: &TableRegistry) -> Option<Self> {
        if tables.all_merge_by_row() {
            return Some(Self::WholeRows);
        }
        let receives_most = |encoded: &&EncodedChanges| {
            encoded.write_mode() == WriteMode::Append && 2 * encoded.count() >= FIRST_SLICE_RECORDS
        };
        let events: Vec<u32> = encoded.iter().filter(receives_most).map(|encoded| encoded.table().oid).collect();
        (!events.is_empty()).then_some(Self::Events(events))
    }
}
