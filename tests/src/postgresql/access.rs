//! Who may come into a cluster and how: TLS and the rules of `pg_hba.conf`, changed while it runs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::{PostgreSql, connect, give};
use crate::certificates::Certificate;
use crate::system::Outcome;

impl PostgreSql {
    /// Offers TLS with this certificate from now on, to those who ask for it.
    ///
    /// # Errors
    /// The system's, or what PostgreSQL does not like about the certificate.
    pub async fn offer_tls(&self, certificate: &Certificate) -> Outcome<()> {
        let data = self.folder.join("data");
        // The names that PostgreSQL looks for by default.
        for (name, text) in [("server.crt", &certificate.pem), ("server.key", &certificate.key)] {
            let path = data.join(name);
            std::fs::write(&path, text)?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            give(&path)?;
        }
        connect(&self.url("postgres")).await?.batch_execute("ALTER SYSTEM SET ssl = on").await?;
        self.reload().await
    }

    /// Puts a rule before all others, such as `host all app all scram-sha-256`.
    ///
    /// # Errors
    /// The system's.
    pub async fn admit(&self, rule: &str) -> Outcome<()> {
        let path = self.folder.join("data/pg_hba.conf");
        prepend(&path, rule)?;
        self.reload().await
    }

    /// Has the configuration read again, and waits until new connections go by it.
    async fn reload(&self) -> Outcome<()> {
        let url = self.url("postgres");
        let loaded = "SELECT extract(epoch FROM pg_conf_load_time())::float8";
        let client = connect(&url).await?;
        let before: f64 = client.query_one(loaded, &[]).await?.get(0);
        client.batch_execute("SELECT pg_reload_conf()").await?;
        // A new connection has the time of the server process that it is a child of.
        while connect(&url).await?.query_one(loaded, &[]).await?.get::<_, f64>(0) <= before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

fn prepend(path: &Path, line: &str) -> std::io::Result<()> {
    let text = std::fs::read_to_string(path)?;
    std::fs::write(path, format!("{line}\n{text}"))
}
