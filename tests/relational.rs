//! Replicas of relational tables: in any order of arrival of its changes, a row ends up as it is at the source.

use std::time::Duration;

use millstream::ingest::Ingest;
use millstream_tests::kinesis::{ShardRecord, event};

use crate::support::{client, database, ingest, rows, sample};

const DEBEZIUM: &str = "[source.shop]\nstream = \"s\"\nformat = \"debezium\"\n";
const DMS: &str = "[source.shop]\nstream = \"s\"\nformat = \"dms\"\n[table.item]\nsource = \"shop\"\nfrom = \"public.items\"\n\
    key = [\"run\", \"id\"]\n";

/// All permutations of this many indexes.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(count - 1);
    let with_last = |order: &Vec<usize>| {
        (0..count).map(|at| [&order[..at], &[count - 1], &order[at..]].concat()).collect::<Vec<_>>()
    };
    shorter.iter().flat_map(with_last).collect()
}

/// Applies a history once in each order, each time to a row of its own. A batch holds one change of each
/// row, so that every change is merged with the stored result of the earlier ones.
async fn in_every_order(ingest: &mut Ingest, count: usize, document: impl Fn(usize, usize) -> (String, String)) {
    let orders = permutations(count);
    for step in 0..count {
        let record = |(run, order): (usize, &Vec<usize>)| {
            let (partition_key, data) = document(run, order[step]);
            ShardRecord { partition_key, ..ShardRecord::numbered((step * orders.len() + run) as u64, data) }
        };
        let records: Vec<ShardRecord> = orders.iter().enumerate().map(record).collect();
        let event = event("s", "shardId-000000000000", &records);
        let report = ingest.process_event(&event, Duration::from_secs(60)).await.unwrap();
        assert_eq!(report.counts.retry, 0, "{report}");
    }
}

