//! To be written.

pub mod page;
