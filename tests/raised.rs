//! Errors that the owner's functions and triggers raise: they cost their row, whatever their SQLSTATE, and their texts, which
//! may quote the row, appear nowhere.

use std::time::Duration;

use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::local_aws::LocalAws;
use serde_json::Value;

use crate::support::{Files, batch, client, database, ingest, rows};

/// The value that no text may quote.
const MARKER: &str = "secret-value-7";

const ITEMS: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.item]\nsource = \"log\"\nkey = [\"id\"]\n\
    version = \"v\"\n";

/// Each way of writing, and its configuration.
fn write_modes() -> [(&'static str, String); 3] {
    [
        (
            "append",
            "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.item]\nsource = \"log\"\nid = \"id\"\n".to_owned(),
        ),
        ("row", format!("{ITEMS}merge = \"row\"\n")),
        ("column", format!("{ITEMS}merge = \"column\"\n")),
    ]
}

/// A trigger that raises what a statement says for the row with the marker, and writes a notice of each row.
fn trigger(raise: &str) -> String {
    format!(
        "CREATE FUNCTION log.guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         RAISE WARNING 'note %', NEW.note; IF NEW.note = '{MARKER}' THEN {raise}; END IF; RETURN NEW; END $$; \
         CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON log.item FOR EACH ROW EXECUTE FUNCTION log.guard()"
    )
}

const TABLE: &str = "CREATE SCHEMA log; CREATE TABLE log.item (id text PRIMARY KEY, v bigint, note text); COMMENT ON COLUMN log.item.note IS 'Millstream: note'";

/// Three rows, the second of which is rejected.
fn documents() -> [String; 3] {
    ["ok", MARKER, "fine"].map(|note| format!(r#"{{"id":"{note}","v":1,"note":"{note}"}}"#))
}

/// SQLSTATEs that PostgreSQL does not define, and some that mean something else where PostgreSQL raises them.
const RAISED: [&str; 11] =
    ["UE001", "P0001", "23514", "23505", "42501", "42P01", "0A000", "55000", "XX000", "72000", "02000"];

#[tokio::test]
async fn whatever_a_trigger_raises_costs_only_its_row() {
    let guard = "CREATE FUNCTION log.guard() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.note <> 'ok' THEN \
                 RAISE EXCEPTION 'note % is not allowed', NEW.note USING ERRCODE = NEW.note; END IF; RETURN NEW; END $$; \
                 CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON log.item FOR EACH ROW EXECUTE FUNCTION log.guard()";
    let document = |id: &str, note: &str| format!(r#"{{"id":"{id}","v":1,"note":"{note}"}}"#);
    let mut documents = vec![document("first", "ok")];
    documents.extend(RAISED.map(|sqlstate| document(sqlstate, sqlstate)));
    documents.push(document("last", "ok"));
    for (mode, config) in write_modes() {
        let url = database().await;
        let owner = client(&url).await;
        owner.batch_execute(&format!("{TABLE}; {guard}")).await.unwrap();
        let mut ingest = ingest(&config, &url);
        let report = batch(&mut ingest, 1, &documents).await.unwrap_or_else(|error| panic!("{mode}: {error}"));
        assert_eq!((report.counts.applied, report.counts.retry), (2, RAISED.len() as u64), "{mode}: {report}");
        assert_eq!(report.reasons.get("refused"), Some(&(RAISED.len() as u64)), "{mode}: {report}");
        let found = rows(&owner, "SELECT id FROM log.item ORDER BY id").await;
        assert_eq!(found, [r#"{"id":"first"}"#, r#"{"id":"last"}"#], "{mode}");
        // Transient: the trigger may pass on an error that it caught.
        let error = batch(&mut ingest, 100, &[document("later", "57000")]).await.unwrap_err();
        assert!(!error.needs_operator() && !error.to_string().contains("not allowed"), "{mode}: {error}");
    }
}

/// Ways in which the value of a row comes into an error without a RAISE. The SQLSTATE of some is one that a table has, too.
#[tokio::test]
async fn an_error_of_a_check_costs_only_its_row() {
    let config = format!("{ITEMS}merge = \"row\"\n");
    for check in [
        // SQLSTATE 42P01 and 42601, the message quotes the value.
        format!("CASE WHEN note = '{MARKER}' THEN note::regclass IS NOT NULL ELSE true END"),
        format!("CASE WHEN note = '{MARKER}' THEN to_tsquery('simple', note || ' &') IS NOT NULL ELSE true END"),
        format!("CASE WHEN note = '{MARKER}' THEN note::integer > 0 ELSE true END"),
        format!("note <> '{MARKER}'"),
    ] {
        let url = database().await;
        let owner = client(&url).await;
        owner.batch_execute(&format!("{TABLE}; ALTER TABLE log.item ADD CHECK ({check})")).await.unwrap();
        let report = batch(&mut ingest(&config, &url), 1, &documents()).await.unwrap();
        assert_eq!((report.counts.applied, report.counts.retry), (2, 1), "{check}: {report}");
        assert_eq!((report.reasons.get("refused"), report.unwritable_tables), (Some(&1), 0), "{check}: {report}");
    }
}

/// What a table's owner can put the value of a row into, seen from outside.
#[tokio::test]
async fn texts_of_triggers_reach_neither_logs_nor_dead_letters() {
    let (aws, url, files) = (LocalAws::start().await.unwrap(), database().await, Files::new("raised"));
    let queue = aws.queue("dead-letters").await.unwrap();
    let raise = "RAISE EXCEPTION 'note % is not allowed', NEW.note USING ERRCODE = 'UE001', DETAIL = NEW.note, \
                 HINT = NEW.note, CONSTRAINT = NEW.note, COLUMN = NEW.note, TABLE = NEW.note, SCHEMA = NEW.note";
    client(&url).await.batch_execute(&format!("{TABLE}; {}", trigger(raise))).await.unwrap();
    let mut environment = aws.environment();
    for (name, value) in [
        ("DATABASE_URL", url.clone()),
        ("MILLSTREAM_CONFIG", files.write("millstream.toml", &format!("{ITEMS}merge = \"row\"\n"))),
        ("DEAD_LETTER_QUEUE_URL", queue.clone()),
        ("AWS_LAMBDA_LOG_LEVEL", "TRACE".to_owned()),
    ] {
        environment.push((name.to_owned(), value));
    }
    let settings =
        Settings { binary: binary("kinesis-ingest").unwrap(), environment, timeout: Duration::from_secs(30) };
    let mut function = Function::start(settings).await.unwrap();
    let records: Vec<_> = (1..).zip(documents()).map(|(number, data)| ShardRecord::numbered(number, data)).collect();
    let answer = function.invoke(event("s", "shardId-000000000000", &records)).await.unwrap();
    assert!(!String::from_utf8_lossy(&answer).contains("itemIdentifier"), "{answer:?}");

    let letters = aws.drain(&queue).await.unwrap();
    assert_eq!(letters.len(), 1, "{letters:?}");
    let letter: Value = serde_json::from_str(&letters[0]).unwrap();
    let error = &letter["error"];
    assert_eq!((error["class"].as_str(), error["sqlstate"].as_str()), (Some("refused"), Some("UE001")), "{error}");
    assert_eq!(error["table"].as_str(), Some("log.item"), "{error}");
    let message = "PostgreSQL rejected the row: raised by function log.guard() [SQLSTATE UE001]";
    assert_eq!(error["message"].as_str(), Some(message), "{error}");
    assert!(!letters[0].contains(MARKER), "{}", letters[0]);
    let log = std::fs::read_to_string(function.log()).unwrap();
    assert!(log.contains("UE001") && !log.contains(MARKER), "{log}");
    assert_eq!(rows(&client(&url).await, "SELECT count(*) FROM log.item").await, [r#"{"count":2}"#]);
}
