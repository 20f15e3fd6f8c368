//! What the benchmark measures, and how.
//!
//! Every figure is compared with a raw counterpart that writes the same rows, already decoded, over one
//! connection into the same tables. The two alternate several times from the same state; ratios are of the medians.

mod append;
mod feed;
mod line;
mod machine;
mod memory;
mod merge;
pub mod process;
mod publish;
mod raw;
mod replica;
mod scale;
mod totals;

use std::error::Error;
use std::time::Duration;

use millstream::aws::Aws;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::dead_letter::DeadLetters;
use millstream::ingest::Ingest;

use crate::kinesis::{ShardRecord, event};
use crate::postgresql::{Durability, PostgreSql};
use crate::process::workspace;
use crate::say;
use line::Line;
use machine::Machine;

/// The result of any part of the benchmark.
pub type BenchResult<T> = Result<T, Box<dyn Error>>;

/// The number of runs of each side.
const TURNS: usize = 5;

/// The median.
pub fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The parts, in the order of the table.
const PARTS: [&str; 11] =
    ["append", "sizes", "duplicates", "merge", "replica", "export", "process", "memory", "scale", "totals", "feed"];

/// Runs all parts, prints the table and publishes it; with an argument, runs and prints only the parts whose name contains it.
///
/// # Errors
/// Returns an error if a page is not ready for the results, no part has such a name, or a part cannot be measured.
pub async fn run() -> BenchResult<()> {
    let selection = std::env::args().nth(1).unwrap_or_default();
    let parts: Vec<&str> = PARTS.into_iter().filter(|part| part.contains(&selection)).collect();
    if parts.is_empty() {
        return Err(format!("no part of the benchmark is called {selection}; parts: {}", PARTS.join(", ")).into());
    }
    if selection.is_empty() {
        publish::check(&workspace())?;
    }
    let server = PostgreSql::start("bench", Durability::Full)?;
    let machine = Machine::read(&server).await?;
    say(&format!("{machine}\n\n{}", publish::HEAD));
    let mut results = Vec::new();
    for part in parts {
        // Boxed, because nesting is close to the compiler's limit.
        let measured = Box::pin(measure(part, &server)).await?;
        measured.iter().for_each(|line| say(&line.to_string()));
        results.extend(measured);
    }
    if selection.is_empty() {
        publish::publish(&workspace(), &machine, &results)?;
        say("\nThe results were written to docs/benchmarks.md and README.md.");
    }
    Ok(())
}

async fn measure(part: &str, server: &PostgreSql) -> BenchResult<Vec<Line>> {
    match part {
        "append" => append::measure(server).await,
        "sizes" => append::sizes(server).await,
        "duplicates" => append::duplicates(server).await,
        "merge" => merge::measure(server).await,
        "replica" => replica::measure(server).await,
        "export" => replica::export(server).await,
        "process" => process::measure(server).await,
        "memory" => memory::measure(server).await,
        "totals" => totals::measure(server).await,
        "feed" => feed::measure(server).await,
        _ => scale::measure(server).await,
    }
}

/// An ingest in this process.
pub fn ingest(config: &str, url: &str) -> BenchResult<Ingest> {
    let aws = Aws::default();
    let database = Database::new(&DatabaseAddress::from_url(url), aws.clone())?;
    Ok(Ingest::new(
        Config::parse("bench.toml", config)?,
        database,
        DeadLetters::new(aws, None, None, "bench".to_owned()),
    ))
}

/// The events of one shard, in batches of a size.
pub fn events(documents: &[Vec<u8>], batch_size: usize) -> Vec<Vec<u8>> {
    let records: Vec<_> =
        (1..).zip(documents).map(|(number, data)| ShardRecord::numbered(number, data.clone())).collect();
    records.chunks(batch_size).map(|batch| event("bench", "shardId-000000000000", batch)).collect()
}

/// Ingests events as Lambda delivers them: bytes in, committed rows out. Returns the number of rows written.
pub async fn run_events(ingest: &mut Ingest, events: &[Vec<u8>]) -> BenchResult<u64> {
    let mut rows = 0;
    for event in events {
        let report = ingest.process_event(event, Duration::from_secs(600)).await?;
        if report.counts.retry > 0 {
            return Err(format!("records were rejected: {report}").into());
        }
        rows += report.rows;
    }
    Ok(rows)
}
