//! What totals cost: for each row and delta, to fold, to recompute, and to read.
//!
//! The cost of writing is the CPU time of the backend, the least of several runs: the difference between a table with a total
//! and the same table without one.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::BenchResult;
use super::line::{Figure, Line};
use crate::postgresql::{PostgreSql, connect};
use millstream::config::Config;
use millstream::totals::build::{BuildLimits, BuildOutcome, FrozenPolicy, build};
use millstream::totals::recompute::recompute;
use millstream::totals::{TotalVersion, fold};

/// Rows of one statement.
const ROWS: u64 = 10_000;
/// Runs of each statement.
const TURNS: usize = 8;
/// Rows of the table that is recomputed.
const HISTORY: u64 = 10_000_000;
const TIMEOUT: Duration = Duration::from_secs(600);

const TABLE: &str = "CREATE SCHEMA bench; CREATE TABLE bench.bet (id bigint, at timestamptz, game_id text, side text, status text, stake numeric(12,2), \
    odds numeric(10,3), payout numeric(12,2), c1 text, c2 text, c3 text, c4 bigint, c5 timestamptz) PARTITION BY RANGE (at); \
    CREATE TABLE bench.day PARTITION OF bench.bet (PRIMARY KEY (id)) FOR VALUES FROM ('2026-01-01Z') TO ('2026-01-02Z'); \
    CREATE INDEX ON bench.day (game_id)";

/// Two totals with three sums each; the groups are the games.
fn config(totals: usize) -> BenchResult<Config> {
    let total = |number: usize| {
        format!(
            "[total.betting_{number}]\ntable = \"bet\"\nby = [\"game_id\", \"side\"]\nwhere = \"status IS DISTINCT FROM 'cancelled'\"\n\
             sums = {{ staked = \"stake\", liability = {{ of = \"stake * odds\", where = \"status IN ('placed', 'changed')\" }}, paid = \"payout\" }}\n"
        )
    };
    let text: String = (0..totals).map(total).collect();
    let source = "[source.bench]\nstream = \"s\"\nformat = \"json\"\n[table.bet]\nsource = \"bench\"\nid = \"id\"\n";
    Ok(Config::parse("bench.toml", &format!("{source}{text}"))?)
}

/// A database with the table and some totals.
async fn database(server: &PostgreSql, totals: usize) -> BenchResult<(Client, Vec<TotalVersion>)> {
    let client = connect(&server.database().await?).await?;
    client.batch_execute("SET TimeZone = 'UTC'").await?;
    client.batch_execute(TABLE).await?;
    let limits = BuildLimits { statement: TIMEOUT, attempts: 10, frozen: FrozenPolicy::Keep };
    let mut versions = Vec::new();
    for total in &config(totals)?.totals {
        match build(&client, total, limits).await? {
            BuildOutcome::Ready(version) => versions.push(*version),
            BuildOutcome::Waiting { reason } => return Err(reason.into()),
        }
    }
    Ok((client, versions))
}

/// Rows with two sides for each of half as many games as groups.
fn select(first: u64, count: u64, groups: u64) -> String {
    format!(
        "SELECT i, '2026-01-01Z'::timestamptz + i % 86400 * interval '1 s', 'game-' || (hashint8(i)::bigint & 2147483647) % {} AS game_id, \
         'side-' || i % 2, (ARRAY['placed','changed','won','lost'])[i % 4 + 1], i % 5000 / 100.0, 1 + i % 4000 / 1000.0, i % 3000 / 100.0, \
         'mobile', 'NJ', 'basic', i, now() FROM generate_series({first}::bigint, {}) i",
        groups.div_ceil(2),
        first + count - 1,
    )
}

