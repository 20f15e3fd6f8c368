//! A large batch in slices: while PostgreSQL takes in one, the next is decoded and planned.
//!
//! For tables whose newest change is the whole row, which one statement writes: half of their time is the decoding. Events
//! gain nothing, for every slice would open each of their many tables again.
//!
//! One transaction all the same. It is the quick way, for batches that meet nothing unusual: where the database lacks
//! something, or anything goes wrong, nothing has happened, and the batch is written the careful way.

use std::ops::Range;
use std::time::Instant;

use super::writer::{Decoded, Writer, Written};
use super::{IngestError, now};
use crate::apply::{Experience, Limits, Session, write_quickly};
use crate::catalog::Catalog;
use crate::change::{Change, Changes};
use crate::decode::Decoder;
use crate::plan::{Plan, plan, settle};
use crate::record::Batch;
use crate::report::Times;

/// Large enough for PostgreSQL to work at a stretch, small enough that little is waited for at the end.
const SLICE_RECORDS: usize = 1_000;

/// PostgreSQL waits for the first slice with nothing to do: slices begin small, and double.
const FIRST_SLICE_RECORDS: usize = 250;

/// After so many records the connection is looked after: PostgreSQL shall not wait for its next statement.
const RECORDS_AT_A_STRETCH: usize = 8;

/// A slice that is ready to be written.
struct Prepared {
    plan: Plan,
    decoded: Decoded,
}

impl Writer {
    /// Writes a large batch; `None` where it is small, or where care is asked for, and then nothing was written.
    ///
    /// # Errors
    /// No connection.
    pub async fn in_slices(
        &mut self,
        decoder: &mut Decoder,
        batch: &Batch,
        limits: Limits,
        times: &mut Times,
    ) -> Result<Option<(Decoded, Written)>, IngestError> {
        if batch.records.len() < 2 * SLICE_RECORDS || self.catalog.is_empty() || !decoder.tables.are_whole_rows() {
            return Ok(None);
        }
        let Self { database, catalog, experience, .. } = self;
        decoder.learn(batch);
        let Some(first) = prepare(decoder, catalog, batch, 0..FIRST_SLICE_RECORDS, times).await else {
            return Ok(None);
        };
        let applying = Instant::now();
        let connection = database.connection().await?;
        let Ok(mut session) = Session::begin(&connection, limits, &first.plan.writes).await else { return Ok(None) };
        let mut pipeline = Pipeline { decoder, catalog, batch, experience };
        let done = pipeline.run(&mut session, first, slices(batch.records.len()).skip(1), times).await;
        let (outcome, heard) = match done {
            Some(done) => {
                let committed = session.commit().await.is_ok();
                (committed.then_some(done), committed)
            }
            None => (None, session.roll_back().await),
        };
        // A connection of which nobody knows what is under way on it is closed.
        if heard {
            connection.release();
        }
        times.apply += applying.elapsed();
        Ok(outcome)
    }
}

fn slices(count: usize) -> impl Iterator<Item = Range<usize>> {
    let next = move |slice: &Range<usize>| {
        let records = (2 * slice.len()).min(SLICE_RECORDS);
        (slice.end < count).then(|| slice.end..(slice.end + records).min(count))
    };
    std::iter::successors(Some(0..FIRST_SLICE_RECORDS.min(count)), next)
}

struct Pipeline<'p> {
    decoder: &'p mut Decoder,
    catalog: &'p Catalog,
    batch: &'p Batch,
    experience: &'p mut Experience,
}

impl Pipeline<'_> {
    async fn run(
        &mut self,
        session: &mut Session<'_>,
        first: Prepared,
        mut slices: impl Iterator<Item = Range<usize>>,
        times: &mut Times,
    ) -> Option<(Decoded, Written)> {
        let (mut decoded, mut written) = (Decoded::default(), Written::default());
        let mut current = Some(first);
        while let Some(Prepared { plan, decoded: said }) = current {
            decoded.add(said);
            let next = slices.next();
            let writing = async {
                session.admit(&plan.writes).await.ok()?;
                write_quickly(session, &plan, self.experience).await
            };
            let preparing = async {
                match next {
                    Some(slice) => prepare(self.decoder, self.catalog, self.batch, slice, times).await.map(Some),
                    None => Some(None),
                }
            };
            let (applied, prepared) = futures_util::future::join(writing, preparing).await;
            written.add(plan, applied?);
            current = prepared?;
        }
        Some((decoded, written))
    }
}

/// Decodes and plans a slice; `None` where the database lacks something, or something is wrong that the careful way tells.
async fn prepare(
    decoder: &mut Decoder,
    catalog: &Catalog,
    batch: &Batch,
    slice: Range<usize>,
    times: &mut Times,
) -> Option<Prepared> {
    let (mut changes, mut rejected) = (Changes::default(), Vec::new());
    for start in slice.clone().step_by(RECORDS_AT_A_STRETCH) {
        let decoding = Instant::now();
        let end = (start + RECORDS_AT_A_STRETCH).min(slice.end);
        decoder.decode_some(batch, start..end, &mut changes, &mut rejected);
        times.decode += decoding.elapsed();
        tokio::task::yield_now().await;
    }
    // What is a table's key, and whether its name is its own, may only be known by now.
    settle(&mut decoder.tables, &decoder.fields, catalog);
    let known = |change: &Change| {
        let spec = decoder.tables.get(change.table);
        !spec.key.is_empty() && catalog.knows(&spec.name)
    };
    let decoded = Decoded::of(&changes, rejected);
    if decoded.check().is_err() || !changes.list.iter().all(known) {
        return None;
    }
    let planning = Instant::now();
    let plan = plan(&changes, &decoder.fields, &decoder.tables, catalog, now()).ok()?;
    times.plan += planning.elapsed();
    let usual = plan.lacks.is_empty()
        && (catalog.tombstones || !plan.deletes())
        && !plan.writes.iter().any(|write| write.exclusive());
    usual.then_some(Prepared { plan, decoded })
}
