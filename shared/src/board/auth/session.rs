//! Sessions: a signed text in a cookie that names a role and an end, and nothing secret.

use base64_simd::URL_SAFE_NO_PAD;
use ring::hmac;

use super::super::Transport;
use super::{Role, Viewer};
use crate::timestamp::Timestamp;

/// A session ends after a working day.
pub const SESSION_SECONDS: i64 = 12 * 3_600;

/// What a session's signature is about, so that no other signature passes for it.
const PURPOSE: &str = "millstream board session 1";

/// The cookie of a board behind HTTPS. The prefix makes browsers reject one that another host has set.
const COOKIE: &str = "__Host-millstream";
/// The cookie of a board on this machine: without HTTPS a browser may reject the prefix.
const LOCAL_COOKIE: &str = "millstream-local";

/// A session that has begun.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// Whose it is.
    pub viewer: Viewer,
    /// When it ends, in seconds since 1970.
    pub expiry: i64,
    text: String,
}

/// The parts of a session's text.
struct SessionParts<'t> {
    role: Role,
    user: Option<String>,
    expiry: i64,
    signed: &'t str,
    signature: Vec<u8>,
}

impl Session {
    /// Begins a session. `key` is the secret of the token that it was begun with.
    pub fn begin(viewer: Viewer, expiry: i64, key: &[u8]) -> Self {
        let user = viewer.user.as_deref().map(|user| URL_SAFE_NO_PAD.encode_to_string(user)).unwrap_or_default();
        let signed = format!("{}.{user}.{expiry}", viewer.role.as_str());
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message(&signed).as_bytes());
        let text = format!("{signed}.{}", URL_SAFE_NO_PAD.encode_to_string(signature.as_ref()));
        Self { viewer, expiry, text }
    }

    /// The name of the cookie.
    pub fn cookie_name(transport: Transport) -> &'static str {
        match transport {
            Transport::Https => COOKIE,
            Transport::LocalHttp => LOCAL_COOKIE,
        }
    }

    /// The cookie to set.
    pub fn cookie(&self, transport: Transport, seconds: i64) -> String {
        cookie(transport, &self.text, seconds)
    }

    /// The cookie that removes the session's.
    pub fn removed_cookie(transport: Transport) -> String {
        cookie(transport, "", 0)
    }

    /// Whether a text has the form of a session that is not over. Says nothing about its signature.
    pub fn is_plausible(text: &str, now: Timestamp) -> bool {
        parse(text).is_some_and(|parts| !is_over(parts.expiry, now))
    }

    /// The role in a session's text, which tells whose keys may have signed it.
    pub fn claimed_role(text: &str) -> Option<Role> {
        parse(text).map(|parts| parts.role)
    }

    /// The viewer of a session that one of the keys has signed and that is not over.
    pub fn verify<'k>(text: &str, keys: impl Iterator<Item = &'k [u8]>, now: Timestamp) -> Option<Viewer> {
        let SessionParts { role, user, expiry, signed, signature } = parse(text)?;
        let message = message(signed);
        let mut is_valid = false;
        for key in keys {
            let key = hmac::Key::new(hmac::HMAC_SHA256, key);
            is_valid |= hmac::verify(&key, message.as_bytes(), &signature).is_ok();
        }
        (is_valid && !is_over(expiry, now)).then_some(Viewer { role, user })
    }
}

fn message(signed: &str) -> String {
    format!("{PURPOSE}\n{signed}")
}

fn is_over(expiry: i64, now: Timestamp) -> bool {
    expiry <= now.0 / 1_000_000
}

fn parse(text: &str) -> Option<SessionParts<'_>> {
    let (signed, signature) = text.rsplit_once('.')?;
    let mut parts = signed.split('.');
    let (role, user, expiry) = (Role::from_name(parts.next()?)?, parts.next()?, parts.next()?.parse().ok()?);
    let user = match user {
        "" => None,
        encoded => Some(String::from_utf8(URL_SAFE_NO_PAD.decode_to_vec(encoded).ok()?).ok()?),
    };
    let signature = URL_SAFE_NO_PAD.decode_to_vec(signature).ok()?;
    let is_complete = parts.next().is_none() && signature.len() == 32 && user.is_some() == (role == Role::User);
    is_complete.then_some(SessionParts { role, user, expiry, signed, signature })
}

fn cookie(transport: Transport, value: &str, seconds: i64) -> String {
    let secure = match transport {
        Transport::Https => "; Secure",
        Transport::LocalHttp => "",
    };
    let name = Session::cookie_name(transport);
    format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000);

    fn viewer(role: Role, user: Option<&str>) -> Viewer {
        Viewer { role, user: user.map(str::to_owned) }
    }

    fn verify(text: &str, key: &[u8], now: Timestamp) -> Option<Viewer> {
        Session::verify(text, std::iter::once(key), now)
    }

    #[test]
    fn a_session_is_valid_for_its_key_until_it_ends() {
        for viewer in [viewer(Role::Operator, None), viewer(Role::User, Some("zoë@example.com"))] {
            let session = Session::begin(viewer.clone(), 1_100, b"key");
            assert!(Session::is_plausible(&session.text, NOW));
            assert_eq!(verify(&session.text, b"key", NOW), Some(viewer));
            assert_eq!(verify(&session.text, b"other", NOW), None);
            assert_eq!(verify(&session.text, b"key", Timestamp(1_100_000_000)), None);
            assert!(!Session::is_plausible(&session.text, Timestamp(1_100_000_000)));
        }
    }

    #[test]
    fn a_changed_session_is_invalid() {
        let text = Session::begin(viewer(Role::Decision, None), 1_100, b"key").text;
        let longer = text.replace("1100", "9100");
        let other_role = text.replace("decision", "operator");
        let other_user = text.replace("decision..", "user.YQ.");
        for changed in [&longer, &other_role, &other_user, "", "....", "operator..x.y"] {
            assert_eq!(verify(changed, b"key", NOW), None, "{changed}");
        }
    }

    #[test]
    fn the_cookie_is_out_of_reach_of_scripts_and_other_hosts() {
        let session = Session::begin(viewer(Role::Operator, None), 1_100, b"key");
        let cookie = session.cookie(Transport::Https, 60);
        assert!(cookie.starts_with("__Host-millstream=operator."), "{cookie}");
        for attribute in ["Path=/", "Max-Age=60", "HttpOnly", "SameSite=Strict", "Secure"] {
            assert!(cookie.split("; ").any(|part| part == attribute), "{attribute} is missing in {cookie}");
        }
        assert!(!cookie.contains("Domain"), "{cookie}");
        assert!(Session::removed_cookie(Transport::Https).starts_with("__Host-millstream=; Path=/; Max-Age=0"));
    }
}
