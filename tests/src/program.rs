//! The program `millstream`, run as an operator runs it.

use std::process::Stdio;

use tokio::process::Command;

use crate::function::binary;
use crate::process::workspace;

/// The result of a run of the program.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

/// Runs the program in the workspace's folder, with this environment and no other.
///
/// # Errors
/// Returns an error of the operating system.
pub async fn millstream(environment: &[(String, String)], arguments: &[&str]) -> std::io::Result<Ran> {
    let mut command = Command::new(binary("millstream")?);
    command.args(arguments).env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    let output = command.current_dir(workspace()).stdin(Stdio::null()).output().await?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) })
}
