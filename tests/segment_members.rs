//! Segment calls whose `properties`, `traits` or `context` are not objects.

use std::time::Duration;

use crate::support::{batch, client, database, ingest, rows, sample};

/// A track call with these members.
fn call(properties: &str, context: &str) -> String {
    format!(
        r#"{{"type":"track","event":"Ev","messageId":"odd","receivedAt":"2026-02-08T10:00:00Z",
        "properties":{properties},"context":{context}}}"#
    )
}

#[tokio::test]
async fn segment_members_that_are_not_objects_are_kept_whole() {
    let url = database().await;
    let mut ingest = ingest("[source.s]\nstream = \"s\"\n", &url);
    let sample = sample("segment-not-an-object.json");
    for _ in 0..2 {
        let report = ingest.process_event(&sample, Duration::from_secs(60)).await.unwrap();
        assert_eq!(report.counts.total(), 9, "{report}");
        assert_eq!(report.counts.retry, 0, "{report}");
    }
    let client = client(&url).await;
    let overflow = rows(&client, "SELECT id, _overflow FROM s.ev ORDER BY id").await;
    assert_eq!(
        overflow,
        [
            r#"{"id":"p1","_overflow":{"properties": ["LOST1"]}}"#,
            r#"{"id":"p2","_overflow":{"properties": "LOST2"}}"#,
            r#"{"id":"p3","_overflow":{"properties": 3001}}"#,
            r#"{"id":"p4","_overflow":{"context": ["LOST4"]}}"#,
            r#"{"id":"p5","_overflow":{"context": "LOST5"}}"#,
            r#"{"id":"p6","_overflow":{"properties": "{\"plan\":\"LOST6\"}"}}"#,
            r#"{"id":"p9","_overflow":{"properties": [{"sku": "LOST9"}]}}"#,
        ]
    );
    for (table, expected) in [("identifies", r#"["LOST7"]"#), ("users", r#"["LOST7"]"#)] {
        let query = format!("SELECT _overflow -> 'traits' AS traits FROM s.{table} ORDER BY id LIMIT 1");
        assert_eq!(rows(&client, &query).await, [format!(r#"{{"traits":{expected}}}"#)], "{table}");
    }
    let tracks = rows(&client, "SELECT id FROM s.tracks WHERE _overflow ? 'context' ORDER BY id").await;
    assert_eq!(tracks, [r#"{"id":"p4"}"#, r#"{"id":"p5"}"#]);
}

#[tokio::test]
async fn members_that_are_not_objects_follow_the_schema_mode_and_the_private_fields() {
    for (config, properties, expected) in [
        ("schema_mode = \"fixed\"", "[1]", Some(r#"{"properties": [1]}"#)),
        ("schema_mode = \"strict\"", "[1]", None),
        ("schema_mode = \"strict\"", "null", Some("null")),
        ("nested = \"jsonb\"", "[1]", Some(r#"{"properties": [1]}"#)),
        ("nested = \"jsonb\"", r#"{"a":2,"b":{"c":1}}"#, Some("null")),
        ("private = [\"properties\"]", "[1]", Some("null")),
        ("private = [\"properties.p\"]", r#"[{"p":1,"q":2}]"#, Some(r#"{"properties": [{"q": 2}]}"#)),
        ("private = [\"properties.p\"]", r#""{\"p\":1,\"q\":2}""#, Some(r#"{"properties": "{\"q\":2}"}"#)),
    ] {
        let url = database().await;
        let mut evolving = ingest("[source.s]\nstream = \"s\"\n", &url);
        let first = call("{}", "{}").replace("odd", "first");
        batch(&mut evolving, 1, &[first]).await.unwrap();
        let mut ingest = ingest(&format!("[source.s]\nstream = \"s\"\n{config}\n"), &url);
        let report = batch(&mut ingest, 10, &[call(properties, "null")]).await.unwrap();
        let is_rejected = u64::from(expected.is_none());
        assert_eq!(report.counts.retry, is_rejected, "{config} {properties}: {report}");
        let found = rows(&client(&url).await, "SELECT _overflow FROM s.ev WHERE id = 'odd'").await;
        let expected: Vec<String> = expected.iter().map(|json| format!(r#"{{"_overflow":{json}}}"#)).collect();
        assert_eq!(found, expected, "{config} {properties}");
    }
}
