//! Sources that fill one schema: they share the tables that they define alike and keep for the same time. Any other table belongs
//! to one of them, and `maintain` drops nobody else's rows.

use millstream::clock::now;
use millstream::ingest::DryRun;
use millstream::timestamp::Timestamp;

use crate::maintain::run_maintain_with;
use crate::support::{batch_of, client, database, ingest, rows};

const DAY: i64 = 24 * 3_600_000_000;

/// Two Segment sources with one schema, each with keys of its own.
fn config(web: &str, app: &str) -> String {
    format!(
        "[source.web]\nstream = \"web\"\nschema = \"s\"\n{web}\n[source.app]\nstream = \"app\"\nschema = \"s\"\n{app}\n"
    )
}

fn keep(days: u32) -> String {
    format!("partition = {{ by = \"received_at\", every = \"day\", keep = \"{days} days\" }}")
}

fn track(id: &str, days: i64) -> String {
    let at = Timestamp(now().0 + days * DAY);
    format!(r#"{{"type":"track","event":"Click","messageId":"{id}","receivedAt":"{at}"}}"#)
}

fn identify(user: &str) -> String {
    let at = now();
    format!(r#"{{"type":"identify","messageId":"{user}","userId":"{user}","receivedAt":"{at}","timestamp":"{at}"}}"#)
}

/// The event and entity tables of the schema, each with its rows, in the order of their names without suffixes.
async fn contents(url: &str) -> Vec<String> {
    let client = client(url).await;
    let tables = "SELECT relname FROM pg_class WHERE relnamespace = 's'::regnamespace AND relkind IN ('r', 'p') \
                  AND NOT relispartition ORDER BY regexp_replace(relname, '_[0-9a-f]{8}$', ''), length(relname)";
    let mut contents = Vec::new();
    for row in client.query(tables, &[]).await.unwrap() {
        let name: String = row.get(0);
        let ids = format!("SELECT coalesce(string_agg(id, ' ' ORDER BY id), '') AS ids FROM s.\"{name}\"");
        let ids: String = client.query_one(&ids, &[]).await.unwrap().get(0);
        let is_renamed = name.rsplit_once('_').is_some_and(|(_, suffix)| suffix.len() == 8);
        contents.push(format!("{}: {ids}", if is_renamed { &name[..name.len() - 8] } else { &name }));
    }
    contents
}

#[tokio::test]
async fn sources_that_keep_rows_for_the_same_time_share_their_tables() {
    let url = database().await;
    let config = config(&keep(30), &keep(30));
    for (stream, id) in [("web", "w"), ("app", "a")] {
        batch_of(&mut ingest(&config, &url), stream, 1, &[track(id, 0), identify(id)]).await.unwrap();
    }
    assert_eq!(contents(&url).await, ["click: a w", "identifies: a w", "tracks: a w", "users: a w"]);
}

#[tokio::test]
async fn a_source_that_keeps_its_rows_longer_loses_none_of_them() {
    for (first, second) in [("web", "app"), ("app", "web")] {
        let url = database().await;
        let config = config(&keep(30), &keep(90));
        batch_of(&mut ingest(&config, &url), first, 1, &[track(first, 0), identify(first)]).await.unwrap();
        let old = |name: &str| track(&format!("{name}-old"), if name == "app" { -60 } else { -20 });
        batch_of(&mut ingest(&config, &url), second, 1, &[track(second, 0), identify(second), old(second)])
            .await
            .unwrap();
        batch_of(&mut ingest(&config, &url), first, 5, &[old(first)]).await.unwrap();
        let owner = client(&url).await;
        // Time passes for the tables of the source that keeps its rows for 30 days.
        let webs = "SELECT c.oid::regclass::text FROM pg_class c WHERE relkind = 'p' AND relname ~ '^click' \
                    AND obj_description(c.oid, 'pg_class') = 'Millstream: source web, track event Click'";
        let web_clicks: String = owner.query_one(webs, &[]).await.unwrap().get(0);
        let (from, to) = (day(-60), day(-59));
        let expired =
            format!("CREATE TABLE s.expired PARTITION OF {web_clicks} FOR VALUES FROM ('{from}') TO ('{to}')");
        owner.batch_execute(&expired).await.unwrap();
        assert_eq!(run_maintain_with(&config, &url).await.dropped, ["s.expired"], "{first} first");
        let of = |name: &str| format!("{name} {name}-old");
        let expected = [
            format!("click: {}", of(first)),
            format!("click_: {}", of(second)),
            format!("identifies: {first}"),
            format!("identifies_: {second}"),
            format!("tracks: {}", of(first)),
            format!("tracks_: {}", of(second)),
            // No retention concerns them.
            "users: app web".to_owned(),
        ];
        assert_eq!(contents(&url).await, expected, "{first} first");
    }
}

fn day(days: i64) -> Timestamp {
    let (today, _) = now().day_and_micros();
    Timestamp::from_days(today + days)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_sources_that_create_a_table_at_once_get_one_each() {
    for _ in 0..8 {
        let url = database().await;
        let writing = ["web", "app"].map(|stream| {
            let mut ingest = ingest(&config(&keep(30), &keep(90)), &url);
            tokio::spawn(
                async move { batch_of(&mut ingest, stream, 1, &[track(stream, 0)]).await.unwrap().counts.applied },
            )
        });
        for stream in writing {
            assert_eq!(stream.await.unwrap(), 1);
        }
        let (client, mut notes) = (client(&url).await, Vec::new());
        let tables =
            "SELECT c.oid::regclass::text, obj_description(c.oid, 'pg_class') FROM pg_class c WHERE relkind = 'p'";
        for row in client.query(tables, &[]).await.unwrap() {
            let (table, note): (String, String) = (row.get(0), row.get(1));
            let id: String = client.query_one(&format!("SELECT id FROM {table}"), &[]).await.unwrap().get(0);
            assert!(note.starts_with(&format!("Millstream: source {id}, ")), "{table} ({note}) holds the row of {id}");
            notes.push(note);
        }
        assert_eq!(notes.len(), 4, "{notes:?}");
    }
}

#[tokio::test]
async fn a_declared_table_is_not_filled_by_the_events_of_another_source() {
    let url = database().await;
    let declared = "[table.click]\nsource = \"app\"\nevents = [\"Tap\"]\n\
                    partition = { by = \"received_at\", keep = \"3 days\" }";
    let config = format!("{}{declared}\n", config("", ""));
    let tap = track("tap", 0).replace("Click", "Tap");
    batch_of(&mut ingest(&config, &url), "app", 1, &[tap]).await.unwrap();
    let report = batch_of(&mut ingest(&config, &url), "web", 1, &[track("web", -4)]).await.unwrap();
    assert_eq!(report.counts.applied, 1, "{report}");
    assert_eq!(contents(&url).await, ["click: tap", "click_: web", "tap: tap", "tracks: tap web"]);
}

#[tokio::test]
async fn the_tables_of_a_renamed_source_are_reported_and_handed_over() {
    let url = database().await;
    let before = "[source.old]\nstream = \"web\"\nschema = \"s\"\n";
    batch_of(&mut ingest(before, &url), "web", 1, &[track("before", 0)]).await.unwrap();
    let owner = client(&url).await;
    owner
        .batch_execute("COMMENT ON TABLE s.click IS E'Clicks.\nMillstream: source old, track event Click'")
        .await
        .unwrap();
    let after = before.replace("old", "new");
    let reported = DryRun::new(&mut ingest(&after, &url)).configuration().await.unwrap();
    let tables: Vec<_> = reported.iter().map(|table| (&*table.source, &*table.table)).collect();
    assert_eq!(tables, [("new", "s.click"), ("new", "s.tracks")]);
    for table in &reported {
        assert!(table.remarks[0].contains("source old, track "), "{table:?}");
        let (_, remedy) = table.remarks[0].split_once("run: ").unwrap();
        owner.batch_execute(remedy).await.unwrap();
    }
    assert_eq!(DryRun::new(&mut ingest(&after, &url)).configuration().await.unwrap(), []);
    batch_of(&mut ingest(&after, &url), "web", 2, &[track("after", 0)]).await.unwrap();
    assert_eq!(contents(&url).await, ["click: after before", "tracks: after before"]);
    let comment = rows(&owner, "SELECT obj_description('s.click'::regclass, 'pg_class') AS comment").await;
    assert_eq!(comment, [r#"{"comment":"Clicks.\nMillstream: source new, track event Click"}"#]);
}

#[tokio::test]
async fn a_plan_says_where_the_rows_of_a_table_of_another_source_go() {
    let url = database().await;
    let config = config(&keep(30), &keep(90));
    batch_of(&mut ingest(&config, &url), "web", 1, &[track("web", 0)]).await.unwrap();
    let event = millstream_tests::kinesis::event(
        "app",
        "shardId-000000000000",
        &[millstream_tests::kinesis::ShardRecord::numbered(1, track("app", 0).as_bytes())],
    );
    let planned = DryRun::new(&mut ingest(&config, &url)).plan_event(&event).await.unwrap();
    let objects: Vec<String> = planned.plan.owner_objects.iter().map(ToString::to_string).collect();
    assert_eq!(objects.len(), 2, "{objects:?}");
    let said = "table s.click belongs to another source (source web, track event Click), so the rows of source app, \
                track event Click go to s.click_";
    assert!(objects[0].starts_with(said), "{objects:?}");
    let (_, remedy) = objects[0].split_once("hand it over: ").unwrap();
    client(&url).await.batch_execute(remedy).await.unwrap();
}
