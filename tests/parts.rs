//! A batch whose records unpack to more than memory should hold is read in parts. It has the effect of any other batch.

use std::time::Duration;

use millstream::ingest::{Ingest, IngestError};
use millstream::record::{RECORD_DOCUMENTS_MAX, unpack};
use millstream::report::Report;
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::packed::{aggregate, gzip};
use millstream_tests::random::Random;

use crate::support::{batch, client, database, ingest, rows};

/// More documents than an ordinary batch holds.
const DOCUMENTS: usize = 45_000;

/// A batch of these documents in ten records, each compressed with gzip.
async fn packed(ingest: &mut Ingest, documents: &[String]) -> Result<Report, IngestError> {
    let records: Vec<ShardRecord> = (1..)
        .zip(documents.chunks(documents.len() / 10))
        .map(|(number, documents)| ShardRecord::numbered(number, gzip(documents.concat().as_bytes())))
        .collect();
    ingest.process_event(&event("s", "shardId-000000000000", &records), Duration::from_secs(120)).await
}

/// The same documents, one in each record, in ordinary batches.
async fn in_ordinary_batches(ingest: &mut Ingest, documents: &[String]) {
    for (number, documents) in (0..).zip(documents.chunks(3_000)) {
        batch(ingest, 1 + number * 3_000, documents).await.unwrap();
    }
}

