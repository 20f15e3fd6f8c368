//! What the log cannot tell makes a full run, and nothing is passed over.

use millstream::feed::problems::find_problems;
use millstream::feed::retention::retain;
use millstream_tests::postgresql::connect;
use std::time::Duration;
use tokio_postgres::Client;

use super::reads::assert_mirrored;
use super::{MIRROR, client, database, log_of, run_counts, run_once, tables, transform};
use crate::support::{cluster, rows};

/// Problems, without the one that all logs of the tests' cluster have.
async fn problems(client: &Client) -> Vec<String> {
    let found = find_problems(client).await.unwrap();
    let texts = found.iter().map(ToString::to_string);
    texts.filter(|text| !text.contains("synchronous_commit is off for the server")).collect()
}

/// A mirror that is up to date.
async fn mirrored() -> (Client, millstream::transform::TransformFile) {
    let client = tables().await;
    client.batch_execute("INSERT INTO s.item SELECT i, 1 + i % 2, i FROM generate_series(1, 6) i").await.unwrap();
    let mirror = transform("mirror", &MIRROR.replace("-- every", "-- full_run: replace\n-- every"));
    assert!(run_once(&client, &mirror).await.full_run);
    (client, mirror)
}

#[tokio::test]
async fn what_was_written_without_triggers_is_read_with_the_whole_table() {
    let (client, mirror) = mirrored().await;
    for (statement, problem) in [
        (
            "ALTER TABLE s.item_1 DISABLE TRIGGER ALL; UPDATE s.item_1 SET v = 100; ALTER TABLE s.item_1 ENABLE TRIGGER ALL",
            Some("triggers on s.item_1 do not always fire"),
        ),
        (
            "CREATE TABLE s.item_3 (LIKE s.item INCLUDING ALL); INSERT INTO s.item_3 VALUES (9, 3, 9); \
             ALTER TABLE s.item ATTACH PARTITION s.item_3 FOR VALUES FROM (3) TO (4)",
            Some("triggers on s.item_3 are missing"),
        ),
        (
            "CREATE TABLE s.item_4 PARTITION OF s.item FOR VALUES FROM (4) TO (5)",
            Some("triggers on s.item_4 are missing"),
        ),
        ("TRUNCATE s.item_2", None),
        ("TRUNCATE s.item", None),
        (
            "ALTER TABLE s.item RENAME COLUMN id TO other; INSERT INTO s.item VALUES (1, 1, 1); ALTER TABLE s.item RENAME COLUMN other TO id",
            None,
        ),
    ] {
        client.batch_execute(statement).await.unwrap();
        let found = problems(&client).await;
        match problem {
            Some(problem) => assert!(found.len() == 1 && found[0].contains(problem), "{statement}: {found:?}"),
            None => assert_eq!(found, [""; 0], "{statement}"),
        }
        assert!(run_once(&client, &mirror).await.full_run, "{statement}");
        assert_mirrored(&client, statement).await;
        assert_eq!(problems(&client).await, [""; 0], "{statement}");
        client
            .batch_execute("INSERT INTO s.item VALUES (50, 1, 50) ON CONFLICT (id, day) DO UPDATE SET v = s.item.v + 1")
            .await
            .unwrap();
        let (written, deleted, full) = run_counts(&client, &mirror).await;
        assert_eq!((written, deleted, full), (1, 0, false), "{statement}");
    }
}

#[tokio::test]
async fn a_key_with_another_type_begins_the_log_anew() {
    let (client, mirror) = mirrored().await;
    client.batch_execute("ALTER TABLE s.plain ALTER COLUMN id TYPE text").await.unwrap();
    client.batch_execute("CREATE TABLE s.keyed (id bigint PRIMARY KEY, v text)").await.unwrap();
    let keyed = transform(
        "keyed",
        "-- target: s.copy\n-- key: id\n-- changes: s.keyed\n-- every: 1 day\nSELECT id::text, v FROM millstream.changes(NULL::s.keyed)",
    );
    run_once(&client, &keyed).await;
    client.batch_execute("INSERT INTO s.keyed VALUES (1, 'a'); ALTER TABLE s.keyed ALTER COLUMN id TYPE text; INSERT INTO s.keyed VALUES ('x', 'b')").await.unwrap();
    assert_eq!(run_counts(&client, &keyed).await, (2, 0, true));
    client.batch_execute("INSERT INTO s.keyed VALUES ('y', 'c')").await.unwrap();
    assert_eq!(run_counts(&client, &keyed).await, (1, 0, false));
    assert_eq!(run_counts(&client, &mirror).await, (0, 0, false));
}

