//! Messages on the queues: Millstream's dead letters, and Lambda's on-failure records for batches that it discarded.

use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::dead_letter::{DeadLetter, ENVELOPE_VERSION};
use crate::record::without_consumer_suffix;
use crate::timestamp::Timestamp;

/// The reason under which on-failure records are selected and counted.
const UNDELIVERED: &str = "undelivered";

/// The key that Millstream adds to an on-failure record.
const READ_BACK: &str = "readBack";

/// Why a message stays on its queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeepReason {
    /// This is a dry run.
    DryRun,
    /// It is not selected.
    NotSelected,
    /// It was rejected since the run began.
    RejectedEarlier,
    /// It is not a dead letter, or has an unsupported version.
    Unreadable(String),
    /// No configured source has this name or reads this stream.
    UnknownSource(String),
    /// Some of its records are no longer in the stream; the remaining ones have been written.
    NoLongerInStream(String),
    /// Its payload could not be read.
    Unavailable(String),
    /// Its records prevent their batch from being written.
    Failed(String),
}

impl KeepReason {
    /// The key under which the reason is counted.
    pub fn class(&self) -> &'static str {
        match self {
            Self::DryRun => "dry_run",
            Self::NotSelected => "not_selected",
            Self::RejectedEarlier => "refused_again",
            Self::Unreadable(_) => "unreadable",
            Self::UnknownSource(_) => "unknown_source",
            Self::NoLongerInStream(_) => "gone",
            Self::Unavailable(_) => "unavailable",
            Self::Failed(_) => "failed",
        }
    }

    /// Details for an operator.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::DryRun | Self::NotSelected | Self::RejectedEarlier => None,
            Self::UnknownSource(origin) => {
                Some(format!("no configured source has this name or reads this stream: {origin}"))
            }
            Self::NoLongerInStream(missing) => Some(format!("no longer in the stream: {missing}")),
            Self::Unreadable(detail) | Self::Unavailable(detail) | Self::Failed(detail) => Some(detail.clone()),
        }
    }
}

/// A message of a queue.
#[derive(Debug)]
pub enum QueueMessage {
    /// A rejected record.
    DeadLetter(Box<DeadLetter>),
    /// A batch that Lambda discarded: its position in the stream.
    OnFailure(OnFailure),
}

/// The fields used from an on-failure record (<https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>).
#[derive(Clone, PartialEq, Eq, Deserialize, Debug)]
#[serde(rename_all = "camelCase")]
pub struct OnFailure {
    /// The stream's ARN.
    #[serde(rename = "streamArn")]
    pub stream: String,
    /// The shard.
    #[serde(rename = "shardId")]
    pub shard: String,
    /// The sequence number of the first record.
    #[serde(rename = "startSequenceNumber")]
    pub first: String,
    /// The sequence number of the last record.
    #[serde(rename = "endSequenceNumber")]
    pub last: String,
    /// When the first record arrived.
    #[serde(rename = "approximateArrivalOfFirstRecord")]
    pub arrival: String,
    /// Number of records in the batch. An event filter may have dropped records between them.
    #[serde(rename = "batchSize")]
    pub records: u64,
    /// Set if the batch was read back and some of its records were missing.
    #[serde(skip)]
    pub read_back: Option<ReadBack>,
}

/// Added to an on-failure record after the records still in the stream have been written.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct ReadBack {
    /// The records that were missing.
    #[serde(rename = "lost")]
    pub missing: String,
    /// When the batch was read back.
    pub at: String,
}

impl ReadBack {
    /// Returns the message with this note added.
    pub fn annotate(&self, body: &str) -> serde_json::Result<String> {
        let mut message: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body)?;
        message.insert(READ_BACK.to_owned(), serde_json::to_value(self)?);
        serde_json::to_string(&message)
    }
}

/// The fields that tell messages apart. The other fields of an on-failure record vary with the failure.
#[derive(Deserialize)]
struct MessageProbe<'a> {
    #[serde(borrow, rename = "KinesisBatchInfo", alias = "DDBStreamBatchInfo")]
    batch: Option<&'a RawValue>,
    #[serde(borrow)]
    version: Option<&'a RawValue>,
    #[serde(rename = "readBack")]
    read_back: Option<ReadBack>,
}

