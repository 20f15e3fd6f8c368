//! A request to the board, read from the event of a Lambda function URL, and its response.
//!
//! The event: <https://docs.aws.amazon.com/lambda/latest/dg/urls-invocation.html#urls-payloads>.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::form_urlencoded;

use super::Transport;

/// The methods that make a difference.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RequestMethod {
    /// Read a page.
    Get,
    /// Read a page without its body.
    Head,
    /// Log in or out.
    Post,
    /// Anything else.
    Other,
}

impl RequestMethod {
    /// Reads the name of a method.
    pub fn from_name(name: &str) -> Self {
        match name {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            _ => Self::Other,
        }
    }
}

/// A request. It has no `Debug`, because it holds credentials.
pub struct BoardRequest {
    /// The method.
    pub method: RequestMethod,
    /// The path, without the query.
    pub path: String,
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The cookies, each as `name=value`.
    pub cookies: Vec<String>,
    /// The body.
    pub body: Vec<u8>,
    /// The client's address.
    pub address: String,
    /// Whether Lambda has verified a signature of the request.
    pub is_signed: bool,
}

/// The event is not that of a function URL. What it holds is not quoted: it may be a cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the event is not a request to a function URL")]
pub struct NotAnUrlEvent;

/// The members of the event that the board reads.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UrlEventRecord {
    raw_path: String,
    #[serde(default)]
    cookies: Vec<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    request_context: UrlContextRecord,
    body: Option<String>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Deserialize)]
struct UrlContextRecord {
    http: UrlHttpRecord,
    authorizer: Option<UrlAuthorizerRecord>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UrlHttpRecord {
    method: String,
    #[serde(default)]
    source_ip: String,
}

#[derive(Deserialize)]
struct UrlAuthorizerRecord {
    iam: Option<Value>,
}

impl BoardRequest {
    /// Reads the event of a function URL.
    ///
    /// # Errors
    /// Returns an error that quotes nothing of the event.
    pub fn from_event(event: &[u8]) -> Result<Self, NotAnUrlEvent> {
        let record: UrlEventRecord = serde_json::from_slice(event).map_err(|_may_quote_a_cookie| NotAnUrlEvent)?;
        let UrlEventRecord { raw_path, cookies, headers, request_context, body, is_base64_encoded } = record;
        let body = body.unwrap_or_default();
        let body = if is_base64_encoded {
            base64_simd::STANDARD.decode_to_vec(&body).map_err(|_may_quote_a_token| NotAnUrlEvent)?
        } else {
            body.into_bytes()
        };
        Ok(Self {
            method: RequestMethod::from_name(&request_context.http.method),
            path: raw_path,
            headers: headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect(),
            cookies,
            body,
            address: request_context.http.source_ip,
            is_signed: request_context.authorizer.is_some_and(|authorizer| authorizer.iam.is_some()),
        })
    }

    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies.iter().find_map(|cookie| cookie.trim().strip_prefix(name)?.strip_prefix('='))
    }

    /// The token of `Authorization: Bearer`.
    pub fn bearer(&self) -> Option<&str> {
        let (scheme, token) = self.header("authorization")?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    }

    /// Whether the client prefers JSON to HTML.
    pub fn wants_json(&self) -> bool {
        let accept = self.header("accept").unwrap_or_default();
        accept.contains("application/json") && !accept.contains("text/html")
    }

    /// A field of a form.
    pub fn form_field(&self, name: &str) -> Option<String> {
        let mut fields = form_urlencoded::parse(&self.body);
        fields.find(|(field, _)| field == name).map(|(_, value)| value.into_owned())
    }

    /// Whether a form was sent from a page of this board.
    ///
    /// A page under the policy `no-referrer` sends its forms with `Origin: null`, so that origin is accepted if the browser
    /// itself says that the page is of the same origin.
    pub fn comes_from_own_page(&self, transport: Transport) -> bool {
        let scheme = match transport {
            Transport::Https => "https",
            Transport::LocalHttp => "http",
        };
        let own_origin = self.header("host").map(|host| format!("{scheme}://{host}"));
        let origin = self.header("origin");
        match self.header("sec-fetch-site") {
            Some("same-origin") => origin == Some("null") || (origin.is_some() && origin == own_origin.as_deref()),
            Some(_) => false,
            None => origin.is_some() && origin == own_origin.as_deref(),
        }
    }
}

/// A response.
pub struct BoardResponse {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Vec<(&'static str, String)>,
    /// The cookies to set.
    pub cookies: Vec<String>,
    /// The body.
    pub body: String,
}

/// The response as a function URL expects it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UrlResponse {
    status_code: u16,
    headers: BTreeMap<&'static str, String>,
    cookies: Vec<String>,
    body: String,
    is_base64_encoded: bool,
}

