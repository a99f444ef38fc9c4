//! Workers that take nothing, say nothing, say too much or cannot be started, and the time that is told.

use std::num::NonZeroU32;
use std::path::Path;

use super::*;
use crate::media::made_up;
use crate::time::{Span, Ticks, Timescale};

const TRACK: TrackId = TrackId::new(NonZeroU32::MIN);

/// A transcoder of the ladder `template` whose worker is `yes`: it runs, and says nothing that is understood.
pub(super) fn deaf(stream: &str, template: &str) -> Options {
    Options {
        stream: stream.parse().expect("legal"),
        template: Template::named(template).expect("shipped"),
        machine: Machine { cores: 1 },
        grid: Grid::new(NonZeroU32::new(2_000).expect("not zero")),
        part_ms: 333,
        first: SegmentNumber::new(0),
        program: "yes".into(),
        absence: Absence::default(),
    }
}

/// A transcoder whose worker is `yes`: it runs, takes nothing and says nothing. It has been given
/// `count` seconds of sound, or as many as it took until it was given up.
async fn with_deaf_worker(stream: &str, count: i64) -> (Transcoder, Outputs) {
    fed(deaf(stream, "auto"), count).await
}

/// A transcoder with `options` that has been given `count` seconds of sound, or as many as it took until it was given up.
async fn fed(options: Options, count: i64) -> (Transcoder, Outputs) {
    let (transcoder, outputs) = Transcoder::start(options);
    let track = TrackInfo {
        id: TRACK,
        timescale: Timescale::new(48_000).expect("not zero"),
        codec: made_up::aac(48_000),
    };
    transcoder.track(track).await.expect("takes it");
    for second in 0..count {
        let at = Ticks::new(second * 48_000);
        let sample = Sample {
            dts: at,
            pts: at,
            duration: Span::new(48_000),
            keyframe: true,
            data: vec![0; 1 << 20].into(),
        };
        if transcoder.sample(TRACK, sample).await.is_err() {
            break;
        }
    }
    (transcoder, outputs)
}

/// What comes after the two workers that are tried in the place of the first.
async fn after_restarts(outputs: &mut Outputs) -> Option<Output> {
    for skips in [false, true] {
        let output = outputs.next().await;
        let restarted = matches!(
            output,
            Some(Output::Restarted { cause: Error::Stalled, skipped }) if skipped == skips
        );
        assert!(restarted, "{output:?}");
    }
    outputs.next().await
}

#[tokio::test(start_paused = true)]
async fn time_that_waited_for_a_worker_is_not_told() {
    let now = WallTime::from_micros(7);
    let clock = Clock::new(now);
    tokio::time::advance(MAX_CLOCK_AGE).await;
    assert_eq!(clock.fresh(), Some(now));
    tokio::time::advance(Duration::from_millis(1)).await;
    assert_eq!(clock.fresh(), None);
    assert_eq!(clock.by_now(), WallTime::from_micros(500_000 + 1_000 + 7));
}

