//! Dead letters of every kind, created by real rejections: once fixed, they become the rows that they would have been.

use millstream::ingest::Ingest;
use serde_json::json;

use super::{Desk, counted, documents, dynamodb_change, dynamodb_event, dynamodb_stream, everything, ingest_event};
use crate::support::{client, database, rows};
use millstream_tests::packed::{gzip, sealed};

const REFUSING: &str = r#"
[source.log]
stream = "s"
format = "json"
[table.bet]
source = "log"
when = { path = "kind", is = "bet" }
key = ["id"]
version = "v"
merge = "column"
columns = { stake = { path = "stake", type = "numeric(6,2)", check = "stake > 0" } }
[table.note]
source = "log"
when = { path = "kind", is = "note" }
columns = { text = { path = "text", type = "varchar(5)" } }
"#;

/// The configuration after the causes have been fixed.
fn fixed_config() -> String {
    let config = REFUSING.replace("numeric(6,2)\", check = \"stake > 0\"", "numeric(12,2)\"");
    let config = config.replace("varchar(5)", "text");
    format!("{config}[table.game]\nsource = \"log\"\nwhen = {{ path = \"kind\", is = \"game\" }}\n")
}

/// What the owner changes in the database.
const FIX_SQL: &str = "DO $$ DECLARE c name; BEGIN FOR c IN SELECT conname FROM pg_constraint WHERE conrelid = 'log.bet'::regclass \
    AND contype = 'c' LOOP EXECUTE format('ALTER TABLE log.bet DROP CONSTRAINT %I', c); END LOOP; END $$; \
    ALTER TABLE log.bet ALTER stake TYPE numeric(12,2); ALTER TABLE log.note ALTER text TYPE text";

/// Bytes with the magic number and a valid checksum of an aggregate that are not an aggregate.
fn no_aggregate() -> Vec<u8> {
    sealed(&[0x1a, 0x02, 0x08, 0x05])
}

