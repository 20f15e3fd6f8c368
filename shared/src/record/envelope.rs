//! Lambda's event as a list of untouched elements: `{"Records": […]}`, or the bare array of EventBridge Pipes.
//!
//! The elements stay raw, so that one that cannot be read does not fail its batch: deserialising the event into typed
//! structures would (`aws_lambda_events` refuses the whole event for one bad base64 string).

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The elements of an event.
#[derive(Debug, Default)]
pub struct Envelope(pub Vec<Box<RawValue>>);

impl<'de> Deserialize<'de> for Envelope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EnvelopeVisitor)
    }
}

struct EnvelopeVisitor;

impl<'de> Visitor<'de> for EnvelopeVisitor {
    type Value = Envelope;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event with Records, or an array of records")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Envelope, A::Error> {
        let mut records = None;
        while let Some(key) = map.next_key::<String>()? {
            if key == "Records" {
                records = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        records.map(Envelope).ok_or_else(|| serde::de::Error::missing_field("Records"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Envelope, A::Error> {
        let mut records = Vec::new();
        while let Some(record) = sequence.next_element()? {
            records.push(record);
        }
        Ok(Envelope(records))
    }
}
