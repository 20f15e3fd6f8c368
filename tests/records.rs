//! Records in every form that Lambda delivers: wrapped, packed, damaged. A bad record does not affect its neighbours.

use base64_simd::STANDARD;
use std::time::Duration;

use millstream::record::{EventReader, unpack};
use millstream_tests::kinesis::{ShardRecord, event};

use crate::support::{batch, client, database, ingest, rows};
use millstream_tests::packed::{aggregate, gzip, sealed};

const CONFIG: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n";

#[tokio::test]
async fn every_wrapping_is_undone() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let zstd = zstd::encode_all(&br#"{"n":5}"#[..], 3).unwrap();
    let records = [
        br#"{"n":1}"#.to_vec(),
        aggregate(&[br#"{"n":2}"#, br#"{"n":3}"#]),
        gzip(br#"{"n":4}"#),
        zstd,
        b"{\"n\":6}\n{\"n\":7} {\"n\":8}".to_vec(),
        aggregate(&[&gzip(br#"{"n":9}"#), br#"{"n":10}{"n":11}"#]),
        b"".to_vec(),
    ];
    let report = batch(&mut ingest, 1, &records).await.unwrap();
    assert_eq!((report.counts.applied, report.empty_records), (11, 1), "{report}");
    let client = client(&url).await;
    assert_eq!(rows(&client, "SELECT sum(n) FROM log.log").await, [r#"{"sum":66}"#]);
    // The position identifies a record: delivered again in another wrapping, it is the same record.
    let again = batch(&mut ingest, 1, &records).await.unwrap();
    assert_eq!(again.counts.duplicate, 11, "{again}");
    let places = rows(&client, "SELECT _id FROM log.log WHERE n IN (9, 11) ORDER BY n").await;
    assert!(places[0].ends_with(r#"0000000006:0"}"#) && places[1].ends_with(r#"0000000006:2"}"#), "{places:?}");
}

#[tokio::test]
async fn what_cannot_be_unpacked_costs_only_itself() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let mut broken = aggregate(&[br#"{"n":1}"#]);
    let end = broken.len() - 16;
    // An index outside the key table, with a valid checksum.
    broken[3 + 4 + 3] = 7;
    let broken = sealed(&broken[4..end]);
    let bomb = gzip(&vec![b' '; 40 * 1024 * 1024]);
    let records: [&[u8]; 6] =
        [br#"{"n":1}"#, &broken, b"\x1f\x8bno gzip", b"\x28\xb5\x2f\xfdno zstd", &bomb, br#"{"n":2}"#];
    let report = batch(&mut ingest, 1, &records).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (2, 4), "{report}");
    assert_eq!(report.reasons, [("limit_exceeded", 1), ("unreadable", 3)].into(), "{report}");
    assert!(report.retry_from.unwrap().ends_with("0000000002"));
}

#[test]
fn the_envelope_is_read_element_by_element() {
    let good = ShardRecord::numbered(1, br#"{"n":1}"#);
    let text = String::from_utf8(event("s", "shardId-000000000000", &[good])).unwrap();
    let element = text.strip_prefix("{\"Records\":[").and_then(|rest| rest.strip_suffix("]}")).unwrap();
    let bad = [
        element.replace(&STANDARD.encode_to_string(br#"{"n":1}"#), "no base64"),
        element.replace("1770593400.98", "\"yesterday\""),
        element.replace("sequenceNumber", "number"),
        "17".to_owned(),
    ];
    let event = format!("{{\"Records\":[{element},{},{element}]}}", bad.join(","));
    let batch = unpack(event.as_bytes()).unwrap();
    let faults: Vec<bool> = batch.records.iter().map(|record| record.unpack_error.is_some()).collect();
    assert_eq!(faults, [false, true, true, true, true, false]);
    assert_eq!(batch.records[0].arrival.to_string(), "2026-02-08T23:30:00.980Z");
}

#[test]
fn an_invalid_event_is_reported_and_stays_invalid() {
    let element = |stream: &str| String::from_utf8(event(stream, "shard", &[ShardRecord::numbered(1, b"{}")])).unwrap();
    let one = element("s");
    let inner = one.strip_prefix("{\"Records\":[").and_then(|rest| rest.strip_suffix("]}")).unwrap();
    let other = inner.replace("stream/s\"", "stream/t\"");
    for (event, told) in [
        ("17".to_owned(), "or an array of records"),
        ("{\"Records\":null,\"more\":[]}".to_owned(), "or an array of records"),
        (format!("[{inner}"), "expected ',' or a closing bracket"),
        (format!("[{inner},]"), "expected a value"),
        (format!("[{inner}]]"), "unexpected data after"),
        (format!("{{\"Records\":[{inner}],\"more\":}}"), "expected a value"),
        (format!("[{inner},{other}]"), "more than one stream"),
    ] {
        let error = unpack(event.as_bytes()).unwrap_err().to_string();
        assert!(error.contains(told), "{event}: {error}");
        if let Ok(mut unpacking) = EventReader::open(event.as_bytes()) {
            unpacking.read_until(1).unwrap();
            assert_eq!(unpacking.batch().records.len(), 1);
            for _ in 0..3 {
                assert_eq!(unpacking.read_until(usize::MAX).unwrap_err().to_string(), error);
            }
        }
    }
    assert!(unpack(b"{\"Records\":[\xff]}").is_err());
    let batch = unpack(format!("{{\"a\":[{{}}],\"Records\":[ {inner} , {inner} ],\"b\":\"]\"}}").as_bytes()).unwrap();
    assert_eq!(batch.records.len(), 2);
}

/// The first records are written before the last ones are read; if those are invalid, nothing is committed.
#[tokio::test]
async fn an_event_that_is_wrong_at_its_end_leaves_nothing() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    batch(&mut ingest, 9_000, &[br#"{"n":0}"#]).await.unwrap();
    let records: Vec<ShardRecord> =
        (1..=3_000).map(|number| ShardRecord::numbered(number, format!("{{\"n\":{number}}}"))).collect();
    let right = String::from_utf8(event("s", "shard", &records)).unwrap();
    let at = right.rfind("stream/s\"").unwrap();
    let other = format!("{}stream/t\"{}", &right[..at], &right[at + "stream/s\"".len()..]);
    for (wrong, told) in [(other.as_str(), "more than one stream"), (&right[..right.len() - 40], "invalid JSON")] {
        let error = ingest.process_event(wrong.as_bytes(), Duration::from_secs(60)).await.unwrap_err();
        assert!(error.needs_operator() && error.to_string().contains(told), "{error}");
        assert_eq!(rows(&client(&url).await, "SELECT count(*) FROM log.log").await, [r#"{"count":1}"#]);
    }
    let report = ingest.process_event(right.as_bytes(), Duration::from_secs(60)).await.unwrap();
    assert_eq!(report.counts.applied, 3_000, "{report}");
}

#[test]
fn pipes_bare_array_and_a_consumer_s_arn_are_understood() {
    let text =
        std::fs::read_to_string(millstream_tests::process::workspace().join("events/sportsbook/pipes.json")).unwrap();
    let text = text.replace("stream/sportsbook", "stream/sportsbook/consumer/fan:1770593400");
    let batch = unpack(text.as_bytes()).unwrap();
    assert_eq!(batch.records.len(), 1);
    let record = &batch.records[0];
    assert!(record.unpack_error.is_none() && batch.payload(record).starts_with(b"{\"anonymousId\""));
    assert_eq!(&*record.position.stream, "arn:aws:kinesis:us-east-1:123456789012:stream/sportsbook");
}
