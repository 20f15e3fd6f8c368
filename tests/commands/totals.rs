//! `millstream totals`, and what `status` and `plan` say about totals.

use millstream_tests::process::workspace;
use millstream_tests::program::millstream;
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::plan::snapshot;
use super::{assert_golden, assert_refused, config_file, environment};
use crate::support::{client, database, rows};
use crate::totals::{BETTING, SOURCE, TABLE};

/// A total whose expression fails for a row without a payout.
const RATIO: &str = "[total.ratio]\ntable = \"bet\"\nby = [\"side\"]\nsums = { ratio = \"stake / payout\" }\n";

async fn bets(client: &Client) {
    client.batch_execute(TABLE).await.unwrap();
    let bet = "INSERT INTO s.bet (bet_id, day, game_id, side, stake, payout, placed_at) \
        VALUES ('1', '2026-01-01Z', 'g', 'home', 5, 2, '2026-01-01 10:30Z')";
    client.batch_execute(bet).await.unwrap();
}

#[tokio::test]
async fn totals_are_listed_compared_and_recomputed() {
    let url = database().await;
    let client = client(&url).await;
    let environment = environment(&config_file("totals", &format!("{SOURCE}{BETTING}")), &url);
    let run = async |arguments: &[&str]| millstream(&environment, arguments).await.unwrap();

    let list = run(&["totals", "list"]).await;
    assert!(list.code == 0 && list.out.contains("waiting       -       -"), "{}{}", list.out, list.err);
    assert!(list.out.contains("betting is waiting: table s.bet does not exist yet"), "{}{}", list.out, list.err);
    assert_eq!(run(&["status"]).await.code, 0, "a table that does not exist yet is no fault");
    bets(&client).await;
    let status = run(&["status"]).await;
    assert!(status.code == 3 && status.out.contains("total betting is not built"), "{}{}", status.out, status.err);
    let check = run(&["totals", "check"]).await;
    assert_eq!((check.code, &*check.out), (0, "betting: it is not built yet\n"), "{}", check.err);

    let built = run(&["totals", "recompute"]).await;
    assert!(built.code == 0 && built.out.starts_with("betting: exact ("), "{}{}", built.out, built.err);
    assert_eq!(
        rows(&client, "SELECT game_id, rows, staked FROM s.betting").await,
        [r#"{"game_id":"g","rows":1,"staked":5}"#]
    );
    assert_eq!(run(&["status"]).await.code, 0);
    let list = run(&["--json", "totals", "list"]).await.out;
    assert_eq!(serde_json::from_str::<Value>(&list).unwrap()[0]["groups"], 1, "{list}");

    // Somebody changes the batch. Comparing changes nothing.
    client.batch_execute("UPDATE millstream.betting_v1_batch SET rows = 3, staked = 4").await.unwrap();
    for command in [&["totals", "check", "betting"][..], &["totals", "recompute", "--dry-run"]] {
        let check = run(command).await;
        assert!(check.code == 3 && check.out.starts_with("betting: off by 1 group ("), "{}{}", check.out, check.err);
        assert!(check.out.contains("g, home, 2026-01-01 10:00:00+00: -2, 1"), "{}", check.out);
    }
    let corrected = run(&["totals", "recompute", "betting"]).await;
    assert!(corrected.code == 3 && corrected.out.contains("was off by 1 group, corrected"), "{}", corrected.out);
    assert_eq!(run(&["totals", "check"]).await.code, 0);
    let status = run(&["status"]).await;
    let alarm = "total betting was wrong at the last recompute, which corrected it (groups: 1)";
    assert!(status.code == 3 && status.out.contains(alarm), "{}", status.out);
    let status: Value = serde_json::from_str(&run(&["--json", "status"]).await.out).unwrap();
    let total = &status["totals"][0];
    assert_eq!((&total["total"], &total["state"], &total["off_by"]), (&json!("betting"), &json!("ready"), &json!(1)));

    let nobody = run(&["totals", "check", "nobody"]).await;
    assert_refused(&nobody, 2, "unknown total `nobody`; configured totals: betting");
}

#[tokio::test]
async fn a_total_that_cannot_be_built_says_why() {
    let url = database().await;
    let client = client(&url).await;
    bets(&client).await;
    let config = "[total.latest]\ntable = \"bet\"\nby = [\"side\"]\nsums = { age = \"extract(epoch FROM now() - day)\" }\n\
        [total.later]\ntable = \"bet\"\nby = [\"colour\"]\n[total.report]\ntable = \"bet\"\nby = [\"side\"]\n";
    client.batch_execute("CREATE VIEW s.report AS SELECT 1").await.unwrap();
    let environment = environment(&config_file("totals-rejected", &format!("{SOURCE}{config}")), &url);
    let status = millstream(&environment, &["--json", "status"]).await.unwrap();
    let status: Value = serde_json::from_str(&status.out).unwrap();
    let totals = status["totals"].as_array().unwrap();
    let found: Vec<_> = totals.iter().map(|total| (total["total"].clone(), total["state"].clone())).collect();
    let expected = [("later", "waiting"), ("latest", "rejected"), ("report", "rejected")];
    assert_eq!(found, expected.map(|(total, state)| (json!(total), json!(state))), "{status:#}");
    assert!(totals[0]["reason"].as_str().unwrap().contains("colour"), "{status:#}");
    let alarms: Vec<&str> = status["alarms"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(alarms.len(), 2, "a total that waits for a column is no fault: {alarms:#?}");
    assert!(alarms[0].starts_with("total latest is rejected (") && alarms[0].contains("IMMUTABLE"), "{alarms:#?}");
    assert!(alarms[1].starts_with("total report is rejected (") && alarms[1].contains("s.report"), "{alarms:#?}");
    let list = millstream(&environment, &["totals", "list"]).await.unwrap();
    assert!(list.code == 3 && list.out.contains("later is waiting: "), "{}{}", list.out, list.err);
    // A reader may not create a temporary table: it learns less.
    client
        .batch_execute("DO $$ BEGIN CREATE ROLE curious LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$")
        .await
        .unwrap();
    let database = url.rsplit('/').next().unwrap();
    let grants = format!("GRANT pg_read_all_data TO curious; REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC");
    client.batch_execute(&grants).await.unwrap();
    let curious = url.replace("postgres@", "curious@").replace("//127", "//curious@127");
    let environment = super::environment(&config_file("totals-rejected", &format!("{SOURCE}{config}")), &curious);
    let list = millstream(&environment, &["--json", "totals", "list"]).await.unwrap();
    let list: Value = serde_json::from_str(&list.out).unwrap_or_else(|error| panic!("{error}: {}", list.err));
    assert_eq!([&list[0]["state"], &list[1]["state"]], ["not built", "not built"], "{list:#}");
}

#[tokio::test]
async fn a_broken_total_and_one_with_a_backlog_need_attention() {
    let url = database().await;
    let client = client(&url).await;
    bets(&client).await;
    let environment = environment(&config_file("totals-broken", &format!("{SOURCE}{BETTING}{RATIO}")), &url);
    let run = async |arguments: &[&str]| millstream(&environment, arguments).await.unwrap();
    assert_eq!(run(&["totals", "recompute"]).await.code, 0);
    let zero = "INSERT INTO s.bet (bet_id, day, game_id, stake, payout) VALUES ('2', '2026-01-02Z', 'g', 5, 0)";
    client.batch_execute(zero).await.unwrap();
    let many = "INSERT INTO s.bet (bet_id, day, game_id, payout) SELECT i::text, '2026-01-03Z', i::text, 1 FROM generate_series(3, 50003) i";
    client.batch_execute(many).await.unwrap();

    let list = run(&["totals", "list"]).await;
    assert!(list.code == 3 && list.out.contains("broken"), "{}{}", list.out, list.err);
    let status: Value = serde_json::from_str(&run(&["--json", "status"]).await.out).unwrap();
    let alarms: Vec<&str> = status["alarms"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for alarm in [
        "total betting has 50002 deltas that are not folded; do its writers report errors?",
        "total ratio misses the rows of failed transactions (1; the last one in s.bet [SQLSTATE 22012]); fix the cause, then \
         run `millstream totals recompute ratio`",
    ] {
        assert!(alarms.contains(&alarm), "{alarm} is not among {alarms:#?}");
    }
    // The recompute fails for the same row; the other total is folded.
    let failed = run(&["totals", "recompute"]).await;
    assert!(
        failed.code == 3 && failed.out.contains("betting: exact") && failed.out.contains("22012"),
        "{}",
        failed.out
    );
    client.batch_execute("UPDATE s.bet SET payout = 1 WHERE bet_id = '2'").await.unwrap();
    let healed = run(&["totals", "recompute", "ratio"]).await;
    assert!(healed.out.contains("ratio: was off by 1 group, corrected"), "{}{}", healed.out, healed.err);
    let list = run(&["totals", "list"]).await;
    assert!(list.code == 0 && !list.out.contains("broken"), "{}", list.out);
}

/// A path below the workspace, in which the program runs: it is part of the output.
fn relative(path: &str) -> &str {
    path.strip_prefix(&*workspace().to_string_lossy()).map_or(path, |path| path.trim_start_matches('/'))
}

#[tokio::test]
async fn golden_what_totals_would_become_is_planned() {
    let url = database().await;
    let client = client(&url).await;
    bets(&client).await;
    let suitable = format!("{SOURCE}{BETTING}{RATIO}");
    let unsuitable = "[total.latest]\ntable = \"bet\"\nby = [\"side\"]\nsums = { age = \"extract(epoch FROM now() - day)\" }\n\
        [total.longest]\ntable = \"bet\"\nby = [\"side\"]\nsums = { status = \"status\" }\n\
        [total.later]\ntable = \"bet\"\nby = [\"colour\"]\n\
        [total.payments]\nsource = \"s\"\ntable = \"payment\"\nby = [\"side\"]\n\
        [total.report]\ntable = \"bet\"\nby = [\"side\"]\n";
    client.batch_execute("CREATE VIEW s.report AS SELECT 1").await.unwrap();
    let at_first = environment(relative(&config_file("plan-totals", &format!("{suitable}{unsuitable}"))), &url);
    let before = snapshot(&url, &client).await;
    let planned = millstream(&at_first, &["plan"]).await.unwrap();
    assert!(before == snapshot(&url, &client).await, "a dry run has changed something");
    assert_golden("plan-totals", &planned, 3);

    // Both are built, a partition is dropped, and a report depends on a view.
    let built = environment(&config_file("plan-totals-built", &suitable), &url);
    assert_eq!(millstream(&built, &["totals", "recompute"]).await.unwrap().code, 0);
    let unchanged = millstream(&built, &["--json", "plan"]).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&unchanged.out).unwrap()["totals"], json!([]));
    client
        .batch_execute(
            "CREATE VIEW s.top AS SELECT game_id FROM s.betting; CREATE VIEW s.ratios AS SELECT * FROM s.ratio",
        )
        .await
        .unwrap();
    client.batch_execute("INSERT INTO millstream.betting_v1_frozen OVERRIDING SYSTEM VALUE SELECT 0, 's.bet_0', now(), 'g', 'home', now(), 1, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0").await.unwrap();
    let changed = BETTING.replace("\"game_id\", \"side\"", "\"side\", \"game_id\"");
    let changed = environment(&config_file("plan-totals-changed", &format!("{SOURCE}{changed}")), &url);
    let planned = millstream(&changed, &["plan"]).await.unwrap();
    assert_golden("plan-totals-changed", &planned, 0);
    let other = BETTING.replace("'cancelled'", "'void'");
    let other = environment(&config_file("plan-totals-other", &format!("{SOURCE}{other}{RATIO}")), &url);
    let planned = millstream(&other, &["--json", "plan"]).await.unwrap();
    let planned: Value = serde_json::from_str(&planned.out).unwrap();
    let remarks = planned["totals"][0]["remarks"].to_string();
    assert_eq!(planned["totals"][0]["change"], "replace");
    assert!(remarks.contains("--discard-dropped") && !remarks.contains("its columns change"), "{remarks}");
}
