//! Examines this machine and says what would keep a broadcast from running, and how to mend it.
//!
//! Enters: facts ([`Facts`]), addresses to try, and questions about GStreamer and the store as closures
//! Leaves: [`Check`]s, one line each, and a table of them
//! Never:  repairs; GStreamer itself, which the transcode stage answers for
//! Spec:   docs/configuration.md

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, SystemTime};

use crate::config::units::print_size;

/// The oldest GStreamer that the pipelines are tried on.
pub const OLDEST_GSTREAMER: Version = (1, 22, 0);
/// 2025-01-01: no machine that runs this lives before it, so an earlier clock is unset.
const EARLIEST_CLOCK: Duration = Duration::from_secs(1_735_689_600);
/// 2100-01-01: a later clock is wrong as well.
const LATEST_CLOCK: Duration = Duration::from_secs(4_102_444_800);
/// Below this, a three-rung ladder of a 720p source does not keep up.
const ENOUGH_CORES: usize = 2;
/// Server, worker with three encoders, and something for the system.
const ENOUGH_MEMORY: u64 = 1 << 30;

/// Major, minor and micro number.
pub type Version = (u32, u32, u32);

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Status {
    /// As it should be.
    Ok,
    /// A broadcast runs, but not as well as it could.
    Warn,
    /// A broadcast does not run.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at, a few words.
    pub what: String,
    /// How it went.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty when all is well.
    pub fix: String,
}

/// What GStreamer elements one ladder file needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needs {
    /// The name of the ladder.
    pub ladder: String,
    /// Factory names of every element in its pipelines.
    pub elements: Vec<String>,
}

/// What can be read off the machine without trying anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Processors that this process may use.
    pub cores: usize,
    /// Memory not in use, in bytes, where the system tells.
    pub free_memory_bytes: Option<u64>,
    /// The clock, since the Unix epoch; `None` if it is before.
    pub clock: Option<Duration>,
}

impl Facts {
    /// Reads this machine.
    #[must_use]
    pub fn read() -> Self {
        let meminfo = std::fs::read_to_string("/proc/meminfo").ok();
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            free_memory_bytes: meminfo.as_deref().and_then(available_memory),
            clock: SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .ok(),
        }
    }

    /// What the facts mean for a broadcast.
    #[must_use]
    pub fn checks(&self) -> Vec<Check> {
        vec![self.check_cores(), self.check_memory(), self.check_clock()]
    }

    fn check_cores(&self) -> Check {
        let what = "processors";
        let detail = format!("{} usable", self.cores);
        if self.cores >= ENOUGH_CORES {
            Check::ok(what, detail)
        } else {
            let fix = "give it two, or choose a ladder with fewer rungs";
            Check::new(what, Status::Warn, detail, fix)
        }
    }

    fn check_memory(&self) -> Check {
        let what = "memory";
        let Some(free) = self.free_memory_bytes else {
            return Check::ok(what, "the system does not tell how much is free");
        };
        let detail = format!("{} free", print_size(free >> 20 << 20));
        if free >= ENOUGH_MEMORY {
            Check::ok(what, detail)
        } else {
            let fix = format!(
                "free some: one broadcast takes up to {}",
                print_size(ENOUGH_MEMORY)
            );
            Check::new(what, Status::Warn, detail, fix)
        }
    }

    fn check_clock(&self) -> Check {
        let what = "clock";
        match self.clock {
            Some(clock) if (EARLIEST_CLOCK..LATEST_CLOCK).contains(&clock) => {
                Check::ok(what, format!("{} s since 1970, plausible", clock.as_secs()))
            }
            _ => Check::new(
                what,
                Status::Fail,
                "is not set, and every segment is numbered by it",
                "set it, and keep it set: `timedatectl set-ntp true`",
            ),
        }
    }
}

/// `MemAvailable` of `/proc/meminfo`, in bytes.
fn available_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

impl Check {
    /// A check that went as described.
    #[must_use]
    pub fn new(
        what: impl Into<String>,
        status: Status,
        detail: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            status,
            detail: detail.into(),
            fix: fix.into(),
        }
    }

    /// A check that found all well.
    #[must_use]
    pub fn ok(what: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(what, Status::Ok, detail, "")
    }
}

