//! Takes from this process what a decoder of a stranger's bytes has no need of.
//!
//! Enters: nothing
//! Leaves: a process that can open no socket, run no program, signal and trace no other process, and open no
//!         file but programs' code and data and the devices that encode
//! Never:  fails: a kernel without the means is told of in the log, and the rest is done
//! Time:   none
//! Spec:   docs/architecture.md

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, getrlimit, nice, setrlimit};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

use super::log;

/// The most memory of its own that a worker may have, in bytes. A ladder of four rungs from 720p has 0.23 GiB;
/// what has four leaks, or was led to. Address
/// space as such is not limited: drivers of graphics cards map many times the memory there is.
const MAX_DATA_BYTES: u64 = 4 << 30;
/// How much a worker stands back when the processor is wanted: the server, which answers viewers, goes first.
const NICENESS: i32 = 5;

/// What may be read and run: programs' code and what they look up by themselves. Nothing here is secret.
const READABLE: [&str; 16] = [
    "/usr",
    "/lib",
    "/lib64",
    "/opt",
    "/nix/store",
    "/etc/ld.so.cache",
    "/etc/OpenCL",
    "/etc/vulkan",
    "/etc/glvnd",
    "/etc/drirc",
    "/sys",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/driver",
    "/run/udev/data",
];
/// Devices that may be used; those of graphics cards by what their names begin with.
const DEVICES: [&str; 5] = [
    "/dev/null",
    "/dev/zero",
    "/dev/urandom",
    "/dev/random",
    "/dev/dri",
];
const DEVICE_PREFIXES: [&str; 2] = ["nvidia", "mfx"];

/// Calls of the system that are refused whatever they are given.
const REFUSED: [i64; 37] = [
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
];

/// Confines this process. To be called while it has one thread: later ones inherit it.
pub(super) fn confine() {
    if let Err(reason) = limit() {
        log(&format!("memory is not limited: {reason}"));
    }
    match confine_files() {
        Ok(RulesetStatus::NotEnforced) => log("this kernel does not confine what files are opened"),
        Ok(_) => {}
        Err(reason) => log(&format!("what files are opened is not confined: {reason}")),
    }
    if let Err(reason) = refuse_calls() {
        log(&format!("calls of the system are not confined: {reason}"));
    }
}

fn limit() -> Result<(), rustix::io::Errno> {
    let own = Some(MAX_DATA_BYTES);
    let present = getrlimit(Resource::Data);
    let lower = |limit: Option<u64>| limit.map_or(own, |limit| Some(limit.min(MAX_DATA_BYTES)));
    let limits = Rlimit {
        current: lower(present.current),
        maximum: lower(present.maximum),
    };
    setrlimit(Resource::Data, limits)?;
    nice(NICENESS).map(|_| ())
}

fn confine_files() -> Result<RulesetStatus, landlock::RulesetError> {
    let all = AccessFs::from_all(ABI::V5);
    let run = AccessFs::from_read(ABI::V5);
    let status = Ruleset::default()
        .handle_access(all)?
        .create()?
        .add_rules(path_beneath_rules(readable(), run))?
        .add_rules(path_beneath_rules(devices(), device_access()))?
        .restrict_self()?;
    Ok(status.ruleset)
}

fn device_access() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::ReadDir | AccessFs::WriteFile | AccessFs::IoctlDev
}

/// What may be read, the folders of GStreamer's plugins among it.
fn readable() -> Vec<PathBuf> {
    let plugins = gst::Registry::get().plugins();
    let plugins = plugins.iter().filter_map(|plugin| plugin.filename());
    let mut folders: Vec<PathBuf> = plugins
        .filter_map(|file| file.parent().map(Path::to_path_buf))
        .collect();
    let paths = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&paths).filter(|path| path.is_absolute()));
    folders.sort();
    folders.dedup();
    folders.extend(READABLE.iter().map(PathBuf::from));
    folders
}

fn devices() -> Vec<PathBuf> {
    let all = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_card = |name: &str| {
        DEVICE_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let cards = all.filter(|entry| entry.file_name().to_str().is_some_and(is_card));
    let cards = cards.map(|entry| entry.path());
    DEVICES.iter().map(PathBuf::from).chain(cards).collect()
}

fn refuse_calls() -> Result<(), seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    // Libraries of graphics cards ask the kernel what devices there are.
    rules.insert(
        libc::SYS_socket,
        vec![unless_first_is(u64::from(libc::AF_NETLINK.unsigned_abs()))?],
    );
    // Its own limits may be asked for; those of others may not be changed.
    rules.insert(libc::SYS_prlimit64, vec![unless_first_is(0)?]);
    // A process that aborts signals itself.
    rules.insert(
        libc::SYS_tgkill,
        vec![unless_first_is(u64::from(std::process::id()))?],
    );
    let filter = SeccompFilter::new(
        rules,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter_all_threads(&program)
}

/// Matches a call whose first argument is not `value`.
fn unless_first_is(value: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    let condition = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, value)?;
    SeccompRule::new(vec![condition])
}

/// Confines this process and writes what it can still do that it should not, one line each.
pub(super) fn try_confinement() -> std::io::Result<()> {
    use std::io::Write;

    let own = std::env::current_exe()?;
    confine();
    let mut out = std::io::stdout().lock();
    let mut tell = |what: &str, possible: bool| {
        let can = if possible { "can" } else { "cannot" };
        writeln!(out, "{can} {what}")
    };
    let loopback = (std::net::Ipv4Addr::LOCALHOST, 0);
    tell("open a socket", std::net::UdpSocket::bind(loopback).is_ok())?;
    tell("listen", std::net::TcpListener::bind(loopback).is_ok())?;
    tell("read /etc/passwd", std::fs::read("/etc/passwd").is_ok())?;
    tell("read the server's environment", {
        let server = format!("/proc/{}/environ", std::os::unix::process::parent_id());
        std::fs::read(server).is_ok()
    })?;
    let scratch = std::env::temp_dir().join(format!("headwater-{}", std::process::id()));
    tell("write a file", std::fs::write(scratch, "").is_ok())?;
    let ran = std::process::Command::new(own).arg("--version").output();
    tell("run a program", ran.is_ok())?;
    tell("read a library", std::fs::read_dir("/usr/lib").is_ok())?;
    let more = usize::try_from(MAX_DATA_BYTES).unwrap_or(usize::MAX);
    tell(
        "have memory without end",
        Vec::<u8>::new().try_reserve_exact(more).is_ok(),
    )
}
