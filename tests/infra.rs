//! The templates of `infra/`: linted as CloudFormation gets them, and created in a local AWS.

mod lint;
mod stack;
mod watch;
