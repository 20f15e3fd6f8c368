//! What stands on the queues: dead letters of ours, and Lambda's own messages about batches that it gave up.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::dead_letter::{DeadLetter, ENVELOPE_VERSION};
use crate::record::{Batch, Envelope, Fault, Place, Record, SequenceNumber, unpack, unpack_data};
use crate::rejection::Reason;
use crate::timestamp::Timestamp;

/// The reason of Lambda's own messages, for selecting and counting.
const UNDELIVERED: &str = "undelivered";

/// Why a message stays on its queue.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kept {
    /// Nothing is redriven in a dry run.
    DryRun,
    /// It is not asked for.
    NotSelected,
    /// It was refused since the run began.
    RefusedAgain,
    /// It is no dead letter, or not of a version that is known here.
    Unreadable(String),
    /// No source of the configuration is called so, or reads the stream.
    UnknownSource,
    /// The stream does not hold its records any more; those that are left have been written.
    Gone(String),
    /// Its payload could not be fetched.
    Unavailable(String),
    /// Its records keep their batch from being written.
    Failed(String),
}

impl Kept {
    /// A short word for counting.
    pub fn class(&self) -> &'static str {
        match self {
            Self::DryRun => "dry_run",
            Self::NotSelected => "not_selected",
            Self::RefusedAgain => "refused_again",
            Self::Unreadable(_) => "unreadable",
            Self::UnknownSource => "unknown_source",
            Self::Gone(_) => "gone",
            Self::Unavailable(_) => "unavailable",
            Self::Failed(_) => "failed",
        }
    }

    /// What a person should read of it.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::DryRun | Self::NotSelected | Self::RefusedAgain => None,
            Self::UnknownSource => Some("no source of the configuration is called so, or reads its stream".to_owned()),
            Self::Gone(what) => Some(format!("{what} cannot be found in the stream any more")),
            Self::Unreadable(detail) | Self::Unavailable(detail) | Self::Failed(detail) => Some(detail.clone()),
        }
    }
}

/// A message.
#[derive(Debug)]
pub enum Letter {
    /// A record that was refused.
    Ours(Box<DeadLetter>),
    /// A batch that Lambda gave up: where it stands in its stream.
    OfLambda(OnFailure),
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
}

/// Lambda's message; everything but the batch varies by how it came about.
#[derive(Deserialize)]
struct LambdaMessage {
    #[serde(rename = "KinesisBatchInfo", alias = "DDBStreamBatchInfo")]
    batch: OnFailure,
}

impl Letter {
    /// Reads a message's body.
    pub fn read(body: &str) -> Result<Self, Kept> {
        if let Ok(message) = serde_json::from_str::<LambdaMessage>(body) {
            return Ok(Self::OfLambda(message.batch));
        }
        let letter: DeadLetter = serde_json::from_str(body)
            .map_err(|error| Kept::Unreadable(format!("it is no dead letter, nor a message of Lambda: {error}")))?;
        match letter.version {
            ENVELOPE_VERSION => Ok(Self::Ours(Box::new(letter))),
            version => Err(Kept::Unreadable(format!("its envelope has version {version}: a newer program wrote it"))),
        }
    }

    /// The stream's ARN.
    pub fn stream(&self) -> &str {
        match self {
            Self::Ours(letter) => &letter.place.stream,
            Self::OfLambda(letter) => &letter.stream,
        }
    }

    /// The source's name, where it is told.
    pub fn source(&self) -> Option<&str> {
        match self {
            Self::Ours(letter) => Some(&letter.source),
            Self::OfLambda(_) => None,
        }
    }

    /// The table that refused.
    pub fn table(&self) -> Option<&str> {
        match self {
            Self::Ours(letter) => letter.error.table.as_deref(),
            Self::OfLambda(_) => None,
        }
    }

    /// The class of the error.
    pub fn reason(&self) -> &str {
        match self {
            Self::Ours(letter) => &letter.error.class,
            Self::OfLambda(_) => UNDELIVERED,
        }
    }

    /// When the (first) record arrived in its stream.
    pub fn arrival(&self) -> Timestamp {
        match self {
            Self::Ours(letter) => arrival(letter),
            Self::OfLambda(letter) => Timestamp::parse(&letter.arrival).unwrap_or(Timestamp(0)),
        }
    }

    /// When it was last refused by us.
    pub fn refused_at(&self) -> Option<Timestamp> {
        match self {
            Self::Ours(letter) => letter.refused_at.as_deref().and_then(Timestamp::parse),
            Self::OfLambda(_) => None,
        }
    }
}

/// The bytes of a payload within the letter.
pub fn decode(payload: &str) -> Result<Vec<u8>, Kept> {
    STANDARD.decode(payload).map_err(|error| Kept::Unreadable(format!("its payload is not base64: {error}")))
}

/// The records of a letter.
pub fn records(letter: &DeadLetter, payload: Vec<u8>) -> Result<Batch, Kept> {
    let place = Place {
        stream: (*letter.place.stream).into(),
        shard: (*letter.place.shard).into(),
        sequence: SequenceNumber((*letter.place.sequence_number).into()),
        sub_sequence: letter.place.sub_sequence_number,
    };
    if letter.error.class == Reason::Unreadable(Fault::Base64).class() {
        return Ok(unpacked_again(place, letter, payload));
    }
    let digest = u64::from_str_radix(&letter.digest, 16);
    let digest = digest.map_err(|error| Kept::Unreadable(format!("its digest is no number: {error}")))?;
    let mut batch = Batch::default();
    let record = Record::new(place, arrival(letter), (*letter.partition_key).into(), 0..payload.len());
    batch.records.push(Record { redacted: Some(digest), ..record });
    batch.bytes = payload;
    Ok(batch)
}

fn arrival(letter: &DeadLetter) -> Timestamp {
    Timestamp::parse(&letter.arrival).unwrap_or(Timestamp(0))
}

/// What could not be unpacked takes its first step again: an element of an event, or the data of a record of Kinesis.
fn unpacked_again(place: Place, letter: &DeadLetter, payload: Vec<u8>) -> Batch {
    if let Ok(element) = serde_json::from_slice(&payload) {
        return unpack(&Envelope(vec![element]));
    }
    unpack_data(&place, arrival(letter), (*letter.partition_key).into(), payload)
}
