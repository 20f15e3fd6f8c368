//! The board in a real browser.

use millstream_tests::board::LocalBoard;
use millstream_tests::chromium::Chromium;
use millstream_tests::postgresql::{Durability, PostgreSql};
use millstream_tests::process::target;
use serde_json::json;

use super::{CONFIG, Scene, bet};
use crate::support::{batch, ingest, rows, skip_without};

/// A browser; `None` if none is installed: the test is skipped, and `make test` says so.
async fn browser(name: &str) -> Option<Chromium> {
    if !skip_without(Chromium::is_installed(), "Chromium", "MILLSTREAM_REQUIRE_CHROMIUM") {
        return None;
    }
    Some(Chromium::start(name).await.unwrap())
}

/// Opens the board and signs in through its form, with the keyboard.
async fn sign_in(browser: &Chromium, board: &LocalBoard) {
    browser.open(&board.url()).await.unwrap();
    send_form(browser, board).await;
}

/// Types the token into the form, once it has the focus, and waits for the page.
async fn send_form(browser: &Chromium, board: &LocalBoard) {
    browser.until("document.activeElement.id == 'token'").await.unwrap();
    browser.type_and_enter(&board.tokens().operator).await.unwrap();
    browser.until("document.querySelector('#sources') != null").await.unwrap();
}

/// The browser had nothing to complain about, and sent requests nowhere else.
fn assert_quiet(browser: &Chromium, board: &LocalBoard) {
    let seen = browser.seen();
    // The form is a response with status 401, which the console mentions.
    let complaints: Vec<&String> = seen.complaints.iter().filter(|complaint| !complaint.contains("401")).collect();
    assert!(complaints.is_empty(), "{complaints:#?}");
    let own = board.url();
    let foreign: Vec<&String> =
        seen.requests.iter().filter(|url| !url.starts_with(&own) && *url != "about:blank").collect();
    assert!(foreign.is_empty() && !seen.requests.is_empty(), "{foreign:?}");
    assert!(seen.requests.iter().all(|url| !url.contains(&board.tokens().operator)), "{:?}", seen.requests);
}

#[tokio::test]
async fn figures_change_on_the_page_and_equal_those_of_sql() {
    let Some(browser) = browser("figures").await else { return };
    let scene = Scene::start().await;
    browser.resize(1280, 900, "light").await.unwrap();
    sign_in(&browser, &scene.board).await;
    let figures = "[...document.querySelectorAll('#total-betting .group')].map(g => [...g.querySelectorAll('.row')].map(r => \
        [g.querySelector('h3 bdi').textContent, r.querySelector('dt').textContent, r.querySelector('dd.n').firstChild.textContent.trim()]\
    ).filter(r => r[0] == 'cup')).flat()";
    assert_eq!(browser.evaluate(figures).await.unwrap(), json!([["cup", "home", "7"]]));
    // What a person does on the page survives a refresh: the focus, what is open, where the page is.
    let prepare = "document.querySelector('details').open = true; document.querySelector('#sources .scroll').focus(); \
        document.documentElement.scrollTop = 120; document.querySelector('#total-betting').marked = true; document.title";
    browser.evaluate(prepare).await.unwrap();
    let before = browser.evaluate("document.documentElement.scrollTop").await.unwrap();

    batch(&mut ingest(CONFIG, &scene.url), 10, &[bet(9, "cup", "away", "1234.40")]).await.unwrap();
    browser.until("document.querySelector('#total-betting').textContent.includes('1,234')").await.unwrap();
    let sql = "SELECT 'cup', side, to_char(round(staked), 'FM9,999') AS staked FROM shop.betting WHERE game = 'cup' ORDER BY side";
    assert_eq!(rows(&scene.client, sql).await.len(), 2);
    let expected = json!([["cup", "away", "1,234"], ["cup", "home", "7"]]);
    assert_eq!(browser.evaluate(figures).await.unwrap(), expected);
    let kept = "[document.querySelector('details').open, document.activeElement == document.querySelector('#sources .scroll'), \
        document.querySelector('#total-betting').marked, document.title.startsWith('(')]";
    assert_eq!(browser.evaluate(kept).await.unwrap(), json!([true, true, true, true]));
    assert_eq!(browser.evaluate("document.documentElement.scrollTop").await.unwrap(), before);
    // Ages go on between two requests.
    browser.until("/^[1-9]/.test(document.querySelector('#fresh .ago').textContent)").await.unwrap();
    assert_quiet(&browser, &scene.board);
}

