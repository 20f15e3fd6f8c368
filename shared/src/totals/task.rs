//! The scheduled work on the totals of a configuration: build, recompute, fold, report. A state machine runs the steps, so that
//! each total has an invocation of its own; a single invocation without a step runs all of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::build::{BuildLimits, BuildOutcome, FrozenPolicy, build, remove_unconfigured};
use super::fold::fold;
use super::recompute::{RecomputeReport, recompute, tidy};
use super::{TotalError, TotalState};
use crate::config::{Config, TotalConfig};
use crate::database::Database;

/// How often a lock on a table is tried.
const ATTEMPTS: u32 = 60;

/// The event of an invocation; an empty one, or that of a schedule, is a run of all totals.
#[derive(Clone, Default, Deserialize, Serialize, Debug)]
pub struct TotalsTask {
    /// One step, if a state machine runs them.
    #[serde(default)]
    pub step: Option<Step>,
    /// The total to recompute; all if it is not set.
    #[serde(default)]
    pub total: Option<String>,
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
    /// The totals that were removed.
    pub removed: Vec<String>,
    /// What was done to each total.
    pub results: Vec<TotalResult>,
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
    /// Bounds each statement.
    pub timeout: Duration,
}

/// Runs a task's step, or all of them.
///
/// # Errors
/// Returns an error if the connection fails, or if the only total of the task cannot be recomputed. The error of one total
/// among several is part of its result.
pub async fn run_task(
    config: &Config,
    database: &Database,
    task: TotalsTask,
    timeout: Duration,
) -> Result<TotalsAnswer, TotalError> {
    let options = RunOptions { dry_run: false, frozen: FrozenPolicy::Keep, timeout };
    let mut answer = TotalsAnswer::default();
    if task.step.is_none_or(|step| step == Step::Check) {
        let connection = database.connection().await?;
        let sources: Vec<&str> = config.sources.iter().map(|source| &*source.name).collect();
        answer.removed = remove_unconfigured(&connection, &sources, &config.totals, ATTEMPTS).await?;
        answer.totals = config.totals.iter().map(|total| total.name.as_str().to_owned()).collect();
        connection.release();
    }
    if task.step.is_none_or(|step| step == Step::Recompute) {
        answer.results = run_totals(config, database, task.total.as_deref(), options).await?;
    }
    if task.step == Some(Step::Report) {
        answer.results = task.results;
    }
    Ok(answer)
}

/// Builds, recomputes and folds one total, or all.
///
/// # Errors
/// Returns an error if the connection fails, or if the only total cannot be recomputed.
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
        match result {
            Ok(result) => results.push(result),
            Err(error) if only.is_some() || error.is_of_connection() => return Err(error),
            Err(error) => results.push(TotalResult { error: Some(error.to_string()), ..TotalResult::new(total) }),
        }
    }
    connection.release();
    Ok(results)
}

async fn run_total(client: &Client, total: &TotalConfig, options: RunOptions) -> Result<TotalResult, TotalError> {
    let result = TotalResult::new(total);
    if options.dry_run {
        return compare(client, total, options).await;
    }
    let limits = BuildLimits { statement: options.timeout, attempts: ATTEMPTS, frozen: options.frozen };
    let version = match build(client, total, limits).await? {
        BuildOutcome::Ready(version) => version,
        BuildOutcome::Waiting { reason } => return Ok(TotalResult { waiting: Some(reason), ..result }),
    };
    let report = recompute(client, &version, false, options.timeout).await?;
    let folded = match version.sql() {
        Some(sql) => fold(client, &sql, Duration::ZERO, options.timeout).await?.unwrap_or(0),
        None => 0,
    };
    tidy(client, &version, options.timeout).await?;
    Ok(TotalResult { report: Some(report), folded, ..result })
}

/// Compares the served version with the rows.
async fn compare(client: &Client, total: &TotalConfig, options: RunOptions) -> Result<TotalResult, TotalError> {
    let result = TotalResult::new(total);
    let versions = super::load_versions(client).await?;
    let is_served = |version: &&super::TotalVersion| {
        version.name == total.name.as_str() && version.served && version.state == TotalState::Ready
    };
    match versions.iter().find(is_served) {
        Some(version) => {
            let report = recompute(client, version, true, options.timeout).await?;
            Ok(TotalResult { report: Some(report), ..result })
        }
        None => Ok(TotalResult { waiting: Some("it is not built yet".to_owned()), ..result }),
    }
}

impl TotalResult {
    fn new(total: &TotalConfig) -> Self {
        Self { total: total.name.as_str().to_owned(), waiting: None, error: None, report: None, folded: 0 }
    }
}
