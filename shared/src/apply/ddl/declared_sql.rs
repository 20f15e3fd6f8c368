//! The types and check expressions of the configuration, before they become a part of a statement: PostgreSQL parses each
//! of them as what it is to be.

use tokio_postgres::Client;

use super::FailedAttempt;
use crate::catalog::lookup_types;
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify, describe};
use crate::plan::{NewColumn, TableDiff};

/// Verifies that the type of each new column is one type, and its check one boolean expression over the table's columns.
pub async fn verify(client: &Client, diff: &TableDiff) -> Result<(), FailedAttempt> {
    let names: Vec<&str> = diff.columns.iter().map(|column| &*column.sql_type).collect();
    if names.is_empty() {
        return Ok(());
    }
    let types = match lookup_types(client, &names).await {
        Ok(types) => types,
        Err(error) => return Err(mistake("type of a column", error.into_source())),
    };
    if let Some((name, _)) = names.iter().zip(types).find(|(_, known)| known.is_none()) {
        let reason = format!("unknown type {name}; create it or correct the configuration");
        return Err(FailedAttempt::Configuration(reason));
    }
    for column in &diff.columns {
        if let Some(check) = &column.check {
            verify_check(client, diff, column, check).await?;
        }
    }
    Ok(())
}

/// A prepared statement is exactly one statement. It is not executed.
async fn verify_check(client: &Client, diff: &TableDiff, column: &NewColumn, check: &str) -> Result<(), FailedAttempt> {
    let new = diff.columns.iter().map(|new| format!("NULL::{} AS {}", new.sql_type, new.name));
    let (existing, from) = match &diff.source_label {
        Some(_) => (None, String::new()),
        None => (Some("existing.*".to_owned()), format!(" FROM {} existing", diff.table)),
    };
    let columns = existing.into_iter().chain(new).collect::<Vec<_>>().join(", ");
    // A check may qualify columns with the table's name.
    let probe = format!("SELECT ({check}) IS TRUE FROM (SELECT {columns}{from}) AS {}", diff.table.table);
    match client.prepare_typed(&probe, &[]).await {
        Ok(_) => Ok(()),
        Err(error) => Err(mistake(&format!("check of column {}", column.name), error)),
    }
}

/// The configuration's mistake, unless the error is transient.
fn mistake(what: &str, error: tokio_postgres::Error) -> FailedAttempt {
    match classify(DatabaseStep::Session, &error) {
        ErrorAction::Retry => error.into(),
        ErrorAction::RejectRow | ErrorAction::RejectTable | ErrorAction::RefreshCatalog | ErrorAction::Halt => {
            FailedAttempt::Configuration(format!("{what}: {}", describe(&error)))
        }
    }
}
