//! `make replay`: one sample event through `cargo lambda`, and what it changed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use millstream_tests::local_aws::LocalAws;
use millstream_tests::postgresql::{Durability, PostgreSql, connect};
use millstream_tests::process::{free_port, start, target, tool, workspace};
use millstream_tests::say;
use millstream_tests::system::Outcome;
use tokio_postgres::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [function, event] = &arguments[..] else {
        say("usage: make replay FUNCTION=kinesis-ingest EVENT=events/sportsbook/bet-placed.json");
        return ExitCode::FAILURE;
    };
    match replay(function, Path::new(event)).await {
        Ok(code) => code,
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            say(&format!("replay failed: {error}{source}"));
            ExitCode::FAILURE
        }
    }
}

async fn replay(function: &str, event: &Path) -> Outcome<ExitCode> {
    let event = workspace().join(event);
    // A task lies in a folder of its own within the system's.
    let config = event.ancestors().map(|folder| folder.join("millstream.toml")).find(|file| file.is_file());
    let config =
        config.ok_or_else(|| format!("no millstream.toml in the folder of {} or above it", event.display()))?;
    let server = PostgreSql::start("replay", Durability::Test)?;
    let aws = LocalAws::start().await?;
    let queue = aws.queue("dead-letters").await?;
    let url = server.database().await?;
    let client = connect(&url).await?;
    let mut environment = aws.environment();
    environment.extend([
        ("DATABASE_URL".to_owned(), url),
        ("DEAD_LETTER_QUEUE_URL".to_owned(), queue.clone()),
        ("MILLSTREAM_CONFIG".to_owned(), config.to_string_lossy().into_owned()),
    ]);
    let port = free_port()?.to_string();
    let log = target().join("replay.log");
    let mut watch = start(&cargo_lambda()?, None, &log, |command| {
        command.args(["lambda", "watch", "-A", "127.0.0.1", "-P", &port, "--ignore-changes"]);
        command.current_dir(workspace()).envs(environment);
    })?;
    let before = counts(&client).await?;
    let answer = invoke(function, &event, &port);
    watch.kill()?;
    watch.wait()?;
    let answer = answer.map_err(|error| format!("{error}; the log is {}", log.display()))?;
    say(&format!("answer: {answer}"));
    for (table, count) in counts(&client).await? {
        let change = count - before.get(&table).copied().unwrap_or(0);
        say(&format!("{table}: {change:+} rows"));
        show(&client, &table).await?;
    }
    for letter in aws.drain(&queue).await? {
        say(&format!("dead letter: {letter}"));
    }
    Ok(ExitCode::SUCCESS)
}

/// cargo-lambda is of the project's virtual environment; it is found by the name of a cargo subcommand.
fn cargo_lambda() -> Outcome<PathBuf> {
    let program = tool("cargo-lambda");
    if program.exists() { Ok(program) } else { Err("cargo-lambda is not installed: run `make tools`".into()) }
}

/// The first invocation builds the function, which may take minutes.
fn invoke(function: &str, event: &Path, port: &str) -> Outcome<String> {
    let since = Instant::now();
    loop {
        let output = Command::new(cargo_lambda()?)
            .args(["lambda", "invoke", function, "-A", "127.0.0.1", "-P", port, "--data-file"])
            .arg(event)
            .output()?;
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
        }
        // Until the server listens, there is nobody to connect to.
        if since.elapsed() > Duration::from_secs(900) || !told.contains("connect") {
            return Err(format!("{told}{}", String::from_utf8_lossy(&output.stdout)).into());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Rows by table, partitions counted with their parent.
async fn counts(client: &Client) -> Outcome<BTreeMap<String, i64>> {
    let query = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('pg_catalog', 'information_schema')";
    let mut counts = BTreeMap::new();
    for row in client.query(query, &[]).await? {
        let table: String = row.get(0);
        let count = client.query_one(&format!("SELECT count(*) FROM {table}"), &[]).await?.get(0);
        counts.insert(table, count);
    }
    Ok(counts)
}

async fn show(client: &Client, table: &str) -> Outcome<()> {
    let query = format!("SELECT jsonb_strip_nulls(to_jsonb(t))::text FROM {table} t LIMIT 20");
    client.query(&query, &[]).await?.iter().for_each(|row| say(&format!("  {}", row.get::<_, String>(0))));
    Ok(())
}
