//! Writes what a board shows of recent work: `millstream.minute` and `millstream.event`.
//!
//! As for [`super::freshness`], batches do not pay for it: nothing is written within their transaction, a process writes its
//! counters at most once a second, and the commit does not wait for the disk. Concurrent writers rarely share a row, because
//! each shard writes to one of [`SLOTS`] rows of its source and minute. A batch never fails because of it; what could not be
//! written is written with the next batch. Counters of less than a second are lost with the process that holds them, so the
//! tables are for reading at a glance, not for accounting. Events are written as soon as their batch is.

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};
use xxhash_rust::xxh3::xxh3_64;

use super::board_access::grant_activity;
use super::ddl::{self, SystemTable};
use super::freshness::action_after;
use super::{ApplyError, Limits};
use crate::activity::{ActivityCounts, ActivityEvent};
use crate::database::sqlstate::ErrorAction;
use crate::record::StreamPosition;
use crate::report::Report;
use crate::timestamp::Timestamp;

/// The counters.
pub const MINUTE_TABLE: SystemTable =
    SystemTable { name: "millstream.minute", ddl: include_str!("activity/create_minute.sql") };

/// The events.
pub const EVENT_TABLE: SystemTable =
    SystemTable { name: "millstream.event", ddl: include_str!("activity/create_event.sql") };

/// A source has at most this many rows a minute, however many shards it has.
pub const SLOTS: u64 = 32;

/// A process writes its counters at most once in this many microseconds.
const WRITE_INTERVAL_MICROS: i64 = 1_000_000;

/// Events that cannot be written are kept up to this number; then the oldest are dropped.
const PENDING_EVENTS_MAX: usize = 200;

/// What a process has counted and not yet written.
#[derive(Default, Debug)]
pub struct ActivityLog {
    pending: Vec<PendingCounts>,
    events: Vec<PendingEvent>,
    written: Option<Timestamp>,
    /// The role may not write the tables.
    permission_denied: bool,
}

#[derive(Debug)]
struct PendingCounts {
    source: String,
    slot: i16,
    counts: ActivityCounts,
}

#[derive(Debug)]
struct PendingEvent {
    source: String,
    event: ActivityEvent,
}

impl ActivityLog {
    /// Adds the counters of a batch and what its records were rejected for. `position` is that of one of its records in the
    /// stream; `None` if the batch does not come from a stream.
    pub fn add_batch(&mut self, source: &str, position: Option<&StreamPosition>, report: &Report) {
        let slot = slot(position);
        let existing = self.pending.iter_mut().find(|pending| pending.source == source && pending.slot == slot);
        let counts = match existing {
            Some(pending) => &mut pending.counts,
            None => {
                self.pending.push(PendingCounts { source: source.to_owned(), slot, counts: ActivityCounts::default() });
                let last = self.pending.len() - 1;
                &mut self.pending[last].counts
            }
        };
        counts.add(report, position.is_some());
        self.add_events(source, report.rejections.iter().cloned());
    }

    /// Adds events; they are written with the next batch.
    pub fn add_events(&mut self, source: &str, events: impl IntoIterator<Item = ActivityEvent>) {
        self.events.extend(events.into_iter().map(|event| PendingEvent { source: source.to_owned(), event }));
        let surplus = self.events.len().saturating_sub(PENDING_EVENTS_MAX);
        self.events.drain(..surplus);
    }

    /// Whether there is something to write now.
    pub fn is_due(&self, now: Timestamp) -> bool {
        let interval_passed = self
            .written
            .is_none_or(|written| now.0.saturating_sub(written.0) >= WRITE_INTERVAL_MICROS || now < written);
        let has_counts = self.pending.iter().any(|pending| pending.counts != ActivityCounts::default());
        !self.permission_denied && (!self.events.is_empty() || (has_counts && interval_passed))
    }

    /// Writes everything, and creates the tables if they do not exist.
    ///
    /// # Errors
    /// Returns an error if a statement or the connection fails; nothing is forgotten then. A missing permission is
    /// reported only once.
    pub async fn write(&mut self, client: &Client, limits: Limits, now: Timestamp) -> Result<(), ApplyError> {
        self.written = Some(now);
        let mut result = self.write_pending(client).await;
        if result.as_ref().err().and_then(action_after) == Some(ErrorAction::RefreshCatalog) {
            result = match create_tables(client, limits).await {
                Ok(()) => self.write_pending(client).await,
                Err(error) => Err(error),
            };
        }
        self.permission_denied = result.as_ref().err().and_then(action_after) == Some(ErrorAction::Halt);
        result
    }

    async fn write_pending(&mut self, client: &Client) -> Result<(), ApplyError> {
        while let Some(last) = self.pending.last() {
            write_counts(client, last).await?;
            self.pending.pop();
        }
        if !self.events.is_empty() {
            let events: Vec<(Option<&str>, &ActivityEvent)> =
                self.events.iter().map(|pending| (Some(pending.source.as_str()), &pending.event)).collect();
            insert_events(client, &events).await?;
            self.events.clear();
        }
        Ok(())
    }
}

