//! Schema changes that an event trigger rejects.

use super::{SEGMENT, Unwritable, process};
use crate::support::{client, database, ingest, rows, sample};

const BANK: &str = "[source.bank]\nstream = \"bank\"\nformat = \"debezium\"\nbackup = false\n";

#[tokio::test]
async fn a_table_that_an_event_trigger_rejects_keeps_no_other_waiting() {
    let url = database().await;
    let owner = client(&url).await;
    let guard = "CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN \
        IF current_query() LIKE '%TABLE \"bank\".\"t\"%' THEN RAISE EXCEPTION 'not this one'; END IF; END $$; \
        CREATE EVENT TRIGGER \"The guard\" ON ddl_command_start EXECUTE FUNCTION guard()";
    owner.batch_execute(guard).await.unwrap();
    let event = sample("event-trigger.json");
    let records = serde_json::from_slice::<serde_json::Value>(&event).unwrap()["Records"].as_array().unwrap().len();
    let others = records as u64 - 1;
    let case = Unwritable { config: BANK, url: &url, event: &event, table: "bank.t", applied: others, rejected: 1 };
    let message = case.until_fixed(&owner).await;
    assert!(message.contains(r#"PostgreSQL rejected `CREATE TABLE "bank"."t""#), "{message}");
    assert!(message.contains("raised by function") && message.contains("[SQLSTATE P0001]"), "{message}");
    assert!(message.contains(r#"run: ALTER EVENT TRIGGER "The guard" DISABLE; CREATE TABLE "bank"."t""#), "{message}");
    assert!(
        message.contains(r#"ALTER EVENT TRIGGER "The guard" ENABLE"#) && !message.contains("not this one"),
        "{message}"
    );
}

#[tokio::test]
async fn every_table_of_a_guarded_database_is_named() {
    let url = database().await;
    let owner = client(&url).await;
    let guard = "CREATE FUNCTION guard() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'none'; END $$; \
        CREATE EVENT TRIGGER guard ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION guard()";
    owner.batch_execute(guard).await.unwrap();
    let report = process(&mut ingest(BANK, &url), &sample("event-trigger.json")).await;
    assert_eq!((report.counts.applied, report.counts.retry), (0, report.counts.total()), "{report}");
    assert_eq!(report.unwritable_tables, report.counts.total(), "{report}");
}

#[tokio::test]
async fn rows_that_need_no_schema_change_are_written_all_the_same() {
    let url = database().await;
    let owner = client(&url).await;
    process(&mut ingest(SEGMENT, &url), &sample("foreign-partition-1.json")).await;
    let guard = "CREATE FUNCTION g() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'DDL needs a ticket'; END $$; \
        CREATE EVENT TRIGGER g ON ddl_command_start WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE') EXECUTE FUNCTION g()";
    owner.batch_execute(guard).await.unwrap();
    let event = sample("ddl-guard.json");
    let case = Unwritable { config: SEGMENT, url: &url, event: &event, table: "s.e", applied: 1, rejected: 1 };
    let message = case.until_fixed(&owner).await;
    assert!(message.contains(r#"`ALTER TABLE "s"."e" ADD COLUMN "newone" numeric`"#), "{message}");
    let found = rows(&owner, "SELECT id, a, newone FROM s.e ORDER BY id").await;
    assert_eq!(found[1..], [r#"{"id":"m2","a":2,"newone":null}"#, r#"{"id":"m3","a":3,"newone":1}"#], "{found:?}");
    // The guard still guards.
    let guarded = rows(&owner, "SELECT evtenabled FROM pg_event_trigger").await;
    assert_eq!(guarded, [r#"{"evtenabled":"O"}"#]);
}
