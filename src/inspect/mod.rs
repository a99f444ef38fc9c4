//! Inspects what an origin publishes: follows it as a player would, and holds it to the rules of HLS, DASH
//! and CMAF.
//!
//! ```text
//! follow (addresses or files) ─▶ Observation ─▶ check::Inspector ─▶ Report
//! ```
//!
//! Enters: an address or a folder
//! Leaves: a [`Report`](check::Report): the rules that are broken, where, what was found and what expected
//! Never:  the writer's code: playlists, MPD and boxes are read by readers of this module's own
//! Time:   microseconds since the Unix epoch; [`check`] gets them with each [`Observation`](check::Observation)
//! Spec:   docs/inspect.md

pub mod check;
pub mod follow;
