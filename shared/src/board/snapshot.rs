//! What the board shows, read from the database at most once a second for everybody who watches, and at most every few seconds
//! for each user who looks at their own reports.
//!
//! One reading is one read-only transaction with one snapshot of the database, so all figures of a reading belong together. Each
//! panel has a savepoint: a panel that fails keeps its last value with the error. A panel is read at most as often as its period
//! says, and takes at most one twentieth of the time: a costly one is read less often, a failing one less and less. If the
//! database cannot be reached, the last snapshot stays.

pub mod activity;
mod reader;
pub mod reports;
pub mod tables;
pub mod totals;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::apply::{self, ApplyError, Limits};
use crate::config::Config;
use crate::database::sqlstate::describe;
use crate::database::{Connection, Database, DatabaseError};
use crate::timestamp::Timestamp;
use activity::{ChangeEvent, RejectionSummary, SourceActivity};
pub use reader::SnapshotReader;
use reports::ReportRows;
use tables::SourceTable;
use totals::{TotalFigures, TotalHistory, TotalStatus};

/// A panel's statement that takes longer is cancelled.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(2);
/// A panel waits this long for a schema change.
const LOCK_TIMEOUT: Duration = Duration::from_millis(500);
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
    pub(in crate::board) const REPORTS: Duration = Duration::from_secs(3);
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
    /// The reports about the user whose snapshot this is, by name. A snapshot holds either these or all of the above.
    pub reports: BTreeMap<String, Panel<ReportRows>>,
}

/// Whose snapshot is read.
#[derive(Clone, Copy, Debug)]
enum Scope<'s> {
    /// The state of the system, for all who may see it.
    System,
    /// A user's reports.
    User(&'s str),
}

/// The database has not been read lately.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReadFailure {
    /// When it was read last, by its own clock; `None` if never.
    pub last_read: Option<Timestamp>,
    /// Why the latest attempt failed.
    pub reason: String,
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
    #[error("the database did not answer within {} s", reader::READING_TIMEOUT.as_secs())]
    TimedOut,
}

/// Reads the panels that are due, in one transaction.
async fn read(
    database: &Database,
    snapshot: &mut Snapshot,
    config: &Config,
    scope: Scope<'_>,
) -> Result<(), ReadError> {
    let connection = database.connection().await?;
    apply::begin_snapshot(&connection, LIMITS).await?;
    let clock = "SELECT (extract(epoch FROM pg_catalog.clock_timestamp()) OPERATOR(pg_catalog.*) 1000000)::bigint";
    let at = Timestamp(connection.query_typed(clock, &[]).await?.first().map_or(0, |row| row.get(0)));
    let reading = Reading { client: &connection, at };
    match scope {
        Scope::System => reading.panels(snapshot, config).await?,
        Scope::User(user) => reading.reports(snapshot, config, user).await?,
    }
    connection.batch_execute("COMMIT").await?;
    snapshot.at = Some(at);
    Connection::release(connection);
    Ok(())
}

/// One reading.
struct Reading<'c> {
    client: &'c Client,
    at: Timestamp,
}

impl Reading<'_> {
    async fn panels(&self, snapshot: &mut Snapshot, config: &Config) -> Result<(), ReadError> {
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

    async fn reports(&self, snapshot: &mut Snapshot, config: &Config, user: &str) -> Result<(), ReadError> {
        for report in &config.reports {
            let panel = snapshot.reports.entry(report.name.clone()).or_default();
            let before = panel.error.clone();
            self.panel(panel, period::REPORTS, reports::read(self.client, report, user)).await?;
            // The user's page does not name the cause.
            if let Some(error) = panel.error.as_ref().filter(|error| before.as_ref() != Some(error)) {
                tracing::warn!(report = report.name, error, "a report could not be read");
            }
        }
        Ok(())
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
        Some("42883") => "a function of a report does not exist: create it",
        Some("42501") => "the board's role may not read this yet: `millstream maintain` grants it",
        Some("57014") => "the query was cancelled after 2 seconds",
        Some(_) | None => return describe(error),
    };
    format!("{advice} ({})", describe(error))
}