/// Three valid records, four that can be fixed, and six that cannot.
fn mixture() -> Vec<u8> {
    let mut broken = gzip(br#"{"kind":"bet","id":"z","v":1}"#);
    broken.truncate(20);
    let records: Vec<Vec<u8>> = vec![
        br#"{"kind":"bet","id":"good","v":1,"stake":10,"side":"home"}"#.into(),
        br#"{"kind":"bet","id":"negative","v":1,"stake":-5.25}"#.into(),
        br#"{"kind":"bet","id":"large","v":1,"stake":123456789.5,"side":"away"}"#.into(),
        br#"{"kind":"note","text":"short"}{"kind":"note","text":"much longer"}"#.into(),
        br#"{"kind":"game","name":"unrouted","n":1e3}"#.into(),
        br#"{"kind":"bet","id":"#.into(),
        b"\xff no json".into(),
        br#"{"kind":"bet","v":1,"stake":1}"#.into(),
        gzip(br#"{"kind":"note","text":"gzip"}"#),
        broken,
        no_aggregate(),
        br#"{"kind":"note","text":"!base64"}"#.into(),
    ];
    let event = String::from_utf8(documents(1, &records)).unwrap();
    let whole = base64_simd::STANDARD.encode_to_string(records.last().unwrap());
    event.replace(&whole, &whole.replacen("eyJ", "ey!", 1)).into_bytes()
}

/// The mixture, and two entities with a rejected change: the older one of the first, the newer one of the second.
fn evening() -> [Vec<u8>; 3] {
    let older = [
        r#"{"kind":"bet","id":"life","v":1,"stake":-1,"side":"home"}"#,
        r#"{"kind":"bet","id":"turn","v":1,"stake":3,"side":"home"}"#,
    ];
    let newer = [r#"{"kind":"bet","id":"life","v":2,"stake":7}"#, r#"{"kind":"bet","id":"turn","v":2,"stake":-3}"#];
    [mixture(), documents(20, &older), documents(30, &newer)]
}

/// Records applied and rejected.
async fn ingest_evening(ingest: &mut Ingest) -> (u64, u64) {
    let (mut applied, mut refused) = (0, 0);
    for event in evening() {
        let counts = ingest_event(ingest, &event).await.counts;
        applied += counts.applied;
        refused += counts.dead_lettered;
        assert_eq!(counts.total(), counts.applied + counts.dead_lettered);
    }
    (applied, refused)
}

#[tokio::test]
async fn dead_letters_become_the_rows_that_they_would_have_been_once_the_cause_is_fixed() {
    let (desk, twin) = (Desk::open().await, database().await);
    assert_eq!(ingest_evening(&mut desk.ingest(REFUSING)).await, (5, 12));
    desk.client().await.batch_execute(FIX_SQL).await.unwrap();
    // SQS may deliver a message twice, and an operator may send it again.
    let copies: Vec<String> = desk.bodies().await.into_iter().filter(|body| body.contains("log.bet")).take(2).collect();
    desk.put(&copies).await;

    let first = desk.redrive(&fixed_config(), json!({"limit": 14})).await.unwrap();
    assert!(first.done);
    assert_eq!((first.redriven, first.kept), (14, counted(&[])), "{:?}", first.records);
    let records = first.records;
    assert_eq!(records.total(), 14);
    // One of the two copies is a duplicate, whichever batches they are in.
    assert_eq!(
        (records.applied + records.duplicate + records.superseded, records.dead_lettered),
        (8, 6),
        "{records:?}"
    );
    let refused = [("malformed 2", 2), ("missing 2", 1), ("unreadable 2", 3)];
    assert_eq!(desk.account().await, refused.map(|(name, count)| (name.to_owned(), count)).into());

    let mut good = desk.ingest_into(&fixed_config(), &twin, &desk.queue);
    assert_eq!(ingest_evening(&mut good).await, (11, 6));
    assert_eq!(everything(&desk.url).await, everything(&twin).await);
    let life = "SELECT id, stake, side FROM log.bet WHERE id IN ('life', 'turn') ORDER BY id";
    let expected = [r#"{"id":"life","stake":7.00,"side":"home"}"#, r#"{"id":"turn","stake":-3.00,"side":"home"}"#];
    assert_eq!(rows(&client(&desk.url).await, life).await, expected);

    // By now the duplicates' dead letters are on the queue as well.
    let second = desk.redrive(&fixed_config(), json!({"limit": 12})).await.unwrap();
    assert_eq!((second.redriven, second.records.dead_lettered, second.records.total()), (12, 12, 12));
    let account = desk.account().await;
    assert_eq!((account["unreadable 2"], account["unreadable 3"], account["malformed 3"]), (3, 3, 2), "{account:?}");
}

/// An unreadable record is kept unchanged, with its position and time, however often it is retried.
#[tokio::test]
async fn a_letter_stays_the_same_however_often_it_is_refused() {
    let desk = Desk::open().await;
    ingest_event(&mut desk.ingest(REFUSING), &mixture()).await;
    let before = desk.letters().await;
    for _ in 0..2 {
        // Finished: records rejected in the meantime do not belong to the run.
        let progress = desk.redrive(REFUSING, json!({"limit": 10})).await.unwrap();
        assert_eq!((progress.redriven, progress.records.dead_lettered), (10, 10));
    }
    let after = desk.letters().await;
    for (before, mut after) in before.into_iter().zip(after) {
        assert_eq!(after.attempts, 3);
        assert!(after.refused_at > before.refused_at);
        (after.attempts, after.refused_at) = (before.attempts, before.refused_at.clone());
        assert_eq!(after, before);
    }
}

const SHOP: &str = "[source.shop]\nstream = \"*\"\nformat = \"dynamodb\"\n";

fn sequence(number: u32) -> String {
    format!("14054000000000020632{number:05}")
}

fn put(table: &str, number: u32, id: &str, text: &str) -> String {
    let images =
        format!(r#""Keys":{{"id":{{"S":"{id}"}}}},"NewImage":{{"id":{{"S":"{id}"}},"text":{{"S":"{text}"}}}}"#);
    dynamodb_change(&dynamodb_stream(table), "MODIFY", &sequence(number), &images)
}

fn remove(table: &str, number: u32, id: &str) -> String {
    let keys = format!(r#""Keys":{{"id":{{"S":"{id}"}}}}"#);
    dynamodb_change(&dynamodb_stream(table), "REMOVE", &sequence(number), &keys)
}

#[tokio::test]
async fn an_old_letter_neither_overwrites_nor_resurrects() {
    let (desk, twin) = (Desk::open().await, database().await);
    let first = [put("Items", 1, "first", "a")];
    let rest = [
        put("Items", 10, "alone", "too long"),
        put("Items", 11, "newer", "too long"),
        put("Items", 12, "newer", "b"),
        put("Items", 13, "deleted", "c"),
        put("Items", 14, "deleted", "too long"),
        remove("Items", 15, "deleted"),
        put("Items", 16, "again", "d"),
        remove("Items", 17, "again"),
        put("Items", 18, "again", "too long"),
        put("Secret", 19, "secret", "e"),
    ];
    let mut ingest = desk.ingest(&format!("{SHOP}exclude = [\"Secret\"]\n"));
    ingest_event(&mut ingest, &dynamodb_event(&first)).await;
    let owner = desk.client().await;
    owner.batch_execute("ALTER TABLE shop.items ALTER text TYPE varchar(3)").await.unwrap();
    // One by one: within a batch only the newest change of a key would be written.
    for record in &rest {
        ingest_event(&mut ingest, &dynamodb_event(std::slice::from_ref(record))).await;
    }
    owner.batch_execute("ALTER TABLE shop.items ALTER text TYPE text").await.unwrap();
    let refused = [("does_not_fit 1", 4), ("excluded 1", 1)];
    assert_eq!(desk.account().await, refused.map(|(name, count)| (name.to_owned(), count)).into());

    let progress = desk.redrive(SHOP, json!({"limit": 5})).await.unwrap();
    let records = progress.records;
    assert_eq!((progress.redriven, records.applied, records.superseded), (5, 3, 2), "{records:?}");
    let mut good = desk.ingest_into(SHOP, &twin, &desk.queue);
    for record in first.iter().chain(&rest) {
        ingest_event(&mut good, &dynamodb_event(std::slice::from_ref(record))).await;
    }
    assert_eq!(everything(&desk.url).await, everything(&twin).await);
    let found = rows(&owner, "SELECT id, text FROM shop.items ORDER BY id").await;
    assert_eq!(
        found,
        [
            r#"{"id":"again","text":"too long"}"#,
            r#"{"id":"alone","text":"too long"}"#,
            r#"{"id":"first","text":"a"}"#,
            r#"{"id":"newer","text":"b"}"#,
        ]
    );
    assert_eq!(desk.counts().await, (0, 0));
}
