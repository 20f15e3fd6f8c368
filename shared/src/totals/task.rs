//! The scheduled work on the totals of a configuration: remove, build, recompute, fold, report. A state machine runs the steps,
//! so that each total has an invocation of its own (`infra/recompute.asl.json`); an invocation without a step runs all of them.
//!
//! The answers are small, because the state machine carries the results of all totals to the last step
//! (<https://docs.aws.amazon.com/step-functions/latest/dg/service-quotas.html>: 256 KiB): errors are bounded, and the groups
//! that were off, whose names may have any length and are values of rows, are left out.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::TotalError;
use super::build::{BuildLimits, BuildOutcome, FrozenPolicy, build, remove_total, unconfigured};
use super::fold::fold;
use super::health::{TotalHealth, read_configured};
use super::recompute::{RecomputeReport, recompute, tidy};
use super::registry::{TotalState, TotalVersion, load_versions};
use crate::activity::{ActivityEvent, EventKind};
use crate::apply::{self, EVENT_TABLE};
use crate::config::{Config, TotalConfig};
use crate::database::Database;
use crate::task::Deadline;

/// How often a lock on a table is tried.
const ATTEMPTS: u32 = 60;

/// PostgreSQL counts a statement's time in milliseconds, so that it may end a little before the deadline.
const DEADLINE_TOLERANCE: Duration = Duration::from_millis(100);

/// The results of 256 totals that all failed fit into a state of a state machine.
const ERROR_BYTES_MAX: usize = 400;

/// The event of an invocation; an empty one, or that of a schedule, is a run of all totals.
#[derive(Clone, Default, Deserialize, Serialize, Debug)]
pub struct TotalsTask {
    /// One step, if a state machine runs them.
    #[serde(default)]
    pub step: Option<Step>,
    /// The total to recompute; all if it is not set.
    #[serde(default)]
    pub total: Option<String>,
    /// What the step `check` removed, for the step `report`.
    #[serde(default)]
    pub removed: Vec<RemovedTotal>,
    /// The results of the step `recompute`, for the step `report`.
    #[serde(default)]
    pub results: Vec<TotalResult>,
}

/// A step of a run.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize, Debug)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Removes totals that are not configured any more, and lists the others.
    Check,
    /// Builds, recomputes and folds totals.
    Recompute,
    /// Writes the results to the log, and as metrics.
    Report,
}

/// The answer of an invocation.
#[derive(Clone, Default, Serialize, Debug)]
pub struct TotalsAnswer {
    /// The totals of the configuration, after the step `check`.
    pub totals: Vec<String>,
    /// The totals that the configuration has no longer.
    pub removed: Vec<RemovedTotal>,
    /// What was done to each total.
    pub results: Vec<TotalResult>,
    /// The health of each total, in the step `report`.
    #[serde(skip)]
    pub health: Vec<TotalHealth>,
}

/// A total that the configuration has no longer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct RemovedTotal {
    /// The total.
    pub total: String,
    /// Why it could not be removed; the next run tries it again.
    #[serde(default)]
    pub error: Option<String>,
}

/// What was done to a total.
#[derive(Clone, PartialEq, Serialize, Deserialize, Debug)]
pub struct TotalResult {
    /// The total.
    pub total: String,
    /// Why there is nothing to sum yet.
    #[serde(default)]
    pub waiting: Option<String>,
    /// Why it could not be recomputed.
    #[serde(default)]
    pub error: Option<String>,
    /// What the recompute found.
    #[serde(default)]
    pub report: Option<RecomputeReport>,
    /// The number of deltas folded.
    #[serde(default)]
    pub folded: u64,
}

/// How a run treats the totals.
#[derive(Clone, Copy, Debug)]
pub struct RunOptions {
    /// Compares only.
    pub dry_run: bool,
    /// What happens to the sums of dropped partitions if a changed definition cannot take them over.
    pub frozen: FrozenPolicy,
    /// When the run must end: PostgreSQL cancels a statement that takes longer.
    pub deadline: Deadline,
}

impl RunOptions {
    fn time_left(&self) -> Duration {
        self.deadline.time_left()
    }
}

