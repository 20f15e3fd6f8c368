//! PgBouncer in transaction mode in front of a cluster: each transaction runs on any free backend, as with RDS Proxy.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio_postgres::SimpleQueryMessage;

use crate::postgresql::{connect, folder};
use crate::process::{Process, free_port, server_user, start};
use crate::system::SystemResult;

/// Where Debian's and Homebrew's packages install it, if it is not on the path.
const FOLDERS: [&str; 3] = ["/usr/sbin", "/opt/homebrew/bin", "/usr/local/bin"];

/// A running pooler.
pub struct PgBouncer {
    folder: PathBuf,
    port: u16,
    backends: u32,
    server: Process,
}

/// Which users it accepts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Every user, connected as the cluster's superuser.
    Anybody,
    /// Users who know their password in the cluster.
    Password,
}

impl PgBouncer {
    /// Whether it is installed. Only a system package provides it.
    pub fn is_installed() -> bool {
        program().is_some()
    }

    /// Starts a pooler in front of the cluster at a port of localhost, with at most `backends` connections per database.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn start(cluster: u16, backends: u32, admission: Admission) -> std::io::Result<Self> {
        // Another process may take the free port before the server does; then the next one is tried.
        let mut last = std::io::Error::other("no port is free");
        for _ in 0..5 {
            let port = free_port()?;
            let folder = folder(&format!("pgbouncer-{port}"))?;
            match serve(&folder, &settings(port, cluster, backends, admission)) {
                Ok(server) => return Ok(Self { folder, port, backends, server }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The pooler's port on localhost.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database through the pooler; `direct` is the cluster's own.
    pub fn url(&self, direct: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{}", self.port, name(direct))
    }

    /// The number of a database's clients at the pooler, including idle ones.
    ///
    /// # Errors
    /// Returns PgBouncer's error.
    pub async fn clients(&self, direct: &str) -> SystemResult<usize> {
        let console = connect(&self.url("/pgbouncer")).await?;
        let answer = console.simple_query("SHOW CLIENTS").await?;
        let is_of = |message: &&SimpleQueryMessage| matches!(message, SimpleQueryMessage::Row(row) if row.get("database") == Some(name(direct)));
        Ok(answer.iter().filter(is_of).count())
    }

    /// The session state that clients have left on the backends of a database. All are held at once, so that each is read once.
    ///
    /// # Errors
    /// Returns PostgreSQL's error, or one if not every backend could be read.
    pub async fn leftovers(&self, direct: &str) -> SystemResult<Vec<String>> {
        let (mut held, mut numbers, mut found) = (Vec::new(), BTreeSet::new(), Vec::new());
        for _ in 0..self.backends {
            let client = connect(&self.url(direct)).await?;
            client.batch_execute("BEGIN").await?;
            for row in client.query_typed(include_str!("pgbouncer/leftovers.sql"), &[]).await? {
                numbers.insert(row.get::<_, i32>(0));
                found.extend(row.get::<_, Option<String>>(1));
            }
            held.push(client);
        }
        // The pooler closes a backend whose client disconnects within a transaction; these must stay open.
        for client in &held {
            client.batch_execute("ROLLBACK").await?;
        }
        found.sort();
        if numbers.len() == held.len() {
            Ok(found)
        } else {
            Err(format!("reached only the backends {numbers:?}").into())
        }
    }
}

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join("pgbouncer")).find(|program| program.is_file())
}

fn name(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or_default()
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        self.server.kill().unwrap_or_default();
        self.server.wait().map(drop).unwrap_or_default();
        std::fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}

/// Each transaction goes to the backend that has been idle longest, so that consecutive ones never share one if others are
/// idle. Start-up parameters other than PostgreSQL's standard ones are rejected, and a backend is not reset between two
/// clients: session state of one reaches the next. <https://www.pgbouncer.org/config.html>
fn settings(port: u16, cluster: u16, backends: u32, admission: Admission) -> String {
    let (database, auth) = match admission {
        Admission::Anybody => ("user=postgres", "auth_type = any"),
        Admission::Password => ("auth_user=postgres", "auth_type = scram-sha-256"),
    };
    format!(
        "[databases]\n* = host=127.0.0.1 port={cluster} {database}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n{auth}\n\
         pool_mode = transaction\ndefault_pool_size = {backends}\nserver_round_robin = 1\n\
         server_reset_query_always = 0\nignore_startup_parameters =\n"
    )
}

fn serve(folder: &Path, settings: &str) -> std::io::Result<Process> {
    let (file, log) = (folder.join("pgbouncer.ini"), folder.join("log"));
    std::fs::write(&file, settings)?;
    let program = program().ok_or_else(|| std::io::Error::other("PgBouncer is not installed"))?;
    let mut server = start(&program, server_user(), &log, |command| {
        command.arg(&file).current_dir("/");
    })?;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(30) && server.try_wait()?.is_none() {
        if std::fs::read_to_string(&log)?.contains("process up") {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    server.kill().unwrap_or_default();
    let log = std::fs::read_to_string(&log)?;
    Err(std::io::Error::other(format!("PgBouncer did not start: {log}")))
}
