//! The writing transaction: its settings, its savepoint, and the guarantee that tables look as planned until it ends.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Client;

use super::{ApplyError, Limits};
use crate::catalog;
use crate::database::sqlstate::{ErrorAction, classify, describe};
use crate::plan::TableWrite;

/// An open transaction on tables that are as the plans have them.
pub struct WriteTransaction<'c> {
    pub(super) client: &'c Client,
    /// The tables that are locked and compared, by PostgreSQL's numbers.
    verified_oids: Vec<u32>,
    /// Whether an attempt was kept whose savepoint is still to be released: the next statement does that on its way.
    release_pending: AtomicBool,
}

impl<'c> WriteTransaction<'c> {
    /// Begins with the tables of a plan. All settings are local to the transaction, so that no pooler has to pin the
    /// connection.
    pub async fn begin(client: &'c Client, limits: Limits, writes: &[TableWrite]) -> Result<Self, ApplyError> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; \
             SET CONSTRAINTS ALL IMMEDIATE;",
            // None at all would be zero.
            limits.statement.as_millis().max(1),
            limits.lock.as_millis().max(1),
        );
        let mut session = Self { client, verified_oids: Vec::new(), release_pending: AtomicBool::new(false) };
        match session.lock_and_verify_after(begin, writes).await {
            Ok(()) => Ok(session),
            Err(error) => {
                session.roll_back().await;
                Err(error)
            }
        }
    }

    /// Admits the tables of a plan: locks them against changes of their columns, and compares them with the plan.
    ///
    /// The lock is the one that any write takes; taken first, it makes the comparison hold for the whole transaction.
    pub async fn lock_and_verify(&mut self, writes: &[TableWrite]) -> Result<(), ApplyError> {
        if writes.iter().all(|write| self.verified_oids.contains(&write.table.oid)) {
            return Ok(());
        }
        self.lock_and_verify_after(String::new(), writes).await
    }

    async fn lock_and_verify_after(&mut self, begin: String, writes: &[TableWrite]) -> Result<(), ApplyError> {
        let lock = |write: &TableWrite| {
            let mode = if write.needs_exclusive_lock() { "SHARE ROW EXCLUSIVE" } else { "ROW EXCLUSIVE" };
            format!("LOCK TABLE ONLY {} IN {mode} MODE;", write.table.name)
        };
        let statements = begin + &writes.iter().map(lock).collect::<String>();
        let oids: Vec<u32> = writes.iter().map(|write| write.table.oid).collect();
        // Both are on their way before the first answer is awaited.
        let locking = self.client.batch_execute(&statements);
        let (locked, found) = futures_util::future::join(locking, catalog::fingerprints(self.client, &oids)).await;
        match locked {
            Ok(()) => compare_fingerprints(writes, &found?)?,
            // A table is gone; all are suspect, for the error does not say which.
            Err(error) if classify(&error) == ErrorAction::RefreshCatalog => {
                let tables = writes.iter().map(|write| write.table.name.clone()).collect();
                return Err(ApplyError::Stale { tables, cause: format!(": {}", describe(&error)) });
            }
            Err(error) => return Err(error.into()),
        }
        self.verified_oids.extend(oids);
        Ok(())
    }

    /// Sets the savepoint that an attempt falls back to.
    pub async fn savepoint(&self) -> Result<(), ApplyError> {
        let kept = self.release_pending.swap(false, Ordering::Relaxed);
        let statement = if kept { "RELEASE SAVEPOINT attempt; SAVEPOINT attempt" } else { "SAVEPOINT attempt" };
        Ok(self.client.batch_execute(statement).await?)
    }

    /// Undoes the attempt, its locks included; the savepoint stays.
    pub async fn rollback_attempt(&self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("ROLLBACK TO SAVEPOINT attempt").await?)
    }

    /// Undoes the attempt and takes the savepoint back.
    pub async fn abandon_attempt(&self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt").await?)
    }

    /// Keeps the attempt.
    pub fn keep_attempt(&self) {
        self.release_pending.store(true, Ordering::Relaxed);
    }

    /// Commits. If the connection breaks meanwhile nobody knows whether it happened: what follows must be idempotent.
    pub async fn commit(self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("COMMIT").await?)
    }

    /// Rolls back; whether that was heard. Where it was not the connection is broken, and PostgreSQL rolls back by itself.
    pub async fn roll_back(self) -> bool {
        self.client.batch_execute("ROLLBACK").await.is_ok()
    }
}

fn compare_fingerprints(writes: &[TableWrite], found: &[(u32, String)]) -> Result<(), ApplyError> {
    let same = |write: &&TableWrite| {
        found.iter().any(|(oid, print)| *oid == write.table.oid && *print == write.table.fingerprint)
    };
    let stale: Vec<_> = writes.iter().filter(|write| !same(write)).map(|write| write.table.name.clone()).collect();
    if stale.is_empty() { Ok(()) } else { Err(ApplyError::Stale { tables: stale, cause: String::new() }) }
}
