//! The writing transaction: its settings, its savepoint, and the guarantee that tables look as planned until it ends.

use tokio_postgres::Client;

use super::{ApplyError, Limits};
use crate::catalog;
use crate::database::fault::{Verdict, describe, judge};
use crate::plan::TableWrite;

/// An open transaction on tables that are as the plan has them.
pub struct Session<'c> {
    pub client: &'c Client,
}

impl<'c> Session<'c> {
    /// Begins, locks the tables against changes of their columns, and compares them with the plan.
    ///
    /// The lock is the one that any write takes; taken first, it makes the comparison hold for the whole transaction. All
    /// settings are local to the transaction, so that no pooler has to pin the connection.
    pub async fn begin(client: &'c Client, limits: Limits, writes: &[TableWrite]) -> Result<Self, ApplyError> {
        let lock = |write: &TableWrite| {
            let mode = if write.exclusive() { "SHARE ROW EXCLUSIVE" } else { "ROW EXCLUSIVE" };
            format!("LOCK TABLE ONLY {} IN {mode} MODE;", write.table.name)
        };
        let locks: String = writes.iter().map(lock).collect();
        let begin = format!(
            "BEGIN; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; SET CONSTRAINTS ALL IMMEDIATE; {locks}",
            limits.statement.as_millis(),
            limits.lock.as_millis(),
        );
        let oids: Vec<u32> = writes.iter().map(|write| write.table.oid).collect();
        // Both are on their way before the first answer is awaited.
        let (begun, found) =
            futures_util::future::join(client.batch_execute(&begin), catalog::fingerprints(client, &oids)).await;
        let session = Self { client };
        let compared = match begun {
            Ok(()) => compare(writes, &found?),
            // A table is gone; all are suspect, for the error does not say which.
            Err(error) if judge(&error) == Verdict::Stale => {
                let tables = writes.iter().map(|write| write.table.name.clone()).collect();
                Err(ApplyError::Stale { tables, cause: format!(": {}", describe(&error)) })
            }
            Err(error) => Err(error.into()),
        };
        match compared {
            Ok(()) => Ok(session),
            Err(error) => {
                session.roll_back().await;
                Err(error)
            }
        }
    }

    /// Sets the savepoint that an attempt falls back to.
    pub async fn savepoint(&self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("SAVEPOINT attempt").await?)
    }

    /// Undoes the attempt, its locks included; the savepoint stays.
    pub async fn undo(&self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("ROLLBACK TO SAVEPOINT attempt").await?)
    }

    /// Undoes the attempt and takes the savepoint back.
    pub async fn give_up(&self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt").await?)
    }

    /// Keeps the attempt.
    pub async fn keep(&self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("RELEASE SAVEPOINT attempt").await?)
    }

    /// Commits. If the connection breaks meanwhile nobody knows whether it happened: what follows must be idempotent.
    pub async fn commit(self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("COMMIT").await?)
    }

    /// Rolls back. Where even that fails the connection is broken, and PostgreSQL rolls back by itself.
    pub async fn roll_back(self) {
        self.client.batch_execute("ROLLBACK").await.unwrap_or_default();
    }
}

fn compare(writes: &[TableWrite], found: &[(u32, String)]) -> Result<(), ApplyError> {
    let same = |write: &&TableWrite| {
        found.iter().any(|(oid, print)| *oid == write.table.oid && *print == write.table.fingerprint)
    };
    let stale: Vec<_> = writes.iter().filter(|write| !same(write)).map(|write| write.table.name.clone()).collect();
    if stale.is_empty() { Ok(()) } else { Err(ApplyError::Stale { tables: stale, cause: String::new() }) }
}