#[tokio::test]
async fn the_page_fits_light_dark_and_a_phone() {
    let Some(browser) = browser("looks").await else { return };
    let scene = Scene::start().await;
    for (name, width, height, scheme) in [
        ("light", 1280, 900, "light"),
        ("dark", 1280, 900, "dark"),
        ("phone", 390, 844, "light"),
        ("phone-dark", 390, 844, "dark"),
    ] {
        browser.resize(width, height, scheme).await.unwrap();
        if name == "light" {
            sign_in(&browser, &scene.board).await;
        }
        let overflow = "document.documentElement.scrollWidth <= document.documentElement.clientWidth";
        browser.until(overflow).await.unwrap();
        browser.screenshot(&target().join(format!("board/{name}.png"))).await.unwrap();
    }
    // Every control can be reached with the keyboard, and shows it.
    browser.evaluate("document.activeElement.blur()").await.unwrap();
    browser.press("Tab", 9, "").await.unwrap();
    let outline =
        "getComputedStyle(document.activeElement).outlineStyle == 'solid' && document.activeElement.tagName == 'A'";
    browser.until(outline).await.unwrap();
    assert_quiet(&browser, &scene.board);
}

#[tokio::test]
async fn hostile_names_do_not_run() {
    let Some(browser) = browser("hostile").await else { return };
    let scene = Scene::start().await;
    sign_in(&browser, &scene.board).await;
    let found = "[document.querySelectorAll('script').length, document.querySelectorAll('[onmouseover]').length, \
        document.querySelector('#total-betting').textContent.includes('<script>alert(1)</script>')]";
    assert_eq!(browser.evaluate(found).await.unwrap(), json!([1, 0, true]));
    // Even markup that found its way into the page would not run.
    let injected = "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.ran = 1\">'); \
        const s = document.createElement('script'); s.textContent = 'window.ran = 1'; document.body.append(s); window.ran";
    assert_eq!(browser.evaluate(injected).await.unwrap(), json!(null));
    assert!(
        browser.seen().complaints.iter().any(|complaint| complaint.contains("script-src")),
        "the policy has stopped it"
    );
}

#[tokio::test]
async fn the_board_works_without_scripts() {
    let Some(browser) = browser("no-scripts").await else { return };
    let scene = Scene::start().await;
    browser.call("Emulation.setScriptExecutionDisabled", json!({"value": true})).await.unwrap();
    browser.open(&scene.board.url()).await.unwrap();
    browser.until_html_holds("Sign in").await.unwrap();
    browser.focus("#token").await.unwrap();
    browser.type_and_enter("a-wrong-token-that-is-long-enough").await.unwrap();
    browser.until_html_holds("the token is not valid").await.unwrap();
    browser.focus("#token").await.unwrap();
    browser.type_and_enter(&scene.board.tokens().operator).await.unwrap();
    browser.until_html_holds("id=\"sources\"").await.unwrap();
    batch(&mut ingest(CONFIG, &scene.url), 10, &[bet(9, "cup", "away", "4321")]).await.unwrap();
    // The page reloads by itself.
    browser.until_html_holds("4,321").await.unwrap();
    assert_quiet(&browser, &scene.board);
}

#[tokio::test]
async fn a_session_that_ends_leads_back_to_the_form() {
    let Some(browser) = browser("session").await else { return };
    let scene = Scene::start().await;
    sign_in(&browser, &scene.board).await;
    assert_eq!(browser.evaluate("document.cookie").await.unwrap(), json!(""), "no script reads the session");
    browser.call("Network.clearBrowserCookies", json!({})).await.unwrap();
    send_form(&browser, &scene.board).await;
    browser.evaluate("document.querySelector('footer button').click()").await.unwrap();
    browser.until("document.querySelector('#token') != null").await.unwrap();
    browser.open(&scene.board.url()).await.unwrap();
    browser.until("document.querySelector('#token') != null").await.unwrap();
    assert_quiet(&browser, &scene.board);
}

#[tokio::test]
async fn when_the_database_is_down_the_page_says_so_and_recovers() {
    let Some(browser) = browser("down").await else { return };
    let mut cluster = PostgreSql::start("board-browser", Durability::Test).unwrap();
    let url = cluster.database().await.unwrap();
    batch(&mut ingest(CONFIG, &url), 1, &[bet(1, "final", "home", "1")]).await.unwrap();
    let board = LocalBoard::start(CONFIG, &url).unwrap();
    sign_in(&browser, &board).await;
    cluster.stop_server().unwrap();
    browser.until("document.querySelector('#fresh').textContent.includes('not refreshed since')").await.unwrap();
    let figures = "document.querySelector('#total-betting').textContent.includes('final')";
    assert_eq!(browser.evaluate(figures).await.unwrap(), json!(true), "the last figures stay");
    cluster.crash_and_restart().unwrap();
    browser.until("document.querySelector('#fresh').textContent.startsWith('as of')").await.unwrap();
    // The board itself is gone: the page says that, too.
    drop(board);
    browser.until("document.querySelector('#polling').textContent.includes('does not answer')").await.unwrap();
}
