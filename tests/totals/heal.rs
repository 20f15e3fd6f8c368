//! Whatever was done to a total, or around its triggers: the next recompute heals it and says by how much it was off.

use std::time::Duration;

use millstream::totals::recompute::{recompute, tidy};
use tokio_postgres::Client;

use super::{BETTING, EXPECTED, assert_equal, bets, built, exact, fold_all};
use crate::support::rows;

const TIMEOUT: Duration = Duration::from_secs(60);

const ROWS: &str = "INSERT INTO s.bet SELECT nextval('s.numbers'), '2026-01-01Z'::timestamptz + i * interval '20 min', 1, 'g' || i % 3, \
    's' || i % 2, (ARRAY['placed','changed','won',NULL])[i % 4 + 1], i * 1.5, 1.125 + i, i, \
    '2026-01-01Z'::timestamptz + i * interval '20 min' FROM generate_series(1, 200) i";

/// What is done to the figures; {batch}, {delta} and {columns} are the total's. Each is done twice: with folded figures and with
/// pending deltas.
const FIGURES: &[&str] = &[
    "UPDATE {table} SET rows = rows + 1",
    "UPDATE {table} SET rows = -rows WHERE side = 's1'",
    "UPDATE {table} SET staked = staked + 0.01 WHERE game_id = 'g1'",
    "UPDATE {table} SET staked = 0, open_liability = 1e30, paid = -paid",
    "UPDATE {table} SET staked_count = 0",
    "UPDATE {table} SET open_liability_nan = 1 WHERE game_id = 'g2'",
    "UPDATE {table} SET staked_inf = 1, staked_neg_inf = 1 WHERE game_id = 'g0'",
    "UPDATE {table} SET paid_neg_inf = 1",
    "UPDATE {table} SET game_id = 'other' WHERE game_id = 'g1'",
    "UPDATE {table} SET game_id = NULL, side = NULL",
    "UPDATE {table} SET hour = hour + interval '1 hour'",
    "UPDATE {table} SET hour = NULL WHERE side = 's0'",
    "DELETE FROM {table} WHERE game_id = 'g1'",
    "DELETE FROM {table}",
    "TRUNCATE {table}",
    "INSERT INTO {table} ({columns}) SELECT {columns} FROM {table} WHERE side = 's0'",
    "INSERT INTO {table} ({columns}) SELECT {columns} FROM {table}",
];

/// What is done around the triggers, followed by a change that they miss.
const TRIGGERS: &[(&str, &str)] = &[
    ("ALTER TABLE s.bet DISABLE TRIGGER millstream_betting_v1_insert", ROWS),
    ("ALTER TABLE s.bet DISABLE TRIGGER ALL", ROWS),
    ("ALTER TABLE s.bet_2 DISABLE TRIGGER millstream_betting_v1_delete", "DELETE FROM s.bet_2"),
    ("ALTER TABLE s.bet_1 DISABLE TRIGGER millstream_betting_v1_truncate", "TRUNCATE s.bet_1"),
    ("ALTER TABLE s.bet ENABLE REPLICA TRIGGER millstream_betting_v1_update", "UPDATE s.bet SET stake = stake + 1"),
    ("DROP TRIGGER millstream_betting_v1_update ON s.bet", "UPDATE s.bet SET stake = stake * 2"),
    (
        "DROP TRIGGER millstream_betting_v1_insert ON s.bet_3",
        "INSERT INTO s.bet_3 SELECT 'x', '2026-01-03Z', 1, 'g', 's'",
    ),
    ("SET session_replication_role = replica", "DELETE FROM s.bet WHERE side = 's1'"),
    ("SET session_replication_role = replica", "UPDATE s.bet SET game_id = 'moved'"),
    (
        "CREATE TABLE s.bet_4 (LIKE s.bet); INSERT INTO s.bet_4 SELECT 'y', '2026-01-04Z', 1, 'g', 's', 'won', 5, 1, 1, now()",
        "ALTER TABLE s.bet ATTACH PARTITION s.bet_4 FOR VALUES FROM ('2026-01-04Z') TO ('2026-01-05Z')",
    ),
    (
        "CREATE TABLE s.bet_5 PARTITION OF s.bet FOR VALUES FROM ('2026-01-05Z') TO ('2026-01-06Z')",
        "INSERT INTO s.bet_5 SELECT 'z', '2026-01-05Z', 1, 'g', 's', 'won', 5, 1, 1, now()",
    ),
    (
        "INSERT INTO s.bet_4 SELECT 'x', '2026-01-04Z', 1, 'g', 's'; \
         DROP TRIGGER millstream_betting_v1_insert ON s.bet_4; ALTER TABLE s.bet DETACH PARTITION s.bet_4",
        "DROP TABLE s.bet_4",
    ),
];

struct Patient {
    client: Client,
    version: millstream::totals::TotalVersion,
    expected: String,
}

impl Patient {
    async fn new() -> Self {
        let client = bets().await;
        client.batch_execute("CREATE SEQUENCE s.numbers").await.unwrap();
        let version = built(&client, &BETTING.replace("stake * odds", "stake * odds::numeric")).await;
        Self { client, version, expected: exact(EXPECTED) }
    }

    async fn is_wrong(&self) -> bool {
        let Self { expected, client, .. } = self;
        let difference = format!(
            "(SELECT * FROM s.betting EXCEPT ALL ({expected})) UNION ALL (({expected}) EXCEPT ALL SELECT * FROM s.betting)"
        );
        !rows(client, &difference).await.is_empty()
    }

