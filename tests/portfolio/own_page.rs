//! The page of a user on the board: what that user holds and the news about it, and nothing about anybody else.

use std::time::{Duration, Instant};

use millstream::board::Transport;
use millstream::board::auth::session::Session;
use millstream::board::auth::tokens::{generate_token, sign_user_token};
use millstream::board::auth::{Role, Viewer};
use millstream::clock::now;
use millstream_tests::board::LocalBoard;
use millstream_tests::chromium::Chromium;
use millstream_tests::postgresql::{Durability, PostgreSql};
use millstream_tests::process::{target, workspace};
use serde_json::{Value, json};
use tokio_postgres::Client;

use super::config;
use crate::board::client::Browser;
use crate::support::{batch_of, client, database, ingest, rows, skip_without};

/// Text that would run, reverse the page or break it if it were anything but text; the name of a company, and of a user.
const HOSTILE: &str = "<script>alert(1)</script>\u{202e}' OR true; --";

/// A database with trades, prices and news, and its board.
struct Scene {
    board: LocalBoard,
    url: String,
    client: Client,
}

impl Scene {
    async fn start(url: String) -> Self {
        let client = client(&url).await;
        let reports = std::fs::read_to_string(workspace().join("events/portfolio/report.sql")).unwrap();
        client.batch_execute(&reports).await.unwrap();
        let scene = Self { board: LocalBoard::start(&config(), &url).unwrap(), url, client };
        let trades = [
            trade("ada", "Aster", "100"),
            trade("ada", "Borealis", "12.5"),
            trade("bob", "Cobalt", "7"),
            trade("eve", HOSTILE, "1"),
            trade(HOSTILE, "Aster", "3"),
        ];
        scene.send("trades", 1, &trades).await;
        let prices = ["Aster", "Borealis", "Cobalt", HOSTILE].map(|company| price(company, "1234.5"));
        scene.send("prices", 1, &prices).await;
        let stories =
            ["Aster", "Borealis", "Cobalt", HOSTILE].map(|company| story(company, &format!("{company} grows")));
        scene.send("news", 1, &stories).await;
        scene
    }

    async fn send(&self, stream: &str, first: u64, documents: &[String]) {
        let report = batch_of(&mut ingest(&config(), &self.url), stream, first, documents).await.unwrap();
        assert_eq!(report.counts.applied, documents.len() as u64, "{report}");
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.board.url())
    }

    fn user(&self, user: &str) -> Browser {
        self.browser().with_bearer(&self.board.user_token(user))
    }

    /// The companies that a user's page lists, and the headlines.
    async fn page(&self, user: &str) -> (Vec<String>, Vec<String>) {
        listed(&self.user(user).json("/me").await.parsed())
    }
}

fn listed(page: &Value) -> (Vec<String>, Vec<String>) {
    let column = |report: &str, column: &str| {
        let rows = page["sections"][report]["rows"].as_array().unwrap_or_else(|| panic!("{page:#}"));
        rows.iter().map(|row| row[column].as_str().unwrap().to_owned()).collect()
    };
    (column("report-holdings", "company"), column("report-news", "headline"))
}

fn trade(user: &str, company: &str, shares: &str) -> String {
    let id = format!("{user}-{company}-{shares}");
    json!({"trade_id": id, "user_id": user, "company": company, "side": "buy", "shares": shares, "price": 10,
           "traded_at": now().to_string()})
    .to_string()
}

fn price(company: &str, price: &str) -> String {
    json!({"company": company, "price": price, "priced_at": now().to_string()}).to_string()
}

fn story(company: &str, headline: &str) -> String {
    json!({"news_id": headline, "company": company, "published_at": now().to_string(), "revision": 1, "headline": headline})
        .to_string()
}

