//! Invalid input is stored or rejected with a reason, never lost, and its neighbours are stored.

use std::time::Duration;

use super::{CONFIG, element, put, remove, send, sent, sequence};
use crate::support::{client, database, ingest, rows};

/// An item with one more attribute.
fn with(attribute: &str) -> String {
    format!(r#""Keys":{{"id":{{"S":"bad"}}}},"NewImage":{{"id":{{"S":"bad"}},"x":{attribute}}}"#)
}

fn nested(levels: usize) -> String {
    format!("{}{}{}", r#"{"L":["#.repeat(levels), r#"{"S":"deep"}"#, "]}".repeat(levels))
}

/// What an element's `dynamodb` holds in addition to its sequence number, and the reasons for which it may be rejected; if empty, it is stored.
fn images() -> Vec<(String, &'static [&'static str])> {
    const MALFORMED: &[&str] = &["malformed"];
    // PostgreSQL decides whether it is a number.
    const ANY: &[&str] = &["", "malformed", "refused", "does_not_fit"];
    let attributes: &[(&str, &[&str])] = &[
        (r#"{"X":"1"}"#, MALFORMED),
        (r#"{"L":[{"X":"1"}]}"#, MALFORMED),
        (r#"{"S":"1","N":"1"}"#, MALFORMED),
        (r#"{"N":"1","N":"2"}"#, MALFORMED),
        (r#"{"L":[{"N":"1","N":"2"}]}"#, MALFORMED),
        (r#"{"M":{"a":{"S":"1","S":"2"}}}"#, MALFORMED),
        (r#"{}"#, MALFORMED),
        (r#"{"L":[{}]}"#, MALFORMED),
        (r#"{"L":[{"S":"a"},{}]}"#, MALFORMED),
        (r#"{"M":{"a":{}}}"#, MALFORMED),
        (r#""plain""#, MALFORMED),
        (r#"null"#, MALFORMED),
        (r#"{"N":"one"}"#, MALFORMED),
        (r#"{"N":""}"#, MALFORMED),
        (r#"{"N":"NaN"}"#, MALFORMED),
        (r#"{"N":7}"#, MALFORMED),
        (r#"{"L":[{"N":7}]}"#, MALFORMED),
        (r#"{"NS":["1","x"]}"#, MALFORMED),
        (r#"{"NS":[1]}"#, MALFORMED),
        (r#"{"N":"+5"}"#, ANY),
        (r#"{"L":[{"N":"+5"}]}"#, ANY),
        (r#"{"L":[{"N":"007"}]}"#, ANY),
        (r#"{"N":"1E999999"}"#, ANY),
        (r#"{"L":[{"N":"1E999999"}]}"#, ANY),
        (r#"{"B":"not base64"}"#, MALFORMED),
        (r#"{"BS":["AA==","?"]}"#, MALFORMED),
        (r#"{"S":5}"#, MALFORMED),
        (r#"{"SS":"a"}"#, MALFORMED),
        (r#"{"BOOL":"true"}"#, MALFORMED),
        (r#"{"M":[]}"#, MALFORMED),
        (r#"{"S":"a\u0000b"}"#, &["does_not_fit"]),
        (r#"{"L":[{"S":"a\u0000b"}]}"#, &["does_not_fit"]),
        (r#"{"M":{"a\u0000b":{"S":"x"}}}"#, &["does_not_fit"]),
        (r#"{"SS":["a\u0000b"]}"#, &["does_not_fit"]),
        (r#"{"S":"\ud800"}"#, &["malformed", "unreadable"]),
        (r#"{"S":"C:\\u0000"}"#, &[""]),
        (r#"{"SS":[]}"#, &[""]),
        (r#"{"S":""}"#, &[""]),
    ];
    let mut images: Vec<(String, &'static [&'static str])> =
        attributes.iter().map(|(attribute, classes)| (with(attribute), *classes)).collect();
    images.push((with(&nested(31)), &[""]));
    images.push((with(&nested(500)), &["malformed", "unreadable"]));
    let image = r#""NewImage":{"id":{"S":"bad"}}"#;
    images.push((image.to_owned(), &[""]));
    images.push((format!(r#""Keys":{{}},{image}"#), &[""]));
    images.push((format!(r#""Keys":null,{image}"#), &[""]));
    images.push((format!(r#""Keys":{{"id":{{"S":"bad","N":"1"}}}},{image}"#), &["", "malformed"]));
    images.push((format!(r#""Keys":{{"id":{{"BOOL":true}}}},{image}"#), MALFORMED));
    for empty in [r#","NewImage":null"#, r#","NewImage":{ }"#, r#","NewImage":"x""#, ""] {
        images.push((format!(r#""Keys":{{"id":{{"S":"bad"}}}}{empty}"#), MALFORMED));
    }
    images.push((r#""Keys":{"id":{"S":"bad"}},"NewImage":{"v":{"N":"1"}}"#.to_owned(), &["missing"]));
    images.push((r#""Keys":{"id":{"S":"bad"}},"NewImage":{"id":{"NULL":true}}"#.to_owned(), &["missing"]));
    images
}

fn events() -> Vec<(String, &'static [&'static str])> {
    let good = with(r#"{"N":"1"}"#);
    let mut events: Vec<(String, &'static [&'static str])> = Vec::new();
    for name in [r#""UPSERT""#, r#""insert""#, r#""""#, "null", "7", r#"{"a":1}"#] {
        events.push((element("T", name, sequence(50), &good), &["malformed"]));
    }
    events.push((element("T", "\"REMOVE\"", sequence(50), r#""Keys":{}"#), &["malformed"]));
    events.push((element("T", "\"REMOVE\"", sequence(50), r#""Keys":{"other":{"S":"bad"}}"#), &["missing"]));
    let junk = format!("{}x", "é".repeat(19));
    for number in ["abc", "-1", " 12", "1e5", "1.5", &"9".repeat(60), &junk, &"é".repeat(20), "١٢٣"] {
        events.push((element("T", "\"MODIFY\"", number, &good), &["malformed"]));
    }
    for number in ["0", "000000000000000000001", &"9".repeat(38), &"9".repeat(39), &"9".repeat(40)] {
        events.push((element("T", "\"MODIFY\"", number, &good), &[""]));
    }
    events.push((element("T", "\"MODIFY\"", sequence(50), &good).replace("1770593461", "\"yesterday\""), &[""]));
    events
}

#[tokio::test]
async fn each_bad_record_costs_only_itself() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    sent(&mut ingest, &[put("T", 1, r#""id":{"S":"first"}"#, "")]).await;
    let images =
        images().into_iter().map(|(image, classes)| (element("T", "\"MODIFY\"", sequence(50), &image), classes));
    let mut wrong = Vec::new();
    for (number, (bad, classes)) in (100..).zip(images.chain(events())) {
        let good = |which: &str| put("T", number, &format!(r#""id":{{"S":"{which}{number}"}}"#), r#""v":{"N":"1"}"#);
        let report = match send(&mut ingest, &[good("before"), bad.clone(), good("after")]).await {
            Ok(report) => report,
            Err(error) => {
                wrong.push(format!("{bad}: the batch failed: {error}"));
                continue;
            }
        };
        let class = report.reasons.keys().next().copied().unwrap_or_default();
        if !classes.contains(&class) || report.counts.retry != u64::from(!class.is_empty()) {
            wrong.push(format!("{bad}: {report}"));
        }
        let neighbours =
            format!("SELECT count(*) FROM shop.t WHERE v = 1 AND id IN ('before{number}', 'after{number}')");
        if rows(&client(&url).await, &neighbours).await != [r#"{"count":2}"#] {
            wrong.push(format!("{bad}: its neighbours are not there: {report}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_bad_record_that_is_a_table_s_first_does_not_spoil_the_table() {
    for keys in [r#"{"id":{"S":"a","N":"1"}}"#, r#"{"id":{}}"#, r#"{"id":"a"}"#, r#"{"id":{"M":{}}}"#] {
        let url = database().await;
        let mut ingest = ingest(CONFIG, &url);
        let bad = element("T", "\"MODIFY\"", sequence(1), &format!(r#""Keys":{keys},"NewImage":{keys}"#));
        let good = put("T", 2, r#""id":{"S":"a"}"#, "");
        let report = send(&mut ingest, &[bad, good]).await.unwrap_or_else(|error| panic!("{keys}: {error}"));
        assert_eq!((report.counts.applied, report.counts.retry), (1, 1), "{keys}: {report}");
    }
}

#[tokio::test]
async fn tables_that_the_configuration_leaves_out_are_refused_by_name() {
    let url = database().await;
    for (rule, refused) in [("exclude = [\"Secret\"]", 1), ("only = [\"Orders\"]", 1), ("only = [\"Secret\"]", 0)] {
        let mut ingest = ingest(&format!("{CONFIG}{rule}\n"), &url);
        let report = sent(&mut ingest, &[put("Secret", 1, r#""id":{"S":"a"}"#, "")]).await;
        assert_eq!(
            (report.counts.retry, report.reasons.get("excluded").copied().unwrap_or(0)),
            (refused, refused),
            "{rule}: {report}"
        );
    }
}

#[tokio::test]
async fn a_stream_of_keys_only_fails_with_the_remedy() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let record =
        element("T", "\"INSERT\"", sequence(1), r#""Keys":{"id":{"S":"a"}}"#).replace("NEW_IMAGE", "KEYS_ONLY");
    let error = send(&mut ingest, &[record]).await.unwrap_err();
    assert!(error.needs_operator(), "{error}");
    assert!(error.to_string().contains("KEYS_ONLY") && error.to_string().contains("NEW_IMAGE"), "{error}");
}

#[tokio::test]
async fn an_item_as_large_as_dynamodb_takes_is_whole() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let text = "ü\\\"".repeat(130_000 / 2);
    let large = format!(
        r#""text":{},"map":{{"M":{{"deep":{}}}}}"#,
        serde_json::json!({"S": text}),
        serde_json::json!({"S": text})
    );
    let report = sent(&mut ingest, &[put("T", 1, r#""id":{"S":"a"}"#, &large)]).await;
    assert_eq!(report.counts.applied, 1, "{report}");
    let client = client(&url).await;
    let same = client.query_one("SELECT text = $1 AND map ->> 'deep' = $1 FROM shop.t", &[&text]).await.unwrap();
    assert!(same.get::<_, bool>(0));
}

/// Every attribute is in a column or in the overflow.
const ATTRIBUTES_STORED: &str = "SELECT (SELECT count(*) FROM jsonb_each(to_jsonb(t) - '_overflow' - '_version' - 'id') c WHERE c.value <> 'null') \
    + coalesce((SELECT count(*) FROM jsonb_object_keys(t._overflow)), 0) AS told FROM shop.t t ORDER BY id";

#[tokio::test]
async fn more_attributes_than_columns_overflow_and_none_is_lost() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let item = |count: usize| {
        (0..count).map(|number| format!(r#""n{number}":{{"N":"{number}"}}"#)).collect::<Vec<_>>().join(",")
    };
    let records = [put("T", 1, r#""id":{"S":"a"}"#, &item(1_100)), put("T", 2, r#""id":{"S":"b"}"#, &item(700))];
    assert_eq!(sent(&mut ingest, &records).await.counts.applied, 2);
    let client = client(&url).await;
    assert_eq!(rows(&client, ATTRIBUTES_STORED).await, [r#"{"told":1100}"#, r#"{"told":700}"#]);
}

#[tokio::test]
async fn an_item_of_a_thousand_texts_is_stored_or_refused_and_its_neighbours_stored() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let wide: Vec<String> =
        (0..1_000).map(|number| format!(r#""n{number}":{{"S":"{}"}}"#, "x".repeat(100 + number % 300))).collect();
    let narrow = |id: &str| put("T", 1, &format!(r#""id":{{"S":"{id}"}}"#), r#""n1":{"S":"x"}"#);
    let report =
        sent(&mut ingest, &[narrow("1"), put("T", 1, r#""id":{"S":"wide"}"#, &wide.join(",")), narrow("2")]).await;
    assert_eq!(report.counts.applied, 3 - report.counts.retry, "{report}");
    assert_eq!(rows(&client(&url).await, "SELECT count(*) FROM shop.t WHERE id <> 'wide'").await, [r#"{"count":2}"#]);
}

#[tokio::test]
async fn a_batch_with_a_record_that_fails_ends_in_time() {
    let url = database().await;
    let mut ingest = ingest(CONFIG, &url);
    let records: Vec<String> = (0..200)
        .map(|number| match number % 4 {
            0 => element("T", "\"MODIFY\"", sequence(number), &with(r#"{"S":"\u0000"}"#)),
            1 => remove("T", number, &format!(r#""id":{{"S":"{number}"}}"#)),
            _ => put("T", number, &format!(r#""id":{{"S":"{number}"}}"#), r#""v":{"N":"1"}"#),
        })
        .collect();
    let report = tokio::time::timeout(Duration::from_secs(60), sent(&mut ingest, &records)).await.unwrap();
    assert_eq!((report.counts.retry, report.counts.applied), (50, 150), "{report}");
}
