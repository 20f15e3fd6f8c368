//! Access to a cluster: TLS and the rules of `pg_hba.conf`, changed while it runs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::tls_proxy::TlsProxy;
use super::{PostgreSql, connect, give};
use crate::certificates::Certificate;
use crate::system::SystemResult;

impl PostgreSql {
    /// Enables TLS with this certificate for clients that request it. If the server was built without TLS, a proxy
    /// provides it, and the cluster's port is the proxy's.
    ///
    /// # Errors
    /// Returns an error of the operating system, or if PostgreSQL rejects the certificate.
    pub async fn offer_tls(&mut self, certificate: &Certificate) -> SystemResult<()> {
        if let Some(proxy) = &self.tls_proxy {
            return proxy.replace(certificate);
        }
        let data = self.folder.join("data");
        // PostgreSQL's default file names.
        for (name, text) in [("server.crt", &certificate.pem), ("server.key", &certificate.key)] {
            let path = data.join(name);
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            give(&path)?;
        }
        match connect(&self.url("postgres")).await?.batch_execute("ALTER SYSTEM SET ssl = on").await {
            Err(error) if is_unsupported(&error) => {
                self.tls_proxy = Some(TlsProxy::start(self.port, certificate).await?);
                Ok(())
            }
            done => {
                done?;
                self.reload().await
            }
        }
    }

    /// The TLS version of a backend's connection; `None` if it is in plain text.
    ///
    /// # Errors
    /// Returns PostgreSQL's error, or one if the backend does not exist.
    pub async fn tls_version(&self, backend: i32) -> SystemResult<Option<String>> {
        let query = "SELECT client_port, version FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE pid = $1";
        let row = connect(&self.url("postgres")).await?.query_one(query, &[&backend]).await?;
        let port = u16::try_from(row.get::<_, i32>(0))?;
        Ok(match &self.tls_proxy {
            Some(proxy) => proxy.version(port),
            None => row.get(1),
        })
    }

    /// Inserts a rule before all others, such as `host all app all scram-sha-256`.
    ///
    /// # Errors
    /// Returns an error of the operating system.
    pub async fn allow(&self, rule: &str) -> SystemResult<()> {
        let path = self.folder.join("data/pg_hba.conf");
        prepend(&path, rule)?;
        self.reload().await
    }

    /// Reloads the configuration, and waits until new connections use it.
    async fn reload(&self) -> SystemResult<()> {
        let url = self.url("postgres");
        let loaded = "SELECT extract(epoch FROM pg_conf_load_time())::float8";
        let client = connect(&url).await?;
        let before: f64 = client.query_one(loaded, &[]).await?.get(0);
        client.batch_execute("SELECT pg_reload_conf()").await?;
        // A new connection inherits the load time from the server process.
        while connect(&url).await?.query_one(loaded, &[]).await?.get::<_, f64>(0) <= before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// The error with which a server that was built without OpenSSL rejects `ssl`.
fn is_unsupported(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.message() == "SSL is not supported by this build")
}

fn prepend(path: &Path, line: &str) -> std::io::Result<()> {
    let text = std::fs::read_to_string(path)?;
    std::fs::write(path, format!("{line}\n{text}"))
}
