//! To be written.
pub mod doctor;
