//! A real function's process behind a Runtime API, as Lambda runs it: one event at a time, restarted when it ends.
//!
//! The API: <https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html>.

use std::collections::HashMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::local_aws::{ACCOUNT, REGION};
use crate::process::{Process, start, target, workspace};

/// The settings that a function is started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The binary.
    pub binary: PathBuf,
    /// Its environment, in addition to what Lambda sets.
    pub environment: Vec<(String, String)>,
    /// How long an invocation may take.
    pub timeout: Duration,
}

/// A function and its environment.
pub struct Function {
    settings: Settings,
    name: String,
    api: String,
    process: Process,
    events: mpsc::UnboundedSender<InvocationEvent>,
    server: JoinHandle<()>,
    shared: Arc<RuntimeState>,
    request: String,
}

/// Why an invocation failed, as Lambda reports it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FunctionError {
    /// The function returned an error.
    #[error("{0}")]
    Handled(String),
    /// The process ended without a response.
    #[error("Runtime.ExitError: the process ended")]
    Exited,
    /// It did not respond in time and was killed.
    #[error("Sandbox.Timedout: the invocation took longer than {0:?}")]
    TimedOut(Duration),
}

struct InvocationEvent {
    id: String,
    payload: Bytes,
    deadline: u128,
    arn: String,
}

type Answer = Result<Bytes, String>;

#[derive(Default)]
struct RuntimeState {
    waiting: Mutex<HashMap<String, oneshot::Sender<Answer>>>,
    polls: AtomicU64,
}

impl Function {
    /// Starts the process and its Runtime API.
    ///
    /// # Errors
    /// Returns an error of the operating system.
    pub async fn start(settings: Settings) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let api = listener.local_addr()?.to_string();
        let shared = Arc::new(RuntimeState::default());
        let (events, received) = mpsc::unbounded_channel();
        let server = tokio::spawn(serve(listener, Arc::new(Mutex::new(received)), shared.clone()));
        let name = settings.binary.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let process = start_process(&settings, &name, &api)?;
        Ok(Self { settings, name, api, process, events, server, shared, request: String::new() })
    }

    /// Where the function's log is.
    pub fn log(&self) -> PathBuf {
        log_of(&self.name, &self.api)
    }

    /// The last invocation's request id.
    pub fn request(&self) -> &str {
        &self.request
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Waits until the function asks for its first event; the caller measures the time.
    pub async fn first_poll(&self) {
        while self.shared.polls.load(Ordering::SeqCst) == 0 {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }

    /// Delivers an event and waits for the response.
    ///
    /// # Errors
    /// Returns the errors that Lambda reports; a process that has ended is started again.
    pub async fn invoke(&mut self, payload: impl Into<Bytes>) -> Result<Bytes, FunctionError> {
        let id = request_id();
        self.request.clone_from(&id);
        let (tell, mut told) = oneshot::channel();
        self.shared.waiting.lock().await.insert(id.clone(), tell);
        let timeout = self.settings.timeout;
        let deadline =
            (SystemTime::now() + timeout).duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let arn = arn(&self.name);
        self.events.send(InvocationEvent { id, payload: payload.into(), deadline, arn }).unwrap_or_default();
        let since = Instant::now();
        loop {
            match tokio::time::timeout(Duration::from_millis(50), &mut told).await {
                Ok(Ok(answer)) => return answer.map_err(FunctionError::Handled),
                Ok(Err(_)) => return self.restart(FunctionError::Exited),
                Err(_) if self.process.try_wait().is_ok_and(|ended| ended.is_some()) => {
                    return self.restart(FunctionError::Exited);
                }
                Err(_) if since.elapsed() > timeout => return self.restart(FunctionError::TimedOut(timeout)),
                Err(_) => {}
            }
        }
    }

    /// Kills the process, as Lambda ends an environment.
    pub fn kill(&mut self) {
        self.process.kill().unwrap_or_default();
        self.process.wait().map(drop).unwrap_or_default();
    }

    fn restart(&mut self, error: FunctionError) -> Result<Bytes, FunctionError> {
        self.kill();
        match start_process(&self.settings, &self.name, &self.api) {
            Ok(process) => self.process = process,
            Err(fault) => return Err(FunctionError::Handled(format!("could not restart the function: {fault}"))),
        }
        Err(error)
    }
}

impl Drop for Function {
    fn drop(&mut self) {
        self.kill();
        self.server.abort();
    }
}

fn log_of(name: &str, api: &str) -> PathBuf {
    target().join("logs").join(format!("{name}-{}.log", api.replace([':', '.'], "-")))
}

fn start_process(settings: &Settings, name: &str, api: &str) -> std::io::Result<Process> {
    std::fs::create_dir_all(target().join("logs"))?;
    start(&settings.binary, None, &log_of(name, api), |command| {
        command
            .env("AWS_LAMBDA_RUNTIME_API", api)
            .env("AWS_LAMBDA_FUNCTION_NAME", name)
            .env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "512")
            .env("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST")
            .envs(settings.environment.iter().map(|(name, value)| (name, value)));
    })
}