/// Runs a task's step, or all of them.
///
/// # Errors
/// Returns an error if the connection fails, or if the only total of the task cannot be recomputed at the moment and a retry
/// may succeed. Any other error of a total is part of its result.
pub async fn run_task(
    config: &Config,
    database: &Database,
    task: TotalsTask,
    deadline: Deadline,
) -> Result<TotalsAnswer, TotalError> {
    let options = RunOptions { dry_run: false, frozen: FrozenPolicy::Keep, deadline };
    let mut answer = TotalsAnswer { removed: task.removed, results: task.results, ..TotalsAnswer::default() };
    if task.step.is_none_or(|step| step == Step::Check) {
        answer.removed = remove_unconfigured(config, database).await?;
        answer.totals = config.totals.iter().map(|total| total.name.as_str().to_owned()).collect();
    }
    if task.step.is_none_or(|step| step == Step::Recompute) {
        answer.results = run_totals(config, database, task.total.as_deref(), options).await?;
        if task.step.is_some() {
            // A state machine passes the results of all totals on.
            answer.results.iter_mut().for_each(TotalResult::reduce);
        }
        if let Some(total) = task.total.filter(|_| answer.results.is_empty()) {
            // The functions have got another configuration since the step `check`.
            let waiting = Some("it is not configured any more".to_owned());
            answer.results.push(TotalResult { waiting, ..TotalResult::new(total) });
        }
    }
    if task.step.is_none_or(|step| step == Step::Report) {
        let connection = database.connection().await?;
        answer.health = read_configured(&connection, config).await?;
        connection.release();
    }
    Ok(answer)
}

/// Removes the totals of the configured sources that are not configured any more.
async fn remove_unconfigured(config: &Config, database: &Database) -> Result<Vec<RemovedTotal>, TotalError> {
    let connection = database.connection().await?;
    let versions = load_versions(&connection).await?;
    let mut removed = Vec::new();
    for total in unconfigured(&versions, &config.sources, &config.totals) {
        let error = match remove_total(&connection, &total, ATTEMPTS).await {
            Ok(()) => None,
            Err(error) if error.is_of_connection() => return Err(error),
            Err(error) => Some(bounded(&error.to_string())),
        };
        removed.push(RemovedTotal { total, error });
    }
    connection.release();
    Ok(removed)
}

/// Builds, recomputes and folds one total, or all.
///
/// # Errors
/// Returns an error if the connection fails, or if the only total cannot be recomputed at the moment and a retry may succeed.
pub async fn run_totals(
    config: &Config,
    database: &Database,
    only: Option<&str>,
    options: RunOptions,
) -> Result<Vec<TotalResult>, TotalError> {
    let connection = database.connection().await?;
    let selected = config.totals.iter().filter(|total| only.is_none_or(|name| total.name.as_str() == name));
    let mut results = Vec::new();
    for total in selected {
        let result = run_total(&connection, total, options).await;
        match result.map_err(|error| at_deadline(error, total, options.deadline)) {
            Ok(result) => results.push(result),
            Err(error) if error.is_of_connection() => return Err(error),
            Err(error) if only.is_some() && !error.needs_operator() => return Err(error),
            Err(error) => results.push(TotalResult {
                error: Some(error.to_string()),
                ..TotalResult::new(total.name.as_str().to_owned())
            }),
        }
    }
    connection.release();
    Ok(results)
}

/// The deadline's own error in place of that of the statement which PostgreSQL cancelled for it.
fn at_deadline(error: TotalError, total: &TotalConfig, deadline: Deadline) -> TotalError {
    let failure = error.database_error();
    let is_cancelled = failure.is_some_and(|failure| failure.code() == Some(&SqlState::QUERY_CANCELED));
    if is_cancelled && deadline.time_left() <= DEADLINE_TOLERANCE {
        return TotalError::TimeIsUp { total: total.name.as_str().to_owned() };
    }
    error
}

