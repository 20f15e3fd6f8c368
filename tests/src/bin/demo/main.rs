//! `make demo`: shows a system on real parts. `SYSTEM` chooses it: the sportsbook, the replica or the portfolio.

mod display;
mod heal;
mod portfolio;
mod replica;
mod sportsbook;

use std::path::Path;
use std::process::ExitCode;

use millstream_tests::board::LocalBoard;
use millstream_tests::postgresql::psql_command;
use millstream_tests::say;
use millstream_tests::system::SystemResult;

/// The exit code that shells report for a program ended by SIGINT.
const INTERRUPTED: u8 = 130;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let system = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let demo = async {
        match &*system {
            "" | "sportsbook" => sportsbook::demo().await,
            "replica" => replica::demo().await,
            "portfolio" => portfolio::demo().await,
            _ => Err(format!("unknown system {system}; expected sportsbook, replica or portfolio").into()),
        }
    };
    // On Ctrl-C the demo is dropped, which stops the servers and restores the terminal.
    let ended = tokio::select! {
        biased;
        ended = demo => ended,
        interrupted = tokio::signal::ctrl_c() => interrupted.map(|()| ExitCode::from(INTERRUPTED)).map_err(Into::into),
    };
    ended.unwrap_or_else(|error| {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        say(&format!("demo failed: {error}{source}"));
        ExitCode::FAILURE
    })
}

/// Starts the system's board and prints its address and the token to sign in with.
fn start_board(folder: &Path, url: &str) -> SystemResult<LocalBoard> {
    let board = LocalBoard::start(&std::fs::read_to_string(folder.join("millstream.toml"))?, url)?;
    say(&format!("Board: {}  (token to sign in: {})", board.url(), board.tokens().operator));
    Ok(board)
}

/// Leaves the database running until Ctrl-C, unless `--exit` is set.
async fn stay(url: &str, look: &str) -> SystemResult<()> {
    let psql = psql_command()?;
    say(&format!("\nAll counts match. To explore the database:\n\n  {psql} {url} -c '{look}'\n"));
    if std::env::args().any(|argument| argument == "--exit") {
        return Ok(());
    }
    say("The database keeps running until you press Ctrl-C.");
    tokio::signal::ctrl_c().await?;
    Ok(())
}
