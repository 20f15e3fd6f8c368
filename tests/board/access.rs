//! Who may open the board: tokens, sessions, roles, and what protects the responses.

use millstream::board::auth::tokens::sign_user_token;

use super::client::Browser;
use super::{HOSTILE, Scene};

#[tokio::test]
async fn without_a_token_there_is_a_form_and_no_query() {
    let scene = Scene::start().await;
    let answer = scene.browser().get("/").await;
    assert_eq!(answer.status, 401);
    assert!(answer.body.contains("type=\"password\"") && !answer.body.contains("betting"), "{}", answer.body);
    let answer = scene.browser().json("/").await;
    assert_eq!((answer.status, &*answer.body), (401, "{\"error\":\"sign in to see this page\"}\n"));
    for token in ["", "short", "not a token at all, but long enough", &"x".repeat(600), "AAAAAAAAAAAAAAAAAAAAAAAA"] {
        assert_eq!(scene.browser().with_bearer(token).json("/").await.status, 401, "{token}");
    }
    let board = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'millstream board' AND datname = current_database()";
    let connected: i64 = scene.client.query_one(board, &[]).await.unwrap().get(0);
    assert_eq!(connected, 0, "nobody has been let in, so the board has not connected");
}

#[tokio::test]
async fn a_form_begins_a_session_that_ends_with_sign_out() {
    let scene = Scene::start().await;
    let mut browser = scene.browser();
    let answer = browser.log_in(&scene.board.tokens().operator).await;
    assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{}", answer.body);
    let cookie = answer.header("set-cookie").unwrap();
    for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=43200"] {
        assert!(cookie.contains(attribute), "{cookie}");
    }
    assert!(!cookie.contains(&scene.board.tokens().operator), "the cookie holds a session, not the token");
    assert_eq!(browser.get("/").await.status, 200);
    // A function behind HTTPS knows another cookie only.
    let session = cookie.split(['=', ';']).nth(1).unwrap();
    let renamed = scene.browser().with_cookie(&format!("__Host-millstream={session}"));
    assert_eq!(renamed.get("/").await.status, 401);
    let answer = browser.post("/logout", "").await;
    assert_eq!(answer.status, 303);
    assert!(answer.header("set-cookie").unwrap().contains("=; Path=/; Max-Age=0"), "{answer:?}");
}

#[tokio::test]
async fn a_form_of_another_site_is_rejected() {
    let scene = Scene::start().await;
    let form = format!("token={}", scene.board.tokens().operator);
    let own = scene.board.url();
    let own = own.trim_end_matches('/');
    for headers in [
        &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")][..],
        &[("origin", own), ("sec-fetch-site", "cross-site")],
        &[("origin", "https://evil.example")],
        &[],
    ] {
        let answer = scene.browser().send("POST", "/login", headers, &form).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (403, None), "{headers:?}");
    }
    for path in ["/", "/totals/betting", "/anything"] {
        assert_eq!(scene.browser().post(path, &form).await.status, 405, "{path}");
    }
    let answer = scene.browser().post("/login", &format!("token={}", "x".repeat(10_000))).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn failed_logins_are_slowed_down() {
    let scene = Scene::start().await;
    let mut browser = scene.browser();
    for _ in 0..10 {
        assert_eq!(browser.log_in("a-wrong-token-that-is-long-enough").await.status, 401);
    }
    assert_eq!(browser.log_in("a-wrong-token-that-is-long-enough").await.status, 429);
    assert_eq!(browser.log_in(&scene.board.tokens().operator).await.status, 429, "the address has to wait");
}

#[tokio::test]
async fn each_role_sees_its_own_sections_in_html_and_json() {
    let scene = Scene::start().await;
    let tokens = scene.board.tokens();
    let decision = scene.browser().with_bearer(&tokens.decision);
    let sections = decision.json("/").await.parsed()["sections"].clone();
    let names: Vec<&String> = sections.as_object().unwrap().keys().collect();
    assert_eq!(names, ["attention", "minutes-betting", "total-betting"]);
    let page = decision.get("/").await.body;
    assert!(page.contains("final") && !page.contains("Dead letters") && !page.contains("unexpected end"), "{page}");
    // What a client says it has does not change what it may see.
    let all = scene.html().await.tags();
    let changed = decision.send("GET", "/", &[("x-board-have", &all)], "").await;
    assert!(!changed.body.contains("id=\"sources\""), "{}", changed.body);

    let expiry = millstream::clock::now().0 / 1_000_000 + 600;
    let user = scene.browser().with_bearer(&sign_user_token("alice", expiry, &tokens.user_key));
    // A user has a page of their own, and this system has no reports to fill it with.
    for (path, status) in [("/", 303), ("/totals/betting", 403), ("/me", 404)] {
        let answer = user.json(path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    let ended = sign_user_token("alice", 1, &tokens.user_key);
    assert_eq!(scene.browser().with_bearer(&ended).json("/").await.status, 401);
    assert_eq!(scene.browser().with_bearer(&tokens.user_key).json("/").await.status, 401, "a key is not a token");
}

#[tokio::test]
async fn every_response_forbids_what_it_does_not_need() {
    let scene = Scene::start().await;
    let signed_in = scene.browser().with_bearer(&scene.board.tokens().operator);
    for answer in [
        signed_in.get("/").await,
        signed_in.json("/").await,
        scene.browser().get("/").await,
        signed_in.get("/none").await,
    ] {
        let policy = answer.header("content-security-policy").unwrap();
        for part in [
            "default-src 'none'",
            "connect-src 'self'",
            "form-action 'self'",
            "base-uri 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        let expected =
            [("cache-control", "no-store"), ("x-content-type-options", "nosniff"), ("referrer-policy", "no-referrer")];
        for (name, value) in expected {
            assert_eq!(answer.header(name), Some(value), "{answer:?}");
        }
        assert!(answer.header("etag").is_none() && !answer.body.contains("style=\""), "{answer:?}");
        assert!(answer.body.len() <= 40_000, "{} bytes", answer.body.len());
    }
}

#[tokio::test]
async fn hostile_names_are_text() {
    let scene = Scene::start().await;
    let page = scene.html().await.body;
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;&lt;b onmouseover=x&gt;"), "{page}");
    assert_eq!(page.matches("<script").count(), 1, "{page}");
    assert!(!page.contains('\u{202e}') && !page.contains("<b onmouseover"), "{page}");
    let json = scene.json().await;
    let names: Vec<&str> = json["sections"]["total-betting"]["groups"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|group| group["name"].as_str())
        .collect();
    assert!(names.contains(&HOSTILE), "JSON is exact: {names:?}");
    let lost = Browser::new(&scene.board.url()).with_bearer(&scene.board.tokens().operator);
    assert_eq!(lost.get("/totals/%3Cscript%3E").await.status, 404);
}
