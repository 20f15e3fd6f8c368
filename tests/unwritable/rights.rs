//! Rights that the writer is missing on a table, and policies that reject a row.

use tokio_postgres::Client;

use super::{Unwritable, documents, process};
use crate::support::{client, database, ingest, rows};

const CONFIG: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\n\
    [table.item]\nsource = \"s\"\nwhen = { path = \"kind\", is = \"item\" }\nkey = [\"id\"]\nversion = \"v\"\n\
    [table.note]\nsource = \"s\"\nwhen = { path = \"kind\", is = \"note\" }\nid = \"id\"\n";

/// Tables that the owner created, with all columns that the writer needs, and a role that may write the notes.
async fn owned() -> (String, String, Client) {
    let url = database().await;
    let owner = client(&url).await;
    let role = format!("writer_{}", url.rsplit('/').next().unwrap());
    let tables = format!(
        "CREATE ROLE {role} LOGIN; CREATE SCHEMA s; GRANT USAGE ON SCHEMA s TO {role}; \
         CREATE TABLE s.item (id text PRIMARY KEY, kind text, v numeric, note text, _version text, _overflow jsonb); \
         CREATE TABLE s.note (id text PRIMARY KEY, kind text, _overflow jsonb); \
         COMMENT ON COLUMN s.item.note IS 'Millstream: note'; COMMENT ON COLUMN s.item.v IS 'Millstream: v'; \
         COMMENT ON COLUMN s.item.kind IS 'Millstream: kind'; COMMENT ON COLUMN s.note.kind IS 'Millstream: kind'; \
         GRANT SELECT, INSERT ON s.note TO {role}"
    );
    owner.batch_execute(&tables).await.unwrap();
    let login = url.replace("postgresql://postgres@", &format!("postgresql://{role}@"));
    (login, role, owner)
}

fn item(id: u32, more: &str) -> String {
    format!(r#"{{"kind":"item","id":"{id}","v":1{more}}}"#)
}

const NOTE: &str = r#"{"kind":"note","id":"1"}"#;

#[tokio::test]
async fn a_table_that_the_writer_may_not_write_costs_its_own_records() {
    let (login, role, owner) = owned().await;
    let event = documents(&[item(1, ""), NOTE.to_owned(), item(2, "")]);
    let case = Unwritable { config: CONFIG, url: &login, event: &event, table: "s.item", applied: 1, rejected: 2 };
    let message = case.until_fixed(&owner).await;
    let remedy = format!("run: GRANT SELECT, INSERT, UPDATE ON TABLE s.item TO {role}");
    assert!(message.contains("SQLSTATE 42501") && message.contains(&remedy), "{message}");
}

#[tokio::test]
async fn a_table_that_the_writer_may_not_alter_costs_the_records_that_need_it() {
    let (login, role, owner) = owned().await;
    owner.batch_execute(&format!("GRANT SELECT, INSERT, UPDATE ON s.item TO {role}")).await.unwrap();
    let event = documents(&[item(1, ""), NOTE.to_owned(), item(2, r#","new":1"#)]);
    let case = Unwritable { config: CONFIG, url: &login, event: &event, table: "s.item", applied: 2, rejected: 1 };
    let message = case.until_fixed(&owner).await;
    let remedy = format!("run: GRANT CREATE ON SCHEMA s TO {role}; ALTER TABLE s.item OWNER TO {role}");
    assert!(message.contains("ADD COLUMN \"new\" numeric") && message.contains(&remedy), "{message}");
}

#[tokio::test]
async fn a_row_that_a_policy_rejects_costs_only_itself() {
    let (login, role, owner) = owned().await;
    let policy = format!(
        "GRANT SELECT, INSERT, UPDATE ON s.item TO {role}; ALTER TABLE s.item ENABLE ROW LEVEL SECURITY; \
         CREATE POLICY all_but_secret ON s.item USING (true) WITH CHECK (note IS DISTINCT FROM 'secret')"
    );
    owner.batch_execute(&policy).await.unwrap();
    let secret = r#","note":"secret""#;
    for (documents_, applied, rejected) in [
        (vec![item(1, ""), item(2, secret), item(3, r#","note":"x""#), NOTE.to_owned()], 3, 1),
        // Also if it is the only one, or if all are rejected.
        (vec![item(4, secret)], 0, 1),
        ((10..40).map(|id| item(id, secret)).collect(), 0, 30),
    ] {
        let report = process(&mut ingest(CONFIG, &login), &documents(&documents_)).await;
        assert_eq!((report.counts.applied, report.counts.retry), (applied, rejected), "{report}");
        assert_eq!((report.reasons.get("refused"), report.unwritable_tables), (Some(&rejected), 0), "{report}");
    }
    assert_eq!(rows(&owner, "SELECT id FROM s.item ORDER BY id").await, [r#"{"id":"1"}"#, r#"{"id":"3"}"#]);
}

#[tokio::test]
async fn a_schema_that_cannot_be_created_keeps_the_source_waiting() {
    let url = database().await;
    let owner = client(&url).await;
    let role = format!("stranger_{}", url.rsplit('/').next().unwrap());
    owner.batch_execute(&format!("CREATE ROLE {role} LOGIN")).await.unwrap();
    let login = url.replace("postgresql://postgres@", &format!("postgresql://{role}@"));
    let error = ingest(CONFIG, &login).process_event(&documents(&[NOTE]), super::PLENTY).await.unwrap_err();
    assert!(error.needs_operator() && error.to_string().contains(r#"schema s (`CREATE SCHEMA "s"`)"#), "{error}");
}
