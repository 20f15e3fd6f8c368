//! The real parts on one machine: a private PostgreSQL, a local AWS, Lambda's Runtime API, and an event source that behaves
//! as Lambda's does. Tests, the demo and the bench stand on it.

pub mod event_source;
pub mod function;
pub mod kinesis;
pub mod local_aws;
pub mod postgresql;
pub mod process;
pub mod proxy;
pub mod random;
pub mod sportsbook;
