//! A day on the market: trades are summed into holdings, and each user gets the news about the companies that weigh in them.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use millstream::clock::now;
use millstream_tests::event_source::Progress;
use millstream_tests::portfolio::{Expected, Market, MarketDay, STREAMS, market_day};
use millstream_tests::postgresql::{Durability, PostgreSql};
use millstream_tests::process::workspace;
use millstream_tests::say;
use millstream_tests::system::{Account, System, SystemResult};
use millstream_tests::totals::Falsification;
use tokio_postgres::Client;

use super::display::Display;
use super::heal::heal;
use super::{start_board, stay};

const RECORDS: usize = 60_000;
const MARKET: Market = Market { users: 200, companies: 40, duplicates: 10, late: 10 };
/// Shards of each stream.
const SHARDS: [usize; 3] = [2, 1, 1];

/// The user whose report is displayed, and the threshold of that user and the others, in thousandths.
const READER: &str = "user-7";
const OWN_THRESHOLD: i64 = 60;
const DEFAULT_THRESHOLD: i64 = 100;

/// The day, from the opening to the closing of the market.
pub async fn demo() -> SystemResult<ExitCode> {
    say("Starting a private PostgreSQL and local AWS services …");
    let server = PostgreSql::start("demo", Durability::Full)?;
    let folder = workspace().join("events/portfolio");
    let streams: [(&str, usize); 3] = std::array::from_fn(|index| (STREAMS[index], SHARDS[index]));
    let system = System::start_all(&folder, &streams, server.database().await?).await?;
    let board = start_board(&folder, &system.url)?;
    say(&format!("  the page of {READER}: sign in with {}", board.user_token(READER)));
    let client = system.client().await?;
    client.batch_execute(&std::fs::read_to_string(folder.join("report.sql"))?).await?;
    let threshold = format!("INSERT INTO portfolio.threshold VALUES ('{READER}', {OWN_THRESHOLD} / 1000.0)");
    client.batch_execute(&threshold).await?;
    let day = market_day(RECORDS, 2026, MARKET, now());
    say(&format!(
        "Sending {} trades, {} prices and {} news items of {} users and {} companies to three streams.",
        day.trades.len(),
        day.prices.len(),
        day.stories.len(),
        MARKET.users,
        MARKET.companies
    ));
    say(&format!(
        "{READER} gets the news about companies that weigh more than {} % in the portfolio; the default is {} %.",
        OWN_THRESHOLD / 10,
        DEFAULT_THRESHOLD / 10
    ));

    let (progress, inputs) = (Progress::default(), day.streams());
    let account = tokio::select! {
        account = system.run_all(&inputs, &progress) => account?,
        ended = watch(&client, &progress, day.records()) => return ended.map(|()| ExitCode::FAILURE),
    };
    report(&client).await.iter().for_each(|line| say(line));
    let mut mistakes = account.mistakes();
    mistakes.extend(differences(&client, &day.expected).await?);
    print_account(&account, &day, &client).await?;
    mistakes.iter().for_each(|mistake| say(&format!("The figures do not match: {mistake}")));
    let condition = format!("user_id = '{READER}' AND shares > 0");
    let shares = Falsification { figure: "shares", amount: 100_000, condition: &condition };
    let healed = heal((&client, &system.url), &folder, shares, async || holdings(&client).await).await?;
    mistakes.extend(differences(&client, &day.expected).await?);
    if !healed || !mistakes.is_empty() {
        return Ok(ExitCode::FAILURE);
    }
    stay(&system.url, &format!("SELECT * FROM portfolio.news_for($${READER}$$)")).await?;
    drop(board);
    Ok(ExitCode::SUCCESS)
}

/// Shows the progress every second.
async fn watch(client: &Client, progress: &Progress, records: usize) -> SystemResult<()> {
    let (since, mut display) = (Instant::now(), Display::new());
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let status = format!(
            "{:5.1} s  {:>6} of {records} records read  from arrival to commit: {}",
            since.elapsed().as_secs_f64(),
            progress.read(),
            lag(client).await
        );
        display.draw(&report(client).await, &status);
    }
}

