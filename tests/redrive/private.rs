//! What is private is stored nowhere, however a producer spells it: not in a table, a dead letter or a backup, and in no digest.

use base64_simd::STANDARD;
use millstream::backfill::{Backfill, BackfillTask, run};
use millstream::config::Config;
use millstream::dead_letter::StoredPayload;
use millstream::decode::Decoder;
use millstream::dynamodb_tables::DynamodbTables;
use millstream::record::{Batch, Record, SequenceNumber, StreamPosition};
use millstream::task::{Deadline, TaskCall};
use millstream::timestamp::Timestamp;
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::random::Random;
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    Desk, PLENTY, documents, dynamodb_change, dynamodb_event, dynamodb_sequence, dynamodb_stream, everything,
    ingest_event,
};
use crate::support::{database, rows};

/// The text of every private value; nothing else contains it.
const SECRET: &str = "SECRET";

/// The steps of the private paths, as words.
const PRIVATE: [&[&[&str]]; 4] =
    [&[&["email"]], &[&["card", "number"]], &[&["u"], &["home", "address"]], &[&["list"], &["ip"]]];

/// A spelling of a word list that naming makes the same.
fn spelling(random: &mut Random, words: &[&str]) -> String {
    let mut name = String::new();
    let edge = |random: &mut Random| *random.one_of(&["", "", "", " ", "-", "__", "("]);
    name.push_str(edge(random));
    for (number, word) in words.iter().enumerate() {
        let capitalised = format!("{}{}", word[..1].to_ascii_uppercase(), &word[1..]);
        let after_lower = name.ends_with(|c: char| c.is_ascii_lowercase());
        if number > 0 {
            let separators: [&str; 6] = ["_", " ", "-", "__", ".", if after_lower { "" } else { "_" }];
            let separator = *random.one_of(&separators);
            name.push_str(separator);
        }
        let joined = number > 0 && name.ends_with(|c: char| c.is_ascii_alphanumeric());
        name.push_str(&match random.below(4) {
            0 if !joined => (*word).to_owned(),
            1 if !joined => word.to_ascii_uppercase(),
            _ => capitalised,
        });
    }
    name.push_str(edge(random));
    name
}

/// A value that contains the secret, of any shape.
fn secret(random: &mut Random) -> serde_json::Value {
    let text = format!("{SECRET}-{}", random.below(1_000));
    match random.below(4) {
        0 => json!([text]),
        1 => json!({"in": {"side": text}}),
        _ => json!(text),
    }
}

/// Inserts the secret at a random spelling of a private path: nested, in an array, as one key, or in a text that holds JSON.
fn insert_secret(random: &mut Random, row: &mut serde_json::Map<String, serde_json::Value>, nested_only: bool) {
    let path = random.one_of(&PRIVATE);
    let value = secret(random);
    let steps: Vec<String> = path.iter().map(|words| spelling(random, words)).collect();
    let [first, second] = &steps[..] else {
        row.insert(steps[0].clone(), value);
        return;
    };
    match random.below(if nested_only { 3 } else { 4 }) {
        0 => row.insert(first.clone(), json!({second.as_str(): value})),
        1 => row.insert(first.clone(), json!([{second.as_str(): value}, 1])),
        2 => row.insert(first.clone(), json!(json!({second.as_str(): value}).to_string())),
        _ => row.insert(format!("{first}{}{second}", random.one_of(&[".", "_", " "])), value),
    };
}

/// A row with a key, a number that may be too large for its column, a value that everybody may see, and secrets.
fn row(random: &mut Random, id: u64) -> serde_json::Map<String, serde_json::Value> {
    let n = if random.below(3) == 0 { 100 } else { 1 };
    let mut row = json!({"id": id, "n": n, "open": format!("OPEN-{id}")});
    let row = row.as_object_mut().unwrap();
    for _ in 0..=random.below(2) {
        insert_secret(random, row, false);
    }
    row.clone()
}

fn dynamodb_json(value: &serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Null => json!({"NULL": true}),
        serde_json::Value::Bool(value) => json!({"BOOL": value}),
        serde_json::Value::Number(number) => json!({"N": number.to_string()}),
        serde_json::Value::String(text) => json!({"S": text}),
        serde_json::Value::Array(list) => json!({"L": list.iter().map(dynamodb_json).collect::<Vec<_>>()}),
        serde_json::Value::Object(map) => {
            json!({"M": map.iter().map(|(key, value)| (key.clone(), dynamodb_json(value))).collect::<serde_json::Map<_, _>>()})
        }
    }
}

