//! The board: a web page of a system, its totals for those who decide and its state for those who operate it.
//!
//! A request is authenticated ([`auth`]), a snapshot of the database is taken unless there is one of this second ([`snapshot`]),
//! and a page ([`page`]) turns it into sections, as HTML or JSON. Everything is read: from `millstream.minute`,
//! `millstream.event`, PostgreSQL's catalog and the configured totals, by a role that can read nothing else.
//!
//! Invariants:
//! - A request without valid credentials causes no database query, and at most one call of Secrets Manager every few seconds.
//! - However many people watch, an environment reads the state of the system at most once a second, each user's reports at most
//!   every three seconds, and each panel only as often as its own cost permits. A panel that fails does not affect others; when the database is down, the last figures stay, and the
//!   page says since when.
//! - A user's reports are read for, and kept under, the user whom a verified token or session names. Nothing else of a request
//!   decides whose they are, and a user's snapshot holds nothing else.
//! - Text from the database reaches HTML only through the template's escaping.
//! - A request or a response is never logged: both hold credentials.

pub mod auth;
pub mod http;
pub mod page;
pub mod snapshot;
mod throttle;

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use crate::clock::now;
use crate::config::Config;
use crate::database::Database;
use crate::timestamp::Timestamp;
use auth::session::{SESSION_SECONDS, Session};
use auth::tokens::TokenStore;
use auth::{Denial, Role, Viewer};
use http::{BoardRequest, BoardResponse, RequestMethod};
use page::View;
use page::chrome;
use snapshot::SnapshotReader;
use throttle::LoginThrottle;

/// The form of a login, or anything else that is sent to the board, is shorter.
const BODY_BYTES_MAX: usize = 4_096;

/// How requests reach the board, which decides about its cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// HTTPS, as Lambda's function URLs and CloudFront provide it.
    Https,
    /// HTTP on this machine. Only the demo and the tests construct it; no setting of a function does.
    LocalHttp,
}

/// Who authenticates requests.
pub enum Authentication {
    /// The board, by tokens and sessions.
    Tokens(TokenStore),
    /// Lambda: the function URL accepts signed requests only, and all of them have this role.
    Iam(Role),
}

/// What a request did, for logs and metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestOutcome {
    /// It was answered.
    Answered,
    /// It carried no credentials.
    NotSignedIn,
    /// A session began.
    SignedIn(Role),
    /// A session ended.
    SignedOut,
    /// Its credentials were wrong.
    FailedLogin,
    /// Too many wrong credentials came from its address.
    Throttled,
    /// The tokens could not be read.
    Unavailable,
}

/// The board of an environment.
pub struct Board {
    config: Config,
    reader: SnapshotReader,
    authentication: Authentication,
    transport: Transport,
    throttle: Mutex<LoginThrottle>,
}

impl Board {
    /// Creates a board that has read nothing yet.
    pub fn new(config: Config, database: Database, authentication: Authentication, transport: Transport) -> Self {
        let reader = SnapshotReader::new(database);
        Self { config, reader, authentication, transport, throttle: Mutex::default() }
    }

    /// Answers a request.
    pub async fn respond(&self, request: &BoardRequest) -> (BoardResponse, RequestOutcome) {
        let (response, outcome) = self.route(request).await;
        let mut response = response.with_security_headers(self.transport);
        if request.method == RequestMethod::Head {
            response.body.clear();
        }
        (response, outcome)
    }

    async fn route(&self, request: &BoardRequest) -> (BoardResponse, RequestOutcome) {
        let answered = |response| (response, RequestOutcome::Answered);
        if request.body.len() > BODY_BYTES_MAX {
            return answered(BoardResponse::text(413, "the request is too large"));
        }
        match (request.method, request.path.as_str()) {
            (RequestMethod::Post, "/login") if self.uses_tokens() => self.log_in(request).await,
            (RequestMethod::Post, "/logout") if self.uses_tokens() => self.log_out(request),
            (RequestMethod::Get | RequestMethod::Head, _) => self.open_page(request).await,
            (RequestMethod::Post | RequestMethod::Other, _) => {
                answered(BoardResponse::text(405, "only GET is possible here").with_header("allow", "GET, HEAD"))
            }
        }
    }

    fn uses_tokens(&self) -> bool {
        matches!(self.authentication, Authentication::Tokens(_))
    }

    async fn open_page(&self, request: &BoardRequest) -> (BoardResponse, RequestOutcome) {
        let viewer = match self.authenticate(request).await {
            Ok(viewer) => viewer,
            Err(denial) => return self.deny(request, denial),
        };
        (self.page(request, &viewer).await, RequestOutcome::Answered)
    }

