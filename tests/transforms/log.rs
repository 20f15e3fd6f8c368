//! The entries of a change log: what each statement adds.

use millstream::feed::{FeedSql, FeedState, ensure};

use super::{client, database, ensured, log_of, table_name, tables};
use crate::support::{batch, ingest, rows};

/// The entries of `s.item` since the last call, with the keys and whether the version is that of the row, removed, or another.
async fn entries(client: &tokio_postgres::Client, table: &str) -> Vec<String> {
    let log = log_of(table);
    let query =
        format!("WITH taken AS (DELETE FROM {log} RETURNING *) SELECT n, key_1, version FROM taken ORDER BY xid, id");
    let taken = client.query(&query, &[]).await.unwrap();
    let hashes: Vec<(i64, String)> = client
        .query("SELECT hashtextextended(v, 0), v FROM unnest(ARRAY['a','b','c']) v", &[])
        .await
        .unwrap()
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect();
    let mut found = Vec::new();
    for row in taken {
        let keys: Option<Vec<i64>> = row.get(1);
        let versions: Option<Vec<Option<i64>>> = row.get(2);
        let named = |version: &Option<i64>| match version {
            None => "removed".to_owned(),
            Some(0) => "0".to_owned(),
            Some(hash) => {
                hashes.iter().find(|(known, _)| known == hash).map_or("?".to_owned(), |(_, text)| text.clone())
            }
        };
        let pairs: Vec<String> = keys
            .unwrap_or_default()
            .iter()
            .zip(versions.unwrap_or_default().iter())
            .map(|(key, version)| format!("{key}:{}", named(version)))
            .collect();
        found.push(format!("{} {}", row.get::<_, i32>(0), pairs.join(" ")).trim().to_owned());
    }
    found
}

#[tokio::test]
async fn each_statement_logs_what_it_leaves_behind() {
    let client = tables().await;
    assert!(ensured(&client, "item").await);
    for (statement, expected) in [
        ("INSERT INTO s.item VALUES (1, 1, 0, 'a'), (2, 2, 0, 'b')", &["2 1:a 2:b"][..]),
        ("INSERT INTO s.item_1 VALUES (3, 1, 0, NULL)", &["1 3:0"]),
        ("INSERT INTO s.item SELECT 9, 1, 0, 'a' WHERE false", &[]),
        ("UPDATE s.item SET _version = 'c' WHERE id = 1", &["1 1:c"]),
        // A move to another partition changes the key.
        ("UPDATE s.item SET day = 2 WHERE id = 3", &["2 3:0 3:removed"]),
        ("UPDATE s.item SET id = 5, _version = 'a' WHERE id = 3", &["2 5:a 3:removed"]),
        ("UPDATE s.item_2 SET v = 1 WHERE id = 2", &["1 2:b"]),
        (
            "INSERT INTO s.item VALUES (1, 1, 5, 'b'), (7, 1, 5, 'c') ON CONFLICT (id, day) DO UPDATE SET _version = excluded._version",
            &["1 7:c", "1 1:b"],
        ),
        ("DELETE FROM s.item WHERE id IN (5, 7)", &["2 7:removed 5:removed"]),
        ("COPY s.item FROM PROGRAM 'echo 8,1,0,a' WITH (FORMAT csv)", &["1 8:a"]),
        ("BEGIN; SAVEPOINT x; DELETE FROM s.item WHERE id = 8; ROLLBACK TO x; COMMIT", &[]),
        ("TRUNCATE s.item_1", &["0"]),
        ("TRUNCATE s.item", &["0", "0"]),
    ] {
        client.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"));
        let mut found = entries(&client, "item").await;
        let sorted = |list: &mut Vec<String>| {
            for entry in list.iter_mut() {
                let mut words: Vec<&str> = entry.split(' ').collect();
                words[1..].sort_unstable();
                *entry = words.join(" ");
            }
            list.sort();
        };
        let mut expected: Vec<String> = expected.iter().map(|entry| (*entry).to_owned()).collect();
        sorted(&mut found);
        sorted(&mut expected);
        assert_eq!(found, expected, "{statement}");
    }
}

