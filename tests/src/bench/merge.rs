//! Merging entities whose rows all exist, against a temporary table and `INSERT … ON CONFLICT`.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::line::Line;
use super::publish::lines;
use super::{BenchResult, TURNS, events, ingest, raw, run_events};
use crate::postgresql::{PostgreSql, connect};
use crate::random::Random;

const ROWS: usize = 20_000;
const BATCH: usize = 4_000;
/// Columns in addition to the key and the version.
const COLUMNS: usize = 16;

/// The whole invocation by row and by column.
pub async fn measure(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    Ok(vec![rule(server, "row", newest).await?, rule(server, "column", carried).await?])
}

async fn rule(server: &PostgreSql, merge: &str, set: fn(&str) -> String) -> BenchResult<Line> {
    let config = format!(
        "[source.bench]\nstream = \"bench\"\nformat = \"json\"\n[table.item]\nsource = \"bench\"\nkey = [\"id\"]\n\
         version = \"revision\"\nmerge = \"{merge}\"\n"
    );
    let changed = |revision| events(&documents(revision), BATCH);
    let (mut ours, mut others) = turns(server, &config, changed, set).await?;
    let what = format!("{}{merge}, all rows exist, against a temporary table and INSERT … ON CONFLICT", lines::MERGE);
    Ok(Line::ratio(&what, ROWS as u64, &mut ours, &mut others, Some(0.8)))
}

/// Changes every row of `bench.item`, alternately by the whole invocation and by hand-written SQL; returns Millstream's times
/// and the other's. `changed` returns the events that bring all rows to a revision, `set` a column's SET clause.
pub async fn turns(
    server: &PostgreSql,
    config: &str,
    changed: impl Fn(u64) -> Vec<Vec<u8>>,
    set: fn(&str) -> String,
) -> BenchResult<(Vec<Duration>, Vec<Duration>)> {
    let url = server.database().await?;
    let client = connect(&url).await?;
    let mut ingest = ingest(config, &url)?;
    run_events(&mut ingest, &changed(0)).await?;
    let (mut ours, mut others) = (Vec::new(), Vec::new());
    for turn in 1..=TURNS as u64 {
        let events = changed(2 * turn - 1);
        vacuum_and_checkpoint(&client).await?;
        let since = Instant::now();
        run_events(&mut ingest, &events).await?;
        ours.push(since.elapsed());
        // The same rows as they are now stored, changed once more by the raw statement.
        let exported = raw::export(&client, "bench", events.len()).await?;
        vacuum_and_checkpoint(&client).await?;
        let merge = |table: &str, columns: &str| upsert(table, columns, set);
        others.push(raw::through_temporary(&client, &exported, merge).await?);
    }
    Ok((ours, others))
}

/// Both sides start without dead rows and pay equally for the first change of each page after a checkpoint.
async fn vacuum_and_checkpoint(client: &Client) -> BenchResult<()> {
    client.batch_execute("VACUUM bench.item").await?;
    Ok(client.batch_execute("CHECKPOINT").await?)
}

/// The hand-written SQL: newer rows replace older ones.
fn upsert(table: &str, columns: &str, set: fn(&str) -> String) -> String {
    let set = columns.split(", ").filter(|column| *column != "id").map(set).collect::<Vec<_>>().join(", ");
    format!(
        "INSERT INTO {table} AS t ({columns}) SELECT {columns} FROM incoming ORDER BY id ON CONFLICT (id) DO UPDATE SET {set} \
         WHERE excluded.revision >= t.revision"
    )
}

/// A column takes the newer row's value, even if it is NULL.
pub fn newest(column: &str) -> String {
    format!("{column} = excluded.{column}")
}

/// A column takes the newer row's value unless it is NULL.
fn carried(column: &str) -> String {
    format!("{column} = coalesce(excluded.{column}, t.{column})")
}

/// Every entity once, in another order each time.
pub fn documents(revision: u64) -> Vec<Vec<u8>> {
    let mut random = Random::new(revision + 1);
    let mut documents: Vec<Vec<u8>> = (0..ROWS).map(|number| document(number, revision, &mut random)).collect();
    random.shuffle(&mut documents);
    documents
}

fn document(number: usize, revision: u64, random: &mut Random) -> Vec<u8> {
    let columns: Vec<String> = (0..COLUMNS)
        .map(|column| match column % 4 {
            0 => format!("\"amount{column}\":{}.{:02}", random.below(100_000), random.below(100)),
            1 => format!("\"flag{column}\":{}", random.per_mille(500)),
            _ => format!("\"text{column}\":\"{:016x}-{:08x}\"", random.number(), random.below(1 << 32)),
        })
        .collect();
    format!("{{\"id\":\"item-{number:08}\",\"revision\":{revision},{}}}", columns.join(",")).into_bytes()
}
