//! Turns signals into one value that everything watches.
//!
//! Enters: SIGINT and SIGTERM
//! Leaves: a watch channel that becomes `true` once; a second signal ends the process at once
//! Never:  ends a task: each one drains by itself when it sees the value
//! Time:   none
//! Spec:   docs/architecture.md, "Shutdown"

use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// A signal this soon after the first is the same request: `timeout` and some supervisors signal a process
/// and then its group, which reaches the process twice.
const SAME_SIGNAL: Duration = Duration::from_millis(500);

/// What everything that must stop holds; `true` once the process is asked to end.
pub type Signal = watch::Receiver<bool>;

/// Watches for SIGINT and SIGTERM from now on. The second of them exits with status 1 at once.
///
/// # Errors
/// If the operating system refuses the handlers.
pub fn watch_signals() -> std::io::Result<Signal> {
    let (asked, seen) = watch::channel(false);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        let mut first: Option<Instant> = None;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            match first {
                None => {
                    tracing::info!(
                        "draining: no new publishers, open segments are finished and stored"
                    );
                    asked.send_replace(true);
                    first = Some(Instant::now());
                }
                Some(at) if at.elapsed() < SAME_SIGNAL => {}
                Some(_) => {
                    tracing::warn!("second signal: ending at once");
                    std::process::exit(1);
                }
            }
        }
    });
    Ok(seen)
}

/// Returns when the process is asked to end.
pub async fn asked(signal: &mut Signal) {
    // An error means that nobody can ask any more, which happens only when the process ends anyway.
    let _ = signal.wait_for(|asked| *asked).await;
}
