//! A stand-in for AWS over HTTP that answers each request as a test says: for responses that neither AWS nor moto sends.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A response.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers, `content-length` excepted.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// A response with a body.
    pub fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// The same with a further header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// Answers a request by its operation: the one that `x-amz-target` names (`SendMessageBatch`), or for S3 the method and the
/// path (`GET /bucket/key`).
type Answers = Arc<dyn Fn(&str) -> Answer + Send + Sync>;

/// A running stand-in.
pub struct AwsStandIn {
    endpoint: String,
    server: JoinHandle<()>,
}

impl AwsStandIn {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// The system's.
    pub async fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        Ok(Self { endpoint, server: tokio::spawn(serve(listener, Arc::new(answer))) })
    }

    /// What `AWS_ENDPOINT_URL` is to be.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for AwsStandIn {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(listener: TcpListener, answers: Answers) {
    while let Ok((stream, _)) = listener.accept().await {
        let answers = answers.clone();
        let service = service_fn(move |request| respond(request, answers.clone()));
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.await.unwrap_or_default();
        });
    }
}

async fn respond(request: Request<Incoming>, answers: Answers) -> Result<Response<Full<Bytes>>, Infallible> {
    let target = request.headers().get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = match target {
        Some(target) => target.rsplit('.').next().unwrap_or_default().to_owned(),
        None => format!("{} {}", request.method(), request.uri().path()),
    };
    // A client may not read the response before its request has been read.
    request.into_body().collect().await.map(drop).unwrap_or_default();
    let Answer { status, headers, body } = answers(&operation);
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    Ok(response)
}
