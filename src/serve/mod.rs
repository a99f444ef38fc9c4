//! The origin: answers what players and caches ask over HTTP.
//!
//! Enters: requests from anyone; through [`Origin`], what is published
//! Leaves: answers whose addresses and headers are a contract with every cache in front
//! Never:  renders a manifest, cuts media, writes anything
//! Time:   the wall clock only through [`Origin::now`]; timeouts on tokio's clock
//! Spec:   [RFC9110], [RFC9111], [RFC9112], [RFC9113], [FETCH] CORS
//!
//! Pure: [`route`], [`cache`], [`document`], [`blocking`], [`stretch`]. Shell: `answer` puts them together, `waiting`
//! waits for what is yet to be made, `compressing` has long texts compressed, `http` owns the sockets.

mod answer;
mod assets;
pub mod blocking;
mod body;
pub mod cache;
mod compressing;
pub mod document;
mod http;
mod idle;
mod live;
mod metrics;
mod origin;
pub mod page;
pub mod route;
pub mod shelf;
pub mod shows;
pub mod stretch;
mod waiting;

pub use assets::{Asset, Assets};
pub use document::Document;
pub use http::{Config, Error, Server};
pub use live::{Chosen, Feed, Live, Version};
pub use metrics::{Kind, Metrics, STATUSES};
pub use origin::{Clip, Found, Growth, NoClip, Object, Origin, StoreFailed, Stored};
