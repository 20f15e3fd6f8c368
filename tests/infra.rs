//! The templates of `infra/`: linted as CloudFormation receives them, and created in a local AWS.

mod lint;
mod stack;
mod totals;
mod transforms;
mod watch;