    async fn is_healed(&self, case: &str) {
        let report = recompute(&self.client, &self.version, false, TIMEOUT).await.unwrap();
        assert!(report.off_by > 0 && !report.groups.is_empty(), "{case}: {report:?}");
        assert_equal(&self.client, "s.betting", &self.expected, case).await;
        for change in [ROWS, "UPDATE s.bet SET stake = stake + 1", "DELETE FROM s.bet WHERE game_id = 'g0'"] {
            self.client.batch_execute(change).await.unwrap();
        }
        assert_equal(&self.client, "s.betting", &self.expected, &format!("{case}, after changes")).await;
        fold_all(&self.client, &self.version).await;
        tidy(&self.client, &self.version, TIMEOUT).await.unwrap();
        assert_equal(&self.client, "s.betting", &self.expected, &format!("{case}, folded and tidied")).await;
        let again = recompute(&self.client, &self.version, false, TIMEOUT).await.unwrap();
        assert_eq!((again.off_by, again.triggers_repaired), (0, 0), "{case}: {again:?}");
        self.client.batch_execute("TRUNCATE s.bet").await.unwrap();
        fold_all(&self.client, &self.version).await;
    }
}

#[tokio::test]
async fn falsified_figures_are_healed_and_reported() {
    let patient = Patient::new().await;
    let columns = "game_id, side, hour, rows, staked, staked_count, staked_nan, staked_inf, staked_neg_inf, open_liability, \
        open_liability_count, open_liability_nan, open_liability_inf, open_liability_neg_inf, paid, paid_count, paid_nan, paid_inf, paid_neg_inf";
    for table in ["millstream.betting_v1_batch", "millstream.betting_v1_delta"] {
        for case in FIGURES {
            patient.client.batch_execute(ROWS).await.unwrap();
            if table.ends_with("batch") {
                fold_all(&patient.client, &patient.version).await;
            }
            let statement = case.replace("{table}", table).replace("{columns}", columns);
            patient.client.batch_execute(&statement).await.unwrap();
            assert!(patient.is_wrong().await, "{statement} did no harm");
            patient.is_healed(&statement).await;
        }
    }
}

#[tokio::test]
async fn what_triggers_missed_is_healed_and_reported() {
    let patient = Patient::new().await;
    for (sabotage, change) in TRIGGERS {
        patient.client.batch_execute(ROWS).await.unwrap();
        patient.client.batch_execute(sabotage).await.unwrap();
        patient.client.batch_execute(change).await.unwrap();
        patient.client.batch_execute("SET session_replication_role = origin").await.unwrap();
        let case = format!("{sabotage}; {change}");
        assert!(patient.is_wrong().await, "{case} did no harm");
        patient.is_healed(&case).await;
    }
}

#[tokio::test]
async fn an_expression_that_fails_lets_the_rows_in_and_marks_the_total() {
    let patient = Patient::new().await;
    let client = &patient.client;
    let broken =
        "SELECT count(*) AS marks, min(relation) AS relation, min(sqlstate) AS sqlstate FROM millstream.total_broken";
    for (breaks, mends) in [
        ("ALTER TABLE s.bet RENAME payout TO paid_out", "ALTER TABLE s.bet RENAME paid_out TO payout"),
        (
            "ALTER TABLE s.bet ALTER payout TYPE text",
            "ALTER TABLE s.bet ALTER payout TYPE numeric(12,2) USING payout::numeric",
        ),
    ] {
        client.batch_execute(ROWS).await.unwrap();
        client.batch_execute(breaks).await.unwrap();
        client.batch_execute(&ROWS.replace(", i,", ", NULL,")).await.unwrap();
        let count = rows(client, "SELECT count(*) FROM s.bet").await;
        assert_eq!(count, [r#"{"count":400}"#], "{breaks}");
        let marks = rows(client, broken).await;
        assert!(marks[0].starts_with(r#"{"marks":1,"relation":"s.bet","sqlstate":"42"#), "{breaks}: {marks:?}");
        recompute(client, &patient.version, false, TIMEOUT).await.unwrap_err();
        client.batch_execute(mends).await.unwrap();
        patient.is_healed(breaks).await;
        assert_eq!(rows(client, broken).await, [r#"{"marks":0,"relation":null,"sqlstate":null}"#], "{breaks}");
    }
}

#[tokio::test]
async fn a_transient_error_in_a_trigger_reaches_the_writer() {
    let patient = Patient::new().await;
    patient.client.batch_execute("BEGIN; LOCK TABLE millstream.betting_v1_delta").await.unwrap();
    let config = patient.client.query_one("SELECT current_database(), inet_server_port()::int", &[]).await.unwrap();
    let (database, port): (String, i32) = (config.get(0), config.get(1));
    let writer = crate::support::client(&format!("postgresql://postgres@127.0.0.1:{port}/{database}")).await;
    writer.batch_execute("SET lock_timeout = '100ms'").await.unwrap();
    let error = writer.batch_execute(ROWS).await.unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("55P03"));
    patient.client.batch_execute("COMMIT").await.unwrap();
    assert!(!patient.is_wrong().await);
    let truncated = writer.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; TRUNCATE s.bet").await.unwrap_err();
    assert_eq!(truncated.code().map(|code| code.code()), Some("55000"));
}
