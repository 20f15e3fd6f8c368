//! What a transform does with its target.

use super::{run_counts, run_error, run_once, tables, transform};
use crate::support::rows;

#[tokio::test]
async fn a_target_is_created_and_keeps_its_identity() {
    let client = tables().await;
    client.batch_execute("INSERT INTO s.plain VALUES (1, 10), (2, 20)").await.unwrap();
    let copy = transform(
        "copy",
        "-- target: report.copy\n-- key: id\n-- every: 1 day\nSELECT id, v AS \"The value\" FROM s.plain -- all;\n;",
    );
    assert_eq!(run_counts(&client, &copy).await, (2, 0, true));
    let made = "SELECT obj_description('report.copy'::regclass) AS note, (SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum) \
        FROM pg_attribute WHERE attrelid = 'report.copy'::regclass AND attnum > 0) AS columns, \
        (SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'report.copy'::regclass AND contype = 'p') AS key";
    assert_eq!(
        rows(&client, made).await,
        [r#"{"note":"Millstream: transform copy","columns":"id bigint, The value bigint","key":"PRIMARY KEY (id)"}"#]
    );
    client.batch_execute("CREATE VIEW report.seen AS SELECT sum(\"The value\") AS sum FROM report.copy").await.unwrap();
    let identity = "SELECT 'report.copy'::regclass::oid::text AS oid, (SELECT string_agg(xmin::text, ' ' ORDER BY id) FROM report.copy WHERE id < 3) AS rows";
    let before = rows(&client, identity).await;
    // Equal rows are not written.
    assert_eq!(run_counts(&client, &copy).await, (0, 0, true));
    client.batch_execute("INSERT INTO s.plain VALUES (3, 30)").await.unwrap();
    assert_eq!(run_counts(&client, &copy).await, (1, 0, true));
    assert_eq!(rows(&client, identity).await, before);
    client.batch_execute("DELETE FROM s.plain WHERE id = 1; UPDATE s.plain SET v = NULL WHERE id = 2").await.unwrap();
    assert_eq!(run_counts(&client, &copy).await, (1, 1, true));
    assert_eq!(rows(&client, "SELECT sum FROM report.seen").await, [r#"{"sum":30}"#]);
}

#[tokio::test]
async fn a_target_without_a_key_is_replaced_as_a_whole() {
    let client = tables().await;
    client.batch_execute("INSERT INTO s.plain VALUES (1, 10), (2, 10)").await.unwrap();
    let list = transform("list", "-- target: s.list\n-- every: 1 day\nSELECT v, count(*) FROM s.plain GROUP BY v");
    assert_eq!(run_counts(&client, &list).await, (1, 0, true));
    assert_eq!(run_counts(&client, &list).await, (1, 1, true));
    assert_eq!(rows(&client, "SELECT * FROM s.list").await, [r#"{"v":10,"count":2}"#]);
}

#[tokio::test]
async fn rows_are_merged_by_key_and_removed_where_the_query_says_so() {
    let client = tables().await;
    let upsert = transform(
        "upsert",
        "-- target: s.merged\n-- key: id\n-- mode: upsert\n-- every: 1 day\nSELECT id, v, v < 0 AS _deleted FROM s.plain WHERE v <> 0",
    );
    client.batch_execute("INSERT INTO s.plain VALUES (1, 1), (2, 2)").await.unwrap();
    assert_eq!(run_counts(&client, &upsert).await, (2, 0, true));
    client.batch_execute("UPDATE s.plain SET v = 0 WHERE id = 1; UPDATE s.plain SET v = -1 WHERE id = 2; INSERT INTO s.plain VALUES (3, 3)").await.unwrap();
    assert_eq!(run_counts(&client, &upsert).await, (1, 1, true), "a row that is not returned stays");
    assert_eq!(rows(&client, "SELECT * FROM s.merged ORDER BY id").await, [r#"{"id":1,"v":1}"#, r#"{"id":3,"v":3}"#]);
}

#[tokio::test]
async fn values_of_any_type_are_compared_and_none_is_changed_silently() {
    let client = tables().await;
    client
        .batch_execute("CREATE TABLE s.typed (id int PRIMARY KEY, j json, n numeric(6,2), t varchar(3), f float8, a text[], extra text DEFAULT 'kept')")
        .await
        .unwrap();
    let query = |values: &str| {
        transform(
            "typed",
            &format!(
                "-- target: s.typed\n-- key: id\n-- every: 1 day\nSELECT * FROM (VALUES {values}) AS v (id, j, n, t, f, a)"
            ),
        )
    };
    let row = "(1, '{\"a\": 1}'::json, 1.50, 'abc', 'NaN'::float8, ARRAY['x', NULL])";
    assert_eq!(run_counts(&client, &query(row)).await, (1, 0, true));
    assert_eq!(run_counts(&client, &query(row)).await, (0, 0, true));
    assert_eq!(
        run_counts(&client, &query(&row.replace("{\"a\"", "{ \"a\""))).await,
        (1, 0, true),
        "another text of the same JSON"
    );
    assert_eq!(rows(&client, "SELECT extra FROM s.typed").await, [r#"{"extra":"kept"}"#]);
    let error = run_error(&client, &query(&row.replace("'abc'", "'abcd'"))).await;
    assert!(error.contains("[SQLSTATE 22001]"), "{error}");
    let error = run_error(&client, &query(&row.replace("1.50", "'x'::text"))).await;
    assert!(error.contains("table s.typed: column \"n\" is of type numeric but expression is of type text"), "{error}");
}

#[tokio::test]
async fn a_transform_does_not_take_over_a_table_of_somebody_else() {
    let client = tables().await;
    client
        .batch_execute(
            "INSERT INTO s.plain VALUES (1, 1); CREATE VIEW s.view AS SELECT 1 AS id; COMMENT ON TABLE s.item IS 'Millstream: source s'; \
             CREATE TABLE s.adopted (id bigint PRIMARY KEY); COMMENT ON TABLE s.adopted IS 'For the report.'; \
             CREATE TABLE s.unindexed (id bigint); CREATE TABLE s.computed (id bigint PRIMARY KEY, v bigint GENERATED ALWAYS AS (id) STORED)",
        )
        .await
        .unwrap();
    let into = |target: &str, columns: &str| {
        transform("t", &format!("-- target: s.{target}\n-- key: id\n-- every: 1 day\nSELECT {columns}"))
    };
    for (target, columns, reason) in [
        (
            "plain",
            "2::bigint AS id",
            "transforms/t.sql:1:12: table s.plain has rows that this transform has not written",
        ),
        ("view", "1 AS id", "transforms/t.sql:1:12: s.view exists and is not a table"),
        ("item", "1 AS id", "transforms/t.sql:1:12: table s.item belongs to source s"),
        ("item_1", "1 AS id, 1 AS day", "no unique index on (\"id\")"),
        (
            "unindexed",
            "1 AS id",
            "no unique index on (\"id\"); create one: ALTER TABLE \"s\".\"unindexed\" ADD PRIMARY KEY (\"id\")",
        ),
        ("adopted", "1 AS id, 2 AS other", "ALTER TABLE \"s\".\"adopted\" ADD COLUMN \"other\" integer"),
        ("adopted", "1 AS other", "the query does not return column \"id\" of the key"),
        ("computed", "1 AS id, 1 AS v", "column \"v\" of table s.computed is generated"),
        (
            "adopted",
            "* FROM (VALUES (1), (1), (2)) AS v (id)",
            "transforms/t.sql:4:1: the query returns several rows for one key (id; keys: 1)",
        ),
        ("adopted", "NULL::bigint AS id", "the key is NULL (id; rows: 1)"),
        ("adopted", "1 AS id, true AS _deleted", "needs `-- mode: upsert`"),
        ("adopted", "1 AS id, 1 AS _deleted", "must be boolean, not integer"),
    ] {
        let error = run_error(&client, &into(target, columns)).await;
        assert!(error.contains(reason), "{reason} is missing in: {error}");
    }
    assert_eq!(rows(&client, "SELECT * FROM s.plain").await, [r#"{"id":1,"v":1}"#]);
    // An empty table of the owner is filled, and keeps its comment; so is one that the owner has marked.
    run_once(&client, &into("adopted", "7 AS id")).await;
    client.batch_execute("COMMENT ON TABLE s.plain IS 'Millstream: transform t'").await.unwrap();
    assert_eq!(run_counts(&client, &into("plain", "2::bigint AS id")).await, (1, 1, true));
    let comment = "SELECT obj_description('s.adopted'::regclass) AS comment";
    assert_eq!(rows(&client, comment).await, [r#"{"comment":"For the report.\nMillstream: transform t"}"#]);
    let error =
        run_error(&client, &transform("u", "-- target: s.adopted\n-- key: id\n-- every: 1 day\nSELECT 1 AS id")).await;
    assert!(error.contains("belongs to transform t"), "{error}");
}
