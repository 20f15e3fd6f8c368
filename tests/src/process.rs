//! Processes that end with the process that started them, however it ends.

mod watchdog;

use std::fs::File;
use std::net::TcpListener;
use std::ops::{Deref, DerefMut};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map(PathBuf::from).unwrap_or(tests)
}

/// The folder for everything that is built and installed.
pub fn target() -> PathBuf {
    workspace().join("target")
}

/// A program of the project's virtual environment.
pub fn tool(name: &str) -> PathBuf {
    target().join("tools/bin").join(name)
}

/// Returns a port that was free just now.
///
/// # Errors
/// Returns an error of the operating system.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A child process that is killed when it is dropped, and ended by the watchdog if this process ends without dropping it.
pub struct Process(Child);

impl Deref for Process {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
        watchdog::forget(self.0.id());
    }
}

/// Starts a program that ends when this process does, with its output in a file; `set` adds its arguments.
///
/// # Errors
/// Returns an error of the operating system.
pub fn start(
    program: &Path,
    user: Option<User>,
    log: &Path,
    set: impl FnOnce(&mut Command),
) -> std::io::Result<Process> {
    let mut command = as_user(program, user);
    let log = File::create(log)?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    set(&mut command);
    let process = Process(command.spawn()?);
    watchdog::watch(process.id())?;
    Ok(process)
}

/// The numbers of a user and its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct User {
    /// The user's number.
    pub uid: u32,
    /// Its group's number.
    pub gid: u32,
}

/// The user that servers run as, because PostgreSQL and PgBouncer do not run as root. `None` is the user of this process.
pub fn server_user() -> Option<User> {
    static USER: OnceLock<Option<User>> = OnceLock::new();
    *USER.get_or_init(|| {
        let nobody = || Some(User { uid: id(&["-u", "nobody"])?, gid: id(&["-g", "nobody"])? });
        (id(&["-u"]) == Some(0)).then(nobody).flatten()
    })
}

fn id(arguments: &[&str]) -> Option<u32> {
    let output = Command::new("id").args(arguments).output().ok()?;
    String::from_utf8_lossy(&output.stdout).trim().parse().ok()
}

/// A program to be run as a user, without root's other groups.
pub(crate) fn as_user(program: &Path, user: Option<User>) -> Command {
    let mut command = Command::new(program);
    if let Some(User { uid, gid }) = user {
        command.uid(uid).gid(gid);
    }
    command
}

/// Whether a process with this ID is running.
pub(crate) fn is_running(pid: &str) -> bool {
    if Path::new("/proc/self").exists() {
        return Path::new("/proc").join(pid).exists();
    }
    Command::new("ps").args(["-p", pid]).stdout(Stdio::null()).status().is_ok_and(|status| status.success())
}
