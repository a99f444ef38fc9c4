//! Logs: where they go and in which form.
//!
//! Enters: what the configuration says of the log
//! Leaves: a global tracing subscriber on standard error
//! Never:  standard output, which belongs to what commands answer
//! Time:   UTC in every line
//! Spec:   docs/configuration.md

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::{Format, Log};

/// Sends logs to standard error, as `log` says.
///
/// # Errors
/// If the filter cannot be read, or logs have been set up before.
pub(super) fn init_logs(log: &Log) -> anyhow::Result<()> {
    let level = log.level.as_str();
    let filter = EnvFilter::try_new(level).with_context(|| format!("log.level: {level:?}"))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let terminal = std::io::stderr().is_terminal();
    let json = match log.format {
        Format::Auto => !terminal,
        Format::Text => false,
        Format::Json => true,
    };
    let result = if json {
        builder.json().flatten_event(true).try_init()
    } else {
        builder.with_ansi(terminal).with_target(false).try_init()
    };
    result.map_err(|error| anyhow::anyhow!("logs could not be set up: {error}"))
}
