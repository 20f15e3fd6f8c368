//! `millstream plan`: it prints what a writer would do, and changes nothing.

use millstream_tests::process::workspace;
use millstream_tests::program::millstream;
use serde_json::{Value, json};
use std::time::Duration;
use tokio_postgres::Client;

use super::{assert_golden, assert_refused, config_file, day, environment};
use crate::support::{batch_of, client, cluster, database, ingest, rows};

/// Records every statement that changes the schema, from any session.
const RECORDER: &str = "CREATE TABLE public.ran (place serial, query text);\
    CREATE FUNCTION public.record() RETURNS event_trigger LANGUAGE plpgsql AS \
    $$BEGIN INSERT INTO public.ran (query) VALUES (current_query()); END$$;\
    CREATE EVENT TRIGGER record ON ddl_command_end EXECUTE FUNCTION public.record()";

/// Statements without comments, one by one, each on one line.
fn statements(text: &str) -> Vec<String> {
    let code: Vec<&str> = text.lines().filter(|line| !line.starts_with("--")).collect();
    let parts = code.join("\n");
    let parts = parts.split(';').map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "));
    parts.filter(|part| !part.is_empty()).collect()
}

/// The statements that were run, in order; each statement of a query is recorded once.
async fn ran(client: &Client) -> Vec<String> {
    let mut queries: Vec<String> = Vec::new();
    for row in client.query("SELECT query FROM public.ran ORDER BY place", &[]).await.unwrap() {
        let query: String = row.get(0);
        if queries.last() != Some(&query) {
            queries.push(query);
        }
    }
    queries.iter().flat_map(|query| statements(query)).collect()
}

/// The content of the database, and the transactions that last wrote to its catalogs.
pub async fn snapshot(url: &str, client: &Client) -> String {
    let catalogs =
        ["pg_class", "pg_attribute", "pg_type", "pg_constraint", "pg_index", "pg_inherits", "pg_description"];
    let newest =
        |catalog: &&str| format!("SELECT '{catalog}' AS catalog, count(*), max(xmin::text::bigint) FROM {catalog}");
    let newest = catalogs.iter().map(newest).collect::<Vec<_>>().join(" UNION ALL ");
    format!("{}\n{}", cluster().dump(url).unwrap(), rows(client, &newest).await.join("\n"))
}

/// Plans the events, then ingests them: the DDL is the one that was printed, and the rows of new event tables exist.
async fn planned_is_done(system: &str, events: &[&str]) {
    let folder = workspace().join("events").join(system);
    let config = folder.join("millstream.toml").to_string_lossy().into_owned();
    let url = database().await;
    let client = client(&url).await;
    client.batch_execute(RECORDER).await.unwrap();
    let files: Vec<String> = events.iter().map(|event| format!("events/{system}/{event}.json")).collect();
    let arguments: Vec<&str> = files.iter().flat_map(|file| ["--event", file]).collect();
    let environment = environment(&config, &url);
    let before = snapshot(&url, &client).await;
    let people = millstream(&environment, &[&["plan"], &arguments[..]].concat()).await.unwrap();
    assert_golden(&format!("plan-{system}"), &people, 0);
    let shown = millstream(&environment, &[&["--json", "plan"], &arguments[..]].concat()).await.unwrap();
    assert_eq!(shown.code, 0, "{}", shown.err);
    assert!(before == snapshot(&url, &client).await, "a dry run has changed something");

    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    // Totals are built after a commit; the plan of an event is what its records need.
    let tables = std::fs::read_to_string(&config).unwrap();
    let mut ingest = ingest(tables.split("\n[total.").next().unwrap(), &url);
    let mut expected: Vec<String> = Vec::new();
    for (event, file) in shown["events"].as_array().unwrap().iter().zip(&files) {
        ingest.process_event(&std::fs::read(workspace().join(file)).unwrap(), Duration::from_secs(60)).await.unwrap();
        expected.extend(event["ddl"].as_array().unwrap().iter().flat_map(|ddl| statements(ddl.as_str().unwrap())));
        assert_eq!(ran(&client).await, expected, "after {file}");
    }
    assert!(expected.len() > 3, "{expected:?}");
    let tables = shown["events"][0]["tables"].as_array().unwrap();
    for table in tables.iter().filter(|table| table["rule"] == "append") {
        let name = table["table"].as_str().unwrap();
        let changes = table["changes"].as_array().unwrap();
        let ids: Vec<&str> = changes.iter().filter_map(|change| change["columns"]["id"].as_str()).collect();
        let ids = ids.join(",").replace('"', "'");
        let query = format!("SELECT count(*) FROM {name} WHERE id IN ({ids})");
        assert_eq!(rows(&client, &query).await, [format!("{{\"count\":{}}}", table["rows"])], "{name}");
    }
    // The same events need no further DDL.
    let again = millstream(&environment, &[&["--json", "plan"], &arguments[..]].concat()).await.unwrap();
    let again: Value = serde_json::from_str(&again.out).unwrap();
    assert!(again["events"].as_array().unwrap().iter().all(|event| event["ddl"] == json!([])), "{again}");
}

#[tokio::test]
async fn golden_what_is_planned_for_segment_s_events_is_done() {
    planned_is_done("sportsbook", &["bet-placed", "bet-life", "poison"]).await;
}

#[tokio::test]
async fn golden_what_is_planned_for_a_replica_is_done() {
    planned_is_done("replica", &["customer-changes", "order-deleted", "account-moved"]).await;
}

