//! Everything that needs real parts, in one test binary.

mod end_to_end;
mod faults;
mod properties;
mod support;
mod writer;
