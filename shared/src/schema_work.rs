//! Work on Millstream's own objects in short transactions, which is repeated as long as other sessions interfere.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::apply::{self, ApplyError};
use crate::backoff::backoff_delay;

/// Bounds how long other transactions queue behind a change of a table's triggers that waits for its lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Delays between attempts that another session interferes with.
const BACKOFF_FIRST: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_millis(500);

/// An error of such work.
pub trait WorkError: From<tokio_postgres::Error> + From<ApplyError> {
    /// Whether another session interfered, so that a retry may succeed.
    fn is_busy(&self) -> bool;
}

impl WorkError for ApplyError {
    fn is_busy(&self) -> bool {
        matches!(self, Self::Locked(_)) || self.database_error().is_some_and(is_interference)
    }
}

/// Whether an error is due to another session: its locks, or what it changed meanwhile.
pub fn is_interference(error: &tokio_postgres::Error) -> bool {
    const INTERFERENCE: [SqlState; 7] = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::OBJECT_IN_USE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::UNDEFINED_TABLE,
        SqlState::INTERNAL_ERROR,
    ];
    error.code().is_some_and(|code| INTERFERENCE.contains(code))
}

/// Runs `work` in a READ COMMITTED transaction in which unqualified names are PostgreSQL's own, and commits it if it succeeds.
pub async fn in_transaction<T, E: WorkError>(
    client: &Client,
    statement_timeout: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    apply::begin(client, LOCK_TIMEOUT, statement_timeout).await?;
    let result = match client.batch_execute("SET LOCAL search_path = pg_catalog, pg_temp").await {
        Ok(()) => work.await,
        Err(error) => Err(error.into()),
    };
    match result {
        Ok(value) => {
            client.batch_execute("COMMIT").await?;
            Ok(value)
        }
        Err(error) => {
            client.batch_execute("ROLLBACK").await.unwrap_or_default();
            Err(error)
        }
    }
}

/// Repeats what another session interfered with.
pub async fn retry<T, E, F>(attempts: u32, mut work: impl FnMut() -> F) -> Result<T, E>
where
    E: WorkError,
    F: Future<Output = Result<T, E>>,
{
    let mut attempt = 0;
    loop {
        let result = work().await;
        attempt += 1;
        match result {
            Err(error) if error.is_busy() && attempt < attempts => {
                tokio::time::sleep(backoff_delay(attempt, BACKOFF_FIRST, BACKOFF_MAX)).await;
            }
            result => return result,
        }
    }
}
