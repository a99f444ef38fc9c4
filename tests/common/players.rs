//! Plays what the server offers in a real browser and brings back the verdict.
//!
//! Enters: the server's base URL and a stream's name; node, Chromium and `npm ci` are set-up's work
//! Leaves: a [`Verdict`]: whether it held, what did not, and every figure that was measured
//! Never:  leaves a browser behind: the script has a limit of its own, and the child one beyond it
//! Time:   wall clock seconds
//! Spec:   none

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

/// What the scripts get altogether: on a busy machine of two cores a browser alone takes ten to start.
const SCRIPT_LIMIT_S: u64 = 150;
/// What a script gets beyond that to close its browser, before it is killed.
const GRACE_S: u64 = 20;

/// Which player, and so which manifest.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Engine {
    Hls,
    Dash,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hls => "hls",
            Self::Dash => "dash",
        })
    }
}

/// What a script found.
#[derive(Debug)]
pub(crate) struct Verdict {
    /// What did not hold, in words; empty when all did.
    pub(crate) failures: Vec<String>,
    /// The script's whole line.
    pub(crate) json: Value,
}

impl Verdict {
    /// # Panics
    ///
    /// When anything did not hold, with the failures and every figure.
    pub(crate) fn assert_held(&self) {
        assert!(
            self.failures.is_empty(),
            "{}\n{:#}",
            self.failures.join("\n"),
            self.json
        );
    }
}

/// Plays `stream` with `engine` from a page of another origin; `options` as in `play.mjs`.
///
/// # Panics
///
/// When the script cannot be run, or says nothing in time.
pub(crate) async fn play(
    base_url: &str,
    stream: &str,
    engine: Engine,
    options: &[&str],
) -> Verdict {
    let (engine, limit) = (engine.to_string(), SCRIPT_LIMIT_S.to_string());
    let mut args = vec!["play.mjs", base_url, "--stream", stream];
    args.extend(["--engine", &engine, "--limit", &limit]);
    args.extend(options);
    run(&args).await
}

/// Opens the page at `/` and waits until `stream` plays there in both engines; `options` as in
/// `page.mjs`. Pictures of it go to `shots`, when given.
///
/// # Panics
///
/// When the script cannot be run, or says nothing in time.
pub(crate) async fn open_page(
    base_url: &str,
    stream: &str,
    shots: Option<&Path>,
    options: &[&str],
) -> Verdict {
    let limit = SCRIPT_LIMIT_S.to_string();
    let shots = shots.map(|folder| folder.display().to_string());
    let mut args = vec!["page.mjs", base_url, "--stream", stream, "--limit", &limit];
    if let Some(folder) = &shots {
        args.extend(["--shots", folder]);
    }
    args.extend(options);
    run(&args).await
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/players")
}

async fn run(args: &[&str]) -> Verdict {
    let folder = folder();
    assert!(
        folder.join("node_modules/playwright-core").is_dir(),
        "run `npm ci` in {} first",
        folder.display()
    );
    let child = Command::new("node")
        .args(args)
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node is on the PATH");
    let limit = Duration::from_secs(SCRIPT_LIMIT_S + GRACE_S);
    let output = timeout(limit, child.wait_with_output())
        .await
        .unwrap_or_else(|_| panic!("{args:?} said nothing within {limit:?}"))
        .expect("the script's output can be read");
    let said = String::from_utf8_lossy(&output.stdout);
    let last = said.lines().last().unwrap_or_default();
    let json: Value = serde_json::from_str(last).unwrap_or_else(|_| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        panic!(
            "{args:?} ended with {} and no verdict:\n{said}\n{complaint}",
            output.status
        )
    });
    let mut failures: Vec<String> = json["failures"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|text| text.as_str().unwrap_or_default().to_owned())
        .collect();
    // A verdict that cannot be told from success must not pass for it.
    if failures.is_empty() && (!output.status.success() || json["ok"] != true) {
        failures.push(format!("the script ended with {}", output.status));
    }
    Verdict { failures, json }
}
