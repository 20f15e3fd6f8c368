//! Processes that end with the one that started them, however that ends.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    tests.parent().map(PathBuf::from).unwrap_or(tests)
}

/// The folder that holds what the project makes and installs.
pub fn target() -> PathBuf {
    workspace().join("target")
}

/// A program of the project's virtual environment.
pub fn tool(name: &str) -> PathBuf {
    target().join("tools/bin").join(name)
}

/// A port that was free a moment ago.
///
/// # Errors
/// The system's.
pub fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A command that is sent SIGTERM when the thread that starts it ends (so does Linux), its output in a file.
fn guarded(program: &Path, user: Option<&str>, log: &Path) -> std::io::Result<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "TERM"]);
    if let Some(user) = user {
        command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).arg("--clear-groups");
    }
    let log = File::create(log)?;
    command.arg(program).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    Ok(command)
}

/// Starts a program that ends when this process does; `set` gives it its arguments.
///
/// # Errors
/// The system's.
pub fn start(program: &Path, user: Option<&str>, log: &Path, set: impl FnOnce(&mut Command)) -> std::io::Result<Child> {
    let mut command = guarded(program, user, log)?;
    set(&mut command);
    let (tell, told) = mpsc::channel();
    // A thread of its own that lasts as long as the process does.
    std::thread::spawn(move || {
        tell.send(command.spawn()).unwrap_or_default();
        loop {
            std::thread::park();
        }
    });
    told.recv().unwrap_or_else(|_gone| Err(std::io::Error::other("the thread that starts the program has ended")))
}
