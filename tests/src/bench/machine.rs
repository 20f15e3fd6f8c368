//! Describes this machine, and measures this thread's CPU time.

use std::fmt;
use std::time::Duration;

use super::BenchResult;
use crate::postgresql::{PostgreSql, connect};

/// The context of the figures.
pub struct Machine {
    /// The processor's model.
    pub processor: String,
    /// The number of cores, which both sides share.
    pub cores: usize,
    /// The memory.
    pub memory_gib: u64,
    /// The major version of PostgreSQL.
    pub postgresql: String,
    /// The day of the run, in UTC.
    pub date: String,
}

impl Machine {
    /// This machine, and the server's version.
    pub async fn read(server: &PostgreSql) -> BenchResult<Self> {
        let query = "SELECT (current_setting('server_version_num')::int / 10000)::text, \
                     to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD')";
        let row = connect(&server.url("postgres")).await?.query_one(query, &[]).await?;
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let of_field = |name| processors.lines().filter(move |line| line.starts_with(name));
        let model = of_field("model name").next().and_then(|line| line.split(": ").nth(1));
        Ok(Self {
            processor: model.unwrap_or("unknown processor").to_owned(),
            cores: of_field("processor").count(),
            memory_gib: memory_gib().unwrap_or(0),
            postgresql: row.get(0),
            date: row.get(1),
        })
    }
}

fn memory_gib() -> Option<u64> {
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes: u64 = memory.lines().next()?.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes / 1024 / 1024)
}

impl fmt::Display for Machine {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, cores, memory_gib, postgresql, date: _ } = self;
        write!(
            formatter,
            "{processor}, {cores} cores, {memory_gib} GiB, shared with PostgreSQL {postgresql} and its default durability"
        )
    }
}

/// The processor time that this thread has used.
pub fn thread_cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanoseconds)
}
