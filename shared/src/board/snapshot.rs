//! What the board shows, read from the database at most once a second for everybody who watches.
//!
//! One reading is one read-only transaction with one snapshot of the database, so all figures of a reading belong together. Each
//! panel has a savepoint: a panel that fails keeps its last value with the error. A panel is read at most as often as its period
//! says, and takes at most one twentieth of the time: a costly one is read less often, a failing one less and less. If the
//! database cannot be reached, the last snapshot stays.

pub mod activity;
pub mod tables;
pub mod totals;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::TakenSnapshot;
use crate::apply::{self, ApplyError, Limits};
use crate::clock::now;
use crate::config::Config;
use crate::database::sqlstate::describe;
use crate::database::{Connection, Database, DatabaseError};
use crate::timestamp::Timestamp;
use activity::{ChangeEvent, RejectionSummary, SourceActivity};
use tables::SourceTable;
use totals::{TotalFigures, TotalHistory, TotalStatus};

/// The database is read at most once in this time.
const READING_INTERVAL: Duration = Duration::from_secs(1);
/// A reading that takes longer is given up: the page is served with the last figures.
const READING_TIMEOUT: Duration = Duration::from_secs(4);
/// A panel's statement that takes longer is cancelled.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// A panel waits this long for a schema change.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
/// After a failed reading the next one waits for 1, 2, 4, … seconds, up to this.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A panel that took a time is not read again before this many times as long.
const PANEL_SHARE: u32 = 20;
/// A failing panel is tried again after 5, 10, 20, … seconds, up to this.
const PANEL_BACKOFF_MAX: Duration = Duration::from_secs(60);

const LIMITS: Limits = Limits { statement: STATEMENT_TIMEOUT, lock: LOCK_TIMEOUT };

/// How often panels are read.
pub(super) mod period {
    use std::time::Duration;

    pub(in crate::board) const ACTIVITY: Duration = Duration::from_secs(1);
    pub(in crate::board) const TOTALS: Duration = Duration::from_secs(1);
    pub(in crate::board) const EVENTS: Duration = Duration::from_secs(4);
    pub(in crate::board) const TABLES: Duration = Duration::from_secs(60);
}

/// A part of the board that is read by itself.
#[derive(Clone, Debug)]
pub struct Panel<T> {
    /// What was read last; `None` before the first success.
    pub value: Option<T>,
    /// When that was, by the database's clock.
    pub read_at: Option<Timestamp>,
    /// Why the latest attempt failed, if it did.
    pub error: Option<String>,
    due: Option<Instant>,
    failures: u32,
}

impl<T> Default for Panel<T> {
    fn default() -> Self {
        Self { value: None, read_at: None, error: None, due: None, failures: 0 }
    }
}

/// Everything that was read.
#[derive(Clone, Default, Debug)]
pub struct Snapshot {
    /// When the last reading began, by the database's clock; `None` before the first.
    pub at: Option<Timestamp>,
    /// What each source did lately, in the order of the configuration.
    pub sources: Panel<Vec<SourceActivity>>,
    /// What was rejected within a day.
    pub rejections: Panel<RejectionSummary>,
    /// The latest schema changes, drops and recomputes.
    pub changes: Panel<Vec<ChangeEvent>>,
    /// The tables of the sources.
    pub tables: Panel<Vec<SourceTable>>,
    /// The state of the totals, by name.
    pub total_states: Panel<BTreeMap<String, TotalStatus>>,
    /// The figures of the totals that the configuration puts on the board, by name.
    pub totals: BTreeMap<String, Panel<TotalFigures>>,
    /// How the figures of totals without a minute changed since this board began to read them, by name.
    pub histories: BTreeMap<String, TotalHistory>,
}

/// The database has not been read lately.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadFailure {
    /// When it was read last, by its own clock; `None` if never.
    pub last_read: Option<Timestamp>,
    /// Why the latest attempt failed.
    pub reason: String,
}

/// Reads snapshots.
pub struct SnapshotReader {
    database: Database,
    state: Mutex<ReaderState>,
}

#[derive(Default)]
struct ReaderState {
    snapshot: Arc<Snapshot>,
    /// When the snapshot was read.
    read: Option<Instant>,
    /// When the next attempt may begin.
    due: Option<Instant>,
    failures: u32,
    reason: Option<String>,
}

