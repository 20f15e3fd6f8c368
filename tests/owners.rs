//! Tables and columns that their owner created: respected, used as they are, and distinguished from Millstream's.

use crate::support::{adopt, batch, client, database, ingest, ingest as ingest_with, rows};

const EVENTS: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n";
const ENTITIES: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.item]\nsource = \"log\"\nkey = [\"id\"]\n\
    version = \"v\"\nmerge = \"column\"\n";

const TYPES: &str = "CREATE SCHEMA log; CREATE TYPE log.mood AS ENUM ('ok', 'bad'); \
    CREATE DOMAIN log.positive AS integer CHECK (VALUE > 0);";

const COLUMNS: &str = "addr inet, mood log.mood, n log.positive, u uuid, d date, short varchar(3), list integer[], j json, \
    money numeric(6,2), t timestamp(0)";

const GOOD: &str = r#""addr":"192.0.2.1","mood":"ok","n":"7","u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","d":"2026-02-08",
    "short":"äöü","list":"{1,2}","j":[{"a":1}],"money":9999.99,"t":"2026-02-08T10:00:00Z""#;

#[tokio::test]
async fn events_take_the_types_that_the_owner_gave() {
    let url = database().await;
    let client = client(&url).await;
    client.batch_execute(&format!("{TYPES} CREATE TABLE log.log (_id text PRIMARY KEY, {COLUMNS})")).await.unwrap();
    adopt(&client, "log.log", "source log", ".*").await;
    let mut ingest = ingest(EVENTS, &url);
    let bad = [
        r#""mood":"angry""#,
        r#""n":0"#,
        r#""n":1.5"#,
        r#""u":"no uuid""#,
        r#""short":"four""#,
        r#""money":10000"#,
        r#""money":1.001"#,
        r#""t":"2026-02-08T10:00:00.5Z""#,
        r#""addr":"nowhere""#,
        r#""d":"2026-02-30""#,
    ];
    let documents: Vec<String> = [GOOD].iter().chain(&bad).map(|columns| format!("{{{columns}}}")).collect();
    let report = batch(&mut ingest, 1, &documents).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (1, 10), "{report}");
    assert_eq!((report.reasons.get("refused"), report.reasons.get("does_not_fit")), (Some(&3), Some(&7)), "{report}");
    let found = rows(&client, "SELECT addr, mood, n, u, d, short, list, j, money, t FROM log.log").await;
    let expected = r#"{"addr":"192.0.2.1","mood":"ok","n":7,"u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11","d":"2026-02-08","short":"äöü","list":[1,2],"j":[{"a":1}],"money":9999.99,"t":"2026-02-08T10:00:00"}"#;
    assert_eq!(found, [expected]);
}

