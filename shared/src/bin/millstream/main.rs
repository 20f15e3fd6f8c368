//! `millstream`: the operator's commands, a module each. Here the arguments are read, and the answer becomes text or JSON, and an
//! exit code.

mod backfill;
mod catalogue;
mod layout;
mod maintain;
mod plan;
mod redrive;
mod status;
mod verify;

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millstream::config::{Config, SourceConfig};
use millstream::runtime::{App, Failure};
use millstream::telemetry;
use serde::Serialize;

const EXIT_CODES: &str = "Exit codes:
  0  success
  1  failure; the reason is on standard error
  2  usage error: an argument is invalid or names something that does not exist
  3  `status` found something that needs attention, or a comparison found differences

The environment variables are those of the functions: DATABASE_URL (or DATABASE_SECRET_ARN, or DATABASE_AUTH=iam),
MILLSTREAM_CONFIG, DEAD_LETTER_QUEUE_URL, ON_FAILURE_QUEUE_URL, ARCHIVE_BUCKET, and those of the AWS SDK.";

/// Operate Millstream, which loads Kinesis and DynamoDB streams into PostgreSQL
#[derive(Parser)]
#[command(name = "millstream", version, after_help = EXIT_CODES, disable_help_subcommand = true)]
struct Cli {
    /// Configuration file, a path or an s3:// address [default: MILLSTREAM_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<String>,
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show each source's last commit, lag, rows and partitions, and the queues
    Status(status::StatusArgs),
    /// Dry run: show the DDL and the rows that events, or the configuration alone, would produce
    Plan(plan::PlanArgs),
    /// Fill tables from the backup, an export or a scan
    Backfill(backfill::BackfillArgs),
    /// Reprocess dead letters and batches that Lambda discarded
    Redrive(redrive::RedriveArgs),
    /// Compare DynamoDB tables with their replicas
    Verify(verify::VerifyArgs),
    /// Create future partitions, drop expired ones, prune old tombstones (as the scheduled function does)
    Maintain,
    /// Describe the system on one page: streams, functions and tables (Markdown)
    Catalogue(catalogue::CatalogueArgs),
}

/// What a command is run with, beside its own arguments.
struct CommandContext {
    config: Option<String>,
}

/// What a command has to say.
trait CommandOutput: Serialize {
    /// The answer as text of at most 100 columns, where nothing in it is longer by itself.
    fn to_text(&self) -> String;

    /// Whether a person should look at it.
    fn needs_attention(&self) -> bool {
        false
    }
}

/// Why there is no answer.
enum CommandError {
    /// It failed.
    Failed(Failure),
    /// It was asked for what cannot be.
    Usage(String),
}

impl<F: Into<Failure>> From<F> for CommandError {
    fn from(failure: F) -> Self {
        Self::Failed(failure.into())
    }
}

impl CommandContext {
    /// The app in the environment.
    fn app(&self) -> Result<App, CommandError> {
        Ok(App::from_environment(self.config.as_deref())?)
    }
}

/// The source that the configuration calls so.
fn find_source<'c>(config: &'c Config, name: &str) -> Result<&'c SourceConfig, CommandError> {
    config.sources.iter().find(|source| source.name == name).ok_or_else(|| {
        let known: Vec<&str> = config.sources.iter().map(|source| &*source.name).collect();
        CommandError::Usage(format!("unknown source `{name}`; configured sources: {}", known.join(", ")))
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Cli { config, json, command } = Cli::parse();
    telemetry::init_terminal();
    let session = CommandContext { config };
    let form = if json { OutputFormat::Json } else { OutputFormat::People };
    let told = match command {
        Command::Status(arguments) => form.print(status::run(&arguments, &session).await),
        Command::Plan(arguments) => form.print(plan::run(&arguments, &session).await),
        Command::Backfill(arguments) => form.print(backfill::run(arguments, &session).await),
        Command::Redrive(arguments) => form.print(redrive::run(arguments, &session).await),
        Command::Verify(arguments) => form.print(verify::run(&arguments, &session).await),
        Command::Maintain => form.print(maintain::run(&session).await),
        Command::Catalogue(arguments) => form.print(catalogue::run(&arguments, &session).await),
    };
    told.unwrap_or_else(|unanswered| {
        let (message, code) = match unanswered {
            CommandError::Failed(failure) => (failure.to_string(), 1),
            CommandError::Usage(message) => (message, 2),
        };
        writeln!(std::io::stderr(), "millstream: {message}").unwrap_or_default();
        ExitCode::from(code)
    })
}

/// How answers are told.
#[derive(Clone, Copy)]
enum OutputFormat {
    People,
    Json,
}

impl OutputFormat {
    fn print<A: CommandOutput>(self, answer: Result<A, CommandError>) -> Result<ExitCode, CommandError> {
        let answer = answer?;
        let text = match self {
            Self::People => answer.to_text(),
            Self::Json => serde_json::to_string(&answer).map_err(|error| CommandError::Usage(error.to_string()))?,
        };
        // A reader that went away is no reason to fail.
        writeln!(std::io::stdout(), "{}", text.trim_end()).unwrap_or_default();
        Ok(if answer.needs_attention() { ExitCode::from(3) } else { ExitCode::SUCCESS })
    }
}