#[tokio::test]
async fn each_user_sees_what_they_hold_and_nothing_else() {
    let scene = Scene::start(database().await).await;
    for (user, companies) in
        [("ada", &["Aster", "Borealis"][..]), ("bob", &["Cobalt"]), ("eve", &[HOSTILE]), ("nobody", &[])]
    {
        let (held, headlines) = scene.page(user).await;
        assert_eq!(held, companies, "{user}");
        // Borealis weighs more than a tenth, as everything that is held here.
        let expected = companies.iter().map(|company| format!("{company} grows"));
        let mut headlines = headlines;
        headlines.sort();
        assert_eq!(headlines, expected.collect::<Vec<_>>(), "{user}");
    }
    // A user whose name is SQL sees what is theirs.
    assert_eq!(scene.page(HOSTILE).await.0, ["Aster"]);
    for almost in ["ad%", "Ada", "ada ", "ada'; --", "ada' OR true; --"] {
        assert_eq!(scene.page(almost).await, (vec![], vec![]), "{almost:?}");
    }
    let holdings = scene.user("ada").json("/me").await.parsed()["sections"]["report-holdings"].clone();
    let first = json!({"company": "Aster", "shares": "100", "price": "1234.5", "value": "123450.0",
                       "weight": holdings["rows"][0]["weight"]});
    assert_eq!(holdings["rows"][0], first, "numbers are exact");
    let html = scene.user("ada").get("/").await;
    assert_eq!((html.status, html.header("location")), (303, Some("/me")));
    let html = scene.user("ada").get("/me").await.body;
    for text in ["What you hold", "123,450", "88.9 %", "1,234.50", "12.50", "Aster grows"] {
        assert!(html.contains(text), "{text} is missing in {html}");
    }
    for text in ["Cobalt", "bob", "trades", "Dead letters"] {
        assert!(!html.contains(text), "{text} is in {html}");
    }
}

#[tokio::test]
async fn nothing_of_a_request_names_another_user() {
    let scene = Scene::start(database().await).await;
    let ada = scene.user("ada");
    for path in ["/me/bob", "/me/", "/bob", "/reports/bob", "/totals/holdings", "/ME"] {
        let answer = ada.json(path).await;
        assert!(matches!(answer.status, 403 | 404), "{path}: {}", answer.body);
        assert!(!answer.body.contains("Cobalt"), "{path}: {}", answer.body);
    }
    let headers = [("x-user", "bob"), ("x-board-user", "bob"), ("cookie", "user=bob"), ("accept", "application/json")];
    for path in ["/me?user=bob", "/me?reader=bob", "/me#bob", "/me"] {
        let answer = ada.send("GET", path.split('#').next().unwrap(), &headers, "user=bob&reader=bob").await;
        assert_eq!(listed(&answer.parsed()).0, ["Aster", "Borealis"], "{path}");
    }
    // Other roles are not users, and see totals over all of them.
    for token in [&scene.board.tokens().operator, &scene.board.tokens().decision] {
        let answer = scene.browser().with_bearer(token).json("/me").await;
        assert_eq!(answer.status, 403, "{}", answer.body);
    }
    let all = scene.browser().with_bearer(&scene.board.tokens().decision).json("/").await.parsed();
    let groups = &all["sections"]["total-holdings"]["groups"];
    let aster = json!({"name": "Aster", "whole": "1030", "parts": [{"name": "", "value": "1030", "kept": null, "over_limit": false}]});
    assert_eq!(groups[0], aster, "{groups:#}");
    assert!(!all.to_string().contains("ada"), "the total on the board names no user: {all:#}");
}

