//! The function itself: events of a function URL, its own secret, rotation, and what it never logs.

use std::time::{Duration, Instant};

use millstream_tests::board::LocalTokens;
use millstream_tests::function::{Function, Settings, binary};
use millstream_tests::local_aws::LocalAws;
use serde_json::{Value, json};

use super::CONFIG;
use crate::support::{Files, batch, database, ingest};

/// A request as a function URL delivers it.
fn event(method: &str, path: &str, headers: Value, cookies: &[&str], body: &str) -> Vec<u8> {
    let body = base64_simd::STANDARD.encode_to_string(body);
    json!({
        "version": "2.0", "routeKey": "$default", "rawPath": path, "rawQueryString": "", "cookies": cookies, "headers": headers,
        "requestContext": {
            "accountId": "anonymous", "apiId": "x", "domainName": "x.lambda-url.us-east-1.on.aws",
            "http": {"method": method, "path": path, "protocol": "HTTP/1.1", "sourceIp": "192.0.2.1", "userAgent": "test"},
            "requestId": "1", "routeKey": "$default", "stage": "$default",
        },
        "body": body, "isBase64Encoded": true,
    })
    .to_string()
    .into_bytes()
}

struct BoardFunction {
    function: Function,
    aws: LocalAws,
    arn: String,
    _files: Files,
}

impl BoardFunction {
    async fn start(name: &str, tokens: &LocalTokens) -> Self {
        let url = database().await;
        batch(&mut ingest(CONFIG, &url), 1, &[super::bet(1, "final", "home", "1")]).await.unwrap();
        let aws = LocalAws::start().await.unwrap();
        let secrets = aws_sdk_secretsmanager::Client::new(aws.config());
        let created = secrets.create_secret().name("board").secret_string(tokens.secret()).send().await.unwrap();
        let arn = created.arn().unwrap().to_owned();
        let files = Files::new(name);
        let mut environment = aws.environment();
        environment.extend([
            ("DATABASE_URL".to_owned(), url),
            ("MILLSTREAM_CONFIG".to_owned(), files.write("millstream.toml", CONFIG)),
            ("BOARD_SECRET_ARN".to_owned(), arn.clone()),
        ]);
        let settings = Settings { binary: binary("board").unwrap(), environment, timeout: Duration::from_secs(20) };
        Self { function: Function::start(settings).await.unwrap(), aws, arn, _files: files }
    }

    async fn send(&mut self, event: Vec<u8>) -> Value {
        serde_json::from_slice(&self.function.invoke(event).await.unwrap()).unwrap()
    }

    /// Logs in, and returns the cookie of the session.
    async fn session(&mut self, token: &str) -> String {
        let headers = json!({"host": "x.example", "origin": "https://x.example", "sec-fetch-site": "same-origin"});
        let answer = self.send(event("POST", "/login", headers, &[], &format!("token={token}"))).await;
        answer["cookies"][0].as_str().unwrap().split(';').next().unwrap().to_owned()
    }

    async fn status_of_session(&mut self, session: &str) -> Value {
        self.send(event("GET", "/", json!({"accept": "application/json"}), &[session], "")).await["statusCode"].clone()
    }

    async fn status(&mut self, token: &str) -> Value {
        let headers = json!({"authorization": format!("Bearer {token}"), "accept": "application/json"});
        self.send(event("GET", "/", headers, &[], "")).await["statusCode"].clone()
    }
}

