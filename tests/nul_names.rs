//! Names with U+0000, which PostgreSQL cannot store.

use millstream::catalog::{Catalog, load};
use millstream::config::Config;
use millstream::database::sqlstate::{DatabaseStep, ErrorAction, classify};
use millstream::decode::Decoder;
use millstream::plan::plan;
use millstream::record::unpack;
use millstream::timestamp::Timestamp;
use millstream_tests::kinesis::{ShardRecord, event};

use crate::support::{batch, client, database, ingest};

/// A track call between two that are good.
fn calls(properties: &str, context: &str) -> [String; 3] {
    let call = |id: &str, properties: &str, context: &str| {
        format!(
            r#"{{"type":"track","event":"Ev","messageId":"{id}","receivedAt":"2026-02-08T10:00:00Z",
            "properties":{properties},"context":{context}}}"#
        )
    };
    [call("a", r#"{"a":1}"#, "{}"), call("odd", properties, context), call("b", r#"{"a":2}"#, "{}")]
}

/// Each document contains a name with U+0000 and comes between two good ones of the same table.
#[tokio::test]
async fn a_name_with_u0000_costs_only_its_own_record() {
    let segment = |properties: &str, context: &str| calls(properties, context).to_vec();
    let identify = |traits: &str| {
        let call = |id: &str, traits: &str| {
            format!(r#"{{"type":"identify","userId":"{id}","messageId":"{id}","traits":{traits}}}"#)
        };
        vec![call("a", r#"{"x":1}"#), call("odd", traits), call("b", r#"{"x":2}"#)]
    };
    let event_name = {
        let mut calls = calls("{}", "{}");
        calls[1] = calls[1].replace(r#""Ev""#, r#""E\u0000v""#);
        calls.to_vec()
    };
    let json = |odd: &str| vec![r#"{"a":1}"#.to_owned(), odd.to_owned(), r#"{"a":2}"#.to_owned()];
    let dms = |table: &str, odd: &str| {
        let change = |table: &str, row: &str| {
            format!(
                r#"{{"data":{row},"metadata":{{"timestamp":"2026-02-08T10:00:00Z","record-type":"data","operation":"insert",
                "partition-key-type":"schema-table","schema-name":"public","table-name":"{table}"}}}}"#
            )
        };
        vec![change("items", r#"{"id":1}"#), change(table, odd), change("items", r#"{"id":2}"#)]
    };
    let debezium = |table: &str, odd: &str| {
        let change = |table: &str, row: &str| {
            format!(
                r#"{{"before":null,"after":{row},"source":{{"schema":"public","table":"{table}","lsn":1}},"op":"c"}}"#
            )
        };
        vec![change("items", r#"{"id":1}"#), change(table, odd), change("items", r#"{"id":2}"#)]
    };
    let replica = |format: &str| {
        format!(
            "[source.s]\nstream = \"s\"\nformat = \"{format}\"\n[table.items]\nsource = \"s\"\nfrom = \"public.items\"\nkey = [\"id\"]\n"
        )
    };
    let plain = "[source.s]\nstream = \"s\"\n".to_owned();
    let exact = format!("{plain}naming = \"exact\"\n");
    let fixed = format!("{plain}schema_mode = \"fixed\"\n");
    let json_config = format!("{plain}format = \"json\"\n");
    for (config, documents, name) in [
        (&json_config, json(r#"{"a\u0000b":1}"#), r"a\u0000b"),
        (&json_config, json(r#"{"a":3,"o":{"\u0000":[1]}}"#), r"o.\u0000"),
        (&format!("{json_config}schema_mode = \"fixed\"\n"), json(r#"{"a\u0000b":1}"#), r"a\u0000b"),
        (
            &format!("{json_config}schema_mode = \"strict\"\n[table.s]\nsource = \"s\"\ncolumns = {{ a = \"a\" }}\n"),
            json(r#"{"a\u0000b":1}"#),
            r"a\u0000b",
        ),
        (&plain, segment(r#"{"a\u0000b":1}"#, "{}"), r"properties.a\u0000b"),
        (&plain, segment("{}", r#"{"a\u0000b":1}"#), r"context.a\u0000b"),
        (&fixed, segment(r#"{"a\u0000b":1}"#, "{}"), r"properties.a\u0000b"),
        (&exact, segment(r#"{"a\u0000b":"x"}"#, "{}"), r"properties.a\u0000b"),
        (&plain, identify(r#"{"a\u0000b":1}"#), r"traits.a\u0000b"),
        (&plain, event_name.clone(), r"E\u0000v"),
        (&exact, event_name, r"E\u0000v"),
        (&replica("dms"), dms("items", r#"{"id":3,"a\u0000b":1}"#), r"a\u0000b"),
        (&replica("dms"), dms(r"it\u0000ems", r#"{"id":3}"#), r"public.it\u0000ems"),
        (&replica("debezium"), debezium("items", r#"{"id":3,"a\u0000b":1}"#), r"a\u0000b"),
        (&replica("debezium"), debezium(r"it\u0000ems", r#"{"id":3}"#), r"public.it\u0000ems"),
    ] {
        let url = database().await;
        let mut ingest = ingest(config, &url);
        for first in [1, 10] {
            let report =
                batch(&mut ingest, first, &documents).await.unwrap_or_else(|e| panic!("{config}{documents:?}: {e}"));
            assert_eq!((report.counts.retry, report.counts.total()), (1, 3), "{config}{documents:?}: {report}");
            assert_eq!(report.reasons.get("malformed"), Some(&1), "{config}{documents:?}: {report}");
        }
        let mut decoder = Decoder::new(Config::parse("", config).unwrap().sources.remove(0));
        let named = rejection(&mut decoder, &documents[1], &url).await;
        assert!(named.contains(&format!("`{name}`")), "{name}: {named}");
    }
}

/// Why a document is rejected, by its decoder or by the plan.
async fn rejection(decoder: &mut Decoder, document: &str, url: &str) -> String {
    let record = ShardRecord::numbered(1, document.as_bytes());
    let unpacked = unpack(&event("s", "shardId-000000000000", &[record])).unwrap();
    let (changes, rejected) = decoder.decode(&unpacked);
    if let Some((_, rejection)) = rejected.first() {
        return rejection.to_string();
    }
    let mut catalog = Catalog::default();
    let names: Vec<_> = changes.list.iter().map(|change| decoder.tables.get(change.table).name.clone()).collect();
    load(&client(url).await, &mut catalog, &names).await.unwrap();
    let now = Timestamp::parse("2026-02-09T12:00:00Z").unwrap();
    let plan = plan(&changes, &decoder.fields, &decoder.tables, &catalog, now);
    plan.rejected.first().map(|(_, rejection)| rejection.to_string()).unwrap_or_default()
}

#[tokio::test]
async fn an_error_of_the_driver_is_transient_only_if_the_connection_failed() {
    let url = database().await;
    let client = client(&url).await;
    let unsendable = client.batch_execute("SELECT 'a\0b'").await.unwrap_err();
    assert_eq!(classify(DatabaseStep::WriteRows, &unsendable), ErrorAction::Halt, "{unsendable:?}");
    let too_few = client.query("SELECT $1::int4", &[]).await;
    assert!(too_few.is_err_and(|error| classify(DatabaseStep::WriteRows, &error) == ErrorAction::Halt));
    let terminated = client.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())").await.unwrap_err();
    assert_eq!(classify(DatabaseStep::WriteRows, &terminated), ErrorAction::Retry, "{terminated:?}");
    while !client.is_closed() {
        tokio::task::yield_now().await;
    }
    let closed = client.batch_execute("SELECT 1").await.unwrap_err();
    assert_eq!(classify(DatabaseStep::WriteRows, &closed), ErrorAction::Retry, "{closed:?}");
    let unreachable = "postgresql://nobody@127.0.0.1:1/none".parse::<tokio_postgres::Config>().unwrap();
    let unreachable = unreachable.connect(tokio_postgres::NoTls).await.err().unwrap();
    assert_eq!(classify(DatabaseStep::WriteRows, &unreachable), ErrorAction::Retry, "{unreachable:?}");
}
