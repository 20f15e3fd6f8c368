//! The tokens: a secret that lists those of each role, read from Secrets Manager and compared in constant time.
//!
//! The secret is JSON: `{"operator": "…", "decision": ["…", "…"], "user": "…"}`. A role has one token, or two while it is rotated.
//! The value of `user` is not a token but a key, with which an application signs the tokens of its users:
//! `u1.USER.EXPIRY.SIGNATURE`, where USER is the user in base64url, EXPIRY is in seconds since 1970, and SIGNATURE is the base64url
//! HMAC-SHA256 of the lines `millstream board user 1`, USER and EXPIRY under the key.
//!
//! The secret is read when a plausible token arrives, at most every few seconds, and again after a minute, so that a rotated token
//! ends within a minute.

use std::time::{Duration, Instant};

use base64_simd::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::session::{SESSION_SECONDS, Session};
use super::{Denial, Role, Viewer};
use crate::aws::{Aws, describe_error};
use crate::timestamp::Timestamp;

/// Characters of base64url that hold 128 bits.
const TOKEN_CHARS_MIN: usize = 22;
/// More than any token needs, a user's included.
const TOKEN_CHARS_MAX: usize = 512;
/// Two tokens of a role are valid while one replaces the other.
const TOKENS_PER_ROLE_MAX: usize = 2;

/// A secret is read again after this time.
const SECRET_LIFETIME: Duration = Duration::from_secs(60);
/// A token that is not in the secret causes another reading, because the secret may have been rotated, but not more often.
const REREAD_INTERVAL: Duration = Duration::from_secs(5);
/// If the secret cannot be read, the last one is used for this long.
const SECRET_LIFETIME_MAX: Duration = Duration::from_secs(600);

/// What a user's signature is about.
const USER_PURPOSE: &str = "millstream board user 1";

/// Whether a text has the form of a token. Anything else is rejected without reading the secret.
pub fn is_plausible(token: &str) -> bool {
    let is_token_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (TOKEN_CHARS_MIN..=TOKEN_CHARS_MAX).contains(&token.len()) && token.chars().all(is_token_char)
}

/// A new token of 128 bits.
///
/// # Errors
/// Returns an error if the system provides no random numbers.
pub fn generate_token() -> Result<String, TokenError> {
    let mut bits = [0; 16];
    SystemRandom::new().fill(&mut bits).map_err(|_unspecified| TokenError::Random)?;
    Ok(URL_SAFE_NO_PAD.encode_to_string(bits))
}

/// The tokens are not usable.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Secrets Manager does not respond, or rejects the request.
    #[error("could not read the board's secret: {0}")]
    Secret(String),
    /// The secret does not hold tokens. Nothing of it is quoted.
    #[error("the board's secret {0}")]
    Form(&'static str),
    /// The system provides no random numbers.
    #[error("no random numbers are available")]
    Random,
}

/// The tokens of all roles. It has no `Debug`.
#[derive(Clone)]
pub struct TokenSet(Vec<RoleToken>);

#[derive(Clone)]
struct RoleToken {
    role: Role,
    secret: String,
}

/// One or two values.
#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTokens {
    operator: Option<OneOrMore>,
    decision: Option<OneOrMore>,
    user: Option<OneOrMore>,
}

impl TokenSet {
    /// Reads the JSON of the secret.
    ///
    /// # Errors
    /// Returns an error if it is not JSON of the expected form, or a token is too short.
    pub fn parse(secret: &str) -> Result<Self, TokenError> {
        let raw: RawTokens = serde_json::from_str(secret).map_err(|_may_quote_a_token| {
            TokenError::Form(
                "is not a JSON object with operator, decision and user, each a string or a list of strings",
            )
        })?;
        let mut tokens = Vec::new();
        for (role, values) in [(Role::Operator, raw.operator), (Role::Decision, raw.decision), (Role::User, raw.user)] {
            let values = match values {
                None => Vec::new(),
                Some(OneOrMore::One(value)) => vec![value],
                Some(OneOrMore::More(values)) => values,
            };
            if values.len() > TOKENS_PER_ROLE_MAX {
                return Err(TokenError::Form("has more than two tokens of a role"));
            }
            tokens.extend(values.into_iter().map(|secret| RoleToken { role, secret }));
        }
        if !tokens.iter().all(|token| is_plausible(&token.secret)) {
            return Err(TokenError::Form(
                "has a token that is not 22 to 512 characters of base64url, which is 128 bits",
            ));
        }
        if tokens.is_empty() {
            return Err(TokenError::Form("has no token"));
        }
        Ok(Self(tokens))
    }