/// The names of all functions: a folder each.
///
/// # Errors
/// Returns an error if the folder of the functions cannot be read.
pub fn names() -> std::io::Result<Vec<String>> {
    let folders = std::fs::read_dir(workspace().join("functions"))?;
    folders.map(|folder| Ok(folder?.file_name().to_string_lossy().into_owned())).collect()
}

/// A new request id.
pub fn request_id() -> String {
    static REQUESTS: AtomicU64 = AtomicU64::new(0);
    format!("00000000-0000-4000-8000-{:012}", REQUESTS.fetch_add(1, Ordering::Relaxed))
}

/// A function's ARN.
pub fn arn(name: &str) -> String {
    format!("arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}")
}

/// The binary of a function, built by cargo beside the running program or in the other profile's folder.
pub fn binary(name: &str) -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folders = own.ancestors().skip(1).take(2).map(Path::to_owned);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| std::io::Error::other(format!("the binary {name} is not built; run `cargo build --workspace`")))
}

type Received = Arc<Mutex<mpsc::UnboundedReceiver<InvocationEvent>>>;

async fn serve(listener: TcpListener, events: Received, shared: Arc<RuntimeState>) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap_or_default();
        let (events, shared) = (events.clone(), shared.clone());
        let service = service_fn(move |request| answer(request, events.clone(), shared.clone()));
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.await.unwrap_or_default();
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    events: Received,
    shared: Arc<RuntimeState>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let parts: Vec<&str> = path.trim_start_matches("/2018-06-01/runtime/").split('/').collect();
    let response = match parts[..] {
        ["invocation", "next"] => {
            shared.polls.fetch_add(1, Ordering::SeqCst);
            match events.lock().await.recv().await {
                Some(event) => next(event),
                None => status(StatusCode::GONE),
            }
        }
        ["invocation", id, outcome @ ("response" | "error")] => {
            let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let answer =
                if outcome == "response" { Ok(body) } else { Err(String::from_utf8_lossy(&body).into_owned()) };
            if let Some(waiting) = shared.waiting.lock().await.remove(id) {
                waiting.send(answer).unwrap_or_default();
            }
            status(StatusCode::ACCEPTED)
        }
        _ => status(StatusCode::NOT_FOUND),
    };
    Ok(response)
}

fn next(event: InvocationEvent) -> Response<Full<Bytes>> {
    let response = Response::builder()
        .header("lambda-runtime-aws-request-id", event.id)
        .header("lambda-runtime-deadline-ms", event.deadline.to_string())
        .header("lambda-runtime-invoked-function-arn", event.arn)
        .header("lambda-runtime-trace-id", "Root=1-00000000-000000000000000000000000;Sampled=0")
        .body(Full::new(event.payload));
    response.unwrap_or_else(|_| status(StatusCode::INTERNAL_SERVER_ERROR))
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
