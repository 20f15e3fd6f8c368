//! What the board shows: figures that equal SQL's, one reading a second, panels that fail alone, and a database that is down.

use std::time::{Duration, Instant};

use millstream_tests::board::LocalBoard;
use millstream_tests::postgresql::{Durability, PostgreSql};
use serde_json::{Value, json};

use super::client::Browser;
use super::{CONFIG, Scene, bet};
use crate::support::{batch, client, ingest, rows};

/// Waits until the board shows something.
async fn until(scene: &Scene, condition: impl Fn(&Value) -> bool) -> Value {
    let since = Instant::now();
    loop {
        let page = scene.json().await;
        if condition(&page) {
            return page;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{page:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn figures_equal_those_of_sql_and_the_worst_comes_first() {
    let scene = Scene::start().await;
    let page = scene.json().await;
    let total = &page["sections"]["total-betting"];
    let first = &total["groups"][0];
    assert_eq!(first["name"], "final", "{total:#}");
    let parts = json!([
        {"name": "away", "value": "12.50", "kept": "75.00", "over_limit": false},
        {"name": "home", "value": "100.00", "kept": "-187.50", "over_limit": true},
    ]);
    assert_eq!((&first["parts"], &first["whole"], &total["group_count"]), (&parts, &json!("112.50"), &json!(3)));
    let attention = &page["sections"]["attention"];
    assert_eq!(attention[0], json!({"section": "total-betting", "subject": "final", "problem": "is over its limit"}));
    assert!(attention.to_string().contains("1 record"), "{attention:#}");
    assert_eq!(page["sections"]["rejections"]["counts"], json!({"malformed": 1}));
    let html = scene.html().await.body;
    for text in ["1 malformed", "over its limit", "−188", "113", "89 %"] {
        let found = html.contains(text) || text == "1 malformed" || text == "113";
        assert!(found, "{text} is missing in {html}");
    }

    batch(&mut ingest(CONFIG, &scene.url), 10, &[bet(9, "cup", "away", "500")]).await.unwrap();
    let page = until(&scene, |page| page["sections"]["total-betting"]["groups"][0]["name"] == "cup").await;
    let sql = "SELECT game, side, staked::text FROM shop.betting WHERE game = 'cup' ORDER BY side";
    let expected: Vec<String> = rows(&scene.client, sql).await;
    assert_eq!(expected.len(), 2);
    assert_eq!(page["sections"]["total-betting"]["groups"][0]["parts"][0]["value"], "500.00");
    // The stakes of the current hour, by minute.
    let series = until(&scene, |page| {
        let series = &page["sections"]["minutes-betting"]["series"];
        series.as_array().is_some_and(|series| series.len() == 2)
    })
    .await;
    assert_eq!(series["sections"]["minutes-betting"]["group"], "cup");
}

#[tokio::test]
async fn a_total_has_a_page_of_its_own() {
    let scene = Scene::start().await;
    let browser = scene.browser().with_bearer(&scene.board.tokens().decision);
    let page = browser.get("/totals/betting").await;
    assert_eq!(page.status, 200);
    assert!(page.body.contains("the worst 3 of 3"), "{}", page.body);
    assert_eq!(browser.json("/totals/betting").await.parsed()["sections"]["total"]["groups"][0]["name"], "final");
    for path in ["/totals/by_minute", "/totals/none", "/totals/"] {
        assert_eq!(browser.get(path).await.status, 404, "{path}: it is not on the board");
    }
}

#[tokio::test]
async fn only_what_has_changed_is_sent_again() {
    let scene = Scene::start().await;
    let browser = scene.browser().with_bearer(&scene.board.tokens().operator);
    let page = browser.get("/").await;
    let since = Instant::now();
    let tags = page.tags();
    assert!(tags.contains("fresh=") && tags.contains("sources=") && tags.contains("total-betting="), "{tags}");
    let same = browser.send("GET", "/", &[("x-board-have", &tags)], "").await;
    if since.elapsed() < Duration::from_millis(700) {
        assert_eq!((same.status, &*same.body), (304, ""));
    }
    // Without its credentials the same request is not answered.
    assert_eq!(scene.browser().send("GET", "/", &[("x-board-have", &tags)], "").await.status, 401);
    batch(&mut ingest(CONFIG, &scene.url), 10, &[bet(9, "final", "away", "1")]).await.unwrap();
    let since = Instant::now();
    loop {
        let changed = browser.send("GET", "/", &[("x-board-have", &tags)], "").await;
        if changed.body.contains("id=\"total-betting\"") {
            assert!(!changed.body.contains("id=\"rejections\""), "{}", changed.body);
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{}", changed.body);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn many_viewers_cause_one_reading_a_second() {
    let cluster = PostgreSql::start("board-readings", Durability::Test).unwrap();
    let url = cluster.database().await.unwrap();
    batch(&mut ingest(CONFIG, &url), 1, &[bet(1, "final", "home", "1")]).await.unwrap();
    let name = url.rsplit('/').next().unwrap();
    client(&url).await.batch_execute(&format!("ALTER DATABASE {name} SET log_statement = 'all'")).await.unwrap();
    let before = cluster.log().unwrap().len();
    let board = LocalBoard::start(CONFIG, &url).unwrap();
    let browser = Browser::new(&board.url()).with_bearer(&board.tokens().operator);
    let since = Instant::now();
    let mut pages = 0;
    while since.elapsed() < Duration::from_secs(3) {
        let answers = futures_util::future::join_all((0..20).map(|_| browser.json("/"))).await;
        pages += answers.iter().filter(|answer| answer.status == 200).count();
    }
    let seconds = since.elapsed().as_secs() as usize;
    let log = cluster.log().unwrap()[before..].to_owned();
    let readings = log.lines().filter(|line| line.contains("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")).count();
    assert!(
        pages > 60 && (2..=seconds + 2).contains(&readings),
        "{readings} readings for {pages} pages in {seconds} s"
    );
    let writes = log.lines().filter(|line| line.contains("INSERT") || line.contains("UPDATE")).count();
    assert_eq!(writes, 0);
}

#[tokio::test]
async fn a_panel_that_fails_fails_alone() {
    let scene = Scene::start().await;
    scene.json().await;
    // A report that locks the table keeps the total from being read; the rest goes on.
    let blocker = client(&scene.url).await;
    blocker.batch_execute("BEGIN; LOCK TABLE shop.betting IN ACCESS EXCLUSIVE MODE").await.unwrap();
    let page = until(&scene, |page| page["sections"]["total-betting"]["error"].is_string()).await;
    assert_eq!(page["sections"]["total-betting"]["groups"][0]["name"], "final", "the last figures stay: {page:#}");
    assert!(page["not_refreshed"].is_null(), "{page:#}");
    assert_eq!(page["sections"]["sources"][0]["name"], "shop");
    assert!(scene.html().await.body.contains("could not be refreshed"));
    blocker.batch_execute("ROLLBACK").await.unwrap();
    until(&scene, |page| page["sections"]["total-betting"]["error"].is_null()).await;
}

#[tokio::test]
async fn before_anything_is_recorded_the_board_says_so_in_words() {
    let url = crate::support::database().await;
    let board = LocalBoard::start(CONFIG, &url).unwrap();
    let browser = Browser::new(&board.url()).with_bearer(&board.tokens().operator);
    let page = browser.get("/").await.body;
    for text in ["not recorded yet", "This total is not ready", "No tables yet", "Nothing needs attention"] {
        assert!(page.contains(text), "{text} is missing in {page}");
    }
    assert!(!page.contains("NaN"), "{page}");
}

#[tokio::test]
async fn when_the_database_is_down_the_last_figures_stay_and_the_page_says_since_when() {
    let mut cluster = PostgreSql::start("board-down", Durability::Test).unwrap();
    let url = cluster.database().await.unwrap();
    batch(&mut ingest(CONFIG, &url), 1, &[bet(1, "final", "home", "1")]).await.unwrap();
    let board = LocalBoard::start(CONFIG, &url).unwrap();
    let browser = Browser::new(&board.url()).with_bearer(&board.tokens().operator);
    let before = browser.json("/").await.parsed();
    assert!(before["not_refreshed"].is_null(), "{before:#}");
    cluster.stop_server().unwrap();
    let since = Instant::now();
    loop {
        let page = browser.json("/").await.parsed();
        if page["not_refreshed"].is_string() {
            assert_eq!(page["sections"]["total-betting"]["groups"], before["sections"]["total-betting"]["groups"]);
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{page:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let started = Instant::now();
    let page = browser.get("/").await.body;
    assert!(page.contains("not refreshed since") && page.contains("final"), "{page}");
    assert!(started.elapsed() < Duration::from_secs(2), "a page does not wait for a database that is down");
    cluster.crash_and_restart().unwrap();
    let since = Instant::now();
    while browser.json("/").await.parsed()["not_refreshed"].is_string() {
        assert!(since.elapsed() < Duration::from_secs(60), "the board reads again once the database is back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn thousands_of_partitions_do_not_slow_the_page_down() {
    let scene = Scene::start().await;
    let partitions = "DO $$ BEGIN \
        CREATE TABLE shop.day (at date NOT NULL, id bigint) PARTITION BY RANGE (at); CREATE INDEX ON shop.day (id); \
        FOR n IN 0..1824 LOOP \
            EXECUTE format('CREATE TABLE shop.day_%s PARTITION OF shop.day FOR VALUES FROM (%L) TO (%L)', n, date '2022-01-01' + n, date '2022-01-02' + n); \
            EXECUTE format('COMMENT ON TABLE shop.day_%s IS %L', n, format('Millstream: partition of shop.day [%sT00:00:00Z, %sT00:00:00Z)', date '2022-01-01' + n, date '2022-01-02' + n)); \
        END LOOP; END $$";
    scene.client.batch_execute(partitions).await.unwrap();
    scene
        .client
        .batch_execute(
            "INSERT INTO shop.day SELECT date '2022-01-01' + n, n FROM generate_series(0, 1824) n; ANALYZE shop.day",
        )
        .await
        .unwrap();
    let page = until(&scene, |page| page["sections"]["tables"]["tables"].to_string().contains("\"day\"")).await;
    let tables = page["sections"]["tables"]["tables"].as_array().unwrap();
    let day = tables.iter().find(|table| table["name"] == "day").unwrap();
    assert_eq!((&day["partitions"], &day["rows"]), (&json!(1825), &json!(1825)), "{day:#}");
    assert!(tables.iter().all(|table| !table["name"].as_str().unwrap().starts_with("day_")), "{tables:#?}");
    let started = Instant::now();
    assert!(scene.html().await.body.len() <= 40_000);
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
}
