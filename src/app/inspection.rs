//! The `inspect` command: follows, shows how far it is, and prints the report.
//!
//! Enters: a [`Job`]
//! Leaves: a table or JSON on standard output; an error if a MUST is broken
//! Never:  a rule
//! Time:   the length of the job
//! Spec:   docs/inspect.md

use std::io::Write as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::inspect::follow::{Job, Progress, Target, inspect};

/// Inspects and prints the report, as JSON if asked for.
///
/// # Errors
/// If there is nothing to inspect, or a MUST is broken.
pub(super) async fn run(job: Job, json: bool) -> anyhow::Result<()> {
    let bar = bar(&job);
    let report = inspect(job, |progress| show(&bar, progress)).await;
    bar.finish_and_clear();
    let report = report?;
    let text = if json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        report.to_string()
    };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    if !report.is_good() {
        anyhow::bail!("a MUST is broken, {} times", report.must);
    }
    Ok(())
}

fn bar(job: &Job) -> ProgressBar {
    let template = match job.target {
        Target::Address(_) => "{bar:40} {elapsed}  {msg}",
        Target::Folder(_) => "{spinner} {elapsed}  {msg}",
    };
    let bar = ProgressBar::new(millis(job.length));
    // The template is a constant; a bar without its style still shows the message.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}

fn show(bar: &ProgressBar, progress: &Progress) {
    bar.set_position(millis(progress.elapsed));
    bar.set_message(format!(
        "{} answers, MUST broken {} times, SHOULD {}",
        progress.answers, progress.must, progress.should
    ));
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}