    async fn page(&self, request: &BoardRequest, viewer: &Viewer) -> BoardResponse {
        let Some((page, argument)) = page::find(&request.path) else {
            let home = page::home(viewer.role).filter(|_| request.path == "/");
            return match home {
                Some(path) => BoardResponse::see_other(path),
                None => BoardResponse::text(404, "there is no such page"),
            };
        };
        if !viewer.role.may_open(page.role) {
            return match page::home(viewer.role).filter(|path| request.path == "/" && *path != "/") {
                Some(path) => BoardResponse::see_other(path),
                None => BoardResponse::text(403, "your role may not open this page"),
            };
        }
        let taken = self.reader.current(&self.config, viewer).await;
        let view = View {
            config: &self.config,
            snapshot: &taken.snapshot,
            viewer,
            argument: argument.as_deref(),
            now: taken.now,
            not_refreshed_since: taken.not_refreshed_since,
        };
        let Some(sections) = (page.sections)(&view) else {
            return BoardResponse::text(404, "there is no such page");
        };
        if request.wants_json() {
            return chrome::json(page, &view, &sections);
        }
        match request.header("x-board-have") {
            Some(have) => chrome::changed_sections(&view, &sections, have),
            None => chrome::document(page, &view, &sections, self.uses_tokens()),
        }
    }

    /// The viewer of a request. Credentials that cannot be valid are rejected before anything else happens.
    async fn authenticate(&self, request: &BoardRequest) -> Result<Viewer, Denial> {
        let store = match &self.authentication {
            Authentication::Iam(role) if request.is_signed => return Ok(Viewer { role: *role, user: None }),
            Authentication::Iam(_) => return Err(Denial::NotSignedIn),
            Authentication::Tokens(store) => store,
        };
        let session = request.cookie(Session::cookie_name(self.transport));
        let viewer = match (request.bearer(), session) {
            (Some(token), _) if auth::tokens::is_plausible(token) => {
                self.check_throttle(request)?;
                store.viewer_of_token(token, now()).await
            }
            (None, Some(session)) if Session::is_plausible(session, now()) => {
                self.check_throttle(request)?;
                store.viewer_of_session(session, now()).await
            }
            (Some(_), _) => Err(Denial::WrongCredentials),
            (None, Some(_)) | (None, None) => Err(Denial::NotSignedIn),
        };
        self.count_failure(request, &viewer);
        viewer
    }

    async fn log_in(&self, request: &BoardRequest) -> (BoardResponse, RequestOutcome) {
        let Authentication::Tokens(store) = &self.authentication else {
            return self.deny(request, Denial::NotSignedIn);
        };
        if !request.comes_from_own_page(self.transport) {
            let reason = "the form was not sent from this page; open the page again and retry";
            return (BoardResponse::text(403, reason), RequestOutcome::FailedLogin);
        }
        let token = request.form_field("token").unwrap_or_default();
        let token = token.trim();
        let session = match self.check_throttle(request) {
            Err(denial) => Err(denial),
            Ok(()) if !auth::tokens::is_plausible(token) => Err(Denial::WrongCredentials),
            Ok(()) => store.start_session(token, now()).await,
        };
        self.count_failure(request, &session);
        match session {
            Ok(session) => {
                let cookie = session.cookie(self.transport, SESSION_SECONDS);
                let home = page::home(session.viewer.role).unwrap_or("/");
                (BoardResponse::see_other(home).with_cookie(cookie), RequestOutcome::SignedIn(session.viewer.role))
            }
            Err(denial) => self.deny(request, denial),
        }
    }

    fn log_out(&self, request: &BoardRequest) -> (BoardResponse, RequestOutcome) {
        if !request.comes_from_own_page(self.transport) {
            return (BoardResponse::text(403, "the form was not sent from this page"), RequestOutcome::Answered);
        }
        let cookie = Session::removed_cookie(self.transport);
        (BoardResponse::see_other("/").with_cookie(cookie), RequestOutcome::SignedOut)
    }

    fn check_throttle(&self, request: &BoardRequest) -> Result<(), Denial> {
        let throttle = self.throttle.lock().unwrap_or_else(PoisonError::into_inner);
        if throttle.admits(&request.address, now()) { Ok(()) } else { Err(Denial::Throttled) }
    }

    fn count_failure<T>(&self, request: &BoardRequest, result: &Result<T, Denial>) {
        if matches!(result, Err(Denial::WrongCredentials)) {
            self.throttle.lock().unwrap_or_else(PoisonError::into_inner).count(&request.address, now());
        }
    }

    fn deny(&self, request: &BoardRequest, denial: Denial) -> (BoardResponse, RequestOutcome) {
        let (status, outcome) = match denial {
            Denial::NotSignedIn => (401, RequestOutcome::NotSignedIn),
            Denial::WrongCredentials => (401, RequestOutcome::FailedLogin),
            Denial::Throttled => (429, RequestOutcome::Throttled),
            Denial::Unavailable => (503, RequestOutcome::Unavailable),
        };
        let wants_html = !request.wants_json() && request.header("x-board-have").is_none();
        let response = if wants_html && self.uses_tokens() {
            chrome::login(status, denial)
        } else {
            BoardResponse::json(status, &json!({ "error": denial.to_string() }))
        };
        (response, outcome)
    }
}

/// A snapshot as one request sees it.
#[derive(Clone)]
pub struct TakenSnapshot {
    /// What was read.
    pub snapshot: Arc<snapshot::Snapshot>,
    /// The current time by the database's clock, or this machine's if the database was never reached.
    pub now: Timestamp,
    /// When the database was last read, if the latest attempts failed.
    pub not_refreshed_since: Option<snapshot::ReadFailure>,
}
