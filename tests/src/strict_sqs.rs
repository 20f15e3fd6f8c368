//! The local AWS with SQS's rules for messages, which moto does not check: a proxy that rejects what AWS documents for
//! `SendMessageBatch`, and passes everything else on.
//!
//! The rules: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::local_aws::LocalAws;
use crate::system::SystemResult;

/// The limit of every queue that was created before SQS accepted 1 MiB, for a message and for a request.
const BYTES_MAX: usize = 256 * 1024;

/// The entries of one request.
const ENTRIES_MAX: usize = 10;

/// A running proxy.
pub struct StrictSqs {
    endpoint: String,
    rules: Arc<Rules>,
    server: JoinHandle<()>,
}

struct Rules {
    /// Where the local AWS listens.
    upstream: String,
    message_bytes_max: AtomicUsize,
    /// Messages with this text cannot be stored for the time being.
    failing: Mutex<Option<String>>,
    stored: AtomicU64,
    rejected: AtomicU64,
}

impl StrictSqs {
    /// Starts a proxy for the local AWS.
    ///
    /// # Errors
    /// Returns an error if no port can be opened.
    pub async fn start(aws: &LocalAws) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let rules = Arc::new(Rules {
            upstream: aws.endpoint().trim_start_matches("http://").to_owned(),
            message_bytes_max: AtomicUsize::new(BYTES_MAX),
            failing: Mutex::default(),
            stored: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
        });
        let server = tokio::spawn(serve(listener, rules.clone()));
        Ok(Self { endpoint, rules, server })
    }

    /// The value for `AWS_ENDPOINT_URL`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Sets the queues' `MaximumMessageSize`.
    pub fn set_message_bytes_max(&self, bytes: usize) {
        self.rules.message_bytes_max.store(bytes, Ordering::SeqCst);
    }

    /// Messages with this text fail with SQS's internal error, until the next call.
    pub fn fail_messages_with(&self, text: Option<&str>) {
        *self.rules.failing.lock().unwrap_or_else(PoisonError::into_inner) = text.map(str::to_owned);
    }

    /// The number of messages stored.
    pub fn stored(&self) -> u64 {
        self.rules.stored.load(Ordering::SeqCst)
    }

    /// The number of messages and requests rejected.
    pub fn rejected(&self) -> u64 {
        self.rules.rejected.load(Ordering::SeqCst)
    }
}

impl Drop for StrictSqs {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, rules: Arc<Rules>) {
    while let Ok((stream, _)) = listener.accept().await {
        let rules = rules.clone();
        let service = service_fn(move |request| answer(request, rules.clone()));
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.await.unwrap_or_default();
        });
    }
}

async fn answer(request: Request<Incoming>, rules: Arc<Rules>) -> Result<Response<Full<Bytes>>, Infallible> {
    let answered = rules.answer(request).await;
    Ok(answered.unwrap_or_else(|error| {
        let mut response = Response::new(Full::from(error.to_string()));
        *response.status_mut() = StatusCode::BAD_GATEWAY;
        response
    }))
}

