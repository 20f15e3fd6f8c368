//! SQL transforms: queries in `transforms/*.sql` next to the configuration, each of which keeps one table up to date.
//!
//! A file is one plain query, which is sent to PostgreSQL as it is ([`file`]). Transforms run in the order of their dependencies
//! ([`graph`]), after a load or on a schedule ([`task`]). A run is one transaction with one snapshot ([`run`]): it reads what is
//! new in the tables whose changes it declares ([`crate::feed`]), replaces or merges the rows of its target ([`target`]), and
//! stores what it has read, or nothing of that. The target keeps its identity: views on it survive.
//!
//! A failure names file, line and column, leaves the target as it was, skips what depends on it, and stops nothing else.

pub mod dry_run;
mod error;
mod file;
mod graph;
mod position;
mod registry;
mod run;
mod source;
mod target;
pub mod task;

pub use error::TransformError;
pub use file::{Dependency, TargetMode, TransformFile};
pub use graph::Graph;
pub use registry::{TRANSFORM_TABLE, TransformState, TransformStatus, read_states};
pub use run::{RunOutcome, RunReport, TransformOptions, run};
pub use source::{TransformSet, read_transforms};
