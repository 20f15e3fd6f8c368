//! Records whose dead letters SQS would reject, or that would be too many: all are stored, redriven exactly, and cost their
//! neighbours nothing.

use std::time::Duration;

use base64_simd::STANDARD;
use millstream::aws::Aws;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use millstream::dead_letter::{DeadLetter, DeadLetters, StoredPayload};
use millstream::ingest::Ingest;
use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::kinesis::{ShardRecord, create_stream, event, put};
use millstream_tests::local_aws::REGION;
use millstream_tests::program::millstream;
use millstream_tests::strict_sqs::StrictSqs;
use serde_json::json;

use super::{Desk, PLENTY, counted, documents, everything, ingest_event};
use crate::support::{Files, database, rows};
use millstream::record::RECORD_DOCUMENTS_MAX;
use millstream_tests::packed::{aggregate, gzip};

const STRICT: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\nschema_mode = \"strict\"\n[table.log]\nsource = \"log\"\nid = \"id\"\n";

/// The same when every field may become a column.
fn evolving() -> String {
    STRICT.replace("strict", "evolve")
}

/// A desk whose queue accepts what SQS accepts.
async fn strict_desk() -> (Desk, StrictSqs) {
    let mut desk = Desk::open().await;
    let sqs = StrictSqs::start(&desk.aws).await.unwrap();
    desk.sdk = Aws::local(sqs.endpoint(), REGION).await;
    (desk, sqs)
}

/// A function without a bucket.
fn without_bucket(desk: &Desk, config: &str) -> Ingest {
    let database = Database::new(&DatabaseAddress::from_url(&desk.url), desk.sdk.clone()).unwrap();
    let dead_letters = DeadLetters::new(desk.sdk.clone(), Some(desk.queue.clone()), None, "test".to_owned());
    Ingest::new(Config::parse("test.toml", config).unwrap(), database, dead_letters)
}

/// Records with partition keys, as one batch.
fn keyed(records: &[(&str, String)]) -> Vec<u8> {
    let numbered = (1..).zip(records).map(|(number, (key, data))| ShardRecord {
        partition_key: (*key).to_owned(),
        ..ShardRecord::numbered(number, data.as_bytes())
    });
    event("s", "shardId-000000000000", &numbered.collect::<Vec<_>>())
}

