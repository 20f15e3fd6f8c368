//! Columns of the owner's: producers do not fill them, whatever they send, until the owner says so.

use crate::support::{batch, client, database, ingest, rows};

const USERS: &str = "SELECT id, is_admin, _overflow->'traits.is_admin' AS kept FROM s.users ORDER BY id";

fn identify(id: &str, second: usize, traits: &str) -> String {
    format!(
        r#"{{"type":"identify","messageId":"{id}{second}","userId":"{id}","receivedAt":"2026-11-27T04:00:00Z","timestamp":"2026-11-27T04:00:{second:02}Z","traits":{{{traits}}}}}"#
    )
}

#[tokio::test]
async fn a_producer_does_not_fill_the_owner_s_column() {
    for mode in ["evolve", "fixed"] {
        let url = database().await;
        let config = format!("[source.s]\nstream = \"s\"\nschema_mode = \"{mode}\"\n");
        batch(&mut ingest(&config, &url), 1, &[identify("a", 1, r#""x":1"#)]).await.unwrap();
        let owner = client(&url).await;
        owner.batch_execute("ALTER TABLE s.users ADD is_admin boolean NOT NULL DEFAULT false").await.unwrap();
        let records = [identify("b", 2, r#""x":2"#), identify("a", 3, r#""is_admin":true"#), identify("c", 4, "")];
        let report = batch(&mut ingest(&config, &url), 2, &records).await.unwrap();
        assert_eq!(report.counts.applied, 3, "{mode}: {report}");
        let found = rows(&owner, USERS).await;
        let wanted = [("a", "true"), ("b", "null"), ("c", "null")];
        let wanted = wanted.map(|(id, kept)| format!(r#"{{"id":"{id}","is_admin":false,"kept":{kept}}}"#));
        assert_eq!(found, wanted, "{mode}");
        let comment = "SELECT count(*) FROM pg_description d JOIN pg_attribute a ON (attrelid, attnum) = (objoid, objsubid) \
                       WHERE attname = 'is_admin' AND attrelid = 's.users'::regclass";
        assert_eq!(rows(&owner, comment).await, [r#"{"count":0}"#], "{mode}");
        // The owner adopts it.
        owner.batch_execute("COMMENT ON COLUMN s.users.is_admin IS 'Millstream: traits.is_admin'").await.unwrap();
        batch(&mut ingest(&config, &url), 9, &[identify("b", 9, r#""is_admin":true"#)]).await.unwrap();
        assert_eq!(rows(&owner, "SELECT id FROM s.users WHERE is_admin").await, [r#"{"id":"b"}"#], "{mode}");
    }
}

#[tokio::test]
async fn a_declared_column_of_the_owner_s_is_filled() {
    let url = database().await;
    let owner = client(&url).await;
    owner
        .batch_execute("CREATE SCHEMA log; CREATE TABLE log.entry (id text PRIMARY KEY, level integer, secret text)")
        .await
        .unwrap();
    for (mode, id) in [("evolve", 1), ("fixed", 2)] {
        let config = format!(
            "[source.log]\nstream = \"s\"\nformat = \"json\"\n[table.entry]\nsource = \"log\"\nid = \"id\"\nschema_mode = \"{mode}\"\n\
             columns = {{ level = \"level\" }}\n"
        );
        let document = format!(r#"{{"id":"{id}","level":{id},"secret":"x"}}"#);
        let report = batch(&mut ingest(&config, &url), id, &[document]).await.unwrap();
        assert_eq!(report.counts.applied, 1, "{mode}: {report}");
    }
    let found = rows(&owner, "SELECT level, secret, _overflow FROM log.entry ORDER BY id").await;
    let row = |level: u32| format!(r#"{{"level":{level},"secret":null,"_overflow":{{"secret": "x"}}}}"#);
    assert_eq!(found, [row(1), row(2)]);
}

#[tokio::test]
async fn users_and_other_tables_of_the_owner_s_are_not_filled() {
    let url = database().await;
    let owner = client(&url).await;
    owner
        .batch_execute(
            "CREATE SCHEMA s; CREATE TABLE s.users (id text PRIMARY KEY, received_at timestamptz); \
             CREATE TABLE s.tracks (id text PRIMARY KEY)",
        )
        .await
        .unwrap();
    let config = "[source.s]\nstream = \"s\"\n";
    let track = r#"{"type":"track","event":"Bet","messageId":"m","receivedAt":"2026-11-27T04:00:00Z"}"#.to_owned();
    for number in [1, 3] {
        let records = [identify("a", 1, ""), track.clone()];
        batch(&mut ingest(config, &url), number, &records).await.unwrap();
    }
    let counts = "SELECT (SELECT count(*) FROM s.users) AS users, (SELECT count(*) FROM s.tracks) AS tracks, \
                  (SELECT count(*) FROM s.bet) AS bets, (SELECT count(*) FROM s.identifies) AS identifies";
    assert_eq!(rows(&owner, counts).await, [r#"{"users":0,"tracks":0,"bets":1,"identifies":1}"#]);
    let others = "SELECT obj_description(oid, 'pg_class') AS note FROM pg_class \
                  WHERE relkind IN ('r', 'p') AND relname ~ '^(users|tracks)_[0-9a-f]{8}$' ORDER BY relname";
    let wanted =
        ["track calls", "identify calls"].map(|label| format!(r#"{{"note":"Millstream: source s, {label}"}}"#));
    assert_eq!(rows(&owner, others).await, wanted);
}
