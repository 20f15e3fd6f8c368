//! Replicas of DynamoDB tables: correct for any records, in any order, with any duplicates.

mod bad_input;
mod history;
mod keys;
mod names;
mod owned;
mod race;

use std::fmt::Display;
use std::time::Duration;

use millstream::ingest::{Ingest, IngestError};
use millstream::report::Report;

/// Every table of every stream.
const CONFIG: &str = "[source.shop]\nstream = \"*\"\nformat = \"dynamodb\"\n";

/// An element of a DynamoDB event, as Lambda delivers it.
fn element(table: &str, event: &str, sequence: impl Display, dynamodb: &str) -> String {
    format!(
        r#"{{"eventID":"e{sequence}","eventName":{event},"eventVersion":"1.1","eventSource":"aws:dynamodb","awsRegion":"us-east-1",
        "eventSourceARN":"arn:aws:dynamodb:us-east-1:123456789012:table/{table}/stream/2026-02-01T00:00:00.000",
        "dynamodb":{{"ApproximateCreationDateTime":1770593461,"SizeBytes":1,"StreamViewType":"NEW_IMAGE",
        "SequenceNumber":"{sequence}",{dynamodb}}}}}"#
    )
}

/// A sequence number as DynamoDB writes it.
fn sequence(number: u64) -> String {
    format!("14054000000000020632{number:05}")
}

/// An item is written; `key` and `more` are attributes.
fn put(table: &str, number: u64, key: &str, more: &str) -> String {
    let comma = if more.is_empty() { "" } else { "," };
    let told = format!(r#""Keys":{{{key}}},"NewImage":{{{key}{comma}{more}}}"#);
    element(table, "\"MODIFY\"", sequence(number), &told)
}

/// An item is deleted.
fn remove(table: &str, number: u64, key: &str) -> String {
    element(table, "\"REMOVE\"", sequence(number), &format!(r#""Keys":{{{key}}}"#))
}

/// An item of a full load.
fn loaded(table: &str, item: &str) -> String {
    format!(
        r#"{{"eventID":"x","eventSourceARN":"arn:aws:dynamodb:us-east-1:123456789012:table/{table}/stream/2026-02-01T00:00:00.000",
        "dynamodb":{{}},"Item":{{{item}}}}}"#
    )
}

/// A key's state at the end of an incremental export's time range; without an item it was deleted.
fn exported(table: &str, micros: u64, key: &str, item: Option<&str>) -> String {
    let image = item.map(|more| format!(r#","NewImage":{{{key},{more}}}"#)).unwrap_or_default();
    format!(
        r#"{{"eventID":"x","eventSourceARN":"arn:aws:dynamodb:us-east-1:123456789012:table/{table}/stream/2026-02-01T00:00:00.000",
        "dynamodb":{{}},"Metadata":{{"WriteTimestampMicros":{{"N":"{micros}"}}}},"Keys":{{{key}}}{image}}}"#
    )
}

/// Delivers one batch.
async fn send(ingest: &mut Ingest, records: &[String]) -> Result<Report, IngestError> {
    let event = format!("{{\"Records\":[{}]}}", records.join(","));
    let report = ingest.process_event(event.as_bytes(), Duration::from_secs(60)).await?;
    assert_eq!(report.counts.total() + report.empty_records, records.len() as u64, "somebody is lost: {report}");
    Ok(report)
}

/// Delivers one batch, which must succeed.
async fn sent(ingest: &mut Ingest, records: &[String]) -> Report {
    send(ingest, records).await.unwrap_or_else(|error| panic!("{error}"))
}