#[tokio::test]
async fn entities_take_the_types_that_the_owner_gave() {
    let url = database().await;
    let client = client(&url).await;
    client
        .batch_execute(&format!("{TYPES} CREATE TABLE log.item (id text PRIMARY KEY, v bigint, {COLUMNS})"))
        .await
        .unwrap();
    adopt(&client, "log.item", "source log", ".*").await;
    let mut ingest = ingest(ENTITIES, &url);
    let document = |version: usize, columns: &str| format!(r#"{{"id":"i","v":{version},{columns}}}"#);
    for (version, columns) in
        [(2, GOOD), (1, r#""addr":"192.0.2.9","mood":"bad""#), (3, r#""addr":"192.0.2.3","mood":"bad","n":8"#)]
    {
        batch(&mut ingest, 1, &[document(version, columns)]).await.unwrap();
    }
    let refused = batch(&mut ingest, 9, &[document(4, r#""mood":"angry""#), document(5, r#""n":9"#)]).await.unwrap();
    assert_eq!((refused.counts.applied, refused.counts.retry), (1, 1), "{refused}");
    let found = rows(&client, "SELECT v, addr, mood, n, short FROM log.item").await;
    assert_eq!(found, [r#"{"v":5,"addr":"192.0.2.3","mood":"bad","n":9,"short":"äöü"}"#]);
}

#[tokio::test]
async fn a_table_that_cannot_keep_its_key_unique_is_refused_with_the_remedy() {
    let url = database().await;
    let client = client(&url).await;
    client.batch_execute("CREATE SCHEMA log; CREATE TABLE log.item (id text, v bigint)").await.unwrap();
    let mut ingest = ingest(ENTITIES, &url);
    let report = batch(&mut ingest, 1, &[r#"{"id":"i","v":1}"#]).await.unwrap();
    assert_eq!((report.counts.retry, report.unwritable_tables), (1, 1), "{report}");
    let mut stopping = ingest_with(&format!("{ENTITIES}on_unwritable = \"stop\"\n"), &url);
    let error = batch(&mut stopping, 1, &[r#"{"id":"i","v":1}"#]).await.unwrap_err();
    assert!(error.needs_operator());
    let message = error.to_string();
    assert!(message.contains(r#"CREATE UNIQUE INDEX CONCURRENTLY ON "log"."item" ("id")"#), "{message}");
}

#[tokio::test]
async fn a_second_unique_constraint_costs_the_row_that_breaks_it() {
    let url = database().await;
    let client = client(&url).await;
    client
        .batch_execute("CREATE SCHEMA log; CREATE TABLE log.log (_id text PRIMARY KEY, email text UNIQUE)")
        .await
        .unwrap();
    adopt(&client, "log.log", "source log", "email").await;
    let mut ingest = ingest(EVENTS, &url);
    let report = batch(&mut ingest, 1, &[r#"{"email":"a"}"#, r#"{"email":"b"}"#, r#"{"email":"a"}"#]).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (2, 1), "{report}");
}

#[tokio::test]
async fn schema_modes_do_what_they_say() {
    for (mode, applied, columns) in [("evolve", 2, 6), ("fixed", 2, 4), ("strict", 1, 4)] {
        let url = database().await;
        let config = format!(
            "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.entry]\nsource = \"log\"\nid = \"id\"\nschema_mode = \"{mode}\"\n\
             columns = {{ a = {{ path = \"a\", type = \"text\" }}, b = {{ path = \"b\", type = \"text\" }} }}\n"
        );
        let mut ingest = ingest(&config, &url);
        let report =
            batch(&mut ingest, 1, &[r#"{"id":1,"a":"x"}"#, r#"{"id":2,"b":"y","new":{"c":1,"d":[2]}}"#]).await.unwrap();
        assert_eq!(report.counts.applied, applied, "{mode}: {report}");
        let client = client(&url).await;
        let count = rows(&client, "SELECT count(*) FROM information_schema.columns WHERE table_name = 'entry'").await;
        // id, a, b and the overflow; `new_c` and `new_d` only if the schema evolves.
        assert_eq!(count, [format!(r#"{{"count":{columns}}}"#)], "{mode}");
        if mode == "fixed" {
            let overflow = rows(&client, "SELECT _overflow FROM log.entry WHERE id = '2'").await;
            assert_eq!(overflow, [r#"{"_overflow":{"new.c": 1, "new.d": [2]}}"#]);
        }
    }
}

#[tokio::test]
async fn past_max_columns_new_fields_go_to_the_overflow() {
    let url = database().await;
    let mut ingest = ingest(&format!("{EVENTS}max_columns = 10\n"), &url);
    let document: Vec<String> = (0..50).map(|number| format!("\"f{number:02}\":{number}")).collect();
    batch(&mut ingest, 1, &[format!("{{{}}}", document.join(","))]).await.unwrap();
    let client = client(&url).await;
    assert_eq!(
        rows(&client, "SELECT count(*) FROM information_schema.columns WHERE table_schema = 'log'").await,
        [r#"{"count":10}"#]
    );
    let kept = "SELECT (SELECT count(*) FROM jsonb_object_keys(_overflow)) AS overflown, f07 FROM log.log";
    assert_eq!(rows(&client, kept).await, [r#"{"overflown":42,"f07":7}"#]);
}

#[tokio::test]
async fn nested_objects_stay_whole_where_the_table_says_so() {
    let url = database().await;
    let mut ingest = ingest(&format!("{EVENTS}nested = \"jsonb\"\narrays = \"jsonb\"\n"), &url);
    batch(&mut ingest, 1, &[r#"{"a":{"b":{"c":1.50}},"list":[1,"x"]}"#]).await.unwrap();
    let found = rows(&client(&url).await, "SELECT a, list, pg_typeof(a) AS type FROM log.log").await;
    assert_eq!(found, [r#"{"a":{"b": {"c": 1.50}},"list":[1, "x"],"type":"jsonb"}"#]);
}

#[tokio::test]
async fn two_fields_of_one_name_stay_apart_for_good() {
    let url = database().await;
    let client = client(&url).await;
    // The owner's column belongs to the field that its comment names, in every process.
    client
        .batch_execute(
            "CREATE SCHEMA log; CREATE TABLE log.log (_id text PRIMARY KEY, home_team text); \
             COMMENT ON COLUMN log.log.home_team IS 'Millstream: homeTeam'",
        )
        .await
        .unwrap();
    batch(&mut ingest(EVENTS, &url), 9, &[r#"{"home_team":"snake"}"#]).await.unwrap();
    batch(&mut ingest(EVENTS, &url), 1, &[r#"{"homeTeam":"camel"}"#]).await.unwrap();
    batch(&mut ingest(EVENTS, &url), 2, &[r#"{"home_team":"snake"}"#]).await.unwrap();
    batch(&mut ingest(EVENTS, &url), 3, &[r#"{"home_team":"snake","homeTeam":"camel"}"#]).await.unwrap();
    let found = rows(&client, "SELECT string_agg(home_team, ',') AS camel FROM log.log").await;
    assert_eq!(found, [r#"{"camel":"camel,camel"}"#]);
}
