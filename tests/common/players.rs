//! Plays what the server offers in a real browser and brings back the verdict.
//!
//! Enters: the server's base URL and a stream's name; node, Chromium and `npm ci` are set-up's work
//! Leaves: a [`Verdict`]: whether it held, what did not, and every figure that was measured
//! Never:  leaves a browser behind: the script has a limit of its own, and the child one beyond it
//! Time:   wall clock seconds
//! Spec:   none

#![allow(dead_code, reason = "every test binary uses its own part of this")]

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// What a script gets altogether: on a busy machine of two cores a browser alone takes ten to start.
const SCRIPT_LIMIT_S: u64 = 150;
/// What the script gets that sees one broadcast out and the next one in.
const LIFE_LIMIT_S: u64 = 300;
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

/// Watches `stream` with several players at once, from the live edge to the next broadcast; `options` as
/// in `life.mjs`. `over` is told each phase that is over, and publishes as the next one needs it.
///
/// # Panics
///
/// When the script cannot be run, or says nothing in time.
pub(crate) async fn live_through(
    base_url: &str,
    stream: &str,
    options: &[&str],
    over: impl FnMut(&str),
) -> Verdict {
    let limit = LIFE_LIMIT_S.to_string();
    let mut args = vec!["life.mjs", base_url, "--stream", stream, "--limit", &limit];
    args.extend(options);
    run_for(&args, LIFE_LIMIT_S, over).await
}

/// Plays `stream`, which flashes and beeps, with hls.js and dash.js through `faults`, for each of which `befall` is
/// called by its name; the players are judged after each, and through those of them in `smooth` as well.
///
/// # Panics
///
/// When the script cannot be run, or says nothing in time.
pub(crate) async fn play_through(
    base_url: &str,
    stream: &str,
    (faults, smooth): (&str, &str),
    befall: impl FnMut(&str),
) -> Verdict {
    let limit = LIFE_LIMIT_S.to_string();
    let mut args = vec!["faults.mjs", base_url, "--stream", stream];
    args.extend(["--limit", &limit, "--lips", "--faults", faults]);
    args.extend(["--smooth", smooth]);
    run_for(&args, LIFE_LIMIT_S, befall).await
}

/// Plays `stream` with `engines` through `faults`, for each of which `befall` is called by its name.
///
/// # Panics
///
/// When the script cannot be run, or says nothing in time.
pub(crate) async fn play_on(
    base_url: &str,
    (stream, engines): (&str, &str),
    faults: &str,
    befall: impl FnMut(&str),
) -> Verdict {
    let limit = LIFE_LIMIT_S.to_string();
    let mut args = vec!["faults.mjs", base_url, "--stream", stream];
    args.extend(["--limit", &limit, "--engines", engines, "--faults", faults]);
    run_for(&args, LIFE_LIMIT_S, befall).await
}

/// Goes back in `stream` and to live again with `engines`, plays the stretch between two Unix times and starts over
/// at the first.
///
/// # Panics
///
/// When the script cannot be run, or says nothing in time.
pub(crate) async fn rewind(
    base_url: &str,
    (stream, engines): (&str, &str),
    stretch: (u64, u64),
) -> Verdict {
    let limit = LIFE_LIMIT_S.to_string();
    let (start, end) = (stretch.0.to_string(), stretch.1.to_string());
    let mut args = vec![
        "rewind.mjs",
        base_url,
        "--stream",
        stream,
        "--limit",
        &limit,
    ];
    args.extend(["--engines", engines, "--start", &start, "--end", &end]);
    run_for(&args, LIFE_LIMIT_S, |_| ()).await
}

/// Plays `stream` with hls.js and dash.js while its publisher changes, which `change` has it do; the players are
/// judged after that.
///
/// # Panics
///
/// When the script cannot be run, or says nothing in time.
pub(crate) async fn change_under(
    base_url: &str,
    stream: &str,
    change: impl FnMut(&str),
) -> Verdict {
    play_on(base_url, (stream, "hls,dash"), "change", change).await
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/players")
}

/// Runs the script that `args` begin with.
///
/// # Panics
///
/// When it cannot be run, or says nothing in time.
pub(crate) async fn run(args: &[&str]) -> Verdict {
    run_for(args, SCRIPT_LIMIT_S, |_| ()).await
}

/// Runs a script; hands the name of each phase that it says is over to `over`, and answers with a line when that
/// is done.
async fn run_for(args: &[&str], limit_s: u64, over: impl FnMut(&str)) -> Verdict {
    let folder = folder();
    assert!(
        folder.join("node_modules/playwright-core").is_dir(),
        "run `npm ci` in {} first",
        folder.display()
    );
    let mut child = Command::new("node")
        .args(args)
        .current_dir(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node is on the PATH");
    let limit = Duration::from_secs(limit_s + GRACE_S);
    let (said, complaint) = timeout(limit, listen(&mut child, over))
        .await
        .unwrap_or_else(|_| panic!("{args:?} did not end within {limit:?}"));
    let status = child.wait().await.expect("the script has ended");
    let last = said.lines().last().unwrap_or_default();
    let json: Value = serde_json::from_str(last).unwrap_or_else(|_| {
        panic!("{args:?} ended with {status} and no verdict:\n{said}\n{complaint}")
    });
    let mut failures: Vec<String> = json["failures"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|text| text.as_str().unwrap_or_default().to_owned())
        .collect();
    // A verdict that cannot be told from success must not pass for it.
    if failures.is_empty() && (!status.success() || json["ok"] != true) {
        failures.push(format!("the script ended with {status}"));
    }
    Verdict { failures, json }
}

/// All that the script says, on both its outputs.
async fn listen(child: &mut Child, mut over: impl FnMut(&str)) -> (String, String) {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let mut stdin = child.stdin.take().expect("piped");
    let mut complaint = String::new();
    let mut said = String::new();
    let complain = async {
        let mut stderr = stderr.expect("piped");
        stderr.read_to_string(&mut complaint).await
    };
    let follow = async {
        let mut lines = BufReader::new(stdout.expect("piped")).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let json: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(phase) = json["phase"].as_str() {
                over(phase);
                // Of a script that does not wait for it, nobody reads it.
                let _ = stdin.write_all(b"over\n").await;
            }
            said.push_str(&line);
            said.push('\n');
        }
    };
    let (complained, ()) = tokio::join!(complain, follow);
    complained.expect("the script's words are text");
    (said, complaint)
}