    /// The token of the secret that equals another text. All are compared, each in constant time: the digests of both under
    /// a random key say whether they are equal, and nothing about where they differ.
    fn matching(&self, token: &str) -> Option<&RoleToken> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).ok()?;
        let mut found = None;
        for candidate in self.0.iter().filter(|candidate| candidate.role != Role::User) {
            let digest = hmac::sign(&key, candidate.secret.as_bytes());
            if hmac::verify(&key, token.as_bytes(), digest.as_ref()).is_ok() {
                found = Some(candidate);
            }
        }
        found
    }

    fn keys_of(&self, role: Role) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |token| token.role == role).map(|token| token.secret.as_bytes())
    }

    /// The session that a token begins.
    fn session(&self, token: &str, now: Timestamp) -> Option<Session> {
        let latest_end = now.0 / 1_000_000 + SESSION_SECONDS;
        if let Some(found) = self.matching(token) {
            let viewer = Viewer { role: found.role, user: None };
            return Some(Session::begin(viewer, latest_end, found.secret.as_bytes()));
        }
        for key in self.keys_of(Role::User) {
            if let Some((user, expiry)) = user_of_token(token, key).filter(|(_, expiry)| *expiry > now.0 / 1_000_000) {
                let viewer = Viewer { role: Role::User, user: Some(user) };
                return Some(Session::begin(viewer, expiry.min(latest_end), key));
            }
        }
        None
    }
}

/// Signs the token of a user, as an application does that sends its users to the board.
pub fn sign_user_token(user: &str, expiry: i64, key: &str) -> String {
    let user = URL_SAFE_NO_PAD.encode_to_string(user);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
    let signature = hmac::sign(&key, format!("{USER_PURPOSE}\n{user}\n{expiry}").as_bytes());
    format!("u1.{user}.{expiry}.{}", URL_SAFE_NO_PAD.encode_to_string(signature.as_ref()))
}

