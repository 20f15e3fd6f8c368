//! Everything that needs real parts, in one test binary.

mod support;
mod writer;
