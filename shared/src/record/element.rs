//! The elements of an event, one by one: what is wrong with one says nothing of the next.
//!
//! `aws_lambda_events` refuses a whole event for one bad base64 string; and an event is too large to be gone over once for
//! its shape and once more for its members.

use std::borrow::Cow;

use super::Fault;
use crate::scan::{ScanError, Scanner};

/// An element of `Records`: <https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html>,
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>.
pub(super) struct Element<'a> {
    /// All of it.
    pub(super) text: &'a str,
    /// What it is.
    pub(super) content: Result<Content<'a>, Fault>,
}

/// What an element is.
pub(super) enum Content<'a> {
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
        made: Option<&'a str>,
    },
}

impl<'a> Element<'a> {
    /// Reads the element that comes next.
    ///
    /// # Errors
    /// What is no JSON.
    pub(super) fn read(scanner: &mut Scanner<'a>) -> Result<Self, ScanError> {
        let start = scanner.position();
        let mut members = Members::default();
        members.read(scanner)?;
        Ok(Self { text: scanner.since(start), content: members.content() })
    }
}

/// The members that matter, wherever they stand: Pipes writes those of `kinesis` beside the outer ones. No name means two
/// things.
#[derive(Default)]
struct Members<'a> {
    event_id: Option<Cow<'a, str>>,
    arn: Option<Cow<'a, str>>,
    partition_key: Option<Cow<'a, str>>,
    sequence: Option<Cow<'a, str>>,
    data: Option<Cow<'a, str>>,
    moment: Option<&'a str>,
    is_change: bool,
    fault: Option<Fault>,
}

impl<'a> Members<'a> {
    fn read(&mut self, scanner: &mut Scanner<'a>) -> Result<(), ScanError> {
        if scanner.peek() != Some(b'{') {
            self.fault = Some(Fault::Envelope("an object is wanted".to_owned()));
            return scanner.pass().map(drop);
        }
        scanner.each_member(|key, scanner| {
            let absent = scanner.peek() == Some(b'n');
            match &*key {
                "kinesis" if !absent => self.read(scanner)?,
                "dynamodb" if !absent => {
                    self.is_change = true;
                    self.read(scanner)?;
                }
                name => self.member(name, scanner.pass()?),
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
                self.moment = Some(value);
                return;
            }
            _ => return,
        };
        *text = unquoted(value);
        if text.is_none() && value != "null" {
            self.fault = Some(Fault::Envelope(format!("`{name}` is no string")));
        }
    }

    fn content(self) -> Result<Content<'a>, Fault> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        if self.is_change {
            let (arn, sequence) = (self.arn.unwrap_or_default(), self.sequence.unwrap_or_default());
            return Ok(Content::Dynamodb { arn, sequence, made: self.moment });
        }
        let missing = |name: &str| Fault::Envelope(format!("`{name}` is missing"));
        let there = |text: &Cow<'_, str>| !text.is_empty();
        Ok(Content::Kinesis {
            arn: self.arn.filter(there).ok_or_else(|| missing("eventSourceARN"))?,
            event_id: self.event_id.filter(there).ok_or_else(|| missing("eventID"))?,
            sequence: self.sequence.ok_or_else(|| missing("sequenceNumber"))?,
            partition_key: self.partition_key.unwrap_or_default(),
            arrival: self.moment.ok_or_else(|| missing("approximateArrivalTimestamp"))?,
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
