//! Payloads that are not in the dead letter, and private fields in those that are.

use base64_simd::STANDARD;
use millstream::dead_letter::StoredPayload;
use millstream_tests::dynamodb::{create_table, put_item};
use millstream_tests::kinesis::{ShardRecord, create_stream, event, put};
use serde_json::json;

use super::{
    Desk, counted, documents, dynamodb_change, dynamodb_event, dynamodb_sequence, dynamodb_stream, everything,
    ingest_event,
};
use crate::support::{database, rows};
use millstream_tests::packed::aggregate;

fn bank(stream: &str, rule: &str) -> String {
    format!("[source.bank]\nstream = \"{stream}\"\nformat = \"dms\"\nprivate = [\"*.holder\"]\n{rule}")
}

fn dms(table: &str, body: &str, kind: &str, operation: &str) -> String {
    format!(
        r#"{{{body},"metadata":{{"timestamp":"2026-02-08T10:00:00Z","record-type":"{kind}","operation":"{operation}","schema-name":"public","table-name":"{table}"}}}}"#
    )
}

/// A record of a table with a private field, `holder`.
fn row(table: &str, id: u32) -> String {
    dms(table, &format!(r#""data":{{"id":{id},"holder":"Jane Roe"}}"#), "data", "insert")
}

#[tokio::test]
async fn what_was_withheld_is_read_back_from_kinesis() {
    let desk = Desk::open().await;
    let stream = &desk.bucket;
    create_stream(&desk.aws, stream, 1).await.unwrap();
    let control =
        |table: &str| dms(table, r#""control":{"table-def":{"primary-key":["id"]}}"#, "control", "create-table");
    let several = aggregate(&[row("open", 7).as_bytes(), row("open", 8).as_bytes()]);
    let records: Vec<Vec<u8>> = [
        control("secret").into_bytes(),
        control("open").into_bytes(),
        row("secret", 1).into_bytes(),
        format!("Jane Roe {}", row("open", 2)).into_bytes(),
        format!("{}{}", row("open", 3), row("secret", 4)).into_bytes(),
        several,
        row("open", 5).into_bytes(),
    ]
    .into();
    let keyed: Vec<_> = records.iter().map(|data| ("k".to_owned(), data.clone())).collect();
    put(&desk.aws, stream, &keyed).await.unwrap();
    // Lambda's event; two of its elements are damaged, and one does not exist in the stream.
    let mut numbered: Vec<ShardRecord> = (1..)
        .zip(records)
        .map(|(number, data)| ShardRecord { sequence: format!("{number}"), ..ShardRecord::numbered(number, data) })
        .collect();
    numbered.push(ShardRecord { sequence: "99".to_owned(), ..ShardRecord::numbered(99, "Jane Roe") });
    let mut delivered = String::from_utf8(event(stream, "shardId-000000000000", &numbered)).unwrap();
    for data in [&numbered[5].data, &numbered[6].data] {
        let whole = STANDARD.encode_to_string(data);
        delivered = delivered.replace(&whole, &format!("{}!", &whole[..whole.len() - 1]));
    }
    let report =
        ingest_event(&mut desk.ingest(&bank(stream, "exclude = [\"public.secret\"]\n")), delivered.as_bytes()).await;
    assert_eq!(report.counts.dead_lettered, 6, "{report}");
    let letters = desk.letters().await;
    for letter in &letters {
        let told = serde_json::to_string(letter).unwrap();
        assert!(matches!(letter.payload, StoredPayload::Withheld { .. }) && !letter.redacted, "{told}");
        assert!(!told.contains("Jane") && !told.contains(&STANDARD.encode_to_string("Jane")[..4]), "{told}");
    }

    // A control record of an excluded table is ignored.
    let open = bank(stream, "[table.secret]\nsource = \"bank\"\nfrom = \"public.secret\"\nkey = [\"id\"]\n");
    let progress = desk.redrive(&open, json!({"limit": 6})).await.unwrap();
    assert_eq!((progress.redriven, progress.kept.clone()), (5, counted(&[("gone", 1)])), "{progress:?}");
    assert_eq!(desk.counts().await, (2, 0));
    let client = desk.client().await;
    let found = "SELECT array_agg(id ORDER BY id) AS open, (SELECT array_agg(id ORDER BY id) FROM bank.secret) AS secret FROM bank.open";
    assert_eq!(rows(&client, found).await, [r#"{"open":[3,5,7,8],"secret":[1,4]}"#]);
    let malformed = desk.letters().await.into_iter().find(|letter| letter.attempts == 2).unwrap();
    assert!(matches!(malformed.payload, StoredPayload::Withheld { .. }), "{malformed:?}");
    assert_eq!(
        malformed.position,
        letters.iter().find(|letter| letter.position.sequence_number == "4").unwrap().position
    );
}

const SHOP: &str = "[source.shop]\nstream = \"*\"\nformat = \"dynamodb\"\nprivate = [\"*.ip\", { path = \"*.email\", as = \"sha256\" }]\n";

#[tokio::test]
async fn a_withheld_payload_is_read_back_from_dynamodb_without_a_shard() {
    let desk = Desk::open().await;
    let stream = create_table(&desk.aws, &desk.bucket, &[("id", "S")]).await.unwrap();
    let item = json!({"id": {"S": "a"}, "email": {"S": "jane@x"}, "n": {"N": "1"}});
    put_item(&desk.aws, &desk.bucket, &item).await.unwrap();
    let images = format!(r#""Keys":{{"id":{{"S":"a"}}}},"NewImage":{item}"#);
    let there = dynamodb_change(&stream, "INSERT", &dynamodb_sequence(1), &images);
    let missing = dynamodb_change(&stream, "INSERT", &dynamodb_sequence(7), &images);
    let mut ingest = desk.ingest(&format!("{SHOP}exclude = [\"{}\"]\n", desk.bucket));
    ingest_event(&mut ingest, &dynamodb_event(&[there.clone(), missing])).await;
    assert!(desk.letters().await.iter().all(|letter| matches!(letter.payload, StoredPayload::Withheld { .. })));
    let progress = desk.redrive(SHOP, json!({"limit": 2})).await.unwrap();
    assert_eq!((progress.redriven, progress.kept), (1, counted(&[("gone", 1)])));
    let twin = database().await;
    ingest_event(&mut desk.ingest_into(SHOP, &twin, &desk.queue), &dynamodb_event(&[there])).await;
    assert_eq!(everything(&desk.url).await, everything(&twin).await);
}

#[tokio::test]
async fn what_is_private_is_dropped_and_hashed_exactly_once_on_the_whole_way() {
    let (desk, twin) = (Desk::open().await, database().await);
    let image = |id: &str, text: &str| {
        let item = format!(
            r#"{{"id":{{"S":"{id}"}},"email":{{"S":"jane@x"}},"ip":{{"S":"192.0.2.1"}},"text":{{"S":"{text}"}}}}"#
        );
        format!(r#""Keys":{{"id":{{"S":"{id}"}}}},"NewImage":{item},"OldImage":{item}"#)
    };
    let stream = dynamodb_stream("Items");
    let first = [dynamodb_change(&stream, "INSERT", &dynamodb_sequence(1), &image("first", "a"))];
    let refused = [dynamodb_change(&stream, "MODIFY", &dynamodb_sequence(2), &image("second", "too long"))];
    let mut ingest = desk.ingest(SHOP);
    ingest_event(&mut ingest, &dynamodb_event(&first)).await;
    let owner = desk.client().await;
    owner.batch_execute("ALTER TABLE shop.items ALTER text TYPE varchar(3)").await.unwrap();
    ingest_event(&mut ingest, &dynamodb_event(&refused)).await;
    let before = desk.letters().await;
    let again = desk.redrive(SHOP, json!({"limit": 1})).await.unwrap();
    assert_eq!((again.redriven, again.records.dead_lettered), (1, 1));
    let after = desk.letters().await;
    assert_eq!((&after[0].payload, &after[0].digest, after[0].attempts), (&before[0].payload, &before[0].digest, 2));
    owner.batch_execute("ALTER TABLE shop.items ALTER text TYPE text").await.unwrap();
    assert_eq!(desk.redrive(SHOP, json!({"limit": 1})).await.unwrap().records.applied, 1);

    let mut good = desk.ingest_into(SHOP, &twin, &desk.queue);
    ingest_event(&mut good, &dynamodb_event(&first)).await;
    ingest_event(&mut good, &dynamodb_event(&refused)).await;
    let found = everything(&desk.url).await;
    assert_eq!(found, everything(&twin).await);
    let hash = rows(&owner, "SELECT encode(sha256('jane@x'), 'hex') = email AS same FROM shop.items").await;
    assert_eq!(hash, [r#"{"same":true}"#; 2]);
    let objects = desk.objects("").await;
    assert!(objects.len() >= 3, "{objects:?}");
    let StoredPayload::Base64(payload) = &before[0].payload else { panic!("{:?}", before[0].payload) };
    let payload = String::from_utf8(STANDARD.decode_to_vec(payload).unwrap()).unwrap();
    for text in objects.values().chain(&found).chain([&payload]) {
        assert!(!text.contains("jane") && !text.contains("192.0.2"), "{text}");
    }
}

const LARGE: &str = "[source.log]\nstream = [\"s\", \"o\"]\nformat = \"json\"\n[table.log]\nsource = \"log\"\nid = \"key\"\n\
    columns = { n = { path = \"n\", type = \"numeric(1)\" } }\n";

#[tokio::test]
async fn large_payloads_come_from_s3_and_are_kept_while_they_are_not_there() {
    let desk = Desk::open().await;
    let large = |key: &str| format!(r#"{{"key":"{key}","n":10,"text":"{}"}}"#, key.repeat(200_000));
    let mut ingest = desk.ingest(LARGE);
    ingest_event(&mut ingest, &documents(1, &[r#"{"key":"small","n":1}"#.to_owned(), large("a"), large("b")])).await;
    // The same position in another stream is another position.
    let other = String::from_utf8(documents(2, &[large("c")])).unwrap().replace(":stream/s\"", ":stream/o\"");
    ingest_event(&mut ingest, other.as_bytes()).await;
    let address = |payload: &StoredPayload| match payload {
        StoredPayload::S3(address) => address.clone(),
        StoredPayload::Base64(_) | StoredPayload::Withheld { .. } => panic!("{payload:?}"),
    };
    let addresses: Vec<String> = desk.letters().await.iter().map(|letter| address(&letter.payload)).collect();
    assert_eq!(addresses.len(), 3);
    let lost = desk.objects("dead-letters/").await.into_iter().find(|(_, text)| text.contains("bbb")).unwrap();
    let s3 = aws_sdk_s3::Client::new(desk.aws.config());
    s3.delete_object().bucket(&desk.bucket).key(&lost.0).send().await.unwrap();

    desk.client().await.batch_execute("ALTER TABLE log.log ALTER n TYPE numeric").await.unwrap();
    let mended = LARGE.replace("numeric(1)", "numeric");
    let progress = desk.redrive(&mended, json!({"limit": 3})).await.unwrap();
    assert_eq!((progress.redriven, progress.records.applied, progress.kept), (2, 2, counted(&[("unavailable", 1)])));
    s3.put_object().bucket(&desk.bucket).key(&lost.0).body(lost.1.into_bytes().into()).send().await.unwrap();
    let progress = desk.redrive(&mended, json!({"limit": 1})).await.unwrap();
    assert_eq!((progress.redriven, progress.records.applied), (1, 1));
    let found = rows(&desk.client().await, "SELECT key, length(text) AS l FROM log.log ORDER BY key").await;
    let of = |key: &str| format!(r#"{{"key":"{key}","l":200000}}"#);
    assert_eq!(found, [of("a"), of("b"), of("c"), r#"{"key":"small","l":null}"#.to_owned()]);
}
