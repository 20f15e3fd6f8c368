//! Schema changes take turns by rows that only writers can lock.

use std::time::Duration;

use millstream_tests::postgresql::connect;
use tokio_postgres::Client;

use crate::support::{batch, client, database, ingest, rows};

const CONFIG: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n\
    [table.a]\nsource = \"log\"\nid = \"id\"\nwhen = { path = \"kind\", is = \"a\" }\n\
    [table.b]\nsource = \"log\"\nid = \"id\"\nwhen = { path = \"kind\", is = \"b\" }\n";

/// A role that may log in; its name and the URL with which it does.
async fn role(client: &Client, url: &str, name: &str) -> (String, String) {
    let name = format!("{name}_{}", url.rsplit('/').next().unwrap());
    client.batch_execute(&format!("CREATE ROLE {name} LOGIN")).await.unwrap();
    let login = url.replace("postgresql://postgres@", &format!("postgresql://{name}@"));
    (name, login)
}

#[tokio::test]
async fn a_role_that_may_only_connect_cannot_delay_schema_changes() {
    let url = database().await;
    let client = client(&url).await;
    let mut ingest = ingest(CONFIG, &url);
    batch(&mut ingest, 1, &[r#"{"kind":"a","id":"1"}"#]).await.unwrap();
    let (_, login) = role(&client, &url, "visitor").await;
    let visitor = connect(&login).await.unwrap();
    // The locks of the first versions, and every other one that can be guessed.
    let names = ["\"log\"", "\"log\".\"a\"", "\"log\".\"b\"", "millstream", "\"millstream\""];
    for name in names {
        let lock = format!(
            "SELECT pg_advisory_lock(hashtextextended('millstream ' || name, 0)), pg_advisory_lock(hashtextextended(name, 0)), \
             pg_advisory_lock(hashtext(name)) FROM (VALUES ('{name}')) AS names (name)"
        );
        visitor.batch_execute(&lock).await.unwrap();
    }
    for statement in [
        "BEGIN; SELECT FROM millstream.schema_lock FOR UPDATE",
        "BEGIN; LOCK TABLE millstream.schema_lock IN ACCESS SHARE MODE",
        "INSERT INTO millstream.schema_lock VALUES ('\"log\".\"a\"')",
    ] {
        let error = visitor.batch_execute(statement).await.expect_err(statement);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{statement}");
        visitor.batch_execute("ROLLBACK").await.unwrap();
    }
    let documents = [r#"{"kind":"a","id":"2","new":1}"#, r#"{"kind":"b","id":"3"}"#];
    let changing = batch(&mut ingest, 2, &documents);
    let report = tokio::time::timeout(Duration::from_secs(30), changing).await.expect("nothing delays it").unwrap();
    assert_eq!((report.counts.applied, report.ddl > 0), (2, true), "{report}");
    drop(visitor);
}

#[tokio::test]
async fn a_change_waits_for_a_change_of_the_same_table_only() {
    let url = database().await;
    let client = client(&url).await;
    let mut first = ingest(CONFIG, &url);
    batch(&mut first, 1, &[r#"{"kind":"a","id":"1"}"#, r#"{"kind":"b","id":"2"}"#]).await.unwrap();
    let other = connect(&url).await.unwrap();
    let hold = "BEGIN; SELECT FROM millstream.schema_lock WHERE name = '\"log\".\"a\"' FOR UPDATE";
    other.batch_execute(hold).await.unwrap();
    let report = batch(&mut first, 3, &[r#"{"kind":"b","id":"3","new":1}"#]).await.unwrap();
    assert_eq!((report.counts.applied, report.ddl > 0), (1, true), "{report}");

    let mut second = ingest(CONFIG, &url);
    let waiting = tokio::spawn(async move { batch(&mut second, 4, &[r#"{"kind":"a","id":"4","new":1}"#]).await });
    let blocked = "SELECT count(*) > 0 AS blocked FROM pg_stat_activity WHERE datname = current_database() \
        AND wait_event_type = 'Lock' AND query LIKE '%INSERT INTO millstream.schema_lock%'";
    while rows(&client, blocked).await != [r#"{"blocked":true}"#] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    other.batch_execute("COMMIT").await.unwrap();
    let report = waiting.await.unwrap().unwrap();
    assert_eq!((report.counts.applied, report.ddl > 0), (1, true), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_that_may_create_no_schema_change_the_tables_that_they_own() {
    let url = database().await;
    let client = client(&url).await;
    let (name, login) = role(&client, &url, "limited").await;
    let tables = format!(
        "CREATE SCHEMA log; GRANT USAGE ON SCHEMA log TO {name}; CREATE TABLE log.a (id text PRIMARY KEY); \
         ALTER TABLE log.a OWNER TO {name}"
    );
    client.batch_execute(&tables).await.unwrap();
    let writers: Vec<_> = (0..6)
        .map(|writer| {
            let login = login.clone();
            tokio::spawn(async move {
                let mut ingest = ingest(CONFIG, &login);
                for round in 0..4 {
                    let document = format!(r#"{{"kind":"a","id":"{writer}-{round}","new{round}":{writer}}}"#);
                    let report = batch(&mut ingest, 1, &[document]).await.unwrap();
                    assert_eq!(report.counts.applied, 1, "{report}");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let found = "SELECT count(*), count(new0) AS first, count(new3) AS last, \
        to_regclass('millstream.schema_lock') IS NULL AS unlocked FROM log.a";
    assert_eq!(rows(&client, found).await, [r#"{"count":24,"first":6,"last":6,"unlocked":true}"#]);
}