async fn run_total(client: &Client, total: &TotalConfig, options: RunOptions) -> Result<TotalResult, TotalError> {
    let result = TotalResult::new(total.name.as_str().to_owned());
    if options.dry_run {
        return compare(client, total, options).await;
    }
    let earlier = load_versions(client).await?;
    let limits = BuildLimits { statement: options.time_left(), attempts: ATTEMPTS, frozen: options.frozen };
    let version = match build(client, total, limits).await? {
        BuildOutcome::Ready(version) => *version,
        BuildOutcome::Waiting { reason } => return Ok(TotalResult { waiting: Some(reason), ..result }),
    };
    let was_ready = |other: &TotalVersion| {
        (&other.name, other.version, other.state) == (&version.name, version.version, TotalState::Ready)
    };
    let report = if earlier.iter().any(was_ready) {
        recompute(client, &version, false, options.time_left()).await?
    } else {
        // The build has just summed all rows.
        RecomputeReport { total: version.name.clone(), ..RecomputeReport::default() }
    };
    let folded = match version.sql() {
        Some(sql) => fold(client, &sql, Duration::ZERO, options.time_left()).await?.unwrap_or(0),
        None => 0,
    };
    tidy(client, &version, options.time_left()).await?;
    record_event(client, total, &report).await?;
    Ok(TotalResult { report: Some(report), folded, ..result })
}

/// Records what a recompute found, for the board: without values, which are in the log.
async fn record_event(client: &Client, total: &TotalConfig, report: &RecomputeReport) -> Result<(), TotalError> {
    if !EVENT_TABLE.exists(client).await? {
        return Ok(());
    }
    let detail = match report.off_by {
        0 => "total recomputed: exact".to_owned(),
        1 => "total recomputed: it was off by 1 group".to_owned(),
        off_by => format!("total recomputed: it was off by {off_by} groups"),
    };
    let event = ActivityEvent::new(EventKind::Recompute, &total.view().unquoted(), &detail);
    Ok(apply::insert_events(client, &[(Some(&total.source), &event)]).await?)
}

/// Compares the served version with the rows.
async fn compare(client: &Client, total: &TotalConfig, options: RunOptions) -> Result<TotalResult, TotalError> {
    let result = TotalResult::new(total.name.as_str().to_owned());
    let versions = load_versions(client).await?;
    let is_served = |version: &&TotalVersion| {
        version.name == total.name.as_str() && version.served && version.state == TotalState::Ready
    };
    match versions.iter().find(is_served) {
        Some(version) => {
            let report = recompute(client, version, true, options.time_left()).await?;
            Ok(TotalResult { report: Some(report), ..result })
        }
        None => Ok(TotalResult { waiting: Some("it is not built yet".to_owned()), ..result }),
    }
}

impl TotalsAnswer {
    /// The number of deltas of a total that this run has folded.
    pub fn folded(&self, total: &str) -> u64 {
        self.results.iter().filter(|result| result.total == total).map(|result| result.folded).sum()
    }
}

impl TotalResult {
    fn new(total: String) -> Self {
        Self { total, waiting: None, error: None, report: None, folded: 0 }
    }

    /// Leaves out what may be large.
    fn reduce(&mut self) {
        self.error = self.error.take().map(|error| bounded(&error));
        self.waiting = self.waiting.take().map(|reason| bounded(&reason));
        if let Some(report) = &mut self.report {
            report.groups.clear();
        }
    }
}

/// A text of at most [`ERROR_BYTES_MAX`] bytes.
fn bounded(text: &str) -> String {
    match text.len() {
        ..=ERROR_BYTES_MAX => text.to_owned(),
        _ => format!("{}…", &text[..text.floor_char_boundary(ERROR_BYTES_MAX)]),
    }
}

/// What a failed invocation says: Step Functions reports Lambda's error as JSON with the member `errorMessage`.
pub(crate) fn invocation_error(cause: &str) -> String {
    #[derive(Deserialize)]
    struct Cause {
        #[serde(rename = "errorMessage")]
        message: String,
    }
    serde_json::from_str::<Cause>(cause).map_or_else(|_not_json| cause.to_owned(), |cause| cause.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_results_of_many_totals_fit_into_a_state() {
        let report =
            RecomputeReport { total: "t".repeat(36), off_by: u64::MAX, seconds: 0.1 + 0.2, ..Default::default() };
        let error = Some("\"é".repeat(1_000));
        let result =
            TotalResult { total: "t".repeat(36), waiting: None, error, report: Some(report), folded: u64::MAX };
        let mut results = vec![result; 256];
        results.iter_mut().for_each(TotalResult::reduce);
        assert!(serde_json::to_string(&results).unwrap().len() < 262_144);
    }

    #[test]
    fn a_failed_invocation_is_reported_by_its_message() {
        assert_eq!(invocation_error(r#"{"errorType":"Millstream.Totals","errorMessage":"no lock"}"#), "no lock");
        assert_eq!(invocation_error("Task timed out"), "Task timed out");
    }
}
