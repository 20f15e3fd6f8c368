//! A private PostgreSQL cluster under `target/`, on a free port, removed when it is dropped.

mod access;
mod programs;
mod tls_proxy;

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls};

use self::programs::program;
pub use self::programs::psql_command;
use self::tls_proxy::TlsProxy;
use crate::process::{Process, as_user, free_port, is_running, server_user, start, target};

/// The durability of the cluster's disk writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// PostgreSQL's defaults: for the demo and the bench.
    Full,
    /// Data does not survive a crash of the machine: for tests, which at most stop the server.
    Test,
}

/// macOS has no C.UTF-8.
const LOCALE: &str = if cfg!(target_os = "macos") { "--locale=C" } else { "--locale=C.UTF-8" };

/// A running cluster.
pub struct PostgreSql {
    folder: PathBuf,
    port: u16,
    durability: Durability,
    server: Process,
    databases: AtomicU32,
    /// Provides TLS if the server was built without it.
    tls_proxy: Option<TlsProxy>,
}

impl PostgreSql {
    /// Creates a cluster and starts it.
    ///
    /// # Errors
    /// Returns an error with the log's last lines if PostgreSQL does not start.
    pub fn start(name: &str, durability: Durability) -> std::io::Result<Self> {
        let folder = folder(name)?;
        let mut command = as_server_user(&program("initdb")?);
        command.args(["-U", "postgres", "--auth=trust", "-E", "UTF8", LOCALE, "--no-sync", "-D"]);
        let output = command.arg(folder.join("data")).current_dir("/").output()?;
        if !output.status.success() {
            return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        // Another process may take the free port before the server does; then the next one is tried.
        let mut last = std::io::Error::other("no port is free");
        for _ in 0..5 {
            let port = free_port()?;
            match serve(&folder, port, durability) {
                Ok(server) => {
                    let databases = AtomicU32::new(0);
                    return Ok(Self { folder, port, durability, server, databases, tls_proxy: None });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port())
    }

    /// The cluster's port on localhost.
    pub fn port(&self) -> u16 {
        self.tls_proxy.as_ref().map_or(self.port, TlsProxy::port)
    }

    /// Creates an empty database and returns its URL.
    ///
    /// # Errors
    /// Returns PostgreSQL's error.
    pub async fn database(&self) -> Result<String, tokio_postgres::Error> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        connect(&self.url("postgres")).await?.batch_execute(&format!("CREATE DATABASE {name}")).await?;
        Ok(self.url(&name))
    }

    /// The server's log.
    ///
    /// # Errors
    /// Returns an error if the log cannot be read.
    pub fn log(&self) -> std::io::Result<String> {
        std::fs::read_to_string(self.folder.join("log"))
    }

    /// The whole content of a database, as SQL.
    ///
    /// # Errors
    /// Returns the error output of pg_dump.
    pub fn dump(&self, url: &str) -> std::io::Result<String> {
        let output = Command::new(program("pg_dump")?).args(["-d", url]).output()?;
        if !output.status.success() {
            return Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // Each dump has a key of its own: <https://www.postgresql.org/docs/current/app-pgdump.html>.
        let lines = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        Ok(lines.map(|line| format!("{line}\n")).collect())
    }

    /// Stops the server immediately, like a crash, and starts it again.
    ///
    /// # Errors
    /// Returns an error if it does not start.
    pub fn crash_and_restart(&mut self) -> std::io::Result<()> {
        self.stop();
        self.server = serve(&self.folder, self.port, self.durability)?;
        Ok(())
    }

    /// Stops the server immediately; [`Self::crash_and_restart`] starts it again.
    ///
    /// # Errors
    /// Returns an error if it still runs.
    pub fn stop_server(&mut self) -> std::io::Result<()> {
        self.stop();
        if self.server.try_wait()?.is_some() { Ok(()) } else { Err(std::io::Error::other("PostgreSQL did not stop")) }
    }

    fn stop(&mut self) {
        if let Ok(program) = program("pg_ctl") {
            let mut command = as_server_user(&program);
            command.args(["-m", "immediate", "-w", "stop", "-D"]).arg(self.folder.join("data")).current_dir("/");
            command.output().map(drop).unwrap_or_default();
        }
        self.server.wait().map(drop).unwrap_or_default();
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        self.stop();
        std::fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}

/// Connects; the connection lives as long as the client.
///
/// # Errors
/// Returns PostgreSQL's error.
pub async fn connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(async move { connection.await.unwrap_or_default() });
    Ok(client)
}

/// Runs a script with psql, with its variables and an environment.
///
/// # Errors
/// Returns an error of the operating system, or psql's error output if it fails.
pub fn psql(url: &str, script: &Path, variables: &[&str], environment: &[(&str, &str)]) -> std::io::Result<()> {
    let mut command = Command::new(program("psql")?);
    variables.iter().for_each(|variable| {
        command.args(["-v", variable]);
    });
    let output =
        command.envs(environment.iter().copied()).args(["--no-psqlrc", "-q", "-f"]).arg(script).arg(url).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(std::io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()))
}

fn serve(folder: &Path, port: u16, durability: Durability) -> std::io::Result<Process> {
    let log = folder.join("log");
    let mut server = start(&program("postgres")?, server_user(), &log, |command| {
        command.arg("-D").arg(folder.join("data")).current_dir("/");
        let settings: &[&str] = match durability {
            Durability::Full => &["max_wal_size=4GB", "shared_buffers=512MB"],
            Durability::Test => &["fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=200"],
        };
        let address = format!("port={port}");
        for setting in settings.iter().copied().chain([&*address, "unix_socket_directories=", "timezone=Asia/Kolkata"])
        {
            command.args(["-c", setting]);
        }
    })?;
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(30) {
        if server.try_wait()?.is_some() {
            break;
        }
        if std::fs::read_to_string(&log)?.contains("ready to accept connections") {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    server.kill().unwrap_or_default();
    Err(std::io::Error::other(format!("PostgreSQL did not start: {}", std::fs::read_to_string(&log)?)))
}

/// What the names of folders in the system's temporary folder begin with.
const TEMPORARY: &str = "millstream-cluster-";

/// Creates a folder that the servers' user can reach, named after this process; those of ended processes are removed.
pub(crate) fn folder(name: &str) -> std::io::Result<PathBuf> {
    let base = target().join("postgresql");
    std::fs::create_dir_all(&base)?;
    remove_abandoned(&base);
    let name = format!("{name}-{}", std::process::id());
    let folder = base.join(&name);
    std::fs::create_dir_all(&folder)?;
    if give(&folder)? {
        return Ok(folder);
    }
    std::fs::remove_dir(&folder)?;
    let elsewhere = std::env::temp_dir().join(format!("{TEMPORARY}{name}"));
    std::fs::create_dir(&elsewhere)?;
    give(&elsewhere)?;
    Ok(elsewhere)
}

/// Gives a folder to the server's user; whether that user can reach it.
fn give(folder: &Path) -> std::io::Result<bool> {
    let Some(user) = server_user() else { return Ok(true) };
    chown(folder, Some(user.uid), Some(user.gid))?;
    Ok(as_server_user(Path::new("test")).arg("-w").arg(folder).status()?.success())
}

/// Removes what ended processes have left, once and in the background: a test's cluster has hundreds of databases.
fn remove_abandoned(base: &Path) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let base = base.to_owned();
        std::thread::spawn(move || {
            remove_from(&base, "");
            remove_from(&std::env::temp_dir(), TEMPORARY);
        });
    });
}

fn remove_from(base: &Path, prefix: &str) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) && name.rsplit_once('-').is_some_and(|(_, owner)| !is_running(owner)) {
            std::fs::remove_dir_all(entry.path()).unwrap_or_default();
        }
    }
}

fn as_server_user(program: &Path) -> Command {
    as_user(program, server_user())
}