/// How long the oldest record of the last batches had waited, over all streams.
async fn lag(client: &Client) -> String {
    let query =
        "SELECT round(extract(epoch FROM max(committed_at - arrived_at)), 1)::text || ' s' FROM millstream.freshness";
    let row = client.query_one(query, &[]).await.ok();
    row.and_then(|row| row.get::<_, Option<String>>(0)).unwrap_or_else(|| "none yet".to_owned())
}

/// A user's greatest holdings and latest news.
async fn report(client: &Client) -> Vec<String> {
    let mut lines = holdings(client).await;
    let query =
        "SELECT to_char(published_at AT TIME ZONE 'UTC', 'HH24:MI:SS'), headline FROM portfolio.news_for($1) LIMIT 4";
    for row in client.query(query, &[&READER]).await.unwrap_or_default() {
        lines.push(format!("{} {}", row.get::<_, &str>(0), row.get::<_, &str>(1)));
    }
    lines
}

/// A user's greatest holdings; before the first trade and price, a line that says so.
async fn holdings(client: &Client) -> Vec<String> {
    let query = "SELECT company, round(shares)::text, coalesce(round(price, 2)::text, ''), \
                 coalesce(round(value, 2)::text, ''), coalesce(round(100 * weight, 1)::text || ' %', '') \
                 FROM portfolio.holdings($1) LIMIT 4";
    let Ok(rows) = client.query(query, &[&READER]).await else { return vec!["(no trades yet)".to_owned()] };
    let line = |cells: [&str; 5]| {
        let [company, shares, price, value, weight] = cells;
        format!("{company:<14} {shares:>8} {price:>10} {value:>14} {weight:>8}")
    };
    let head = line([READER, "shares", "price", "value", "weight"]);
    let lines = rows.iter().map(|row| line(std::array::from_fn(|index| row.get(index))));
    [String::new(), head].into_iter().chain(lines).collect()
}

/// Where the database differs from what follows from the events.
async fn differences(client: &Client, expected: &Expected) -> SystemResult<Vec<String>> {
    let mut differences = Vec::new();
    let rows = client.query("SELECT user_id, company, shares::bigint FROM portfolio.holdings", &[]).await?;
    let shares: BTreeMap<(String, String), i64> =
        rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
    if shares != expected.shares {
        differences.push("holdings".to_owned());
    }
    let mut reports: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let query = "SELECT user_id, headline FROM portfolio.news_for_all('-infinity')";
    for row in client.query(query, &[]).await? {
        reports.entry(row.get(0)).or_default().push(row.get(1));
    }
    for user in (0..MARKET.users).map(|number| format!("user-{number}")) {
        let threshold = if user == READER { OWN_THRESHOLD } else { DEFAULT_THRESHOLD };
        let mut found = reports.remove(&user).unwrap_or_default();
        found.sort();
        if found != expected.report(&user, threshold) {
            differences.push(format!("the news for {user}"));
        }
    }
    Ok(differences)
}

async fn print_account(account: &Account, day: &MarketDay, client: &Client) -> SystemResult<()> {
    let Account { put, reported, time, failed, .. } = account;
    let row = client
        .query_one(
            "SELECT (SELECT count(*) FROM portfolio.trade), (SELECT count(*) FROM portfolio.holdings), \
             (SELECT count(*) FROM portfolio.news_for_all('-infinity'))",
            &[],
        )
        .await?;
    let [trades, holdings, items] = std::array::from_fn(|index| row.get::<_, i64>(index));
    say("\nSummary");
    let line = |what: &str, figure: String| say(&format!("  {what:<46} {figure:>8}"));
    line("records sent to the streams", put.to_string());
    line("  in the database", reported.applied.to_string());
    line("  duplicates, or superseded by newer ones", (reported.duplicate + reported.superseded).to_string());
    line("trades, one row each", trades.to_string());
    line("  delivered again", day.expected.repeated_trades.to_string());
    line("holdings, of all users", holdings.to_string());
    line("news items for users, as the events demand", items.to_string());
    line("seconds, sending included", format!("{:.1}", time.as_secs_f64()));
    line("invocations", account.invocations.len().to_string());
    line("  failed and retried", failed.to_string());
    Ok(())
}