/// A document of a format with such a row, and its partition key.
fn document(format: &str, random: &mut Random, id: u64) -> (String, String) {
    let row = serde_json::Value::Object(row(random, id));
    let time = "2026-02-08T10:00:00Z";
    let key = format!("{SECRET}-{id}");
    match format {
        "json" => (row.to_string(), key),
        "segment" => {
            let traits = *random.one_of(&["traits", "traits", "Traits", "TRAITS "]);
            let kind = *random.one_of(&["identify", "track"]);
            let mut call = json!({"type": kind, "event": "Seen", "messageId": format!("m{id}"), "userId": format!("u{id}"),
                "receivedAt": time, "timestamp": time, traits: row});
            // In any part of the document that has the same columns.
            call["properties"] = json!({"n": 1});
            insert_secret(random, call["properties"].as_object_mut().unwrap(), false);
            (call.to_string(), key)
        }
        "dms" => {
            let metadata = json!({"timestamp": time, "record-type": "data", "operation": "update", "schema-name": "public",
                "table-name": "t", "partition-key-value": key});
            let mut data = row.clone();
            data[format!("BI_{}", spelling(random, &["email"]).trim_start_matches(['-', '_', '(', ' ']))] =
                json!(SECRET);
            (json!({"data": data, "before-image": row, "metadata": metadata}).to_string(), key)
        }
        "debezium" => {
            let source = json!({"schema": "public", "table": "t", "lsn": id, "query": SECRET});
            let flattened = random.below(2) == 0;
            let document = if flattened {
                let mut flat = row.clone();
                for (name, value) in [("__op", json!("u")), ("__table", json!("t")), ("__schema", json!("public"))] {
                    flat[name] = value;
                }
                flat["__lsn"] = json!(id);
                flat
            } else {
                json!({"before": row, "after": row, "source": source, "op": "u", "message": SECRET})
            };
            (document.to_string(), json!({"id": id, "Email": SECRET}).to_string())
        }
        _ => {
            let image = dynamodb_json(&row)["M"].clone();
            let change = json!({"tableName": "t", "eventName": "INSERT", "dynamodb": {"ApproximateCreationDateTime": 1_770_593_461,
                "Keys": {"id": {"N": id.to_string()}}, "NewImage": image, "OldImage": image, "other": image}});
            (change.to_string(), key)
        }
    }
}

/// The configuration of a source with these private paths, some hashed.
fn config(format: &str, naming: &str, random: &mut Random) -> String {
    let prefix = match format {
        "json" => "",
        "segment" => "traits.",
        "dynamodb" => *random.one_of(&["t.", "*."]),
        _ => *random.one_of(&["public.t.", "*."]),
    };
    let paths = ["email", "card_number", "u.home_address", "list.ip"].map(|path| {
        let path = format!("{prefix}{path}");
        if random.below(2) == 0 { format!("\"{path}\"") } else { format!("{{ path = \"{path}\", as = \"sha256\" }}") }
    });
    let private = paths.join(", ");
    let table = match format {
        "json" => {
            "[table.t]\nsource = \"x\"\nkey = [\"id\"]\nversion = \"id\"\ncolumns = { n = { path = \"n\", type = \"numeric(1)\" } }\n"
        }
        "segment" => "",
        "dynamodb" => {
            "[table.t]\nsource = \"x\"\nkey = [\"id\"]\ncolumns = { n = { path = \"n\", type = \"numeric(1)\" } }\n"
        }
        _ => {
            "[table.t]\nsource = \"x\"\nfrom = \"public.t\"\nkey = [\"id\"]\ncolumns = { n = { path = \"n\", type = \"numeric(1)\" } }\n"
        }
    };
    format!(
        "[source.x]\nstream = \"s\"\nformat = \"{format}\"\nnaming = \"{naming}\"\nbackup = true\nprivate = [{private}]\n{table}"
    )
}

fn batch(document: &[u8], partition_key: &str, archived_digest: Option<u64>) -> Batch {
    let sequence_number = SequenceNumber("1".into());
    let position = StreamPosition { stream: "s".into(), shard: "0".into(), sequence_number, sub_sequence_number: 0 };
    let record = Record::new(position, Timestamp(1), partition_key.into(), 0..document.len());
    Batch { records: vec![Record { archived_digest, ..record }], bytes: document.to_vec(), empty_records: 0 }
}

