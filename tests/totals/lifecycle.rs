//! Totals are created, changed and removed on filled tables while writers go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use millstream::config::Config;
use millstream::names::{Identifier, TableName};
use millstream::timestamp::Timestamp;
use millstream::totals::build::{BuildLimits, BuildOutcome, FrozenPolicy, build, remove_total};
use millstream::totals::{freeze, load_versions};
use tokio_postgres::Client;

use super::{BETTING, LIMITS, SOURCE, TABLE, assert_equal, bets, built, client, database};
use crate::support::rows;

const TIMEOUT: Duration = Duration::from_secs(60);

const BY_GAME: &str = "[total.betting]\ntable = \"bet\"\nby = [\"game_id\"]\nwhere = \"status IS DISTINCT FROM 'cancelled'\"\nsums = { staked = \"stake\" }\n";
const BY_GAME_EXPECTED: &str =
    "SELECT game_id, count(*), sum(stake) FROM s.bet WHERE status IS DISTINCT FROM 'cancelled' GROUP BY game_id";

fn config(total: &str) -> Config {
    Config::parse("test.toml", &format!("{SOURCE}{total}")).unwrap_or_else(|errors| panic!("{errors}"))
}

fn table(name: &str) -> TableName {
    TableName { schema: Identifier::exact("s").unwrap(), table: Identifier::exact(name).unwrap() }
}

/// Writers that run until [`Writers::stop`].
struct Writers {
    stopped: Arc<AtomicBool>,
    statements: Arc<AtomicU64>,
    tasks: tokio::task::JoinSet<()>,
}