#[tokio::test]
async fn whatever_a_record_holds_its_dead_letter_is_stored_and_redriven_exactly() {
    let ((desk, sqs), twin) = (strict_desk().await, database().await);
    let long_path = "é".repeat(500);
    let long_key = "\u{fffe}".repeat(1_000);
    let records = [
        ("k", r#"{"id":"1"}"#.to_owned()),
        ("u\u{ffff}", r#"{"id":"2","a":1}"#.to_owned()),
        ("\u{fffe}", "{\"id\":\"3\",\"\u{ffff}\\u0001\":1}".to_owned()),
        ("k", format!(r#"{{"id":"4","{long_path}":1}}"#)),
        (&long_key, r#"{"id":"5","a":2}"#.to_owned()),
        ("k", format!(r#"{{"id":"6","a":{{"{long_path}":"{}"}}}}"#, "x".repeat(200_000))),
        ("k", r#"{"id":"7"}"#.to_owned()),
    ];
    let counts = ingest_event(&mut desk.ingest(STRICT), &keyed(&records)).await.counts;
    assert_eq!((counts.applied, counts.dead_lettered), (2, 5));
    assert_eq!((sqs.stored(), sqs.rejected()), (5, 0));

    let letters = desk.letters().await;
    let keys: Vec<&str> = letters.iter().map(|letter| &*letter.partition_key).collect();
    assert_eq!((keys[0], keys[1], keys[2], keys[4]), ("u\u{ffff}", "\u{fffe}", "k", "k"));
    assert!(keys[3].contains(" … (3000 bytes) … ") && keys[3].len() <= 1_024, "{}", keys[3]);
    let message = &letters[1].error.message;
    assert_eq!(message, "`\u{ffff}\u{1}` has no column, and the table's schema_mode is strict");
    let message = &letters[2].error.message;
    assert!(message.len() <= 2_048, "{message}");
    assert!(message.ends_with("` has no column, and the table's schema_mode is strict"), "{message}");
    assert!(matches!(letters[4].payload, StoredPayload::S3(_)), "{:?}", letters[4].payload);

    // Rejected again, and then not.
    let again = desk.redrive(STRICT, json!({"limit": 5})).await.unwrap();
    assert_eq!((again.redriven, again.records.dead_lettered), (5, 5), "{again:?}");
    let second: Vec<DeadLetter> = desk.letters().await;
    for (first, second) in letters.iter().zip(&second) {
        assert_eq!(
            (&first.partition_key, &first.digest, &first.position),
            (&second.partition_key, &second.digest, &second.position)
        );
    }
    let progress = desk.redrive(&evolving(), json!({"limit": 5})).await.unwrap();
    assert_eq!((progress.redriven, progress.records.applied, progress.kept), (5, 5, counted(&[])));
    let mut good = desk.ingest_into(&evolving(), &twin, &desk.queue);
    let (first, rest) = (keyed(&[records[0].clone(), records[6].clone()]), keyed(&records));
    ingest_event(&mut good, &first).await;
    ingest_event(&mut good, &rest).await;
    let ids = "SELECT id, a::text IS NULL AS empty FROM log.log ORDER BY id";
    let found = rows(&desk.client().await, ids).await;
    assert_eq!(found, rows(&crate::support::client(&twin).await, ids).await);
    assert_eq!(found.len(), 7);
}

#[tokio::test]
async fn without_a_bucket_a_large_payload_is_read_back_from_the_stream() {
    let (desk, sqs) = strict_desk().await;
    let stream = &desk.bucket;
    create_stream(&desk.aws, stream, 1).await.unwrap();
    let config = STRICT.replace("\"s\"", &format!("\"{stream}\""));
    let large = format!(r#"{{"id":"2","text":"{}"}}"#, "x".repeat(300_000));
    let data = [r#"{"id":"1"}"#.to_owned(), large, r#"{"id":"3"}"#.to_owned()];
    let records: Vec<_> = data.iter().map(|data| ("k".to_owned(), data.clone().into_bytes())).collect();
    put(&desk.aws, stream, &records).await.unwrap();
    let numbered = (1..).zip(&data).map(|(number, data)| ShardRecord {
        sequence: format!("{number}"),
        ..ShardRecord::numbered(number, data.as_bytes())
    });
    let event = event(stream, "shardId-000000000000", &numbered.collect::<Vec<_>>());
    let counts = ingest_event(&mut without_bucket(&desk, &config), &event).await.counts;
    assert_eq!((counts.applied, counts.dead_lettered, sqs.rejected()), (2, 1, 0));
    let letter = desk.letters().await.remove(0);
    assert!(matches!(letter.payload, StoredPayload::Withheld { bytes: 300_020 }), "{:?}", letter.payload);
    assert!(!letter.redacted && letter.position.sequence_number == "2");

    let config = config.replace("strict", "evolve");
    let progress = desk.redrive_with(without_bucket(&desk, &config), json!({"limit": 1}), PLENTY).await.unwrap();
    assert_eq!((progress.redriven, progress.records.applied), (1, 1), "{progress:?}");
    let found = rows(&desk.client().await, "SELECT id, length(text) AS l FROM log.log ORDER BY id").await;
    assert_eq!(found[1], r#"{"id":"2","l":300000}"#);
}

/// The owner of a queue may set its maximum to less than what a dead letter needs.
#[tokio::test]
async fn a_dead_letter_that_sqs_rejects_is_sent_reduced() {
    let (desk, sqs) = strict_desk().await;
    sqs.set_message_bytes_max(4_096);
    let large = format!(r#"{{"id":"2","é":"{}"}}"#, "x".repeat(20_000));
    let event = documents(1, &[r#"{"id":"1"}"#, &large, r#"{"id":"3","a":1}"#]);
    let counts = ingest_event(&mut desk.ingest(STRICT), &event).await.counts;
    assert_eq!((counts.applied, counts.dead_lettered), (1, 2));
    assert_eq!((sqs.stored(), sqs.rejected()), (2, 1));
    let letters = desk.letters().await;
    let message = &letters[0].error.message;
    assert_eq!(
        message,
        "SQS rejected the whole dead letter (InvalidParameterValue); `é` has no column, and the table's schema_mode is strict"
    );
    assert!(matches!(letters[0].payload, StoredPayload::S3(_)), "{:?}", letters[0].payload);
    assert!(matches!(letters[1].payload, StoredPayload::Base64(_)), "{:?}", letters[1].payload);
    let progress = desk.redrive(&evolving(), json!({"limit": 2})).await.unwrap();
    assert_eq!((progress.redriven, progress.records.applied), (2, 2));

    // Without any place for it, the batch waits for an operator.
    sqs.set_message_bytes_max(10);
    let error = desk.ingest(STRICT).process_event(&documents(9, &[r#"{"id":"9","b":1}"#]), PLENTY).await.unwrap_err();
    assert!(error.needs_operator(), "{error}");
    assert!(error.to_string().ends_with(": SQS rejected a message: InvalidParameterValue"), "{error}");
}

#[tokio::test]
async fn what_sqs_has_acknowledged_is_not_sent_again_when_the_batch_comes_back() {
    let (desk, sqs) = strict_desk().await;
    let mut records: Vec<String> = (0..30).map(|number| format!(r#"{{"id":"{number}","a":{number}}}"#)).collect();
    records.push(r#"{"id":"good"}"#.to_owned());
    let event = documents(1, &records);
    let mut ingest = desk.ingest(STRICT);
    sqs.fail_messages_with(Some(&STANDARD.encode_to_string(&records[17])));
    let error = ingest.process_event(&event, PLENTY).await.unwrap_err();
    assert!(!error.needs_operator() && error.to_string().contains("InternalError"), "{error}");
    assert_eq!(sqs.stored(), 29);
    sqs.fail_messages_with(None);
    assert_eq!(ingest_event(&mut ingest, &event).await.counts.dead_lettered, 30);
    assert_eq!((sqs.stored(), desk.letters().await.len()), (30, 30));
    // Delivered once more after that, the records are rejected once more.
    assert_eq!(ingest_event(&mut ingest, &event).await.counts.dead_lettered, 30);
    assert_eq!(sqs.stored(), 60);
}

#[tokio::test]
async fn many_rejected_documents_of_one_record_share_a_dead_letter() {
    let ((desk, sqs), twin) = (strict_desk().await, database().await);
    let line = |number: u32| match number % 3 {
        0 => format!(r#"{{"id":"{number}"}}"#),
        1 => format!("{{\"id\":\"{number}\",\n\"a\":{number}}}"),
        _ => "{}".to_owned(),
    };
    let many: Vec<String> = (0..900).map(line).collect();
    let few: Vec<String> = (900..1_100).map(line).collect();
    let inner: Vec<&[u8]> = few.iter().map(String::as_bytes).collect();
    let records: Vec<Vec<u8>> = vec![
        br#"{"id":"first"}"#.into(),
        gzip(many.concat().as_bytes()),
        aggregate(&inner),
        br#"{"id":"own","a":1}"#.into(),
        br#"{"id":"last"}"#.into(),
    ];
    let counts = ingest_event(&mut desk.ingest(STRICT), &documents(1, &records)).await.counts;
    assert_eq!((counts.applied, counts.dead_lettered), (2 + 300 + 67, 600 + 133 + 1));
    assert_eq!((sqs.stored(), sqs.rejected()), (3, 0));
    let letters = desk.letters().await;
    let documents_of =
        |letter: &DeadLetter| letter.documents.clone().map(|documents| (documents.count, documents.reasons));
    assert_eq!(documents_of(&letters[0]), Some((600, counted(&[("missing", 300), ("unknown_field", 300)]))));
    assert_eq!(documents_of(&letters[1]).unwrap().0, 133);
    assert_eq!(documents_of(&letters[2]), None);
    assert_eq!((letters[0].position.sub_sequence_number, letters[0].error.table.as_deref()), (1, Some("log.log")));
    assert!(letters[0].error.message.starts_with(
        "600 documents of this record were rejected (missing: 300, unknown_field: 300); the first: `a` has"
    ));

    // 300 that are still rejected share a dead letter again; 66 of the aggregate have one each.
    let progress = desk.redrive(&evolving(), json!({"limit": 3})).await.unwrap();
    assert_eq!(
        (progress.redriven, progress.records.applied, progress.records.dead_lettered),
        (3, 300 + 67 + 1, 300 + 66)
    );
    let rest = desk.letters().await;
    assert_eq!((rest.len(), rest[0].attempts, &*rest[0].error.class), (1 + 66, 2, "missing"));
    assert_eq!(documents_of(&rest[0]).unwrap().0, 300);
    let mut good = desk.ingest_into(&evolving(), &twin, &desk.queue);
    ingest_event(&mut good, &documents(1, &records)).await;
    assert_eq!(everything(&desk.url).await, everything(&twin).await);
}

#[tokio::test]
async fn a_record_beyond_a_limit_is_one_dead_letter_as_it_was_received() {
    let (desk, sqs) = strict_desk().await;
    let too_many = gzip("{}".repeat(RECORD_DOCUMENTS_MAX as usize + 1).as_bytes());
    let records: Vec<Vec<u8>> = vec![br#"{"id":"first"}"#.into(), too_many, br#"{"id":"last"}"#.into()];
    let counts = ingest_event(&mut desk.ingest(STRICT), &documents(1, &records)).await.counts;
    assert_eq!((counts.applied, counts.dead_lettered, sqs.rejected()), (2, 1, 0));
    let letter = desk.letters().await.remove(0);
    assert_eq!((&*letter.error.class, letter.position.sub_sequence_number), ("limit_exceeded", 0));
    // The payload says that it is still packed, for a version with another limit.
    assert_eq!(letter.documents.as_ref().map(|documents| documents.count), Some(1));
    let progress = desk.redrive(STRICT, json!({"limit": 1})).await.unwrap();
    assert_eq!((progress.records.applied, progress.records.dead_lettered), (0, 1));
    let again = desk.letters().await.remove(0);
    assert_eq!((again.attempts, &again.payload, &again.error), (2, &letter.payload, &letter.error));
}

#[tokio::test]
async fn many_documents_with_private_fields_are_redacted_or_withheld() {
    let (desk, sqs) = strict_desk().await;
    let stream = &desk.bucket;
    create_stream(&desk.aws, stream, 1).await.unwrap();
    let config = STRICT.replace("\"s\"", &format!("\"{stream}\"\nprivate = [\"email\"]"));
    let mut text: String = (0..200).map(|number| format!(r#"{{"id":"{number}","email":"jane","a":1}}"#)).collect();
    text.push_str("{jane");
    let data = gzip(text.as_bytes());
    put(&desk.aws, stream, &[("k".to_owned(), data.clone())]).await.unwrap();
    let record = ShardRecord { sequence: "1".to_owned(), ..ShardRecord::numbered(1, data) };
    let delivered = event(stream, "shardId-000000000000", &[record]);
    assert_eq!(ingest_event(&mut desk.ingest(&config), &delivered).await.counts.dead_lettered, 201);
    assert_eq!(sqs.stored(), 2);
    let letters = desk.letters().await;
    assert!(letters[0].redacted && !letters[1].redacted, "{letters:?}");
    assert!(matches!(letters[1].payload, StoredPayload::Withheld { bytes: 5 }), "{:?}", letters[1].payload);
    assert_eq!((&*letters[0].partition_key, &*letters[1].partition_key), ("", ""));
    assert_eq!(letters[1].digest, "0000000000000000");
    let StoredPayload::Base64(payload) = &letters[0].payload else { panic!("{:?}", letters[0].payload) };
    let mut documents = String::new();
    let packed = STANDARD.decode_to_vec(payload).unwrap();
    std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&packed[..]), &mut documents).unwrap();
    assert!(documents.contains("\"199\"") && !documents.contains("jane"), "{documents}");
    let progress = desk.redrive(&config.replace("strict", "evolve"), json!({"limit": 2})).await.unwrap();
    assert_eq!((progress.redriven, progress.records.dead_lettered), (2, 1), "{progress:?}");
    assert_eq!(rows(&desk.client().await, "SELECT count(*) FROM log.log").await, [r#"{"count":200}"#]);
}

/// Starts the function for a queue.
async fn function(desk: &Desk, sqs: &StrictSqs, queue: &str, config: &str) -> Function {
    let mut environment = desk.aws.environment();
    environment.retain(|(name, _)| name != "AWS_ENDPOINT_URL");
    environment.extend(
        [
            ("AWS_ENDPOINT_URL", sqs.endpoint()),
            ("DATABASE_URL", &desk.url),
            ("DEAD_LETTER_QUEUE_URL", queue),
            ("MILLSTREAM_CONFIG", config),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    let timeout = Duration::from_secs(60);
    Function::start(Settings { binary: binary("kinesis-ingest").unwrap(), environment, timeout }).await.unwrap()
}

#[tokio::test]
async fn a_flood_of_rejections_becomes_one_dead_letter_and_a_few_log_lines() {
    let (desk, sqs) = strict_desk().await;
    let files = Files::new("flood");
    let config = files.write("millstream.toml", STRICT);
    let mut function = function(&desk, &sqs, &desk.queue, &config).await;
    let mut records: Vec<Vec<u8>> = vec![gzip("{}".repeat(50_000).as_bytes()), br#"{"id":"good"}"#.into()];
    records.extend((0..150).map(|number| format!(r#"{{"id":"{number}","a":1}}"#).into_bytes()));
    function.invoke(documents(1, &records)).await.unwrap();
    assert_eq!((sqs.stored(), sqs.rejected()), (151, 0));
    let log = std::fs::read_to_string(function.log()).unwrap();
    let lines = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!((lines("\"message\":\"dead letter\""), lines("\"message\":\"more dead letters\"")), (100, 1), "{log}");
    assert!(log.contains("\"dead_lettered\":50150") && log.contains("\"documents\":50000"), "{log}");
    assert_eq!(rows(&desk.client().await, "SELECT id FROM log.log").await, [r#"{"id":"good"}"#]);
}

#[tokio::test]
async fn a_queue_that_cannot_be_used_is_found_at_the_start_and_by_plan_and_needs_an_operator() {
    let (desk, sqs) = strict_desk().await;
    let files = Files::new("queues");
    let config = files.write("millstream.toml", STRICT);
    let create = desk.sqs().create_queue().queue_name(format!("{}.fifo", desk.bucket));
    let fifo = create.attributes("FifoQueue".into(), "true").send().await.unwrap().queue_url.unwrap();
    let account = "123456789012";
    for (queue, problem) in [
        (
            fifo,
            "a FIFO queue was set where a standard queue is expected; create a standard queue and set its URL"
                .to_owned(),
        ),
        (
            format!("arn:aws:sqs:us-east-1:{account}:{}", desk.bucket),
            format!(
                "an ARN was set where the queue's URL is expected; set https://sqs.us-east-1.amazonaws.com/{account}/{}",
                desk.bucket
            ),
        ),
        (format!("{}-nowhere", desk.queue), "the queue does not exist; create it or correct the URL".to_owned()),
    ] {
        let expected = format!("queue {queue}: {problem}");
        let mut function = function(&desk, &sqs, &queue, &config).await;
        function.first_poll().await;
        let mut log = std::fs::read_to_string(function.log()).unwrap();
        // A busy machine may take longer than the start waits for the answer.
        while log.contains("SQS did not answer within") {
            function = self::function(&desk, &sqs, &queue, &config).await;
            function.first_poll().await;
            log = std::fs::read_to_string(function.log()).unwrap();
        }
        assert!(log.contains(&format!("\"error\":\"DEAD_LETTER_QUEUE_URL: {expected}\"")), "{log}");
        assert!(log.contains("\"level\":\"ERROR\"") && log.contains("\"person_needed\":1"), "{log}");
        // A batch without rejected records does not need the queue.
        function.invoke(documents(1, &[r#"{"id":"1"}"#])).await.unwrap();
        let error = function.invoke(documents(2, &[r#"{"id":"2"}"#, r#"{"id":"3","a":1}"#])).await.unwrap_err();
        assert!(error.to_string().contains(&format!("could not send dead letters: {expected}")), "{error}");
        let log = std::fs::read_to_string(function.log()).unwrap();
        assert!(log.contains("operator action required") && !log.contains("Lambda will retry"), "{log}");

        let mut environment = desk.aws.environment();
        environment.extend(
            [("MILLSTREAM_CONFIG", &config), ("DATABASE_URL", &desk.url), ("DEAD_LETTER_QUEUE_URL", &queue)]
                .map(|(name, value)| (name.to_owned(), value.clone())),
        );
        let planned = millstream(&environment, &["--json", "plan"]).await.unwrap();
        let planned: serde_json::Value = serde_json::from_str(&planned.out).unwrap();
        assert_eq!(planned["queues"], json!([format!("DEAD_LETTER_QUEUE_URL: {expected}")]));
        let text = millstream(&environment, &["plan"]).await.unwrap().out;
        assert!(text.contains("\nQueues:\n    -- DEAD_LETTER_QUEUE_URL: queue"), "{text}");
    }
    let ids = "SELECT id FROM log.log ORDER BY id";
    assert_eq!(rows(&desk.client().await, ids).await, [r#"{"id":"1"}"#, r#"{"id":"2"}"#]);
}