/// Why a reading failed as a whole.
#[derive(Debug, thiserror::Error)]
enum ReadError {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error(transparent)]
    Begin(#[from] ApplyError),
    #[error("the connection to the database was lost: {}", describe(.0))]
    Connection(#[from] tokio_postgres::Error),
    #[error("the database did not answer within {} s", READING_TIMEOUT.as_secs())]
    TimedOut,
}

impl SnapshotReader {
    /// Creates a reader that has read nothing yet.
    pub fn new(database: Database) -> Self {
        Self { database, state: Mutex::default() }
    }

    /// The snapshot of this second. Those who ask while it is being read wait for the same reading.
    pub async fn current(&self, config: &Config) -> TakenSnapshot {
        let mut state = self.state.lock().await;
        if state.due.is_none_or(|due| Instant::now() >= due) {
            self.refresh(&mut state, config).await;
        }
        let (snapshot, read) = (state.snapshot.clone(), state.read);
        let elapsed = read.map_or(0, |read| i64::try_from(read.elapsed().as_micros()).unwrap_or(i64::MAX));
        let now = snapshot.at.map_or_else(now, |at| at.saturating_add(elapsed));
        let failure = |reason: &String| ReadFailure { last_read: snapshot.at, reason: reason.clone() };
        let not_refreshed_since = state.reason.as_ref().map(failure);
        TakenSnapshot { snapshot, now, not_refreshed_since }
    }

    async fn refresh(&self, state: &mut ReaderState, config: &Config) {
        let started = Instant::now();
        let mut snapshot = Snapshot::clone(&state.snapshot);
        let reading = self.read(&mut snapshot, config);
        let result = tokio::time::timeout(READING_TIMEOUT, reading).await;
        match result.unwrap_or(Err(ReadError::TimedOut)) {
            Ok(()) => {
                state.snapshot = Arc::new(snapshot);
                (state.read, state.reason, state.failures) = (Some(Instant::now()), None, 0);
                state.due = Some(started + READING_INTERVAL);
            }
            Err(error) => {
                let reason = format_chain(&error);
                tracing::warn!(error = reason, "the database could not be read");
                state.reason = Some(reason);
                let delay = READING_INTERVAL.saturating_mul(2u32.saturating_pow(state.failures)).min(BACKOFF_MAX);
                state.failures = state.failures.saturating_add(1);
                state.due = Some(Instant::now() + delay);
            }
        }
    }

    async fn read(&self, snapshot: &mut Snapshot, config: &Config) -> Result<(), ReadError> {
        let connection = self.database.connection().await?;
        apply::begin_snapshot(&connection, LIMITS).await?;
        let clock = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000000)::bigint";
        let at = Timestamp(connection.query_typed(clock, &[]).await?.first().map_or(0, |row| row.get(0)));
        let mut reading = Reading { client: &connection, at };
        reading.panels(snapshot, config).await?;
        connection.batch_execute("COMMIT").await?;
        snapshot.at = Some(at);
        Connection::release(connection);
        Ok(())
    }
}

/// One reading.
struct Reading<'c> {
    client: &'c Client,
    at: Timestamp,
}

impl Reading<'_> {
    async fn panels(&mut self, snapshot: &mut Snapshot, config: &Config) -> Result<(), ReadError> {
        let client = self.client;
        self.panel(&mut snapshot.sources, period::ACTIVITY, activity::read_sources(client, config)).await?;
        for total in config.totals.iter().filter(|total| total.board.is_some()) {
            let name = total.name.as_str();
            let panel = snapshot.totals.entry(name.to_owned()).or_default();
            let before = panel.read_at;
            self.panel(panel, period::TOTALS, totals::read_figures(client, config, total)).await?;
            if let Some(figures) = panel.value.as_ref().filter(|_| panel.read_at != before) {
                snapshot.histories.entry(name.to_owned()).or_default().add(self.at, figures);
            }
        }
        self.panel(&mut snapshot.total_states, period::EVENTS, totals::read_states(client, config)).await?;
        self.panel(&mut snapshot.rejections, period::EVENTS, activity::read_rejections(client, config)).await?;
        self.panel(&mut snapshot.changes, period::EVENTS, activity::read_changes(client)).await?;
        self.panel(&mut snapshot.tables, period::TABLES, tables::read_tables(client, config)).await
    }

    /// Reads a panel if it is due. Only an error of the connection is returned.
    async fn panel<T>(
        &self,
        panel: &mut Panel<T>,
        period: Duration,
        read: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<(), ReadError> {
        let started = Instant::now();
        if panel.due.is_some_and(|due| started < due) {
            return Ok(());
        }
        // Both are sent before the first is answered.
        let (savepoint, result) = futures_util::future::join(self.client.batch_execute("SAVEPOINT panel"), read).await;
        savepoint?;
        match result {
            Ok(value) => {
                let took = started.elapsed();
                (panel.value, panel.read_at, panel.error, panel.failures) = (Some(value), Some(self.at), None, 0);
                // A quarter of tolerance: readings are never exactly a period apart.
                panel.due = Some(started + (period - period / 4).max(took.saturating_mul(PANEL_SHARE)));
            }
            Err(error) if error.as_db_error().is_some() => {
                self.client.batch_execute("ROLLBACK TO SAVEPOINT panel").await?;
                panel.error = Some(explain(&error));
                let delay = Duration::from_secs(5).saturating_mul(2u32.saturating_pow(panel.failures));
                panel.failures = panel.failures.saturating_add(1);
                panel.due = Some(Instant::now() + delay.min(PANEL_BACKOFF_MAX));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// A panel's error with what to do about it.
fn explain(error: &tokio_postgres::Error) -> String {
    let advice = match error.code().map(|code| code.code()) {
        Some("42P01") => "not recorded yet",
        Some("42501") => "the board's role may not read this yet: `millstream maintain` grants it",
        Some("57014") => "the query was cancelled after 2 seconds",
        Some(_) | None => return describe(error),
    };
    format!("{advice} ({})", describe(error))
}

fn format_chain(error: &ReadError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let message = match inner.downcast_ref::<tokio_postgres::Error>() {
            Some(error) => describe(error),
            None => inner.to_string(),
        };
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        source = inner.source();
    }
    text
}
