//! The state machine of the transforms, run with the real function.

use std::time::Duration;

use millstream_tests::function::{Function, Settings, binary};
use serde_json::{Value, json};

use super::totals::{StateMachine, published};
use crate::support::{Files, client, database, rows};

#[tokio::test]
async fn a_run_goes_on_until_all_transforms_have_run_and_failures_stop_nothing() {
    let url = database().await;
    let files = Files::new("run-of-transforms");
    let config = files.write("millstream.toml", "[source.s]\nstream = \"s\"\nformat = \"json\"\n");
    std::fs::create_dir_all(config.replace("millstream.toml", "transforms")).unwrap();
    for (name, text) in [
        ("first", "-- target: t.first\n-- every: 1 hour\nSELECT 1 AS id"),
        ("second", "-- target: t.second\n-- depends: first\nSELECT id + 1 AS id FROM t.first"),
        ("wrong", "-- target: t.wrong\n-- every: 1 hour\nSELECT 1 / 0 AS id"),
    ] {
        files.write(&format!("transforms/{name}.sql"), text);
    }
    let environment = vec![("DATABASE_URL".to_owned(), url.clone()), ("MILLSTREAM_CONFIG".to_owned(), config)];
    let settings = Settings { binary: binary("transform").unwrap(), environment, timeout: Duration::from_secs(60) };
    let mut function = Function::start(settings).await.unwrap();

    let mut machine = StateMachine::start("transform.asl.json");
    let begun = json!({"all": false, "full": false, "progress": {"done": false, "results": []}});
    // Another run holds the function; the time of the first call is over; then the function does the work.
    let throttled = json!({"error": {"errorType": "TooManyRequestsException", "errorMessage": "Rate Exceeded."}});
    for answer in [throttled, json!({"payload": begun})] {
        let asked = machine.next();
        assert_eq!((&asked["function"], &asked["payload"]), (&json!("TransformFunction"), &json!({})), "{asked}");
        machine.answer(&answer);
    }
    let asked = machine.next();
    assert_eq!(asked["payload"], begun);
    let answer = function.invoke(asked["payload"].to_string()).await.unwrap();
    machine.answer(&json!({"payload": serde_json::from_slice::<Value>(&answer).unwrap()}));
    let ended = machine.next();
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
    let results = ended["output"]["progress"]["results"].as_array().unwrap();
    let outcomes: Vec<_> =
        results.iter().map(|result| (result["transform"].as_str(), result["outcome"].as_str())).collect();
    let expected = [("first", "succeeded"), ("second", "succeeded"), ("wrong", "failed")];
    assert_eq!(outcomes, expected.map(|(name, outcome)| (Some(name), Some(outcome))), "{ended}");
    let client = client(&url).await;
    assert_eq!(rows(&client, "SELECT id FROM t.second").await, [r#"{"id":2}"#]);
    for (metric, value) in [("transforms_run", 2), ("transforms_failed", 1), ("transforms_rows", 2)] {
        assert_eq!(published(&function, metric).as_f64(), Some(f64::from(value)), "{metric}");
    }
}
