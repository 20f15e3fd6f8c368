//! Single statements, each compared with SQL's own sums before and after folding.

use std::time::Duration;

use millstream::totals::recompute::recompute;

use super::{BETTING, EXPECTED, assert_equal, bets, built, exact, fold_all};

const STATEMENTS: &[&str] = &[
    "INSERT INTO s.bet SELECT i::text, '2026-01-01Z'::timestamptz + i * interval '1 hour', 1, 'g' || i % 3, 's' || i % 2, \
     (ARRAY['placed','changed','won',NULL])[i % 4 + 1], i * 1.5, 1.1 + i, i, '2026-01-01Z'::timestamptz + i * interval '20 min' \
     FROM generate_series(1, 70) i",
    "UPDATE s.bet SET stake = stake + 1 WHERE bet_id::int % 3 = 0",
    "UPDATE s.bet SET status = 'cancelled' WHERE bet_id::int % 7 = 0",
    "UPDATE s.bet SET status = 'placed', game_id = NULL WHERE bet_id::int % 14 = 0",
    "UPDATE s.bet SET day = day + interval '1 day' WHERE bet_id = '3'",
    "DELETE FROM s.bet WHERE bet_id::int % 5 = 0",
    "INSERT INTO s.bet_2 VALUES ('a', '2026-01-02Z', 1, 'leaf', repeat('x', 5000), 'placed', 5, 2, NULL, NULL)",
    "INSERT INTO s.bet VALUES ('3', '2026-01-02 03:00Z', 2, 'g', 's', 'placed', 9, 3, 1, now()), ('b', '2026-01-02Z', 2, 'g', 's', 'placed', 9, 3, 1, now()) \
     ON CONFLICT (bet_id, day) DO UPDATE SET stake = EXCLUDED.stake, v = EXCLUDED.v",
    "UPDATE s.bet SET stake = 'NaN' WHERE bet_id = 'b'",
    "UPDATE s.bet SET stake = 'Infinity' WHERE bet_id IN ('1', '2')",
    "UPDATE s.bet SET odds = 'NaN' WHERE bet_id IN ('4', '6')",
    "UPDATE s.bet SET odds = 0.1234567890123456, stake = 2 WHERE bet_id IN ('4', '6')",
    "UPDATE s.bet SET stake = 1.25",
    "UPDATE s.bet SET stake = stake",
    "TRUNCATE s.bet_1",
    "TRUNCATE s.bet",
];

#[tokio::test]
async fn a_total_equals_the_sums_after_every_statement() {
    let client = bets().await;
    let betting = BETTING.replace("stake * odds", "stake * odds::numeric");
    let version = built(&client, &betting).await;
    let expected = exact(EXPECTED);
    for statement in STATEMENTS {
        client.batch_execute(statement).await.unwrap();
        assert_equal(&client, "s.betting", &expected, statement).await;
        fold_all(&client, &version).await;
        assert_equal(&client, "s.betting", &expected, &format!("folded: {statement}")).await;
    }
    let report = recompute(&client, &version, false, Duration::from_secs(60)).await.unwrap();
    assert_eq!((report.off_by, report.triggers_repaired), (0, 0), "{report:?}");
}
