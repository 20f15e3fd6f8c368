//! What the bench measures, and how.
//!
//! Every figure of ours stands against a raw counterpart that writes the very same rows, already decoded, over one
//! connection into the same tables. The two take turns, several times, from the same state; ratios are of the medians.

mod append;
mod machine;
mod merge;
mod process;
mod raw;
mod replica;
mod scale;

use std::error::Error;
use std::time::Duration;

use millstream::aws::Aws;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::dead_letter::DeadLetters;
use millstream::ingest::Ingest;

use crate::kinesis::{ShardRecord, event};
use crate::postgresql::{Durability, PostgreSql};
use crate::say;

/// What any part of the bench may end with.
pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Turns of each side.
const TURNS: usize = 5;

/// One line of the table.
pub struct Line {
    /// What was measured.
    pub what: String,
    /// The figure.
    pub figure: String,
    /// What it is to be, and whether it is.
    pub target: String,
}

impl Line {
    /// A rate and its ratio to the raw counterpart's.
    pub fn ratio(what: &str, rows: u64, ours: &mut [Duration], raw: &mut [Duration], target: Option<f64>) -> Self {
        let (ours, raw) = (median(ours), median(raw));
        let rate = |time: Duration| rows as f64 / time.as_secs_f64();
        let ratio = raw.as_secs_f64() / ours.as_secs_f64();
        let figure = format!("{:.0} rows/s; raw {:.0} rows/s; ratio {ratio:.2}", rate(ours), rate(raw));
        let met = |target: f64| format!("≥ {target} {}", if ratio >= target { "✓" } else { "✗" });
        Self { what: what.to_owned(), figure, target: target.map(met).unwrap_or_default() }
    }

    /// A figure that is to stay below a limit.
    pub fn at_most(what: &str, value: f64, unit: &str, limit: f64) -> Self {
        let mark = if value <= limit { "✓" } else { "✗" };
        Self {
            what: what.to_owned(), figure: format!("{value:.1} {unit}"), target: format!("≤ {limit} {unit} {mark}")
        }
    }
}

/// The middle one.
pub fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// Runs the parts that are asked for and prints the table.
///
/// # Errors
/// Whatever keeps a part from being measured.
pub async fn run() -> Outcome<()> {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    let server = PostgreSql::start("bench", Durability::Full)?;
    say(&machine::describe());
    say("| what | figure | target |\n|---|---|---|");
    for part in ["append", "sizes", "duplicates", "merge", "replica", "export", "process", "scale"] {
        if !wanted.is_empty() && !part.contains(&wanted) {
            continue;
        }
        let measured = match part {
            "append" => append::measure(&server).await?,
            "sizes" => append::sizes(&server).await?,
            "duplicates" => append::duplicates(&server).await?,
            "merge" => merge::measure(&server).await?,
            "replica" => replica::measure(&server).await?,
            "export" => replica::export(&server).await?,
            "process" => process::measure(&server).await?,
            _ => scale::measure(&server).await?,
        };
        measured.iter().for_each(|line| say(&format!("| {} | {} | {} |", line.what, line.figure, line.target)));
    }
    Ok(())
}

/// An ingest in this process.
pub fn ingest(config: &str, url: &str) -> Outcome<Ingest> {
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

/// Ingests events as Lambda would hand them over: bytes in, committed rows out. How many rows were written.
pub async fn run_events(ingest: &mut Ingest, events: &[Vec<u8>]) -> Outcome<u64> {
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
