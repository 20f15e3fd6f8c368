//! The connection to PostgreSQL: one per function, checked after a freeze.
//!
//! Works with RDS Proxy and with PgBouncer in transaction mode: no session state, no startup options, named statements
//! only within a transaction. No secret reaches a log or an error.

mod address;
mod credentials;
mod plaintext;
pub mod sqlstate;
mod tls;

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio_postgres::config::{SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Config, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

pub use address::AddressError;
pub use credentials::CredentialsError;
pub use plaintext::CleartextRefusal;
pub use tls::{TlsError, TlsRefusal};

use crate::aws::Aws;
use crate::config::DatabaseAddress;
use credentials::LoginProvider;
use plaintext::PlaintextConnector;
use sqlstate::{DatabaseStep, ErrorAction, classify};

/// A server that does not accept a connection in this time is considered down, and the invocation is retried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// No process closes the dead connection of a frozen function, so the kernel must detect it. AWS advises timeouts of
/// seconds
/// (<https://docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/AuroraPostgreSQL.BestPractices.FastFailover.html>).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(2);
const KEEPALIVE_RETRIES: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(10);

/// PostgreSQL, over one connection.
pub struct Database {
    pool: Pool,
    credentials: LoginProvider,
    connector: Connector,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// `DATABASE_URL` cannot be parsed.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The certificates cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The secret or the token cannot be obtained.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The server's identity cannot be verified, or it does not support TLS.
    #[error(transparent)]
    Refusal(#[from] TlsRefusal),
    /// The server asks for the password in clear text without TLS.
    #[error(transparent)]
    Cleartext(#[from] CleartextRefusal),
    /// The server cannot be reached, or rejects the connection.
    #[error("could not connect to PostgreSQL")]
    Connect(#[source] tokio_postgres::Error),
    /// The pool has only one connection, and it is in use.
    #[error("could not obtain the connection: {0}")]
    Pool(String),
}

impl DatabaseError {
    /// Whether an operator must act before a connection is possible.
    pub fn needs_operator(&self) -> bool {
        match self {
            Self::Address(_) | Self::Tls(_) | Self::Refusal(_) | Self::Cleartext(_) => true,
            Self::Credentials(error) => error.needs_operator(),
            Self::Connect(error) => classify(DatabaseStep::Session, error) == ErrorAction::Halt,
            Self::Pool(_) => false,
        }
    }
}

impl Database {
    /// Prepares the connection; it is opened when it is first needed.
    ///
    /// # Errors
    /// Returns an error if the address or the certificates are invalid.
    pub fn new(address: &DatabaseAddress, aws: Aws) -> Result<Self, DatabaseError> {
        // After a failover, a connection to a reader would reject every write.
        Self::with_session(address, aws, "millstream", TargetSessionAttrs::ReadWrite)
    }

    /// Prepares a connection for a role that only reads: any server serves it, a standby included.
    ///
    /// # Errors
    /// Returns an error if the address or the certificates are invalid.
    pub fn read_only(address: &DatabaseAddress, aws: Aws) -> Result<Self, DatabaseError> {
        Self::with_session(address, aws, "millstream board", TargetSessionAttrs::Any)
    }

    fn with_session(
        address: &DatabaseAddress,
        aws: Aws,
        application: &str,
        target: TargetSessionAttrs,
    ) -> Result<Self, DatabaseError> {
        let parsed = address::read(address)?;
        let ca_file = parsed.ca_file.as_deref().or(address.ca_file.as_deref());
        let mut config = parsed.config;
        config
            .ssl_mode(SslMode::Require)
            .application_name(application)
            .connect_timeout(CONNECT_TIMEOUT)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .target_session_attrs(target);
        let credentials = LoginProvider::new(&address.credentials, &config, aws);
        let login = Arc::new(Mutex::new(config.clone()));
        let encryption =
            if parsed.plaintext { Encryption::Plaintext } else { Encryption::Tls(tls::connector(ca_file)?) };
        let connector = Connector { login, encryption };
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = Manager::from_connect(config, connector.clone(), recycling);
        let pool =
            Pool::builder(manager).max_size(1).build().map_err(|error| DatabaseError::Pool(error.to_string()))?;
        Ok(Self { pool, credentials, connector })
    }

    /// The checked connection; a dead one is replaced. After a rejected login the secret is read once more, because it
    /// may have been rotated.
    ///
    /// # Errors
    /// Returns an error if no connection can be established.
    pub async fn connection(&self) -> Result<Connection, DatabaseError> {
        self.refresh_login(false).await?;
        let object = match self.get().await {
            Err(DatabaseError::Connect(error)) if is_refused_login(&error) && self.credentials.can_change() => {
                self.refresh_login(true).await?;
                self.get().await?
            }
            result => result?,
        };
        Ok(Connection(Some(object)))
    }

    /// The open connection, or a new one.
    ///
    /// # Errors
    /// See [`Database::connection`].
    pub async fn get_or_connect<'c>(&self, open: &'c mut Option<Connection>) -> Result<&'c Connection, DatabaseError> {
        let connection = match open.take() {
            Some(connection) => connection,
            None => self.connection().await?,
        };
        Ok(open.insert(connection))
    }

    /// A second connection, for use while the first one waits and needs help. It is closed when it is dropped.
    ///
    /// # Errors
    /// See [`Database::connection`].
    pub async fn side_connection(&self) -> Result<Client, DatabaseError> {
        self.refresh_login(false).await?;
        let (client, _ends_with_the_client) = self.connector.dial().await.map_err(|error| self.connect_error(error))?;
        Ok(client)
    }

    async fn refresh_login(&self, force: bool) -> Result<(), CredentialsError> {
        if let Some(config) = self.credentials.login(force).await? {
            *self.connector.login.lock().unwrap_or_else(PoisonError::into_inner) = config;
        }
        Ok(())
    }

    async fn get(&self) -> Result<Object, DatabaseError> {
        self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => self.connect_error(error),
            PoolError::Timeout(_)
            | PoolError::Closed
            | PoolError::NoRuntimeSpecified
            | PoolError::PostCreateHook(_) => DatabaseError::Pool(error.to_string()),
        })
    }

    fn connect_error(&self, error: tokio_postgres::Error) -> DatabaseError {
        let login = self.connector.login();
        if let Some(refusal) = CleartextRefusal::from_connect_error(&error, &login) {
            return refusal.into();
        }
        match TlsRefusal::from_connect_error(&error, &login) {
            Some(refusal) => refusal.into(),
            None => DatabaseError::Connect(error),
        }
    }
}

