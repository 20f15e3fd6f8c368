//! A record means the same whatever other records its batch contains.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use millstream::change::{Changes, Operation};
use millstream::config::{Config, SourceConfig};
use millstream::decode::Decoder;
use millstream::record::{Batch, unpack};
use millstream::rejection::Rejection;
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::process::workspace;
use proptest::prelude::*;
use proptest::test_runner::{Config as Settings, TestRunner};

use crate::golden::{config_beside, json_files};
use crate::support::{batch, client, database, ingest, rows, sample};

/// Decodes records one after the other, as the parts of one batch.
struct Decoding<'b> {
    decoder: Decoder,
    batch: &'b Batch,
    changes: Changes<'b>,
    rejected: Vec<(usize, Rejection)>,
}

impl<'b> Decoding<'b> {
    fn new(source: &SourceConfig, batch: &'b Batch) -> Self {
        let mut decoder = Decoder::new(source.clone());
        decoder.scan_for_keys(batch);
        Self { decoder, batch, changes: Changes::default(), rejected: Vec::new() }
    }

    /// What becomes of a record: its changes with their values, or why it is rejected.
    fn outcome(&mut self, record: usize) -> String {
        let (changes, control, rejected) =
            (self.changes.list.len(), self.changes.control_records.len(), self.rejected.len());
        self.decoder.decode_some(self.batch, record..record + 1, &mut self.changes, &mut self.rejected);
        let mut outcome = String::new();
        for change in &self.changes.list[changes..] {
            let table = self.decoder.tables.get(change.table).name.unquoted();
            let operation = if change.operation == Operation::Put { "put" } else { "delete" };
            outcome += &format!("{operation} {table} {:?}: {}\n", change.version, self.values(change.values.clone()));
        }
        for (_, rejection) in &self.rejected[rejected..] {
            outcome += &format!("rejected: {rejection}\n");
        }
        outcome + &"control\n".repeat(self.changes.control_records.len() - control)
    }

    fn values(&self, range: Range<usize>) -> String {
        let value = |(field, value)| format!("{}={value:?}", self.decoder.fields.path(field));
        self.changes.values[range].iter().map(|(field, text)| value((*field, text))).collect::<Vec<_>>().join(" ")
    }
}

/// Every record, before and after every record, itself among them.
fn compare_with_alone(name: &str, source: &SourceConfig, batch: &Batch) {
    let alone: Vec<String> =
        (0..batch.records.len()).map(|record| Decoding::new(source, batch).outcome(record)).collect();
    let mut decoding = Decoding::new(source, batch);
    for (first, expected_first) in alone.iter().enumerate() {
        for (second, expected_second) in alone.iter().enumerate() {
            assert_eq!(decoding.outcome(first), *expected_first, "{name}: record {first} before {second}");
            assert_eq!(decoding.outcome(second), *expected_second, "{name}: record {second} after {first}");
        }
    }
}

fn compare_event(path: &Path) {
    let config = Config::parse("golden", &std::fs::read_to_string(config_beside(path)).unwrap()).unwrap();
    let batch = unpack(&std::fs::read(path).unwrap()).unwrap();
    for source in &config.sources {
        compare_with_alone(&path.to_string_lossy(), source, &batch);
    }
}

#[test]
fn every_sample_event_is_the_same_beside_every_other() {
    let folders = ["events/sportsbook", "events/replica", "tests/golden"].map(|folder| workspace().join(folder));
    let events: Vec<_> = folders.iter().flat_map(|folder| json_files(folder)).collect();
    assert!(events.len() >= 6, "{events:?}");
    events.iter().for_each(|path| compare_event(path));
}

