//! The board on this machine: an HTTP server on localhost around the same handler that the function uses.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::COOKIE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use millstream::aws::Aws;
use millstream::board::auth::tokens::{TokenError, TokenSet, TokenSource, TokenStore, generate_token, sign_user_token};
use millstream::board::http::{BoardRequest, BoardResponse, RequestMethod};
use millstream::board::{Authentication, Board, Transport};
use millstream::clock::now;
use millstream::config::{Config, DatabaseAddress};
use millstream::database::Database;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::system::SystemResult;

/// A larger body is not read to its end.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// How long a user's token is valid.
const USER_TOKEN_SECONDS: i64 = 3_600;

/// A running board.
pub struct LocalBoard {
    port: u16,
    tokens: LocalTokens,
    stop: Option<oneshot::Sender<()>>,
    server: Option<JoinHandle<()>>,
}

/// The tokens of a board on this machine.
#[derive(Clone, Debug)]
pub struct LocalTokens {
    /// For the role `operator`.
    pub operator: String,
    /// For the role `decision`.
    pub decision: String,
    /// The key for tokens of the role `user`.
    pub user_key: String,
}

impl LocalTokens {
    /// New random tokens.
    ///
    /// # Errors
    /// Returns an error if the system provides no random numbers.
    pub fn generate() -> Result<Self, TokenError> {
        Ok(Self { operator: generate_token()?, decision: generate_token()?, user_key: generate_token()? })
    }

    /// The secret that holds them.
    pub fn secret(&self) -> String {
        let Self { operator, decision, user_key } = self;
        serde_json::json!({"operator": operator, "decision": decision, "user": user_key}).to_string()
    }
}

impl LocalBoard {
    /// Starts a board of a system on a free port, in a thread of its own. `config` is the text of the system's configuration.
    ///
    /// # Errors
    /// Returns an error if the configuration is invalid or no port is free.
    pub fn start(config: &str, url: &str) -> SystemResult<Self> {
        let tokens = LocalTokens::generate()?;
        let config = Config::parse("millstream.toml", config)?;
        let database = Database::read_only(&DatabaseAddress::from_url(url), Aws::default())?;
        let set = TokenSet::parse(&tokens.secret())?;
        let access = Authentication::Tokens(TokenStore::new(TokenSource::Fixed(set)));
        let board = Arc::new(Board::new(config, database, access, Transport::LocalHttp));
        let (ready, started) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let server =
            std::thread::spawn(move || match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(serve(board, ready, stopped)),
                Err(error) => ready.send(Err(error)).unwrap_or_default(),
            });
        let port = started.recv()??;
        Ok(Self { port, tokens, stop: Some(stop), server: Some(server) })
    }

    /// The address of its first page.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Its tokens.
    pub fn tokens(&self) -> &LocalTokens {
        &self.tokens
    }

    /// A token for a user, as an application signs it that sends its users to the board. It is valid for an hour.
    pub fn user_token(&self, user: &str) -> String {
        sign_user_token(user, now().0 / 1_000_000 + USER_TOKEN_SECONDS, &self.tokens.user_key)
    }
}

impl Drop for LocalBoard {
    fn drop(&mut self) {
        self.stop.take().and_then(|stop| stop.send(()).ok());
        self.server.take().and_then(|server| server.join().ok());
    }
}

async fn serve(board: Arc<Board>, ready: mpsc::Sender<std::io::Result<u16>>, mut stopped: oneshot::Receiver<()>) {
    let listener = match TcpListener::bind("127.0.0.1:0").await {
        Ok(listener) => listener,
        Err(error) => return ready.send(Err(error)).unwrap_or_default(),
    };
    ready.send(listener.local_addr().map(|address| address.port())).unwrap_or_default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopped => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        stream.set_nodelay(true).unwrap_or_default();
        let board = board.clone();
        let service = service_fn(move |request| answer(board.clone(), request));
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            connection.await.unwrap_or_default();
        });
    }
}

async fn answer(board: Arc<Board>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes().to_vec(),
        Err(_too_large) => vec![0; BODY_BYTES_MAX],
    };
    let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap_or_default().to_owned();
    let cookies = head.headers.get_all(COOKIE).iter().map(text);
    let cookies = cookies.flat_map(|line| line.split("; ").map(str::to_owned).collect::<Vec<_>>()).collect();
    let request = BoardRequest {
        method: RequestMethod::from_name(head.method.as_str()),
        path: head.uri.path().to_owned(),
        headers: head.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect(),
        cookies,
        body,
        address: "127.0.0.1".to_owned(),
        is_signed: false,
    };
    let (response, _) = board.respond(&request).await;
    Ok(into_hyper(response))
}

fn into_hyper(response: BoardResponse) -> Response<Full<Bytes>> {
    let mut builder = Response::builder().status(response.status);
    for (name, value) in response.headers {
        builder = builder.header(name, value);
    }
    for cookie in response.cookies {
        builder = builder.header("set-cookie", cookie);
    }
    builder.body(Full::new(response.body.into())).unwrap_or_else(|_| {
        let mut failed = Response::new(Full::default());
        *failed.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        failed
    })
}
