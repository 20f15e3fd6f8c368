//! `make demo`: a system on real parts, before one's eyes. `SYSTEM` says which: the sportsbook or the replica.

mod replica;
mod sportsbook;

use std::process::ExitCode;

use millstream_tests::say;
use millstream_tests::system::Outcome;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let system = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let ended = match &*system {
        "" | "sportsbook" => sportsbook::demo().await,
        "replica" => replica::demo().await,
        _ => Err(format!("unknown system {system}; expected sportsbook or replica").into()),
    };
    ended.unwrap_or_else(|error| {
        let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
        say(&format!("demo failed: {error}{source}"));
        ExitCode::FAILURE
    })
}

/// Leaves the database running until Ctrl-C, unless `--exit` asks for an end.
async fn stay(url: &str, look: &str) -> Outcome<()> {
    say(&format!("\nAll counts match. To explore the database:\n\n  psql {url} -c '{look}'\n"));
    if std::env::args().any(|argument| argument == "--exit") {
        return Ok(());
    }
    say("The database keeps running until you press Ctrl-C.");
    tokio::signal::ctrl_c().await?;
    Ok(())
}
