//! The text of a message: which characters SQS accepts, and how JSON avoids the others.

use std::fmt::Write;

/// Whether SQS accepts the character in a message. It rejects a message with any other one, or replaces the character:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>.
fn is_accepted(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..='\u{10ffff}')
}

/// A message: JSON in characters that SQS accepts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MessageText(String);

impl MessageText {
    /// Escapes the characters that SQS rejects. In JSON they can only be in strings, where an escape sequence means the same
    /// character.
    pub fn from_json(json: String) -> Self {
        Self(escape(json, is_accepted))
    }

    /// Escapes everything but ASCII.
    pub fn from_json_as_ascii(json: String) -> Self {
        Self(escape(json, |character| character.is_ascii()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn escape(json: String, is_kept: impl Fn(char) -> bool) -> String {
    if json.chars().all(&is_kept) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 64);
    for character in json.chars() {
        if is_kept(character) {
            escaped.push(character);
            continue;
        }
        for unit in character.encode_utf16(&mut [0; 2]) {
            // Writing to a string cannot fail.
            write!(escaped, "\\u{unit:04x}").unwrap_or_default();
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_character_survives_and_only_accepted_ones_are_sent() {
        let all: String = (0..=0x0001_1000_u32).chain([0x1_fffe, 0x10_ffff]).filter_map(char::from_u32).collect();
        let json = serde_json::to_string(&serde_json::json!({ &all: &all })).unwrap();
        let sent = [MessageText::from_json(json.clone()), MessageText::from_json_as_ascii(json)];
        assert!(sent[0].as_str().chars().all(is_accepted) && sent[1].as_str().is_ascii());
        for text in sent {
            let received: serde_json::Value = serde_json::from_str(text.as_str()).unwrap();
            assert_eq!(received[&all], all);
        }
    }

    #[test]
    fn text_without_such_characters_is_sent_as_it_is() {
        let text = r#"{"é":"\ufffe 🎲"}"#;
        assert_eq!(MessageText::from_json(text.to_owned()).as_str(), text);
    }
}