#[tokio::test]
async fn dropping_a_partition_is_not_a_delete_and_attaching_one_is_read() {
    let (client, mirror) = mirrored().await;
    client.batch_execute("ALTER TABLE s.item DETACH PARTITION s.item_2").await.unwrap();
    assert_eq!(run_counts(&client, &mirror).await, (0, 0, false), "the rows of a detached partition are not removed");
    client
        .batch_execute(
            "UPDATE s.item_2 SET v = 200; DELETE FROM s.item_2 WHERE id = 1; INSERT INTO s.item_2 VALUES (20, 2, 20)",
        )
        .await
        .unwrap();
    // A deleted row of a detached partition is gone: the log says so.
    assert_eq!(run_counts(&client, &mirror).await, (0, 1, false));
    client.batch_execute("ALTER TABLE s.item ATTACH PARTITION s.item_2 FOR VALUES FROM (2) TO (3)").await.unwrap();
    assert!(run_once(&client, &mirror).await.full_run, "it has been passed over while it was detached");
    assert_mirrored(&client, "attached").await;
    // Between two runs, nobody notices.
    client
        .batch_execute(
            "ALTER TABLE s.item DETACH PARTITION s.item_2; UPDATE s.item_2 SET v = 300 WHERE id = 20; \
             ALTER TABLE s.item ATTACH PARTITION s.item_2 FOR VALUES FROM (2) TO (3)",
        )
        .await
        .unwrap();
    assert_eq!(run_counts(&client, &mirror).await, (1, 0, false));
    assert_mirrored(&client, "attached between two runs").await;
    client.batch_execute("ALTER TABLE s.item DETACH PARTITION s.item_2 CONCURRENTLY").await.unwrap();
    client.batch_execute("DROP TABLE s.item_2; INSERT INTO s.item VALUES (60, 1, 60)").await.unwrap();
    assert_eq!(run_counts(&client, &mirror).await, (1, 0, false));
    let kept = "SELECT count(*) > 0 AS kept FROM s.mirror WHERE day = 2";
    assert_eq!(rows(&client, kept).await, [r#"{"kept":true}"#], "dropping a partition is not a delete");
}

#[tokio::test]
async fn a_restored_database_reads_everything_once_more() {
    let url = database().await;
    let owner = client(&url).await;
    owner.batch_execute(super::TABLES).await.unwrap();
    owner.batch_execute("INSERT INTO s.item VALUES (1, 1, 1), (2, 1, 2)").await.unwrap();
    let mirror = transform("mirror", MIRROR);
    run_once(&owner, &mirror).await;
    owner.batch_execute("INSERT INTO s.item VALUES (3, 1, 3)").await.unwrap();
    // The floor and an entry with a transaction ID that this cluster has not reached.
    let floor = millstream::feed::FeedSql::new(&super::table_name("item")).floor();
    owner
        .batch_execute(&format!(
            "SELECT setval('{floor}', 4000000000); UPDATE {} SET xid = '4000000000'",
            log_of("item")
        ))
        .await
        .unwrap();
    let copy = database().await;
    let restored = connect(&copy).await.unwrap();
    let dump = cluster().dump(&url).unwrap();
    restore(&restored, &dump).await;
    assert_eq!(rows(&restored, &format!("SELECT count(*) FROM {}", log_of("item"))).await, [r#"{"count":1}"#]);
    let report = run_once(&restored, &mirror).await;
    assert!(report.full_run);
    assert_mirrored(&restored, "restored").await;
    assert_eq!(rows(&restored, &format!("SELECT count(*) FROM {}", log_of("item"))).await, [r#"{"count":0}"#]);
    restored.batch_execute("INSERT INTO s.item VALUES (4, 1, 4)").await.unwrap();
    assert_eq!(run_counts(&restored, &mirror).await, (1, 0, false), "the old floor is gone");
}

/// Restores a dump in plain text, whose rows follow `COPY … FROM stdin`.
async fn restore(client: &Client, dump: &str) {
    use bytes::Bytes;
    use futures_util::SinkExt;
    let mut script = String::new();
    let mut lines = dump.lines();
    while let Some(line) = lines.next() {
        // pg_dump may be newer than the server.
        if line.starts_with("SET transaction_timeout") {
            continue;
        }
        script.push_str(line);
        script.push('\n');
        if line.starts_with("COPY ") {
            let copy = script.trim_end().rfind("COPY ").unwrap();
            client.batch_execute(&script[..copy]).await.unwrap();
            let mut data = String::new();
            for row in lines.by_ref().take_while(|row| *row != "\\.") {
                data.push_str(row);
                data.push('\n');
            }
            let mut sink = Box::pin(client.copy_in(script[copy..].trim().trim_end_matches(';')).await.unwrap());
            sink.send(Bytes::from(data)).await.unwrap();
            sink.close().await.unwrap();
            script.clear();
        }
    }
    client.batch_execute(&script).await.unwrap();
    client.batch_execute("RESET ALL").await.unwrap();
}

#[tokio::test]
async fn entries_that_are_not_kept_any_more_make_a_full_run() {
    let (client, mirror) = mirrored().await;
    let other = transform("other", &MIRROR.replace("s.mirror", "s.other"));
    client.batch_execute("INSERT INTO s.item VALUES (70, 1, 70)").await.unwrap();
    let log = log_of("item");
    // Snapshots tell of the transactions of all databases: one that is older than the entries must have ended.
    let is_past = format!(
        "SELECT FROM millstream.transform_cursor WHERE transform = 'other' AND pg_snapshot_xmin(seen) > ALL (SELECT xid FROM {log})"
    );
    run_once(&client, &other).await;
    while client.query(&is_past, &[]).await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        run_once(&client, &other).await;
    }
    // As if the entries were of another day.
    client.batch_execute(&format!("UPDATE {log} SET slot = (slot + 5) % 10")).await.unwrap();
    let slot: i16 = client.query_one(&format!("SELECT DISTINCT slot FROM {log}"), &[]).await.unwrap().get(0);
    let leaf = millstream::feed::FeedSql::new(&super::table_name("item")).slot(slot);
    let holder = connect(&database_of(&client).await).await.unwrap();
    holder.batch_execute(&format!("BEGIN; LOCK TABLE {leaf} IN ROW EXCLUSIVE MODE")).await.unwrap();
    // A transaction that has written to the slot is open: its time has not begun to count.
    assert_eq!(retain(&client, Duration::ZERO).await.unwrap(), Default::default());
    assert_eq!(rows(&client, "SELECT slot FROM millstream.feed_slot").await, [""; 0]);
    holder.batch_execute("COMMIT").await.unwrap();
    assert_eq!(retain(&client, Duration::from_secs(3_600)).await.unwrap(), Default::default());
    assert_eq!(rows(&client, "SELECT slot FROM millstream.feed_slot").await, [format!("{{\"slot\":{slot}}}")]);
    assert_eq!(retain(&client, Duration::from_secs(3_600)).await.unwrap(), Default::default(), "its time is not over");
    client.batch_execute("UPDATE millstream.feed_slot SET closed_at = closed_at - interval '2 hours'").await.unwrap();
    // A reader holds a lock on the log: retention waits for the next run, and no writer waits for it.
    holder.batch_execute(&format!("BEGIN; LOCK TABLE {log} IN ACCESS SHARE MODE")).await.unwrap();
    let postponed = retain(&client, Duration::from_secs(3_600)).await.unwrap();
    assert!(postponed.postponed.len() == 1 && postponed.emptied.is_empty(), "{postponed:?}");
    holder.batch_execute("COMMIT").await.unwrap();
    let emptied = retain(&client, Duration::from_secs(3_600)).await.unwrap();
    assert_eq!((emptied.emptied, emptied.postponed), (vec![leaf], Vec::new()));
    assert_eq!(rows(&client, &format!("SELECT count(*) FROM {log}")).await, [r#"{"count":0}"#]);
    // The transform that has read everything goes on; the other one gets the whole table.
    client.batch_execute("INSERT INTO s.item VALUES (71, 1, 71)").await.unwrap();
    assert_eq!(run_counts(&client, &other).await, (1, 0, false));
    assert!(run_once(&client, &mirror).await.full_run);
    assert_mirrored(&client, "after retention").await;
}

async fn database_of(client: &Client) -> String {
    let name: String = client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    cluster().url(&name)
}

#[tokio::test]
async fn what_writes_past_the_log_or_is_not_durable_is_reported() {
    let (client, _mirror) = mirrored().await;
    let found = find_problems(&client).await.unwrap();
    let texts: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|text| text.contains("synchronous_commit is off for the server")), "{texts:?}");
    let name: String = client.query_one("SELECT current_database()::text", &[]).await.unwrap().get(0);
    client.batch_execute(&format!("ALTER DATABASE {name} SET synchronous_commit = on")).await.unwrap();
    let fresh = connect(&cluster().url(&name)).await.unwrap();
    assert_eq!(find_problems(&fresh).await.unwrap(), []);
    fresh
        .batch_execute(&format!(
            "CREATE ROLE {name}_lax; ALTER ROLE {name}_lax IN DATABASE {name} SET synchronous_commit = off"
        ))
        .await
        .unwrap();
    let found = problems(&fresh).await;
    assert!(found.len() == 1 && found[0].contains(&format!("off for the role {name}_lax")), "{found:?}");
    fresh.batch_execute(&format!("DROP ROLE {name}_lax")).await.unwrap();
    // A subscription that is not connected names its tables all the same.
    fresh
        .batch_execute(
            "CREATE SUBSCRIPTION log_test CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, slot_name = NONE); \
             INSERT INTO pg_subscription_rel (srsubid, srrelid, srsubstate) SELECT oid, 's.item_1'::regclass, 'r' FROM pg_subscription WHERE subname = 'log_test'",
        )
        .await
        .unwrap();
    let found = problems(&fresh).await;
    assert!(found.len() == 1 && found[0].contains("a subscription writes to s.item_1"), "{found:?}");
    fresh.batch_execute("DROP SUBSCRIPTION log_test").await.unwrap();
}

/// The triggers of the log are created before the rows are attached.
#[tokio::test]
async fn restored_rows_that_are_attached_are_read() {
    use millstream::timestamp::Timestamp;
    let client = tables().await;
    client
        .batch_execute(
            "CREATE TABLE s.event (id bigint, at timestamptz NOT NULL, PRIMARY KEY (id, at)) PARTITION BY RANGE (at); \
             CREATE TABLE s.event_2 PARTITION OF s.event FOR VALUES FROM ('2026-01-02Z') TO ('2026-01-03Z'); \
             CREATE TABLE s.event_1 (LIKE s.event INCLUDING ALL); INSERT INTO s.event_1 VALUES (1, '2026-01-01 10:00Z')",
        )
        .await
        .unwrap();
    let copy = transform(
        "copy",
        "-- target: s.copy\n-- key: id\n-- changes: s.event\n-- every: 1 day\nSELECT id FROM millstream.changes(NULL::s.event)",
    );
    assert_eq!(run_counts(&client, &copy).await, (0, 0, true));
    let bounds = ["2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"].map(|text| Timestamp::parse(text).unwrap());
    let (table, partition) = (super::table_name("event"), super::table_name("event_1"));
    let attach = millstream::totals::freeze::attach_restored(
        &client,
        &table,
        &partition,
        (bounds[0], bounds[1]),
        Duration::from_secs(60),
    );
    attach.await.unwrap();
    assert_eq!(problems(&client).await, [""; 0]);
    assert_eq!(run_counts(&client, &copy).await, (1, 0, true));
    assert_eq!(run_counts(&client, &copy).await, (0, 0, false));
}