#[tokio::test]
async fn the_function_answers_events_of_its_url_and_logs_no_credentials() {
    let tokens = LocalTokens::generate().unwrap();
    let mut board = BoardFunction::start("board-function", &tokens).await;
    let login = json!({
        "host": "x.example", "origin": "https://x.example", "sec-fetch-site": "same-origin",
        "content-type": "application/x-www-form-urlencoded",
    });
    let answer = board.send(event("POST", "/login", login.clone(), &[], &format!("token={}", tokens.operator))).await;
    assert_eq!((&answer["statusCode"], &answer["headers"]["location"]), (&json!(303), &json!("/")), "{answer:#}");
    let cookie = answer["cookies"][0].as_str().unwrap();
    assert!(cookie.starts_with("__Host-millstream=operator.") && cookie.ends_with("; Secure"), "{cookie}");
    assert!(answer["headers"]["strict-transport-security"].is_string(), "{answer:#}");
    let session = cookie.split(';').next().unwrap();
    let html = json!({"accept": "text/html"});
    let page = board.send(event("GET", "/", html.clone(), &["other=1", session], "")).await;
    assert_eq!(page["statusCode"], 200, "{page:#}");
    assert!(page["body"].as_str().unwrap().contains("final"), "{page:#}");
    assert_eq!(page["isBase64Encoded"], false);
    // The cookie of a board without HTTPS is worth nothing here.
    let local = session.replace("__Host-millstream", "millstream-local");
    assert_eq!(board.send(event("GET", "/", html, &[&local], "")).await["statusCode"], 401);
    let wrong = board.send(event("POST", "/login", login, &[], "token=wrong-but-secret-0123456789")).await;
    assert_eq!(wrong["statusCode"], 401);
    let malformed = board.send(br#"{"cookies":["__Host-millstream=s3cret"]}"#.to_vec()).await;
    assert_eq!(malformed["statusCode"], 400);
    let log = std::fs::read_to_string(board.function.log()).unwrap();
    for secret in [&*tokens.operator, &session[20..], "wrong-but-secret", "s3cret"] {
        assert!(!log.contains(secret), "the log holds {secret}:\n{log}");
    }
    assert!(log.contains("failed login") && log.contains("\"failed_logins\""), "{log}");
}

#[tokio::test]
async fn a_rotated_token_ends_and_so_do_its_sessions() {
    let (old, new) = (LocalTokens::generate().unwrap(), LocalTokens::generate().unwrap());
    let mut board = BoardFunction::start("board-rotation", &old).await;
    assert_eq!(board.status(&old.operator).await, 200);
    let secrets = aws_sdk_secretsmanager::Client::new(board.aws.config());
    let arn = board.arn.clone();
    let put = |secret: String| secrets.put_secret_value().secret_id(&arn).secret_string(secret).send();
    // While it is rotated, both are valid; the new one as soon as it is used.
    put(json!({"operator": [new.operator, old.operator]}).to_string()).await.unwrap();
    let since = Instant::now();
    let mut status = json!(401);
    while status == 401 && since.elapsed() < Duration::from_secs(60) {
        tokio::time::sleep(Duration::from_secs(2)).await;
        status = board.status(&new.operator).await;
    }
    assert_eq!(status, 200);
    assert_eq!(board.status(&old.operator).await, 200);
    let session = board.session(&old.operator).await;
    assert_eq!(board.status_of_session(&session).await, 200);
    // Then the old one is removed: it ends within a minute, and so does its session.
    put(json!({"operator": new.operator}).to_string()).await.unwrap();
    let since = Instant::now();
    while board.status_of_session(&session).await == 200 {
        assert!(since.elapsed() < Duration::from_secs(90), "the session goes on");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(board.status(&old.operator).await, 401);
    assert_eq!(board.status(&new.operator).await, 200);
}

#[tokio::test]
async fn without_a_way_to_authenticate_nothing_is_answered() {
    let files = Files::new("board-open");
    let config = files.write("millstream.toml", CONFIG);
    let environment = [("DATABASE_URL", "postgresql://localhost:1/x".to_owned()), ("MILLSTREAM_CONFIG", config)];
    let settings = Settings {
        binary: binary("board").unwrap(),
        environment: environment.map(|(name, value)| (name.to_owned(), value)).into(),
        timeout: Duration::from_secs(20),
    };
    let mut function = Function::start(settings).await.unwrap();
    let error = function.invoke(event("GET", "/", json!({}), &[], "")).await.unwrap_err().to_string();
    assert!(error.contains("BOARD_SECRET_ARN"), "{error}");
}
