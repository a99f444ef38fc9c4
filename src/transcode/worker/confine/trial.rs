//! Tries what a confined worker must not be able to do, and what it has to.
//!
//! Enters: nothing
//! Leaves: one line for each on stdout
//! Never:  harms whom it tries it on: the process that started this one
//! Time:   none
//! Spec:   docs/resilience.md

use std::fs::{read, read_dir, set_permissions, write};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;

use rustix::process::{
    DumpableBehavior, Pid, Resource, Rlimit, dumpable_behavior, getpriority_process, getrlimit,
    parent_process_death_signal, prlimit, setpriority_process, test_kill_process,
};
use rustix::thread::{CapabilitySet, capabilities, sched_getaffinity, sched_setaffinity};

use super::limits::{MAX_DATA_BYTES, MAX_FILES};

/// Confines this process and writes what it can do, one line each.
pub(in super::super) fn try_confinement() -> std::io::Result<()> {
    let own = std::env::current_exe()?;
    super::confine(false);
    let mut out = std::io::stdout().lock();
    let mut tell = |what: &str, possible: bool| {
        let can = if possible { "can" } else { "cannot" };
        writeln!(out, "{can} {what}")
    };
    let loopback = (Ipv4Addr::LOCALHOST, 0);
    tell("open a socket", UdpSocket::bind(loopback).is_ok())?;
    tell("listen", TcpListener::bind(loopback).is_ok())?;
    tell("send to an address", UnixDatagram::pair().is_ok())?;
    tell("talk to itself", UnixStream::pair().is_ok())?;
    tell("read /etc/passwd", read("/etc/passwd").is_ok())?;
    let server = std::os::unix::process::parent_id();
    let environment = read(format!("/proc/{server}/environ"));
    tell("read the server's environment", environment.is_ok())?;
    let scratch = std::env::temp_dir().join(format!("headwater-{}", std::process::id()));
    tell("write a file", write(scratch, "").is_ok())?;
    let permissions = own.metadata().map(|data| data.permissions());
    let changed = permissions.and_then(|same| set_permissions(&own, same));
    tell("change whose a file is", changed.is_ok())?;
    tell("read a library", read_dir("/usr/lib").is_ok())?;
    let ran = Command::new(own).arg("--version").output();
    tell("run a program", ran.is_ok())?;
    let thread = std::thread::Builder::new().spawn(|| ());
    tell("start a thread", thread.is_ok_and(|run| run.join().is_ok()))?;
    for (what, possible) in on_server(Pid::from_raw(server.cast_signed())) {
        tell(what, possible)?;
    }
    let privileges = capabilities(None).map(|all| all.permitted | all.effective);
    let has_any = privileges.is_ok_and(|all| all != CapabilitySet::empty());
    tell("act as root", has_any)?;
    let outlives = parent_process_death_signal().is_ok_and(|signal| signal.is_none());
    tell("outlive the server", outlives)?;
    let core = getrlimit(Resource::Core).maximum;
    let is_dumpable = dumpable_behavior().is_ok_and(|how| how != DumpableBehavior::NotDumpable);
    tell("be dumped", core != Some(1) && is_dumpable)?;
    let files = getrlimit(Resource::Nofile).maximum;
    let has_all = files.is_none_or(|files| files > MAX_FILES);
    tell("have files without end", has_all)?;
    let more = usize::try_from(MAX_DATA_BYTES).unwrap_or(usize::MAX);
    let memory = Vec::<u8>::new().try_reserve_exact(more);
    tell("have memory without end", memory.is_ok())
}

/// What can be done to the server, without changing anything about it.
fn on_server(server: Option<Pid>) -> Vec<(&'static str, bool)> {
    let Some(server) = server else {
        return Vec::new();
    };
    let slowed =
        getpriority_process(Some(server)).and_then(|same| setpriority_process(Some(server), same));
    let moved =
        sched_getaffinity(Some(server)).and_then(|same| sched_setaffinity(Some(server), &same));
    let same = Rlimit {
        current: None,
        maximum: None,
    };
    let limited = prlimit(Some(server), Resource::Cpu, same);
    vec![
        ("signal the server", test_kill_process(server).is_ok()),
        ("slow the server down", slowed.is_ok()),
        ("choose the server's processors", moved.is_ok()),
        ("limit the server", limited.is_ok()),
    ]
}
