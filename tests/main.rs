//! Everything that needs real parts, in one test binary.
// Tests and their helpers panic if something is not as expected.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod activity;
mod adoption;
mod aws_errors;
mod board;
mod commands;
mod credentials;
mod declared_sql;
mod end_to_end;
mod event_source;
mod expansion;
mod faults;
mod functions;
mod golden;
mod infra;
mod killed;
mod maintain;
mod memory;
mod neighbours;
mod nul_names;
mod owners;
mod parts;
mod pooler;
mod portfolio;
mod properties;
mod raised;
mod readme;
mod records;
mod redrive;
mod relational;
mod replay;
mod replicas;
mod restore;
mod roles;
mod schema_lock;
mod search_path;
mod segment_members;
mod shared_schema;
mod support;
mod taken_names;
mod tls;
mod totals;
mod unwritable;
mod vocabulary;
mod writer;
