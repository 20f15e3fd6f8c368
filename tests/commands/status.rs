//! `millstream status`, and how fresh the tables are.

use millstream_tests::program::millstream;
use serde_json::Value;

use super::{assert_golden, assert_refused, config_file, day, environment};
use crate::support::{batch_of, client, database, ingest, rows};

const CONFIG: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n\
    partition = { by = \"at\", every = \"day\", ahead = 2, keep = \"10 days\" }\n\
    [table.entry]\nsource = \"log\"\nid = \"id\"\nwhen = { path = \"kind\", is = \"entry\" }\n\
    [table.device]\nsource = \"log\"\nkey = [\"id\"]\nversion = \"at\"\nwhen = { path = \"kind\", is = \"device\" }\n\
    [source.quiet]\nstream = \"q\"\nformat = \"json\"\n";

fn document(kind: &str, id: u32) -> String {
    format!(r#"{{"kind":"{kind}","id":"{id}","at":"{}"}}"#, day(0))
}

#[tokio::test]
async fn golden_status_reports_the_database_and_its_writers() {
    let url = database().await;
    let config = config_file("status", CONFIG);
    let environment = environment(&config, &url);
    let documents: Vec<String> = (0..3).map(|id| document("entry", id)).chain([document("device", 1)]).collect();
    batch_of(&mut ingest(CONFIG, &url), "s", 1, &documents).await.unwrap();
    let client = client(&url).await;
    // The state of five hours ago, with two more shards, which are closed.
    let (from, to) = (day(-14), day(-13));
    let age = format!(
        "UPDATE millstream.freshness SET committed_at = now() - interval '5 h', arrived_at = now() - interval '5 h 4 s';\
         INSERT INTO millstream.freshness SELECT source, stream, 'shardId-00000000000' || days, now() - days * interval '1 day', now() - days * interval '2 days' \
         FROM millstream.freshness, unnest(ARRAY[3, 401]) AS days; ANALYZE log.entry; ANALYZE log.device;\
         CREATE TABLE log.entry_old PARTITION OF log.entry FOR VALUES FROM ('{from}') TO ('{to}')"
    );
    client.batch_execute(&age).await.unwrap();

    let whole = millstream(&environment, &["status"]).await.unwrap();
    assert_golden("status", &whole, 3);
    let one = millstream(&environment, &["status", "--source", "log", "--exact"]).await.unwrap();
    assert_golden("status-of-a-source", &one, 3);

    let json = millstream(&environment, &["--json", "status", "--max-lag", "3"]).await.unwrap();
    assert_eq!(json.code, 3, "{}", json.err);
    let status: Value = serde_json::from_str(&json.out).unwrap();
    let source = &status["sources"][0];
    assert!((4.0..4.1).contains(&source["lag_seconds"].as_f64().unwrap()), "{source}");
    assert!((18_000.0..19_000.0).contains(&source["age_seconds"].as_f64().unwrap()), "{source}");
    assert_eq!((&source["rows"], &source["tables"][1]["partitions"]["expired"]), (&4.into(), &1.into()), "{source}");
    assert_eq!(source["shards"][0]["shard"], "shardId-000000000000");
    let alarms: Vec<&str> = status["alarms"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(alarms.contains(&"source log lags by 4.0 s"), "{alarms:?}");

    // After maintenance nothing needs attention.
    let upkeep = millstream(&environment, &["maintain"]).await.unwrap();
    assert_golden("maintain", &upkeep, 0);
    assert_eq!(rows(&client, "SELECT count(*) FROM millstream.freshness").await, [r#"{"count":2}"#]);
    let again = millstream(&environment, &["maintain", "--json"]).await.unwrap();
    let nothing = "{\"made\":[],\"dropped\":[],\"forgotten\":0,\"postponed\":[]}\n";
    assert_eq!((again.code, &*again.out), (0, nothing), "{}", again.err);
    let fine = millstream(&environment, &["status"]).await.unwrap();
    assert_eq!(fine.code, 0, "{}", fine.out);
}

#[tokio::test]
async fn what_status_cannot_know_is_said_in_clear_words() {
    let config = config_file("status-errors", CONFIG);
    let nothing = millstream(&[], &["status", "--config", &config]).await.unwrap();
    assert_refused(&nothing, 1, "no database is configured; set DATABASE_URL");
    let nobody = environment(&config, "postgresql://postgres:hunter2@127.0.0.1:1/x?sslmode=disable");
    let unreachable = millstream(&nobody, &["status"]).await.unwrap();
    assert_refused(&unreachable, 1, "could not connect to PostgreSQL: ");
    assert!(!unreachable.err.contains("hunter2"), "{}", unreachable.err);
    let unknown = millstream(&nobody, &["status", "--source", "nobody"]).await.unwrap();
    assert_refused(&unknown, 2, "unknown source `nobody`; configured sources: log, quiet");
    let missing = millstream(&nobody, &["--config", "/nowhere.toml", "status"]).await.unwrap();
    assert_refused(&missing, 1, "could not read the configuration /nowhere.toml");
    assert_refused(&millstream(&nobody, &["stauts"]).await.unwrap(), 2, "unrecognized subcommand 'stauts'");
    assert_refused(&millstream(&nobody, &["status", "--max-lag", "soon"]).await.unwrap(), 2, "invalid value 'soon'");
    let help = millstream(&[], &["--help"]).await.unwrap();
    assert!(help.code == 0 && help.out.contains("Exit codes:"), "{}", help.out);
}

/// A system that has not run yet has no tables and no published freshness.
#[tokio::test]
async fn an_empty_database_has_a_status_too() {
    let url = database().await;
    let environment = environment(&config_file("status-empty", CONFIG), &url);
    let ran = millstream(&environment, &["status"]).await.unwrap();
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("never"), "{}", ran.out);
    let late = millstream(&environment, &["status", "--max-age", "60"]).await.unwrap();
    assert_eq!(late.code, 3);
    assert!(late.out.contains("source log has never committed"), "{}", late.out);
}

#[tokio::test]
async fn freshness_is_published_by_permitted_writers_and_fails_no_other() {
    let url = database().await;
    let owner = client(&url).await;
    let name = url.rsplit('/').next().unwrap();
    let role = format!("told_{name}");
    let grants = format!("CREATE ROLE {role} LOGIN; CREATE SCHEMA log AUTHORIZATION {role}");
    owner.batch_execute(&grants).await.unwrap();
    let as_role = url.replace("postgres@", &format!("{role}@"));
    let mut writer = ingest(CONFIG, &as_role);
    let report = batch_of(&mut writer, "s", 1, &[document("entry", 1)]).await.unwrap();
    assert_eq!(report.counts.applied, 1, "a role that may not make the schema `millstream` writes all the same");
    let absent = "SELECT to_regclass('millstream.freshness') IS NULL AS absent";
    assert_eq!(rows(&owner, absent).await, [r#"{"absent":true}"#]);

    let mut writer = ingest(CONFIG, &url);
    batch_of(&mut writer, "s", 2, &[document("entry", 2)]).await.unwrap();
    let told = "SELECT source, split_part(stream, '/', 2) AS stream, shard, arrived_at < committed_at AS in_order FROM millstream.freshness";
    let row = r#"{"source":"log","stream":"s","shard":"shardId-000000000000","in_order":true}"#;
    assert_eq!(rows(&owner, told).await, [row]);
    // A batch with only rejected records has committed nothing.
    owner.batch_execute("DROP SCHEMA millstream CASCADE").await.unwrap();
    let report = batch_of(&mut ingest(CONFIG, &url), "s", 3, &["no document"]).await.unwrap();
    assert_eq!(report.counts.retry, 1);
    assert_eq!(rows(&owner, absent).await, [r#"{"absent":true}"#]);
    // A table that its owner has dropped is created again.
    batch_of(&mut ingest(CONFIG, &url), "s", 4, &[document("entry", 2)]).await.unwrap();
    assert_eq!(rows(&owner, told).await, [row]);
}
