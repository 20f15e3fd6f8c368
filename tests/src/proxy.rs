//! A TCP proxy in front of PostgreSQL that cuts the connection at a chosen message.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the proxy does to the next statement that contains the text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Everything passes.
    None,
    /// The connection is cut before the statement reaches the server.
    Before,
    /// The statement reaches the server, and the connection is cut before the response arrives.
    After,
}

/// A running proxy.
pub struct Proxy {
    port: u16,
    plan: Arc<Plan>,
    listener: JoinHandle<()>,
}

#[derive(Default)]
struct Plan {
    fault: AtomicU8,
    text: Mutex<String>,
    cuts: AtomicU64,
}

impl Proxy {
    /// A proxy for a server on localhost.
    ///
    /// # Errors
    /// Returns an error of the operating system.
    pub async fn start(server: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let plan = Arc::new(Plan::default());
        let accepting = plan.clone();
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(serve(client, server, accepting.clone()));
            }
        });
        Ok(Self { port, plan, listener })
    }

    /// Where clients connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Cuts the connection at the next statement that holds the text, once.
    pub fn cut(&self, fault: Fault, text: &str) {
        *self.plan.text.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = text.to_owned();
        self.plan.fault.store(fault as u8, Ordering::SeqCst);
    }

    /// How often it has cut a connection.
    pub fn cuts(&self) -> u64 {
        self.plan.cuts.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

async fn serve(client: TcpStream, server: u16, plan: Arc<Plan>) -> std::io::Result<()> {
    let server = TcpStream::connect(("127.0.0.1", server)).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let swallow = Arc::new(AtomicBool::new(false));
    let mut answers = tokio::spawn(answers(from_server, to_client, swallow.clone()));
    // The direction that ends first ends both: dropping the halves closes the sockets.
    let outcome = tokio::select! {
        outcome = statements(from_client, to_server, &plan, &swallow) => outcome,
        _ = &mut answers => Ok(()),
    };
    answers.abort();
    outcome
}

async fn answers(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, swallow: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if swallow.load(Ordering::SeqCst) || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

async fn statements(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    plan: &Plan,
    swallow: &AtomicBool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        match plan.fault_for(&buffer[..length]) {
            Fault::None => to.write_all(&buffer[..length]).await?,
            Fault::Before => return Ok(()),
            Fault::After => {
                swallow.store(true, Ordering::SeqCst);
                to.write_all(&buffer[..length]).await?;
                // The reader of responses discards the next one and ends; by then the server has executed the statement.
                return std::future::pending().await;
            }
        }
    }
}

impl Plan {
    fn fault_for(&self, bytes: &[u8]) -> Fault {
        let fault = match self.fault.load(Ordering::SeqCst) {
            fault if fault == Fault::Before as u8 => Fault::Before,
            fault if fault == Fault::After as u8 => Fault::After,
            _ => return Fault::None,
        };
        let text = self.text.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !bytes.windows(text.len().max(1)).any(|window| window == text.as_bytes()) {
            return Fault::None;
        }
        self.fault.store(Fault::None as u8, Ordering::SeqCst);
        self.cuts.fetch_add(1, Ordering::SeqCst);
        fault
    }
}
