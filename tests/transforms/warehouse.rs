//! The transform of the sample system.

use millstream_tests::process::workspace;

use super::{client, database, run_counts, transform};
use crate::support::rows;

/// The tables, as the writer creates them from the configuration of the sample.
const TABLES: &str = "CREATE SCHEMA payments; \
    CREATE TABLE payments.user_created (id text, occurred_at timestamptz NOT NULL, user_id uuid NOT NULL) PARTITION BY RANGE (occurred_at); \
    CREATE TABLE payments.user_created_1 PARTITION OF payments.user_created (PRIMARY KEY (id)) FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z'); \
    CREATE TABLE payments.user_verified (id text, occurred_at timestamptz NOT NULL, user_id uuid NOT NULL) PARTITION BY RANGE (occurred_at); \
    CREATE TABLE payments.user_verified_1 PARTITION OF payments.user_verified (PRIMARY KEY (id)) FOR VALUES FROM ('2026-01-01Z') TO ('2026-02-01Z')";

/// Users 1 to 300, created one every 20 minutes.
const CREATED: &str = "INSERT INTO payments.user_created SELECT 'c' || i, '2026-01-01Z'::timestamptz + i * interval '20 min', \
    ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid FROM generate_series(1, 300) i";

/// Some of them are verified, each after as many minutes as its number.
fn verified(condition: &str) -> String {
    format!(
        "INSERT INTO payments.user_verified SELECT 'v' || i, '2026-01-01Z'::timestamptz + i * interval '21 min', \
         ('00000000-0000-0000-0000-' || lpad(i::text, 12, '0'))::uuid FROM generate_series(1, 300) i WHERE {condition}"
    )
}

#[tokio::test]
async fn verification_velocity_follows_its_events_day_by_day() {
    let client = client(&database().await).await;
    client.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    client.batch_execute(TABLES).await.unwrap();
    let file = workspace().join("events/warehouse/transforms/verification_velocity.sql");
    let velocity = transform("verification_velocity", &std::fs::read_to_string(file).unwrap());
    let expected = "SELECT c.occurred_at::date AS day, count(*) AS created, count(v.id) AS verified, \
        percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM v.occurred_at - c.occurred_at)::float8) AS median_seconds, \
        percentile_cont(0.9) WITHIN GROUP (ORDER BY extract(epoch FROM v.occurred_at - c.occurred_at)::float8) AS p90_seconds \
        FROM payments.user_created c LEFT JOIN payments.user_verified v USING (user_id) GROUP BY 1 ORDER BY 1";
    for (statement, written, full) in [
        ("SELECT 1".to_owned(), 0, true),
        (CREATED.to_owned(), 5, false),
        (verified("i % 3 = 0"), 5, false),
        // One user of the first day: only that day is computed anew.
        (verified("i = 1"), 1, false),
        ("SELECT 1".to_owned(), 0, false),
    ] {
        client.batch_execute(&statement).await.unwrap();
        assert_eq!(run_counts(&client, &velocity).await, (written, 0, full), "{statement}");
        let found = rows(&client, "SELECT * FROM payments.verification_velocity ORDER BY day").await;
        assert_eq!(found, rows(&client, expected).await, "{statement}");
    }
    let first = "SELECT created, verified, median_seconds FROM payments.verification_velocity WHERE day = '2026-01-01'";
    assert_eq!(rows(&client, first).await, [r#"{"created":71,"verified":24,"median_seconds":2070}"#]);
}
