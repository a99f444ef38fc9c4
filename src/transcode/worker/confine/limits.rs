//! What this process may have of the machine, and how it ends.
//!
//! Enters: nothing
//! Leaves: a process that has bounded memory and files, stands back, ends with the server and leaves nothing behind
//! Never:  waits
//! Time:   none
//! Spec:   docs/resilience.md

use rustix::io::Errno;
use rustix::process::{
    DumpableBehavior, Resource, Rlimit, Signal, getrlimit, nice, set_dumpable_behavior,
    set_parent_process_death_signal, setrlimit,
};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_name};

use super::super::log;

/// The most memory of its own that a worker may have, in bytes. A ladder of four rungs from 720p has 0.23 GiB;
/// what has four leaks, or was led to. Address
/// space as such is not limited: drivers of graphics cards map many times the memory there is.
pub(super) const MAX_DATA_BYTES: u64 = 4 << 30;
/// The most files, pipes and sockets that it may have open: what waits in them is memory of nobody's.
pub(super) const MAX_FILES: u64 = 4_096;
/// What Linux takes for "no core dump", programs that are given one included: nothing would be restarted while that is
/// written, and it has in it what the source sent.
const NO_CORE: u64 = 1;
/// How much a worker stands back when the processor is wanted: the server, which answers viewers, goes first.
const NICENESS: i32 = 5;
/// How much sooner than others it ends when the machine has no memory left, in thousandths of what there is.
const OOM_SCORE: &str = "500";

/// Has this process end with the server, even one that hangs, and at once. The server starts it from a thread that
/// lives as long as itself: what counts is that thread.
pub(super) fn begin() {
    // It was started by another name than its own.
    tell("it is named otherwise", set_name(c"headwater"));
    let ends = set_parent_process_death_signal(Some(Signal::KILL));
    tell("a worker that hangs may outlive the server", ends);
    // While its files under `/proc` are its own.
    if let Err(reason) = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        log(&format!(
            "it does not end before others when memory runs out: {reason}"
        ));
    }
    let no_core = Rlimit {
        current: Some(NO_CORE),
        maximum: Some(NO_CORE),
    };
    // Who may have none, which a program that is given them does not heed, may not ask for this much either.
    let core = setrlimit(Resource::Core, no_core);
    let core = core.or_else(|_| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    tell("its memory may be dumped when it dies", core);
}

/// Limits memory, files and the processor.
pub(super) fn limit() {
    tell(
        "memory is not limited",
        lower(Resource::Data, MAX_DATA_BYTES),
    );
    tell("files are not limited", lower(Resource::Nofile, MAX_FILES));
    tell("it does not stand back", nice(NICENESS).map(|_| ()));
}

/// Gives up what a process of root may do beyond others.
pub(super) fn drop_privileges() {
    let none = CapabilitySet::empty();
    // A unit of systemd may refuse what need not be asked for.
    if capabilities(None).is_ok_and(|all| all.permitted == none) {
        return;
    }
    let sets = CapabilitySets {
        effective: none,
        permitted: none,
        inheritable: none,
    };
    tell("privileges are kept", set_capabilities(None, sets));
}

/// Lowers a limit to `most`, for good.
fn lower(resource: Resource, most: u64) -> Result<(), Errno> {
    let present = getrlimit(resource);
    let lower = |limit: Option<u64>| Some(limit.map_or(most, |limit| limit.min(most)));
    setrlimit(
        resource,
        Rlimit {
            current: lower(present.current),
            maximum: lower(present.maximum),
        },
    )
}

fn tell(consequence: &str, done: Result<(), Errno>) {
    if let Err(reason) = done {
        log(&format!("{consequence}: {reason}"));
    }
}
