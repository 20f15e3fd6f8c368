//! Decides when the database is read, and keeps what was read: one snapshot of the system, and one for each user who has looked
//! lately. A user's snapshot is found by the user alone, and holds nothing that was read for anybody else.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as AsyncMutex;

use super::{ReadError, ReadFailure, Scope, Snapshot, period, read};
use crate::board::TakenSnapshot;
use crate::board::auth::Viewer;
use crate::clock::now;
use crate::config::Config;
use crate::database::Database;
use crate::database::sqlstate::describe;

/// The system is read at most once in this time.
const SYSTEM_INTERVAL: Duration = Duration::from_secs(1);
/// A reading that takes longer is given up: the page is served with the last figures.
pub(super) const READING_TIMEOUT: Duration = Duration::from_secs(4);
/// After a failed reading the next one waits for 1, 2, 4, … seconds, up to this.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// The reports of so many users are kept. One takes at most a few hundred kilobytes; the function has 128 MB.
const USERS_MAX: usize = 64;

/// Reads snapshots.
pub struct SnapshotReader {
    database: Database,
    system: AsyncMutex<ReaderState>,
    users: Mutex<HashMap<String, UserEntry>>,
    /// While the database cannot be reached, only one of those who ask tries, and only now and then.
    outage: Mutex<Option<Outage>>,
}

struct UserEntry {
    state: Arc<AsyncMutex<ReaderState>>,
    used: Instant,
}

#[derive(Clone)]
struct Outage {
    until: Instant,
    reason: String,
}

#[derive(Default)]
struct ReaderState {
    snapshot: Arc<Snapshot>,
    /// When the snapshot was read.
    read: Option<Instant>,
    /// When the next attempt may begin.
    due: Option<Instant>,
    failures: u32,
    reason: Option<String>,
}

impl SnapshotReader {
    /// Creates a reader that has read nothing yet.
    pub fn new(database: Database) -> Self {
        Self { database, system: AsyncMutex::default(), users: Mutex::default(), outage: Mutex::default() }
    }

    /// What a viewer may see, as it is now or was a moment ago. Those who ask while it is being read wait for the same reading.
    pub async fn current(&self, config: &Config, viewer: &Viewer) -> TakenSnapshot {
        match &viewer.user {
            None => self.taken(&mut *self.system.lock().await, config, Scope::System).await,
            Some(user) => {
                let state = self.state_of(user);
                let mut state = state.lock().await;
                self.taken(&mut state, config, Scope::User(user)).await
            }
        }
    }

    /// The state of a user. The one that has not been used for the longest time makes room for a new one.
    fn state_of(&self, user: &str) -> Arc<AsyncMutex<ReaderState>> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if users.len() >= USERS_MAX && !users.contains_key(user) {
            let oldest = users.iter().min_by_key(|(_, entry)| entry.used).map(|(user, _)| user.clone());
            oldest.and_then(|oldest| users.remove(&oldest));
        }
        let new = || UserEntry { state: Arc::default(), used: Instant::now() };
        let entry = users.entry(user.to_owned()).or_insert_with(new);
        entry.used = Instant::now();
        entry.state.clone()
    }

    async fn taken(&self, state: &mut ReaderState, config: &Config, scope: Scope<'_>) -> TakenSnapshot {
        if state.due.is_none_or(|due| Instant::now() >= due) {
            self.refresh(state, config, scope).await;
        }
        let (snapshot, read) = (state.snapshot.clone(), state.read);
        let elapsed = read.map_or(0, |read| i64::try_from(read.elapsed().as_micros()).unwrap_or(i64::MAX));
        let now = snapshot.at.map_or_else(now, |at| at.saturating_add(elapsed));
        let failure = |reason: &String| ReadFailure { last_read: snapshot.at, reason: reason.clone() };
        let not_refreshed_since = state.reason.as_ref().map(failure);
        TakenSnapshot { snapshot, now, not_refreshed_since }
    }

    async fn refresh(&self, state: &mut ReaderState, config: &Config, scope: Scope<'_>) {
        let started = Instant::now();
        if let Some(Outage { until, reason }) = self.outage().filter(|outage| started < outage.until) {
            (state.due, state.reason) = (Some(until), Some(reason));
            return;
        }
        let mut snapshot = Snapshot::clone(&state.snapshot);
        let reading = read(&self.database, &mut snapshot, config, scope);
        let result = tokio::time::timeout(READING_TIMEOUT, reading).await;
        match result.unwrap_or(Err(ReadError::TimedOut)) {
            Ok(()) => {
                state.snapshot = Arc::new(snapshot);
                (state.read, state.reason, state.failures) = (Some(Instant::now()), None, 0);
                state.due = Some(started + interval(scope));
            }
            Err(error) => self.record_failure(state, &error),
        }
    }

    fn record_failure(&self, state: &mut ReaderState, error: &ReadError) {
        let reason = format_chain(error);
        tracing::warn!(error = reason, "the database could not be read");
        let delay = BACKOFF_FIRST.saturating_mul(2u32.saturating_pow(state.failures)).min(BACKOFF_MAX);
        let until = Instant::now() + delay;
        if matches!(error, ReadError::Database(_)) {
            let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
            *outage = Some(Outage { until, reason: reason.clone() });
        }
        state.failures = state.failures.saturating_add(1);
        (state.due, state.reason) = (Some(until), Some(reason));
    }

    fn outage(&self) -> Option<Outage> {
        self.outage.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn interval(scope: Scope<'_>) -> Duration {
    match scope {
        Scope::System => SYSTEM_INTERVAL,
        Scope::User(_) => period::REPORTS,
    }
}

fn format_chain(error: &ReadError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let message = match inner.downcast_ref::<tokio_postgres::Error>() {
            Some(error) => describe(error),
            None => inner.to_string(),
        };
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        source = inner.source();
    }
    text
}
