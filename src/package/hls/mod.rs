//! Renders HLS from a snapshot.
//!
//! Enters: a [`Snapshot`](super::Snapshot)
//! Leaves: text of playlists; one snapshot gives the same bytes every time
//! Never:  state of its own
//! Time:   seconds with six decimals; dates from the media's position
//! Spec:   [HLS] §4

mod listing;
pub mod media;
pub mod multivariant;

pub(super) use listing::micros;
pub use listing::{Listing, parse};