/// The CPU time that the client's backend has used.
async fn backend_cpu(client: &Client) -> BenchResult<Duration> {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    let stat = std::fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanoseconds: u64 = stat.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// The least CPU time of a statement that copies rows into the partition.
async fn copy_cpu(client: &Client, versions: &[TotalVersion], groups: u64) -> BenchResult<f64> {
    client.batch_execute("CREATE TABLE IF NOT EXISTS bench.rows (LIKE bench.bet); TRUNCATE bench.day").await?;
    fold_all(client, versions).await?;
    let mut least = f64::MAX;
    for turn in 0..TURNS as u64 {
        client
            .batch_execute(&format!(
                "TRUNCATE bench.rows; INSERT INTO bench.rows {}",
                select(turn * ROWS, ROWS, groups)
            ))
            .await?;
        let before = backend_cpu(client).await?;
        client.batch_execute("INSERT INTO bench.day SELECT * FROM bench.rows").await?;
        least = least.min((backend_cpu(client).await? - before).as_secs_f64());
        fold_all(client, versions).await?;
    }
    Ok(least)
}

/// The least CPU time of a statement that upserts rows, half of which exist.
async fn upsert_cpu(client: &Client, versions: &[TotalVersion]) -> BenchResult<f64> {
    let mut least = f64::MAX;
    for turn in 0..TURNS as u64 {
        let rows = select(1_000_000 + turn * ROWS / 2, ROWS, 300);
        client.batch_execute(&format!("TRUNCATE bench.rows; INSERT INTO bench.rows {rows}")).await?;
        let before = backend_cpu(client).await?;
        let upsert =
            "INSERT INTO bench.day SELECT * FROM bench.rows ON CONFLICT (id) DO UPDATE SET stake = EXCLUDED.stake + 1";
        client.batch_execute(upsert).await?;
        let cpu = (backend_cpu(client).await? - before).as_secs_f64();
        // The first turn only inserts.
        if turn > 0 {
            least = least.min(cpu);
        }
        fold_all(client, versions).await?;
    }
    Ok(least)
}

async fn fold_all(client: &Client, versions: &[TotalVersion]) -> BenchResult<()> {
    for sql in versions.iter().filter_map(TotalVersion::sql) {
        fold::fold(client, &sql, Duration::ZERO, TIMEOUT).await?;
    }
    Ok(())
}

/// Writing with no total, one and two; folding, recomputing and reading one.
pub async fn measure(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    let mut lines = writing(server).await?;
    lines.extend(folding(server).await?);
    lines.extend(reading(server).await?);
    lines.extend(recomputing(server).await?);
    Ok(lines)
}

async fn writing(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    let (plain, _) = database(server, 0).await?;
    let (one, one_version) = database(server, 1).await?;
    let (two, two_versions) = database(server, 2).await?;
    let base = copy_cpu(&plain, &[], 300).await?;
    let few = copy_cpu(&one, &one_version, 300).await?;
    let few_twice = copy_cpu(&two, &two_versions, 300).await?;
    let many = copy_cpu(&one, &one_version, 100_000).await?;
    let (upserts, upserts_with) = (upsert_cpu(&plain, &[]).await?, upsert_cpu(&one, &one_version).await?);
    // Nearly every row of the last one has a group of its own, and so a delta.
    let microseconds = |difference: f64| 1e6 * difference / ROWS as f64;
    let share = |with: f64, without: f64| 100.0 * (with / without - 1.0);
    Ok(vec![
        Line::at_most("database CPU for each row and total, 300 groups", microseconds(few - base), "µs", 1.0),
        Line::at_most("database CPU for each delta, a group for each row", microseconds(many - base), "µs", 8.0),
        Line::at_most(
            "copying into a partition with two totals of 300 groups, more database CPU",
            share(few_twice, base),
            "%",
            25.0,
        ),
        Line::at_most(
            "upserting with a total of 300 groups, more database CPU",
            share(upserts_with, upserts),
            "%",
            15.0,
        ),
    ])
}

async fn folding(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    let mut lines = Vec::new();
    for (groups, limit) in [(300_u64, 4.0), (100_000, 8.0)] {
        let (client, versions) = database(server, 1).await?;
        let deltas: u64 = 300_000;
        let fill = format!(
            "INSERT INTO millstream.betting_0_v1_delta (game_id, side, rows, staked, staked_count, staked_nan, staked_inf, staked_neg_inf, liability, \
             liability_count, liability_nan, liability_inf, liability_neg_inf, paid, paid_count, paid_nan, paid_inf, paid_neg_inf) \
             SELECT 'game-' || i % {}, 'side-' || i / {} % 2, 1, 1.5, 1, 0, 0, 0, 2, 1, 0, 0, 0, 3, 1, 0, 0, 0 FROM generate_series(1, {deltas}) i",
            groups / 2,
            groups / 2
        );
        // The groups exist already when the measured deltas are folded.
        client.batch_execute(&fill).await?;
        fold_all(&client, &versions).await?;
        client.batch_execute(&fill).await?;
        client.batch_execute("VACUUM (ANALYZE) millstream.betting_0_v1_batch").await?;
        client.batch_execute("CHECKPOINT").await?;
        let since = Instant::now();
        fold_all(&client, &versions).await?;
        let each = 1e6 * since.elapsed().as_secs_f64() / deltas as f64;
        lines.push(Line::at_most(&format!("folding a delta, {groups} groups"), each, "µs", limit));
    }
    Ok(lines)
}

async fn reading(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    let (client, versions) = database(server, 1).await?;
    client.batch_execute(&format!("INSERT INTO bench.day {}", select(0, 400_000, 200_000))).await?;
    fold_all(&client, &versions).await?;
    client.batch_execute(&format!("INSERT INTO bench.day {}", select(1_000_000, 50_000, 200_000))).await?;
    for table in ["batch", "delta"] {
        client.batch_execute(&format!("VACUUM (ANALYZE) millstream.betting_0_v1_{table}")).await?;
    }
    let query = client.prepare("SELECT * FROM bench.betting_0 WHERE game_id = $1 AND side = $2").await?;
    let mut times = Vec::new();
    for number in 0..300 {
        let since = Instant::now();
        client.query(&query, &[&format!("game-{}", number * 311), &"side-1"]).await?;
        times.push(since.elapsed());
    }
    // What a query without work takes is the driver's and the connection's.
    let nothing = client.prepare("SELECT 1").await?;
    let mut idle = Vec::new();
    for _ in 0..300 {
        let since = Instant::now();
        client.query(&nothing, &[]).await?;
        idle.push(since.elapsed());
    }
    let milliseconds = 1e3 * (super::median(&mut times).as_secs_f64() - super::median(&mut idle).as_secs_f64());
    let what = "reading one of 200,000 groups with 50,000 deltas, without the round trip";
    let figure = Figure::Value { value: milliseconds, unit: "ms" };
    let reached = if milliseconds <= 0.1 { '✓' } else { '✗' };
    Ok(vec![Line { what: what.to_owned(), figure, target: format!("≤ 0.1 ms {reached}") }])
}

async fn recomputing(server: &PostgreSql) -> BenchResult<Vec<Line>> {
    let mut lines = Vec::new();
    for (groups, limit) in [(300_u64, 1.3), (100_000, 1.5)] {
        let (client, versions) = database(server, 1).await?;
        // Without the total's triggers, which the recompute then corrects once.
        client.batch_execute("SET session_replication_role = replica").await?;
        client.batch_execute(&format!("INSERT INTO bench.day {}", select(0, HISTORY, groups))).await?;
        client.batch_execute("SET session_replication_role = origin").await?;
        client.batch_execute("VACUUM (ANALYZE, FREEZE) bench.day").await?;
        recompute(&client, &versions[0], false, TIMEOUT).await?;
        fold_all(&client, &versions).await?;
        let raw = "SELECT game_id, side, count(*), sum(stake), sum(stake * odds) FILTER (WHERE status IN ('placed', 'changed')), sum(payout) \
            FROM bench.bet WHERE status IS DISTINCT FROM 'cancelled' GROUP BY 1, 2";
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let since = Instant::now();
            client.query(raw, &[]).await?;
            theirs.push(since.elapsed());
            let since = Instant::now();
            recompute(&client, &versions[0], false, TIMEOUT).await?;
            ours.push(since.elapsed());
        }
        let ratio = super::median(&mut ours).as_secs_f64() / super::median(&mut theirs).as_secs_f64();
        let what = format!("recomputing 10 million rows, {groups} groups, relative to one GROUP BY");
        lines.push(Line::at_most(&what, ratio, "×", limit));
    }
    Ok(lines)
}
