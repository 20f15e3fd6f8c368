//! The environment variables. No other module reads the environment.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tracing::level_filters::LevelFilter;

use crate::board::auth::Role;

const DEAD_LETTER_QUEUE: &str = "DEAD_LETTER_QUEUE_URL";
const ON_FAILURE_QUEUE: &str = "ON_FAILURE_QUEUE_URL";

/// The environment variables, read.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `MILLSTREAM_CONFIG`: a path or an `s3://` address. The default is `millstream.toml` next to the binary.
    pub config: String,
    /// How to connect to PostgreSQL.
    pub database: DatabaseAddress,
    /// `DEAD_LETTER_QUEUE_URL`.
    pub dead_letter_queue: Option<String>,
    /// `ON_FAILURE_QUEUE_URL`: receives Lambda's on-failure records for batches that it discarded.
    pub on_failure_queue: Option<String>,
    /// `ARCHIVE_BUCKET`.
    pub archive_bucket: Option<String>,
    /// Who authenticates the board's requests, for the function `board`.
    pub board: Option<BoardAccess>,
    /// `AWS_LAMBDA_FUNCTION_NAME`, for logs and metrics.
    pub function: String,
    /// `AWS_LAMBDA_LOG_LEVEL`: INFO by default.
    pub log_level: LevelFilter,
}

/// Address of PostgreSQL and source of its password. `Debug` shows no secret.
#[derive(Clone)]
pub struct DatabaseAddress {
    /// `DATABASE_URL`.
    pub url: Option<String>,
    /// `DATABASE_HOST`.
    pub host: Option<String>,
    /// `DATABASE_PORT`.
    pub port: Option<u16>,
    /// `DATABASE_NAME`.
    pub name: Option<String>,
    /// `DATABASE_USER`.
    pub user: Option<String>,
    /// Where the password comes from.
    pub credentials: Credentials,
    /// `DATABASE_CA_FILE`: PEM certificates trusted in addition to the public roots, such as RDS's bundle.
    pub ca_file: Option<PathBuf>,
}

impl DatabaseAddress {
    /// Creates an address from a URL alone.
    pub fn from_url(url: &str) -> Self {
        let url = Some(url.to_owned());
        Self { url, host: None, port: None, name: None, user: None, credentials: Credentials::Url, ca_file: None }
    }
}

impl std::fmt::Debug for DatabaseAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseAddress").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// Where the password comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Credentials {
    /// `DATABASE_URL` contains it, or none is needed.
    Url,
    /// `DATABASE_SECRET_ARN`: a secret in Secrets Manager, in the format of its rotation templates.
    Secret(String),
    /// `DATABASE_AUTH=iam`: a token signed with the function's role.
    Iam,
}

/// Who authenticates the board's requests.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum BoardAccess {
    /// `BOARD_SECRET_ARN`: the board, by the tokens of a secret in Secrets Manager.
    Secret(String),
    /// `BOARD_IAM_ROLE`: Lambda, which accepts signed requests only; all of them have this role.
    Iam(Role),
}

/// A missing or invalid environment variable.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// No database is configured.
    #[error(
        "no database is configured; set DATABASE_URL, or DATABASE_SECRET_ARN, or DATABASE_AUTH=iam with DATABASE_HOST, DATABASE_NAME and DATABASE_USER"
    )]
    NoDatabase,
    /// `DATABASE_AUTH` is not `iam`.
    #[error("DATABASE_AUTH must be `iam` or unset")]
    UnknownAuth,
    /// IAM authentication requires a variable that is not set.
    #[error("DATABASE_AUTH=iam requires {0}")]
    IamNeeds(&'static str),
    /// `BOARD_IAM_ROLE` is not a role that IAM can give, or `BOARD_SECRET_ARN` is set as well.
    #[error("BOARD_IAM_ROLE must be `operator` or `decision`, and excludes BOARD_SECRET_ARN")]
    BoardRole,
    /// `DATABASE_PORT` is not a port number.
    #[error("DATABASE_PORT must be a port number")]
    Port,
}

impl Environment {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// See [`EnvironmentError`].
    pub fn read() -> Result<Self, EnvironmentError> {
        Self::from(&std::env::vars().filter(|(_, value)| !value.is_empty()).collect())
    }

    fn from(variables: &BTreeMap<String, String>) -> Result<Self, EnvironmentError> {
        let get = |name: &str| variables.get(name).cloned();
        Ok(Self {
            config: get("MILLSTREAM_CONFIG").unwrap_or_else(default_config_path),
            database: database(variables)?,
            dead_letter_queue: get(DEAD_LETTER_QUEUE),
            on_failure_queue: get(ON_FAILURE_QUEUE),
            archive_bucket: get("ARCHIVE_BUCKET"),
            board: board(get("BOARD_SECRET_ARN"), get("BOARD_IAM_ROLE"))?,
            function: get("AWS_LAMBDA_FUNCTION_NAME").unwrap_or_else(|| "millstream".to_owned()),
            log_level: get("AWS_LAMBDA_LOG_LEVEL").and_then(|level| level.parse().ok()).unwrap_or(LevelFilter::INFO),
        })
    }
}

