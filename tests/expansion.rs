//! A few bytes of JSON never become a text that PostgreSQL cannot write.

use std::time::Duration;

use crate::support::{batch, client, cluster, database, ingest, rows, sample};

/// The bytes of a row's text. PostgreSQL cannot write 1 GB.
const ROW_TEXT_BYTES: &str = "octet_length(t::text)";

fn numbers(count: usize) -> String {
    vec!["1e131071"; count].join(",")
}

#[tokio::test]
async fn json_with_huge_numbers_is_kept_as_its_source() {
    let url = database().await;
    let mut ingest = ingest("[source.s]\nstream = \"s\"\nformat = \"json\"\narrays = \"jsonb\"\n", &url);
    let report = ingest.process_event(&sample("jsonb-expands.json"), Duration::from_secs(60)).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (report.counts.total(), 0), "{report}");
    let documents = [
        r#"{"id":100,"x":[1e131071,1e-16383]}"#.to_owned(),
        r#"{"id":101,"x":[1e131072]}"#.to_owned(),
        r#"{"id":102,"x":["1e131072",1e308,5e-324]}"#.to_owned(),
        format!(r#"{{"id":103,"x":[{{"a":"\\\" \u00e9","b":[{}]}}]}}"#, numbers(3)),
        r#"{"id":104,"x":[1]}"#.to_owned(),
    ];
    let report = batch(&mut ingest, 1_000, &documents).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (5, 0), "{report}");
    let client = client(&url).await;
    let kinds = rows(&client, "SELECT id::int, jsonb_typeof(x) AS kind FROM s.s WHERE id >= 100 ORDER BY id").await;
    let expected = [(100, "array"), (101, "string"), (102, "array"), (103, "string"), (104, "array")];
    assert_eq!(kinds, expected.map(|(id, kind)| format!(r#"{{"id":{id},"kind":"{kind}"}}"#)));
    let source = format!(r#"[{{"a":"\\\" \u00e9","b":[{}]}}]"#, numbers(3));
    let kept: String = client.query_one("SELECT x #>> '{}' FROM s.s WHERE id = 103", &[]).await.unwrap().get(0);
    assert_eq!(kept, source);
    let longest = format!("SELECT max({ROW_TEXT_BYTES}) < 1000000 AS short, count(*) > 5 AS some FROM s.s t");
    assert_eq!(rows(&client, &longest).await, [r#"{"short":true,"some":true}"#]);
    assert!(cluster().dump(&url).unwrap().contains("1e131072"));
}

#[tokio::test]
async fn numbers_in_columns_arrays_and_the_overflow_stay_short_together() {
    let url = database().await;
    let config = "[source.s]\nstream = \"s\"\nformat = \"json\"\nschema_mode = \"fixed\"\n[table.t]\nsource = \"s\"\nid = \"id\"\n\
        columns = { id = \"id\", n = { path = \"n\", type = \"numeric\" }, j = { path = \"j\", type = \"json\" } }\n";
    let mut json = ingest(config, &url);
    let fields: String = (0..9_000).map(|field| format!(",\"f{field}\":1e131071")).collect();
    let documents = [
        format!(r#"{{"id":"a","n":1e131071,"j":[{}],"d":1.5e308{fields}}}"#, numbers(9_000)),
        r#"{"id":"b","n":1}"#.to_owned(),
    ];
    let report = batch(&mut json, 1, &documents).await.unwrap();
    assert_eq!((report.counts.applied, report.counts.retry), (2, 0), "{report}");
    let client = client(&url).await;
    let kept = format!(
        "SELECT n = 1e131071 AS n, j::text LIKE '[1e131071,%' AS j, _overflow ->> 'f7' AS f, jsonb_typeof(_overflow -> 'd') AS d, \
         {ROW_TEXT_BYTES} < 2000000 AS short FROM s.t t WHERE id = 'a'"
    );
    assert_eq!(rows(&client, &kept).await, [r#"{"n":true,"j":true,"f":"1e131071","d":"number","short":true}"#]);

    let mut dynamodb = ingest("[source.d]\nstream = \"s\"\nformat = \"dynamodb\"\n", &url);
    let change = |id: u32, numbers: &str| {
        format!(
            r#"{{"eventName":"INSERT","tableName":"T","dynamodb":{{"ApproximateCreationDateTime":1770593461,"Keys":{{"id":{{"N":"{id}"}}}},
            "NewImage":{{"id":{{"N":"{id}"}},"ns":{{"NS":[{numbers}]}}}}}}}}"#
        )
    };
    let huge = vec!["\"1e131071\""; 9_000].join(",");
    let changes = [change(1, r#""1.5","2e10""#), change(2, &huge), change(3, r#""1e131071""#)];
    for _ in 0..2 {
        let report = batch(&mut dynamodb, 1, &changes).await.unwrap();
        assert_eq!(report.counts.retry, 0, "{report}");
    }
    let kept = format!(
        "SELECT id::int, cardinality(ns) AS numbers, jsonb_typeof(_overflow -> 'ns') AS overflow, {ROW_TEXT_BYTES} < 200000 AS short \
         FROM d.t t ORDER BY id"
    );
    assert_eq!(
        rows(&client, &kept).await,
        [
            r#"{"id":1,"numbers":2,"overflow":null,"short":true}"#,
            r#"{"id":2,"numbers":null,"overflow":"string","short":true}"#,
            r#"{"id":3,"numbers":1,"overflow":null,"short":true}"#,
        ]
    );
}
