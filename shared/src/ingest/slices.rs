//! A large batch in slices: while PostgreSQL takes in one, the next is decoded and planned.
//!
//! What gains by it are tables whose newest change is the whole row, which one statement writes, and event tables that
//! take most records (Segment's `tracks`). All others are written at the end, each once: to open a table for every slice
//! would cost what the overlap saves.
//!
//! One transaction all the same. It is for batches that meet nothing unusual: where the database lacks something, or
//! anything goes wrong, nothing has happened, and the batch is written the careful way.

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

/// Large enough for PostgreSQL to work at a stretch, small enough that little is waited for at the end.
const SLICE_RECORDS: usize = 1_000;

/// PostgreSQL waits for the first slice with nothing to do: slices begin small, and double.
const FIRST_SLICE_RECORDS: usize = 250;

/// After so many records the connection is looked after: PostgreSQL shall not wait for its next statement.
const YIELD_EVERY_RECORDS: usize = 16;

/// The batch asks for care: the database lacks something, or something is wrong that the careful way tells.
struct Fallback;

/// What is ready to be written.
struct PreparedSlice {
    plan: Plan,
    decoded: DecodeSummary,
}

/// The tables that are written slice by slice.
enum SlicedTables {
    /// All: of each the newest change is the whole row.
    WholeRows,
    /// Event tables, by PostgreSQL's numbers.
    Events(Vec<u32>),
}

impl Writer {
    /// Writes a large batch; `None` where it is small, or where care is asked for, and then nothing was written.
    ///
    /// # Errors
    /// No connection.
    pub async fn write_in_slices(
        &mut self,
        decoder: &mut Decoder,
        incoming: &mut RecordSource<'_>,
        limits: Limits,
        times: &mut StageTimes,
    ) -> Result<Option<(DecodeSummary, WriteResult)>, IngestError> {
        let gains =
            decoder.tables.all_merge_by_row() || decoder.tables.any(|spec| spec.write_mode == WriteMode::Append);
        if self.catalog.is_empty() || !gains {
            return Ok(None);
        }
        incoming.read_until(if decoder.needs_key_scan() { usize::MAX } else { FIRST_SLICE_RECORDS })?;
        if incoming.estimated_total() < 2 * SLICE_RECORDS {
            return Ok(None);
        }
        let Self { database, catalog, experience, .. } = self;
        decoder.scan_for_keys(incoming.batch());
        let mut reader = SlicePlanner::new(decoder, catalog, incoming);
        let Ok(Some(first)) = reader.next(times).await else { return Ok(None) };
        let applying = Instant::now();
        let connection = database.connection().await?;
        let Ok(mut session) = WriteTransaction::begin(&connection, limits, &first.plan.writes).await else {
            return Ok(None);
        };
        let done = reader.run(&mut session, first, experience, times).await;
        let (outcome, heard) = match done {
            Ok(done) => {
                let committed = session.commit().await.is_ok();
                (committed.then_some(done), committed)
            }
            Err(Fallback) => (None, session.roll_back().await),
        };
        // A connection of which nobody knows what is under way on it is closed.
        if heard {
            connection.release();
        }
        times.apply += applying.elapsed();
        Ok(outcome)
    }
}