impl Environment {
    /// The queues with the variables that name them, first the one to which functions send.
    pub fn queues(&self) -> [(&'static str, Option<&str>); 2] {
        [(DEAD_LETTER_QUEUE, self.dead_letter_queue.as_deref()), (ON_FAILURE_QUEUE, self.on_failure_queue.as_deref())]
    }

    /// Whether a configuration exists: the variable names one, or the default file exists.
    pub fn has_config(&self) -> bool {
        self.config != default_config_path() || std::path::Path::new(&self.config).exists()
    }
}

/// Returns the location of the configuration, for programs that need nothing else from the environment.
pub fn config_location() -> String {
    let named = std::env::vars().find(|(name, value)| name == "MILLSTREAM_CONFIG" && !value.is_empty());
    named.map_or_else(default_config_path, |(_, value)| value)
}

fn default_config_path() -> String {
    let folder = std::env::current_exe().ok().and_then(|path| path.parent().map(PathBuf::from)).unwrap_or_default();
    folder.join("millstream.toml").to_string_lossy().into_owned()
}

fn board(secret: Option<String>, iam_role: Option<String>) -> Result<Option<BoardAccess>, EnvironmentError> {
    match (secret, iam_role) {
        (secret, None) => Ok(secret.map(BoardAccess::Secret)),
        (Some(_), Some(_)) => Err(EnvironmentError::BoardRole),
        // A signature does not say whose data a user may see.
        (None, Some(name)) => match Role::from_name(&name) {
            Some(role @ (Role::Operator | Role::Decision)) => Ok(Some(BoardAccess::Iam(role))),
            Some(Role::User) | None => Err(EnvironmentError::BoardRole),
        },
    }
}

fn database(variables: &BTreeMap<String, String>) -> Result<DatabaseAddress, EnvironmentError> {
    let get = |name: &str| variables.get(name).cloned();
    let credentials = match (get("DATABASE_AUTH").as_deref(), get("DATABASE_SECRET_ARN")) {
        (Some("iam"), _) => Credentials::Iam,
        (Some(_), _) => return Err(EnvironmentError::UnknownAuth),
        (None, Some(arn)) => Credentials::Secret(arn),
        (None, None) => Credentials::Url,
    };
    let required: &[&str] = match credentials {
        Credentials::Iam if get("DATABASE_URL").is_none() => &["DATABASE_HOST", "DATABASE_NAME", "DATABASE_USER"],
        Credentials::Url if get("DATABASE_URL").is_none() => return Err(EnvironmentError::NoDatabase),
        Credentials::Iam | Credentials::Url | Credentials::Secret(_) => &[],
    };
    if let Some(missing) = required.iter().find(|name| get(name).is_none()) {
        return Err(EnvironmentError::IamNeeds(missing));
    }
    Ok(DatabaseAddress {
        url: get("DATABASE_URL"),
        host: get("DATABASE_HOST"),
        port: get("DATABASE_PORT").map(|port| port.parse().map_err(|_invalid| EnvironmentError::Port)).transpose()?,
        name: get("DATABASE_NAME"),
        user: get("DATABASE_USER"),
        credentials,
        ca_file: get("DATABASE_CA_FILE").map(PathBuf::from),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Environment, EnvironmentError> {
        Environment::from(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn debug_output_holds_no_password() {
        let environment = read(&[("DATABASE_URL", "postgresql://me:hunter2@db/x")]).unwrap();
        assert!(!format!("{environment:?}").contains("hunter2"));
    }

    #[test]
    fn a_board_has_one_way_to_authenticate_requests() {
        let board = |pairs: &[(&str, &str)]| read(&[&[("DATABASE_URL", "postgresql://db/x")], pairs].concat());
        assert_eq!(board(&[]).unwrap().board, None);
        let secret = board(&[("BOARD_SECRET_ARN", "arn")]).unwrap().board;
        assert_eq!(secret, Some(BoardAccess::Secret("arn".to_owned())));
        assert_eq!(board(&[("BOARD_IAM_ROLE", "decision")]).unwrap().board, Some(BoardAccess::Iam(Role::Decision)));
        for wrong in [&[("BOARD_IAM_ROLE", "user")][..], &[("BOARD_IAM_ROLE", "operator"), ("BOARD_SECRET_ARN", "arn")]]
        {
            assert!(board(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn iam_reports_the_variables_that_it_requires() {
        let error = read(&[("DATABASE_AUTH", "iam"), ("DATABASE_HOST", "db")]).unwrap_err();
        assert_eq!(error.to_string(), "DATABASE_AUTH=iam requires DATABASE_NAME");
        let complete =
            [("DATABASE_AUTH", "iam"), ("DATABASE_HOST", "db"), ("DATABASE_NAME", "n"), ("DATABASE_USER", "u")];
        assert_eq!(read(&complete).unwrap().database.credentials, Credentials::Iam);
    }
}
