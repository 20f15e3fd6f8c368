//! Detects what a file contains from its head. Pure.

use millstream::config::Format;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// The number of documents from which the format is detected.
pub const SAMPLE_DOCUMENTS: usize = 1_000;

/// The layout of documents in a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// The whole file is the payload of one invocation.
    LambdaEvent,
    /// One document per line.
    Lines,
    /// The whole file is a JSON array of documents.
    Array,
    /// Documents that extend over several lines, one after the other.
    Concatenated,
}

impl Layout {
    /// The word for one document.
    pub fn unit(self) -> &'static str {
        match self {
            Self::LambdaEvent => "record",
            Self::Lines => "line",
            Self::Array => "element",
            Self::Concatenated => "document",
        }
    }
}

/// `{"Records": […]}`, as Lambda's event source mappings send it.
#[derive(Deserialize)]
struct MappingEvent {
    #[serde(rename = "Records")]
    _records: Vec<IgnoredAny>,
}

/// A record as EventBridge Pipes sends it, in a bare array.
#[derive(Deserialize)]
struct PipesRecord {
    #[serde(rename = "eventSource")]
    event_source: String,
}

/// Detects the layout of a file from its head.
pub fn layout(head: &[u8], is_whole: bool) -> Layout {
    if is_whole && is_lambda_event(head) {
        return Layout::LambdaEvent;
    }
    let mut lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let (first, second) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    match first.first() {
        Some(b'[') if is_cut(first) || (second.is_empty() && is_json(first)) => Layout::Array,
        Some(b'{') if is_cut(first) && matches!(second.first(), Some(b'"' | b'}')) => Layout::Concatenated,
        Some(b'{') if is_whole && !second.is_empty() && is_json(head) => Layout::Concatenated,
        _ => Layout::Lines,
    }
}

fn is_lambda_event(text: &[u8]) -> bool {
    let pipes = serde_json::from_slice::<Vec<PipesRecord>>(text);
    let is_pipes = pipes.is_ok_and(|records| {
        !records.is_empty() && records.iter().all(|record| record.event_source.starts_with("aws:"))
    });
    is_pipes || serde_json::from_slice::<MappingEvent>(text).is_ok()
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Whether the text is the beginning of a JSON value.
fn is_cut(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_err_and(|error| error.is_eof())
}

/// The format that most of the documents have; `None` if none of them is a JSON object.
pub fn format<'a>(documents: impl IntoIterator<Item = &'a [u8]>) -> Option<Format> {
    let mut counts: Vec<(Format, usize)> = Vec::new();
    for document in documents.into_iter().take(SAMPLE_DOCUMENTS) {
        // A line may hold several objects.
        let mut values = serde_json::Deserializer::from_slice(document).into_iter::<Map<String, Value>>();
        let Some(Ok(object)) = values.next() else { continue };
        let format = format_of(&object);
        match counts.iter_mut().find(|(known, _)| *known == format) {
            Some((_, count)) => *count += 1,
            None => counts.push((format, 1)),
        }
    }
    // Of equals the first: `max_by_key` would take the last.
    counts.into_iter().rev().max_by_key(|(_, count)| *count).map(|(format, _)| format)
}

fn format_of(object: &Map<String, Value>) -> Format {
    if is_dynamodb(object) {
        Format::Dynamodb
    } else if is_dms(object) {
        Format::Dms
    } else if is_debezium(object) {
        Format::Debezium
    } else if is_segment(object) {
        Format::Segment
    } else {
        Format::Json
    }
}

fn is_dynamodb(object: &Map<String, Value>) -> bool {
    has_object(object, "dynamodb") && text(object, "eventName").is_some()
}

fn is_dms(object: &Map<String, Value>) -> bool {
    let metadata = object.get("metadata").and_then(Value::as_object);
    metadata.is_some_and(|metadata| text(metadata, "record-type").is_some())
        && (has_object(object, "data") || has_object(object, "control"))
}

fn is_debezium(object: &Map<String, Value>) -> bool {
    let payload = object.get("payload").and_then(Value::as_object).filter(|_| object.contains_key("schema"));
    let event = payload.unwrap_or(object);
    let is_envelope = text(event, "op").is_some() && has_object(event, "source");
    is_envelope || event.contains_key("__op") || event.contains_key("__deleted")
}

