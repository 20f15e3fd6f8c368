//! A total equals its rows in every snapshot, while writers, folding, recomputes, dropped partitions and kills go on.
//!
//! `MILLSTREAM_SOAK_SECONDS` makes it run longer than the few seconds of the suite.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millstream::names::{Identifier, TableName};
use millstream::totals::recompute::{recompute, tidy};
use millstream::totals::{TotalVersion, fold, freeze};
use millstream_tests::random::Random;
use tokio_postgres::Client;

use super::{BETTING, EXPECTED, TABLE, assert_equal, built, client, database, exact};
use crate::support;

const WRITERS: u64 = 8;
const SECONDS: u64 = 15;
const TIMEOUT: Duration = Duration::from_secs(60);

/// What the tasks share.
struct Arena {
    url: String,
    version: TotalVersion,
    stopped: AtomicBool,
    commits: AtomicU64,
    reads: AtomicU64,
    kills: AtomicU64,
    dropped: AtomicU64,
}

impl Arena {
    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    /// A connection that may be killed.
    async fn victim(&self) -> Client {
        support::victim(&self.url, "SET TimeZone = 'UTC'; SET lock_timeout = '5s'").await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_see_exact_totals_in_every_snapshot() {
    let url = database().await;
    let owner = client(&url).await;
    owner.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    owner.batch_execute(TABLE).await.unwrap();
    owner.batch_execute("CREATE TABLE s.dropped (piece text, LIKE s.bet)").await.unwrap();
    let version = built(&owner, &BETTING.replace("stake * odds", "stake * odds::numeric")).await;
    let arena = Arc::new(Arena {
        url,
        version,
        stopped: AtomicBool::new(false),
        commits: AtomicU64::new(0),
        reads: AtomicU64::new(0),
        kills: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
    });
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..WRITERS {
        tasks.spawn(write(arena.clone(), seed));
    }
    tasks.spawn(keep_folding(arena.clone()));
    tasks.spawn(keep_recomputing(arena.clone()));
    tasks.spawn(keep_recomputing(arena.clone()));
    tasks.spawn(drop_partitions(arena.clone()));
    tasks.spawn(kill(arena.clone()));
    tasks.spawn(read(arena.clone()));
    tasks.spawn(read(arena.clone()));
    let end = Instant::now() + support::soak_time(SECONDS);
    while Instant::now() < end {
        // A task that has failed ends the test; that of the partitions ends when it has none left.
        if let Some(ended) = tasks.try_join_next() {
            ended.expect("no task fails");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    arena.stopped.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (commits, reads, kills, dropped) =
        (count(&arena.commits), count(&arena.reads), count(&arena.kills), count(&arena.dropped));
    millstream_tests::say(&format!("{commits} commits, {reads} reads, {kills} kills, {dropped} partitions dropped"));
    assert!(commits > 100 && reads > 50 && kills > 3 && dropped > 0);
    check(&owner, &arena).await.expect("nobody interferes any more");
    let report = recompute(&owner, &arena.version, false, TIMEOUT).await.unwrap();
    assert_eq!(report.off_by, 0, "{report:?}");
    tidy(&owner, &arena.version, TIMEOUT).await.unwrap();
    check(&owner, &arena).await.expect("nobody interferes any more");
}

/// Transactions of random statements, some of them rolled back; errors of concurrency are part of the game.
async fn write(arena: Arc<Arena>, seed: u64) {
    let mut random = Random::new(seed + 1);
    let mut client = arena.victim().await;
    while arena.goes_on() {
        let level =
            *random.one_of(&["READ COMMITTED", "READ COMMITTED", "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"]);
        let mut script = format!("BEGIN ISOLATION LEVEL {level};");
        for number in 0..1 + random.below(3) {
            let statement = statement(&mut random, level);
            match random.below(6) {
                0 => script.push_str(&format!("SAVEPOINT a{number}; {statement}; ROLLBACK TO a{number};")),
                1 => script.push_str(&format!("SAVEPOINT a{number}; {statement}; RELEASE a{number};")),
                _ => script.push_str(&format!("{statement};")),
            }
        }
        script.push_str(if random.below(10) == 0 { "ROLLBACK" } else { "COMMIT" });
        match client.batch_execute(&script).await {
            Ok(()) => drop(arena.commits.fetch_add(1, Ordering::Relaxed)),
            Err(_) if client.is_closed() => client = arena.victim().await,
            Err(_) => client.batch_execute("ROLLBACK").await.unwrap_or_default(),
        }
    }
}

fn statement(random: &mut Random, level: &str) -> String {
    let day = 1 + random.below(9);
    let part = format!("bet_id LIKE '{}%'", random.below(10));
    let stake = *random.one_of(&["1.5", "20", "-3", "NULL", "'NaN'", "'Infinity'", "0.001", "7", "7", "7"]);
    let status = *random.one_of(&["'placed'", "'changed'", "'cancelled'", "NULL"]);
    let values = format!(
        "SELECT i::text, '2026-01-01Z'::timestamptz + ({day} - 1) * interval '1 day' + i % 20 * interval '1 hour', {}, 'g' || i % 4, \
         CASE i % 3 WHEN 0 THEN 'home' WHEN 1 THEN 'away' END, {status}, {stake}, 1 + i % 7 * 0.125, i % 11, \
         '2026-01-01Z'::timestamptz + i * interval '17 min' FROM generate_series({}, {}) i",
        random.below(100),
        random.below(200),
        200 + random.below(50),
    );
    match random.below(12) {
        0..4 => format!("INSERT INTO s.bet {values} ON CONFLICT DO NOTHING"),
        4 => format!("INSERT INTO s.bet_{day} {values} ON CONFLICT DO NOTHING"),
        5 | 6 => format!(
            "INSERT INTO s.bet {values} ON CONFLICT (bet_id, day) DO UPDATE SET stake = EXCLUDED.stake, status = EXCLUDED.status"
        ),
        7 => format!("UPDATE s.bet SET stake = {stake}, game_id = 'g' || v % 5 WHERE {part}"),
        8 => format!("UPDATE s.bet SET day = day + interval '1 day' WHERE {part} AND v % 7 = 0"),
        9 => format!("DELETE FROM s.bet WHERE {part}"),
        10 if level == "READ COMMITTED" && random.below(4) == 0 => format!("TRUNCATE s.bet_{day}"),
        10 => format!("UPDATE s.bet_{day} SET status = {status} WHERE {part}"),
        _ => format!("DELETE FROM s.bet_{day} WHERE {part}"),
    }
}

async fn keep_folding(arena: Arc<Arena>) {
    let mut client = arena.victim().await;
    while arena.goes_on() {
        let folded = fold::fold(&client, &arena.version.sql().unwrap(), Duration::ZERO, TIMEOUT).await;
        if folded.is_err() && client.is_closed() {
            client = arena.victim().await;
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

async fn keep_recomputing(arena: Arc<Arena>) {
    let mut client = arena.victim().await;
    while arena.goes_on() {
        match recompute(&client, &arena.version, false, TIMEOUT).await {
            Ok(report) => assert_eq!(report.off_by, 0, "{report:?}"),
            Err(_) if client.is_closed() => client = arena.victim().await,
            Err(_) => {}
        }
        drop(tidy(&client, &arena.version, TIMEOUT).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Detaches the oldest partition, drops it, and creates a new one. What was dropped is kept in `s.dropped` for the readers.
async fn drop_partitions(arena: Arc<Arena>) {
    let client = client(&arena.url).await;
    client.batch_execute("SET TimeZone = 'UTC'; SET lock_timeout = '5s'").await.unwrap();
    let name = |table: String| TableName {
        schema: Identifier::exact("s").unwrap(),
        table: Identifier::exact(&table).unwrap(),
    };
    let mut oldest = 1;
    while arena.goes_on() && oldest < 9 {
        let new = oldest + 3;
        let add = format!(
            "CREATE TABLE s.bet_{new} (LIKE s.bet INCLUDING ALL); ALTER TABLE s.bet ATTACH PARTITION s.bet_{new} FOR VALUES \
             FROM ('2026-01-0{new}Z') TO ('2026-01-{:02}Z')",
            new + 1
        );
        let triggers = async {
            client.batch_execute("BEGIN").await?;
            client.batch_execute(&add).await?;
            for trigger in millstream::statement_triggers::for_partitions(
                &client,
                &name("bet".into()),
                [name(format!("bet_{new}"))].iter(),
            )
            .await?
            {
                client.batch_execute(&trigger).await?;
            }
            client.batch_execute("COMMIT").await
        };
        if triggers.await.is_err() {
            client.batch_execute("ROLLBACK").await.unwrap();
            continue;
        }
        while client
            .batch_execute(&format!("ALTER TABLE s.bet DETACH PARTITION s.bet_{oldest} CONCURRENTLY"))
            .await
            .is_err()
        {
            let finalize = format!("ALTER TABLE s.bet DETACH PARTITION s.bet_{oldest} FINALIZE");
            if client.batch_execute(&finalize).await.is_ok() {
                break;
            }
        }
        // Whoever writes straight into the partition no longer finds it; its rows are final.
        while client.batch_execute(&format!("ALTER TABLE s.bet_{oldest} RENAME TO gone_{oldest}")).await.is_err() {}
        let keep = format!("INSERT INTO s.dropped SELECT 'gone_{oldest}', * FROM s.gone_{oldest}");
        client.batch_execute(&keep).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        let partition = name(format!("gone_{oldest}"));
        while freeze::drop_partition(&client, &name("bet".into()), &partition, TIMEOUT).await.is_err() {}
        arena.dropped.fetch_add(1, Ordering::Relaxed);
        oldest += 1;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

async fn kill(arena: Arc<Arena>) {
    let client = client(&arena.url).await;
    while arena.goes_on() {
        tokio::time::sleep(Duration::from_millis(700)).await;
        support::kill_a_victim(&client).await;
        arena.kills.fetch_add(1, Ordering::Relaxed);
    }
}

async fn read(arena: Arc<Arena>) {
    let client = client(&arena.url).await;
    client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    while arena.goes_on() {
        // A partition that is dropped between two of the statements is no wrong read.
        if check(&client, &arena).await.is_some() {
            arena.reads.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Compares the total with the rows, in one snapshot; `None` if a partition was dropped meanwhile.
async fn check(client: &Client, arena: &Arena) -> Option<()> {
    let detached = "SELECT c.relname FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid \
        WHERE t.tgname LIKE 'millstream%insert' AND t.tgrelid <> 's.bet'::regclass \
        AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = t.tgrelid AND NOT inhdetachpending)";
    let locked = names(client, detached).await;
    // TRUNCATE empties tables for old snapshots, too: they are locked first, which takes no snapshot.
    let locks: String = locked.iter().map(|name| format!("LOCK TABLE s.{name} IN ACCESS SHARE MODE;")).collect();
    let begin = format!("BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE s.bet IN ACCESS SHARE MODE; {locks}");
    if client.batch_execute(&begin).await.is_err() {
        client.batch_execute("ROLLBACK").await.unwrap();
        return None;
    }
    let detached = names(client, detached).await;
    if detached != locked {
        client.batch_execute("ROLLBACK").await.unwrap();
        return None;
    }
    let columns = "bet_id, day, v, game_id, side, status, stake, odds, payout, placed_at";
    let mut pieces = format!(
        "SELECT {columns} FROM s.bet UNION ALL SELECT {columns} FROM s.dropped WHERE piece <> ALL ('{{{}}}')",
        detached.join(",")
    );
    for name in &detached {
        pieces.push_str(&format!(" UNION ALL SELECT {columns} FROM s.{name}"));
    }
    let expected = exact(EXPECTED).replace("FROM s.bet", &format!("FROM ({pieces}) pieces"));
    assert_equal(client, "s.betting", &expected, &format!("version {}", arena.version.version)).await;
    client.batch_execute("COMMIT").await.unwrap();
    Some(())
}

async fn names(client: &Client, query: &str) -> Vec<String> {
    let mut names: Vec<String> = client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
    names.sort();
    names.dedup();
    names
}
