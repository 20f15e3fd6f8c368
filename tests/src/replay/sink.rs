//! Receives a function's dead letters. Replaces SQS and S3 as far as an ingesting function needs them: a queue that
//! accepts thousands of messages, and a bucket that discards objects.
//!
//! The local AWS needs minutes for a few thousand messages, and half of the lines of a file may be rejected.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::local_aws::{LocalAws, REGION};
use crate::system::SystemResult;

/// Holds the payloads of dead letters that are too large for a message.
const BUCKET: &str = "replay";

const SEND_MESSAGE_BATCH: &str = "AmazonSQS.SendMessageBatch";

/// Receives dead letters.
pub enum Sink {
    /// For functions that ingest.
    Own {
        /// `http://…`
        endpoint: String,
        /// What has been sent and not yet taken.
        messages: Messages,
        /// Answers the function's requests.
        server: JoinHandle<()>,
    },
    /// For functions that read queues and buckets, too.
    LocalAws {
        /// The server.
        aws: Box<LocalAws>,
        /// The URL of the dead-letter queue.
        queue: String,
    },
}

type Messages = Arc<Mutex<Vec<String>>>;

/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>
#[derive(Deserialize)]
struct SendMessageBatch {
    #[serde(rename = "Entries")]
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "MessageBody")]
    body: String,
}

impl Sink {
    /// Starts a queue and a bucket in this process.
    ///
    /// # Errors
    /// Returns an error of the operating system.
    pub async fn start() -> SystemResult<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let messages = Messages::default();
        let server = tokio::spawn(serve(listener, messages.clone()));
        Ok(Self::Own { endpoint, messages, server })
    }

    /// A queue and a bucket of the local AWS.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub async fn start_local_aws() -> SystemResult<Self> {
        let aws = Box::new(LocalAws::start().await?);
        aws_sdk_s3::Client::new(aws.config()).create_bucket().bucket(BUCKET).send().await?;
        let queue = aws.queue("dead-letters").await?;
        Ok(Self::LocalAws { aws, queue })
    }

    /// The environment of a function that sends its dead letters here.
    pub fn environment(&self) -> Vec<(String, String)> {
        let (mut environment, queue) = match self {
            Self::LocalAws { aws, queue } => (aws.environment(), queue.clone()),
            Self::Own { endpoint, .. } => {
                let variables = [
                    ("AWS_ENDPOINT_URL", endpoint.as_str()),
                    ("AWS_REGION", REGION),
                    ("AWS_ACCESS_KEY_ID", "local"),
                    ("AWS_SECRET_ACCESS_KEY", "local"),
                ];
                let owned = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
                (owned.into(), format!("{endpoint}/dead-letters"))
            }
        };
        environment.push(("DEAD_LETTER_QUEUE_URL".to_owned(), queue));
        environment.push(("ARCHIVE_BUCKET".to_owned(), BUCKET.to_owned()));
        environment
    }

    /// Removes and returns all dead letters received so far.
    ///
    /// # Errors
    /// Returns an error if the queue cannot be read.
    pub async fn take(&self) -> SystemResult<Vec<String>> {
        match self {
            Self::LocalAws { aws, queue } => Ok(aws.drain(queue).await?),
            Self::Own { messages, .. } => {
                Ok(std::mem::take(&mut *messages.lock().unwrap_or_else(PoisonError::into_inner)))
            }
        }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        match self {
            Self::Own { server, .. } => server.abort(),
            Self::LocalAws { .. } => {}
        }
    }
}

async fn serve(listener: TcpListener, messages: Messages) {
    while let Ok((stream, _)) = listener.accept().await {
        stream.set_nodelay(true).unwrap_or_default();
        let messages = messages.clone();
        let service = service_fn(move |request| answer(request, messages.clone()));
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.await.unwrap_or_default();
        });
    }
}

async fn answer(request: Request<Incoming>, messages: Messages) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers().get("x-amz-target").cloned();
    let method = request.method().clone();
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let response = match target {
        Some(target) if target == SEND_MESSAGE_BATCH => receive(&body, &messages),
        None if method == Method::PUT => Response::new(Full::default()),
        Some(_) | None => status(StatusCode::NOT_FOUND),
    };
    Ok(response)
}

fn receive(body: &[u8], messages: &Messages) -> Response<Full<Bytes>> {
    let Ok(SendMessageBatch { entries }) = serde_json::from_slice(body) else { return status(StatusCode::BAD_REQUEST) };
    let mut successful = Vec::new();
    let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
    for Entry { id, body } in entries {
        successful.push(json!({"Id": id, "MessageId": id, "MD5OfMessageBody": ""}));
        messages.push(body);
    }
    Response::new(Full::from(json!({"Successful": successful, "Failed": []}).to_string()))
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
