//! Connections without TLS: to this machine, or with `sslmode=disable`. They never carry a password in clear text.
//!
//! The driver answers a server that asks for the password in clear text, whatever the connection. It has no option against
//! it, so the stream reads along until the login is complete, and fails before the driver sees such a request. MD5 and SCRAM
//! do not reveal the password and pass.

use std::convert::Infallible;
use std::future::Ready;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_postgres::{Config, Socket};

use super::tls::hosts;

/// The message in which the server asks for a login:
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
const AUTHENTICATION: u8 = b'R';
/// Its code for "no login is needed, or the login is complete".
const OK: u32 = 0;
/// Its code for "send the password in clear text".
const CLEARTEXT_PASSWORD: u32 = 3;

/// The type and the length of a message.
const HEADER_BYTES: usize = 5;
/// The header, and the code of an authentication request.
const REQUEST_BYTES: usize = 9;

/// A server that asks for the password in clear text without TLS.
#[derive(Debug, thiserror::Error)]
#[error(
    "{host} asks for the password in clear text, and the connection is not encrypted; connect with TLS (sslmode=verify-full), or let the server use scram-sha-256"
)]
pub struct CleartextRefusal {
    host: String,
}

impl CleartextRefusal {
    /// The refusal that caused a failed connection attempt; `None` if the cause is a different one.
    pub fn from_connect_error(error: &tokio_postgres::Error, login: &Config) -> Option<Self> {
        let source = std::error::Error::source(error)?;
        let cause = source.downcast_ref::<std::io::Error>()?.get_ref()?;
        cause.is::<CleartextRequested>().then(|| Self { host: hosts(login) })
    }
}

/// How the stream reports the request to the driver.
#[derive(Debug, thiserror::Error)]
#[error("the server asks for the password in clear text")]
struct CleartextRequested;

/// Prepares a login for [`PlaintextConnector`], which takes the part of TLS: the driver passes it the stream at once.
///
/// A Unix socket has no host name, without which the driver starts no TLS. It leads to a process of this machine, through
/// no network, so the driver's own stream serves.
pub fn prepare(login: &mut Config) {
    let is_unix = |host: &Host| matches!(host, Host::Unix(_));
    let hosts = login.get_hosts();
    if !hosts.is_empty() && hosts.iter().all(is_unix) && login.get_hostaddrs().is_empty() {
        login.ssl_mode(SslMode::Disable);
        return;
    }
    if login.get_hosts().is_empty() {
        for address in login.get_hostaddrs().to_vec() {
            login.host(address.to_string());
        }
    }
    login.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
}

/// Wraps each connection in a [`PlaintextStream`].
#[derive(Clone, Copy)]
pub struct PlaintextConnector;

impl MakeTlsConnect<Socket> for PlaintextConnector {
    type Stream = PlaintextStream<Socket>;
    type TlsConnect = Self;
    type Error = Infallible;

    fn make_tls_connect(&mut self, _domain: &str) -> Result<Self, Infallible> {
        Ok(*self)
    }
}

impl TlsConnect<Socket> for PlaintextConnector {
    type Stream = PlaintextStream<Socket>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Stream, Infallible>>;

    fn connect(self, stream: Socket) -> Self::Future {
        std::future::ready(Ok(PlaintextStream { stream, login: Some(LoginReader::default()) }))
    }
}

/// An unencrypted stream that fails when the server asks for the password in clear text.
pub struct PlaintextStream<S> {
    stream: S,
    /// `None` once the login is complete.
    login: Option<LoginReader>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for PlaintextStream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PlaintextStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if let Some(login) = &mut self.login {
            match login.read(&buffer.filled()[before..]) {
                LoginState::Pending => {}
                LoginState::Complete => self.login = None,
                LoginState::CleartextRequested => return Poll::Ready(Err(std::io::Error::other(CleartextRequested))),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PlaintextStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What the server has said about the login so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum LoginState {
    Pending,
    Complete,
    CleartextRequested,
}

/// Reads the server's messages, in whatever pieces they arrive, until the login is complete.
#[derive(Default)]
struct LoginReader {
    /// The start of the current message.
    start: [u8; REQUEST_BYTES],
    /// How many bytes of `start` are known.
    known: usize,
    /// How many bytes of the current message follow.
    to_skip: usize,
}

impl LoginReader {
    fn read(&mut self, mut bytes: &[u8]) -> LoginState {
        while !bytes.is_empty() {
            let skipped = self.to_skip.min(bytes.len());
            self.to_skip -= skipped;
            bytes = &bytes[skipped..];
            let Some((&byte, rest)) = bytes.split_first() else { break };
            bytes = rest;
            self.start[self.known] = byte;
            self.known += 1;
            match self.code() {
                Some(OK) => return LoginState::Complete,
                Some(CLEARTEXT_PASSWORD) => return LoginState::CleartextRequested,
                Some(_) | None => {}
            }
        }
        LoginState::Pending
    }

    /// The code of the current message if its last byte has just become known and it is an authentication request. Goes on
    /// to the next message if nothing more has to be known of this one.
    fn code(&mut self) -> Option<u32> {
        let is_request = self.start[0] == AUTHENTICATION;
        if self.known < if is_request { REQUEST_BYTES } else { HEADER_BYTES } {
            return None;
        }
        let [_, l0, l1, l2, l3, code @ ..] = self.start;
        // The length includes itself and excludes the type. A shorter one is an error, which the driver reports.
        self.to_skip = (u32::from_be_bytes([l0, l1, l2, l3]) as usize + 1).saturating_sub(self.known);
        self.known = 0;
        is_request.then(|| u32::from_be_bytes(code))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    fn request(code: u32, rest: &[u8]) -> Vec<u8> {
        message(b'R', &[&code.to_be_bytes()[..], rest].concat())
    }

    /// The state after the bytes arrived in pieces of a size.
    fn state(bytes: &[u8], piece: usize) -> LoginState {
        let mut reader = LoginReader::default();
        for piece in bytes.chunks(piece) {
            let state = reader.read(piece);
            if !matches!(state, LoginState::Pending) {
                return state;
            }
        }
        LoginState::Pending
    }

    #[test]
    fn a_request_for_the_password_is_found_in_pieces_of_any_size() {
        let notice = message(b'N', b"R\0\0\0\x08\0\0\0\x03 is text here");
        let scram = request(10, b"SCRAM-SHA-256\0\0");
        let ok = request(0, b"");
        for (messages, expected) in [
            (vec![request(3, b"")], LoginState::CleartextRequested),
            (vec![notice.clone(), request(3, b"")], LoginState::CleartextRequested),
            (vec![request(5, b"salt"), request(3, b"")], LoginState::CleartextRequested),
            (vec![scram, request(11, b"r=1"), request(12, b"v=1"), ok.clone(), request(3, b"")], LoginState::Complete),
            (vec![request(5, b"salt"), ok.clone()], LoginState::Complete),
            (vec![notice.clone(), ok], LoginState::Complete),
            (vec![notice], LoginState::Pending),
        ] {
            let bytes = messages.concat();
            for piece in 1..=bytes.len() {
                assert_eq!(state(&bytes, piece), expected, "{bytes:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn lengths_that_are_wrong_are_left_to_the_driver() {
        for bytes in [&[b'E', 0, 0, 0, 0][..], &[b'R', 0, 0, 0, 0, 0, 0, 0, 9], &[b'N', 255, 255, 255, 255, 1]] {
            assert_eq!(state(bytes, 1), LoginState::Pending);
        }
    }
}