/// Whether GStreamer is there and new enough; `None` stands for a build or machine without it. A ladder that
/// only copies does without.
#[must_use]
pub fn check_gstreamer(version: Option<Version>, is_needed: bool) -> Check {
    let what = "GStreamer";
    let status = if is_needed {
        Status::Fail
    } else {
        Status::Warn
    };
    let print = |(major, minor, micro): Version| format!("{major}.{minor}.{micro}");
    match version {
        None => Check::new(
            what,
            status,
            "is not there",
            "`scripts/setup.sh run`, or install GStreamer's base, good, bad, ugly and libav plugins",
        ),
        Some(found) if found < OLDEST_GSTREAMER => Check::new(
            what,
            status,
            format!("{} is there", print(found)),
            format!("upgrade to {} or newer", print(OLDEST_GSTREAMER)),
        ),
        Some(found) => Check::ok(what, print(found)),
    }
}

/// Whether `has` every element of each ladder. What is missing fails the `chosen` ladder; to another
/// it only means that this machine cannot run that one.
#[must_use]
pub fn check_ladders(needs: &[Needs], chosen: &str, has: &dyn Fn(&str) -> bool) -> Vec<Check> {
    needs
        .iter()
        .map(|needs| check_ladder(needs, chosen, has))
        .collect()
}

fn check_ladder(needs: &Needs, chosen: &str, has: &dyn Fn(&str) -> bool) -> Check {
    let what = format!("ladder {}", needs.ladder);
    let mut missing: Vec<&str> = needs
        .elements
        .iter()
        .map(String::as_str)
        .filter(|e| !has(e))
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if needs.elements.is_empty() {
        return Check::ok(what, "needs nothing");
    }
    if missing.is_empty() {
        return Check::ok(what, "every element is there");
    }
    let status = if needs.ladder == chosen {
        Status::Fail
    } else {
        Status::Warn
    };
    let mut sources: Vec<&str> = missing.iter().map(|element| bringer(element)).collect();
    sources.sort_unstable();
    sources.dedup();
    Check::new(
        what,
        status,
        format!("missing: {}", missing.join(", ")),
        format!("install {}", sources.join(" and ")),
    )
}

/// Whether `has` a decoder of each codec of `decoders`: without one, sources in that codec are refused.
#[must_use]
pub fn check_sources(decoders: &[(&str, &[&str])], has: &dyn Fn(&str) -> bool) -> Check {
    let lacks = |(_, elements): &&(&str, &[&str])| !elements.iter().any(|element| has(element));
    let missing: Vec<_> = decoders.iter().filter(lacks).collect();
    let names = |of: &[&(&str, &[&str])]| {
        let names: Vec<&str> = of.iter().map(|(name, _)| *name).collect();
        names.join(", ")
    };
    let what = "sources";
    if missing.is_empty() {
        let all: Vec<_> = decoders.iter().collect();
        return Check::ok(what, format!("{} are decoded, too", names(&all)));
    }
    let mut bringers: Vec<&str> = missing
        .iter()
        .filter_map(|(_, elements)| elements.first())
        .map(|element| bringer(element))
        .collect();
    bringers.sort_unstable();
    bringers.dedup();
    Check::new(
        what,
        Status::Warn,
        format!("no decoder of {}", names(&missing)),
        format!("install {}", bringers.join(" and ")),
    )
}

