//! Reads what broadcasts show while nothing comes, and makes sure that it can be shown.
//!
//! Enters: the settings of `[broadcast]`
//! Leaves: [`Absence`], with the slate's bytes
//! Never:  decodes a picture: a worker tries that
//! Time:   none
//! Spec:   docs/resilience.md

use std::io::Read as _;
use std::path::Path;

use anyhow::Context as _;
use bytes::Bytes;

use crate::config::{Broadcast, Slate};
use crate::transcode::supervisor::try_slate;
use crate::transcode::{Absence, MAX_SLATE_BYTES};

/// What `config` says, its slate read and tried.
///
/// # Errors
/// If the slate cannot be read, is too large, or is no picture.
pub(super) async fn load(config: &Broadcast) -> anyhow::Result<Absence> {
    let hold = config.hold;
    let Slate::File(path) = &config.slate else {
        let slate = Bytes::new();
        return Ok(Absence { hold, slate });
    };
    let shown = path.display();
    let slate = read(path).with_context(|| format!("broadcast.slate: cannot read {shown}"))?;
    let tried = try_slate(&std::env::current_exe()?, slate.clone()).await;
    tried.with_context(|| format!("broadcast.slate: {shown} cannot be shown"))?;
    Ok(Absence { hold, slate })
}

fn read(path: &Path) -> anyhow::Result<Bytes> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?
        .take(MAX_SLATE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() > MAX_SLATE_BYTES {
        anyhow::bail!("it is larger than {} MiB", MAX_SLATE_BYTES >> 20);
    }
    Ok(bytes.into())
}
