//! `millstream transform`: lists the transforms of the configuration, and runs them.

use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::ProgressBar;
use millstream::task::{Deadline, TaskCall, run_until_done};
use millstream::transform::task::{TransformOutcome, TransformProgress, TransformResult, TransformTask, list};
use millstream::transform::{RunReport, TransformSet, TransformState, TransformStatus, read_transforms};
use serde::Serialize;

use crate::layout::{Align, TextTable, format_count, format_count_of, format_duration, wrap};
use crate::{CommandContext, CommandError, CommandOutput};

/// A transform on a terminal is bounded by its own timeout only, which is at most a year.
const TIME: Duration = Duration::from_secs(367 * 86_400);

const NO_TRANSFORMS: &str =
    "There are no transforms: the folder `transforms` next to the configuration has no .sql file.";

#[derive(Args)]
pub struct TransformArgs {
    #[command(subcommand)]
    command: TransformCommand,
}

#[derive(Subcommand)]
enum TransformCommand {
    /// Show each transform: its target, and the outcome of its last run
    List,
    /// Run transforms in the order of their dependencies; all of them, unless one is named
    Run {
        /// Only this transform
        transform: Option<String>,
        /// Only those that are due, as the scheduled function does
        #[arg(long, conflicts_with = "transform")]
        due: bool,
        /// Read whole tables, whatever was read before
        #[arg(long)]
        full: bool,
    },
}

/// What the command found or did.
#[derive(Serialize)]
#[serde(untagged)]
pub enum TransformOutput {
    List(Vec<TransformState>),
    Results(TransformProgress),
}

pub async fn run(arguments: TransformArgs, context: &CommandContext) -> Result<TransformOutput, CommandError> {
    let app = context.app()?;
    let set = read_transforms(&app.files()?).await?;
    let (transform, due, full) = match arguments.command {
        TransformCommand::List => {
            let (config, database) = app.config_and_database().await?;
            let connection = database.connection().await?;
            let states = list(&connection, &config, &set).await?;
            connection.release();
            return Ok(TransformOutput::List(states));
        }
        TransformCommand::Run { transform, due, full } => (transform, due, full),
    };
    if let Some(name) = &transform {
        find_transform(&set, name)?;
    }
    let all = transform.is_none() && !due;
    let task = TransformTask { transform, all, full, ..TransformTask::default() };
    let bar = ProgressBar::no_length();
    bar.set_message("transforms");
    let show = |progress: &TransformProgress| bar.set_position(progress.results.len() as u64);
    let call = async |task, _deadline| {
        // No invocation ends: a transform has the time that its own header gives it.
        let call = TaskCall::watched(Deadline::after(TIME), &show);
        app.transform(task, &call, "").await
    };
    let done = run_until_done(task, call).await?;
    bar.finish_and_clear();
    Ok(TransformOutput::Results(done.progress))
}

fn find_transform(set: &TransformSet, name: &str) -> Result<(), CommandError> {
    let known = set.names();
    if known.contains(&name) {
        return Ok(());
    }
    Err(CommandError::Usage(format!("unknown transform `{name}`; transforms: {}", known.join(", "))))
}

impl CommandOutput for TransformOutput {
    fn to_text(&self) -> String {
        match self {
            Self::List(states) if states.is_empty() => NO_TRANSFORMS.to_owned(),
            Self::List(states) => list_text(states),
            Self::Results(progress) if progress.results.is_empty() => "No transform is due.".to_owned(),
            Self::Results(progress) => progress.results.iter().map(result_text).collect(),
        }
    }

    fn needs_attention(&self) -> bool {
        let has_failed = |result: &TransformResult| matches!(result.outcome, TransformOutcome::Failed { .. });
        match self {
            Self::List(states) => states.iter().any(|state| state.status == TransformStatus::Failed),
            Self::Results(progress) => progress.results.iter().any(has_failed),
        }
    }
}

/// One line for each transform.
pub fn transforms_table(states: &[TransformState]) -> TextTable {
    let columns = [
        ("TRANSFORM", Align::Left),
        ("TARGET", Align::Left),
        ("LAST RUN", Align::Left),
        ("SUCCEEDED", Align::Right),
        ("TOOK", Align::Right),
        ("WRITTEN", Align::Right),
        ("DELETED", Align::Right),
    ];
    let mut table = TextTable::new(&columns);
    for state in states {
        let ago = state.succeeded_seconds_ago.map(|seconds| format!("{} ago", format_duration(seconds)));
        let status = if state.status == TransformStatus::New { "-" } else { state.status.as_str() };
        table.push([
            state.name.clone(),
            if state.target.is_empty() { "-".to_owned() } else { state.target.clone() },
            status.to_owned(),
            ago.unwrap_or_else(|| "never".to_owned()),
            state.seconds.map_or("-".to_owned(), format_duration),
            state.rows_written.map_or("-".to_owned(), format_count),
            state.rows_deleted.map_or("-".to_owned(), format_count),
        ]);
    }
    table
}

fn list_text(states: &[TransformState]) -> String {
    let mut text = transforms_table(states).to_string();
    for state in states {
        if let Some(reason) = &state.reason {
            text.push_str(&wrap(&format!("{}: {reason}", state.name), 0));
        }
    }
    text
}

fn result_text(result: &TransformResult) -> String {
    let TransformResult { transform, outcome } = result;
    match outcome {
        TransformOutcome::Succeeded(RunReport { full_run, rows_written, rows_deleted, seconds }) => {
            let (written, deleted) = (format_count_of(*rows_written), format_count_of(*rows_deleted));
            let full = if *full_run { ", full run" } else { "" };
            let took = format_duration(*seconds);
            wrap(&format!("{transform}: {written} rows written, {deleted} deleted ({took}{full})"), 0)
        }
        TransformOutcome::Failed { reason } => wrap(&format!("{transform}: failed: {reason}"), 0),
        TransformOutcome::Waiting { reason } => wrap(&format!("{transform}: waiting: {reason}"), 0),
        TransformOutcome::Skipped { reason } => wrap(&format!("{transform}: skipped: {reason}"), 0),
    }
}
