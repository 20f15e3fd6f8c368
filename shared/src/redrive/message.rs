//! What stands on the queues: dead letters of ours, and Lambda's own messages about batches that it gave up.

use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::dead_letter::{DeadLetter, ENVELOPE_VERSION};
use crate::record::without_consumer_suffix;
use crate::timestamp::Timestamp;

/// The reason of Lambda's own messages, for selecting and counting.
const UNDELIVERED: &str = "undelivered";

/// The member of Lambda's message that is ours.
const READ_BACK: &str = "readBack";

/// Why a message stays on its queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeepReason {
    /// Nothing is redriven in a dry run.
    DryRun,
    /// It is not asked for.
    NotSelected,
    /// It was refused since the run began.
    RejectedAgain,
    /// It is no dead letter, or not of a version that is known here.
    Unreadable(String),
    /// No source of the configuration is called so, or reads the stream.
    UnknownSource(String),
    /// The stream does not hold its records any more; those that are left have been written.
    NoLongerInStream(String),
    /// Its payload could not be fetched.
    Unavailable(String),
    /// Its records keep their batch from being written.
    Failed(String),
}

impl KeepReason {
    /// A short word for counting.
    pub fn class(&self) -> &'static str {
        match self {
            Self::DryRun => "dry_run",
            Self::NotSelected => "not_selected",
            Self::RejectedAgain => "refused_again",
            Self::Unreadable(_) => "unreadable",
            Self::UnknownSource(_) => "unknown_source",
            Self::NoLongerInStream(_) => "gone",
            Self::Unavailable(_) => "unavailable",
            Self::Failed(_) => "failed",
        }
    }

    /// What a person should read of it.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::DryRun | Self::NotSelected | Self::RejectedAgain => None,
            Self::UnknownSource(of) => Some(format!("no configured source has this name or reads this stream: {of}")),
            Self::NoLongerInStream(what) => Some(format!("no longer in the stream: {what}")),
            Self::Unreadable(detail) | Self::Unavailable(detail) | Self::Failed(detail) => Some(detail.clone()),
        }
    }
}

/// A message.
#[derive(Debug)]
pub enum QueueMessage {
    /// A record that was refused.
    DeadLetter(Box<DeadLetter>),
    /// A batch that Lambda gave up: where it stands in its stream.
    OnFailure(OnFailure),
}

/// What is needed of Lambda's message (<https://docs.aws.amazon.com/lambda/latest/dg/kinesis-on-failure-destination.html>).
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
    /// That of the last.
    #[serde(rename = "endSequenceNumber")]
    pub last: String,
    /// When the first record arrived.
    #[serde(rename = "approximateArrivalOfFirstRecord")]
    pub arrival: String,
    /// How many records the batch had; a filter may have left out others between them.
    #[serde(rename = "batchSize")]
    pub records: u64,
    /// Where it has been read back, and not all of it was found.
    #[serde(skip)]
    pub read_back: Option<ReadBack>,
}

/// What stands in a message of Lambda whose records have been written as far as the stream still had them.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub struct ReadBack {
    /// What could not be found.
    #[serde(rename = "lost")]
    pub missing: String,
    /// When.
    pub at: String,
}

impl ReadBack {
    /// The message with this in it.
    pub fn annotate(&self, body: &str) -> serde_json::Result<String> {
        let mut message: serde_json::Map<String, serde_json::Value> = serde_json::from_str(body)?;
        message.insert(READ_BACK.to_owned(), serde_json::to_value(self)?);
        serde_json::to_string(&message)
    }
}

/// What tells messages apart; everything else of Lambda's varies by how it came about.
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
        const STRANGE: &str = "neither a dead letter nor a Lambda on-failure record";
        match parse::<MessageProbe<'_>>(body, STRANGE)? {
            MessageProbe { batch: Some(batch), read_back, .. } => {
                let mut batch: OnFailure = parse(batch.get(), "invalid batch in a Lambda on-failure record")?;
                batch.stream = without_consumer_suffix(&batch.stream).to_owned();
                batch.read_back = read_back;
                Ok(Self::OnFailure(batch))
            }
            MessageProbe { batch: None, version: Some(version), .. } => match parse(version.get(), STRANGE)? {
                ENVELOPE_VERSION => parse(body, "damaged dead letter").map(Self::DeadLetter),
                version => Err(KeepReason::Unreadable(format!(
                    "unsupported envelope version {version:?} (written by a newer release)"
                ))),
            },
            MessageProbe { batch: None, version: None, .. } => Err(KeepReason::Unreadable(STRANGE.to_owned())),
        }
    }

    /// Where it comes from, for people.
    pub fn origin(&self) -> String {
        let source = self.source().map(|source| format!("{source}, ")).unwrap_or_default();
        format!("{source}{}", self.stream())
    }

    /// The stream's ARN.
    pub fn stream(&self) -> &str {
        match self {
            Self::DeadLetter(letter) => &letter.place.stream,
            Self::OnFailure(letter) => &letter.stream,
        }
    }

    /// The source's name, where it is told.
    pub fn source(&self) -> Option<&str> {
        match self {
            Self::DeadLetter(letter) => Some(&letter.source),
            Self::OnFailure(_) => None,
        }
    }

    /// The table that refused.
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::DeadLetter(letter) => letter.error.table.as_deref(),
            Self::OnFailure(_) => None,
        }
    }

    /// The class of the error.
    pub fn reason(&self) -> &str {
        match self {
            Self::DeadLetter(letter) => &letter.error.class,
            Self::OnFailure(_) => UNDELIVERED,
        }
    }

    /// When the (first) record arrived in its stream; `None` where that is no moment.
    pub fn arrival(&self) -> Option<Timestamp> {
        match self {
            Self::DeadLetter(letter) => Timestamp::parse(&letter.arrival),
            Self::OnFailure(letter) => Timestamp::parse(&letter.arrival),
        }
    }

    /// When it was last refused by us, or put back.
    pub fn rejected_at(&self) -> Option<Timestamp> {
        let at = match self {
            Self::DeadLetter(letter) => letter.refused_at.as_deref(),
            Self::OnFailure(letter) => letter.read_back.as_ref().map(|read_back| read_back.at.as_str()),
        };
        at.and_then(Timestamp::parse)
    }
}

/// Reads JSON. What is wrong with it is told without quoting it, for it may be anything.
fn parse<'a, T: Deserialize<'a>>(json: &'a str, wrong: &str) -> Result<T, KeepReason> {
    serde_json::from_str(json).map_err(|error| {
        let how = match error.classify() {
            Category::Eof | Category::Io => "unexpected end",
            Category::Syntax => "invalid JSON",
            Category::Data => "a field is missing or has the wrong type",
        };
        KeepReason::Unreadable(format!("{wrong}: {how} at line {} column {}", error.line(), error.column()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message may be anything, and what is told of it is logged.
    #[test]
    fn nothing_of_a_foreign_message_is_reported() {
        for body in [
            r#""hunter2""#,
            r#"{"version":"hunter2"}"#,
            r#"{"version":1,"source":{"hunter2":"hunter2"}}"#,
            r#"{"version":1,"source":"hunter2","arrival":"hunter2"}"#,
            r#"{"KinesisBatchInfo":"hunter2"}"#,
            "hunter2",
        ] {
            let kept = QueueMessage::read(body).unwrap_err();
            assert_eq!(kept.class(), "unreadable", "{body}");
            let told = kept.detail().unwrap_or_default();
            assert!(!told.contains("hunter2") && told.contains("column"), "{told}");
        }
    }
}
