//! Keeps what is published: behind the live path, in an order that survives a crash.
//!
//! Enters: init segments, segments and manifests of one broadcast, in the order they were made
//! Leaves: the same objects under the same relative paths as their addresses; reads; health
//! Never:  delays a caller: what cannot be stored in time waits on a disk or is counted, not waited for
//! Time:   tokio's clock, for retries and for removal
//! Spec:   [HLS] §6.2.2; docs/architecture.md
//!
//! The promise, at every instant, crash and power loss included: a stored playlist names only objects
//! that are stored. `queue` keeps it and is pure; `names` reads what a playlist names; `bucket` is the
//! one place that reads and writes through object_store, which `remote` sets up and `probe` tries; `claim`
//! sees to it that the place is ours; `guard` keeps what was overtaken from being written; `writer` moves the
//! one into the other. What waits for long lies on the `spool`, where `spooler` puts it, each object a
//! `record`. An MPD names its
//! segments by number and time, not one by one; it is held back until every init segment is stored.

mod archive;
mod bucket;
mod claim;
mod config;
mod guard;
mod health;
mod inventory;
mod location;
mod names;
mod open;
mod probe;
mod profile;
mod queue;
mod record;
mod remote;
mod second;
mod shared;
mod spool;
mod spooler;
mod sweep;
mod writer;

pub use archive::{Keep, WriteFailed};
pub use config::{Addressing, Config, Second, SpoolPlace};
pub use health::{Failure, Health};
pub use inventory::Inventory;
pub use open::{Error, ReadFailed, Store};
pub use queue::Put;
pub use second::Writers;
pub use writer::{BroadcastWriter, Left};

#[cfg(test)]
mod tests;
