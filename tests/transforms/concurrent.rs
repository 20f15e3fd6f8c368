//! Nothing is missed and nothing is delivered twice, while writers, long transactions and kills go on.
//!
//! `MILLSTREAM_SOAK_SECONDS` makes it run longer than the few seconds of the suite.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use millstream::transform::{RunOutcome, TransformError, TransformFile};
use millstream_tests::random::Random;
use tokio_postgres::Client;

use super::reads::assert_mirrored;
use super::{client, database, run_once, transform, try_run};
use crate::support::{self, rows};

const WRITERS: u64 = 8;
/// Of these, so many hold transactions open.
const SLOW_WRITERS: u64 = 2;
const SECONDS: u64 = 12;

/// Events, unique within their partition, and items with a key; three days each.
const TABLES: &str = "CREATE SCHEMA s; CREATE SEQUENCE s.number CACHE 50; \
    CREATE TABLE s.event (id bigint, day integer NOT NULL, note text) PARTITION BY RANGE (day); \
    CREATE TABLE s.event_1 PARTITION OF s.event (PRIMARY KEY (id)) FOR VALUES FROM (1) TO (2); \
    CREATE TABLE s.event_2 PARTITION OF s.event (PRIMARY KEY (id)) FOR VALUES FROM (2) TO (3); \
    CREATE TABLE s.item (id bigint, day integer, v bigint, _version text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day); \
    CREATE TABLE s.item_1 PARTITION OF s.item FOR VALUES FROM (1) TO (2); \
    CREATE TABLE s.item_2 PARTITION OF s.item FOR VALUES FROM (2) TO (3); \
    CREATE TABLE s.item_3 PARTITION OF s.item FOR VALUES FROM (3) TO (4); \
    CREATE TABLE s.delivered (id bigint PRIMARY KEY, deliveries bigint); \
    CREATE TABLE s.mirror (id bigint, day integer, v bigint, repeated bigint, PRIMARY KEY (id, day))";

/// Counts how often each event was delivered.
const DELIVERED: &str = "-- target: s.delivered\n-- key: id\n-- changes: s.event\n-- every: 1 minute\n\
    SELECT c.id, coalesce(d.deliveries, 0) + 1 AS deliveries FROM millstream.changes(NULL::s.event) c LEFT JOIN s.delivered d USING (id)";

/// Keeps the items, and counts how often one was delivered that had not changed.
const MIRROR: &str = "-- target: s.mirror\n-- key: id, day\n-- changes: s.item\n-- every: 1 minute\n\
    SELECT c.id, c.day, c.v, coalesce(m.repeated, 0) + (c.v IS NOT DISTINCT FROM m.v)::integer AS repeated, false AS _deleted\n\
    FROM millstream.changes(NULL::s.item) c LEFT JOIN s.mirror m USING (id, day)\n\
    UNION ALL SELECT r.id, r.day, NULL::bigint, NULL::bigint, true FROM millstream.removed_keys(NULL::s.item) r";

/// What the tasks share.
struct Arena {
    url: String,
    transforms: [TransformFile; 2],
    stopped: AtomicBool,
    commits: AtomicU64,
    runs: AtomicU64,
    kills: AtomicU64,
}

