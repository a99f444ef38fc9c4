//! Finds the ladder that the configuration names.
//!
//! Enters: the value of `transcode.ladder`: a shipped file's name, or a path
//! Leaves: a checked [`Template`]
//! Never:  a guess at what was meant
//! Time:   none
//! Spec:   pipelines/README.md

use anyhow::Context as _;

use crate::transcode::template::Template;

/// The ladder called `ladder`, or in the file of that path.
///
/// # Errors
/// Every mistake in it, with its place.
pub(super) fn load(ladder: &str) -> anyhow::Result<Template> {
    if !Template::is_path(ladder) {
        return Template::named(ladder).context("transcode.ladder");
    }
    let text = std::fs::read_to_string(ladder)
        .with_context(|| format!("transcode.ladder: cannot read {ladder}"))?;
    Ok(Template::parse(ladder, &text)?)
}
