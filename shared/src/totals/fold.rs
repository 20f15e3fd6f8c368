//! Folding: moves deltas into the batch, one folder at a time, by whoever has just committed.
//!
//! It changes no figure, so that it may run at any time. A process folds a total at most once a second; a session that finds
//! another one folding does not wait.

use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::TotalError;
use super::sql::TotalSql;
use crate::schema_work::in_transaction;

/// Folds the deltas of a total unless it was folded less than `pause` ago; returns how many, or `None` if not.
///
/// # Errors
/// Returns an error if the statement or the connection fails, or the timeout passes; nothing is folded then.
pub async fn fold(
    client: &Client,
    sql: &TotalSql<'_>,
    pause: Duration,
    timeout: Duration,
) -> Result<Option<u64>, TotalError> {
    in_transaction(client, timeout, async {
        let statement = format!("SELECT {}(pg_catalog.make_interval(secs => $1))", sql.object("fold"));
        let rows = client.query_typed(&statement, &[(&pause.as_secs_f64(), Type::FLOAT8)]).await?;
        Ok(rows.first().and_then(|row| row.get::<_, Option<i64>>(0)).map(|folded| folded as u64))
    })
    .await
}
