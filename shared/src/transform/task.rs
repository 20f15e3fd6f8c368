//! Runs the transforms that are due, in the order of their dependencies, in calls that end in time.
//!
//! A transform is due by its schedule, after a load, or because one that it depends on has just run. One that fails skips those
//! that depend on it, and stops nothing else. The answer names what was done; whoever invoked the function passes it on until
//! the task is done (`infra/transform.asl.json`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_postgres::Client;

use super::file::TransformFile;
use super::registry::{self, TransformState, TransformStatus, read_states};
use super::run::{self, RunOutcome, RunReport, TransformOptions};
use super::source::TransformSet;
use super::{TransformError, graph::Graph};
use crate::config::Config;
use crate::database::Database;
use crate::dead_letter::bounded;
use crate::feed;
use crate::task::{Resumable, TaskCall};

/// The results of 256 transforms that all failed fit into a state of a state machine (256 KiB).
const REASON_BYTES_MAX: usize = 400;

/// A schedule does not tick at the same millisecond each time: a transform is due a little before its interval is over.
const SCHEDULE_TOLERANCE: Duration = Duration::from_secs(30);

/// The schedule of the function may have a longer interval than the transform.
const OVERDUE_MIN: Duration = Duration::from_secs(900);

/// How often a lock on a table is tried when a log is removed.
const ATTEMPTS: u32 = 10;

/// A transform that begins with less time than this would rather be cancelled than finish.
const TIME_MIN: Duration = Duration::from_secs(10);

/// The event of an invocation; an empty one, or that of a schedule, runs what is due.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize, Debug)]
pub struct TransformTask {
    /// Run what waits for this load, `load.NAME`, which has just ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Run only this transform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<String>,
    /// Run all transforms, due or not.
    #[serde(default)]
    pub all: bool,
    /// Read whole tables, whatever was read before.
    #[serde(default)]
    pub full: bool,
    /// The progress of earlier calls.
    #[serde(default)]
    pub progress: TransformProgress,
}

/// The progress of a task.
#[derive(Clone, Default, PartialEq, Deserialize, Serialize, Debug)]
pub struct TransformProgress {
    /// Whether nothing is left to do.
    pub done: bool,
    /// What became of each transform that was due.
    pub results: Vec<TransformResult>,
    /// The transforms that the configuration has no longer, which were forgotten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// What became of a transform.
#[derive(Clone, PartialEq, Deserialize, Serialize, Debug)]
pub struct TransformResult {
    /// Its name.
    pub transform: String,
    /// The outcome.
    #[serde(flatten)]
    pub outcome: TransformOutcome,
}

/// The outcome of a transform.
#[derive(Clone, PartialEq, Deserialize, Serialize, Debug)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum TransformOutcome {
    /// It has run.
    Succeeded(RunReport),
    /// It failed; its target is as it was.
    Failed {
        /// The file, the line, the column, and what is wrong.
        reason: String,
    },
    /// A table whose changes it reads does not exist yet.
    Waiting {
        /// What is missing.
        reason: String,
    },
    /// A transform that it depends on did not succeed.
    Skipped {
        /// Which.
        reason: String,
    },
}

impl TransformOutcome {
    fn has_succeeded(&self) -> bool {
        matches!(self, Self::Succeeded(_))
    }
}

impl Resumable for TransformTask {
    fn is_done(&self) -> bool {
        self.progress.done
    }
}

impl TransformTask {
    /// The task of a load that has ended: runs the transforms that wait for it.
    pub fn after_load(load: &str) -> Self {
        Self { after: Some(format!("load.{load}")), ..Self::default() }
    }

    /// Whether the task is that of the schedule, which also tidies up.
    fn is_scheduled(&self) -> bool {
        self.after.is_none() && self.transform.is_none() && !self.all
    }

    /// Whether a transform is to run, whatever the others do.
    fn selects(&self, transform: &TransformFile, state: Option<&TransformState>) -> bool {
        match (&self.transform, &self.after) {
            (Some(name), _) => *name == transform.name,
            (None, Some(load)) => {
                load.strip_prefix("load.").is_some_and(|load| transform.after.iter().any(|name| name == load))
            }
            (None, None) => self.all || is_due(transform.every, state),
        }
    }

    /// Whether a transform runs because one that it depends on has run.
    fn follows(&self) -> bool {
        self.transform.is_none()
    }

    fn result_of(&self, name: &str) -> Option<&TransformOutcome> {
        self.progress.results.iter().find(|result| result.transform == name).map(|result| &result.outcome)
    }
}

/// Whether a transform with this interval is due.
fn is_due(every: Option<Duration>, state: Option<&TransformState>) -> bool {
    let Some(every) = every else { return false };
    let tolerance = SCHEDULE_TOLERANCE.min(every / 10);
    let attempted = state.and_then(|state| state.attempted_seconds_ago);
    attempted.is_none_or(|seconds| seconds >= (every - tolerance).as_secs_f64())
}