impl From<BoardResponse> for UrlResponse {
    fn from(response: BoardResponse) -> Self {
        let BoardResponse { status, headers, cookies, body } = response;
        Self { status_code: status, headers: headers.into_iter().collect(), cookies, body, is_base64_encoded: false }
    }
}

impl BoardResponse {
    fn new(status: u16, content_type: &str, body: String) -> Self {
        let headers = vec![("content-type", format!("{content_type}; charset=utf-8"))];
        Self { status, headers, cookies: Vec::new(), body }
    }

    /// A message.
    pub fn text(status: u16, message: &str) -> Self {
        Self::new(status, "text/plain", format!("{message}\n"))
    }

    /// A page.
    pub fn html(status: u16, body: String) -> Self {
        Self::new(status, "text/html", body)
    }

    /// A document.
    pub fn json(status: u16, document: &Value) -> Self {
        Self::new(status, "application/json", format!("{document}\n"))
    }

    /// Another page is to be opened.
    pub fn see_other(path: &str) -> Self {
        Self::text(303, "").with_header("location", path)
    }

    /// Nothing has changed.
    pub fn not_modified() -> Self {
        Self { status: 304, headers: Vec::new(), cookies: Vec::new(), body: String::new() }
    }

    /// Adds a header.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sets a cookie.
    #[must_use]
    pub fn with_cookie(mut self, cookie: String) -> Self {
        self.cookies.push(cookie);
        self
    }

    /// Adds what keeps a response from being stored, framed, sniffed or extended.
    pub(super) fn with_security_headers(mut self, transport: Transport) -> Self {
        let fixed = [
            ("cache-control", "no-store"),
            ("content-security-policy", super::page::chrome::content_security_policy()),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("referrer-policy", "no-referrer"),
            ("vary", "accept, authorization, cookie"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
            ("x-robots-tag", "noindex"),
        ];
        self.headers.extend(fixed.map(|(name, value)| (name, value.to_owned())));
        if transport == Transport::Https {
            self.headers.push(("strict-transport-security", "max-age=63072000".to_owned()));
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(changes: &[(&str, Value)]) -> Vec<u8> {
        let mut event = json!({
            "version": "2.0", "rawPath": "/", "rawQueryString": "", "headers": {"Host": "b.example", "accept": "text/html"},
            "requestContext": {"http": {"method": "GET", "path": "/", "sourceIp": "192.0.2.1"}}, "isBase64Encoded": false,
        });
        for (pointer, value) in changes {
            event[*pointer] = value.clone();
        }
        event.to_string().into_bytes()
    }

    fn request(changes: &[(&str, Value)]) -> BoardRequest {
        BoardRequest::from_event(&event(changes)).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn an_event_is_read_and_a_malformed_one_is_not_quoted() {
        let cookies = json!(["other=1", "__Host-millstream=abc"]);
        let request =
            request(&[("cookies", cookies), ("body", json!("dG9rZW49YSUyQmI=")), ("isBase64Encoded", json!(true))]);
        assert_eq!(request.cookie("__Host-millstream"), Some("abc"));
        assert_eq!(request.form_field("token").as_deref(), Some("a+b"));
        assert_eq!((request.header("host"), &*request.address), (Some("b.example"), "192.0.2.1"));
        let malformed = [&b"{\"cookies\":[\"s3cret\"]}"[..], b"s3cret", b"{\"rawPath\":s3cret"];
        for event in malformed {
            let message = BoardRequest::from_event(event).map(drop).unwrap_err().to_string();
            assert!(!message.contains("s3cret"), "{message}");
        }
    }

    #[test]
    fn a_form_must_come_from_a_page_of_this_board() {
        let cases = [
            (Some("https://b.example"), Some("same-origin"), true),
            (Some("null"), Some("same-origin"), true),
            (Some("https://b.example"), None, true),
            (Some("null"), None, false),
            (None, None, false),
            (None, Some("same-origin"), false),
            (Some("https://b.example"), Some("cross-site"), false),
            (Some("https://b.example"), Some("same-site"), false),
            (Some("https://evil.example"), Some("same-origin"), false),
            (Some("http://b.example"), None, false),
        ];
        for (origin, site, accepted) in cases {
            let mut headers = json!({"host": "b.example"});
            if let Some(origin) = origin {
                headers["origin"] = json!(origin);
            }
            if let Some(site) = site {
                headers["sec-fetch-site"] = json!(site);
            }
            let request = request(&[("headers", headers)]);
            assert_eq!(request.comes_from_own_page(Transport::Https), accepted, "{origin:?} {site:?}");
        }
    }

    #[test]
    fn json_is_sent_to_those_who_ask_for_it() {
        for (accept, json) in [("application/json", true), ("text/html,application/json;q=0.9", false), ("*/*", false)]
        {
            let request = request(&[("headers", json!({"accept": accept}))]);
            assert_eq!(request.wants_json(), json, "{accept}");
        }
    }
}