#[tokio::test(start_paused = true)]
async fn worker_that_takes_nothing_is_given_up_while_its_source_goes_on() {
    let (_open, mut outputs) = with_deaf_worker("deaf", 200).await;
    let end = after_restarts(&mut outputs).await;
    assert!(
        matches!(end, Some(Output::Failed(Error::Stalled))),
        "{end:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn worker_that_does_not_end_with_its_source_is_given_up() {
    let (transcoder, mut outputs) = with_deaf_worker("endless", 2).await;
    drop(transcoder);
    let end = after_restarts(&mut outputs).await;
    assert!(
        matches!(end, Some(Output::Failed(Error::Stalled))),
        "{end:?}"
    );
}

#[tokio::test]
async fn worker_is_not_in_the_group_that_a_terminal_interrupts() {
    let stream = format!("group-{}", std::process::id());
    let _running = with_deaf_worker(&stream, 2).await;
    let found = async {
        loop {
            if let Some(stat) = stat_of_worker(&stream) {
                return stat;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let limit = Duration::from_secs(10);
    let stat = tokio::time::timeout(limit, found).await.expect("a worker");
    // "PID (yes) STATE PARENT GROUP"
    let fields: Vec<&str> = stat.split(' ').collect();
    assert_eq!(fields[0], fields[4], "{stat}");
}

/// What the system says of the worker that runs for `stream`.
fn stat_of_worker(stream: &str) -> Option<String> {
    let command = format!("yes\0worker\0{stream}\0");
    let all = std::fs::read_dir("/proc").expect("/proc").flatten();
    let is_it = |path: &Path| {
        std::fs::read(path.join("cmdline")).is_ok_and(|line| line == command.as_bytes())
    };
    let path = all.map(|entry| entry.path()).find(|path| is_it(path))?;
    std::fs::read_to_string(path.join("stat")).ok()
}

/// A program that does what `script` says, in a folder that lives as long as the first.
fn program(script: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("worker");
    std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&path, mode).expect("its own file");
    (folder, path)
}

/// How the transcoder ends whose worker is `program`, after the sound of two seconds.
async fn end_of(program: PathBuf) -> Option<Output> {
    let options = Options {
        program,
        ..deaf("end", "auto")
    };
    let (transcoder, mut outputs) = fed(options, 2).await;
    drop(transcoder);
    loop {
        match outputs.next().await {
            Some(Output::Restarted { .. }) => {}
            end => return end,
        }
    }
}

#[tokio::test]
async fn worker_is_not_given_what_the_server_knows() {
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let (_folder, path) = program("env >&2; exit 1");
    let Some(Output::Failed(Error::Died { last, .. })) = end_of(path).await else {
        unreachable!("it dies");
    };
    let names = last.iter().filter_map(|line| line.split_once('='));
    let names: Vec<&str> = names.map(|(name, _)| name).collect();
    assert!(names.contains(&"PATH"), "{last:?}");
    assert!(
        !names.iter().any(|name| name.starts_with("CARGO")),
        "{last:?}"
    );
}

#[tokio::test]
async fn what_a_worker_has_started_ends_with_it() {
    let (folder, path) = program("sleep 300 & echo $! > \"${0%/*}/pid\"; wait");
    let options = Options {
        program: path,
        ..deaf("group", "auto")
    };
    let running = fed(options, 2).await;
    let pid = async {
        loop {
            let text = std::fs::read_to_string(folder.path().join("pid")).unwrap_or_default();
            if let Some(pid) = text.strip_suffix('\n') {
                return pid.to_owned();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let limit = Duration::from_secs(20);
    let pid = tokio::time::timeout(limit, pid).await.expect("it runs");
    drop(running);
    let is_gone = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
        // Who takes care of orphans may not have looked yet.
        stat.is_err() || stat.is_ok_and(|stat| stat.contains(") Z "))
    };
    let gone = async {
        while !is_gone() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(limit, gone).await.expect("it ends");
}

#[tokio::test(start_paused = true)]
async fn worker_that_cannot_be_started_for_a_while_is_started_then() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("worker");
    let link = program.clone();
    let soon = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        std::os::unix::fs::symlink("/bin/false", link).expect("linked");
        // From here on a real program takes the time that it takes: a clock that jumps would take it for one that hangs.
        tokio::time::resume();
    };
    let (end, ()) = tokio::join!(end_of(program), soon);
    assert!(
        matches!(end, Some(Output::Failed(Error::Died { .. }))),
        "{end:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn worker_that_cannot_be_started_is_given_up() {
    let begun = Instant::now();
    let end = end_of("/nowhere/worker".into()).await;
    assert!(
        matches!(end, Some(Output::Failed(Error::Spawn(_)))),
        "{end:?}"
    );
    let tried: u64 = START_PAUSES_MS.iter().sum();
    assert!(begun.elapsed() >= Duration::from_millis(tried));
}
