//! The state machine of the totals, run with the real function.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use millstream_tests::function::{Function, FunctionError, Settings, binary};
use millstream_tests::process::{tool, workspace};
use serde_json::{Value, json};

use crate::support::{Files, client, database, rows};
use crate::totals::{SOURCE, TABLE};

/// Four totals: two that are built, one with a sum of a text, one whose table does not exist yet.
const TOTALS: &str = r#"
[total.betting]
table = "bet"
by = ["game_id"]
sums = { staked = "stake" }
[total.flaky]
table = "bet"
by = ["side"]
[total.wrong]
table = "bet"
by = ["side"]
sums = { staked = "status" }
[total.waits]
source = "s"
table = "payment"
by = ["side"]
[total.blocked]
table = "bet"
by = ["status"]
"#;

/// The state machine, which asks for each invocation.
pub(super) struct StateMachine {
    process: Child,
    asked: BufReader<std::process::ChildStdout>,
}

impl StateMachine {
    /// Starts an execution of a definition in `infra/`.
    pub(super) fn start(definition: &str) -> Self {
        let mut command = Command::new(tool("python"));
        command.arg(workspace().join("tests/stack/state_machine.py")).arg(workspace().join("infra").join(definition));
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let asked = BufReader::new(process.stdout.take().unwrap());
        Self { process, asked }
    }

    /// The next invocation, or how the execution ended.
    pub(super) fn next(&mut self) -> Value {
        let mut line = String::new();
        self.asked.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    pub(super) fn answer(&mut self, answer: &Value) {
        writeln!(self.process.stdin.as_mut().unwrap(), "{answer}").unwrap();
    }
}

impl Drop for StateMachine {
    fn drop(&mut self) {
        self.process.kill().unwrap_or_default();
        self.process.wait().map(drop).unwrap_or_default();
    }
}

/// A run of the state machine with the function; what is not the function's answer comes from `failures`: how many attempts
/// fail, by total.
async fn run(function: &mut Function, mut failures: Vec<(&str, u32)>) -> (Value, Vec<Value>) {
    let mut machine = StateMachine::start("recompute.asl.json");
    let mut invocations = Vec::new();
    loop {
        let asked = machine.next();
        if asked.get("status").is_some() {
            return (asked, invocations);
        }
        assert_eq!(asked["function"], "RecomputeFunction");
        let payload = asked["payload"].clone();
        let failing = failures.iter_mut().find(|(total, left)| payload["total"] == *total && *left > 0);
        if let Some((_, left)) = failing {
            *left -= 1;
            machine.answer(&json!({"error": {"errorType": "Millstream.Totals", "errorMessage": "no lock on s.bet"}}));
        } else {
            let answer = match function.invoke(payload.to_string()).await {
                Ok(answer) => json!({"payload": serde_json::from_slice::<Value>(&answer).unwrap()}),
                Err(FunctionError::Handled(error)) => json!({"error": serde_json::from_str::<Value>(&error).unwrap()}),
                Err(error) => panic!("{error}"),
            };
            machine.answer(&answer);
        }
        invocations.push(payload);
    }
}

#[tokio::test]
async fn a_run_recomputes_each_total_and_reports_those_that_failed() {
    let url = database().await;
    let client = client(&url).await;
    client.batch_execute(TABLE).await.unwrap();
    client
        .batch_execute("INSERT INTO s.bet (bet_id, day, game_id, stake) VALUES ('1', '2026-01-01Z', 'g', 5)")
        .await
        .unwrap();
    let files = Files::new("run-of-totals");
    let environment =
        |config: String| vec![("DATABASE_URL".to_owned(), url.clone()), ("MILLSTREAM_CONFIG".to_owned(), config)];
    let settings = |config| Settings {
        binary: binary("recompute").unwrap(),
        environment: environment(config),
        timeout: Duration::from_secs(60),
    };
    let config = files.write("all.toml", &format!("{SOURCE}{TOTALS}"));
    let mut function = Function::start(settings(config)).await.unwrap();

    // One attempt for `flaky` fails, and all for `blocked`.
    let (ended, invocations) = run(&mut function, vec![("flaky", 1), ("blocked", u32::MAX)]).await;
    assert_eq!(ended["status"], "SUCCEEDED", "{ended}");
    let attempts = |total: &str| invocations.iter().filter(|payload| payload["total"] == total).count();
    assert_eq!(["betting", "flaky", "wrong", "waits", "blocked"].map(attempts), [1, 2, 1, 1, 6]);
    let results = ended["output"]["results"].as_array().unwrap();
    let result = |total: &str| results.iter().find(|result| result["total"] == total).unwrap();
    for total in ["betting", "flaky"] {
        assert_eq!((&result(total)["error"], &result(total)["report"]["off_by"]), (&Value::Null, &json!(0)));
    }
    let error = |total: &str| result(total)["error"].as_str().unwrap();
    assert!(error("wrong").contains("total.wrong.sums.staked: values of type text cannot be summed"), "{results:?}");
    assert!(error("blocked").contains("no lock on s.bet"), "{results:?}");
    assert_eq!(result("waits")["waiting"], "table s.payment does not exist yet");
    assert_eq!(rows(&client, "SELECT * FROM s.betting").await, [r#"{"game_id":"g","rows":1,"staked":5}"#]);
    assert_eq!(published(&function, "totals_failed"), json!(2));
    assert_eq!(published(&function, "totals_recomputed"), json!(2));

    // A total that was tampered with is corrected; one that is not configured any more is removed.
    client.batch_execute("UPDATE millstream.betting_v1_batch SET rows = 3").await.unwrap();
    let config = files.write("one.toml", &format!("{SOURCE}{}", TOTALS.split("[total.flaky]").next().unwrap()));
    let mut function = Function::start(settings(config)).await.unwrap();
    let (ended, _) = run(&mut function, Vec::new()).await;
    assert_eq!(ended["output"]["removed"], json!([{"total": "flaky", "error": null}]), "{ended}");
    let report = &ended["output"]["results"][0]["report"];
    assert_eq!(
        (&report["off_by"], &report["groups"]),
        (&json!(1), &json!([])),
        "no value of a row leaves the database"
    );
    assert_eq!(rows(&client, "SELECT * FROM s.betting").await, [r#"{"game_id":"g","rows":1,"staked":5}"#]);
    for (metric, value) in [("totals_off_by", 1), ("totals_failed", 0), ("totals_broken", 0), ("totals_pending", 1)] {
        assert_eq!(published(&function, metric).as_f64(), Some(f64::from(value)), "{metric}");
    }
}

/// The last value of a metric in the function's log.
pub(super) fn published(function: &Function, metric: &str) -> Value {
    let log = std::fs::read_to_string(function.log()).unwrap();
    let lines = log.lines().rev().filter(|line| line.contains("\"Namespace\":\"Millstream\""));
    let mut values = lines.filter_map(|line| serde_json::from_str::<Value>(line).unwrap().get(metric).cloned());
    values.next().unwrap_or_else(|| panic!("{metric} is not published:\n{log}"))
}
