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

use super::incoming::Incoming;
use super::writer::{Decoded, Writer, Written, tables_of};
use super::{IngestError, now};
use crate::apply::{Experience, Limits, Session, write_behind, write_quickly};
use crate::catalog::Catalog;
use crate::change::Changes;
use crate::decode::Decoder;
use crate::plan::{Draft, Encoded, Plan, draft, settle};
use crate::report::Times;
use crate::spec::{Rule, TableId, Tables};

/// Large enough for PostgreSQL to work at a stretch, small enough that little is waited for at the end.
const SLICE_RECORDS: usize = 1_000;

/// PostgreSQL waits for the first slice with nothing to do: slices begin small, and double.
const FIRST_SLICE_RECORDS: usize = 250;

/// After so many records the connection is looked after: PostgreSQL shall not wait for its next statement.
const RECORDS_AT_A_STRETCH: usize = 16;

/// The batch asks for care: the database lacks something, or something is wrong that the careful way tells.
struct Careful;

/// What is ready to be written.
struct Prepared {
    plan: Plan,
    decoded: Decoded,
}

/// The tables that are written slice by slice.
enum Sliced {
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
    pub async fn in_slices(
        &mut self,
        decoder: &mut Decoder,
        incoming: &mut Incoming<'_>,
        limits: Limits,
        times: &mut Times,
    ) -> Result<Option<(Decoded, Written)>, IngestError> {
        let gains = decoder.tables.are_whole_rows() || decoder.tables.any(|spec| spec.rule == Rule::Append);
        if self.catalog.is_empty() || !gains {
            return Ok(None);
        }
        incoming.until(if decoder.learns() { usize::MAX } else { FIRST_SLICE_RECORDS })?;
        if incoming.expected() < 2 * SLICE_RECORDS {
            return Ok(None);
        }
        let Self { database, catalog, experience, .. } = self;
        decoder.learn(incoming.batch());
        let mut reader = Reader::new(decoder, catalog, incoming);
        let Ok(Some(first)) = reader.next(times).await else { return Ok(None) };
        let applying = Instant::now();
        let connection = database.connection().await?;
        let Ok(mut session) = Session::begin(&connection, limits, &first.plan.writes).await else { return Ok(None) };
        let done = reader.run(&mut session, first, experience, times).await;
        let (outcome, heard) = match done {
            Ok(done) => {
                let committed = session.commit().await.is_ok();
                (committed.then_some(done), committed)
            }
            Err(Careful) => (None, session.roll_back().await),
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
struct Reader<'p, 'e> {
    decoder: &'p mut Decoder,
    catalog: &'p Catalog,
    incoming: &'p mut Incoming<'e>,
    /// The last slice.
    records: Range<usize>,
    /// The room that its changes took, to be used again.
    room: Changes<'static>,
    sliced: Option<Sliced>,
    /// What is written at the end.
    later: Vec<Encoded>,
    done: bool,
}

impl<'p, 'e> Reader<'p, 'e> {
    fn new(decoder: &'p mut Decoder, catalog: &'p Catalog, incoming: &'p mut Incoming<'e>) -> Self {
        let (room, sliced, later) = (Changes::default(), None, Vec::new());
        Self { decoder, catalog, incoming, records: 0..0, room, sliced, later, done: false }
    }

    async fn run(
        &mut self,
        session: &mut Session<'_>,
        first: Prepared,
        experience: &mut Experience,
        times: &mut Times,
    ) -> Result<(Decoded, Written), Careful> {
        let whole_rows = matches!(self.sliced, Some(Sliced::WholeRows));
        let (mut decoded, mut written) = (Decoded::default(), Written::default());
        let mut current = Some(first);
        while let Some(Prepared { plan, decoded: said }) = current {
            decoded.add(said);
            let writing = async {
                session.admit(&plan.writes).await.map_err(|_told_again| Careful)?;
                if whole_rows {
                    write_quickly(session, &plan, experience).await.ok_or(Careful)
                } else {
                    write_behind(session, &plan, experience).await.map_err(|_told_again| Careful)
                }
            };
            let (applied, next) = futures_util::future::join(writing, self.next(times)).await;
            written.add(plan, applied?);
            current = next?;
        }
        Ok((decoded, written))
    }

    /// What is to be written next; `None` behind the last.
    async fn next(&mut self, times: &mut Times) -> Result<Option<Prepared>, Careful> {
        if self.done {
            return Ok(None);
        }
        let (mut draft, mut decoded) = (Draft::default(), Decoded::default());
        self.unpack(times).await?;
        if self.records.is_empty() {
            self.done = true;
            draft.encoded = std::mem::take(&mut self.later);
            draft.encoded.sort_by(|a, b| a.table().name.cmp(&b.table().name));
        } else {
            (draft, decoded) = self.slice(times).await?;
            self.keep_for_later(&mut draft)?;
        }
        let plan = draft.fold();
        let usual = (self.catalog.tombstones || !plan.deletes()) && !plan.writes.iter().any(|write| write.exclusive());
        if usual { Ok(Some(Prepared { plan, decoded })) } else { Err(Careful) }
    }

    /// Unpacks the next slice's records.
    async fn unpack(&mut self, times: &mut Times) -> Result<(), Careful> {
        let start = self.records.end;
        let wanted = start + (2 * self.records.len()).clamp(FIRST_SLICE_RECORDS, SLICE_RECORDS);
        for end in (start..wanted).step_by(RECORDS_AT_A_STRETCH).chain([wanted]) {
            let unpacking = Instant::now();
            self.incoming.until(end).map_err(|_told_again| Careful)?;
            times.decode += unpacking.elapsed();
            tokio::task::yield_now().await;
        }
        self.records = start..wanted.min(self.incoming.batch().records.len());
        Ok(())
    }

    async fn slice(&mut self, times: &mut Times) -> Result<(Draft, Decoded), Careful> {
        let Self { decoder, catalog, .. } = self;
        let batch = self.incoming.batch();
        let (mut changes, mut rejected) = (std::mem::take(&mut self.room).emptied(), Vec::new());
        let end = self.records.end;
        for start in self.records.clone().step_by(RECORDS_AT_A_STRETCH) {
            let decoding = Instant::now();
            let stretch = start..(start + RECORDS_AT_A_STRETCH).min(end);
            decoder.decode_some(batch, stretch, &mut changes, &mut rejected);
            times.decode += decoding.elapsed();
            tokio::task::yield_now().await;
        }
        // What is a table's key, and whether its name is its own, may only be known by now.
        settle(&mut decoder.tables, &decoder.fields, catalog);
        let known = |&table: &TableId| {
            let spec = decoder.tables.get(table);
            !spec.key.is_empty() && catalog.knows(&spec.name)
        };
        let decoded = Decoded::of(&changes, rejected);
        if decoded.check().is_err() || !tables_of(&changes).iter().all(known) {
            return Err(Careful);
        }
        let planning = Instant::now();
        let draft = draft(&changes, &decoder.fields, &decoder.tables, catalog, now());
        times.plan += planning.elapsed();
        self.room = changes.emptied();
        draft.ok().filter(|draft| draft.lacks.is_empty()).map(|draft| (draft, decoded)).ok_or(Careful)
    }

    /// Takes out of a slice what is written at the end.
    fn keep_for_later(&mut self, draft: &mut Draft) -> Result<(), Careful> {
        let sliced = match &mut self.sliced {
            Some(sliced) => sliced,
            unknown => unknown.insert(Sliced::of(&draft.encoded, &self.decoder.tables).ok_or(Careful)?),
        };
        if let Sliced::Events(tables) = sliced {
            for encoded in std::mem::take(&mut draft.encoded) {
                let early = tables.contains(&encoded.table().oid);
                encoded.join(if early { &mut draft.encoded } else { &mut self.later });
            }
        }
        Ok(())
    }
}

impl Sliced {
    /// By what a first slice holds; `None` where no table would gain.
    fn of(encoded: &[Encoded], tables: &Tables) -> Option<Self> {
        if tables.are_whole_rows() {
            return Some(Self::WholeRows);
        }
        let takes_most =
            |encoded: &&Encoded| encoded.rule() == Rule::Append && 2 * encoded.count() >= FIRST_SLICE_RECORDS;
        let events: Vec<u32> = encoded.iter().filter(takes_most).map(|encoded| encoded.table().oid).collect();
        (!events.is_empty()).then_some(Self::Events(events))
    }
}