/// Whether a transform has not been tried for three intervals, and long enough for the schedule to have come by.
fn is_overdue(every: Option<Duration>, state: &TransformState) -> bool {
    let limit = every.map(|every| (every * 3 + OVERDUE_MIN).as_secs_f64());
    limit.zip(state.attempted_seconds_ago).is_some_and(|(limit, seconds)| seconds > limit)
}

/// Runs a task until it is complete or the deadline has passed; returns the task with its progress.
///
/// # Errors
/// Returns an error if the connection fails. What is wrong with a transform is part of the progress.
pub async fn run_task(
    config: &Config,
    set: &TransformSet,
    database: &Database,
    task: TransformTask,
    call: &TaskCall<'_, TransformProgress>,
) -> Result<TransformTask, TransformError> {
    let connection = database.connection().await?;
    let mut runner = Runner { client: &connection, set, sources: source_names(config), task };
    runner.run(call).await?;
    let task = runner.task;
    connection.release();
    Ok(task)
}

/// The configured names of the sources: a database may hold the transforms of several configurations.
fn source_names(config: &Config) -> Vec<String> {
    config.sources.iter().map(|source| source.name.clone()).collect()
}

struct Runner<'r> {
    client: &'r Client,
    set: &'r TransformSet,
    sources: Vec<String>,
    task: TransformTask,
}

impl Runner<'_> {
    async fn run(&mut self, call: &TaskCall<'_, TransformProgress>) -> Result<(), TransformError> {
        run::ensure_tables(self.client).await?;
        let states = read_states(self.client).await?;
        self.reject_files().await?;
        let mut has_run = false;
        for &index in &self.set.graph.order {
            let transform = &self.set.transforms[index];
            if self.task.result_of(&transform.name).is_some() || !self.is_selected(index, &states) {
                continue;
            }
            if call.deadline.time_left() < TIME_MIN {
                // The next call goes on here.
                return Ok(());
            }
            let Some(outcome) = self.run_transform(index, call, has_run).await? else { return Ok(()) };
            has_run = true;
            self.push(&transform.name, outcome);
            call.report(&self.task.progress);
        }
        if self.task.is_scheduled() {
            self.tidy(&states).await?;
        }
        self.task.progress.done = true;
        Ok(())
    }

    fn push(&mut self, name: &str, outcome: TransformOutcome) {
        self.task.progress.results.push(TransformResult { transform: name.to_owned(), outcome });
    }

    /// Files that are no transforms are reported with each scheduled task, as if they had run.
    async fn reject_files(&mut self) -> Result<(), TransformError> {
        for (name, mistakes) in &self.set.rejected {
            let is_selected = match &self.task.transform {
                Some(only) => only == name,
                None => self.task.after.is_none(),
            };
            if is_selected && self.task.result_of(name).is_none() {
                let outcome = TransformOutcome::Failed { reason: bounded(mistakes, REASON_BYTES_MAX) };
                self.record(name, "", &outcome).await?;
                self.push(name, outcome);
            }
        }
        Ok(())
    }

    fn is_selected(&self, index: usize, states: &[TransformState]) -> bool {
        let transform = &self.set.transforms[index];
        let state = states.iter().find(|state| state.name == transform.name);
        let has_run = |dependency: &usize| {
            let name = &self.set.transforms[*dependency].name;
            self.task.result_of(name).is_some_and(TransformOutcome::has_succeeded)
        };
        self.task.selects(transform, state)
            || self.task.follows() && self.set.graph.dependencies[index].iter().any(has_run)
    }

    /// Runs a transform. `None` if the time of this call was over, and the next one has more: another one has run before it.
    async fn run_transform(
        &self,
        index: usize,
        call: &TaskCall<'_, TransformProgress>,
        has_run: bool,
    ) -> Result<Option<TransformOutcome>, TransformError> {
        let transform = &self.set.transforms[index];
        let outcome = match self.obstacle(index) {
            Some(outcome) => outcome,
            None => {
                let options = TransformOptions { deadline: call.deadline, is_full: self.task.full };
                match run::run(self.client, transform, &self.sources, options).await {
                    // Recorded in its own transaction.
                    Ok(RunOutcome::Committed(report)) => return Ok(Some(TransformOutcome::Succeeded(report))),
                    Ok(RunOutcome::Waiting { reason }) => TransformOutcome::Waiting { reason },
                    Err(error) if error.is_of_connection() => return Err(error),
                    Err(TransformError::TimeIsUp { is_deadline: true, .. }) if has_run => return Ok(None),
                    Err(error) => TransformOutcome::Failed { reason: bounded(&error.to_string(), REASON_BYTES_MAX) },
                }
            }
        };
        self.record(&transform.name, &transform.target.unquoted(), &outcome).await?;
        Ok(Some(outcome))
    }

    /// Why a transform does not run.
    fn obstacle(&self, index: usize) -> Option<TransformOutcome> {
        let Graph { dependencies, problems, .. } = &self.set.graph;
        if let Some(problem) = &problems[index] {
            return Some(TransformOutcome::Failed { reason: bounded(problem, REASON_BYTES_MAX) });
        }
        for dependency in &dependencies[index] {
            let name = &self.set.transforms[*dependency].name;
            let state = match self.task.result_of(name) {
                None | Some(TransformOutcome::Succeeded(_)) => continue,
                Some(TransformOutcome::Failed { .. }) => "failed",
                Some(TransformOutcome::Waiting { .. }) => "waits",
                Some(TransformOutcome::Skipped { .. }) => "was skipped",
            };
            return Some(TransformOutcome::Skipped { reason: format!("it depends on {name}, which {state}") });
        }
        None
    }

    async fn record(&self, name: &str, target: &str, outcome: &TransformOutcome) -> Result<(), TransformError> {
        let (status, reason) = match outcome {
            TransformOutcome::Succeeded(_) => return Ok(()),
            TransformOutcome::Failed { reason } => (TransformStatus::Failed, reason),
            TransformOutcome::Waiting { reason } => (TransformStatus::Waiting, reason),
            TransformOutcome::Skipped { reason } => (TransformStatus::Skipped, reason),
        };
        registry::record_outcome(self.client, name, target, &self.sources, (status, reason)).await
    }

    /// Forgets transforms of this configuration that have no file any more, and removes logs that no transform reads. The targets
    /// stay.
    async fn tidy(&mut self, states: &[TransformState]) -> Result<(), TransformError> {
        let names = self.set.names();
        for state in states {
            let is_own = state.sources.iter().any(|source| self.sources.contains(source));
            if is_own && !names.contains(&&*state.name) {
                registry::delete(self.client, &state.name).await?;
                self.task.progress.removed.push(state.name.clone());
            }
        }
        let read: Vec<_> = self.set.transforms.iter().flat_map(|transform| transform.changes.clone()).collect();
        match feed::remove_unused(self.client, &read, ATTEMPTS).await {
            Err(error) if error.is_of_connection() => return Err(error.into()),
            Err(error) => tracing::warn!(%error, "a change log that no transform reads was not removed"),
            Ok(removed) => {
                for table in removed {
                    tracing::info!(table = table.unquoted(), "change log removed: no transform reads it");
                }
            }
        }
        Ok(())
    }
}

