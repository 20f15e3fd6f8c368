//! The alarms and the dashboard: they use only metrics that the functions publish.

use std::collections::BTreeSet;
use std::time::Duration;

use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::kinesis::{ShardRecord, event};
use millstream_tests::process::workspace;
use serde_json::{Value, json};

use super::stack::{assert_has, created};
use crate::support::database;

#[test]
fn every_fault_that_a_person_must_know_has_its_alarm() {
    let alarms = &created("sportsbook")["alarms"];
    let expected = [
        ("kinesis-ingest-lag", json!({"MetricName": "IteratorAge", "Threshold": 60_000.0, "EvaluationPeriods": 5})),
        ("kinesis-ingest-errors", json!({"MetricName": "Errors", "DatapointsToAlarm": 3})),
        ("kinesis-ingest-throttles", json!({"MetricName": "Throttles"})),
        ("kinesis-ingest-delivery-failures", json!({"MetricName": "DestinationDeliveryFailures", "Threshold": 1.0})),
        (
            "kinesis-ingest-schema-churn",
            json!({"MetricName": "ddl_statements", "Period": 3600, "EvaluationPeriods": 6}),
        ),
        ("kinesis-ingest-unaccounted", json!({"MetricName": "unaccounted", "Threshold": 1.0})),
        ("kinesis-ingest-person-needed", json!({"MetricName": "person_needed"})),
        ("kinesis-ingest-unwritable-table", json!({"MetricName": "unwritable_tables", "Threshold": 1.0})),
        ("kinesis-ingest-silent", json!({"MetricName": "Invocations", "Period": 900, "TreatMissingData": "breaching"})),
        ("maintain-silent", json!({"MetricName": "Invocations", "Period": 86_400, "TreatMissingData": "breaching"})),
        ("recompute-silent", json!({"MetricName": "Invocations", "Period": 86_400, "TreatMissingData": "breaching"})),
        ("transform-silent", json!({"MetricName": "Invocations", "Period": 86_400, "TreatMissingData": "breaching"})),
        ("transforms-failed", json!({"MetricName": "transforms_failed", "Namespace": "Millstream", "Threshold": 1.0})),
        ("totals-run-failed", json!({"Namespace": "AWS/States", "MetricName": "ExecutionsFailed", "Threshold": 1.0})),
        ("totals-off-by", json!({"MetricName": "totals_off_by", "Statistic": "Sum", "Threshold": 1.0})),
        ("totals-failed", json!({"MetricName": "totals_failed", "Statistic": "Sum", "Threshold": 1.0})),
        ("totals-broken", json!({"MetricName": "totals_broken", "Statistic": "Maximum", "Threshold": 1.0})),
        ("totals-pending", json!({"MetricName": "totals_pending", "Statistic": "Maximum", "Threshold": 50_000.0})),
        ("dead-letters-visible", json!({"MetricName": "ApproximateNumberOfMessagesVisible", "Threshold": 1.0})),
        ("on-failure-visible", json!({"MetricName": "ApproximateNumberOfMessagesVisible", "Threshold": 1.0})),
        ("dead-letters-age", json!({"MetricName": "ApproximateAgeOfOldestMessage", "Threshold": 604_800.0})),
        ("load-failed", json!({"MetricName": "ExecutionsFailed"})),
        ("upkeep-postponed", json!({"MetricName": "upkeep_postponed"})),
        ("failed-logins", json!({"MetricName": "failed_logins", "Statistic": "Sum", "Threshold": 20.0})),
    ];
    for (name, asked) in expected {
        let alarm = &alarms[format!("sportsbook-{name}")];
        assert_has(alarm, &asked);
        assert_eq!(alarm["AlarmActions"], json!(["arn:aws:sns:eu-west-1:123456789012:on-call"]), "{name}");
    }
    // CloudWatch computes the shares: 25 % of seven days, 80 % of two minutes.
    let shares = [
        ("kinesis-ingest-lag-critical", "100 * age / (3600000 * 168)", 25.0),
        ("kinesis-ingest-slow", "100 * duration / (1000 * 120)", 80.0),
        ("maintain-slow", "100 * duration / (1000 * 300)", 80.0),
    ];
    for (name, expression, threshold) in shares {
        let alarm = &alarms[format!("sportsbook-{name}")];
        assert_eq!((&alarm["Metrics"][0]["Expression"], &alarm["Threshold"]), (&json!(expression), &json!(threshold)));
    }
    let stuck = &alarms["sportsbook-kinesis-ingest-no-commit"];
    assert_has(stuck, &json!({"EvaluationPeriods": 2, "Threshold": 1.0}));
    // Functions that read no stream, or may run long, have no such alarm.
    for absent in
        ["dynamodb-sync-lag", "maintain-lag", "backfill-slow", "recompute-slow", "redrive-slow", "dynamodb-sync-silent"]
    {
        assert_eq!(alarms[format!("sportsbook-{absent}")], Value::Null, "{absent}");
    }
}

