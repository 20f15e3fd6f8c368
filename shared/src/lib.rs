//! Loads Kinesis and DynamoDB streams into PostgreSQL tables, with exactly-once results.
//!
//! An event is unpacked into [`record`]s, records are [`decode`]d into [`change`]s, changes are [`plan`]ned, the plan is
//! [`apply`]ed in one transaction, and every record is accounted for in a [`report`].

pub mod activity;
pub mod apply;
pub mod aws;
pub mod backfill;
mod backoff;
pub mod backup;
pub mod board;
pub mod catalog;
pub mod change;
pub mod clock;
pub mod config;
pub mod database;
pub mod dead_letter;
pub mod decimal;
pub mod decode;
pub mod dynamodb_tables;
pub mod feed;
pub mod field;
pub mod ingest;
mod json_scanner;
pub mod maintain;
pub mod names;
pub mod object_store;
pub mod outcome;
pub mod partition;
pub mod plan;
pub mod queue;
pub mod record;
pub mod redrive;
pub mod rejection;
pub mod report;
pub mod runtime;
mod schema_work;
pub mod spec;
mod sql_script;
pub mod statement_triggers;
pub mod status;
pub mod task;
pub mod telemetry;
pub mod timestamp;
pub mod totals;
pub mod transform;
pub mod unwritable;