#[tokio::test]
async fn forged_and_foreign_tokens_and_sessions_open_nothing() {
    let scene = Scene::start(database().await).await;
    let key = scene.board.tokens().user_key.clone();
    let later = now().0 / 1_000_000 + 600;
    let [ada, bob] = ["ada", "bob"].map(|user| sign_user_token(user, later, &key));
    let part = |token: &str, index: usize| token.split('.').nth(index).unwrap().to_owned();
    let forged = [
        // bob's name with ada's signature, and the other way round.
        format!("u1.{}.{later}.{}", part(&bob, 1), part(&ada, 3)),
        format!("u1.{}.{}.{}", part(&bob, 1), later + 1, part(&bob, 3)),
        sign_user_token("bob", later, &generate_token().unwrap()),
        sign_user_token("bob", later, &scene.board.tokens().operator),
        sign_user_token("bob", later, ""),
        sign_user_token("bob", now().0 / 1_000_000 - 1, &key),
        sign_user_token("", later, &key),
        sign_user_token("bob\0", later, &key),
        format!("{bob}.{bob}"),
        format!("u1.{}.{later}.", part(&bob, 1)),
        bob.replace("u1.", "u2."),
        key.clone(),
    ];
    // One address may fail ten times a minute.
    for (index, token) in forged.iter().enumerate() {
        let answer = scene.browser().with_bearer(token).json("/me").await;
        assert!(matches!(answer.status, 401 | 429), "{index}: {}", answer.body);
        assert!(!answer.body.contains("Cobalt"), "{index}: {}", answer.body);
    }
    let board = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millstream board' AND datname = current_database()";
    assert_eq!(rows(&scene.client, board).await, [r#"{"count":0}"#], "nobody has been let in");

    // A session in which the user is exchanged, and one that another key has signed.
    let scene = Scene::start(database().await).await;
    let mut browser = scene.browser();
    let answer = browser.log_in(&scene.board.user_token("ada")).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/me")), "{}", answer.body);
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(listed(&browser.json("/me").await.parsed()).0, ["Aster", "Borealis"]);
    let [encoded_ada, encoded_bob] = ["ada", "bob"].map(|user| base64_simd::URL_SAFE_NO_PAD.encode_to_string(user));
    assert!(cookie.contains(&encoded_ada), "{cookie}");
    let bob = Viewer { role: Role::User, user: Some("bob".to_owned()) };
    let signed_elsewhere = Session::begin(bob, later, generate_token().unwrap().as_bytes());
    let signed_elsewhere = signed_elsewhere.cookie(Transport::LocalHttp, 600);
    for session in [&cookie.replace(&encoded_ada, &encoded_bob), signed_elsewhere.split(';').next().unwrap()] {
        let answer = scene.browser().with_cookie(session).json("/me").await;
        assert_eq!(answer.status, 401, "{}", answer.body);
    }
}

#[tokio::test]
async fn users_who_ask_at_once_get_their_own_pages() {
    let scene = Scene::start(database().await).await;
    let expected =
        [("ada", vec!["Aster", "Borealis"]), ("bob", vec!["Cobalt"]), ("eve", vec![HOSTILE]), ("nobody", vec![])];
    let browsers = expected.each_ref().map(|(user, companies)| (scene.user(user), companies));
    for _ in 0..10 {
        let requests = browsers
            .iter()
            .cycle()
            .take(40)
            .map(async |(browser, companies)| (listed(&browser.json("/me").await.parsed()).0, *companies));
        for (held, companies) in futures_util::future::join_all(requests).await {
            assert_eq!(&held, companies);
        }
    }
    // More users than the board remembers: each still gets the own page.
    for number in 0..100 {
        assert_eq!(scene.page(&format!("stranger-{number}")).await.0, [""; 0]);
    }
    assert_eq!(scene.page("bob").await.0, ["Cobalt"]);
}

#[tokio::test]
async fn a_report_that_fails_fails_alone_and_names_no_cause() {
    let scene = Scene::start(database().await).await;
    let held = scene.page("ada").await.0;
    scene.client.batch_execute("DROP FUNCTION portfolio.user_news(text)").await.unwrap();
    let since = Instant::now();
    let page = loop {
        let page = scene.user("ada").json("/me").await.parsed();
        if page["sections"]["report-news"]["could_not_be_refreshed"] == true {
            break page;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{page:#}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert_eq!(listed(&page).0, held, "{page:#}");
    assert_eq!(page["sections"]["report-holdings"]["could_not_be_refreshed"], false, "{page:#}");
    assert_eq!(listed(&page).1.len(), 2, "the last rows stay: {page:#}");
    let html = scene.user("ada").get("/me").await.body;
    assert!(
        html.contains("This could not be refreshed") && !html.contains("42883") && !html.contains("user_news"),
        "{html}"
    );
    // A user who has not been here before sees that there is nothing to see yet.
    let html = scene.user("bob").get("/me").await.body;
    assert!(html.contains("This cannot be read at the moment") && html.contains("Cobalt"), "{html}");
}

#[tokio::test]
async fn when_the_database_is_down_a_user_s_last_rows_stay() {
    let mut cluster = PostgreSql::start("portfolio-board", Durability::Test).unwrap();
    let scene = Scene::start(cluster.database().await.unwrap()).await;
    let before = scene.page("ada").await;
    cluster.stop_server().unwrap();
    let since = Instant::now();
    let down = loop {
        let page = scene.user("ada").json("/me").await.parsed();
        if page["not_refreshed"].is_string() {
            break page;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "{page:#}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!((listed(&down), &down["not_refreshed"]), (before, &json!("the database could not be read")));
    let html = scene.user("ada").get("/me").await.body;
    assert!(html.contains("not refreshed since") && !html.contains("127.0.0.1"), "{html}");
    let started = Instant::now();
    let html = scene.user("bob").get("/me").await.body;
    assert!(html.contains("the database could not be read") && !html.contains("127.0.0.1"), "{html}");
    assert!(started.elapsed() < Duration::from_secs(2), "others do not wait for a database that is down");
    cluster.crash_and_restart().unwrap();
    let since = Instant::now();
    while scene.user("bob").json("/me").await.parsed()["not_refreshed"].is_string() {
        assert!(since.elapsed() < Duration::from_secs(60), "the board reads again once the database is back");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn in_a_browser_a_trade_and_its_news_appear_on_the_user_s_page() {
    if !skip_without(Chromium::is_installed(), "Chromium", "MILLSTREAM_REQUIRE_CHROMIUM") {
        return;
    }
    let browser = Chromium::start("portfolio").await.unwrap();
    let scene = Scene::start(database().await).await;
    browser.resize(390, 844, "light").await.unwrap();
    browser.open(&scene.board.url()).await.unwrap();
    browser.until("document.activeElement.id == 'token'").await.unwrap();
    browser.type_and_enter(&scene.board.user_token("eve")).await.unwrap();
    browser.until("document.querySelector('#report-holdings tbody tr') != null").await.unwrap();
    let held = "[...document.querySelectorAll('#report-holdings tbody tr')].map(tr => [...tr.children].map(td => td.textContent))";
    let own = HOSTILE.replace('\u{202e}', "");
    assert_eq!(browser.evaluate(held).await.unwrap(), json!([[own, "1", "1,234.50", "1,234.50", "100.0 %"]]));
    let found =
        "[document.querySelectorAll('script').length, document.body.textContent.includes('Cobalt'), location.pathname]";
    assert_eq!(browser.evaluate(found).await.unwrap(), json!([1, false, "/me"]));

    scene.send("trades", 10, &[trade("eve", "Cobalt", "3")]).await;
    browser.until("document.querySelector('#report-holdings').textContent.includes('Cobalt')").await.unwrap();
    let sql = "SELECT company, to_char(shares, 'FM999'), to_char(price, 'FM9,999.00'), to_char(value, 'FM9,999.00'), \
               to_char(100 * weight, 'FM990.0') || ' %' FROM portfolio.holdings('eve') LIMIT 1";
    let row = scene.client.query_one(sql, &[]).await.unwrap();
    let expected: Vec<String> = (0..5).map(|index| row.get(index)).collect();
    assert_eq!(browser.evaluate(held).await.unwrap()[0], json!(expected), "the figures equal those of SQL");
    scene.send("news", 10, &[story("Cobalt", "Cobalt finds gold")]).await;
    browser.until("document.querySelector('#report-news').textContent.includes('Cobalt finds gold')").await.unwrap();
    let overflow = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
    browser.until(overflow).await.unwrap();
    browser.screenshot(&target().join("board/portfolio-phone.png")).await.unwrap();
    browser.resize(1280, 900, "dark").await.unwrap();
    browser.until(overflow).await.unwrap();
    browser.screenshot(&target().join("board/portfolio-dark.png")).await.unwrap();
    let seen = browser.seen();
    let complaints: Vec<&String> = seen.complaints.iter().filter(|complaint| !complaint.contains("401")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let own = scene.board.url();
    assert!(seen.requests.iter().all(|url| url.starts_with(&own) || url == "about:blank"), "{:?}", seen.requests);
    assert!(seen.requests.iter().all(|url| !url.contains("eve")), "no address names the user: {:?}", seen.requests);
}
