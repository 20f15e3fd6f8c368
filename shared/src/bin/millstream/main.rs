//! `millstream`: the operator's commands, one module per command. This module parses the arguments and prints the result as
//! text or JSON, with an exit code.

mod backfill;
mod catalogue;
mod layout;
mod maintain;
mod plan;
mod redrive;
mod status;
mod totals;
mod transform;
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
  3  `status` or `plan` found something that needs attention, or a comparison found differences

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
    /// Show totals, compare them with the rows that they sum, or recompute them
    Totals(totals::TotalsArgs),
    /// List the SQL transforms next to the configuration, or run them
    Transform(transform::TransformArgs),
    /// Describe the system on one page: streams, functions and tables (Markdown)
    Catalogue(catalogue::CatalogueArgs),
}

/// The global arguments of a command.
struct CommandContext {
    config: Option<String>,
}

/// The output of a command.
trait CommandOutput: Serialize {
    /// The output as text of at most 100 columns, unless a single word is longer.
    fn to_text(&self) -> String;

    /// Whether it needs an operator's attention (exit code 3).
    fn needs_attention(&self) -> bool {
        false
    }
}

/// Why a command failed.
enum CommandError {
    /// The command failed.
    Failed(Failure),
    /// The arguments are invalid.
    Usage(String),
}

impl<F: Into<Failure>> From<F> for CommandError {
    fn from(failure: F) -> Self {
        Self::Failed(failure.into())
    }
}

impl CommandContext {
    /// Creates the app from the environment.
    fn app(&self) -> Result<App, CommandError> {
        Ok(App::from_environment(self.config.as_deref())?)
    }
}

/// Finds a source by its name in the configuration.
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
    let context = CommandContext { config };
    let format = if json { OutputFormat::Json } else { OutputFormat::Text };
    let exit_code = match command {
        Command::Status(arguments) => format.print(status::run(&arguments, &context).await),
        Command::Plan(arguments) => format.print(plan::run(&arguments, &context).await),
        Command::Backfill(arguments) => format.print(backfill::run(arguments, &context).await),
        Command::Redrive(arguments) => format.print(redrive::run(arguments, &context).await),
        Command::Verify(arguments) => format.print(verify::run(&arguments, &context).await),
        Command::Maintain => format.print(maintain::run(&context).await),
        Command::Totals(arguments) => format.print(totals::run(arguments, &context).await),
        Command::Transform(arguments) => format.print(transform::run(arguments, &context).await),
        Command::Catalogue(arguments) => format.print(catalogue::run(&arguments, &context).await),
    };
    exit_code.unwrap_or_else(|error| {
        let (message, code) = match error {
            CommandError::Failed(failure) => (failure.to_string(), 1),
            CommandError::Usage(message) => (message, 2),
        };
        writeln!(std::io::stderr(), "millstream: {message}").unwrap_or_default();
        ExitCode::from(code)
    })
}

/// How output is printed.
#[derive(Clone, Copy)]
enum OutputFormat {
    Text,
    Json,
}

impl OutputFormat {
    fn print<A: CommandOutput>(self, output: Result<A, CommandError>) -> Result<ExitCode, CommandError> {
        let output = output?;
        let text = match self {
            Self::Text => output.to_text(),
            Self::Json => serde_json::to_string(&output).map_err(|error| CommandError::Usage(error.to_string()))?,
        };
        // A closed pipe is not a failure.
        writeln!(std::io::stdout(), "{}", text.trim_end()).unwrap_or_default();
        Ok(if output.needs_attention() { ExitCode::from(3) } else { ExitCode::SUCCESS })
    }
}