/// A connection in use. Unless it is [released](Connection::release) it is closed: after an error, a timeout or a panic
/// its state is unknown, and a transaction may still be open.
pub struct Connection(Option<Object>);

impl Connection {
    /// Returns the connection, for use by the next invocation.
    pub fn release(mut self) {
        drop(self.0.take());
    }
}

impl Deref for Connection {
    type Target = Client;

    fn deref(&self) -> &Client {
        match &self.0 {
            Some(object) => object,
            None => unreachable!("only `release` and `drop` take the object, and both consume the connection"),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.take().map(Object::take).into_iter().for_each(drop);
    }
}

/// PgBouncer reports a wrong password as a protocol violation.
fn is_refused_login(error: &tokio_postgres::Error) -> bool {
    let refusals =
        [&SqlState::INVALID_PASSWORD, &SqlState::INVALID_AUTHORIZATION_SPECIFICATION, &SqlState::PROTOCOL_VIOLATION];
    error.code().is_some_and(|code| refusals.contains(&code))
}

/// Connects with the current login.
#[derive(Clone)]
struct Connector {
    login: Arc<Mutex<Config>>,
    encryption: Encryption,
}

/// How connections are protected.
#[derive(Clone)]
enum Encryption {
    Tls(MakeRustlsConnect),
    /// None: the address is on this machine, or says `sslmode=disable`.
    Plaintext,
}

type Dialled = Result<(Client, JoinHandle<()>), tokio_postgres::Error>;

impl Connector {
    fn login(&self) -> Config {
        self.login.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn dial(&self) -> Dialled {
        let mut login = self.login();
        match &self.encryption {
            Encryption::Tls(tls) => connect(&login, tls.clone()).await,
            Encryption::Plaintext => {
                plaintext::prepare(&mut login);
                connect(&login, PlaintextConnector).await
            }
        }
    }
}

async fn connect<T>(login: &Config, tls: T) -> Dialled
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
{
    let (client, connection) = login.connect(tls).await?;
    let task = tokio::spawn(async move {
        // The client's own calls report the same error, with their context.
        connection.await.unwrap_or_default();
    });
    Ok((client, task))
}

impl Connect for Connector {
    fn connect(&self, _: &Config) -> BoxFuture<'_, Dialled> {
        self.dial().boxed()
    }
}
