//! The writing transaction: its settings, its savepoint, and the guarantee that tables match the plan until it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio_postgres::Client;

use super::remedy::{SchemaRights, missing_grants, needed_privileges, statement_rejected};
use super::{ApplyError, Limits, with_lock_holders};
use crate::catalog::{self, DbPartition};
use crate::database::sqlstate::{DatabaseStep, ErrorAction, classify, describe};
use crate::plan::TableWrite;
use crate::unwritable::UnwritableTable;

/// An open transaction on tables that match their plans.
pub struct WriteTransaction<'c> {
    pub(super) client: &'c Client,
    /// The OIDs of the tables that are locked and verified.
    verified_oids: Vec<u32>,
    /// Whether the savepoint of a kept attempt is still to be released; the next statement does so.
    release_pending: AtomicBool,
    /// Whether the connection is out of step: see [`ApplyError::CopyNotBegun`].
    out_of_step: AtomicBool,
}

impl<'c> WriteTransaction<'c> {
    /// Begins a transaction with the tables of a plan. All settings are local to the transaction, so that no pooler has
    /// to pin the connection.
    pub async fn begin(client: &'c Client, limits: Limits, writes: &[TableWrite]) -> Result<Self, ApplyError> {
        let begin = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = {}; SET LOCAL lock_timeout = {}; \
             SET CONSTRAINTS ALL IMMEDIATE;",
            // Zero would disable the timeout.
            limits.statement.as_millis().max(1),
            limits.lock.as_millis().max(1),
        );
        let mut transaction = Self {
            client,
            verified_oids: Vec::new(),
            release_pending: AtomicBool::new(false),
            out_of_step: AtomicBool::new(false),
        };
        match transaction.lock_and_verify_after(begin, writes).await {
            Ok(()) => Ok(transaction),
            Err(error) => {
                transaction.roll_back().await;
                Err(error)
            }
        }
    }

    /// Locks the tables of a plan against changes of their columns, and compares them with the plan.
    ///
    /// The lock is the one that any write takes. Taken first, it makes the comparison valid for the whole transaction.
    pub async fn lock_and_verify(&mut self, writes: &[TableWrite]) -> Result<(), ApplyError> {
        let is_locked = |write: &TableWrite| {
            let mut oids = write.direct_partitions().into_keys().chain([write.table.oid]);
            oids.all(|oid| self.verified_oids.contains(&oid)) && !write.needs_exclusive_lock()
        };
        if writes.iter().all(is_locked) {
            return Ok(());
        }
        self.lock_and_verify_after(String::new(), writes).await
    }

    async fn lock_and_verify_after(&mut self, begin: String, writes: &[TableWrite]) -> Result<(), ApplyError> {
        let statements = begin + &lock_statements(writes);
        let oids: Vec<u32> = writes.iter().map(|write| write.table.oid).collect();
        let partitions: Vec<u32> = writes.iter().flat_map(|write| write.direct_partitions().into_keys()).collect();
        // All are sent before the first response arrives.
        let (locked, fingerprints, attached) = futures_util::future::join3(
            self.client.batch_execute(&statements),
            catalog::fingerprints(self.client, &oids),
            attached(self.client, &partitions),
        )
        .await;
        match locked {
            Ok(()) => {
                compare_fingerprints(writes, &fingerprints?)?;
                compare_partitions(writes, &attached?)?;
            }
            // A table no longer exists. All are suspect, because the error does not say which.
            Err(error) if classify(DatabaseStep::LockTable, &error) == ErrorAction::RefreshCatalog => {
                let tables = writes.iter().map(|write| write.table.name.clone()).collect();
                return Err(ApplyError::Stale { tables, cause: format!(": {}", describe(&error)) });
            }
            Err(error) => return Err(error.into()),
        }
        self.verified_oids.extend(oids.into_iter().chain(partitions));
        Ok(())
    }

    /// Sets the savepoint of an attempt.
    pub async fn savepoint(&self) -> Result<(), ApplyError> {
        let release = self.release_pending.swap(false, Ordering::Relaxed);
        let statement = if release { "RELEASE SAVEPOINT attempt; SAVEPOINT attempt" } else { "SAVEPOINT attempt" };
        Ok(self.client.batch_execute(statement).await?)
    }

    /// Rolls back the attempt, including its locks, and keeps the savepoint.
    pub async fn rollback_attempt(&self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("ROLLBACK TO SAVEPOINT attempt").await?)
    }

    /// Rolls back the attempt and releases the savepoint.
    pub async fn abandon_attempt(&self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("ROLLBACK TO SAVEPOINT attempt; RELEASE SAVEPOINT attempt").await?)
    }

    /// Keeps the attempt.
    pub fn keep_attempt(&self) {
        self.release_pending.store(true, Ordering::Relaxed);
    }

    /// Commits. If the connection fails meanwhile, the outcome is unknown: what follows must be idempotent.
    pub async fn commit(self) -> Result<(), ApplyError> {
        Ok(self.client.batch_execute("COMMIT").await?)
    }

    /// The connection must not be used after this transaction.
    pub(super) fn mark_out_of_step(&self) {
        self.out_of_step.store(true, Ordering::Relaxed);
    }

    /// Rolls back and returns whether PostgreSQL confirmed it. If not, the connection is broken, and PostgreSQL rolls
    /// back by itself once it is closed.
    pub async fn roll_back(self) -> bool {
        !self.out_of_step.load(Ordering::Relaxed) && self.client.batch_execute("ROLLBACK").await.is_ok()
    }
}