/// A Segment call of some members, each present, null, of another type or missing.
fn call() -> impl Strategy<Value = String> {
    let kind = prop_oneof!["track", "identify", "page", "group", "alias", "other"].prop_map(|kind| format!("{kind:?}"));
    let text = prop_oneof![Just("\"x\""), Just("null"), Just("7"), Just("{}"), Just("[1]"), Just("\"\"")];
    let time = prop_oneof![
        Just("\"2026-02-08T10:00:00Z\""),
        Just("\"2026-02-08T11:00:00.5Z\""),
        Just("null"),
        Just("\"soon\""),
        Just("5")
    ];
    let object = prop_oneof![
        Just(r#"{"a":1}"#),
        Just(r#"{"b":{"c":"x"},"a":null}"#),
        Just(r#"{"email":"e@x"}"#),
        Just(r#""{\"email\":\"e@x\"}""#),
        Just("[1]"),
        Just("\"text\""),
        Just("null")
    ];
    let texts = ["event", "messageId", "userId", "groupId", "anonymousId", "name"]
        .map(|name| (Just(name), proptest::option::of(text.clone())));
    let times = ["receivedAt", "sentAt", "originalTimestamp", "timestamp"]
        .map(|name| (Just(name), proptest::option::of(time.clone())));
    let objects = ["properties", "traits", "context"].map(|name| (Just(name), proptest::option::of(object.clone())));
    let members = (texts.to_vec(), times.to_vec(), objects.to_vec());
    (kind, members).prop_map(|(kind, (texts, times, objects))| {
        let members = [texts, times, objects].concat();
        let member = |(name, value): (&str, Option<&str>)| Some(format!(",\"{name}\":{}", value?));
        format!("{{\"type\":{kind}{}}}", members.into_iter().filter_map(member).collect::<String>())
    })
}

#[test]
fn any_call_is_the_same_beside_any_other() {
    let mut runner = TestRunner::new(Settings { cases: 400, failure_persistence: None, ..Settings::default() });
    let private = "private = [\"traits.email\", { path = \"properties.email\", as = \"sha256\" }]\n";
    let segment = format!(
        "[source.s]\nstream = \"s\"\n{private}[table.x]\nsource = \"s\"\nevents = [\"x\"]\nkey = [\"a\"]\n\
         version = \"timestamp\"\n[table.x.columns]\na = \"properties.a\"\n"
    );
    let json = format!("[source.s]\nstream = \"s\"\nformat = \"json\"\n{private}");
    let sources = [segment, json].map(|config| Config::parse("", &config).unwrap().sources.remove(0));
    let strategy = proptest::collection::vec(call(), 1..6);
    runner
        .run(&strategy, |calls| {
            let numbered = (1..).zip(&calls).map(|(number, call)| ShardRecord::numbered(number, call.as_bytes()));
            let event = event("s", "shardId-000000000000", &numbered.collect::<Vec<_>>());
            let batch = unpack(&event).unwrap();
            sources.iter().for_each(|source| compare_with_alone(&calls.join(" "), source, &batch));
            Ok(())
        })
        .unwrap();
}

#[tokio::test]
async fn each_call_without_received_at_is_received_when_it_arrives() {
    let url = database().await;
    let mut ingest = ingest("[source.seg]\nstream = \"s\"\n", &url);
    let call = |id: &str, more: &str| format!(r#"{{"type":"track","event":"No Arrival","messageId":"{id}"{more}}}"#);
    let calls = [
        call("n0", ""),
        call("n1", ""),
        call("n2", r#","receivedAt":"2026-02-08T10:00:00Z""#),
        call("n3", r#","receivedAt":null"#),
        call("n4", ""),
    ];
    let report = batch(&mut ingest, 1, &calls).await.unwrap();
    assert_eq!(report.counts.applied, 5, "{report}");
    let client = client(&url).await;
    let arrived = "SELECT id, received_at = '2026-02-08T10:00:00Z' AS sent, received_at = \"timestamp\" AS same \
                   FROM seg.no_arrival ORDER BY id";
    let expected =
        ["n0", "n1", "n2", "n3", "n4"].map(|id| format!(r#"{{"id":"{id}","sent":{},"same":true}}"#, id == "n2"));
    assert_eq!(rows(&client, arrived).await, expected);
    let again = ingest.process_event(&sample("no-received-at.json"), Duration::from_secs(60)).await.unwrap();
    assert_eq!(again.counts.applied, 4, "{again}");
}
