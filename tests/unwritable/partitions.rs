//! Partitions that their owner made.

use super::{PLENTY, SEGMENT, Unwritable, documents, process};
use crate::support::{adopt, client, database, ingest, rows, sample};

/// An owner's table that is partitioned by milliseconds since 1970, as `epoch-partitions.sql` creates it.
const EPOCH: &str = "CREATE SCHEMA s; CREATE TABLE s.e (id text, received_at bigint NOT NULL) PARTITION BY RANGE (received_at); \
    CREATE TABLE s.e_p1 PARTITION OF s.e FOR VALUES FROM (1770508800000) TO (1770595200000)";

#[tokio::test]
async fn partitions_by_epoch_of_an_owner_s_table_keep_nothing_waiting() {
    let url = database().await;
    let owner = client(&url).await;
    owner.batch_execute(EPOCH).await.unwrap();
    let report = process(&mut ingest(SEGMENT, &url), &sample("epoch-partitions.json")).await;
    assert_eq!((report.counts.applied, report.unwritable_tables), (2, 0), "{report}");
    assert_eq!(rows(&owner, "SELECT id FROM s.good_event").await, [r#"{"id":"m-55"}"#]);
    assert_eq!(rows(&owner, "SELECT count(*) FROM s.e").await, [r#"{"count":0}"#], "the owner's table is not filled");
}

#[tokio::test]
async fn partitions_by_epoch_of_an_adopted_table_cost_its_records() {
    let url = database().await;
    let owner = client(&url).await;
    owner.batch_execute(EPOCH).await.unwrap();
    adopt(&owner, "s.e", "source s, track E", ".*").await;
    let case = Unwritable {
        config: SEGMENT,
        url: &url,
        event: &sample("epoch-partitions.json"),
        table: "s.e",
        applied: 1,
        rejected: 1,
    };
    let planned = case.dry_run().await;
    assert!(planned.contains("-- table s.e cannot be written"), "{planned}");
    let message = case.until_fixed(&owner).await;
    assert!(message.contains(r#"partitioned by column "received_at", which is bigint"#), "{message}");
    assert!(message.contains(r#"run: ALTER TABLE "s"."e" RENAME TO "e_kept""#), "{message}");
}

#[tokio::test]
async fn rows_of_a_foreign_partition_cost_only_themselves() {
    let url = database().await;
    let owner = client(&url).await;
    let mut keeping = ingest(SEGMENT, &url);
    process(&mut keeping, &sample("foreign-partition-1.json")).await;
    let swap = "CREATE EXTENSION file_fdw; CREATE SERVER f FOREIGN DATA WRAPPER file_fdw; \
        ALTER TABLE s.e DETACH PARTITION s.e_p20260325; DROP TABLE s.e_p20260325; \
        CREATE FOREIGN TABLE s.e_p20260325 PARTITION OF s.e FOR VALUES FROM ('2026-03-25 00:00Z') TO ('2026-03-26 00:00Z') \
        SERVER f OPTIONS (filename '/dev/null', format 'csv')";
    owner.batch_execute(swap).await.unwrap();
    let event = sample("foreign-partition-3.json");
    // The process still believes that the partition is a table.
    let report = keeping.process_event(&event, PLENTY).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry, report.unwritable_tables), (2, 1, 1), "{report}");
    owner.batch_execute("DROP TABLE s.good_event; DELETE FROM s.e_p20260326").await.unwrap();
    let case = Unwritable { config: SEGMENT, url: &url, event: &event, table: "s.e", applied: 2, rejected: 1 };
    let message = case.until_fixed(&owner).await;
    let remedy = r#"run: ALTER TABLE "s"."e" DETACH PARTITION "s"."e_p20260325""#;
    assert!(message.contains("partition s.e_p20260325 is a foreign table") && message.contains(remedy), "{message}");
    assert_eq!(rows(&owner, "SELECT id FROM s.e ORDER BY id").await, [r#"{"id":"late"}"#, r#"{"id":"today"}"#]);
}

/// Events with an id and a time, and their neighbours.
const READINGS: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\n\
    [table.reading]\nsource = \"s\"\nwhen = { path = \"kind\", is = \"reading\" }\nid = \"id\"\n\
    partition = { by = \"at\", every = \"day\" }\n\
    [table.note]\nsource = \"s\"\nwhen = { path = \"kind\", is = \"note\" }\n";

fn reading(id: u32, at: &str) -> String {
    format!(r#"{{"kind":"reading","id":"{id}","at":"2026-03-{at}:00Z"}}"#)
}

const NOTE: &str = r#"{"kind":"note","text":"a neighbour"}"#;

#[tokio::test]
async fn rows_without_a_sub_partition_cost_only_themselves() {
    let url = database().await;
    let owner = client(&url).await;
    process(&mut ingest(READINGS, &url), &documents(&[reading(0, "24T10:00"), NOTE.to_owned()])).await;
    let day = "CREATE TABLE s.day (LIKE s.reading INCLUDING ALL) PARTITION BY RANGE (at); ALTER TABLE s.day ADD PRIMARY KEY (id, at); \
        CREATE TABLE s.morning PARTITION OF s.day FOR VALUES FROM ('2026-03-25 00:00Z') TO ('2026-03-25 12:00Z'); \
        ALTER TABLE s.reading ATTACH PARTITION s.day FOR VALUES FROM ('2026-03-25 00:00Z') TO ('2026-03-26 00:00Z')";
    owner.batch_execute(day).await.unwrap();
    let event =
        documents(&[reading(1, "25T10:00"), reading(2, "25T14:00"), reading(3, "26T10:00"), reading(4, "25T15:00")]);
    let case = Unwritable { config: READINGS, url: &url, event: &event, table: "s.reading", applied: 2, rejected: 2 };
    let message = case.until_fixed(&owner).await;
    assert!(message.contains("no partition of s.day accepts the row [SQLSTATE 23514]"), "{message}");
    assert!(message.contains(r#"run: CREATE TABLE "s"."day_default" PARTITION OF "s"."day" DEFAULT"#), "{message}");
}

#[tokio::test]
async fn a_sub_partitioned_day_needs_a_unique_index_that_postgresql_accepts() {
    let url = database().await;
    let owner = client(&url).await;
    process(&mut ingest(READINGS, &url), &documents(&[reading(0, "24T10:00"), NOTE.to_owned()])).await;
    let by_time = "CREATE TABLE s.day (LIKE s.reading INCLUDING ALL) PARTITION BY RANGE (at); \
        CREATE TABLE s.whole PARTITION OF s.day DEFAULT; \
        ALTER TABLE s.reading ATTACH PARTITION s.day FOR VALUES FROM ('2026-03-25 00:00Z') TO ('2026-03-26 00:00Z')";
    let by_kind = "CREATE TABLE s.other (LIKE s.reading INCLUDING ALL) PARTITION BY LIST (id); \
        CREATE TABLE s.any PARTITION OF s.other DEFAULT; ALTER TABLE s.other ADD COLUMN more text; \
        ALTER TABLE s.reading ADD COLUMN more text; \
        ALTER TABLE s.reading ATTACH PARTITION s.other FOR VALUES FROM ('2026-03-27 00:00Z') TO ('2026-03-28 00:00Z')";
    owner.batch_execute(&format!("{by_time}; {by_kind}")).await.unwrap();
    for (at, index) in [
        ("25T10:00", r#"run: CREATE UNIQUE INDEX ON "s"."day" ("id", "at")"#),
        ("27T10:00", r#"run: CREATE UNIQUE INDEX ON "s"."other" ("id")"#),
    ] {
        let event = documents(&[reading(1, at), reading(3, "26T10:00")]);
        let applied = if at.starts_with("25") { 1 } else { 0 };
        let case = Unwritable { config: READINGS, url: &url, event: &event, table: "s.reading", applied, rejected: 1 };
        if applied == 0 {
            owner.batch_execute("DELETE FROM s.reading WHERE id = '3'").await.unwrap();
        }
        let message = Unwritable { applied: 1, ..case }.until_fixed(&owner).await;
        assert!(message.contains(index), "{message}");
    }
}

#[tokio::test]
async fn a_default_partition_costs_the_rows_that_need_another_one() {
    let url = database().await;
    let owner = client(&url).await;
    process(&mut ingest(READINGS, &url), &documents(&[reading(0, "24T10:00"), NOTE.to_owned()])).await;
    owner.batch_execute("CREATE TABLE s.rest PARTITION OF s.reading DEFAULT").await.unwrap();
    let event = documents(&[reading(1, "24T11:00"), reading(2, "25T14:00"), NOTE.replace("neighbour", "friend")]);
    let case = Unwritable { config: READINGS, url: &url, event: &event, table: "s.reading", applied: 2, rejected: 1 };
    let message = case.until_fixed(&owner).await;
    let remedy = r#"run: ALTER TABLE "s"."reading" DETACH PARTITION "s"."rest""#;
    assert!(message.contains("partition s.rest is its default partition") && message.contains(remedy), "{message}");
}

/// Entities, and their neighbours.
const ITEMS: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\n\
    [table.item]\nsource = \"s\"\nwhen = { path = \"kind\", is = \"item\" }\nkey = [\"id\"]\nversion = \"v\"\n\
    [table.note]\nsource = \"s\"\nwhen = { path = \"kind\", is = \"note\" }\n";

#[tokio::test]
async fn a_table_partitioned_by_list_is_written_or_renamed() {
    let url = database().await;
    let owner = client(&url).await;
    let item = |id: u32, region: &str| format!(r#"{{"kind":"item","id":"{id}","v":1,"region":"{region}"}}"#);
    let list = "CREATE SCHEMA s; CREATE TABLE s.item (id text NOT NULL, v numeric, region text NOT NULL) PARTITION BY LIST (region); \
        COMMENT ON COLUMN s.item.region IS 'Millstream: region'; COMMENT ON COLUMN s.item.v IS 'Millstream: v'; \
        CREATE TABLE s.item_eu PARTITION OF s.item FOR VALUES IN ('eu')";
    owner.batch_execute(list).await.unwrap();
    let event = documents(&[item(1, "eu"), item(2, "us"), NOTE.to_owned()]);
    // With the region in its key, the table can be written: rows without a partition are rejected.
    owner.batch_execute("ALTER TABLE s.item ADD PRIMARY KEY (id, region)").await.unwrap();
    let with_region = ITEMS.replace("key = [\"id\"]", "key = [\"id\", \"region\"]");
    let case = Unwritable { config: &with_region, url: &url, event: &event, table: "s.item", applied: 2, rejected: 1 };
    let message = case.until_fixed(&owner).await;
    assert!(message.contains(r#"run: CREATE TABLE "s"."item_default" PARTITION OF "s"."item" DEFAULT"#), "{message}");
    // Without it, no index can keep the key unique.
    owner.batch_execute("DROP TABLE s.note; ALTER TABLE s.item DROP CONSTRAINT item_pkey").await.unwrap();
    let case = Unwritable { config: ITEMS, url: &url, event: &event, table: "s.item", applied: 1, rejected: 2 };
    let message = case.until_fixed(&owner).await;
    assert!(message.contains(r#"run: ALTER TABLE "s"."item" RENAME TO "item_kept""#), "{message}");
    // With both, the message names the index.
    let indexed = "DROP TABLE s.note, s.item; ALTER TABLE s.item_kept RENAME TO item; DELETE FROM s.item";
    owner.batch_execute(indexed).await.unwrap();
    let case = Unwritable { config: &with_region, url: &url, event: &event, table: "s.item", applied: 1, rejected: 2 };
    let message = case.until_fixed(&owner).await;
    assert!(message.contains(r#"run: CREATE UNIQUE INDEX ON "s"."item" ("id", "region")"#), "{message}");
}

#[tokio::test]
async fn entities_of_a_partitioned_table_are_merged_by_row() {
    let url = database().await;
    let partitioned = ITEMS.replace(
        "key = [\"id\"]",
        "key = [\"id\", \"at\"]\npartition = { by = \"at\", every = \"day\" }\nmerge = \"row\"",
    );
    let item = |v: u32| format!(r#"{{"kind":"item","id":"1","v":{v},"at":"2026-03-25T10:00:00Z","n":{v}}}"#);
    let mut ingest = ingest(&partitioned, &url);
    for version in [2, 1, 3] {
        let report = process(&mut ingest, &documents(&[item(version)])).await;
        assert_eq!((report.counts.retry, report.unwritable_tables), (0, 0), "{report}");
    }
    assert_eq!(rows(&client(&url).await, "SELECT id, n FROM s.item").await, [r#"{"id":"1","n":3}"#]);
}