/// Locks the tables, and the partitions that rows are copied into: a COPY that waits for its lock, and fails before it begins,
/// would leave the driver's connection out of step.
fn lock_statements(writes: &[TableWrite]) -> String {
    let of_partition = |partition: &DbPartition| format!("LOCK TABLE ONLY {} IN ROW EXCLUSIVE MODE", partition.name);
    let of_write = |write: &TableWrite| {
        let partitions: Vec<String> = write.direct_partitions().into_values().map(of_partition).collect();
        std::iter::once(lock_statement(write)).chain(partitions).collect::<Vec<_>>()
    };
    writes.iter().flat_map(of_write).collect::<Vec<_>>().join("; ")
}

fn lock_statement(write: &TableWrite) -> String {
    let mode = if write.needs_exclusive_lock() { "SHARE ROW EXCLUSIVE" } else { "ROW EXCLUSIVE" };
    format!("LOCK TABLE ONLY {} IN {mode} MODE", write.table.name)
}

/// Says why the tables of a plan could not be locked: which of them this role may not write, or who holds a lock. The
/// transaction must be rolled back.
pub async fn explain_lock_failure(client: &Client, writes: &[TableWrite], error: ApplyError) -> ApplyError {
    if let ApplyError::Database(database) = &error
        && classify(DatabaseStep::LockTable, database) == ErrorAction::RejectTable
    {
        return match forbidden_tables(client, writes, database).await {
            Ok(tables) if !tables.is_empty() => ApplyError::Unwritable(tables),
            Ok(_) | Err(_) => error,
        };
    }
    let tables = writes.iter().map(|write| write.table.name.clone()).collect();
    let statements = lock_statements(writes);
    with_lock_holders(client, tables, statements, error).await
}

/// The tables that this role may not write. The error does not say which they are.
async fn forbidden_tables(
    client: &Client,
    writes: &[TableWrite],
    error: &tokio_postgres::Error,
) -> Result<Vec<Arc<UnwritableTable>>, tokio_postgres::Error> {
    let mut forbidden = Vec::new();
    for write in writes {
        let table = write.table.name.clone();
        let remedy = missing_grants(client, &table, &needed_privileges(write), SchemaRights::NotNeeded).await?;
        if !remedy.is_empty() {
            let problem = statement_rejected(lock_statement(write), error);
            forbidden.push(Arc::new(UnwritableTable { table, problem, remedy, on_unwritable: write.on_unwritable }));
        }
    }
    Ok(forbidden)
}

async fn attached(client: &Client, partitions: &[u32]) -> Result<Vec<u32>, tokio_postgres::Error> {
    if partitions.is_empty() { Ok(Vec::new()) } else { catalog::attached(client, partitions).await }
}

/// Rows are copied straight into partitions: one that is detached now must not receive them.
fn compare_partitions(writes: &[TableWrite], attached: &[u32]) -> Result<(), ApplyError> {
    let is_stale = |write: &&TableWrite| write.direct_partitions().keys().any(|oid| !attached.contains(oid));
    let stale: Vec<_> = writes.iter().filter(is_stale).map(|write| write.table.name.clone()).collect();
    if stale.is_empty() { Ok(()) } else { Err(ApplyError::Stale { tables: stale, cause: String::new() }) }
}

fn compare_fingerprints(writes: &[TableWrite], fingerprints: &[(u32, String)]) -> Result<(), ApplyError> {
    let is_unchanged = |write: &&TableWrite| {
        fingerprints.iter().any(|(oid, fingerprint)| *oid == write.table.oid && *fingerprint == write.table.fingerprint)
    };
    let stale: Vec<_> =
        writes.iter().filter(|write| !is_unchanged(write)).map(|write| write.table.name.clone()).collect();
    if stale.is_empty() { Ok(()) } else { Err(ApplyError::Stale { tables: stale, cause: String::new() }) }
}
