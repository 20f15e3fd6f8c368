//! A shell that outlives this process and ends the children that it has left running.
//!
//! It reads the children's numbers from a pipe. The system closes the pipe when this process ends, even if it is killed.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `+ 17` adds a child, `- 17` removes it. A server with clients waits for them on SIGTERM, so SIGINT follows.
const SCRIPT: &str = r#"
pids=' '
while read -r sign pid; do
    case $sign in
    +) pids="$pids$pid " ;;
    -) pids="${pids%% $pid *} ${pids#* $pid }" ;;
    esac
done
[ "$pids" = ' ' ] && exit
kill -TERM $pids; sleep 1; kill -INT $pids; sleep 3; kill -KILL $pids
"#;

static WATCHDOG: Mutex<Option<ChildStdin>> = Mutex::new(None);

/// Registers a child, which is ended when this process ends.
pub(super) fn watch(pid: u32) -> std::io::Result<()> {
    let mut watchdog = lock();
    let pipe = match &mut *watchdog {
        Some(pipe) => pipe,
        none => none.insert(start()?),
    };
    writeln!(pipe, "+ {pid}")
}

/// Unregisters a child that has ended: its process ID may be reused.
pub(super) fn forget(pid: u32) {
    if let Some(pipe) = &mut *lock() {
        writeln!(pipe, "- {pid}").unwrap_or_default();
    }
}

fn lock() -> MutexGuard<'static, Option<ChildStdin>> {
    WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs in its own process group, so that Ctrl-C does not reach it.
fn start() -> std::io::Result<ChildStdin> {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT]).process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let stdin = command.spawn()?.stdin.take();
    stdin.ok_or_else(|| std::io::Error::other("the watchdog has no standard input"))
}