/// Decodes and plans, a slice at a time.
struct SlicePlanner<'p, 'e> {
    decoder: &'p mut Decoder,
    catalog: &'p Catalog,
    incoming: &'p mut RecordSource<'e>,
    /// The last slice.
    records: Range<usize>,
    /// The room that its changes took, to be used again.
    reusable: Changes<'static>,
    sliced: Option<SlicedTables>,
    /// What is written at the end.
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
        session: &mut WriteTransaction<'_>,
        first: PreparedSlice,
        experience: &mut WriteHints,
        times: &mut StageTimes,
    ) -> Result<(DecodeSummary, WriteResult), Fallback> {
        let whole_rows = matches!(self.sliced, Some(SlicedTables::WholeRows));
        let (mut decoded, mut written) = (DecodeSummary::default(), WriteResult::default());
        let mut current = Some(first);
        while let Some(PreparedSlice { plan, decoded: said }) = current {
            decoded.add(said);
            let writing = async {
                session.lock_and_verify(&plan.writes).await.map_err(|_told_again| Fallback)?;
                if whole_rows {
                    write_optimistic(session, &plan, experience).await.ok_or(Fallback)
                } else {
                    write_slice(session, &plan, experience).await.map_err(|_told_again| Fallback)
                }
            };
            let (applied, next) = futures_util::future::join(writing, self.next(times)).await;
            written.add(plan, applied?);
            current = next?;
        }
        Ok((decoded, written))
    }

    /// What is to be written next; `None` behind the last.
    async fn next(&mut self, times: &mut StageTimes) -> Result<Option<PreparedSlice>, Fallback> {
        if self.done {
            return Ok(None);
        }
        let (mut draft, mut decoded) = (PartialPlan::default(), DecodeSummary::default());
        self.unpack(times).await?;
        if self.records.is_empty() {
            self.done = true;
            draft.encoded = std::mem::take(&mut self.deferred);
            draft.encoded.sort_by(|a, b| a.table().name.cmp(&b.table().name));
        } else {
            (draft, decoded) = self.slice(times).await?;
            self.defer_small_tables(&mut draft)?;
        }
        let plan = draft.fold_by_key();
        let usual = (self.catalog.tombstone_table_exists || !plan.deletes())
            && !plan.writes.iter().any(|write| write.needs_exclusive_lock());
        if usual { Ok(Some(PreparedSlice { plan, decoded })) } else { Err(Fallback) }
    }

    /// Unpacks the next slice's records.
    async fn unpack(&mut self, times: &mut StageTimes) -> Result<(), Fallback> {
        let start = self.records.end;
        let wanted = start + (2 * self.records.len()).clamp(FIRST_SLICE_RECORDS, SLICE_RECORDS);
        for end in (start..wanted).step_by(YIELD_EVERY_RECORDS).chain([wanted]) {
            let unpacking = Instant::now();
            self.incoming.read_until(end).map_err(|_told_again| Fallback)?;
            times.decode += unpacking.elapsed();
            tokio::task::yield_now().await;
        }
        self.records = start..wanted.min(self.incoming.batch().records.len());
        Ok(())
    }

    async fn slice(&mut self, times: &mut StageTimes) -> Result<(PartialPlan, DecodeSummary), Fallback> {
        let Self { decoder, catalog, .. } = self;
        let batch = self.incoming.batch();
        let (mut changes, mut rejected) = (std::mem::take(&mut self.reusable).into_empty(), Vec::new());
        let end = self.records.end;
        for start in self.records.clone().step_by(YIELD_EVERY_RECORDS) {
            let decoding = Instant::now();
            let stretch = start..(start + YIELD_EVERY_RECORDS).min(end);
            decoder.decode_some(batch, stretch, &mut changes, &mut rejected);
            times.decode += decoding.elapsed();
            tokio::task::yield_now().await;
        }
        // What is a table's key, and whether its name is its own, may only be known by now.
        resolve_keys_and_names(&mut decoder.tables, &decoder.fields, catalog);
        let known = |&table: &TableId| {
            let spec = decoder.tables.get(table);
            !spec.key.is_empty() && catalog.is_loaded(&spec.name)
        };
        let decoded = DecodeSummary::of(&changes, rejected);
        if decoded.check().is_err() || !changed_tables(&changes).iter().all(known) {
            return Err(Fallback);
        }
        let planning = Instant::now();
        let draft = plan_changes(&changes, &decoder.fields, &decoder.tables, catalog, now());
        times.plan += planning.elapsed();
        self.reusable = changes.into_empty();
        draft.ok().filter(|draft| draft.diffs.is_empty()).map(|draft| (draft, decoded)).ok_or(Fallback)
    }

    /// Takes out of a slice what is written at the end.
    fn defer_small_tables(&mut self, draft: &mut PartialPlan) -> Result<(), Fallback> {
        let sliced = match &mut self.sliced {
            Some(sliced) => sliced,
            unknown => unknown.insert(SlicedTables::of(&draft.encoded, &self.decoder.tables).ok_or(Fallback)?),
        };
        if let SlicedTables::Events(tables) = sliced {
            for encoded in std::mem::take(&mut draft.encoded) {
                let early = tables.contains(&encoded.table().oid);
                encoded.append_to(if early { &mut draft.encoded } else { &mut self.deferred });
            }
        }
        Ok(())
    }
}

impl SlicedTables {
    /// By what a first slice holds; `None` where no table would gain.
    fn of(encoded: &[EncodedChanges], tables: &TableRegistry) -> Option<Self> {
        if tables.all_merge_by_row() {
            return Some(Self::WholeRows);
        }
        let takes_most = |encoded: &&EncodedChanges| {
            encoded.write_mode() == WriteMode::Append && 2 * encoded.count() >= FIRST_SLICE_RECORDS
        };
        let events: Vec<u32> = encoded.iter().filter(takes_most).map(|encoded| encoded.table().oid).collect();
        (!events.is_empty()).then_some(Self::Events(events))
    }
}
