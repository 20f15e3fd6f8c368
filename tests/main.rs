//! Everything that needs real parts, in one test binary.
// A test stops where something is not as it must be, its helpers included.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod commands;
mod credentials;
mod end_to_end;
mod event_source;
mod faults;
mod functions;
mod golden;
mod infra;
mod killed;
mod maintain;
mod memory;
mod owners;
mod pooler;
mod properties;
mod readme;
mod records;
mod redrive;
mod relational;
mod replay;
mod replicas;
mod restore;
mod roles;
mod support;
mod tls;
mod vocabulary;
mod writer;
