//! The harness: a private PostgreSQL, a local AWS, Lambda's Runtime API, and an event source that behaves
//! as Lambda's does. Tests, the demo, the replay and the benchmark use it.

pub mod aws_stand_in;
pub mod bench;
pub mod board;
pub mod certificates;
pub mod chromium;
pub mod cleartext_server;
pub mod dynamodb;
pub mod event_source;
pub mod function;
pub mod kinesis;
pub mod local_aws;
pub mod packed;
pub mod pgbouncer;
pub mod portfolio;
pub mod postgresql;
pub mod process;
pub mod program;
pub mod proxy;
pub mod random;
pub mod replay;
pub mod replica;
pub mod shapes;
pub mod shop;
pub mod sportsbook;
pub mod strict_sqs;
pub mod system;
pub mod totals;

/// Prints a message to the terminal.
pub fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout();
    // A closed pipe is not a reason to stop.
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or_default();
}
