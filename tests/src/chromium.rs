//! A real browser: headless Chromium, driven through its DevTools protocol over a pair of pipes.
//!
//! The protocol: <https://chromedevtools.github.io/devtools-protocol/>. Messages are JSON and end with a zero byte.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::oneshot;

use crate::process::target;
use crate::system::SystemResult;

/// What Debian, other distributions and Google call it.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// How long an answer of the browser, or a condition, may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A running browser with one page.
pub struct Chromium {
    _process: Child,
    input: tokio::sync::Mutex<ChildStdin>,
    shared: Arc<BrowserState>,
    session: String,
    numbers: AtomicU64,
    profile: PathBuf,
}

#[derive(Default)]
struct BrowserState {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    seen: Mutex<SeenByBrowser>,
}

/// What the browser reported of a page.
#[derive(Clone, Default, Debug)]
pub struct SeenByBrowser {
    /// Errors and warnings of the console, also those about the policy.
    pub complaints: Vec<String>,
    /// The addresses of all requests.
    pub requests: Vec<String>,
}

impl Chromium {
    /// Whether a browser is installed.
    pub fn is_installed() -> bool {
        program().is_some()
    }

    /// Starts the browser with an empty profile.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub async fn start(name: &str) -> SystemResult<Self> {
        let program = program().ok_or("Chromium is not installed")?;
        let profile = target().join(format!("chromium-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&profile)?;
        let mut process = Command::new("sh")
            // It reads commands from descriptor 3 and writes answers to 4.
            .args(["-c", "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >\"$LOG\" 2>&1"])
            .arg(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .env("LOG", profile.join("log"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let input = process.stdin.take().ok_or("no pipe to Chromium")?;
        let output = process.stdout.take().ok_or("no pipe from Chromium")?;
        let shared = Arc::new(BrowserState::default());
        tokio::spawn(read(output, shared.clone()));
        let numbers = AtomicU64::new(1);
        let input = tokio::sync::Mutex::new(input);
        let mut browser = Self { _process: process, input, shared, session: String::new(), numbers, profile };
        let page = browser.call("Target.createTarget", json!({"url": "about:blank"})).await?;
        let attached = json!({"targetId": page["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attached).await?;
        attached["sessionId"].as_str().ok_or("no session")?.clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Network", "DOM", "Audits"] {
            browser.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(browser)
    }

    /// Calls a method of the protocol.
    ///
    /// # Errors
    /// Returns the browser's error.
    pub async fn call(&self, method: &str, parameters: Value) -> SystemResult<Value> {
        let id = self.numbers.fetch_add(1, Ordering::SeqCst);
        let (answer, answered) = oneshot::channel();
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, answer);
        let mut message = json!({"id": id, "method": method, "params": parameters});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.lock().await.write_all(&bytes).await?;
        let answer = tokio::time::timeout(TIMEOUT, answered)
            .await
            .map_err(|_elapsed| format!("{method} was not answered"))??;
        match answer.get("error") {
            Some(error) => Err(format!("{method}: {error}").into()),
            None => Ok(answer["result"].clone()),
        }
    }

    /// Opens an address.
    ///
    /// # Errors
    /// Returns the browser's error.
    pub async fn open(&self, url: &str) -> SystemResult<()> {
        self.call("Page.navigate", json!({"url": url})).await.map(drop)
    }

    /// The value of an expression on the page.
    ///
    /// # Errors
    /// Returns the exception that it throws.
    pub async fn evaluate(&self, expression: &str) -> SystemResult<Value> {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", asked).await?;
        match answer.get("exceptionDetails") {
            Some(exception) => Err(format!("{expression}: {exception}").into()),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// Returns the page's text if it does not become true.
    pub async fn until(&self, expression: &str) -> SystemResult<()> {
        let since = Instant::now();
        loop {
            // While a page is being replaced, there is nothing to evaluate.
            if self.evaluate(expression).await.is_ok_and(|value| value == json!(true)) {
                return Ok(());
            }
            if since.elapsed() > TIMEOUT {
                return Err(format!("not true: {expression}\n{}", self.html().await?).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until the page holds a text; runs no script on it.
    ///
    /// # Errors
    /// Returns the page if it does not.
    pub async fn until_html_holds(&self, text: &str) -> SystemResult<String> {
        let since = Instant::now();
        loop {
            let html = self.html().await.unwrap_or_default();
            if html.contains(text) {
                return Ok(html);
            }
            if since.elapsed() > TIMEOUT {
                return Err(format!("the page does not hold {text}:\n{html}").into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The page as it is now.
    ///
    /// # Errors
    /// Returns the browser's error.
    pub async fn html(&self) -> SystemResult<String> {
        let document = self.call("DOM.getDocument", json!({"depth": 0})).await?;
        let node = json!({"nodeId": document["root"]["nodeId"]});
        let html = self.call("DOM.getOuterHTML", node).await?;
        Ok(html["outerHTML"].as_str().unwrap_or_default().to_owned())
    }

    /// Gives the focus to an element; runs no script on the page.
    ///
    /// # Errors
    /// Returns the browser's error, for example if there is no such element.
    pub async fn focus(&self, selector: &str) -> SystemResult<()> {
        let document = self.call("DOM.getDocument", json!({"depth": 0})).await?;
        let wanted = json!({"nodeId": document["root"]["nodeId"], "selector": selector});
        let found = self.call("DOM.querySelector", wanted).await?;
        self.call("DOM.focus", json!({"nodeId": found["nodeId"]})).await.map(drop)
    }

    /// Types a text into the field that has the focus, and presses Enter.
    ///
    /// # Errors
    /// Returns the browser's error.
    pub async fn type_and_enter(&self, text: &str) -> SystemResult<()> {
        self.call("Input.insertText", json!({"text": text})).await?;
        self.press("Enter", 13, "\r").await
    }

    /// Presses a key.
    ///
    /// # Errors
    /// Returns the browser's error.
    pub async fn press(&self, key: &str, code: u32, text: &str) -> SystemResult<()> {
        let event = |kind: &str| json!({"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code, "text": if kind == "keyDown" { text } else { "" }});
        self.call("Input.dispatchKeyEvent", event("keyDown")).await?;
        self.call("Input.dispatchKeyEvent", event("keyUp")).await.map(drop)
    }

    /// Sets the size of the window, and whether the person prefers dark colours.
    ///
    /// # Errors
    /// Returns the browser's error.
    pub async fn resize(&self, width: u32, height: u32, scheme: &str) -> SystemResult<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", size).await?;
        let scheme = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", scheme).await.map(drop)
    }

    /// Writes a picture of the whole page.
    ///
    /// # Errors
    /// Returns the browser's error, or one of the file system.
    pub async fn screenshot(&self, file: &Path) -> SystemResult<()> {
        let shot = self.call("Page.captureScreenshot", json!({"captureBeyondViewport": true})).await?;
        let data = base64_simd::STANDARD.decode_to_vec(shot["data"].as_str().unwrap_or_default())?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(file, data)?)
    }

    /// What the browser has reported so far.
    pub fn seen(&self) -> SeenByBrowser {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.profile).unwrap_or_default();
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = NAMES.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    found.into_iter().find(|program| program.is_file())
}

async fn read(output: ChildStdout, shared: Arc<BrowserState>) {
    let mut reader = BufReader::new(output);
    let mut message = Vec::new();
    while reader.read_until(0, &mut message).await.is_ok_and(|length| length > 0) {
        message.pop();
        if let Ok(message) = serde_json::from_slice::<Value>(&message) {
            shared.receive(message);
        }
        message.clear();
    }
}

impl BrowserState {
    fn receive(&self, message: Value) {
        if let Some(id) = message["id"].as_u64() {
            let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            waiting.and_then(|waiting| waiting.send(message).ok());
            return;
        }
        let parameters = &message["params"];
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        match message["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                seen.requests.push(parameters["request"]["url"].as_str().unwrap_or_default().to_owned());
            }
            "Runtime.exceptionThrown" => seen.complaints.push(parameters["exceptionDetails"].to_string()),
            "Log.entryAdded" if parameters["entry"]["level"] != "info" && parameters["entry"]["level"] != "verbose" => {
                seen.complaints.push(parameters["entry"].to_string());
            }
            "Runtime.consoleAPICalled" => seen.complaints.push(parameters["args"].to_string()),
            // A test that reads `document.cookie` causes one.
            "Audits.issueAdded" if parameters["issue"]["code"] != "PerformanceIssue" => {
                seen.complaints.push(parameters["issue"].to_string())
            }
            _ => {}
        }
    }
}