/// What a batch is decoded into: values with their paths, and versions.
fn decoded(decoder: &mut Decoder, batch: &Batch) -> String {
    let (changes, rejected) = decoder.decode(batch);
    assert!(rejected.is_empty(), "{}: {rejected:?}", String::from_utf8_lossy(&batch.bytes));
    let mut decoded = String::new();
    for (field, value) in &changes.values {
        decoded.push_str(&format!("{} {value:?}\n", decoder.fields.path(*field)));
    }
    for change in &changes.list {
        decoded.push_str(&format!("{:?}\n", change.version));
    }
    decoded
}

const FORMATS: [&str; 5] = ["json", "segment", "dms", "debezium", "dynamodb"];

/// In memory: what is decoded and what is archived hold nothing private, and archiving changes neither values nor digest.
#[test]
fn no_spelling_of_a_private_field_leaves_the_decoder() {
    let mut random = Random::new(12);
    for case in 0..4_000 {
        let format = *random.one_of(&FORMATS);
        let naming = *random.one_of(&["segment", "rudder", "snake_case"]);
        let config = config(format, naming, &mut random);
        let new_decoder = || Decoder::new(Config::parse("", &config).unwrap().sources.remove(0));
        let (document, partition_key) = document(format, &mut random, case);
        assert!(document.contains(SECRET));
        let original = batch(document.as_bytes(), &partition_key, None);
        let mut decoder = new_decoder();
        let stored = decoded(&mut decoder, &original);
        let record = &original.records[0];
        let digest = decoder.digest(record, document.as_bytes()).unwrap();
        assert_ne!(digest, xxh3_64(document.as_bytes()));
        let (archived, archived_digest) = decoder.redact(record, document.as_bytes()).unwrap();
        assert_eq!(archived_digest, digest, "{config}{document}");
        let text = String::from_utf8(archived.clone()).unwrap();
        let key = decoder.partition_key(record);
        for found in [&*stored, &*text, &*key] {
            assert!(!found.contains(SECRET), "{config}{document}\n{found}");
        }
        assert!(stored.contains("OPEN") && text.contains("OPEN"), "{config}{document}\n{text}");
        // By a process that has seen nothing else, as a redrive is.
        let mut another = new_decoder();
        let archived = batch(&archived, &key, Some(0));
        assert_eq!(decoded(&mut another, &archived), stored, "{config}{document}\n{text}");
        assert_eq!(another.digest(&archived.records[0], &archived.bytes), Some(digest), "{document}\n{text}");
        let again = another.redact(&archived.records[0], &archived.bytes).unwrap();
        assert_eq!((String::from_utf8(again.0).unwrap(), again.1), (text, digest));
    }
}

/// Everything that the batch has left anywhere, except in the stream.
async fn traces(desk: &Desk) -> Vec<String> {
    let columns = "SELECT table_schema, table_name, column_name FROM information_schema.columns \
        WHERE table_schema NOT IN ('pg_catalog', 'information_schema')";
    let mut traces = everything(&desk.url).await;
    traces.extend(rows(&desk.client().await, columns).await);
    traces.extend(desk.bodies().await);
    for letter in desk.letters().await {
        if let StoredPayload::Base64(payload) = &letter.payload {
            traces.push(String::from_utf8(STANDARD.decode_to_vec(payload).unwrap()).unwrap());
        }
    }
    traces.extend(desk.objects("").await.into_values());
    traces
}

/// On real parts: tables, dead letters and backups, and tables restored from the backup.
#[tokio::test]
async fn no_spelling_of_a_private_field_is_stored() {
    let mut random = Random::new(3);
    for format in FORMATS {
        let desk = Desk::open().await;
        let naming = *random.one_of(&["segment", "snake_case"]);
        let config = config(format, naming, &mut random);
        let records: Vec<ShardRecord> = (1..=40)
            .map(|id| {
                let (document, partition_key) = document(format, &mut random, id);
                ShardRecord { partition_key, ..ShardRecord::numbered(id, document) }
            })
            .collect();
        let report = ingest_event(&mut desk.ingest(&config), &event("s", "shardId-000000000000", &records)).await;
        let refused = report.counts.dead_lettered;
        assert!(report.counts.applied >= 15 && (refused >= 5 || format == "segment"), "{format}: {report}");
        let before = everything(&desk.url).await;
        let found = traces(&desk).await;
        assert!(found.iter().any(|text| text.contains("OPEN")) && found.len() > 40, "{format}");
        for text in &found {
            assert!(!text.contains(SECRET), "{format}: {config}{text}");
        }

        let client = desk.client().await;
        client.batch_execute("DROP SCHEMA x CASCADE; DROP SCHEMA IF EXISTS millstream CASCADE").await.unwrap();
        reapply(&desk, &config, "x").await;
        let after = everything(&desk.url).await;
        assert_eq!(after.len(), before.len(), "{format}");
        // A row of Segment says when it was written.
        assert!(format == "segment" || after == before, "{format}: {after:#?} {before:#?}");
    }
}

