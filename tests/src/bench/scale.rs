//! Whether many partitions, or many rows, slow the writer down.

use std::time::{Duration, Instant};

use super::append::{CONFIG, track_events};
use super::line::Line;
use super::{BenchResult, TURNS, events, ingest, median, run_events};
use crate::postgresql::{PostgreSql, connect};

const EVENTS: usize = 20_000;
const BATCH: usize = 4_000;

/// One partition against a thousand, and an empty table against ten million rows.
pub async fn measure(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    let mut small = time(server, &[]).await?;
    let mut many = time(server, MANY_PARTITIONS).await?;
    let mut large = time(server, MANY_ROWS).await?;
    let small = median(&mut small).as_secs_f64();
    let slower =
        |what: &str, times: &mut Vec<Duration>| Line::at_most(what, median(times).as_secs_f64() / small, "×", 1.2);
    Ok(vec![
        slower("time with 1,000 partitions per table, relative to 1", &mut many),
        slower("time with 10 million rows per table, relative to none", &mut large),
    ])
}

/// A thousand days before the evening, in each of the tables.
const MANY_PARTITIONS: &[&str] = &["
    DO $$ DECLARE parent record; day date; BEGIN
        FOR parent IN SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                      WHERE n.nspname = 'bench' AND c.relkind = 'p' LOOP
            FOR day IN SELECT generate_series('2026-02-07'::date - 998, '2026-02-07'::date, '1 day') LOOP
                EXECUTE format('CREATE TABLE bench.%I PARTITION OF bench.%I (PRIMARY KEY (id)) FOR VALUES FROM (%L) TO (%L)',
                    parent.relname || to_char(day, '_YYYYMMDD'), parent.relname, day || ' 00:00:00Z', (day + 1) || ' 00:00:00Z');
            END LOOP;
            COMMIT;
        END LOOP;
    END $$"];

/// Ten million events of the same day, with ids like the evening's.
const MANY_ROWS: &[&str] = &[
    "INSERT INTO bench.tracks (id, received_at, event)
     SELECT 'ajs-' || gen_random_uuid(), '2026-02-09T00:30:00Z', 'earlier' FROM generate_series(1, 10000000)",
    "INSERT INTO bench.bet_placed (id, received_at, event)
     SELECT 'ajs-' || gen_random_uuid(), '2026-02-09T00:30:00Z', 'earlier' FROM generate_series(1, 10000000)",
    "VACUUM (ANALYZE, FREEZE) bench.tracks",
    "VACUUM (ANALYZE, FREEZE) bench.bet_placed",
    "CHECKPOINT",
];

/// How long the same events take after the tables were prepared.
async fn time(server: &PostgreSql, prepare: &[&str]) -> BenchResult<Vec<Duration>> {
    let url = server.database().await?;
    let client = connect(&url).await?;
    // A first event of each kind creates the tables; it is not counted.
    run_events(&mut ingest(CONFIG, &url)?, &events(&track_events(200), 200)).await?;
    for statement in prepare {
        client.batch_execute(statement).await?;
    }
    let mut ingest = ingest(CONFIG, &url)?;
    let mut times = Vec::new();
    for turn in 0..TURNS {
        let documents = track_events(EVENTS * (turn + 1)).split_off(EVENTS * turn);
        let events = events(&documents, BATCH);
        let since = Instant::now();
        run_events(&mut ingest, &events).await?;
        times.push(since.elapsed());
    }
    Ok(times)
}
