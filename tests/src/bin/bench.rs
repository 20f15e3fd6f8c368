//! The benchmark: the function against PostgreSQL's own COPY, in one run on one machine.
//!
//! Prints the table and writes it to docs/benchmarks.md, with a summary in README.md. With an argument (`make bench PART=append`) it
//! measures the parts whose name contains it, and only prints.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match millstream_tests::bench::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            millstream_tests::say(&format!("bench failed: {error}{source}"));
            ExitCode::FAILURE
        }
    }
}
