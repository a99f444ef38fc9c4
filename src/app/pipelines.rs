//! Finds the ladder that the configuration names.
//!
//! Enters: the setting `transcode.ladder`, a shipped file's name or a path, and whether it has to be fast
//! Leaves: a checked [`Pipeline`]
//! Never:  a guess at what was meant
//! Time:   none
//! Spec:   pipelines/README.md

use anyhow::Context as _;

use crate::transcode;
use crate::transcode::template::{Pipeline, Template};

/// The ladder that `config` names, or in the file of that path.
///
/// # Errors
/// Every mistake in it, with its place; or why it cannot be as fast as is asked.
pub(super) fn load(config: &transcode::Config) -> anyhow::Result<Pipeline> {
    let pipeline = find(&config.ladder)?;
    if !config.low_delay {
        return Ok(pipeline);
    }
    pipeline.into_low_delay().context("transcode.ladder")
}

fn find(ladder: &str) -> anyhow::Result<Pipeline> {
    if !Template::is_path(ladder) {
        return Pipeline::named(ladder).context("transcode.ladder");
    }
    let text = std::fs::read_to_string(ladder)
        .with_context(|| format!("transcode.ladder: cannot read {ladder}"))?;
    Ok(Pipeline::parse(ladder, &text)?)
}