/// The user and the expiry of a token that the key has signed.
fn user_of_token(token: &str, key: &[u8]) -> Option<(String, i64)> {
    let mut parts = token.strip_prefix("u1.")?.split('.');
    let (user, expiry, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let signature = URL_SAFE_NO_PAD.decode_to_vec(signature).ok().filter(|_| parts.next().is_none())?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    hmac::verify(&key, format!("{USER_PURPOSE}\n{user}\n{expiry}").as_bytes(), &signature).ok()?;
    let user = String::from_utf8(URL_SAFE_NO_PAD.decode_to_vec(user).ok()?).ok()?;
    // No text of PostgreSQL contains U+0000.
    let is_user = !user.is_empty() && !user.contains('\0');
    Some((user, expiry.parse().ok()?)).filter(|_| is_user)
}

/// Where the tokens come from, and those that were read last.
pub struct TokenStore {
    source: TokenSource,
    read: Mutex<ReadState>,
}

/// Where the tokens come from.
pub enum TokenSource {
    /// A secret of Secrets Manager, by its ARN.
    Secret(Aws, String),
    /// These tokens.
    Fixed(TokenSet),
}

#[derive(Default)]
struct ReadState {
    tokens: Option<TokenSet>,
    read_at: Option<Instant>,
    attempted_at: Option<Instant>,
}

/// How old the tokens may be.
#[derive(Clone, Copy)]
enum SecretAge {
    /// As old as [`SECRET_LIFETIME`].
    Usual,
    /// As old as [`REREAD_INTERVAL`]: a token was not among them.
    Latest,
}

impl TokenStore {
    /// Creates a store that has read nothing yet.
    pub fn new(source: TokenSource) -> Self {
        Self { source, read: Mutex::default() }
    }

    /// The viewer that a token belongs to.
    ///
    /// # Errors
    /// Returns a denial if the token is wrong, or if the tokens could not be read.
    pub async fn viewer_of_token(&self, token: &str, now: Timestamp) -> Result<Viewer, Denial> {
        self.start_session(token, now).await.map(|session| session.viewer)
    }

    /// Begins the session of a token.
    ///
    /// # Errors
    /// See [`Self::viewer_of_token`].
    pub async fn start_session(&self, token: &str, now: Timestamp) -> Result<Session, Denial> {
        self.find(|tokens| tokens.session(token, now)).await
    }

    /// The viewer of a session.
    ///
    /// # Errors
    /// Returns a denial if no present token has begun the session, or if the tokens could not be read.
    pub async fn viewer_of_session(&self, session: &str, now: Timestamp) -> Result<Viewer, Denial> {
        let Some(role) = Session::claimed_role(session) else { return Err(Denial::NotSignedIn) };
        let viewer = self.find(|tokens| Session::verify(session, tokens.keys_of(role), now)).await;
        // A session whose token was rotated is not an attempt to log in.
        viewer.map_err(|denial| if denial == Denial::WrongCredentials { Denial::NotSignedIn } else { denial })
    }

    /// What the tokens say and, if they say nothing, what the latest ones say.
    async fn find<T>(&self, find: impl Fn(&TokenSet) -> Option<T>) -> Result<T, Denial> {
        if let Some(found) = find(&self.tokens(SecretAge::Usual).await?) {
            return Ok(found);
        }
        find(&self.tokens(SecretAge::Latest).await?).ok_or(Denial::WrongCredentials)
    }

    async fn tokens(&self, age: SecretAge) -> Result<TokenSet, Denial> {
        let (aws, arn) = match &self.source {
            TokenSource::Fixed(tokens) => return Ok(tokens.clone()),
            TokenSource::Secret(aws, arn) => (aws, arn),
        };
        let age_max = match age {
            SecretAge::Usual => SECRET_LIFETIME,
            SecretAge::Latest => REREAD_INTERVAL,
        };
        let mut read = self.read.lock().await;
        let is_young = |time: Option<Instant>, age: Duration| time.is_some_and(|time| time.elapsed() < age);
        if !is_young(read.read_at, age_max) && !is_young(read.attempted_at, REREAD_INTERVAL) {
            read.attempted_at = Some(Instant::now());
            match read_secret(aws, arn).await {
                Ok(tokens) => {
                    read.tokens = Some(tokens);
                    read.read_at = Some(Instant::now());
                }
                Err(error) => tracing::error!(%error, "operator action required"),
            }
        }
        let usable = read.tokens.clone().filter(|_| is_young(read.read_at, SECRET_LIFETIME_MAX));
        usable.ok_or(Denial::Unavailable)
    }
}

async fn read_secret(aws: &Aws, arn: &str) -> Result<TokenSet, TokenError> {
    let client = aws_sdk_secretsmanager::Client::new(aws.config().await);
    let response = client.get_secret_value().secret_id(arn).send().await;
    let response =
        response.map_err(|error| TokenError::Secret(describe_error("Secrets Manager GetSecretValue", &error)))?;
    TokenSet::parse(response.secret_string().ok_or(TokenError::Form("is not text"))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPERATOR: &str = "operator-0123456789abcdef";
    const DECISION: &str = "decision-0123456789abcdef";
    const KEY: &str = "user-key-0123456789abcdef";
    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn tokens() -> TokenSet {
        let secret =
            format!(r#"{{"operator":"{OPERATOR}","decision":["{DECISION}","old-{DECISION}"],"user":"{KEY}"}}"#);
        TokenSet::parse(&secret).map_err(|error| error.to_string()).unwrap()
    }

    fn role(token: &str) -> Option<Role> {
        tokens().session(token, NOW).map(|session| session.viewer.role)
    }

    #[test]
    fn a_token_has_the_role_of_its_entry_and_two_are_valid_during_rotation() {
        assert_eq!(role(OPERATOR), Some(Role::Operator));
        assert_eq!(role(DECISION), Some(Role::Decision));
        assert_eq!(role(&format!("old-{DECISION}")), Some(Role::Decision));
        for wrong in ["operator-0123456789abcdeg", "operator-0123456789abcde", "", KEY] {
            assert_eq!(role(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_user_s_token_is_signed_by_the_application_and_ends() {
        let token = sign_user_token("alice", 1_100, KEY);
        assert!(is_plausible(&token), "{token}");
        let session = tokens().session(&token, NOW).unwrap();
        assert_eq!((session.viewer.user.as_deref(), session.expiry), (Some("alice"), 1_100));
        assert!(tokens().session(&token, Timestamp(1_100_000_000)).is_none());
        let other = sign_user_token("bob", 1_100, "another-key-0123456789abcdef");
        assert!(tokens().session(&other, NOW).is_none());
        assert!(tokens().session(&token.replace("1100", "9100"), NOW).is_none());
    }

    #[test]
    fn generated_tokens_are_plausible_and_differ() {
        let [one, other] = [0, 1].map(|_| generate_token().map_err(|error| error.to_string()).unwrap());
        assert!(is_plausible(&one) && one != other, "{one} {other}");
    }

    #[test]
    fn short_and_surplus_tokens_are_rejected_without_quoting_them() {
        for secret in [
            r#"{"operator":"hunter2"}"#,
            r#"{"operator":["a-0123456789abcdef012345","b-0123456789abcdef012345","c-0123456789abcdef012345"]}"#,
            r#"{"hunter2":"a-0123456789abcdef012345"}"#,
            r#"{"operator":hunter2"#,
            "{}",
        ] {
            let message = TokenSet::parse(secret).map(drop).unwrap_err().to_string();
            assert!(!message.contains("hunter2") && !message.contains("0123456789"), "{message}");
        }
    }
}
