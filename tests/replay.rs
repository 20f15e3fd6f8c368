//! A user's own file, replayed through the real function into a real PostgreSQL.

use std::path::Path;

use millstream_tests::process::workspace;
use millstream_tests::replay::{Layout, Options, RejectedDocument, Replay, Summary, TableContent};

use crate::support::{Files, database};

fn prepare(event: &str, config: Option<&str>) -> Result<Replay, String> {
    let options = Options { event: event.into(), function: None, config: config.map(Into::into) };
    Replay::prepare(options).map_err(|error| error.to_string())
}

/// Replays a file; returns the introduction and the summary.
async fn replayed(event: &str, config: Option<&str>) -> (String, Summary) {
    let replay = prepare(event, config).unwrap();
    let introduction = replay.introduction();
    (introduction, replay.run(&database().await, &|_line| ()).await.unwrap())
}

fn table<'a>(summary: &'a Summary, name: &str) -> &'a TableContent {
    summary.tables.iter().find(|table| table.name == name).unwrap_or_else(|| panic!("{name} is missing: {summary}"))
}

fn columns(table: &TableContent) -> String {
    table.columns.iter().map(|(name, sql_type)| format!("{name} {sql_type}")).collect::<Vec<_>>().join(", ")
}

fn numbers(rejected: &[RejectedDocument]) -> Vec<&str> {
    rejected.iter().map(|document| &*document.number).collect()
}

#[tokio::test]
async fn segment_calls_need_no_configuration_and_a_bad_line_is_named() {
    let files = Files::new("replay-segment");
    let evening = std::fs::read_to_string(workspace().join("events/sportsbook/evening.ndjson")).unwrap();
    let path = files.write("Super Bowl.ndjson", &evening);
    let (introduction, summary) = replayed(&path, None).await;
    let config = "\n\n    [source.super_bowl]\n    stream = \"super_bowl\"\n    format = \"segment\"\n";
    assert!(introduction.contains("holds Segment calls.") && introduction.ends_with(config), "{introduction}");
    assert_eq!(numbers(&summary.rejections.first), ["8"]);
    let placed = table(&summary, "super_bowl.bet_placed");
    assert_eq!((placed.rows, placed.first_rows.len()), (3, 3));
    assert!(columns(placed).starts_with("id text, received_at timestamptz, "), "{}", columns(placed));
    assert!(placed.first_rows[0].starts_with("{\"id\":\"ajs-1\",\"received_at\":\"2026-02-08T23:29:58.55+00:00\","));
    assert_eq!(table(&summary, "super_bowl.users").rows, 1);
    let text = summary.to_string();
    assert!(text.contains(" s: 7 written (13 rows inserted or updated), 1 rejected\n  line 8: "), "{text}");
}

#[tokio::test]
async fn a_sample_is_replayed_by_the_configuration_of_its_system() {
    let sample = workspace().join("events/sportsbook/evening.ndjson");
    let (introduction, summary) = replayed(&sample.to_string_lossy(), None).await;
    assert!(introduction.ends_with("Configuration: events/sportsbook/millstream.toml\n"), "{introduction}");
    let rejected = &summary.rejections.first;
    assert_eq!(numbers(rejected), ["5", "8"]);
    assert_eq!(rejected[0].table.as_deref(), Some("sportsbook.bet"));
    assert_eq!(table(&summary, "sportsbook.bet").rows, 2);
}

#[tokio::test]
async fn plain_json_goes_into_one_table_named_after_the_file() {
    let files = Files::new("replay-json");
    let lines =
        ["\u{feff}{\"n\":1,\"at\":{\"x\":true}}\r", "\r", "[1]\r", "oops\r", "{\"n\":2.5}{\"n\":3}\r", "{\"n\":4}"];
    let path = files.write("orders.ndjson", &lines.join("\n"));
    let (_, summary) = replayed(&path, None).await;
    assert_eq!((summary.documents, summary.blank_lines), (5, 1));
    assert_eq!(numbers(&summary.rejections.first), ["3", "4"]);
    let orders = table(&summary, "orders.orders");
    assert_eq!(columns(orders), "_id text, _overflow jsonb, n numeric, at_x boolean");
    let ids = ["1:0", "5:0", "5:1", "6:0"].map(|place| format!("{{\"_id\":\"shardId-000000000000:{place}\","));
    assert_eq!(orders.first_rows.len(), ids.len());
    assert!(orders.first_rows.iter().zip(&ids).all(|(row, id)| row.starts_with(id)), "{:?}", orders.first_rows);
}

#[tokio::test]
async fn a_json_array_counts_its_elements_and_a_given_configuration_decides() {
    let files = Files::new("replay-array");
    let config = "[source.a]\nstream = \"a\"\nformat = \"segment\"\n[source.b]\nstream = \"arn:aws:kinesis:eu-west-1:1:stream/b\"\n\
                  format = \"json\"\n[table.t]\nsource = \"b\"\nkey = [\"k\"]\nversion = \"v\"\n";
    let config = files.write("my.toml", config);
    let path = files.write("all.json", "[{\"k\":\"x\",\"v\":2},\n{\"k\":\"x\",\"v\":1},\n{\"v\":1},\n");
    let (introduction, summary) = replayed(&path, Some(&config)).await;
    assert!(introduction.contains("one JSON array") && introduction.contains("my.toml"), "{introduction}");
    assert_eq!((summary.layout, summary.is_truncated), (Layout::Array, true));
    assert_eq!((table(&summary, "b.t").rows, numbers(&summary.rejections.first)), (1, vec!["3"]));
    let text = summary.to_string();
    assert!(text.contains("3 elements in ") && text.contains(", 1 older than the row, 1 rejected\n"), "{text}");
}

