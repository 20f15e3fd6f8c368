//! A stand-in for PostgreSQL that speaks no TLS, asks for the password in clear text, and records what it receives.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// `AuthenticationCleartextPassword`.
const CLEARTEXT_PASSWORD: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];

/// How a client begins if it wants TLS.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A running server.
pub struct CleartextServer {
    port: u16,
    received: Arc<Mutex<Vec<u8>>>,
    server: JoinHandle<()>,
}

impl CleartextServer {
    /// Starts it on a free port of localhost.
    ///
    /// # Errors
    /// The system's.
    pub async fn start() -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let received = Arc::new(Mutex::new(Vec::new()));
        let recording = received.clone();
        let server = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, recording.clone()));
            }
        });
        Ok(Self { port, received, server })
    }

    /// The port on localhost.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// All that clients have sent.
    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Drop for CleartextServer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(mut client: TcpStream, received: Arc<Mutex<Vec<u8>>>) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    while let length @ 1.. = client.read(&mut buffer).await? {
        let bytes = &buffer[..length];
        received.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        let answer: &[u8] = if bytes == SSL_REQUEST { b"N" } else { &CLEARTEXT_PASSWORD };
        client.write_all(answer).await?;
    }
    Ok(())
}