#[test]
fn the_dashboard_goes_from_freshness_to_cost() {
    let widgets = created("sportsbook")["dashboard"]["widgets"].as_array().unwrap();
    let titles: Vec<&str> = widgets.iter().filter_map(|widget| widget["properties"]["title"].as_str()).collect();
    for word in [
        "Freshness",
        "Throughput",
        "Lag",
        "Failures awaiting redrive",
        "partitions",
        "Connections",
        "cost",
        "Totals",
        "Board",
    ] {
        assert!(titles.iter().any(|title| title.contains(word)), "{word} is not among {titles:?}");
    }
    for widget in widgets {
        assert_eq!(widget["properties"]["region"], "eu-west-1");
        assert!(!widget.to_string().contains("${"), "{widget}");
    }
    let cost = widgets.iter().find(|widget| widget["properties"]["title"] == "Lambda cost").unwrap();
    let reckoned = "FILL(d0, 0) / 1000 * 1024 / 1024 * 0.0000133334 + FILL(n0, 0) * 0.0000002";
    assert!(cost.to_string().contains(reckoned), "{cost}");
}

/// The names of Millstream's metrics that the alarms and the dashboard use.
fn asked() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let system = created("sportsbook");
    for alarm in system["alarms"].as_object().unwrap().values() {
        let inner = alarm["Metrics"].as_array().into_iter().flatten().map(|metric| &metric["MetricStat"]["Metric"]);
        let metrics = std::iter::once(alarm).chain(inner).filter(|metric| metric["Namespace"] == "Millstream");
        names.extend(metrics.map(|metric| metric["MetricName"].as_str().unwrap().to_owned()));
    }
    for widget in system["dashboard"]["widgets"].as_array().unwrap() {
        let metrics = widget["properties"]["metrics"].as_array().unwrap().iter();
        names.extend(metrics.filter(|m| m[0] == "Millstream").map(|metric| metric[1].as_str().unwrap().to_owned()));
    }
    names
}

/// The metrics that a function publishes while it processes an event, each with its value.
async fn published_metrics(function: &str, event: Vec<u8>, url: &str) -> Vec<(String, Value)> {
    let config = workspace().join("events/sportsbook/millstream.toml").to_string_lossy().into_owned();
    // Only the board reads who may open it.
    let environment =
        [("DATABASE_URL", url.to_owned()), ("MILLSTREAM_CONFIG", config), ("BOARD_IAM_ROLE", "operator".to_owned())];
    let settings = Settings {
        binary: binary(function).unwrap(),
        environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
        timeout: Duration::from_secs(60),
    };
    let mut running = Function::start(settings).await.unwrap();
    running.invoke(event).await.map(drop).unwrap_or_default();
    let log = std::fs::read_to_string(running.log()).unwrap();
    let lines = log.lines().filter(|line| line.contains("\"Namespace\":\"Millstream\""));
    let lines: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut metrics = Vec::new();
    for line in &lines {
        assert_eq!(line["function"], function, "alarms look for metrics by the function's name");
        for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"].as_array().unwrap() {
            let name = metric["Name"].as_str().unwrap();
            metrics.push((name.to_owned(), line[name].clone()));
        }
    }
    metrics
}

#[tokio::test]
async fn functions_publish_every_metric_that_alarms_use() {
    let url = database().await;
    let document = br#"{"type":"page","messageId":"1"}"#;
    let records = [ShardRecord::numbered(1, document)];
    let shard = "shardId-000000000000";
    let good = published_metrics("kinesis-ingest", event("sportsbook", shard, &records), &url).await;
    assert!(good.contains(&("commits".to_owned(), json!(1))), "{good:?}");
    assert!(good.contains(&("person_needed".to_owned(), json!(0))), "{good:?}");
    let unknown = published_metrics("kinesis-ingest", event("unknown", shard, &records), &url).await;
    assert!(unknown.contains(&("person_needed".to_owned(), json!(1))), "{unknown:?}");
    assert!(unknown.contains(&("unaccounted".to_owned(), json!(0))), "{unknown:?}");
    assert!(unknown.contains(&("commits".to_owned(), json!(0))), "{unknown:?}");
    let upkeep = published_metrics("maintain", b"{}".to_vec(), &url).await;
    assert!(upkeep.contains(&("upkeep_postponed".to_owned(), json!(0))), "{upkeep:?}");
    let totals = published_metrics("recompute", b"{}".to_vec(), &url).await;
    for metric in ["totals_off_by", "totals_failed"] {
        assert!(totals.contains(&(metric.to_owned(), json!(0))), "{totals:?}");
    }
    let transforms = published_metrics("transform", b"{}".to_vec(), &url).await;
    assert!(transforms.contains(&("transforms_failed".to_owned(), json!(0))), "{transforms:?}");
    let request = json!({"rawPath": "/", "requestContext": {"http": {"method": "GET", "sourceIp": "192.0.2.1"}}});
    let board = published_metrics("board", request.to_string().into_bytes(), &url).await;
    assert!(board.contains(&("failed_logins".to_owned(), json!(0))), "{board:?}");
    let told: BTreeSet<String> =
        [good, unknown, upkeep, totals, transforms, board].concat().into_iter().map(|(name, _)| name).collect();
    let asked = asked();
    let missing: Vec<&String> = asked.difference(&told).collect();
    assert!(missing.is_empty() && asked.len() > 10, "{missing:?} are not published; published: {told:?}");
}
