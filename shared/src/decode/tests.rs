//! Tests of decoding: limits, what dead letters hold of private fields, and keys that come after their data.

use super::*;
use crate::config::Config;
use crate::record::{SequenceNumber, StreamPosition};

fn batch(document: &[u8], archived_digest: Option<u64>) -> Batch {
    let sequence = SequenceNumber("1".into());
    let position =
        StreamPosition { stream: "s".into(), shard: "0".into(), sequence_number: sequence, sub_sequence_number: 0 };
    let partition_key = r#"{"id":1}"#.into();
    let payload = 0..document.len();
    let record = Record { archived_digest, ..Record::new(position, Timestamp(0), partition_key, payload) };
    Batch { records: vec![record], bytes: document.to_vec(), empty_records: 0 }
}

fn values(decoder: &mut Decoder, batch: &Batch) -> Vec<String> {
    let (changes, rejected) = decoder.decode(batch);
    assert!(rejected.is_empty(), "{rejected:?}");
    changes.values.iter().map(|(field, value)| format!("{} {value:?}", decoder.fields.path(*field))).collect()
}

#[test]
fn a_document_beyond_a_limit_is_rejected_alone_and_its_dead_letter_holds_nothing_private() {
    let config = "[source.s]\nstream = \"s\"\nformat = \"json\"\nprivate = [\"who.email\"]\n";
    let config = Config::parse("test.toml", config).unwrap_or_else(|mistakes| panic!("{mistakes}"));
    let mut decoder = Decoder::new(config.sources[0].clone());
    let members: Vec<String> = (0..=crate::field::FIELDS_PER_DOCUMENT_MAX).map(|n| format!("\"{n}\":1")).collect();
    let long = "k".repeat(crate::field::KEY_BYTES_MAX + 1);
    for (member, limit) in [
        (format!("\"{long}\":1"), "more than 1024 bytes (at `who.kkk"),
        (members.join(","), "more than 10000 fields (at `who.99"),
    ] {
        let text = |email: &str| format!("{{\"who\":{{{member}{email}}}}}");
        let hostile = batch(text(",\"email\":\"private@x\"").as_bytes(), None);
        let (changes, rejected) = decoder.decode(&hostile);
        assert!(changes.list.is_empty() && rejected.len() == 1);
        let (_, rejection) = &rejected[0];
        assert_eq!(rejection.reason.class(), "limit_exceeded");
        assert!(rejection.to_string().contains(limit), "{rejection}");
        let (redacted, _) = decoder.redact(&hostile.records[0], &hostile.bytes).unwrap();
        assert_eq!(String::from_utf8(redacted).unwrap(), text(""));
        assert_eq!(values(&mut decoder, &batch(br#"{"n":1}"#, None)).last().unwrap(), r#"n Number("1")"#);
    }
    assert!(decoder.fields.count() < 2 * crate::field::FIELDS_PER_DOCUMENT_MAX as usize);
}

/// A dead letter contains nothing private and decodes into the same values.
#[test]
fn replicas_dead_letters_hold_nothing_private_and_can_be_redriven() {
    let row = r#"{"id":1,"ssn":"private","email":"private@x","no_mail":null,"doc":"{\"ip\":\"private\",\"n\":1}"}"#;
    let metadata = r#"{"timestamp":"2026-02-08T10:00:00Z","record-type":"data","operation":"update","schema-name":"public","table-name":"t","partition-key-value":"public.t.private"}"#;
    let source = r#"{"schema":"public","table":"t","lsn":7,"query":"private"}"#;
    let schema =
        r#"{"type":"struct","fields":[{"field":"op"},{"field":"after","fields":[{"type":"bytes","field":"email"}]}]}"#;
    let flat = row.replace(
        "{\"id\"",
        r#"{"__op":"c","__source_query":"private","__table":"t","__schema":"public","__lsn":7,"id""#,
    );
    for (format, document) in [
        ("dms", format!(r#"{{"data":{row},"before-image":{row},"metadata":{metadata}}}"#)),
        ("dms", format!(r#"{{"data":{{"_doc":{row},"BI_ssn":"private"}},"old":{row},"metadata":{metadata}}}"#)),
        ("debezium", format!(r#"{{"before":{row},"after":{row},"source":{source},"op":"u","message":"private"}}"#)),
        ("debezium", format!(r#"{{"schema":{schema},"payload":{{"after":{row},"source":{source},"op":"c"}}}}"#)),
        ("debezium", flat),
    ] {
        let config = format!(
            "[source.s]\nstream = \"s\"\nformat = \"{format}\"\nprivate = [\"public.t.ssn\", \"*.doc.ip\", \
             {{ path = \"*.email\", as = \"sha256\" }}, {{ path = \"*.no_mail\", as = \"sha256\" }}]\n"
        );
        let mut decoder = Decoder::new(Config::parse("", &config).unwrap().sources.remove(0));
        let original = batch(document.as_bytes(), None);
        let before = values(&mut decoder, &original);
        assert!(before.len() >= 4 && !before.join(" ").contains("private"), "{before:?}");
        let (redacted, digest) = decoder.redact(&original.records[0], document.as_bytes()).unwrap();
        assert_eq!(decoder.digest(&original.records[0], document.as_bytes()), Some(digest), "{document}");
        let text = String::from_utf8(redacted.clone()).unwrap();
        assert!(!text.contains("private"), "{text}");
        assert_eq!(values(&mut decoder, &batch(&redacted, Some(0))), before, "{text}");
    }
}

/// A value archived before it became private is hashed even if it looks like a hash; one that was already private
/// is hashed only once.
#[test]
fn a_value_that_looks_like_a_hash_is_hashed_once_it_is_private() {
    let token = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
    let json = format!(r#"{{"id":1,"email":"a@x","token":"{token}"}}"#);
    let dynamodb = format!(
        r#"{{"tableName":"t","eventName":"INSERT","dynamodb":{{"SequenceNumber":"1","Keys":{{"id":{{"N":"1"}}}},
        "NewImage":{{"id":{{"N":"1"}},"email":{{"S":"a@x"}},"token":{{"S":"{token}"}}}}}}}}"#
    );
    for (format, document, table) in [("json", json, ""), ("dynamodb", dynamodb, "t.")] {
        let decoder_hashing = |hashed: &[&str]| {
            let path = |name: &&str| format!("{{ path = \"{table}{name}\", as = \"sha256\" }}");
            let private = hashed.iter().map(path).collect::<Vec<_>>().join(", ");
            let config = format!("[source.s]\nstream = \"s\"\nformat = \"{format}\"\nprivate = [{private}]");
            Decoder::new(Config::parse("", &config).unwrap().sources.remove(0))
        };
        let original = batch(document.as_bytes(), None);
        let (archived, digest) = decoder_hashing(&["email"]).redact(&original.records[0], document.as_bytes()).unwrap();
        assert_eq!(decoder_hashing(&["email"]).digest(&original.records[0], document.as_bytes()), Some(digest));
        let archived_twice = {
            let batch = batch(&archived, Some(0));
            decoder_hashing(&["email"]).redact(&batch.records[0], &archived).unwrap().0
        };
        assert_eq!(String::from_utf8(archived_twice).unwrap(), String::from_utf8(archived.clone()).unwrap());
        let both = ["email", "token"];
        let stored = values(&mut decoder_hashing(&both), &batch(&archived, Some(0)));
        assert_eq!(stored, values(&mut decoder_hashing(&both), &original));
        assert!(!stored.join(" ").contains(token), "{stored:?}");
    }
}

#[test]
fn a_key_is_known_from_a_control_record_after_its_data() {
    let metadata = |record_type: &str| {
        format!(
            r#""metadata":{{"timestamp":"2026-02-08T10:00:00Z","record-type":"{record_type}","operation":"load","schema-name":"s","table-name":"t"}}"#
        )
    };
    let data = format!(r#"{{"data":{{"id":1}},{}}}"#, metadata("data"));
    let control = format!(r#"{{"control":{{"table-def":{{"primary-key":["id"]}}}},{}}}"#, metadata("control"));
    let mut both = batch(format!("{data}{control}").as_bytes(), None);
    both.records.push(Record { payload: data.len()..data.len() + control.len(), ..both.records[0].clone() });
    both.records[0].payload = 0..data.len();
    let mut decoder =
        Decoder::new(Config::parse("", "[source.s]\nstream = \"s\"\nformat = \"dms\"").unwrap().sources.remove(0));
    let (changes, rejected) = decoder.decode(&both);
    assert_eq!((changes.list.len(), &changes.control_records[..], rejected.len()), (1, &[1][..], 0));
    let spec = decoder.tables.get(changes.list[0].table);
    assert_eq!(spec.key_columns().map(|column| column.name.as_str()).collect::<Vec<_>>(), ["id"]);
}
