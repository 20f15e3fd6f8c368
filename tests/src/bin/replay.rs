//! `make replay`: your own data, or a Lambda event, through a real function into a private PostgreSQL.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use millstream_tests::postgresql::{Durability, PostgreSql, connect};
use millstream_tests::process::workspace;
use millstream_tests::replay::{Options, Replay, Summary};
use millstream_tests::say;
use millstream_tests::system::SystemResult;

const USAGE: &str = "usage: make replay EVENT=my.ndjson [CONFIG=my.toml] [FUNCTION=kinesis-ingest] [REPLAY_EXIT=1]

EVENT     JSON lines, Segment calls or a Lambda event; plain or gzip
CONFIG    the configuration (default: the millstream.toml beside EVENT or above it, or else one for the format detected)
FUNCTION  the function (default: dynamodb-sync for an event of a DynamoDB stream, or else kinesis-ingest)";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let Some((options, exits)) = read_arguments(std::env::args().skip(1)) else {
        say(USAGE);
        return ExitCode::FAILURE;
    };
    match replay(options, exits).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            say(&format!("replay failed: {error}{source}"));
            ExitCode::FAILURE
        }
    }
}

/// Reads `[--function NAME] [--config FILE] [--exit] EVENT`; also returns whether to exit at the end.
fn read_arguments(mut arguments: impl Iterator<Item = String>) -> Option<(Options, bool)> {
    let (mut options, mut exits) = (Options::default(), false);
    while let Some(argument) = arguments.next() {
        match &*argument {
            "--exit" => exits = true,
            "--function" => options.function = Some(arguments.next()?),
            "--config" => options.config = Some(workspace().join(arguments.next()?)),
            file if !file.starts_with('-') && options.event == PathBuf::new() => options.event = workspace().join(file),
            _ => return None,
        }
    }
    (options.event != PathBuf::new()).then_some((options, exits))
}

async fn replay(options: Options, exits: bool) -> SystemResult<()> {
    let replay = Replay::prepare(options)?;
    say(&replay.introduction());
    say("Starting a private PostgreSQL …\n");
    let server = PostgreSql::start("replay", Durability::Test)?;
    // Tests use a time zone other than UTC, to find errors; people prefer UTC.
    connect(&server.url("postgres")).await?.batch_execute("ALTER ROLE postgres SET timezone TO 'UTC'").await?;
    let url = server.database().await?;
    let summary = replay.run(&url, &say).await?;
    say(summary.to_string().trim_end());
    stay(&url, &summary, exits || !std::io::stdout().is_terminal()).await
}

/// Leaves the database running until Ctrl-C, unless the replay is to exit.
async fn stay(url: &str, summary: &Summary, exits: bool) -> SystemResult<()> {
    if exits {
        return Ok(());
    }
    let query = summary.tables.first().map(|table| format!("SELECT * FROM {} LIMIT 20", table.name));
    let query = query.map(|query| format!(" -c '{}'", query.replace('\'', "'\\''"))).unwrap_or_default();
    say(&format!("\nTo look around:\n\n  psql {url}{query}\n\nThe database runs until Ctrl-C."));
    tokio::signal::ctrl_c().await?;
    Ok(())
}
