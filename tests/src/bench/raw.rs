//! The raw counterparts: what a script for `psql` would do with the same rows, already decoded.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, pin_mut};
use tokio_postgres::Client;

use super::BenchResult;

/// One table's rows as COPY's text format, cut into as many parts as there were batches.
pub struct Exported {
    table: String,
    columns: String,
    parts: Vec<Bytes>,
}

/// The tables of a schema as COPY would name them: partitioned parents and plain tables, without partitions.
pub async fn tables(client: &Client, schema: &str) -> BenchResult<Vec<String>> {
    let query = "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
                 WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1";
    Ok(client.query(query, &[&schema]).await?.iter().map(|row| row.get(0)).collect())
}

/// Exports the rows of all tables of a schema, in their physical order.
pub async fn export(client: &Client, schema: &str, batches: usize) -> BenchResult<Vec<Exported>> {
    let mut exported = Vec::new();
    for table in tables(client, schema).await? {
        let columns = columns(client, &table).await?;
        let stream = client.copy_out(&format!("COPY (SELECT {columns} FROM {table}) TO STDOUT")).await?;
        pin_mut!(stream);
        let mut lines = Vec::new();
        while let Some(chunk) = stream.next().await {
            lines.push(chunk?);
        }
        let size = lines.len().div_ceil(batches).max(1);
        let parts = lines.chunks(size).map(|part| Bytes::from(part.concat())).collect();
        exported.push(Exported { table, columns, parts });
    }
    Ok(exported)
}

async fn columns(client: &Client, table: &str) -> BenchResult<String> {
    let query = "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute \
                 WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped AND attname <> 'uuid_ts'";
    Ok(client.query_one(query, &[&table]).await?.get(0))
}

/// Empties all tables of a schema.
pub async fn truncate(client: &Client, schema: &str) -> BenchResult<()> {
    let list = tables(client, schema).await?.join(", ");
    Ok(client.batch_execute(&format!("TRUNCATE {list}; CHECKPOINT")).await?)
}

/// Copies everything back, one transaction per batch; returns the time.
pub async fn copy(client: &Client, exported: &[Exported]) -> BenchResult<Duration> {
    let since = Instant::now();
    let batches = exported.iter().map(|table| table.parts.len()).max().unwrap_or(0);
    for batch in 0..batches {
        client.batch_execute("BEGIN").await?;
        for table in exported {
            if let Some(part) = table.parts.get(batch) {
                copy_in(client, &format!("{} ({})", table.table, table.columns), part).await?;
            }
        }
        client.batch_execute("COMMIT").await?;
    }
    Ok(since.elapsed())
}

/// Writes every batch through a temporary table with one statement per table; returns the time.
pub async fn through_temporary(
    client: &Client,
    exported: &[Exported],
    merge: impl Fn(&str, &str) -> String,
) -> BenchResult<Duration> {
    let since = Instant::now();
    let batches = exported.iter().map(|table| table.parts.len()).max().unwrap_or(0);
    for batch in 0..batches {
        client.batch_execute("BEGIN").await?;
        for table in exported {
            let Some(part) = table.parts.get(batch) else { continue };
            let make = format!(
                "CREATE TEMPORARY TABLE incoming ON COMMIT DROP AS SELECT {} FROM {} LIMIT 0",
                table.columns, table.table
            );
            client.batch_execute(&make).await?;
            copy_in(client, "incoming", part).await?;
            client.batch_execute(&merge(&table.table, &table.columns)).await?;
            client.batch_execute("DROP TABLE incoming").await?;
        }
        client.batch_execute("COMMIT").await?;
    }
    Ok(since.elapsed())
}

/// psql sends what it reads from a file in pieces of this size.
const PIECE_BYTES: usize = 64 * 1024;

async fn copy_in(client: &Client, target: &str, part: &Bytes) -> BenchResult<()> {
    let sink = client.copy_in::<_, Bytes>(&format!("COPY {target} FROM STDIN")).await?;
    pin_mut!(sink);
    let mut rest = part.clone();
    while !rest.is_empty() {
        sink.send(rest.split_to(rest.len().min(PIECE_BYTES))).await?;
    }
    sink.finish().await?;
    Ok(())
}
