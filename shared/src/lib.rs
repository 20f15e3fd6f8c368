//! AWS streams in, an always-fresh PostgreSQL database out.
//!
//! An event is unpacked into [`record`]s, records are [`decode`]d into [`change`]s, changes are [`plan`]ned, the plan is
//! [`apply`]ed in one transaction, and every record is accounted for in a [`report`].

pub mod apply;
pub mod archive;
pub mod aws;
pub mod backfill;
pub mod backup;
pub mod catalog;
pub mod change;
pub mod config;
pub mod database;
pub mod dead_letter;
pub mod decimal;
pub mod decode;
pub mod dynamodb;
pub mod field;
pub mod ingest;
pub mod maintain;
pub mod names;
pub mod partition;
mod pause;
pub mod plan;
pub mod queue;
pub mod record;
pub mod redrive;
pub mod rejection;
pub mod report;
pub mod runtime;
mod scan;
pub mod spec;
pub mod status;
pub mod telemetry;
pub mod timestamp;
