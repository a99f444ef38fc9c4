//! The `doctor` command, and what `serve` asks of it: whether this machine has what a broadcast needs.
//!
//! Enters: a checked configuration and its ladder
//! Leaves: a table on standard output; an error if a broadcast would not run
//! Never:  loads GStreamer: a child process answers for it
//! Time:   none
//! Spec:   docs/configuration.md

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;

use crate::app::doctor::{self, Check, Facts, Needs, Status};
use crate::config::Config;
use crate::store::Store;
use crate::transcode::SOURCE_DECODERS;
use crate::transcode::supervisor::probe;
use crate::transcode::template::{COPY, Pipeline, SHIPPED};

/// Refuses a ladder that this machine lacks an element for.
///
/// # Errors
/// The missing elements by name, and what brings them.
pub(super) async fn require(ladder: &Pipeline) -> anyhow::Result<()> {
    let needs = [needs(ladder)];
    if needs[0].elements.is_empty() {
        return Ok(());
    }
    let found = probe(&std::env::current_exe()?, &needs[0].elements).await;
    let found = found.context("GStreamer could not be asked what it has")?;
    let has = |element: &str| !found.missing.iter().any(|missing| missing == element);
    for check in doctor::check_ladders(&needs, ladder.name(), &has) {
        if check.status == Status::Fail {
            anyhow::bail!(
                "{} cannot run on this machine: {} ({}, or choose another with transcode.ladder, --ladder)",
                check.what,
                check.detail,
                check.fix
            );
        }
    }
    Ok(())
}

/// Examines this machine for `config` and the ladder it names, and prints what was found.
///
/// # Errors
/// If something was found that keeps a broadcast from running.
pub(super) async fn run(config: &Config, ladder: Pipeline) -> anyhow::Result<()> {
    let mut checks = gstreamer(&ladder).await?;
    checks.push(doctor::check_port(
        "RTMP port",
        "rtmp.listen",
        config.rtmp.listen,
    ));
    checks.push(doctor::check_port(
        "HTTP port",
        "serve.listen",
        config.serve.listen,
    ));
    let opened = Store::open(config.store.clone()).await;
    let opened = opened.map(drop).map_err(|error| error.to_string());
    let (first, second) = (&config.store.url, &config.store.second);
    let both = second
        .as_ref()
        .map(|second| format!("{first} and {}", second.url));
    checks.push(doctor::check_store(both.as_ref().unwrap_or(first), || {
        opened
    }));
    checks.extend(Facts::read().checks());
    let coloured = std::io::stdout().is_terminal();
    std::io::stdout()
        .lock()
        .write_all(doctor::render(&checks, coloured).as_bytes())?;
    if doctor::worst(&checks) == Status::Fail {
        anyhow::bail!("this machine cannot run a broadcast as configured; see the table");
    }
    Ok(())
}

/// GStreamer itself, and what each ladder needs of it.
async fn gstreamer(chosen: &Pipeline) -> anyhow::Result<Vec<Check>> {
    let mut ladders = SHIPPED
        .iter()
        .chain([&COPY])
        .map(|(name, _)| Ok(needs(&Pipeline::named(name)?)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    if ladders.iter().all(|needs| needs.ladder != chosen.name()) {
        ladders.insert(0, needs(chosen));
    }
    let mut elements: Vec<String> = ladders.iter().flat_map(|n| n.elements.clone()).collect();
    let decoders = SOURCE_DECODERS.iter().flat_map(|(_, decoders)| *decoders);
    elements.extend(decoders.map(|decoder| (*decoder).to_owned()));
    elements.sort();
    elements.dedup();
    let is_needed = !chosen.elements().is_empty();
    let probe = match probe(&std::env::current_exe()?, &elements).await {
        Ok(probe) => probe,
        Err(error) => {
            tracing::debug!(%error, "GStreamer could not be asked");
            return Ok(vec![doctor::check_gstreamer(None, is_needed)]);
        }
    };
    let found = version(&probe.gstreamer);
    let mut checks = vec![doctor::check_gstreamer(found, is_needed)];
    let has = |element: &str| !probe.missing.iter().any(|missing| missing == element);
    checks.push(doctor::check_sources(&SOURCE_DECODERS, &has));
    checks.extend(doctor::check_ladders(&ladders, chosen.name(), &has));
    Ok(checks)
}

fn needs(pipeline: &Pipeline) -> Needs {
    Needs {
        elements: pipeline.elements(),
        ladder: pipeline.name().to_owned(),
    }
}

/// The three numbers of "GStreamer 1.22.0".
fn version(text: &str) -> Option<doctor::Version> {
    let mut numbers = text.rsplit(' ').next()?.split('.').map(str::parse);
    Some((
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
        numbers.next()?.ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_gstreamers_own_words() {
        assert_eq!(version("GStreamer 1.22.0"), Some((1, 22, 0)));
        assert_eq!(version("1.24.13"), Some((1, 24, 13)));
        assert_eq!(version("unknown"), None);
    }
}