const BEFORE: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n\
    [table.entry]\nsource = \"log\"\nid = \"id\"\npartition = { by = \"at\", every = \"day\", ahead = 1 }\n\
    when = { path = \"kind\", is = \"entry\" }\ncolumns = { level = { path = \"level\", type = \"integer\" } }\n";

/// Another type, a typed column, an untyped one, a retention, more partitions ahead, and a table.
const AFTER: &str = "[source.log]\nstream = \"s\"\nformat = \"json\"\n\
    [table.entry]\nsource = \"log\"\nid = \"id\"\npartition = { by = \"at\", every = \"day\", ahead = 2, keep = \"10 days\" }\n\
    when = { path = \"kind\", is = \"entry\" }\n\
    columns = { level = { path = \"level\", type = \"bigint\" }, cost = { path = \"cost\", type = \"numeric(9,2)\", check = \"cost >= 0\" }, note = \"note\" }\n\
    [table.device]\nsource = \"log\"\nkey = [\"id\"]\nversion = \"at\"\nschema_mode = \"fixed\"\nwhen = { path = \"kind\", is = \"device\" }\n\
    columns = { color = { path = \"color\", type = \"varchar(7)\" } }\n";

#[tokio::test]
async fn golden_a_changed_configuration_is_compared_with_the_database() {
    let url = database().await;
    let client = client(&url).await;
    let entry =
        |id: u32, days: i64, more: &str| format!(r#"{{"kind":"entry","id":"{id}","at":"{}"{more}}}"#, day(days));
    batch_of(&mut ingest(BEFORE, &url), "s", 1, &[entry(1, 0, ""), entry(2, -12, "")]).await.unwrap();
    client.batch_execute(RECORDER).await.unwrap();
    let environment = environment(&config_file("plan", AFTER), &url);
    let before = snapshot(&url, &client).await;
    let people = millstream(&environment, &["plan"]).await.unwrap();
    assert_golden("plan-configuration", &people, 0);
    let shown = millstream(&environment, &["--json", "plan"]).await.unwrap();
    assert!(before == snapshot(&url, &client).await, "a dry run has changed something");

    // The next records carry all that is declared with its type.
    let device = format!(r#"{{"kind":"device","id":"d","at":"{}","color":"red"}}"#, day(0));
    batch_of(&mut ingest(AFTER, &url), "s", 3, &[entry(3, 0, r#","level":1,"cost":2"#), device]).await.unwrap();
    assert_eq!(millstream(&environment, &["maintain"]).await.unwrap().code, 0);
    let shown: Value = serde_json::from_str(&shown.out).unwrap();
    let list = |value: &Value| -> Vec<String> {
        value.as_array().unwrap().iter().flat_map(|ddl| statements(ddl.as_str().unwrap())).collect()
    };
    let of_tables =
        shown["tables"].as_array().unwrap().iter().map(|table| (table["table"].as_str().unwrap(), list(&table["ddl"])));
    // Writers take tables by name, the configuration has them as they stand in the file.
    let mut of_tables: Vec<_> = of_tables.collect();
    of_tables.sort();
    let mut expected: Vec<String> = of_tables.into_iter().flat_map(|(_, ddl)| ddl).collect();
    expected.extend(list(&shown["maintain"]));
    assert_eq!(ran(&client).await, expected);
    let left = millstream(&environment, &["plan"]).await.unwrap();
    assert_golden("plan-configuration-done", &left, 0);
}

#[tokio::test]
async fn the_table_of_locks_is_part_of_what_maintain_plans() {
    let url = database().await;
    let client = client(&url).await;
    let entry = format!(r#"{{"kind":"entry","id":"1","at":"{}"}}"#, day(0));
    batch_of(&mut ingest(BEFORE, &url), "s", 1, &[entry]).await.unwrap();
    client.batch_execute("DROP TABLE millstream.schema_lock").await.unwrap();
    client.batch_execute(RECORDER).await.unwrap();
    let environment = environment(&config_file("plan-locks", BEFORE), &url);
    let shown: Value = serde_json::from_str(&millstream(&environment, &["--json", "plan"]).await.unwrap().out).unwrap();
    let planned: Vec<String> =
        shown["maintain"].as_array().unwrap().iter().flat_map(|ddl| statements(ddl.as_str().unwrap())).collect();
    assert!(planned.len() > 3 && planned[0].contains("millstream.schema_lock"), "{planned:?}");
    assert_eq!(millstream(&environment, &["maintain"]).await.unwrap().code, 0);
    assert_eq!(ran(&client).await, planned);
}

#[tokio::test]
async fn what_cannot_be_planned_is_said_in_clear_words() {
    let url = database().await;
    let environment = environment(&config_file("plan-errors", BEFORE), &url);
    let missing = millstream(&environment, &["plan", "--event", "nowhere.json"]).await.unwrap();
    assert_refused(&missing, 2, "event nowhere.json: No such file");
    let no_event = millstream(&environment, &["plan", "--event", "Cargo.toml"]).await.unwrap();
    assert_refused(&no_event, 2, "event Cargo.toml: ");
    let elsewhere = millstream(&environment, &["plan", "--event", "events/sportsbook/bet-placed.json"]).await.unwrap();
    assert_refused(&elsewhere, 1, "no configured source reads stream arn:aws:kinesis");
}
