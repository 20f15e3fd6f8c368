//! The real parts on one machine: a private PostgreSQL, a local AWS, Lambda's Runtime API, and an event source that behaves
//! as Lambda's does. Tests, the demo and the bench stand on it.

pub mod bench;
pub mod certificates;
pub mod dynamodb;
pub mod event_source;
pub mod function;
pub mod kinesis;
pub mod local_aws;
pub mod pgbouncer;
pub mod postgresql;
pub mod process;
pub mod program;
pub mod proxy;
pub mod random;
pub mod replay;
pub mod replica;
pub mod shop;
pub mod sportsbook;
pub mod strict_sqs;
pub mod system;

/// Says something to the person at the terminal.
pub fn say(text: &str) {
    use std::io::Write;
    let mut out = std::io::stdout();
    // A reader that went away is no reason to stop.
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or_default();
}
