//! A lock that was not obtained in time: for which statement, on which table, and who holds it.

use std::fmt;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row};

use crate::names::TableName;
use crate::timestamp::Timestamp;

/// A statement that waited in vain for a lock. The error is transient.
#[derive(Debug)]
pub struct LockTimeout {
    /// The table, or the tables of which one is locked.
    pub tables: Vec<TableName>,
    /// The statement that waited, without values.
    pub statement: String,
    /// The SQLSTATE of the timeout: of the lock, or of the statement.
    pub sqlstate: String,
    /// The sessions that held a lock afterwards.
    pub holders: Vec<LockHolder>,
}

/// A session that holds a lock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LockHolder {
    /// The process ID of its backend.
    pub pid: i32,
    /// Its `application_name`.
    pub application: Option<String>,
    /// The mode of the lock.
    pub mode: String,
    /// The relation that it locks: the table, or a partition.
    pub relation: String,
    /// What the session does, if the role may see it.
    pub state: Option<String>,
    /// When its transaction began, if the role may see it.
    pub since: Option<Timestamp>,
}

/// Which locks of other sessions delay a statement.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DelayedBy {
    /// Those of writers and of schema changes.
    Writers,
    /// Those of readers, too.
    Readers,
}

impl LockTimeout {
    /// Describes a statement that waited, once its transaction is rolled back. If the holders cannot be read, none is named.
    pub async fn new(
        client: &Client,
        tables: Vec<TableName>,
        statement: String,
        delayed_by: DelayedBy,
        error: &tokio_postgres::Error,
    ) -> Self {
        let holders = read_holders(client, &tables, delayed_by).await.unwrap_or_default();
        let sqlstate = error.code().map(|code| code.code().to_owned()).unwrap_or_default();
        Self { tables, statement, sqlstate, holders }
    }
}

async fn read_holders(
    client: &Client,
    tables: &[TableName],
    delayed_by: DelayedBy,
) -> Result<Vec<LockHolder>, tokio_postgres::Error> {
    let schemas: Vec<&str> = tables.iter().map(|table| table.schema.as_str()).collect();
    let names: Vec<&str> = tables.iter().map(|table| table.table.as_str()).collect();
    let readers_delay = delayed_by == DelayedBy::Readers;
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&schemas, Type::TEXT_ARRAY), (&names, Type::TEXT_ARRAY), (&readers_delay, Type::BOOL)];
    let rows = client.query_typed(include_str!("lock_holders.sql"), &parameters).await?;
    Ok(rows.iter().map(lock_holder).collect())
}

fn lock_holder(row: &Row) -> LockHolder {
    let application: Option<String> = row.get("application_name");
    LockHolder {
        pid: row.get("pid"),
        application: application.filter(|name| !name.is_empty()),
        mode: row.get("mode"),
        relation: row.get("relation"),
        state: row.get("state"),
        since: row.get::<_, Option<i64>>("since").map(Timestamp),
    }
}

impl fmt::Display for LockTimeout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.tables.iter().map(TableName::unquoted).collect::<Vec<_>>().join(", ");
        write!(
            f,
            "timed out waiting for a lock on {tables} to run `{}` [SQLSTATE {}]; ",
            self.statement, self.sqlstate
        )?;
        match &self.holders[..] {
            [] => write!(f, "no other session holds one now"),
            holders => {
                write!(f, "held by {}", holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {}", self.pid)?;
        if let Some(application) = &self.application {
            write!(f, " ({application})")?;
        }
        write!(f, ": {} on {}", self.mode, self.relation)?;
        if let Some(since) = self.since {
            write!(f, " since {since}")?;
        }
        match &self.state {
            Some(state) => write!(f, ", {state}"),
            None => Ok(()),
        }
    }
}