/// The transforms of a configuration with their states in the database, by name; those that the database has for this
/// configuration and that have no file any more come last.
///
/// # Errors
/// Returns an error if a query or the connection fails.
pub async fn list(client: &Client, config: &Config, set: &TransformSet) -> Result<Vec<TransformState>, TransformError> {
    let mut existing = read_states(client).await?;
    let sources = source_names(config);
    existing.retain(|state| state.sources.iter().any(|source| sources.contains(source)));
    let mut listed = Vec::new();
    for name in set.names() {
        let transform = set.transforms.iter().find(|transform| transform.name == name);
        let target = transform.map(|transform| transform.target.unquoted()).unwrap_or_default();
        listed.push(match existing.iter().position(|state| state.name == name) {
            Some(index) => {
                let state = existing.remove(index);
                let every = transform.and_then(|transform| transform.every);
                TransformState { is_overdue: is_overdue(every, &state), ..state }
            }
            None => TransformState::new(name, &target),
        });
    }
    listed.append(&mut existing);
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transform_is_due_when_its_interval_is_over() {
        let state =
            |seconds: f64| TransformState { attempted_seconds_ago: Some(seconds), ..TransformState::new("t", "") };
        let every = Some(Duration::from_secs(300));
        assert!(is_due(every, None) && is_due(every, Some(&TransformState::new("t", ""))));
        assert!(is_due(every, Some(&state(271.0))) && !is_due(every, Some(&state(269.0))));
        assert!(!is_due(Some(Duration::from_secs(60)), Some(&state(53.0))));
        assert!(!is_due(None, None));
    }

    #[test]
    fn the_results_of_many_transforms_fit_into_a_state() {
        let reason = bounded(&"\"é".repeat(1_000), REASON_BYTES_MAX);
        let result = TransformResult { transform: "t".repeat(63), outcome: TransformOutcome::Failed { reason } };
        let progress = TransformProgress { done: true, results: vec![result; 256], removed: Vec::new() };
        assert!(
            serde_json::to_string(&TransformTask { progress, ..TransformTask::default() }).unwrap().len() < 262_144
        );
    }

    #[test]
    fn events_are_tasks() {
        let task = |event: &str| serde_json::from_str::<TransformTask>(event).unwrap();
        assert!(task("{}").is_scheduled());
        assert_eq!(task(r#"{"after":"load.users"}"#), TransformTask::after_load("users"));
        let done = serde_json::to_string(&TransformTask::after_load("users")).unwrap();
        assert_eq!(done, r#"{"after":"load.users","all":false,"full":false,"progress":{"done":false,"results":[]}}"#);
    }
}
