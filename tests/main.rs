//! Everything that needs real parts, in one test binary.

mod faults;
mod properties;
mod support;
mod writer;
