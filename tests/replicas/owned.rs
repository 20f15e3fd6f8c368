//! Tables and columns that their owner created or changed receive every value that fits.

use millstream::catalog::{Catalog, load};
use millstream::config::Config;
use millstream::decode::Decoder;
use millstream::names::{Identifier, TableName};
use millstream::plan::plan;
use millstream::record::unpack;
use millstream::timestamp::Timestamp;

use super::{CONFIG, put, remove, sent};
use crate::support::{adopt, client, database, ingest, rows};

const OWNED: &str = "CREATE SCHEMA shop; CREATE TYPE shop.mood AS ENUM ('ok', 'bad'); \
    CREATE DOMAIN shop.positive AS integer CHECK (VALUE > 0); \
    CREATE TABLE shop.t (id text PRIMARY KEY, i integer, b bigint, at timestamptz, u uuid, d date, mood shop.mood, n shop.positive, \
    short varchar(5), list text[], local timestamp)";

/// What the comment of a table says that Millstream may fill.
const LABEL: &str = "DynamoDB table T";

fn key(id: &str) -> String {
    format!(r#""id":{{"S":"{id}"}}"#)
}

const GOOD: &str = r#""i":{"N":"7.0"},"b":{"S":"9007199254740993"},"at":{"S":"2026-02-08T10:00:00.5Z"},
    "u":{"S":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"},"d":{"S":"2026-02-08"},"mood":{"S":"ok"},"n":{"N":"3"},
    "short":{"S":"äöüßé"},"list":{"SS":["b","a"]},"local":{"S":"2026-02-08T10:00:00Z"}"#;

#[tokio::test]
async fn columns_of_the_owner_s_types_receive_what_fits() {
    let url = database().await;
    let owner = client(&url).await;
    owner.batch_execute(OWNED).await.unwrap();
    adopt(&owner, "shop.t", LABEL, ".*").await;
    owner.batch_execute("SET TimeZone = 'UTC'").await.unwrap();
    let mut ingest = ingest(CONFIG, &url);
    for number in 1..3 {
        sent(&mut ingest, &[put("T", number, &key("a"), GOOD)]).await;
        let found = rows(&owner, "SELECT i, b, at, u, d, mood, n, short, list, local FROM shop.t").await;
        let wanted = r#"{"i":7,"b":9007199254740993,"at":"2026-02-08T10:00:00.5+00:00","u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","d":"2026-02-08","mood":"ok","n":3,"short":"äöüßé","list":["a","b"],"local":"2026-02-08T10:00:00"}"#;
        assert_eq!(found, [wanted]);
    }
}

const BAD: [(&str, &str); 11] = [
    ("i", r#""i":{"N":"1.5"}"#),
    ("i", r#""i":{"S":"seven"}"#),
    ("i", r#""i":{"N":"3000000000"}"#),
    ("b", r#""b":{"N":"1E30"}"#),
    ("at", r#""at":{"S":"soon"}"#),
    ("u", r#""u":{"S":"no uuid"}"#),
    ("d", r#""d":{"S":"2026-02-30"}"#),
    ("short", r#""short":{"S":"sixsix"}"#),
    ("n", r#""n":{"N":"1.5"}"#),
    ("mood", r#""mood":{"S":"angry"}"#),
    ("n", r#""n":{"N":"0"}"#),
];

#[tokio::test]
async fn what_does_not_fit_the_owner_s_types_is_refused_by_table_and_column() {
    let url = database().await;
    let owner = client(&url).await;
    owner.batch_execute(OWNED).await.unwrap();
    adopt(&owner, "shop.t", LABEL, ".*").await;
    let mut ingest = ingest(CONFIG, &url);
    sent(&mut ingest, &[put("T", 1, &key("a"), GOOD)]).await;
    let source = Config::parse("test.toml", CONFIG).unwrap().sources.remove(0);
    for (column, attribute) in BAD {
        let record = put("T", 2, &key("a"), attribute);
        let report =
            sent(&mut ingest, &[put("T", 2, &key("before"), GOOD), record.clone(), put("T", 2, &key("z"), GOOD)]).await;
        assert_eq!(report.counts.retry, 1, "{attribute}: {report}");
        if report.reasons.contains_key("refused") {
            continue;
        }
        let batch = unpack(format!("[{record}]").as_bytes()).unwrap();
        let (mut decoder, mut catalog) = (Decoder::new(source.clone()), Catalog::default());
        let name = |text| Identifier::exact(text).unwrap();
        let table = TableName { schema: name("shop"), table: name("t") };
        owner.batch_execute("BEGIN; SET LOCAL TimeZone = 'UTC'").await.unwrap();
        load(&owner, &mut catalog, &[table]).await.unwrap();
        owner.batch_execute("COMMIT").await.unwrap();
        let (changes, _) = decoder.decode(&batch);
        let planned = plan(&changes, &decoder.fields, &decoder.tables, &catalog, Timestamp(0));
        let (_, rejection) = &planned.rejected[0];
        assert_eq!(rejection.table.as_deref(), Some("shop.t"), "{attribute}");
        assert!(rejection.to_string().contains(&format!("column \"{column}\"")), "{attribute}: {rejection}");
    }
    let found = rows(&owner, "SELECT i FROM shop.t WHERE id = 'a'").await;
    assert_eq!(found, [r#"{"i":7}"#], "a refused item leaves the row as it was");
}

#[tokio::test]
async fn what_the_owner_asks_of_rows_does_not_keep_deletes_out() {
    let mut wrong = Vec::new();
    for constraint in [
        "v numeric NOT NULL",
        "v numeric NOT NULL DEFAULT 0",
        "v numeric, mine text NOT NULL DEFAULT 'x'",
        "v numeric CHECK (v IS NOT NULL)",
        "v shop.there",
        "v numeric, other numeric, CHECK (num_nonnulls(v, other) > 0)",
        "v numeric, UNIQUE NULLS NOT DISTINCT (v)",
    ] {
        let url = database().await;
        let owner = client(&url).await;
        // PostgreSQL 14 has no such constraint.
        let since_15 = "SELECT current_setting('server_version_num')::int >= 150000";
        if constraint.contains("NULLS NOT DISTINCT") && !owner.query_one(since_15, &[]).await.unwrap().get::<_, bool>(0)
        {
            continue;
        }
        let table = format!(
            "CREATE SCHEMA shop; CREATE DOMAIN shop.there AS numeric NOT NULL; CREATE TABLE shop.t (id text PRIMARY KEY, {constraint})"
        );
        owner.batch_execute(&table).await.unwrap();
        adopt(&owner, "shop.t", LABEL, "id|v").await;
        let mut ingest = ingest(CONFIG, &url);
        let item = |id: &str, number: u64| put("T", number, &key(id), &format!(r#""v":{{"N":"{number}"}}"#));
        sent(&mut ingest, &[item("a", 1), item("b", 2), item("c", 9)]).await;
        let batches = [
            vec![remove("T", 5, &key("a"))],
            vec![remove("T", 5, &key("b")), remove("T", 6, &key("never")), remove("T", 3, &key("c"))],
            vec![item("a", 4), item("never", 5)],
        ];
        for batch in batches {
            let report = sent(&mut ingest, &batch).await;
            if report.counts.retry > 0 {
                wrong.push(format!("{constraint}: {report}"));
            }
        }
        let found = rows(&owner, "SELECT id FROM shop.t").await;
        if found != [r#"{"id":"c"}"#] {
            wrong.push(format!("{constraint}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn an_item_without_an_attribute_leaves_the_owner_s_default() {
    let url = database().await;
    let owner = client(&url).await;
    owner
        .batch_execute("CREATE SCHEMA shop; CREATE TABLE shop.t (id text PRIMARY KEY, mine text NOT NULL DEFAULT 'x')")
        .await
        .unwrap();
    adopt(&owner, "shop.t", LABEL, "id").await;
    let mut ingest = ingest(CONFIG, &url);
    let report = sent(&mut ingest, &[put("T", 1, &key("a"), ""), put("T", 1, &key("b"), r#""v":{"N":"1"}"#)]).await;
    assert_eq!(report.counts.applied, 2, "{report}");
    assert_eq!(rows(&owner, "SELECT mine FROM shop.t WHERE id = 'a'").await, [r#"{"mine":"x"}"#]);
}

#[tokio::test]
async fn views_and_functions_of_the_owner_s_survive_new_columns() {
    let url = database().await;
    let owner = client(&url).await;
    let mut ingest = ingest(CONFIG, &url);
    sent(&mut ingest, &[put("T", 1, &key("a"), r#""v":{"N":"1"}"#)]).await;
    owner
        .batch_execute(
            "CREATE VIEW shop.seen AS SELECT * FROM shop.t; \
             CREATE FUNCTION shop.total() RETURNS numeric LANGUAGE sql STABLE BEGIN ATOMIC SELECT sum(v) FROM shop.t; END; \
             CREATE FUNCTION shop.all_of_it() RETURNS SETOF shop.t LANGUAGE sql STABLE AS 'SELECT * FROM shop.t'",
        )
        .await
        .unwrap();
    let more = r#""v":{"N":"2"},"w":{"S":"new"},"x":{"M":{}},"V":{"S":"other"}"#;
    sent(&mut ingest, &[put("T", 2, &key("b"), more), put("T", 3, &key("a"), r#""v":{"S":"no number"}"#)]).await;
    assert_eq!(
        rows(&owner, "SELECT id, v FROM shop.seen ORDER BY id").await,
        [r#"{"id":"a","v":null}"#, r#"{"id":"b","v":2}"#]
    );
    assert_eq!(
        rows(&owner, "SELECT shop.total() AS total, (SELECT w FROM shop.all_of_it() WHERE id = 'b') AS w").await,
        [r#"{"total":2,"w":"new"}"#]
    );
}

#[tokio::test]
async fn a_column_of_the_owner_s_beside_them_does_not_change_how_sets_are_kept() {
    let url = database().await;
    let owner = client(&url).await;
    let mut ingest = ingest(CONFIG, &url);
    sent(&mut ingest, &[put("T", 1, &key("a"), r#""tags":{"SS":["x"]}"#)]).await;
    owner.batch_execute("ALTER TABLE shop.t ADD COLUMN address inet").await.unwrap();
    sent(&mut ingest, &[put("T", 2, &key("a"), r#""tags":{"SS":["{\"","y"]}"#)]).await;
    assert_eq!(rows(&owner, "SELECT tags FROM shop.t").await, [r#"{"tags":["y","{\""]}"#]);
    let report = sent(&mut ingest, &[put("T", 3, &key("a"), r#""tags":{"S":"x"}"#)]).await;
    assert_eq!(report.counts.applied, 1, "an attribute of another type goes to the overflow: {report}");
}

#[tokio::test]
async fn a_key_whose_type_the_owner_changed_still_knows_its_deletes() {
    let url = database().await;
    let owner = client(&url).await;
    let number = r#""id":{"N":"7"}"#;
    sent(&mut ingest(CONFIG, &url), &[put("T", 1, number, ""), remove("T", 3, number)]).await;
    owner.batch_execute("ALTER TABLE shop.t ALTER id TYPE bigint").await.unwrap();
    let late = sent(&mut ingest(CONFIG, &url), &[put("T", 2, number, "")]).await;
    assert_eq!(late.counts.superseded, 1, "{late}");
}

#[tokio::test]
async fn the_owner_s_comments_are_his_own_and_no_paths() {
    let url = database().await;
    let owner = client(&url).await;
    owner
        .batch_execute(
            "CREATE SCHEMA shop; CREATE TABLE shop.t (id text PRIMARY KEY, email text, mine text); \
             COMMENT ON COLUMN shop.t.email IS 'Where the customer is written to.'; \
             COMMENT ON COLUMN shop.t.mine IS 'phone'; COMMENT ON TABLE shop.t IS E'Customers.\nMillstream: DynamoDB table T'",
        )
        .await
        .unwrap();
    // Without a note, the column is its owner's: no attribute fills it.
    let item =
        |number: u64| format!(r#""email":{{"S":"a{number}@x"}},"phone":{{"S":"{number}"}},"Email":{{"S":"other"}}"#);
    sent(&mut ingest(CONFIG, &url), &[put("T", 1, &key("a"), &item(1))]).await;
    owner.batch_execute("UPDATE shop.t SET mine = 'kept'").await.unwrap();
    let found = rows(&owner, "SELECT email, phone, mine, _overflow FROM shop.t").await;
    let overflow = r#""_overflow":{"Email": "other", "email": "a1@x"}"#;
    assert_eq!(found, [format!(r#"{{"email":null,"phone":"1","mine":"kept",{overflow}}}"#)]);
    // With one, it is filled, from that attribute only.
    let note = "COMMENT ON COLUMN shop.t.email IS E'Where the customer is written to.\\nMillstream: email'";
    owner.batch_execute(note).await.unwrap();
    for number in [2, 3] {
        sent(&mut ingest(CONFIG, &url), &[put("T", number, &key("a"), &item(number))]).await;
        let found = rows(&owner, "SELECT email, phone, mine FROM shop.t").await;
        assert_eq!(found, [format!(r#"{{"email":"a{number}@x","phone":"{number}","mine":"kept"}}"#)]);
    }
    let more = sent(&mut ingest(CONFIG, &url), &[put("T", 4, &key("a"), r#""email":{"S":"a4@x"}"#)]).await;
    assert_eq!(more.counts.applied, 1, "{more}");
    assert_eq!(
        rows(&owner, "SELECT email, phone, mine FROM shop.t").await,
        [r#"{"email":"a4@x","phone":null,"mine":"kept"}"#]
    );
    let comments = "SELECT col_description('shop.t'::regclass, attnum) AS comment FROM pg_attribute \
                    WHERE attrelid = 'shop.t'::regclass AND attname IN ('email', 'mine') ORDER BY attname";
    assert_eq!(
        rows(&owner, comments).await,
        [r#"{"comment":"Where the customer is written to.\nMillstream: email"}"#, r#"{"comment":"phone"}"#]
    );
}
