//! Wires the stages into one program: the only place that knows them all.
//!
//! ```text
//! gate ─▶ broadcast (one task each) ─▶ publication ─▶ stream ◀─ registry ◀─ serve
//!                                           └─▶ store
//! ```
//!
//! Enters: the command line
//! Leaves: a running server, or the answer of a command, and an exit code
//! Never:  a rule of a format: those live in the stages
//! Time:   [`clock`] is the only clock
//! Spec:   docs/architecture.md

mod absence;
mod appearance;
mod banner;
mod broadcast;
pub mod cli;
pub mod clock;
mod commands;
mod context;
mod demo;
pub mod doctor;
mod dvr;
mod encoding;
mod examine;
mod export;
mod feed;
mod gate;
mod health;
mod inputs;
mod inspection;
mod intake;
mod latency;
mod line;
mod metrics;
mod numbering;
mod origin;
mod past;
mod pipelines;
mod publication;
mod registry;
mod server;
mod shows;
pub mod shutdown;
mod status;
mod stream;
mod telemetry;
mod version;

pub use commands::run;