#[tokio::test]
async fn a_batch_that_is_read_in_parts_becomes_visible_as_a_whole() {
    let url = database().await;
    let mut ingest = ingest("[source.s]\nstream = \"s\"\nformat = \"json\"\n", &url);
    let mut documents: Vec<String> = (0..DOCUMENTS).map(|number| format!("{{\"n\":{number}}}\n")).collect();
    documents[DOCUMENTS - 2] = "{\"n\":-1,\"late\":\"x\"}\n".to_owned();
    documents[10] = "[]\n".to_owned();
    let client = client(&url).await;
    // The last document fails the transaction after all others are written.
    let fails = "CREATE SCHEMA s; CREATE FUNCTION s.fails() RETURNS trigger LANGUAGE plpgsql AS \
        $$ BEGIN IF NEW.n = 44999 THEN RAISE EXCEPTION SQLSTATE '40001'; END IF; RETURN NEW; END $$";
    client.batch_execute(fails).await.unwrap();
    let report = packed(&mut ingest, &documents).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (DOCUMENTS as u64 - 1, 1), "{report}");
    assert!(report.retry_from.unwrap().ends_with("0000000001"));
    let trigger = "TRUNCATE s.s; CREATE TRIGGER fails BEFORE INSERT ON s.s FOR EACH ROW EXECUTE FUNCTION s.fails()";
    client.batch_execute(trigger).await.unwrap();
    packed(&mut ingest, &documents).await.unwrap_err();
    let count = "SELECT count(*) AS rows, count(DISTINCT n) AS numbers, count(late) AS late FROM s.s";
    assert_eq!(rows(&client, count).await, [r#"{"rows":0,"numbers":0,"late":0}"#]);
    client.batch_execute("DROP TRIGGER fails ON s.s").await.unwrap();
    for outcome in [|report: &Report| report.counts.applied, |report: &Report| report.counts.duplicate] {
        let report = packed(&mut ingest, &documents).await.unwrap();
        assert_eq!(outcome(&report), DOCUMENTS as u64 - 1, "{report}");
    }
    assert_eq!(rows(&client, count).await, [r#"{"rows":44999,"numbers":44999,"late":1}"#]);
}

#[tokio::test]
async fn changes_that_are_read_in_parts_end_in_the_same_rows() {
    const CONFIG: &str = "[source.s]\nstream = \"s\"\nformat = \"json\"\n[table.t]\nsource = \"s\"\nkey = [\"id\"]\n\
        version = \"v\"\nmerge = \"column\"\n";
    let mut random = Random::new(18);
    let documents: Vec<String> = (0..DOCUMENTS)
        .map(|number| {
            let (id, version, column) = (random.below(900), random.below(1_000_000), random.below(4));
            format!("{{\"id\":{id},\"v\":{version},\"c{column}\":{number}}}\n")
        })
        .collect();
    assert_same_rows(CONFIG, &documents, "SELECT to_jsonb(t) AS t FROM s.t ORDER BY id").await;
}

#[tokio::test]
async fn deletes_and_a_late_key_are_read_in_parts_too() {
    const CONFIG: &str = "[source.s]\nstream = \"s\"\nformat = \"dms\"\n";
    let mut random = Random::new(19);
    let metadata = |record_type: &str, operation: &str, micros: usize| {
        format!(
            "\"metadata\":{{\"timestamp\":\"2026-02-08T10:00:00.{micros:06}Z\",\"record-type\":\"{record_type}\",\
             \"operation\":\"{operation}\",\"schema-name\":\"p\",\"table-name\":\"t\"}}"
        )
    };
    let mut documents: Vec<String> = (0..DOCUMENTS)
        .map(|number| {
            let operation = *random.one_of(&["insert", "update", "delete"]);
            let (id, metadata) = (random.below(900), metadata("data", operation, number));
            format!("{{\"data\":{{\"id\":{id},\"n\":{number}}},{metadata}}}\n")
        })
        .collect();
    let control = "\"control\":{\"table-def\":{\"columns\":{\"id\":{\"type\":\"INT64\"}},\"primary-key\":[\"id\"]}}";
    documents.push(format!("{{{control},{}}}\n", metadata("control", "create-table", 0)));
    assert_same_rows(CONFIG, &documents, "SELECT id, n, _version FROM s.t ORDER BY id").await;
}

/// The documents end in the same rows, read in parts (twice) or in ordinary batches.
async fn assert_same_rows(config: &str, documents: &[String], query: &str) {
    let [parts_url, ordinary_url] = [database().await, database().await];
    let (mut in_parts, mut ordinary) = (ingest(config, &parts_url), ingest(config, &ordinary_url));
    for _ in 0..2 {
        let report = packed(&mut in_parts, documents).await.unwrap();
        assert_eq!((report.counts.total(), report.counts.retry), (documents.len() as u64, 0), "{report}");
    }
    // An ordinary source of DMS sends the key first.
    let last = documents.len() - 1;
    in_ordinary_batches(&mut ordinary, &documents[last..]).await;
    in_ordinary_batches(&mut ordinary, &documents[..last]).await;
    let expected = rows(&client(&ordinary_url).await, query).await;
    assert!(expected.len() > 500, "{}", expected.len());
    assert_eq!(rows(&client(&parts_url).await, query).await, expected);
}

#[test]
fn a_record_beyond_a_limit_is_rejected_as_it_was_received() {
    let fits = "{}".repeat(RECORD_DOCUMENTS_MAX as usize - 1);
    let too_many = format!("{fits}{{}}{{}}");
    let megabytes = |count: usize| gzip(&vec![b' '; count << 20]);
    let (twenty, thirteen) = (megabytes(20), megabytes(13));
    let cases: [(Vec<u8>, usize, &str); 7] = [
        (fits.clone().into_bytes(), RECORD_DOCUMENTS_MAX as usize - 1, ""),
        (too_many.clone().into_bytes(), 1, "the record holds more than 200000 documents"),
        (gzip(too_many.as_bytes()), 1, "the record holds more than 200000 documents"),
        (aggregate(&[fits.as_bytes(), b"{}", b"{}"]), 1, "the record holds more than 200000 documents"),
        (megabytes(33), 1, "the record has more than 33554432 bytes when decompressed"),
        // The limit is for all records of an aggregate together.
        (aggregate(&[b"{}", &twenty, &thirteen]), 1, "the record has more than 33554432 bytes when decompressed"),
        (aggregate(&[b"{}", &twenty]), 1, ""),
    ];
    for (data, records, error) in cases {
        let event = event("s", "shard", &[ShardRecord::numbered(1, data.clone()), ShardRecord::numbered(2, "{}")]);
        let batch = unpack(&event).unwrap();
        assert_eq!(batch.records.len(), records + 1, "{error}");
        let first = &batch.records[0];
        let found = first.unpack_error.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!((&*found, first.position.sub_sequence_number), (error, 0));
        assert!(error.is_empty() || (batch.payload(first) == data && batch.empty_records == 0));
        assert_eq!(batch.payload(&batch.records[records]), b"{}");
    }
}