async fn reapply(desk: &Desk, config: &str, source: &str) {
    let mut backfill = Backfill {
        ingest: &mut desk.ingest(config),
        object_store: desk.archive(),
        tables: DynamodbTables::new(desk.sdk.clone()),
        call: TaskCall::unwatched(Deadline::after(PLENTY)),
    };
    let all = json!({"source": source, "reapply": {"from": "2000-01-01T00:00:00Z", "to": "2100-01-01T00:00:00Z"}});
    let task: BackfillTask = serde_json::from_value(all).unwrap();
    let progress = run(&mut backfill, &task).await.unwrap();
    assert!(progress.done && progress.records > 0 && progress.unreadable.is_none(), "{progress:?}");
}

const READINGS: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\nprivate = [\"ip\", { path = \"user\", as = \"sha256\" }]\n\
    backup = true\n[table.reading]\nsource = \"s\"\nkey = [\"id\"]\nversion = \"at\"\n\
    columns = { n = { path = \"n\", type = \"integer\", check = \"n > 0\" } }\n";

/// A dropped address has few possible values: none of the digests that are kept tells which one it was.
#[tokio::test]
async fn no_digest_reveals_a_private_value_and_an_archived_record_ties_with_its_original() {
    let (desk, twin) = (Desk::open().await, database().await);
    let reading = |id: u32, ip: &str, n: i32| {
        format!(r#"{{"id":{id},"at":"2026-11-27T04:00:00Z","ip":"{ip}","user":"alice@example.com","n":{n}}}"#)
    };
    let good = [reading(1, "10.20.30.40", 5), reading(3, "10.20.1.1", 6)];
    let batch = documents(1, &[good[0].clone(), reading(2, "10.20.77.99", -5), good[1].clone()]);
    let mut ingest = desk.ingest(READINGS);
    let report = ingest_event(&mut ingest, &batch).await;
    assert_eq!((report.counts.applied, report.counts.dead_lettered), (2, 1), "{report}");
    let found = traces(&desk).await.join("\n");
    for (ip, n, id) in [("10.20.30.40", 5, 1), ("10.20.77.99", -5, 2), ("10.20.1.1", 6, 3)] {
        let digest = xxh3_64(reading(id, ip, n).as_bytes());
        assert!(!found.contains(&format!("{digest:016x}")) && !found.contains(&digest.to_string()), "{ip}");
        assert!(!found.contains(ip) && !found.contains("alice"), "{found}");
    }
    // Two documents that differ only in what is dropped have the same digest.
    let mut other = desk.ingest_into(READINGS, &twin, &desk.queue);
    ingest_event(&mut other, &documents(1, &[reading(1, "192.0.2.1", 5), reading(3, "192.0.2.2", 6)])).await;
    assert_eq!(everything(&twin).await, everything(&desk.url).await);

    // Delivered again, from the backup and from the dead letter: the same versions.
    let before = everything(&desk.url).await;
    let again = ingest_event(&mut ingest, &documents(1, &good)).await;
    assert_eq!(again.counts.applied, 0, "{again}");
    reapply(&desk, READINGS, "s").await;
    assert_eq!(everything(&desk.url).await, before);
    let without_check = "DO $$ DECLARE c name; BEGIN FOR c IN SELECT conname FROM pg_constraint \
        WHERE conrelid = 's.reading'::regclass AND contype = 'c' \
        LOOP EXECUTE format('ALTER TABLE s.reading DROP CONSTRAINT %I', c); END LOOP; END $$";
    desk.client().await.batch_execute(without_check).await.unwrap();
    let redriven = desk.redrive(&READINGS.replace(", check = \"n > 0\"", ""), json!({"limit": 1})).await.unwrap();
    assert_eq!(redriven.records.applied, 1, "{redriven:?}");
    let version = rows(&desk.client().await, "SELECT _version FROM s.reading WHERE id = '2'").await;
    let mut decoder = Decoder::new(Config::parse("", READINGS).unwrap().sources.remove(0));
    let document = reading(2, "10.20.77.99", -5);
    let digest = decoder.digest(&self::batch(document.as_bytes(), "k", None).records[0], document.as_bytes()).unwrap();
    assert!(version[0].contains(&format!("{digest:016x}")), "{version:?}");
}

/// Without private fields, nothing has changed: stored versions keep their digests.
#[test]
fn the_digest_of_a_source_without_private_fields_is_that_of_the_document() {
    let document = "\n{ \"id\": 1,\n\"at\": 5, \"b\": [1, 2] } ";
    let config =
        "[source.s]\nstream = \"s\"\nformat = \"json\"\n[table.t]\nsource = \"s\"\nkey = [\"id\"]\nversion = \"at\"\n";
    let mut decoder = Decoder::new(Config::parse("", config).unwrap().sources.remove(0));
    let batch = batch(document.as_bytes(), "k", None);
    let digest = xxh3_64(document.trim_ascii().as_bytes());
    assert_eq!(decoder.digest(&batch.records[0], document.as_bytes()), Some(digest));
    let (changes, _) = decoder.decode(&batch);
    assert_eq!(changes.list[0].version.unwrap().digest, digest);
    assert_eq!(decoder.partition_key(&batch.records[0]), "k");
}

/// Spellings that reached a table in clear: the last one even the private column itself.
#[tokio::test]
async fn other_spellings_are_private_and_their_neighbours_are_written() {
    let desk = Desk::open().await;
    let config = "[source.s]\nstream = \"s\"\n\
        private = [\"context.ip\", { path = \"traits.email\", as = \"sha256\" }, \"properties.card_number\"]\n";
    let call = |id: &str, rest: &str| {
        let time = "2026-02-08T23:00:00Z";
        format!(r#"{{"messageId":"{id}","receivedAt":"{time}","timestamp":"{time}","userId":"{id}",{rest}}}"#)
    };
    let identify = |id: &str, traits: &str| call(id, &format!(r#""type":"identify","traits":{traits}"#));
    let track = |id: &str, rest: &str| call(id, &format!(r#""type":"track","event":"Paid",{rest}"#));
    let calls = [
        identify("i1", r#"{"email":"SECRET1"}"#),
        identify("i2", r#"{"Email":"SECRET2","plan":"OPEN"}"#),
        identify("i3", r#"{"EMAIL":"SECRET3","email_verified":true}"#),
        identify("i4", r#"{"email ":"SECRET4"}"#),
        identify("i5", r#""{\"email\":\"SECRET5\"}""#),
        track("t1", r#""properties":{"cardNumber":"SECRET6","amount":3},"context":{"IP":"SECRET7"}"#),
        track("t2", r#""properties":{"Card Number":"SECRET8","amount":4},"context":{},"context.ip":"SECRET9""#),
        track(
            "t3",
            r#""properties":{"name":"OPEN","amount":5},"context":{"ip":"SECRET10"},"Context":{"Ip":"SECRET11"}"#,
        ),
    ];
    let report = ingest_event(&mut desk.ingest(config), &documents(1, &calls)).await;
    assert_eq!(report.counts.applied, 8, "{report}");
    let found = traces(&desk).await.join("\n");
    assert!(!found.contains(SECRET) && found.contains("OPEN"), "{found}");
    let client = desk.client().await;
    let users = "SELECT count(*), count(email) AS hashed, bool_or(email_verified) AS open FROM s.users";
    assert_eq!(rows(&client, users).await, [r#"{"count":5,"hashed":1,"open":true}"#]);
    let paid = "SELECT sum(amount) AS amount, max(name) AS name FROM s.paid";
    assert_eq!(rows(&client, paid).await, [r#"{"amount":12,"name":"OPEN"}"#]);
    let private = "SELECT count(*) FROM information_schema.columns \
        WHERE table_schema = 's' AND column_name ~ 'card|context_ip'";
    assert_eq!(rows(&client, private).await, [r#"{"count":0}"#]);
}

/// DynamoDB's own names of a record's members are the only ones that are trusted.
#[tokio::test]
async fn an_image_under_another_name_is_not_kept_in_a_dead_letter() {
    let desk = Desk::open().await;
    let config = "[source.x]\nstream = \"*\"\nformat = \"dynamodb\"\nprivate = [\"*.email\"]\n";
    let image = r#"{"id":{"S":"1"},"email":{"S":"SECRET"}}"#;
    let change = |number: u64, name: &str| {
        let images = format!(r#""Keys":{{"id":{{"S":"{number}"}}}},"{name}":{image}"#);
        dynamodb_change(&dynamodb_stream("Items"), "INSERT", &dynamodb_sequence(number), &images)
    };
    let report =
        ingest_event(&mut desk.ingest(config), &dynamodb_event(&[change(1, "newImage"), change(2, "NewImage")])).await;
    assert_eq!((report.counts.applied, report.counts.dead_lettered), (1, 1), "{report}");
    for text in traces(&desk).await {
        assert!(!text.contains(SECRET), "{text}");
    }
}
