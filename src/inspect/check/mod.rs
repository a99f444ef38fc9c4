//! Turns observations into findings: every rule, no network.
//!
//! Enters: [`Observation`]s in the order in which they were made
//! Leaves: a [`Report`]
//! Never:  I/O, clocks, floats
//! Time:   microseconds since the Unix epoch, as observed
//! Spec:   docs/inspect.md

#![deny(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::float_arithmetic
)]

mod boxes;
mod dash;
mod findings;
mod http;
mod inspector;
mod listing;
mod live_edge;
mod low_latency;
mod media;
mod multivariant;
mod observation;
mod text;
mod timeline;

pub mod mpd;
pub mod playlist;
pub mod rules;

pub use findings::{Finding, Findings, MAX_FINDINGS_PER_RULE, Place, Report};
pub use inspector::Inspector;
pub use observation::{Answer, Observation, Probe, Role};
pub use rules::{Level, RULES, Rule};
pub use text::{join, listing_name, parse_date};