/// The row of a source and minute that a shard writes to.
fn slot(position: Option<&StreamPosition>) -> i16 {
    let Some(position) = position else { return 0 };
    let hash = xxh3_64(format!("{} {}", position.stream, position.shard).as_bytes());
    i16::try_from(hash % SLOTS).unwrap_or(0)
}

/// Creates the tables, and lets the board's role read them.
async fn create_tables(client: &Client, limits: Limits) -> Result<(), ApplyError> {
    ddl::ensure_system_table(client, &MINUTE_TABLE, limits).await?;
    ddl::ensure_system_table(client, &EVENT_TABLE, limits).await?;
    grant_activity(client).await
}

async fn write_counts(client: &Client, pending: &PendingCounts) -> Result<(), ApplyError> {
    let PendingCounts { source, slot, counts } = pending;
    let ActivityCounts { records, rows, rejections, lag_micros } = counts;
    let rejected: u64 = rejections.values().sum();
    let [records, rows, rejected] = [*records, *rows, rejected].map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    let rejections = serde_json::json!(rejections).to_string();
    let parameters: [(&(dyn ToSql + Sync), Type); 7] = [
        (source, Type::TEXT),
        (slot, Type::INT2),
        (&records, Type::INT8),
        (&rows, Type::INT8),
        (&rejected, Type::INT8),
        (&rejections, Type::TEXT),
        (lag_micros, Type::INT8),
    ];
    client.execute_typed(include_str!("activity/record_minute.sql"), &parameters).await?;
    Ok(())
}

/// Inserts events, each with its source, into the existing table.
///
/// # Errors
/// Returns an error if the statement or the connection fails.
pub async fn insert_events(client: &Client, events: &[(Option<&str>, &ActivityEvent)]) -> Result<(), ApplyError> {
    let sources: Vec<Option<&str>> = events.iter().map(|(source, _)| *source).collect();
    let kinds: Vec<&str> = events.iter().map(|(_, event)| event.kind.as_str()).collect();
    let relations: Vec<Option<&str>> = events.iter().map(|(_, event)| event.relation.as_deref()).collect();
    let reasons: Vec<Option<&str>> = events.iter().map(|(_, event)| event.reason).collect();
    let records: Vec<i64> = events.iter().map(|(_, event)| i64::try_from(event.records).unwrap_or(i64::MAX)).collect();
    let details: Vec<&str> = events.iter().map(|(_, event)| &*event.detail).collect();
    let positions: Vec<Option<&str>> = events.iter().map(|(_, event)| event.position.as_deref()).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 7] = [
        (&sources, Type::TEXT_ARRAY),
        (&kinds, Type::TEXT_ARRAY),
        (&relations, Type::TEXT_ARRAY),
        (&reasons, Type::TEXT_ARRAY),
        (&records, Type::INT8_ARRAY),
        (&details, Type::TEXT_ARRAY),
        (&positions, Type::TEXT_ARRAY),
    ];
    client.execute_typed(include_str!("activity/record_events.sql"), &parameters).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::activity::EventKind;
    use crate::outcome::OutcomeCounts;
    use crate::report::StageTimes;

    fn report(applied: u64) -> Report {
        Report {
            source: "s".to_owned(),
            counts: OutcomeCounts { applied, ..OutcomeCounts::default() },
            empty_records: 0,
            rows: applied,
            ddl: 0,
            reasons: BTreeMap::new(),
            rejections: Vec::new(),
            unwritable_tables: 0,
            batch_age: Duration::from_secs(applied),
            times: StageTimes::default(),
            retry_from: None,
        }
    }

    #[test]
    fn batches_of_a_shard_add_up_until_they_are_written() {
        let mut log = ActivityLog::default();
        assert!(!log.is_due(Timestamp(0)));
        log.add_batch("s", None, &report(2));
        log.add_batch("s", None, &report(3));
        assert_eq!(log.pending.len(), 1);
        let ActivityCounts { records, rows, lag_micros, .. } = log.pending[0].counts;
        assert_eq!((records, rows, lag_micros), (5, 5, None), "the age of reloaded records is not a lag");
        assert!(log.is_due(Timestamp(0)));
    }

    #[test]
    fn counters_wait_for_a_second_and_events_do_not() {
        let mut log = ActivityLog { written: Some(Timestamp(5_000_000)), ..ActivityLog::default() };
        log.add_batch("s", None, &report(1));
        let due = [5_999_999, 6_000_000, 4_000_000].map(|micros| log.is_due(Timestamp(micros)));
        assert_eq!(due, [false, true, true], "the last one is due because the clock was set back");
        log.add_events("s", [ActivityEvent::new(EventKind::Drop, "a.b", "dropped")]);
        assert!(log.is_due(Timestamp(5_000_001)));
    }

    #[test]
    fn events_that_cannot_be_written_are_bounded() {
        let mut log = ActivityLog::default();
        for number in 0..PENDING_EVENTS_MAX + 5 {
            log.add_events("s", [ActivityEvent::new(EventKind::Drop, "a.b", &number.to_string())]);
        }
        assert_eq!((log.events.len(), &*log.events[0].event.detail), (PENDING_EVENTS_MAX, "5"));
    }
}