#[tokio::test]
async fn an_entry_has_the_id_of_the_whole_transaction_and_at_most_10_000_keys() {
    let client = tables().await;
    ensured(&client, "plain").await;
    let log = log_of("plain");
    client.batch_execute("BEGIN; SAVEPOINT a; INSERT INTO s.plain VALUES (-100000, 0)").await.unwrap();
    let ids = format!("SELECT xid::text::bigint = pg_current_xact_id()::text::bigint AS top, version FROM {log}");
    assert_eq!(rows(&client, &ids).await, [r#"{"top":true,"version":[0]}"#]);
    client.batch_execute(&format!("RELEASE a; COMMIT; DELETE FROM {log}")).await.unwrap();
    let largest = format!(
        "SELECT count(*) AS entries, max(n) AS largest, sum(n) AS keys, \
        (SELECT count(DISTINCT k) FROM {log}, unnest(key_1) k) AS found FROM {log}"
    );
    for (statement, expected) in [
        (
            "INSERT INTO s.plain SELECT i, 0 FROM generate_series(1, 10000) i",
            r#"{"entries":1,"largest":10000,"keys":10000,"found":10000}"#,
        ),
        (
            "INSERT INTO s.plain SELECT i, 0 FROM generate_series(10001, 35001) i",
            r#"{"entries":3,"largest":10000,"keys":25001,"found":25001}"#,
        ),
        (
            "UPDATE s.plain SET id = -id WHERE id BETWEEN 1 AND 5000",
            r#"{"entries":1,"largest":10000,"keys":10000,"found":10000}"#,
        ),
        (
            "UPDATE s.plain SET id = -id WHERE id BETWEEN 5001 AND 10001",
            r#"{"entries":2,"largest":10000,"keys":10002,"found":10002}"#,
        ),
        ("DELETE FROM s.plain WHERE id > 10001", r#"{"entries":3,"largest":10000,"keys":25000,"found":25000}"#),
    ] {
        client.batch_execute(statement).await.unwrap();
        assert_eq!(rows(&client, &largest).await, [expected], "{statement}");
        client.batch_execute(&format!("DELETE FROM {log}")).await.unwrap();
    }
}

#[tokio::test]
async fn triggers_fire_in_every_role_and_for_every_writer() {
    let client = tables().await;
    ensured(&client, "plain").await;
    client
        .batch_execute(
            "SET session_replication_role = replica; INSERT INTO s.plain VALUES (1, 0); RESET session_replication_role",
        )
        .await
        .unwrap();
    // A role without any right on the log.
    client
        .batch_execute(
            "DO $$ BEGIN CREATE ROLE log_stranger; EXCEPTION WHEN duplicate_object THEN NULL; END $$; GRANT USAGE ON SCHEMA s TO log_stranger; \
             GRANT INSERT ON s.plain TO log_stranger; SET ROLE log_stranger; INSERT INTO s.plain VALUES (2, 0); RESET ROLE",
        )
        .await
        .unwrap();
    assert_eq!(entries(&client, "plain").await, ["1 1:0", "1 2:0"]);
    client.batch_execute("DROP OWNED BY log_stranger").await.unwrap();
}

const WRITER: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\n\
    [table.event]\nsource = \"s\"\nid = \"id\"\nwhen = { path = \"kind\", is = \"event\" }\n\
    partition = { by = \"at\", every = \"day\" }\ncolumns = { at = { path = \"at\", type = \"timestamptz\" } }\n\
    [table.by_row]\nsource = \"s\"\nkey = [\"id\"]\nversion = \"v\"\nwhen = { path = \"kind\", is = \"row\" }\n\
    [table.by_column]\nsource = \"s\"\nkey = [\"id\"]\nversion = \"v\"\nmerge = \"column\"\nwhen = { path = \"kind\", is = \"column\" }\n";

#[tokio::test]
async fn what_the_writer_writes_is_logged_also_in_partitions_that_it_creates_later() {
    let url = database().await;
    let owner = client(&url).await;
    let mut ingest = ingest(WRITER, &url);
    let document = |kind: &str, id: u32, v: u32, day: u32| {
        format!(r#"{{"kind":"{kind}","id":"i{id}","v":{v},"at":"2026-02-{day:02}T10:00:00Z","x":{v}}}"#)
    };
    let first: Vec<String> = ["event", "row", "column"].iter().map(|kind| document(kind, 1, 1, 8)).collect();
    batch(&mut ingest, 1, &first).await.unwrap();
    for table in ["event", "by_row", "by_column"] {
        assert!(ensured(&owner, table).await, "{table}");
    }
    let keys =
        "SELECT table_name, key_columns, definition::json->>'version' AS version FROM millstream.feed ORDER BY 1";
    assert_eq!(
        rows(&owner, keys).await,
        [
            r#"{"table_name":"by_column","key_columns":["id"],"version":"_versions"}"#,
            r#"{"table_name":"by_row","key_columns":["id"],"version":"_version"}"#,
            r#"{"table_name":"event","key_columns":["at","id"],"version":null}"#,
        ],
        "an event is identified by its id and the column that its table is partitioned by"
    );
    // Rows in the partition that exists, in two that the writer creates, and duplicates.
    let mut second: Vec<String> = (0..200).map(|id| document("event", id, 1, 8)).collect();
    second.extend((200..210).map(|id| document("event", id, 1, 9 + id % 2)));
    second.extend([document("row", 1, 3, 8), document("row", 1, 2, 8), document("row", 2, 1, 8)]);
    second.extend([document("column", 1, 3, 8), document("column", 2, 1, 8)]);
    let report = batch(&mut ingest, 10, &second).await.unwrap();
    assert_eq!((report.counts.duplicate, report.counts.dead_lettered), (1, 0), "{report}");
    for (table, version) in [
        ("event", "0"),
        ("by_row", "hashtextextended(t._version::text, 0)"),
        ("by_column", "hashtextextended(t._versions::text, 0)"),
    ] {
        let log = log_of(table);
        let key = if table == "event" { "key_2" } else { "key_1" };
        let logged = format!(
            "SELECT count(DISTINCT k.id) AS keys, bool_and(t.id IS NOT NULL) AS known FROM {log} l, LATERAL ROWS FROM (unnest(l.{key}), unnest(l.version)) k (id, version) \
             LEFT JOIN s.{table} t ON t.id = k.id AND {version} = k.version"
        );
        let expected = match table {
            "event" => r#"{"keys":209,"known":true}"#,
            _ => r#"{"keys":2,"known":true}"#,
        };
        assert_eq!(rows(&owner, &logged).await, [expected], "{table}");
    }
    assert!(
        millstream::feed::problems::find_problems(&owner)
            .await
            .unwrap()
            .iter()
            .all(|problem| problem.to_string().contains("synchronous_commit"))
    );
}

#[tokio::test]
async fn keys_of_other_schemas_are_compared_by_their_own_operators() {
    let client = tables().await;
    client
        .batch_execute(
            "CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE TYPE s.mood AS ENUM ('ok', 'bad'); CREATE DOMAIN s.code AS varchar(9); \
             CREATE TABLE s.odd (\"Key\" ext.citext, mood s.mood, code s.code, n numeric(9,2), g text COLLATE \"C\", v int, \
             PRIMARY KEY (\"Key\", mood, code, n, g))",
        )
        .await
        .unwrap();
    ensured(&client, "odd").await;
    let transform = super::transform(
        "odd",
        "-- target: s.copy\n-- key: key\n-- changes: s.odd\n-- every: 1 day\n\
         SELECT \"Key\"::text AS key, v FROM millstream.changes(NULL::s.odd) UNION ALL \
         SELECT concat('removed ', \"Key\"), NULL FROM millstream.removed_keys(NULL::s.odd)",
    );
    assert_eq!(super::run_counts(&client, &transform).await, (0, 0, true));
    client
        .batch_execute("INSERT INTO s.odd VALUES ('A', 'ok', 'c', 1, 'ä', 1), ('b', 'bad', 'd', 2, 'x', 2)")
        .await
        .unwrap();
    assert_eq!(super::run_counts(&client, &transform).await, (2, 0, false));
    // The same key in another case is no other key: nothing is removed.
    client.batch_execute("UPDATE s.odd SET \"Key\" = 'a', v = 5 WHERE \"Key\" = 'A'").await.unwrap();
    client.batch_execute("DELETE FROM s.odd WHERE mood = 'bad'").await.unwrap();
    super::run_once(&client, &transform).await;
    assert_eq!(
        rows(&client, "SELECT key, v FROM s.copy ORDER BY key COLLATE \"C\"").await,
        [r#"{"key":"A","v":1}"#, r#"{"key":"a","v":5}"#, r#"{"key":"b","v":2}"#, r#"{"key":"removed b","v":null}"#,]
    );
}

#[tokio::test]
async fn a_table_without_a_suitable_key_has_no_log() {
    let client = tables().await;
    client
        .batch_execute(
            "CREATE TABLE s.keyless (a int); CREATE TABLE s.nullable (a int UNIQUE); CREATE TABLE s.late (a int PRIMARY KEY DEFERRABLE); \
             CREATE TABLE s.listed (a int[] PRIMARY KEY); CREATE VIEW s.seen AS SELECT 1 AS a; CREATE TABLE s.tall (a int, b int) PARTITION BY RANGE (a); \
             CREATE TABLE s.tall_1 PARTITION OF s.tall (PRIMARY KEY (b)) FOR VALUES FROM (1) TO (2); \
             CREATE TABLE s.tall_2 PARTITION OF s.tall FOR VALUES FROM (2) TO (3); CREATE TABLE s.hollow (a int) PARTITION BY RANGE (a); \
             CREATE UNLOGGED TABLE s.volatile (a int PRIMARY KEY); CREATE TABLE s.parent (a int PRIMARY KEY); CREATE TABLE s.child () INHERITS (s.parent)",
        )
        .await
        .unwrap();
    for (table, reason) in [
        ("keyless", "s.keyless has no primary key"),
        ("nullable", "s.nullable has no primary key"),
        ("late", "s.late has no primary key"),
        ("listed", "column a of its key is an array"),
        ("seen", "it is not a table"),
        ("tall", "s.tall_2 has no primary key"),
        ("volatile", "its rows do not survive a crash"),
        ("parent", "tables inherit from it"),
    ] {
        let error = ensure(&client, &table_name(table), 3).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("table s.{table} cannot have a change log: ")), "{error}");
        assert!(error.contains(reason), "{reason} is missing in: {error}");
    }
    for table in ["hollow", "missing"] {
        let state = ensure(&client, &table_name(table), 3).await.unwrap();
        assert!(matches!(state, FeedState::Waiting { .. }), "{table}: {state:?}");
    }
    assert_eq!(rows(&client, "SELECT table_name FROM millstream.feed").await, [""; 0]);
}

#[tokio::test]
async fn a_log_that_is_not_read_any_more_is_removed_with_its_triggers() {
    let client = tables().await;
    ensured(&client, "item").await;
    ensured(&client, "plain").await;
    let removed = millstream::feed::remove_unused(&client, &[table_name("plain")], 10).await.unwrap();
    assert_eq!(removed, [table_name("item")]);
    let left = "SELECT tgrelid::regclass::text AS relation, count(*) AS triggers FROM pg_trigger WHERE tgname ~ '^millstream_feed_' GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(&client, left).await, [r#"{"relation":"s.plain","triggers":4}"#]);
    let objects = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE nspname = 'millstream' AND relname LIKE 'feed_item_%'";
    assert_eq!(rows(&client, objects).await, [r#"{"count":0}"#]);
    assert!(ensured(&client, "item").await, "it can be created once more");
    client.batch_execute("INSERT INTO s.item VALUES (1, 1, 0, 'a')").await.unwrap();
    assert_eq!(entries(&client, "item").await, ["1 1:a"]);
    // A removal that was interrupted leaves functions that do nothing; whoever needs the log creates it anew.
    let functions = FeedSql::new(&table_name("item")).triggers().empty_functions();
    client
        .batch_execute("UPDATE millstream.feed SET ready = false, definition = '' WHERE table_name = 'item'")
        .await
        .unwrap();
    for function in functions {
        client.batch_execute(&function).await.unwrap();
    }
    assert!(ensured(&client, "item").await);
    client.batch_execute("INSERT INTO s.item VALUES (2, 1, 0, 'b')").await.unwrap();
    assert_eq!(entries(&client, "item").await, ["1 2:b"]);
}