impl QueueMessage {
    /// Reads a message's body.
    pub fn read(body: &str) -> Result<Self, KeepReason> {
        const UNKNOWN_MESSAGE: &str = "neither a dead letter nor a Lambda on-failure record";
        match parse::<MessageProbe<'_>>(body, UNKNOWN_MESSAGE)? {
            MessageProbe { batch: Some(batch), read_back, .. } => {
                let mut batch: OnFailure = parse(batch.get(), "invalid batch in a Lambda on-failure record")?;
                batch.stream = without_consumer_suffix(&batch.stream).to_owned();
                batch.read_back = read_back;
                Ok(Self::OnFailure(batch))
            }
            MessageProbe { batch: None, version: Some(version), .. } => match parse(version.get(), UNKNOWN_MESSAGE)? {
                ENVELOPE_VERSION => parse(body, "damaged dead letter").map(Self::DeadLetter),
                version => Err(KeepReason::Unreadable(format!(
                    "unsupported envelope version {version:?} (written by a newer release)"
                ))),
            },
            MessageProbe { batch: None, version: None, .. } => Err(KeepReason::Unreadable(UNKNOWN_MESSAGE.to_owned())),
        }
    }

    /// The source and stream of the message, human-readable.
    pub fn origin(&self) -> String {
        let source = self.source().map(|source| format!("{source}, ")).unwrap_or_default();
        format!("{source}{}", self.stream())
    }

    /// The stream's ARN.
    pub fn stream(&self) -> &str {
        match self {
            Self::DeadLetter(dead_letter) => &dead_letter.position.stream,
            Self::OnFailure(batch) => &batch.stream,
        }
    }

    /// The source's name, if the message contains it.
    pub fn source(&self) -> Option<&str> {
        match self {
            Self::DeadLetter(dead_letter) => Some(&dead_letter.source),
            Self::OnFailure(_) => None,
        }
    }

    /// The table that rejected the record.
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::DeadLetter(dead_letter) => dead_letter.error.table.as_deref(),
            Self::OnFailure(_) => None,
        }
    }

    /// The class of the error.
    pub fn reason(&self) -> &str {
        match self {
            Self::DeadLetter(dead_letter) => &dead_letter.error.class,
            Self::OnFailure(_) => UNDELIVERED,
        }
    }

    /// When the (first) record arrived in its stream; `None` if that is not a valid timestamp.
    pub fn arrival(&self) -> Option<Timestamp> {
        match self {
            Self::DeadLetter(dead_letter) => Timestamp::parse(&dead_letter.arrival),
            Self::OnFailure(batch) => Timestamp::parse(&batch.arrival),
        }
    }

    /// When Millstream last rejected the record, or returned the message to the queue.
    pub fn rejected_at(&self) -> Option<Timestamp> {
        let at = match self {
            Self::DeadLetter(dead_letter) => dead_letter.refused_at.as_deref(),
            Self::OnFailure(batch) => batch.read_back.as_ref().map(|read_back| read_back.at.as_str()),
        };
        at.and_then(Timestamp::parse)
    }
}

/// Parses JSON. Errors never quote the text, because it may contain anything.
fn parse<'a, T: Deserialize<'a>>(json: &'a str, context: &str) -> Result<T, KeepReason> {
    serde_json::from_str(json).map_err(|error| {
        let problem = match error.classify() {
            Category::Eof | Category::Io => "unexpected end",
            Category::Syntax => "invalid JSON",
            Category::Data => "a field is missing or has the wrong type",
        };
        KeepReason::Unreadable(format!("{context}: {problem} at line {} column {}", error.line(), error.column()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message may contain anything, and errors about it are logged.
    #[test]
    fn errors_do_not_quote_the_message() {
        for body in [
            r#""hunter2""#,
            r#"{"version":"hunter2"}"#,
            r#"{"version":1,"source":{"hunter2":"hunter2"}}"#,
            r#"{"version":1,"source":"hunter2","arrival":"hunter2"}"#,
            r#"{"KinesisBatchInfo":"hunter2"}"#,
            "hunter2",
        ] {
            let reason = QueueMessage::read(body).unwrap_err();
            assert_eq!(reason.class(), "unreadable", "{body}");
            let detail = reason.detail().unwrap_or_default();
            assert!(!detail.contains("hunter2") && detail.contains("column"), "{detail}");
        }
    }
}
