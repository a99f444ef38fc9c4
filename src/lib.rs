//! Headwater: a live-video origin.
//!
//! ```text
//! ingest ──▶ demux ──▶ transcode ──▶ package ──▶ store
//! (RTMP)    (FLV →     (worker        (CMAF,        │
//!           Sample)    process)       HLS, DASH)    ▼
//!                                        └─────▶ serve (origin)
//! ```
//!
//! The folders are the stages, in the order the media takes. A stage uses the foundation
//! ([`time`], [`id`], [`codec`], [`media`]) and never another stage; [`app`] alone wires them.
//! `docs/architecture.md` has the longer story.

pub mod codec;
pub mod id;
pub mod media;
pub mod time;

pub mod demux;
pub mod ingest;
pub mod inspect;
pub mod package;
pub mod publish;
pub mod serve;
pub mod store;
pub mod transcode;

pub mod app;
pub mod config;