/// A Debezium event; the row's columns follow its key.
fn debezium(run: usize, lsn: u64, op: &str, columns: &str) -> (String, String) {
    let row = format!(r#"{{"id":{run}{columns}}}"#);
    let (before, after) = if op == "d" { (row.as_str(), "null") } else { ("null", row.as_str()) };
    let source = format!(r#"{{"schema":"public","table":"items","lsn":{lsn}}}"#);
    let document = format!(r#"{{"before":{before},"after":{after},"source":{source},"op":"{op}"}}"#);
    (format!(r#"{{"id":{run}}}"#), document)
}

#[tokio::test]
async fn arrays_and_bytes_that_debezium_leaves_out_are_kept() {
    let url = database().await;
    let mut ingest = ingest("[source.bank]\nstream = \"bank\"\nformat = \"debezium\"\nbackup = false\n", &url);
    for name in ["toast-arrays-1.json", "toast-arrays-2.json"] {
        let report = ingest.process_event(&sample(name), Duration::from_secs(60)).await.unwrap();
        assert_eq!((report.counts.applied, report.counts.retry), (1, 0), "{name}: {report}");
    }
    let kept = rows(&client(&url).await, "SELECT title, marks, big, refs, days, texts FROM bank.sheet").await;
    let expected = r#"{"title":"second","marks":[7, 8, 9],"big":[70000000000, 1],"refs":["11111111-2222-4333-8444-555555555555"],"days":[20000, 20001],"texts":["a", "b"]}"#;
    assert_eq!(kept, [expected]);
}

#[tokio::test]
async fn a_placeholder_that_the_source_configures_is_recognised_instead_of_the_default() {
    let url = database().await;
    let mut ingest = ingest(&format!("{DEBEZIUM}unavailable_value = \"hex:00ff\"\n"), &url);
    let first = r#","name":"a","data":"AQ==","hex":"0102","marks":[7]"#;
    let second = r#","name":"__debezium_unavailable_value","data":"AP8=","hex":"00ff","marks":[0,-1]"#;
    for (lsn, columns) in [(1, first), (2, second)] {
        let (partition_key, data) = debezium(1, lsn, "u", columns);
        let record = ShardRecord { partition_key, ..ShardRecord::numbered(lsn, data) };
        let event = event("s", "shardId-000000000000", &[record]);
        let report = ingest.process_event(&event, Duration::from_secs(60)).await.unwrap();
        assert_eq!(report.counts.applied, 1, "{report}");
    }
    let kept = rows(&client(&url).await, "SELECT name, data, hex, marks FROM shop.items").await;
    assert_eq!(kept, [r#"{"name":"__debezium_unavailable_value","data":"AQ==","hex":"0102","marks":[7]}"#]);
}

#[tokio::test]
async fn values_that_debezium_leaves_out_are_kept_whatever_the_order() {
    let unavailable = "__debezium_unavailable_value";
    let history = [
        ("r", r#","name":"a","body":"first","tags":["x"]"#.to_owned()),
        ("u", format!(r#","name":"b","body":"{unavailable}","tags":["{unavailable}"]"#)),
        ("d", String::new()),
        ("c", r#","name":"c","body":"second","tags":["y"]"#.to_owned()),
        ("u", format!(r#","name":null,"body":"{unavailable}","tags":["z"]"#)),
        ("u", format!(r#","name":"d","body":"{unavailable}","tags":["{unavailable}"]"#)),
    ];
    let ends = [
        (2, vec![r#"{"body":"first","name":"b","tags":["x"],"_overflow":null}"#]),
        (3, vec![]),
        (4, vec![r#"{"body":"second","name":"c","tags":["y"],"_overflow":null}"#]),
        (6, vec![r#"{"body":"second","name":"d","tags":["z"],"_overflow":null}"#]),
    ];
    for (count, end) in ends {
        let url = database().await;
        let mut ingest = ingest(DEBEZIUM, &url);
        in_every_order(&mut ingest, count, |run, change| {
            let (op, columns) = &history[change];
            debezium(run, 100 + change as u64, op, columns)
        })
        .await;
        let client = client(&url).await;
        let query = "SELECT DISTINCT body, name, tags, _overflow FROM shop.items";
        assert_eq!(rows(&client, query).await, end, "the first {count} changes");
        let runs = rows(&client, "SELECT count(*) FROM shop.items").await;
        let expected = if end.is_empty() { 0 } else { permutations(count).len() };
        assert_eq!(runs, [format!(r#"{{"count":{expected}}}"#)]);
    }
}

#[tokio::test]
async fn rows_whose_key_changes_are_moved_whatever_the_order() {
    let history = [
        ("load", r#""id":1,"note":"loaded""#, "{}"),
        ("update", r#""id":2,"note":"moved""#, r#"{"id":1}"#),
        ("update", r#""id":2,"note":"changed""#, r#"{"id":2,"note":"moved"}"#),
        ("insert", r#""id":1,"note":"another""#, "{}"),
        ("update", r#""id":3,"note":"moved again""#, r#"{"id":2}"#),
        ("delete", r#""id":1"#, "{}"),
    ];
    let url = database().await;
    let mut ingest = ingest(DMS, &url);
    in_every_order(&mut ingest, history.len(), |run, change| {
        let (operation, columns, before) = history[change];
        let metadata = format!(
            r#"{{"timestamp":"2026-02-08T10:00:0{change}Z","record-type":"data","operation":"{operation}","schema-name":"public","table-name":"items"}}"#
        );
        let data = format!(r#"{{"run":{run},{columns}}}"#);
        ("key".to_owned(), format!(r#"{{"data":{data},"before-image":{before},"metadata":{metadata}}}"#))
    })
    .await;
    let query = "SELECT id, note, count(*) AS runs FROM shop.item GROUP BY 1, 2 ORDER BY 1, 2";
    let found = rows(&client(&url).await, query).await;
    assert_eq!(found, [format!(r#"{{"id":3,"note":"moved again","runs":{}}}"#, permutations(history.len()).len())]);
}

#[tokio::test]
async fn tables_of_one_name_in_two_schemas_stay_apart_whichever_comes_first() {
    let url = database().await;
    let item = |schema: &str, id: usize| {
        let source = format!(r#"{{"schema":"{schema}","table":"items","lsn":{id}}}"#);
        let data = format!(r#"{{"after":{{"id":{id},"of":"{schema}"}},"source":{source},"op":"c"}}"#);
        ShardRecord { partition_key: format!(r#"{{"id":{id}}}"#), ..ShardRecord::numbered(id as u64, data) }
    };
    let batches = [vec![item("sales", 1), item("hr", 1)], vec![item("hr", 2), item("sales", 2)], vec![item("hr", 3)]];
    for records in batches {
        let event = event("s", "shardId-000000000000", &records);
        // A newly started function has no table in its cache.
        let report = ingest(DEBEZIUM, &url).process_event(&event, Duration::from_secs(60)).await.unwrap();
        assert_eq!(report.counts.applied, records.len() as u64, "{report}");
    }
    let client = client(&url).await;
    let tables = rows(
        &client,
        "SELECT relname AS name FROM pg_class WHERE relkind = 'r' AND relnamespace = 'shop'::regnamespace ORDER BY 1",
    )
    .await;
    assert_eq!(tables.len(), 2, "{tables:?}");
    for (table, row) in
        [("items", r#"{"of":"sales","count":2}"#), (&tables[1][9..tables[1].len() - 2], r#"{"of":"hr","count":3}"#)]
    {
        assert_eq!(rows(&client, &format!("SELECT of, count(*) FROM shop.{table} GROUP BY 1")).await, [row]);
    }
}