impl Writers {
    async fn start(url: &str) -> Self {
        let (stopped, statements) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..4 {
            let client = client(url).await;
            let (stopped, statements) = (stopped.clone(), statements.clone());
            tasks.spawn(async move {
                let mut round = 0;
                while !stopped.load(Ordering::Relaxed) {
                    round += 1;
                    write(&client, number, round).await;
                    statements.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Self { stopped, statements, tasks }
    }

    async fn stop(self) -> u64 {
        self.stopped.store(true, Ordering::Relaxed);
        self.tasks.join_all().await;
        self.statements.load(Ordering::Relaxed)
    }
}

/// No statement of a writer fails, whatever happens to the totals.
async fn write(client: &Client, number: u64, round: u64) {
    let insert = format!(
        "INSERT INTO s.bet SELECT '{number}-{round}-' || i, '2026-01-01Z'::timestamptz + i * interval '1 hour', 1, 'g' || i % 4, 's', \
         'placed', i, 2, i, now() FROM generate_series(1, 60) i"
    );
    let update = format!("UPDATE s.bet SET stake = stake + 1 WHERE bet_id LIKE '{number}-{}-%'", round - 1);
    let delete = format!("DELETE FROM s.bet WHERE bet_id LIKE '{number}-{}-%'", round.saturating_sub(3));
    for statement in [insert, update, delete] {
        client.batch_execute(&statement).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn totals_come_change_and_go_while_writers_go_on() {
    let url = database().await;
    let owner = client(&url).await;
    owner.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    owner.batch_execute(TABLE).await.unwrap();
    let writers = Writers::start(&url).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let first = built(&owner, BETTING).await;
    let second = built(&owner, BY_GAME).await;
    assert_eq!((first.version, second.version), (1, 2));
    for _ in 0..20 {
        owner.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").await.unwrap();
        assert_equal(&owner, "s.betting", BY_GAME_EXPECTED, "while writers go on").await;
        owner.batch_execute("COMMIT").await.unwrap();
    }
    let versions = load_versions(&owner).await.unwrap();
    assert_eq!(versions.iter().map(|version| version.version).collect::<Vec<_>>(), [2]);
    remove_total(&owner, "betting", 60).await.unwrap();
    assert!(writers.stop().await > 4);
    let left = "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relname LIKE 'betting%' \
        UNION ALL SELECT proname FROM pg_proc WHERE proname LIKE 'betting%' UNION ALL SELECT tgname FROM pg_trigger WHERE tgname LIKE 'millstream%'";
    assert!(rows(&owner, left).await.is_empty());
}

/// Detaches a partition and drops it as maintenance does.
async fn drop_partition(client: &Client, name: &str) {
    client.batch_execute(&format!("ALTER TABLE s.bet DETACH PARTITION s.{name}")).await.unwrap();
    freeze::drop_partition(client, &table("bet"), &table(name), TIMEOUT).await.unwrap();
}

const FILL: &str = "INSERT INTO s.bet SELECT i::text, '2026-01-01Z'::timestamptz + i * interval '1 hour', 1, 'g' || i % 3, 's', 'placed', i, 2, i, \
    '2026-01-01Z'::timestamptz + i * interval '1 hour' FROM generate_series(0, 71) i";

#[tokio::test]
async fn a_restored_period_counts_once() {
    let client = bets().await;
    built(&client, BY_GAME).await;
    client.batch_execute(FILL).await.unwrap();
    let before = rows(&client, "SELECT * FROM s.betting ORDER BY game_id").await;
    client.batch_execute("CREATE TABLE s.kept AS SELECT * FROM s.bet_1").await.unwrap();
    drop_partition(&client, "bet_1").await;
    assert_eq!(rows(&client, "SELECT * FROM s.betting ORDER BY game_id").await, before);
    // Created again, empty: the frozen sums stay.
    client.batch_execute("CREATE TABLE s.bet_1 (LIKE s.bet INCLUDING ALL); INSERT INTO s.bet_1 SELECT * FROM s.kept WHERE bet_id <> '5'").await.unwrap();
    assert_eq!(rows(&client, "SELECT * FROM s.betting ORDER BY game_id").await, before);
    let day = |text: &str| Timestamp::parse(text).unwrap();
    let bounds = (day("2026-01-01T00:00:00Z"), day("2026-01-02T00:00:00Z"));
    freeze::attach_restored(&client, &table("bet"), &table("bet_1"), bounds, TIMEOUT).await.unwrap();
    // One row was not restored: the total is that of the rows.
    assert_equal(&client, "s.betting", BY_GAME_EXPECTED, "restored").await;
    client.batch_execute("INSERT INTO s.bet_1 SELECT * FROM s.kept WHERE bet_id = '5'").await.unwrap();
    assert_eq!(rows(&client, "SELECT * FROM s.betting ORDER BY game_id").await, before);
}

#[tokio::test]
async fn kept_sums_are_replaced_by_those_of_restored_rows() {
    let client = bets().await;
    let version = built(&client, BY_GAME).await;
    client.batch_execute(FILL).await.unwrap();
    client.batch_execute("CREATE TABLE s.shadow AS SELECT * FROM s.bet_1").await.unwrap();
    let before = rows(&client, "SELECT * FROM s.betting ORDER BY game_id").await;
    drop_partition(&client, "bet_1").await;
    // The sums of the dropped partition are falsified, and the recompute takes them for true.
    client
        .batch_execute("UPDATE millstream.betting_v1_frozen SET staked = staked + 100 WHERE game_id = 'g1'")
        .await
        .unwrap();
    let report = millstream::totals::recompute::recompute(&client, &version, false, TIMEOUT).await.unwrap();
    assert_eq!(report.off_by, 1, "{report:?}");
    assert_ne!(rows(&client, "SELECT * FROM s.betting ORDER BY game_id").await, before);
    freeze::refreeze(&client, "betting", "s.bet_1", &table("shadow"), TIMEOUT).await.unwrap();
    assert_eq!(rows(&client, "SELECT * FROM s.betting ORDER BY game_id").await, before);
    let report = millstream::totals::recompute::recompute(&client, &version, false, TIMEOUT).await.unwrap();
    assert_eq!(report.off_by, 0, "{report:?}");
}

#[tokio::test]
async fn sums_of_dropped_partitions_follow_a_changed_definition_or_refuse_it() {
    let client = bets().await;
    let finer = BY_GAME
        .replace("[\"game_id\"]", "[\"game_id\", \"side\"]")
        .replace("\"stake\" }", "\"stake\", paid = \"payout\" }");
    built(&client, &finer).await;
    client.batch_execute(FILL).await.unwrap();
    drop_partition(&client, "bet_1").await;
    built(&client, BY_GAME).await;
    let all = "SELECT sum(rows) AS rows, sum(staked) AS staked FROM s.betting";
    assert_eq!(rows(&client, all).await, [r#"{"rows":72,"staked":2556}"#]);
    // The other way round, the sums are not known.
    let refused = build(&client, &config(&finer).totals[0], LIMITS).await.unwrap_err();
    assert!(refused.to_string().contains("the sums of dropped partitions do not follow"), "{refused}");
    assert_eq!(rows(&client, all).await, [r#"{"rows":72,"staked":2556}"#]);
    let discarding = BuildLimits { frozen: FrozenPolicy::Discard, ..LIMITS };
    build(&client, &config(&finer).totals[0], discarding).await.unwrap();
    assert_eq!(rows(&client, all).await, [r#"{"rows":48,"staked":2280}"#]);
}

#[tokio::test]
async fn a_view_that_others_depend_on_is_not_dropped_and_grants_survive() {
    let client = bets().await;
    built(&client, BY_GAME).await;
    let wider = BY_GAME.replace("\"stake\" }", "\"stake\", paid = \"payout\" }");
    client
        .batch_execute("CREATE VIEW s.report AS SELECT * FROM s.betting; GRANT SELECT ON s.betting TO PUBLIC")
        .await
        .unwrap();
    // A further column is added at the end.
    built(&client, &wider).await;
    let finer = wider.replace("[\"game_id\"]", "[\"game_id\", \"side\"]");
    let refused = build(&client, &config(&finer).totals[0], LIMITS).await.unwrap_err();
    assert!(refused.to_string().contains("other views depend on s.betting"), "{refused}");
    client.batch_execute("DROP VIEW s.report").await.unwrap();
    built(&client, &finer).await;
    let granted = "SELECT has_table_privilege('public', 's.betting', 'SELECT') AS granted";
    assert_eq!(rows(&client, granted).await, [r#"{"granted":true}"#]);
}

#[tokio::test]
async fn unsuitable_expressions_are_rejected_with_their_position() {
    let client = bets().await;
    let total = |by: &str, rest: &str| format!("[total.t]\ntable = \"bet\"\nby = {{ g = \"{by}\" }}\n{rest}\n");
    for (total, part) in [
        (total("now()", ""), "total.t.by.g: functions in index expression must be marked IMMUTABLE"),
        (total("placed_at::text", ""), "test.toml:11:12: total.t.by.g"),
        (total("max(stake)", ""), "aggregate functions are not allowed"),
        (total("(SELECT 1)", ""), "cannot use subquery"),
        (total("placed_at - placed_at", "sums = { x = \"game_id\" }"), "values of type text cannot be summed"),
        (total("ARRAY[stake]", ""), "rows cannot be grouped by a value of type numeric[]"),
        (total("side", "where = \"stake\""), "must be type boolean"),
        (total("side", "bucket = { at = \"stake\", every = \"day\" }"), "must be a timestamp or a date, not numeric"),
        (total("side", "sums = { x = { of = \"stake\", where = \"random() > 0.5\" } }"), "IMMUTABLE"),
    ] {
        let error = build(&client, &config(&total).totals[0], LIMITS).await.unwrap_err().to_string();
        assert!(error.contains(part), "{part} is missing in: {error}");
    }
    let waiting = build(&client, &config(&total("missing", "")).totals[0], LIMITS).await.unwrap();
    assert!(matches!(&waiting, BuildOutcome::Waiting { reason } if reason.contains("missing")), "{waiting:?}");
    client.batch_execute("CREATE TABLE s.t ()").await.unwrap();
    let taken = build(&client, &config(&total("side", "")).totals[0], LIMITS).await.unwrap_err().to_string();
    assert!(taken.contains("relation s.t exists and is not the total's view"), "{taken}");
}

#[tokio::test]
async fn names_may_contain_quotes_semicolons_and_braces() {
    let client = bets().await;
    let total =
        "[total.\"it's\"]\ntable = \"bet\"\nby = { \"a; b\" = \"game_id\" }\nsums = { \"{long}\" = \"stake\" }\n";
    built(&client, total).await;
    client.batch_execute(FILL).await.unwrap();
    let expected = "SELECT game_id, count(*), sum(stake) FROM s.bet GROUP BY game_id";
    assert_equal(&client, "s.\"it's\"", expected, "filled").await;
    let health = millstream::totals::health::read_health(&client).await.unwrap();
    assert_eq!(health.iter().map(|total| (&*total.total, total.state)).collect::<Vec<_>>(), [("it's", "ready")]);
}

#[tokio::test]
async fn old_buckets_disappear_for_good() {
    let client = bets().await;
    let version = built(&client, BETTING).await;
    client.batch_execute(FILL).await.unwrap();
    let before = Timestamp::parse("2026-01-02T00:00:00Z").unwrap();
    freeze::prune(&client, &version, before, TIMEOUT).await.unwrap();
    let left = "SELECT sum(rows) AS rows, min(hour) >= '2026-01-02Z' AS pruned FROM s.betting";
    assert_eq!(rows(&client, left).await, [r#"{"rows":48,"pruned":true}"#]);
    // Late rows of an old bucket, and a recompute, do not bring it back.
    client.batch_execute("UPDATE s.bet SET stake = 9").await.unwrap();
    let report = millstream::totals::recompute::recompute(&client, &version, false, TIMEOUT).await.unwrap();
    assert_eq!(report.off_by, 0, "{report:?}");
    super::fold_all(&client, &version).await;
    assert_eq!(rows(&client, left).await, [r#"{"rows":48,"pruned":true}"#]);
}
