//! The elements of an event, one by one: what is wrong with one says nothing of the next.
//!
//! `aws_lambda_events` refuses a whole event for one bad base64 string; and an event is too large to be gone over once for
//! its shape and once more for its members.

use std::borrow::Cow;

use super::UnpackError;
use crate::json_scanner::{JsonError, JsonScanner};

/// An element of `Records`: <https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html>,
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>.
pub(super) struct EventElement<'a> {
    /// All of it.
    pub(super) text: &'a str,
    /// What it is.
    pub(super) content: Result<ElementBody<'a>, UnpackError>,
}

/// What an element is.
pub(super) enum ElementBody<'a> {
    /// A record of Kinesis.
    Kinesis {
        arn: Cow<'a, str>,
        /// The shard, a colon, the sequence number.
        event_id: Cow<'a, str>,
        sequence: Cow<'a, str>,
        partition_key: Cow<'a, str>,
        /// Seconds since 1970, as they are written.
        arrival: &'a str,
        /// Base64.
        data: Cow<'a, str>,
    },
    /// A change of a DynamoDB table; the decoder reads the rest.
    Dynamodb {
        arn: Cow<'a, str>,
        sequence: Cow<'a, str>,
        /// Seconds since 1970, as they are written.
        created_at: Option<&'a str>,
    },
}

impl<'a> EventElement<'a> {
    /// Reads the element that comes next.
    ///
    /// # Errors
    /// What is no JSON.
    pub(super) fn read(scanner: &mut JsonScanner<'a>) -> Result<Self, JsonError> {
        let start = scanner.position();
        let mut members = ElementFields::default();
        members.read(scanner)?;
        Ok(Self { text: scanner.slice_from(start), content: members.content() })
    }
}

/// The members that matter, wherever they stand: Pipes writes those of `kinesis` beside the outer ones. No name means two
/// things.
#[derive(Default)]
struct ElementFields<'a> {
    event_id: Option<Cow<'a, str>>,
    arn: Option<Cow<'a, str>>,
    partition_key: Option<Cow<'a, str>>,
    sequence: Option<Cow<'a, str>>,
    data: Option<Cow<'a, str>>,
    timestamp: Option<&'a str>,
    is_change: bool,
    error: Option<UnpackError>,
}

impl<'a> ElementFields<'a> {
    fn read(&mut self, scanner: &mut JsonScanner<'a>) -> Result<(), JsonError> {
        if scanner.peek() != Some(b'{') {
            self.error = Some(UnpackError::Envelope("expected an object".to_owned()));
            return scanner.skip_unchecked().map(drop);
        }
        scanner.each_member(|key, scanner| {
            let absent = scanner.peek() == Some(b'n');
            match &*key {
                "kinesis" if !absent => self.read(scanner)?,
                "dynamodb" if !absent => {
                    self.is_change = true;
                    self.read(scanner)?;
                }
                name => self.member(name, scanner.skip_unchecked()?),
            }
            Ok(())
        })
    }

    fn member(&mut self, name: &str, value: &'a str) {
        let text = match name {
            "eventID" => &mut self.event_id,
            "eventSourceARN" => &mut self.arn,
            "partitionKey" => &mut self.partition_key,
            "sequenceNumber" | "SequenceNumber" => &mut self.sequence,
            "data" => &mut self.data,
            "approximateArrivalTimestamp" | "ApproximateCreationDateTime" => {
                self.timestamp = Some(value);
                return;
            }
            _ => return,
        };
        *text = unquoted(value);
        if text.is_none() && value != "null" {
            self.error = Some(UnpackError::Envelope(format!("`{name}` is not a string")));
        }
    }

    fn content(self) -> Result<ElementBody<'a>, UnpackError> {
        if let Some(fault) = self.error {
            return Err(fault);
        }
        if self.is_change {
            let (arn, sequence) = (self.arn.unwrap_or_default(), self.sequence.unwrap_or_default());
            return Ok(ElementBody::Dynamodb { arn, sequence, created_at: self.timestamp });
        }
        let missing = |name: &str| UnpackError::Envelope(format!("`{name}` is missing"));
        let there = |text: &Cow<'_, str>| !text.is_empty();
        Ok(ElementBody::Kinesis {
            arn: self.arn.filter(there).ok_or_else(|| missing("eventSourceARN"))?,
            event_id: self.event_id.filter(there).ok_or_else(|| missing("eventID"))?,
            sequence: self.sequence.ok_or_else(|| missing("sequenceNumber"))?,
            partition_key: self.partition_key.unwrap_or_default(),
            arrival: self.timestamp.ok_or_else(|| missing("approximateArrivalTimestamp"))?,
            data: self.data.ok_or_else(|| missing("data"))?,
        })
    }
}

/// A string's content; `None` of what is no string.
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let content = value.strip_prefix('"')?.strip_suffix('"')?;
    match memchr::memchr(b'\\', content.as_bytes()) {
        None => Some(Cow::Borrowed(content)),
        Some(_) => serde_json::from_str(value).ok().map(Cow::Owned),
    }
}