/// What brings an element, in Debian's names.
fn bringer(element: &str) -> &'static str {
    const BRINGERS: &[(&str, &str)] = &[
        ("avdec_", "gstreamer1.0-libav"),
        ("avenc_", "gstreamer1.0-libav"),
        ("x264", "gstreamer1.0-plugins-ugly"),
        ("vp8", "gstreamer1.0-plugins-good"),
        ("vp9", "gstreamer1.0-plugins-good"),
        ("flv", "gstreamer1.0-plugins-good"),
        ("deinterlace", "gstreamer1.0-plugins-good"),
        ("app", "gstreamer1.0-plugins-base"),
        ("audio", "gstreamer1.0-plugins-base"),
        ("opus", "gstreamer1.0-plugins-base"),
        ("video", "gstreamer1.0-plugins-base"),
        (
            "nv",
            "gstreamer1.0-plugins-bad on a machine with an NVIDIA driver",
        ),
        (
            "cuda",
            "gstreamer1.0-plugins-bad on a machine with an NVIDIA driver",
        ),
        (
            "va",
            "gstreamer1.0-plugins-bad on a machine with a VA-API driver",
        ),
        (
            "qsv",
            "gstreamer1.0-plugins-bad on a machine with Intel's oneVPL runtime",
        ),
        ("capsfilter", "libgstreamer1.0-0"),
        ("queue", "libgstreamer1.0-0"),
        ("tee", "libgstreamer1.0-0"),
    ];
    BRINGERS
        .iter()
        .find(|(prefix, _)| element.starts_with(prefix))
        .map_or("gstreamer1.0-plugins-bad", |(_, bringer)| bringer)
}

/// Whether `address` can be listened on, by doing so for a moment. `key` is what to change if not.
#[must_use]
pub fn check_port(what: &str, key: &str, address: SocketAddr) -> Check {
    let Err(error) = TcpListener::bind(address) else {
        return Check::ok(what, format!("{address} is free"));
    };
    let (detail, fix) = match error.kind() {
        ErrorKind::AddrInUse => (
            format!("{address} is in use"),
            format!("stop what uses it (`ss -ltnp`), or change {key}"),
        ),
        ErrorKind::PermissionDenied => (
            format!("{address} may not be used by this user"),
            format!("change {key} to a port above 1023, or grant CAP_NET_BIND_SERVICE"),
        ),
        ErrorKind::AddrNotAvailable => (
            format!("{} is no address of this machine", address.ip()),
            format!("change {key}; 0.0.0.0 is all of them"),
        ),
        _ => (format!("{address}: {error}"), format!("change {key}")),
    };
    Check::new(what, Status::Fail, detail, fix)
}

/// Whether the store takes, gives back and removes an object, which `probe` tries.
#[must_use]
pub fn check_store(url: &str, probe: impl FnOnce() -> Result<(), String>) -> Check {
    match probe() {
        Ok(()) => Check::ok("store", format!("{url} can be written")),
        Err(why) => Check::new(
            "store",
            Status::Fail,
            format!("{url}: {why}"),
            "change store.url, or let this user write there",
        ),
    }
}

/// The worst of all; [`Status::Ok`] of none.
#[must_use]
pub fn worst(checks: &[Check]) -> Status {
    checks
        .iter()
        .map(|check| check.status)
        .max()
        .unwrap_or(Status::Ok)
}

/// The checks as a table, one line each, the fix below what needs one; `coloured` for a terminal.
#[must_use]
pub fn render(checks: &[Check], coloured: bool) -> String {
    let width = checks
        .iter()
        .map(|check| check.what.chars().count())
        .max()
        .unwrap_or(0);
    let mut out = String::new();
    for check in checks {
        let (word, colour) = match check.status {
            Status::Ok => ("ok  ", "\x1b[32m"),
            Status::Warn => ("warn", "\x1b[33m"),
            Status::Fail => ("FAIL", "\x1b[1;31m"),
        };
        let (colour, plain) = if coloured {
            (colour, "\x1b[0m")
        } else {
            ("", "")
        };
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{colour}{word}{plain}  {:width$}  {}",
            check.what, check.detail
        );
        if !check.fix.is_empty() {
            let _ = writeln!(out, "      {:width$}  → {}", "", check.fix);
        }
    }
    let count = |status| checks.iter().filter(|check| check.status == status).count();
    let _ = writeln!(
        out,
        "\n{}",
        verdict(count(Status::Fail), count(Status::Warn))
    );
    out
}

fn verdict(failed: usize, warned: usize) -> String {
    let things = |count: usize| if count == 1 { "thing" } else { "things" };
    match (failed, warned) {
        (0, 0) => "This machine is ready.".to_owned(),
        (0, _) => format!(
            "This machine is ready; {warned} {} could be better.",
            things(warned)
        ),
        _ => format!(
            "This machine is not ready: {failed} {} to mend.",
            things(failed)
        ),
    }
}

#[cfg(test)]
mod tests;
