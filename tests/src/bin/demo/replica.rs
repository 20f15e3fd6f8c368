//! The reporting replica: three DynamoDB tables and a bank change, reports follow; then everything is lost and restored.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use millstream_tests::dynamodb::export;
use millstream_tests::event_source::Progress;
use millstream_tests::kinesis::put;
use millstream_tests::postgresql::{Durability, PostgreSql, connect};
use millstream_tests::process::workspace;
use millstream_tests::replica::{BANK, BUCKET, Replica};
use millstream_tests::say;
use millstream_tests::shop::{Bank, Shop, TABLES};
use millstream_tests::system::{Reported, SystemResult};
use serde_json::json;
use tokio_postgres::Client;

use super::display::Display;
use super::{start_board, stay};

const CUSTOMERS: u64 = 200;
/// Changes of the shop's tables; the bank has as many.
const CHANGES: usize = 2_000;

/// The load, the loss and the restore.
pub async fn demo() -> SystemResult<ExitCode> {
    say("Starting a private PostgreSQL and local AWS services …");
    let server = PostgreSql::start("demo", Durability::Full)?;
    let folder = workspace().join("events/replica");
    let replica = Replica::start(&folder, server.database().await?).await?;
    let board = start_board(&folder, &replica.url)?;
    let client = connect(&replica.url).await?;
    // Functions with their text as a string can be created before the tables.
    client.batch_execute("SET check_function_bodies = off").await?;
    client.batch_execute(&std::fs::read_to_string(folder.join("report.sql"))?).await?;
    say(&format!(
        "{CHANGES} changes to three DynamoDB tables and {CHANGES} to a bank's accounts (through DMS), from empty tables."
    ));

    let progress = Progress::default();
    let mut bank = Bank::new(2026, CUSTOMERS);
    let (reported, manifests) = tokio::select! {
        both = async { tokio::join!(replica.consume(&progress), load(&replica, &mut bank, &progress)) } => (both.0?, both.1?),
        ended = watch(&client, &progress) => return ended.map(|()| ExitCode::FAILURE),
    };
    reports(&client).await.iter().for_each(|line| say(line));
    account(&reported);
    if !verified(&replica).await? || !bank_is_same(&client, &bank).await? {
        return Ok(ExitCode::FAILURE);
    }
    say("\nDropping all tables and restoring them: the export taken half-way, then the backup.");
    client.batch_execute("DROP SCHEMA shop CASCADE; DROP SCHEMA bank CASCADE; DROP SCHEMA millstream CASCADE").await?;
    restore(&replica, &manifests).await?;
    reports(&client).await.iter().for_each(|line| say(line));
    if !verified(&replica).await? || !bank_is_same(&client, &bank).await? {
        return Ok(ExitCode::FAILURE);
    }
    stay(&replica.url, "SELECT * FROM report.revenue()").await?;
    drop(board);
    Ok(ExitCode::SUCCESS)
}

/// Changes the sources and exports the shop's tables half-way; returns the exports' manifests.
async fn load(replica: &Replica, bank: &mut Bank, progress: &Progress) -> SystemResult<Vec<String>> {
    let mut shop = Shop::new(2026, CUSTOMERS);
    let mut manifests = Vec::new();
    put(&replica.aws, BANK, &[bank.table()]).await?;
    for number in 0..CHANGES {
        if number % 100 == 0 {
            let records: Vec<_> = (0..100).map(|_| bank.change()).collect();
            put(&replica.aws, BANK, &records).await?;
        }
        if number == CHANGES / 2 {
            for (table, _) in TABLES {
                manifests.push(export(&replica.aws, table, BUCKET, 4).await?);
            }
        }
        replica.change(shop.change()).await?;
    }
    progress.finish();
    Ok(manifests)
}

async fn watch(client: &Client, progress: &Progress) -> SystemResult<()> {
    let (since, mut display) = (Instant::now(), Display::new());
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status =
            format!("{:5.1} s   {} changes read from the streams", since.elapsed().as_secs_f64(), progress.read());
        display.draw(&reports(client).await, &status);
    }
}

/// The reports; empty while a source's tables do not exist yet.
async fn reports(client: &Client) -> Vec<String> {
    let mut lines = Vec::new();
    let reports = [
        (
            "revenue by tier",
            "SELECT tier, customers::text, orders::text, ordered::text, paid::text FROM report.revenue()",
        ),
        ("low stock", "SELECT sku, quantity::text, coalesce(warehouse, '') FROM report.low_stock(40) LIMIT 3"),
        ("overdrawn", "SELECT customer_id, balance::text, open_orders::text FROM report.overdrawn() LIMIT 3"),
    ];
    for (name, query) in reports {
        for row in client.query(query, &[]).await.unwrap_or_default() {
            let cells: String = (0..row.len()).map(|cell| format!(" {:>14}", row.get::<_, &str>(cell))).collect();
            lines.push(format!("{name:<16}{cells}"));
        }
    }
    lines
}

fn account(reported: &Reported) {
    let Reported { applied, duplicate, superseded, dead_lettered, control, rows, .. } = reported;
    say(&format!(
        "\n{} changes: {applied} applied, {superseded} superseded within their batch, {duplicate} duplicates, {control} control \
         records, {dead_lettered} dead letters; {rows} rows written or deleted",
        reported.records()
    ));
}

/// Compares every table with its replica and prints the result.
async fn verified(replica: &Replica) -> SystemResult<bool> {
    let mut same = true;
    for (table, _) in TABLES {
        let task = replica.backfill(&json!({"source": "shop", "verify": {"table": table}})).await?;
        match task.progress.differences {
            None => say(&format!("verify {table:<10} {:>5} items, no differences", task.progress.records)),
            Some(found) => {
                say(&format!("verify {table:<10} DIFFERS: {found:?}"));
                same = false;
            }
        }
    }
    Ok(same)
}

async fn bank_is_same(client: &Client, bank: &Bank) -> SystemResult<bool> {
    let rows = client.query("SELECT id::bigint, (balance * 100)::bigint FROM bank.account ORDER BY 1", &[]).await?;
    let found: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let expected: Vec<(i64, i64)> =
        bank.accounts.iter().map(|(id, cents)| (i64::try_from(*id).unwrap_or(0), *cents)).collect();
    say(&format!(
        "verify accounts   {:>5} rows, {}",
        found.len(),
        if found == expected { "no differences" } else { "DIFFERS" }
    ));
    Ok(found == expected)
}

async fn restore(replica: &Replica, manifests: &[String]) -> SystemResult<()> {
    for manifest in manifests {
        let since = Instant::now();
        let task = replica.backfill(&json!({"source": "shop", "export": {"manifest": manifest}})).await?;
        let progress = task.progress;
        say(&format!("full load         {:>5} items in {:.1} s", progress.records, since.elapsed().as_secs_f64()));
    }
    for source in ["shop", "bank"] {
        let since = Instant::now();
        let all = json!({"source": source, "reapply": {"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}});
        let progress = replica.backfill(&all).await?.progress;
        say(&format!("backup of {source:<8}{:>5} records in {:.1} s", progress.records, since.elapsed().as_secs_f64()));
    }
    Ok(())
}
