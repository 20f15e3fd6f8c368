//! Everything that needs real parts, in one test binary.

mod end_to_end;
mod faults;
mod golden;
mod maintain;
mod properties;
mod records;
mod support;
mod writer;