/// `type` alone is a common name: a call has one of Segment's other members, too.
fn is_segment(object: &Map<String, Value>) -> bool {
    let calls = ["track", "identify", "page", "screen", "group", "alias"];
    let members = [
        "messageId",
        "anonymousId",
        "userId",
        "groupId",
        "previousId",
        "event",
        "properties",
        "traits",
        "context",
        "originalTimestamp",
        "receivedAt",
    ];
    text(object, "type").is_some_and(|call| calls.contains(&call))
        && members.iter().any(|member| object.contains_key(*member))
}

fn has_object(object: &Map<String, Value>, member: &str) -> bool {
    object.get(member).is_some_and(Value::is_object)
}

fn text<'a>(object: &'a Map<String, Value>, member: &str) -> Option<&'a str> {
    object.get(member).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambda_events_are_recognised_however_they_are_indented() {
        for event in [
            r#"{"Records":[]}"#,
            "{\n \"Records\": [\n  {\"kinesis\": {}}\n ]\n}\n",
            "[\n {\"eventSource\": \"aws:kinesis\", \"data\": \"e30=\"}\n]",
        ] {
            assert_eq!(layout(event.as_bytes(), true), Layout::LambdaEvent, "{event}");
        }
        assert_eq!(layout(br#"{"Records":[]}"#, false), Layout::Lines);
        assert_eq!(layout(b"{\"Records\":[]}\n{\"Records\":[]}", true), Layout::Lines);
    }

    #[test]
    fn an_array_is_distinguished_from_a_line_that_is_one() {
        for array in ["[1]", "[\n]", "[{\"a\":1},\n{\"a\":2}]", "[\n{\"a\":1}", "[{\"a\":{\"b\":\n"] {
            assert_eq!(layout(array.as_bytes(), true), Layout::Array, "{array}");
        }
        for lines in ["[1,2]\n{\"a\":1}\n", "[1,2]]\n", "[oops\n{}"] {
            assert_eq!(layout(lines.as_bytes(), true), Layout::Lines, "{lines}");
        }
    }

    #[test]
    fn pretty_printed_documents_are_distinguished_from_a_truncated_line() {
        for documents in ["{\n  \"a\": 1\n}\n{\n  \"a\": 2\n}\n", "{ \"a\": [\n {} ] }"] {
            assert_eq!(layout(documents.as_bytes(), true), Layout::Concatenated, "{documents}");
        }
        for lines in ["{\"a\":1}", "{\"a\":\n{\"a\":2}\n", "{\"a\":1}{\"a\":2}\n", "a,b\n1,2\n"] {
            assert_eq!(layout(lines.as_bytes(), true), Layout::Lines, "{lines}");
        }
    }

    #[test]
    fn formats_are_detected_by_their_shape() {
        for (document, expected) in [
            (r#"{"type":"track","event":"Bet Placed"}"#, Format::Segment),
            (r#"{"type":"page","url":"/"}"#, Format::Json),
            (r#"{"type":"click","userId":"u"}"#, Format::Json),
            (r#"{"eventName":"INSERT","dynamodb":{"Keys":{}}}"#, Format::Dynamodb),
            (r#"{"data":{"id":1},"metadata":{"record-type":"data"}}"#, Format::Dms),
            (r#"{"op":"c","after":{},"source":{"table":"t"}}"#, Format::Debezium),
            (r#"{"schema":null,"payload":{"op":"c","source":{}}}"#, Format::Debezium),
            (r#"{"id":1,"__op":"c"}"#, Format::Debezium),
            (r#"{"op":"c","source":"web"}"#, Format::Json),
        ] {
            assert_eq!(format([document.as_bytes()]), Some(expected), "{document}");
        }
    }

    #[test]
    fn most_documents_decide_and_of_equals_the_first() {
        let (json, call): (&[u8], &[u8]) = (br#"{"a":1}"#, br#"{"type":"identify","userId":"u"}"#);
        assert_eq!(format([b"oops", json, call, call]), Some(Format::Segment));
        assert_eq!(format([json, call]), Some(Format::Json));
        assert_eq!(format([call, json]), Some(Format::Segment));
        assert_eq!(format([&[json, json].concat()[..]]), Some(Format::Json));
        assert_eq!(format([&b"[]"[..], b"7", b"a,b"]), None);
    }
}