#[tokio::test]
async fn changes_of_dynamodb_tables_are_recognised() {
    let files = Files::new("replay-dynamodb");
    let change = |table: &str, number: u32| {
        format!(
            r#"{{"eventName":"INSERT","eventSourceARN":"arn:aws:dynamodb:us-east-1:1:table/{table}/stream/2026","dynamodb":{{"SequenceNumber":"10000000000000000000{number}","Keys":{{"id":{{"N":"{number}"}}}},"NewImage":{{"id":{{"N":"{number}"}},"tags":{{"SS":["a"]}}}}}}}}"#
        )
    };
    let path = files.write("shop.ndjson", &[change("Orders", 1), change("Stock", 2), change("Orders", 3)].join("\n"));
    let (_, summary) = replayed(&path, None).await;
    assert_eq!((table(&summary, "shop.orders").rows, table(&summary, "shop.stock").rows), (2, 1));
    assert_eq!(columns(table(&summary, "shop.stock")), "id numeric, _version text, _overflow jsonb, tags text[]");
}

#[tokio::test]
async fn lambda_events_go_to_the_function_that_they_are_for() {
    let event = |name: &str| workspace().join("events").join(name).to_string_lossy().into_owned();
    let (introduction, summary) = replayed(&event("sportsbook/poison.json"), None).await;
    assert!(introduction.contains("is an event for kinesis-ingest."), "{introduction}");
    assert_eq!((summary.documents, summary.rejections.count), (5, 4));
    assert_eq!(summary.answer.as_deref(), Some(r#"{"batchItemFailures":[]}"#));
    let files = Files::new("replay-event");
    let changes = std::fs::read_to_string(event("replica/customer-changes.json")).unwrap();
    let (introduction, summary) = replayed(&files.write("changes.json", &changes), None).await;
    assert!(introduction.contains("is an event for dynamodb-sync.\nNo configuration is given, and none is needed."));
    assert_eq!(table(&summary, "dynamodb.customers").rows, 1);
}

#[tokio::test]
async fn many_rejections_are_counted_and_the_first_are_named() {
    let files = Files::new("replay-rejections");
    let mut lines: Vec<String> =
        (0..4_000).map(|n| format!("{{\"n\":{n}{}", if n % 2 == 0 { "}" } else { "" })).collect();
    lines.push("x".repeat(300_000));
    lines.push("y".repeat(5_000_000));
    let (_, summary) = replayed(&files.write("half.ndjson", &lines.join("\n")), None).await;
    assert_eq!((table(&summary, "half.half").rows, summary.rejections.count), (2_000, 2_002));
    let first: Vec<String> = (1..=20_u32).map(|n| (2 * n).to_string()).collect();
    assert_eq!(numbers(&summary.rejections.first), first);
    assert!(summary.to_string().ends_with("\n  … and 1,982 more\n"), "{summary}");
}

#[tokio::test]
async fn a_function_with_tasks_gets_the_file_as_it_is() {
    let event = workspace().join("events/sportsbook/tasks/redrive.json");
    let options = Options { event, function: Some("redrive".to_owned()), config: None };
    let summary = Replay::prepare(options).unwrap().run(&database().await, &|_line| ()).await.unwrap();
    let answer = summary.answer.clone().unwrap();
    assert!(answer.contains("\"dry_run\":true"), "{answer}");
    let text = summary.to_string();
    assert!(text.starts_with("Answer: {") && text.lines().count() == 1, "{text}");
}

#[test]
fn what_cannot_be_replayed_is_said_before_anything_is_started() {
    let files = Files::new("replay-errors");
    let error = |name: &str, text: &str, config: Option<&str>| prepare(&files.write(name, text), config).err().unwrap();
    assert!(error("empty.ndjson", "\n \r\n", None).ends_with("is empty: expected one JSON object per line"));
    let csv = error("my.csv", "a,b\n1,2\n", None);
    assert!(csv.ends_with("my.csv: expected one JSON object per line, found none in the first 2 lines"), "{csv}");
    let config = files.write("bad.toml", "[source.a]\nstrem = \"a\"\n");
    let mistakes = error("my.ndjson", "{\"a\":1}\n", Some(&config));
    assert!(mistakes.contains("bad.toml:2:1: source.a.strem: unknown key; did you mean `stream`?"), "{mistakes}");
    assert!(prepare("/nowhere/my.ndjson", None).err().unwrap().starts_with("cannot read /nowhere/my.ndjson"));
    let options = Options { event: Path::new("x").into(), function: Some("ingest".to_owned()), config: None };
    let unknown = Replay::prepare(options).err().unwrap().to_string();
    assert!(unknown.starts_with("unknown function ingest: expected one of backfill, "), "{unknown}");
}