impl Rules {
    async fn answer(&self, request: Request<Incoming>) -> SystemResult<Response<Full<Bytes>>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        if target != Some("AmazonSQS.SendMessageBatch") {
            return self.forward(parts.method, parts.uri, parts.headers, body).await;
        }
        let mut batch: Value = serde_json::from_slice(&body)?;
        if let Some((code, message)) = rejection_of_batch(&batch) {
            self.rejected.fetch_add(1, Ordering::SeqCst);
            return error(code, message);
        }
        let entries = std::mem::take(&mut batch["Entries"]);
        let (mut accepted, mut failed) = (Vec::new(), Vec::new());
        for entry in entries.as_array().into_iter().flatten() {
            match self.fault_of_entry(entry["MessageBody"].as_str().unwrap_or_default()) {
                None => accepted.push(entry.clone()),
                Some((code, is_sender)) => {
                    failed.push(json!({"Id": entry["Id"], "Code": code, "Message": code, "SenderFault": is_sender}));
                }
            }
        }
        self.rejected.fetch_add(failed.len() as u64, Ordering::SeqCst);
        let mut result = json!({"Successful": [], "Failed": []});
        if !accepted.is_empty() {
            self.stored.fetch_add(accepted.len() as u64, Ordering::SeqCst);
            batch["Entries"] = accepted.into();
            let body = serde_json::to_vec(&batch)?;
            let response = self.forward(parts.method, parts.uri, parts.headers, body.into()).await?;
            if response.status() != StatusCode::OK {
                return Ok(response);
            }
            result = serde_json::from_slice(&response.into_body().collect().await?.to_bytes())?;
        }
        result["Failed"] = failed.into();
        let response = Response::builder().header(CONTENT_TYPE, "application/x-amz-json-1.0");
        Ok(response.body(Full::from(result.to_string()))?)
    }

    /// SQS's code if it does not store a message, and whether it blames the sender.
    fn fault_of_entry(&self, body: &str) -> Option<(&'static str, bool)> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        if !body.chars().all(is_accepted) {
            Some(("InvalidMessageContents", true))
        } else if body.is_empty() || body.len() > self.message_bytes_max.load(Ordering::SeqCst) {
            Some(("InvalidParameterValue", true))
        } else if failing.as_ref().is_some_and(|text| body.contains(text)) {
            Some(("InternalError", false))
        } else {
            None
        }
    }

    async fn forward(
        &self,
        method: Method,
        uri: Uri,
        headers: HeaderMap,
        body: Bytes,
    ) -> SystemResult<Response<Full<Bytes>>> {
        let stream = TcpStream::connect(&self.upstream).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        let mut request = Request::builder().method(method).uri(uri).body(Full::new(body))?;
        for (name, value) in &headers {
            // The length is that of the body that is sent.
            if name != hyper::header::CONTENT_LENGTH {
                request.headers_mut().append(name, value.clone());
            }
        }
        request.headers_mut().insert(HOST, self.upstream.parse()?);
        let (mut parts, body) = sender.send_request(request).await?.into_parts();
        parts.headers.remove(hyper::header::TRANSFER_ENCODING);
        Ok(Response::from_parts(parts, Full::new(body.collect().await?.to_bytes())))
    }
}

/// The characters that SQS documents for a message.
fn is_accepted(character: char) -> bool {
    let code = u32::from(character);
    [0x9, 0xa, 0xd].contains(&code)
        || (0x20..=0xd7ff).contains(&code)
        || (0xe000..=0xfffd).contains(&code)
        || (0x1_0000..=0x10_ffff).contains(&code)
}

/// Why SQS rejects a request as a whole: its code and its message.
fn rejection_of_batch(batch: &Value) -> Option<(&'static str, &'static str)> {
    let entries = batch["Entries"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_fifo = batch["QueueUrl"].as_str().is_some_and(|url| url.ends_with(".fifo"));
    let bytes: usize = entries.iter().map(|entry| entry["MessageBody"].as_str().map_or(0, str::len)).sum();
    if entries.is_empty() {
        Some(("EmptyBatchRequest", "There should be at least one entry."))
    } else if entries.len() > ENTRIES_MAX {
        Some(("TooManyEntriesInBatchRequest", "Maximum number of entries per request are 10."))
    } else if is_fifo && entries.iter().any(|entry| entry["MessageGroupId"].is_null()) {
        Some(("MissingParameter", "The request must contain the parameter MessageGroupId."))
    } else if bytes > BYTES_MAX {
        Some(("BatchRequestTooLong", "Batch requests cannot be longer than 262144 bytes."))
    } else {
        None
    }
}

fn error(code: &str, message: &str) -> SystemResult<Response<Full<Bytes>>> {
    let body = json!({"__type": format!("com.amazonaws.sqs#{code}"), "message": message}).to_string();
    let response =
        Response::builder().status(StatusCode::BAD_REQUEST).header("x-amzn-query-error", format!("{code};Sender"));
    Ok(response.header(CONTENT_TYPE, "application/x-amz-json-1.0").body(Full::from(body))?)
}
