//! A Super Bowl evening at the sportsbook.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use millstream::clock::now;
use millstream_tests::event_source::Progress;
use millstream_tests::postgresql::{Durability, PostgreSql};
use millstream_tests::process::workspace;
use millstream_tests::say;
use millstream_tests::sportsbook::{Mixture, evening};
use millstream_tests::system::{Account, System, SystemResult};
use millstream_tests::totals::Falsification;
use tokio_postgres::Client;

use super::display::Display;
use super::heal::heal;
use super::{start_board, stay};

const EVENTS: usize = 100_000;
const SHARDS: usize = 4;

/// Runs the evening, from its first bet to the final account.
pub async fn demo() -> SystemResult<ExitCode> {
    say("Starting a private PostgreSQL and local AWS services …");
    let server = PostgreSql::start("demo", Durability::Full)?;
    let folder = workspace().join("events/sportsbook");
    let system = System::start(&folder, "sportsbook", SHARDS, server.database().await?).await?;
    let board = start_board(&folder, &system.url)?;
    let client = system.client().await?;
    client.batch_execute(&std::fs::read_to_string(folder.join("report.sql"))?).await?;
    let evening = evening(EVENTS, 2026, Mixture::EVENING, now());
    say(&format!(
        "Sending {} events of a Super Bowl evening to a stream with {SHARDS} shards.",
        evening.expected.records
    ));

    let progress = Progress::default();
    let account = tokio::select! {
        account = system.run(&evening.records, &progress) => account?,
        ended = watch(&client, &progress, evening.records.len()) => return ended.map(|()| ExitCode::FAILURE),
    };
    totals(&client).await.iter().for_each(|line| say(line));
    print_account(&account, &client).await?;
    let mistakes = account.mistakes();
    mistakes.iter().for_each(|mistake| say(&format!("The counts do not match: {mistake}")));
    let staked = Falsification { figure: "staked", amount: 1_000_000, condition: "game_id = 'superbowl-winner'" };
    let healed = heal((&client, &system.url), &folder, staked, async || winner(&client).await).await?;
    if !healed || !mistakes.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    stay(&system.url, "SELECT * FROM sportsbook.betting_totals()").await?;
    drop(board);
    Ok(ExitCode::SUCCESS)
}

/// Shows the progress every second.
async fn watch(client: &Client, progress: &Progress, records: usize) -> SystemResult<()> {
    let (since, mut before, mut display) = (Instant::now(), 0, Display::new());
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let totals = totals(client).await;
        let committed = committed(client).await;
        let waiting = progress.read().saturating_sub(committed);
        let status = format!(
            "{:5.1} s  {committed:>6} of {records} events  {:>6}/s  {waiting:>5} in flight  newest {}",
            since.elapsed().as_secs_f64(),
            committed.saturating_sub(before),
            lag(client).await,
        );
        display.draw(&totals, &status);
        before = committed;
    }
}

/// The number of events in the database; 0 while the tables are being created.
async fn committed(client: &Client) -> u64 {
    let query = "SELECT (SELECT count(*) FROM sportsbook.tracks) + (SELECT count(*) FROM sportsbook.pages) \
                 + (SELECT count(*) FROM sportsbook.identifies)";
    client.query_one(query, &[]).await.map_or(0, |row| u64::try_from(row.get::<_, i64>(0)).unwrap_or(0))
}

async fn lag(client: &Client) -> String {
    let query = "SELECT round(extract(epoch FROM clock_timestamp() - max(uuid_ts)), 1)::text || ' s ago' FROM sportsbook.tracks";
    let row = client.query_one(query, &[]).await.ok();
    row.and_then(|row| row.get::<_, Option<String>>(0)).unwrap_or_else(|| "none yet".to_owned())
}

/// The totals as a table; before the first bet, a line that says so.
async fn totals(client: &Client) -> Vec<String> {
    let query = "SELECT coalesce(game_id, '?'), coalesce(side, '?'), bets::text, coalesce(round(staked, 2), 0)::text, \
                 coalesce(round(open_liability, 2), 0)::text, coalesce(round(paid, 2), 0)::text FROM sportsbook.betting_totals()";
    // As wide as a terminal of 80 columns.
    let Ok(rows) = client.query(query, &[]).await else { return vec!["(no bets yet)".to_owned()] };
    let line = |cells: [&str; 6]| {
        let [game, side, bets, staked, liability, paid] = cells;
        format!("{game:<22} {side:<10} {bets:>6} {staked:>11} {liability:>14} {paid:>11}")
    };
    let head = line(["game", "side", "bets", "staked", "open liability", "paid"]);
    let lines = rows.iter().map(|row| line(std::array::from_fn(|index| row.get(index))));
    [String::new(), head].into_iter().chain(lines).collect()
}

/// The totals of the game that is falsified.
async fn winner(client: &Client) -> Vec<String> {
    let totals = totals(client).await;
    totals
        .into_iter()
        .skip(1)
        .filter(|line| line.starts_with("game ") || line.starts_with("superbowl-winner "))
        .collect()
}

async fn print_account(account: &Account, client: &Client) -> SystemResult<()> {
    let Account { put, reported, dead_letters, time, failed, .. } = account;
    let written = committed(client).await;
    let bets: i64 = client.query_one("SELECT count(*) FROM sportsbook.bet", &[]).await?.get(0);
    say("\nSummary");
    let line = |what: &str, figure: String| say(&format!("  {what:<34} {figure:>12}"));
    line("events sent to the stream", put.to_string());
    line("  in the database", reported.applied.to_string());
    line("  duplicates", reported.duplicate.to_string());
    line("  superseded by newer changes", reported.superseded.to_string());
    line("  expired", reported.expired.to_string());
    line("  dead letters", reported.dead_lettered.to_string());
    dead_letters.iter().for_each(|(class, count)| line(&format!("    {class}"), count.to_string()));
    line("rows inserted and updated", reported.rows.to_string());
    line("  events, one row each", written.to_string());
    line("  bets, one row each", bets.to_string());
    line("seconds, sending included", format!("{:.1}", time.as_secs_f64()));
    line("events per second", format!("{:.0}", *put as f64 / time.as_secs_f64()));
    if cfg!(debug_assertions) {
        say("  (not an optimised build: `make bench` measures one)");
    }
    line("invocations", account.invocations.len().to_string());
    line("  failed and retried", failed.to_string());
    line(
        "  p50 / p99 in ms",
        format!("{} / {}", account.percentile(50).as_millis(), account.percentile(99).as_millis()),
    );
    Ok(())
}
