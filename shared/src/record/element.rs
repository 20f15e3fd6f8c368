//! Reads the elements of an event one by one: an error in one does not affect the next.
//!
//! `aws_lambda_events` rejects a whole event for one invalid base64 string. An event is also too large to be scanned
//! twice, once for its structure and once for the fields of its elements.

use std::borrow::Cow;

use super::UnpackError;
use crate::json_scanner::{JsonError, JsonScanner};

/// An element of `Records`: <https://docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html>,
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>.
pub(super) struct EventElement<'a> {
    /// Its JSON.
    pub(super) text: &'a str,
    /// Its parsed content.
    pub(super) content: Result<ElementBody<'a>, UnpackError>,
}

/// The parsed content of an element.
pub(super) enum ElementBody<'a> {
    /// A Kinesis record.
    Kinesis {
        arn: Cow<'a, str>,
        /// The shard, a colon, the sequence number.
        event_id: Cow<'a, str>,
        sequence: Cow<'a, str>,
        partition_key: Cow<'a, str>,
        /// Seconds since 1970, as text.
        arrival: &'a str,
        /// Base64.
        data: Cow<'a, str>,
    },
    /// A DynamoDB stream record; the decoder reads the rest.
    Dynamodb {
        arn: Cow<'a, str>,
        sequence: Cow<'a, str>,
        /// Seconds since 1970, as text.
        created_at: Option<&'a str>,
    },
}

impl<'a> EventElement<'a> {
    /// Reads the next element.
    ///
    /// # Errors
    /// Returns an error if the element is not JSON.
    pub(super) fn read(scanner: &mut JsonScanner<'a>) -> Result<Self, JsonError> {
        let start = scanner.position();
        let mut fields = ElementFields::default();
        fields.read(scanner)?;
        Ok(Self { text: scanner.slice_from(start), content: fields.into_body() })
    }
}

/// The fields that matter, at either level: EventBridge Pipes writes the fields of `kinesis` next to the outer ones. No
/// name has two meanings.
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
            let is_null = scanner.peek() == Some(b'n');
            match &*key {
                "kinesis" if !is_null => self.read(scanner)?,
                "dynamodb" if !is_null => {
                    self.is_change = true;
                    self.read(scanner)?;
                }
                name => self.set_field(name, scanner.skip_unchecked()?),
            }
            Ok(())
        })
    }

    fn set_field(&mut self, name: &str, value: &'a str) {
        let field = match name {
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
        *field = unquoted(value);
        if field.is_none() && value != "null" {
            self.error = Some(UnpackError::Envelope(format!("`{name}` is not a string")));
        }
    }

    fn into_body(self) -> Result<ElementBody<'a>, UnpackError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        if self.is_change {
            let (arn, sequence) = (self.arn.unwrap_or_default(), self.sequence.unwrap_or_default());
            return Ok(ElementBody::Dynamodb { arn, sequence, created_at: self.timestamp });
        }
        let missing = |name: &str| UnpackError::Envelope(format!("`{name}` is missing"));
        let is_present = |text: &Cow<'_, str>| !text.is_empty();
        Ok(ElementBody::Kinesis {
            arn: self.arn.filter(is_present).ok_or_else(|| missing("eventSourceARN"))?,
            event_id: self.event_id.filter(is_present).ok_or_else(|| missing("eventID"))?,
            sequence: self.sequence.ok_or_else(|| missing("sequenceNumber"))?,
            partition_key: self.partition_key.unwrap_or_default(),
            arrival: self.timestamp.ok_or_else(|| missing("approximateArrivalTimestamp"))?,
            data: self.data.ok_or_else(|| missing("data"))?,
        })
    }
}

/// The content of a JSON string, or `None` if the value is not a string.
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let content = value.strip_prefix('"')?.strip_suffix('"')?;
    match memchr::memchr(b'\\', content.as_bytes()) {
        None => Some(Cow::Borrowed(content)),
        Some(_) => serde_json::from_str(value).ok().map(Cow::Owned),
    }
}
