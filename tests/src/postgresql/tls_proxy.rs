//! TLS for a server that was built without it: a proxy that answers PostgreSQL's `SSLRequest` and forwards the rest.
//!
//! The protocol: <https://www.postgresql.org/docs/current/protocol-flow.html#PROTOCOL-FLOW-SSL>.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::certificates::Certificate;
use crate::system::SystemResult;

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// A running proxy. Clients that do not ask for TLS pass too.
pub(super) struct TlsProxy {
    port: u16,
    shared: Arc<ProxyState>,
    listener: JoinHandle<()>,
}

struct ProxyState {
    server: u16,
    config: Mutex<Arc<ServerConfig>>,
    /// The TLS version of each connection, by the port from which the server is reached.
    versions: Mutex<BTreeMap<u16, String>>,
}

impl TlsProxy {
    /// Starts one for a server on localhost.
    pub(super) async fn start(server: u16, certificate: &Certificate) -> SystemResult<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let config = Mutex::new(config(certificate)?);
        let shared = Arc::new(ProxyState { server, config, versions: Mutex::default() });
        let serving = shared.clone();
        let listener = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let shared = serving.clone();
                // A client that does not trust the certificate disconnects, which is not an error of the proxy.
                tokio::spawn(async move { serve(client, &shared).await.unwrap_or_default() });
            }
        });
        Ok(Self { port, shared, listener })
    }

    /// Where clients connect.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Replaces the certificate for new connections.
    pub(super) fn replace(&self, certificate: &Certificate) -> SystemResult<()> {
        *self.shared.config.lock().unwrap_or_else(PoisonError::into_inner) = config(certificate)?;
        Ok(())
    }

    /// The TLS version of the connection that reaches the server from this port.
    pub(super) fn version(&self, port: u16) -> Option<String> {
        self.shared.versions.lock().unwrap_or_else(PoisonError::into_inner).get(&port).cloned()
    }
}

impl Drop for TlsProxy {
    fn drop(&mut self) {
        self.listener.abort();
    }
}

fn config(certificate: &Certificate) -> SystemResult<Arc<ServerConfig>> {
    let chain = vec![CertificateDer::from_pem_slice(certificate.pem.as_bytes())?];
    let key = PrivateKeyDer::from_pem_slice(certificate.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(Arc::new(builder.with_no_client_auth().with_single_cert(chain, key)?))
}

async fn serve(mut client: TcpStream, shared: &ProxyState) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    let mut first = [0; SSL_REQUEST.len()];
    client.read_exact(&mut first).await?;
    let mut server = TcpStream::connect(("127.0.0.1", shared.server)).await?;
    server.set_nodelay(true)?;
    if first != SSL_REQUEST {
        server.write_all(&first).await?;
        return pass(client, server).await;
    }
    client.write_all(b"S").await?;
    let config = shared.config.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let client = TlsAcceptor::from(config).accept(client).await?;
    if let Some(version) = client.get_ref().1.protocol_version() {
        // rustls writes TLSv1_3 where PostgreSQL writes TLSv1.3.
        let version = format!("{version:?}").replace('_', ".");
        let mut versions = shared.versions.lock().unwrap_or_else(PoisonError::into_inner);
        versions.insert(server.local_addr()?.port(), version);
    }
    pass(client, server).await
}

async fn pass(mut client: impl AsyncRead + AsyncWrite + Unpin, mut server: TcpStream) -> std::io::Result<()> {
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}