impl Arena {
    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    /// A connection that may be killed.
    async fn victim(&self) -> Client {
        support::victim(&self.url, "SET lock_timeout = '5s'").await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_row_is_missed_or_delivered_twice() {
    let url = database().await;
    let owner = client(&url).await;
    owner.batch_execute(TABLES).await.unwrap();
    let arena = Arc::new(Arena {
        url,
        transforms: [transform("delivered", DELIVERED), transform("mirror", MIRROR)],
        stopped: AtomicBool::new(false),
        commits: AtomicU64::new(0),
        runs: AtomicU64::new(0),
        kills: AtomicU64::new(0),
    });
    for transform in &arena.transforms {
        assert!(run_once(&owner, transform).await.full_run);
    }
    let mut tasks = tokio::task::JoinSet::new();
    for seed in 0..WRITERS {
        tasks.spawn(write(arena.clone(), seed));
    }
    // Two processes run the same transforms.
    tasks.spawn(keep_running(arena.clone()));
    tasks.spawn(keep_running(arena.clone()));
    tasks.spawn(kill(arena.clone()));
    let end = Instant::now() + support::soak_time(SECONDS);
    while Instant::now() < end {
        if let Some(ended) = tasks.try_join_next() {
            ended.expect("no task fails");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    arena.stopped.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    for transform in &arena.transforms {
        assert!(!run_once(&owner, transform).await.full_run, "only the first run is a full one");
        let report = run_once(&owner, transform).await;
        assert_eq!((report.rows_written, report.rows_deleted), (0, 0), "nothing is left");
    }
    let [commits, runs, kills] =
        [&arena.commits, &arena.runs, &arena.kills].map(|counter| counter.load(Ordering::Relaxed));
    let events: i64 = owner.query_one("SELECT count(*) FROM s.event", &[]).await.unwrap().get(0);
    millstream_tests::say(&format!("{commits} commits, {events} events, {runs} runs, {kills} kills"));
    assert!(commits > 200 && events > 500 && runs > 10 && kills > 3);
    let wrong = "SELECT id, d.deliveries, e.day FROM s.event e FULL JOIN s.delivered d USING (id) \
        WHERE d.deliveries IS DISTINCT FROM 1 OR e.id IS NULL LIMIT 10";
    assert_eq!(rows(&owner, wrong).await, [""; 0], "each event is delivered once");
    assert_mirrored(&owner, "at the end").await;
    let repeated = "SELECT id, day, repeated FROM s.mirror WHERE repeated > 0 LIMIT 10";
    assert_eq!(rows(&owner, repeated).await, [""; 0], "nothing unchanged is delivered");
}

/// Transactions of random statements, some of them rolled back; errors of concurrency are part of the game.
async fn write(arena: Arc<Arena>, seed: u64) {
    let mut random = Random::new(seed + 1);
    let mut client = arena.victim().await;
    while arena.goes_on() {
        let level = *random.one_of(&["READ COMMITTED", "READ COMMITTED", "REPEATABLE READ"]);
        let mut script = format!("BEGIN ISOLATION LEVEL {level};");
        for number in 0..1 + random.below(3) {
            let statement = statement(&mut random);
            match random.below(6) {
                0 => script.push_str(&format!("SAVEPOINT a{number}; {statement}; ROLLBACK TO a{number};")),
                1 => script.push_str(&format!("SAVEPOINT a{number}; {statement}; RELEASE a{number};")),
                _ => script.push_str(&format!("{statement};")),
            }
        }
        if seed < SLOW_WRITERS {
            script.push_str(&format!("SELECT pg_sleep({});", random.below(2_500) as f64 / 1e3));
            let statement = statement(&mut random);
            script.push_str(&format!("{statement};"));
        }
        script.push_str(if random.below(8) == 0 { "ROLLBACK" } else { "COMMIT" });
        match client.batch_execute(&script).await {
            Ok(()) => drop(arena.commits.fetch_add(1, Ordering::Relaxed)),
            Err(_) if client.is_closed() => client = arena.victim().await,
            Err(_) => client.batch_execute("ROLLBACK").await.unwrap_or_default(),
        }
    }
}

fn statement(random: &mut Random) -> String {
    let (event_day, day) = (1 + random.below(2), 1 + random.below(3));
    let rows = 1 + random.below(4);
    // Few keys, so that writers meet.
    let (first, last) = (random.below(150), 4);
    let items = format!(
        "SELECT i, {day}, nextval('s.number'), random()::text FROM generate_series({first}, {}) i",
        first + random.below(last)
    );
    let upsert = "ON CONFLICT (id, day) DO UPDATE SET v = excluded.v, _version = excluded._version";
    match random.below(12) {
        0..3 => {
            format!("INSERT INTO s.event SELECT nextval('s.number'), {event_day}, 'x' FROM generate_series(1, {rows})")
        }
        3 => format!("INSERT INTO s.event_{event_day} SELECT nextval('s.number'), {event_day}, 'leaf'"),
        4..6 => format!("INSERT INTO s.item {items} {upsert}"),
        6 => format!("INSERT INTO s.item_{day} {items} {upsert}"),
        7 => format!("UPDATE s.item SET v = nextval('s.number') WHERE id = {first}"),
        8 => format!("UPDATE s.item SET day = {day}, v = nextval('s.number') WHERE id = {first} AND day <> {day}"),
        9 => format!("UPDATE s.item SET id = id + 200, v = nextval('s.number') WHERE id = {first}"),
        10 => format!("UPDATE s.item_{day} SET v = nextval('s.number') WHERE id = {first}"),
        _ => format!("DELETE FROM s.item WHERE id BETWEEN {first} AND {}", first + 1),
    }
}

async fn keep_running(arena: Arc<Arena>) {
    let mut client = arena.victim().await;
    while arena.goes_on() {
        for transform in &arena.transforms {
            match try_run(&client, transform).await {
                Ok(RunOutcome::Committed(report)) => {
                    assert!(!report.full_run, "{}", transform.name);
                    arena.runs.fetch_add(1, Ordering::Relaxed);
                }
                Ok(RunOutcome::Waiting { reason }) => panic!("{reason}"),
                Err(_) if client.is_closed() => client = arena.victim().await,
                Err(TransformError::Busy { .. }) => {}
                // The connection was killed, and the client has not noticed yet.
                Err(error) if error.is_of_connection() => {}
                Err(error) => panic!("{}: {error}", transform.name),
            }
        }
    }
}

async fn kill(arena: Arc<Arena>) {
    let client = client(&arena.url).await;
    while arena.goes_on() {
        tokio::time::sleep(Duration::from_millis(600)).await;
        support::kill_a_victim(&client).await;
        arena.kills.fetch_add(1, Ordering::Relaxed);
    }
}
