//! Names of tables and attributes that collide with each other or have a meaning in PostgreSQL.

use serde_json::json;

use super::{CONFIG, element, put, send, sent, sequence};
use crate::support::{batch_of, client, database, ingest, rows};

/// Millstream's own columns, similar names, other scripts, and names with a meaning in SQL or PostgreSQL.
const ODD: [&str; 47] = [
    "_version",
    "_versions",
    "_overflow",
    "_deleted_at",
    "(deleted at)",
    "Version",
    "VERSION",
    "id ",
    "ID",
    "a.b",
    "a\\.b",
    "a b",
    "A_B",
    "aB",
    "ab",
    "事件",
    "イベント",
    "é",
    "e\u{301}",
    "\"; DROP SCHEMA shop CASCADE; --",
    "it's",
    "\\",
    "$1",
    "%s",
    "\u{1}",
    " ",
    "select",
    "user",
    "Item",
    "Keys",
    "null",
    "unnamed",
    "c0",
    "u",
    "t",
    "excluded",
    "(mask 0)",
    "0",
    "-0",
    "\u{10ffff}",
    "xmin",
    "xmax",
    "cmin",
    "cmax",
    "ctid",
    "tableoid",
    "oid",
];

/// An item whose attributes have these names, each with its index as the value.
fn item(names: &[String], number: u64) -> String {
    let attribute = |(place, name): (usize, &String)| format!(r#"{}:{{"S":"{number}-{place}"}}"#, json!(name));
    names.iter().enumerate().map(attribute).collect::<Vec<_>>().join(",")
}

async fn columns(url: &str, table: &str) -> Vec<String> {
    let query = format!(
        "SELECT column_name AS c FROM information_schema.columns WHERE table_schema = 'shop' AND table_name = '{table}' ORDER BY 1"
    );
    rows(&client(url).await, &query).await
}

#[tokio::test]
async fn every_attribute_has_a_column_of_its_own_whatever_it_is_called() {
    let mut names: Vec<String> = ODD.map(str::to_owned).to_vec();
    names.push("n".repeat(255));
    names.push("n".repeat(254));
    names.push("ü".repeat(127));
    names.push("事".repeat(85));
    for (schema, naming) in [("snake_case", ""), ("exact", "naming = \"exact\"\n")] {
        let url = database().await;
        let config = format!("{CONFIG}{naming}");
        let key = |number: u64| format!(r#""id":{{"S":"k{number}"}}"#);
        sent(&mut ingest(&config, &url), &[put("T", 1, &key(1), &item(&names, 1))]).await;
        let before = columns(&url, if naming.is_empty() { "t" } else { "T" }).await;
        // Another process, the other order: the same columns.
        let reversed: Vec<String> = names.iter().rev().cloned().collect();
        sent(&mut ingest(&config, &url), &[put("T", 2, &key(2), &item(&reversed, 2))]).await;
        let table = if naming.is_empty() { "t" } else { "T" };
        assert_eq!(columns(&url, table).await, before, "{schema}");
        let told = format!(
            "SELECT (SELECT count(DISTINCT c.value) FROM jsonb_each_text(to_jsonb(whole_row) - 'id') c WHERE c.value ~ '^[12]-\\d+$') AS told FROM shop.\"{table}\" whole_row"
        );
        let wanted = format!(r#"{{"told":{}}}"#, names.len());
        assert_eq!(rows(&client(&url).await, &told).await, [wanted.clone(), wanted], "{schema}");
        let same = format!(
            "SELECT count(*) FROM shop.\"{table}\" one, shop.\"{table}\" two, jsonb_each_text(to_jsonb(one)) x, jsonb_each_text(to_jsonb(two)) y \
             WHERE one.id = 'k1' AND two.id = 'k2' AND x.key = y.key AND x.value ~ '^1-' \
             AND substr(x.value, 3)::int + substr(y.value, 3)::int <> {}",
            names.len() - 1
        );
        assert_eq!(rows(&client(&url).await, &same).await, [r#"{"count":0}"#], "{schema}");
    }
}

#[tokio::test]
async fn a_name_that_cannot_be_kept_costs_only_its_own_record() {
    for name in ["a\0b", "\0", ""] {
        let url = database().await;
        let mut ingest = ingest(CONFIG, &url);
        let odd = format!(r#"{}:{{"S":"x"}}"#, json!(name));
        for round in 0..2 {
            let records = [
                put("T", 3 * round + 1, r#""id":{"S":"before"}"#, r#""v":{"N":"1"}"#),
                put("T", 3 * round + 2, r#""id":{"S":"odd"}"#, &odd),
                put("T", 3 * round + 3, r#""id":{"S":"after"}"#, r#""v":{"N":"1"}"#),
            ];
            let report = send(&mut ingest, &records).await.unwrap_or_else(|error| panic!("{name:?}: {error}"));
            assert_eq!(report.counts.applied + report.counts.retry, 3, "{name:?}: {report}");
        }
        let found = rows(&client(&url).await, "SELECT count(*) FROM shop.t WHERE v = 1").await;
        assert_eq!(found, [r#"{"count":2}"#], "{name:?}");
    }
}

#[tokio::test]
async fn a_key_called_as_the_writer_s_own_columns_is_kept_apart() {
    for name in ["_version", "_overflow", "_versions", "_deleted_at", "ctid"] {
        for deletes in ["hard", "soft"] {
            let url = database().await;
            let config = format!("{CONFIG}naming = \"exact\"\ndeletes = \"{deletes}\"\n");
            let key = format!(r#""{name}":{{"S":"a"}}"#);
            let report = send(&mut ingest(&config, &url), &[put("T", 1, &key, "")]).await;
            let report = report.unwrap_or_else(|error| panic!("{name} {deletes}: {error}"));
            assert_eq!(report.counts.applied, 1, "{name} {deletes}: {report}");
        }
    }
}

#[tokio::test]
async fn two_tables_of_one_name_stay_apart_in_every_process() {
    let url = database().await;
    let upper = |number: u64| put("Orders", number, r#""id":{"S":"u"}"#, &format!(r#""a":{{"N":"{number}"}}"#));
    let lower = |number: u64| put("orders", number, r#""no":{"N":"1"}"#, &format!(r#""b":{{"N":"{number}"}}"#));
    for (number, upper_first) in [(1, true), (2, false), (3, true), (4, false)] {
        let mut ingest = ingest(CONFIG, &url);
        let mut records = [upper(number), lower(number)];
        if !upper_first {
            records.reverse();
        }
        for record in records {
            let report = sent(&mut ingest, &[record]).await;
            assert_eq!(report.counts.applied, 1, "{number}: {report}");
        }
    }
    let client = client(&url).await;
    let tables = "SELECT table_name AS t FROM information_schema.tables WHERE table_schema = 'shop' ORDER BY 1";
    let tables = rows(&client, tables).await;
    assert_eq!(tables.len(), 2, "{tables:?}");
    let second: serde_json::Value = serde_json::from_str(&tables[1]).unwrap();
    let second = second["t"].as_str().unwrap();
    assert_eq!(rows(&client, "SELECT id, a FROM shop.orders").await, [r#"{"id":"u","a":4}"#]);
    assert_eq!(rows(&client, &format!("SELECT no, b FROM shop.{second}")).await, [r#"{"no":1,"b":4}"#]);
}

#[tokio::test]
async fn two_tables_of_one_name_that_come_in_one_batch_have_their_own_columns_only() {
    let url = database().await;
    let change = |table: &str, key: &str, more: &str| {
        format!(
            r#"{{"eventID":"{table}","eventName":"INSERT","tableName":"{table}","dynamodb":{{"ApproximateCreationDateTime":1770593461000,
            "Keys":{{{key}}},"NewImage":{{{key},{more}}}}}}}"#
        )
    };
    let records = [
        change("Orders", r#""id":{"S":"u"}"#, r#""a":{"N":"1"}"#),
        change("orders", r#""no":{"N":"1"}"#, r#""b":{"N":"2"}"#),
        change("ORDERS", r#""x":{"B":"AA=="}"#, r#""c":{"N":"3"}"#),
    ];
    for _ in 0..2 {
        batch_of(&mut ingest(CONFIG, &url), "changes", 1, &records).await.unwrap();
    }
    let client = client(&url).await;
    let columns = "SELECT string_agg(column_name, ' ' ORDER BY column_name) AS c FROM information_schema.columns \
        WHERE table_schema = 'shop' GROUP BY table_name ORDER BY 1";
    let wanted = [
        r#"{"c":"_overflow _version a id"}"#,
        r#"{"c":"_overflow _version b no"}"#,
        r#"{"c":"_overflow _version c x"}"#,
    ];
    assert_eq!(rows(&client, columns).await, wanted);
}

#[tokio::test]
async fn a_table_whose_name_has_no_letter_for_postgresql_has_a_name_all_the_same() {
    let url = database().await;
    for (number, table) in ["---", "...", "___"].into_iter().enumerate() {
        let told = r#""Keys":{"id":{"S":"a"}},"NewImage":{"id":{"S":"a"}}"#;
        sent(&mut ingest(CONFIG, &url), &[element(table, "\"INSERT\"", sequence(number as u64), told)]).await;
    }
    let tables = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'shop'";
    assert_eq!(rows(&client(&url).await, tables).await, [r#"{"count":3}"#]);
}
