//! What a change log costs the writer: the same batches with and without one, in turns.

use std::time::{Duration, Instant};

use millstream::feed::{self, FeedSql, FeedState};
use millstream::ingest::Ingest;
use millstream::names::TableName;
use tokio_postgres::Client;

use super::append::{self, track_events};
use super::line::Line;
use super::{BenchResult, TURNS, events, ingest, merge, raw, run_events};
use crate::postgresql::{PostgreSql, connect};

const SCHEMA: &str = "bench";
/// Lambda's batch.
const BATCH: usize = 4_000;
/// How often a lock is tried; nobody else is here.
const ATTEMPTS: u32 = 10;

/// A writer with its database.
struct Side {
    client: Client,
    ingest: Ingest,
    logs: Vec<String>,
}

impl Side {
    /// Writes the first events, which create the tables.
    async fn start(server: &PostgreSql, config: &str, first: &[Vec<u8>]) -> BenchResult<Self> {
        let url = server.database().await?;
        let mut side = Self { client: connect(&url).await?, ingest: ingest(config, &url)?, logs: Vec::new() };
        run_events(&mut side.ingest, first).await?;
        Ok(side)
    }

    /// Gives every table a change log.
    async fn with_logs(mut self) -> BenchResult<Self> {
        let tables = "SELECT relname::text FROM pg_class WHERE relnamespace = 'bench'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition";
        for row in self.client.query(tables, &[]).await? {
            let table = TableName::from_catalog(SCHEMA, row.get(0));
            match feed::ensure(&self.client, &table, ATTEMPTS).await? {
                FeedState::Ready { .. } => self.logs.push(FeedSql::new(&table).log()),
                FeedState::Waiting { reason } => return Err(reason.into()),
            }
        }
        Ok(self)
    }

    /// Writes events; returns how many rows they were, and how long it took.
    async fn write(&mut self, events: &[Vec<u8>]) -> BenchResult<(u64, Duration)> {
        for log in &self.logs {
            self.client.batch_execute(&format!("TRUNCATE {log}")).await?;
        }
        self.client.batch_execute("CHECKPOINT").await?;
        let since = Instant::now();
        let rows = run_events(&mut self.ingest, events).await?;
        Ok((rows, since.elapsed()))
    }
}

/// Appending and merging, with a log against without one.
pub async fn measure(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    Ok(vec![appending(server).await?, merging(server).await?])
}

async fn appending(server: &PostgreSql) -> BenchResult<Line> {
    let events = events(&track_events(20 * BATCH), BATCH);
    let mut plain = Side::start(server, append::CONFIG, &events).await?;
    let mut logged = Side::start(server, append::CONFIG, &events).await?.with_logs().await?;
    let (mut with, mut without, mut rows) = (Vec::new(), Vec::new(), 0);
    for _ in 0..TURNS {
        for (side, times) in [(&mut plain, &mut without), (&mut logged, &mut with)] {
            raw::truncate(&side.client, SCHEMA).await?;
            let (count, time) = side.write(&events).await?;
            rows = count;
            times.push(time);
        }
    }
    Ok(Line::ratio(
        "append with change logs, batches of 4,000, against the same without",
        rows,
        &mut with,
        &mut without,
        Some(0.9),
    ))
}

async fn merging(server: &PostgreSql) -> BenchResult<Line> {
    let config = "[source.bench]\nstream = \"bench\"\nformat = \"json\"\n[table.item]\nsource = \"bench\"\nkey = [\"id\"]\nversion = \"revision\"\n";
    let changed = |revision| events(&merge::documents(revision), BATCH);
    let mut plain = Side::start(server, config, &changed(0)).await?;
    let mut logged = Side::start(server, config, &changed(0)).await?.with_logs().await?;
    let (mut with, mut without, mut rows) = (Vec::new(), Vec::new(), 0);
    for turn in 1..=TURNS as u64 {
        let events = changed(turn);
        for (side, times) in [(&mut plain, &mut without), (&mut logged, &mut with)] {
            side.client.batch_execute("VACUUM bench.item").await?;
            let (count, time) = side.write(&events).await?;
            rows = count;
            times.push(time);
        }
    }
    let what = "merge by row with a change log, all rows exist, batches of 4,000, against the same without";
    Ok(Line::ratio(what, rows, &mut with, &mut without, Some(0.9)))
}
