//! Keys of every type: a row is found by its key, stays deleted, and returns only if the source recreates it.

use super::{CONFIG, loaded, put, remove, sent};
use crate::support::{adopt, client, database, ingest, rows};

async fn count(url: &str, table: &str) -> String {
    rows(&client(url).await, &format!("SELECT count(*) FROM shop.{table}")).await.remove(0)
}

/// A key, and other spellings of the same value.
const KEYS: [(&str, &[&str]); 6] = [
    ("text", &[r#""id":{"S":"ä \" \\ \u0001"}"#]),
    ("bytes", &[r#""id":{"B":"AP8QgA=="}"#]),
    ("number", &[r#""id":{"N":"1"}"#, r#""id":{"N":"1.0"}"#, r#""id":{"N":"10E-1"}"#, r#""id":{"N":"1.00"}"#]),
    (
        "large",
        &[
            r#""id":{"N":"-12345678901234567890123456789012345678E40"}"#,
            r#""id":{"N":"-123456789012345678901234567890123456780E39"}"#,
        ],
    ),
    ("composite", &[r#""user":{"S":"u"},"at":{"N":"100"}"#, r#""at":{"N":"1E2"},"user":{"S":"u"}"#]),
    ("ambiguous", &[r#""a":{"B":"AAE="},"b":{"B":"Ag=="}"#]),
];

#[tokio::test]
async fn a_key_is_deleted_and_recreated_in_any_spelling() {
    let url = database().await;
    for (name, ways) in KEYS {
        let way = |number: usize| ways[number % ways.len()];
        let mut ingest = ingest(CONFIG, &url);
        sent(&mut ingest, &[put(name, 1, way(0), r#""v":{"N":"1"}"#)]).await;
        sent(&mut ingest, &[put(name, 2, way(1), r#""v":{"N":"2"}"#)]).await;
        assert_eq!(rows(&client(&url).await, &format!("SELECT v FROM shop.{name}")).await, [r#"{"v":2}"#], "{name}");
        sent(&mut ingest, &[remove(name, 5, way(2))]).await;
        assert_eq!(count(&url, name).await, r#"{"count":0}"#, "{name}");
        let late = sent(&mut ingest, &[put(name, 4, way(3), r#""v":{"N":"4"}"#)]).await;
        assert_eq!((late.counts.superseded, late.rows), (1, 0), "{name}: {late}");
        let load = sent(&mut ingest, &[loaded(name, way(1))]).await;
        assert_eq!((load.counts.superseded, load.rows), (1, 0), "{name}: {load}");
        let again = [remove(name, 5, way(1)), put(name, 3, way(0), "")];
        assert_eq!(sent(&mut ingest, &again).await.rows, 0, "{name}");
        sent(&mut ingest, &[put(name, 6, way(2), r#""v":{"N":"6"}"#), put(name, 6, way(3), r#""v":{"N":"6"}"#)]).await;
        assert_eq!(rows(&client(&url).await, &format!("SELECT v FROM shop.{name}")).await, [r#"{"v":6}"#], "{name}");
        sent(&mut ingest, &[put(name, 8, way(0), ""), remove(name, 9, way(1)), put(name, 7, way(2), "")]).await;
        assert_eq!(count(&url, name).await, r#"{"count":0}"#, "{name}");
    }
}

#[tokio::test]
async fn parts_of_a_key_do_not_run_into_each_other() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let key = |a: &str, b: &str| format!(r#""a":{{"S":"{a}"}},"b":{{"S":"{b}"}}"#);
    sent(&mut ingest, &[put("T", 1, &key("x", "yz"), ""), remove("T", 3, &key("xy", "z"))]).await;
    sent(&mut ingest, &[put("T", 2, &key("xyz", "-"), ""), put("T", 2, &key("xy", "z"), "")]).await;
    assert_eq!(count(&url, "t").await, r#"{"count":2}"#);
}

#[tokio::test]
async fn a_delete_of_what_was_never_seen_is_remembered() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let ttl = remove("T", 9, r#""id":{"S":"a"}"#).replace(
        "\"eventName\"",
        r#""userIdentity":{"type":"Service","principalId":"dynamodb.amazonaws.com"},"eventName""#,
    );
    let report = sent(&mut ingest, std::slice::from_ref(&ttl)).await;
    assert_eq!(report.counts.applied, 1, "{report}");
    let late = sent(&mut ingest, &[put("T", 8, r#""id":{"S":"a"}"#, r#""v":{"N":"1"}"#)]).await;
    assert_eq!((late.counts.superseded, late.rows), (1, 0), "{late}");
    let again = sent(&mut ingest, &[ttl]).await;
    assert_eq!((again.counts.duplicate, again.rows), (1, 0), "{again}");
    assert_eq!(count(&url, "t").await, r#"{"count":0}"#);
}

#[tokio::test]
async fn a_load_in_a_process_that_never_saw_the_stream_does_not_bring_deleted_rows_back() {
    // The owner's key has its columns in another order, and a second unique index is older.
    let url = database().await;
    let owner = client(&url).await;
    owner
        .batch_execute("CREATE SCHEMA shop; CREATE TABLE shop.t (b text, a text, e text UNIQUE, PRIMARY KEY (b, a))")
        .await
        .unwrap();
    adopt(&owner, "shop.t", "DynamoDB table T", "a|b|e").await;
    let key = |a: &str| format!(r#""a":{{"S":"{a}"}},"b":{{"S":"2"}}"#);
    sent(&mut ingest(CONFIG, &url), &[put("T", 1, &key("1"), r#""e":{"S":"x"}"#), remove("T", 2, &key("1"))]).await;
    let item = |a: &str, e: &str| loaded("T", &format!(r#"{},"e":{{"S":"{e}"}}"#, key(a)));
    let report = sent(&mut ingest(CONFIG, &url), &[item("1", "x"), item("3", "y")]).await;
    assert_eq!((report.counts.superseded, report.counts.applied), (1, 1), "{report}");
    let found = rows(&owner, "SELECT a, e FROM shop.t").await;
    assert_eq!(found, [r#"{"a":"3","e":"y"}"#]);
}

#[tokio::test]
async fn a_load_takes_the_key_from_the_attribute_that_the_stream_took_it_from() {
    let url = database().await;
    sent(&mut ingest(CONFIG, &url), &[put("T", 1, r#""id":{"S":"k0"}"#, r#""ID":{"S":"other"}"#)]).await;
    for number in 1..20 {
        // Each process determines again which attribute the column `id` belongs to.
        let item = loaded("T", &format!(r#""ID":{{"S":"other"}},"id":{{"S":"k{number}"}}"#));
        sent(&mut ingest(CONFIG, &url), &[item]).await;
    }
    let found = rows(&client(&url).await, "SELECT count(*) FROM shop.t WHERE id LIKE 'k%'").await;
    assert_eq!(found, [r#"{"count":20}"#]);
}

#[tokio::test]
async fn a_key_too_long_for_an_index_costs_only_its_own_record() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let mut random = millstream_tests::random::Random::new(1);
    let long: String = (0..60).map(|_| random.uuid()).collect();
    let long = format!(r#""a":{{"S":"{}"}},"b":{{"S":"{}"}}"#, &long[..2_048], &long[..1_024]);
    let short = |a: &str| format!(r#""a":{{"S":"{a}"}},"b":{{"S":"s"}}"#);
    let report =
        sent(&mut ingest, &[put("T", 1, &short("1"), ""), put("T", 2, &long, ""), put("T", 3, &short("2"), "")]).await;
    assert_eq!(report.counts.applied + report.counts.retry, 3, "{report}");
    assert_eq!(rows(&client(&url).await, "SELECT count(*) FROM shop.t WHERE b = 's'").await, [r#"{"count":2}"#]);
}
