//! `millstream backfill`: runs a task to completion, with a progress bar on a terminal.

use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use millstream::backfill::{BackfillJob, BackfillProgress, BackfillTask, UnreadableLine, UnreadableLines};
use millstream::runtime::App;
use millstream::task::{TaskCall, run_until_done};

use crate::layout::format_count_of;
use crate::{CommandContext, CommandError, CommandOutput, find_source, verify};

const KNOWN_TOTAL_STYLE: &str = "{wide_bar} {human_pos} of {human_len} records, {per_sec}, {eta} left; {msg}";
const UNKNOWN_TOTAL_STYLE: &str = "{spinner} {human_pos} records, {per_sec}, {elapsed}; {msg}";

#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct BackfillArgs {
    /// Task in JSON, in the form that the function accepts; an interrupted task resumes
    task: Option<String>,
    #[command(subcommand)]
    source: Option<BackfillCommand>,
}

#[derive(Subcommand)]
enum BackfillCommand {
    /// Load a DynamoDB export from S3
    Export {
        /// Source whose tables to fill, by its name in the configuration
        #[arg(long, value_name = "NAME")]
        source: String,
        /// S3 address of the export's manifest-summary.json
        #[arg(long, value_name = "s3://…")]
        manifest: String,
        /// Load only this data file, given by its S3 key
        #[arg(long, value_name = "KEY")]
        file: Option<String>,
        /// Key attributes of the table; required if the DynamoDB table no longer exists
        #[arg(long, value_name = "NAME,…", value_delimiter = ',')]
        key: Vec<String>,
    },
    /// Scan a DynamoDB table (for small tables)
    Scan {
        /// Source whose tables to fill, by its name in the configuration
        #[arg(long, value_name = "NAME")]
        source: String,
        /// DynamoDB table to scan
        #[arg(long)]
        table: String,
        /// Segment number, from 0
        #[arg(long, default_value_t = 0)]
        segment: u32,
        /// Number of parallel segments
        #[arg(long, default_value_t = 1)]
        segments: u32,
    },
    /// Reapply the backup for a range of arrival times
    Reapply {
        /// Source whose tables to fill, by its name in the configuration
        #[arg(long, value_name = "NAME")]
        source: String,
        /// Start of the arrival times, inclusive: 2026-02-08T00:00:00Z
        #[arg(long, value_name = "TIMESTAMP")]
        from: String,
        /// End, exclusive
        #[arg(long, value_name = "TIMESTAMP")]
        to: String,
        /// Reapply only this table, given by its name in PostgreSQL
        #[arg(long)]
        table: Option<String>,
    },
}

impl BackfillCommand {
    fn task(self) -> BackfillTask {
        let (source, job) = match self {
            Self::Export { source, manifest, file, key } => (source, BackfillJob::Export { manifest, file, key }),
            Self::Scan { source, table, segment, segments } => (source, BackfillJob::Scan { table, segment, segments }),
            Self::Reapply { source, from, to, table } => (source, BackfillJob::Reapply { from, to, table }),
        };
        BackfillTask { source, job, progress: BackfillProgress::default() }
    }
}

pub async fn run(arguments: BackfillArgs, context: &CommandContext) -> Result<BackfillTask, CommandError> {
    let task = match (arguments.source, &arguments.task) {
        (Some(source), _) => source.task(),
        (None, text) => read(text.as_deref().unwrap_or_default())?,
    };
    let mut app = context.app()?;
    find_source(&app.config().await?, &task.source)?;
    run_with_progress_bar(&mut app, task).await
}

fn read(task: &str) -> Result<BackfillTask, CommandError> {
    serde_json::from_str(task).map_err(|error| {
        let example = r#"{"source": "shop", "scan": {"table": "Orders"}}"#;
        CommandError::Usage(format!("expected export, scan, reapply or a task such as {example}: {error}"))
    })
}

/// Runs a task until it is done.
pub async fn run_with_progress_bar(app: &mut App, task: BackfillTask) -> Result<BackfillTask, CommandError> {
    let bar = ProgressBar::new(0);
    let on_progress = |progress: &BackfillProgress| print_progress(&bar, progress);
    let task = run_until_done(task, async |task, deadline| {
        app.backfill(task, TaskCall::watched(deadline, &on_progress)).await
    })
    .await?;
    bar.finish_and_clear();
    Ok(task)
}

fn print_progress(bar: &ProgressBar, progress: &BackfillProgress) {
    let template = if progress.total.is_some() { KNOWN_TOTAL_STYLE } else { UNKNOWN_TOTAL_STYLE };
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_length(progress.total.unwrap_or(0));
    bar.set_position(progress.records);
    bar.set_message(format!(
        "{} rows, {} dead letters, {} MB",
        progress.rows,
        progress.dead_lettered,
        progress.bytes / 1_000_000
    ));
}

impl CommandOutput for BackfillTask {
    fn to_text(&self) -> String {
        let summary = match &self.job {
            BackfillJob::Reapply { from, to, table } => {
                let tables = table.as_deref().map(|table| format!(" of {table}")).unwrap_or_default();
                format!("reapplied the backup{tables} from {from} to {to} into {}", self.source)
            }
            BackfillJob::Export { manifest, file, .. } => {
                let file = file.as_deref().map(|file| format!("{file} of ")).unwrap_or_default();
                format!("loaded {file}the export {manifest} into {}", self.source)
            }
            BackfillJob::Scan { table, segment: 0, segments: 1 } => format!("scanned {table} into {}", self.source),
            BackfillJob::Scan { table, segment, segments } => {
                format!("scanned segment {segment} of {segments} of {table} into {}", self.source)
            }
            BackfillJob::Verify { table } => {
                let BackfillProgress { records, differences, .. } = &self.progress;
                return verify::format_result(table, *records, differences.as_ref());
            }
        };
        let BackfillProgress { records, rows, dead_lettered, bytes, .. } = self.progress;
        let mut text = format!(
            "Done: {summary}\n  {} records ({} bytes), {} rows written, {} dead letters",
            format_count_of(records),
            format_count_of(bytes),
            format_count_of(rows),
            format_count_of(dead_lettered)
        );
        if let Some(UnreadableLines { count, examples }) = &self.progress.unreadable {
            text.push_str(&format!("\n  {} unreadable lines, not restored:", format_count_of(*count)));
            for UnreadableLine { object, line, error } in examples {
                text.push_str(&format!("\n    {object}, line {line}: {error}"));
            }
        }
        text
    }

    fn needs_attention(&self) -> bool {
        self.progress.differences.is_some() || self.progress.unreadable.is_some()
    }
}
