//! Appending events: against raw COPY, in batches of several sizes, and when everything is already stored.

use std::time::{Duration, Instant};

use millstream::timestamp::Timestamp;

use super::line::{Line, grouped};
use super::machine::thread_cpu;
use super::publish::lines;
use super::{BenchResult, TURNS, events, ingest, raw, run_events};
use crate::postgresql::{PostgreSql, connect};
use crate::sportsbook::{Mixture, evening};

/// Segment events, each in two tables: `tracks` and the event's own.
pub const CONFIG: &str = "[source.bench]\nstream = \"bench\"\n";
const SCHEMA: &str = "bench";

/// Track events of a sportsbook's evening, about 700 bytes each.
pub fn track_events(count: usize) -> Vec<Vec<u8>> {
    let now = Timestamp::parse("2026-02-09T01:00:00Z").unwrap_or(Timestamp(0));
    let records = evening(count * 2, 7, Mixture::CLEAN, now).records;
    let track = |data: &Vec<u8>| data.windows(14).any(|window| window == b"\"type\":\"track\"");
    records.into_iter().map(|(_, data)| data).filter(track).take(count).collect()
}

/// The whole invocation against raw COPY of the same rows, at Lambda's batch of 4,000.
pub async fn measure(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    const BATCH: usize = 4_000;
    let documents = track_events(20 * BATCH);
    let bytes = documents.iter().map(Vec::len).sum::<usize>() / documents.len();
    let Turns { mut ours, mut raw, rows, cpu } = turns(server, &documents, BATCH).await?;
    let per_event = cpu.as_secs_f64() * 1e6 / documents.len() as f64;
    Ok(vec![
        Line::ratio(&format!("{}, against COPY (text)", lines::APPEND), rows, &mut ours, &mut raw, Some(0.9)),
        Line::at_most(&format!("client CPU per event of {bytes} bytes, two rows per event"), per_event, "µs", 5.0),
    ])
}

/// The same in smaller batches.
pub async fn sizes(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    let mut measured = Vec::new();
    for (size, count) in [(1, 400), (10, 2_000), (100, 10_000), (1_000, 40_000)] {
        let Turns { mut ours, mut raw, rows, .. } = turns(server, &track_events(count), size).await?;
        let what = format!("{}{}", lines::APPEND_SIZE, grouped(size as f64));
        measured.push(Line::ratio(&what, rows, &mut ours, &mut raw, None));
    }
    Ok(measured)
}

struct Turns {
    ours: Vec<Duration>,
    raw: Vec<Duration>,
    rows: u64,
    /// The client's CPU time, the minimum of all runs: the rest is noise.
    cpu: Duration,
}

async fn turns(server: &PostgreSql, documents: &[Vec<u8>], batch: usize) -> BenchResult<Turns> {
    let url = server.database().await?;
    let client = connect(&url).await?;
    let mut ingest = ingest(CONFIG, &url)?;
    let events = events(documents, batch);
    let rows = run_events(&mut ingest, &events).await?;
    let exported = raw::export(&client, SCHEMA, events.len()).await?;
    let mut turns = Turns { ours: Vec::new(), raw: Vec::new(), rows, cpu: Duration::MAX };
    for _ in 0..TURNS {
        raw::truncate(&client, SCHEMA).await?;
        turns.raw.push(raw::copy(&client, &exported).await?);
        raw::truncate(&client, SCHEMA).await?;
        let (since, cpu) = (Instant::now(), thread_cpu());
        run_events(&mut ingest, &events).await?;
        turns.ours.push(since.elapsed());
        turns.cpu = turns.cpu.min(thread_cpu() - cpu);
    }
    Ok(turns)
}

/// Everything delivered a second time: against a temporary table and an insert of the missing rows.
pub async fn duplicates(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    let url = server.database().await?;
    let client = connect(&url).await?;
    let mut ingest = ingest(CONFIG, &url)?;
    let events = events(&track_events(40_000), 4_000);
    let rows = run_events(&mut ingest, &events).await?;
    let exported = raw::export(&client, SCHEMA, events.len()).await?;
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        let insert = |table: &str, columns: &str| {
            format!(
                "INSERT INTO {table} ({columns}) SELECT {columns} FROM incoming i WHERE NOT EXISTS \
                 (SELECT FROM {table} t WHERE t.id = i.id AND t.received_at = i.received_at)"
            )
        };
        others.push(raw::through_temporary(&client, &exported, insert).await?);
        let since = Instant::now();
        run_events(&mut ingest, &events).await?;
        ours.push(since.elapsed());
    }
    let what = "all duplicates, batches of 4,000, against a temporary table and INSERT … WHERE NOT EXISTS";
    Ok(vec![Line::ratio(what, rows, &mut ours, &mut others, Some(0.9))])
}
