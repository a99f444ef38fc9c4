//! What this process may ask of the kernel.
//!
//! Enters: nothing
//! Leaves: filters of system calls, for all threads, those to come among them
//! Never:  ends the process for a call; a call that it does not know
//! Time:   none
//! Spec:   docs/resilience.md
//!
//! It is a list of what is refused, since nobody knows what drivers of graphics cards call. So that a later kernel does
//! not widen it, calls that are newer than the list are answered as by a kernel that has not got them.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

/// The first call that is newer than the lists below. Those of the x32 interface, which are the same by other
/// numbers, lie above it too.
const FIRST_UNKNOWN: u32 = 463;

/// `fchmodat2`, which has this number on every machine and no name on some.
const FCHMODAT2: i64 = 452;

/// Calls that are refused whatever they are given.
const REFUSED: &[i64] = &[
    // Connections.
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_io_uring_setup,
    // Other programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_setpgid,
    libc::SYS_setsid,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    // What files there are, and whose: landlock asks only who opens and names them.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    FCHMODAT2,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_utimensat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    // The machine.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];
/// The same where there are older forms of them.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_lchown,
    libc::SYS_utime,
    libc::SYS_utimes,
    libc::SYS_futimesat,
    libc::SYS_kexec_file_load,
    libc::SYS_iopl,
    libc::SYS_ioperm,
];
/// `kexec_file_load`, by the number that it has where calls are numbered alike.
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[294];

/// Calls that give memory which [`super::limits`] cannot count: it belongs to no process.
const SHARED_MEMORY: [i64; 4] = [
    libc::SYS_shmget,
    libc::SYS_msgget,
    libc::SYS_semget,
    libc::SYS_mq_open,
];
/// Calls that libraries do without where a kernel has not got them. That of `clone3` lie in memory, where a filter
/// cannot see what is asked for.
const ABSENT: [i64; 3] = [
    libc::SYS_clone3,
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
];

/// A call that is answered as if it were done. GLib has each of its threads ask for the scheduling that they have already,
/// by a number that a filter cannot know, and complains where it may not.
const AS_IF_DONE: i64 = libc::SYS_sched_setattr;

/// Calls about how a thread is run, by its number, which comes first.
const SCHEDULING: [i64; 5] = [
    libc::SYS_sched_setaffinity,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setscheduler,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];
/// Flags of `clone` that make another process's view of the machine.
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// What of `fcntl` has signals sent to whom it names: F_SETOWN, F_SETSIG, F_SETOWN_EX.
const FCNTL_SIGNALS: [i32; 3] = [8, 10, 15];
/// What of `ioctl` does: FIOSETOWN, SIOCSPGRP. And TIOCSTI, which types into a terminal.
const IOCTL_SIGNALS: [u32; 3] = [0x8901, 0x8902, 0x5412];
/// The family of netlink that tells what devices there are.
const NETLINK_KOBJECT_UEVENT: u32 = 15;
/// The bits of a socket's type that are not flags.
const SOCKET_TYPE: u32 = 0xf;
/// What `ioprio_set` calls a thread.
const IOPRIO_WHO_PROCESS: u32 = 1;

/// Refuses what a worker does not need. Memory that is shared is left to it if it `shares_memory`.
pub(super) fn refuse(shares_memory: bool) -> Result<(), seccompiler::Error> {
    seccompiler::apply_filter_all_threads(&absent(shares_memory))?;
    let filter = SeccompFilter::new(
        rules(shares_memory)?,
        SeccompAction::Allow,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        std::env::consts::ARCH.try_into()?,
    )?;
    let program: BpfProgram = filter.try_into()?;
    seccompiler::apply_filter_all_threads(&program)
}

/// Answers calls that are newer than these lists, and [`ABSENT`], with "no such call"; [`AS_IF_DONE`] is done nothing for.
fn absent(shares_memory: bool) -> BpfProgram {
    let is_absent = |call: &i64| *call == libc::SYS_clone3 || !shares_memory;
    let calls = ABSENT.into_iter().filter(is_absent);
    let calls: Vec<u32> = calls.filter_map(|call| call.try_into().ok()).collect();
    let step = |code: u32, (then, otherwise): (usize, usize), value: u32| sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: u8::try_from(then).unwrap_or_default(),
        jf: u8::try_from(otherwise).unwrap_or_default(),
        k: value,
    };
    let jump = libc::BPF_JMP | libc::BPF_K;
    // The number of the call comes first in what a filter sees.
    let load = step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, (0, 0), 0);
    // Jumps are counted from the step after: past the other calls and the next step, to the answers.
    let newer = step(jump | libc::BPF_JGE, (calls.len() + 2, 0), FIRST_UNKNOWN);
    let others = calls.iter().enumerate();
    let others =
        others.map(|(n, call)| step(jump | libc::BPF_JEQ, (calls.len() + 1 - n, 0), *call));
    let as_if_done = u32::try_from(AS_IF_DONE).unwrap_or(FIRST_UNKNOWN);
    let as_if_done = step(jump | libc::BPF_JEQ, (2, 0), as_if_done);
    let end = |answer: u32| step(libc::BPF_RET | libc::BPF_K, (0, 0), answer);
    let no_such_call = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    let answers = [
        libc::SECCOMP_RET_ALLOW,
        no_such_call,
        libc::SECCOMP_RET_ERRNO,
    ];
    [load, newer]
        .into_iter()
        .chain(others)
        .chain([as_if_done])
        .chain(answers.map(end))
        .collect()
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn rules(shares_memory: bool) -> Result<Rules, seccompiler::BackendError> {
    let own = std::process::id();
    let all = REFUSED.iter().chain(REFUSED_HERE);
    let mut rules: Rules = all.map(|call| (*call, Vec::new())).collect();
    // Threads are made, processes are not.
    let mut clone = vec![rule(&[has(0, libc::CLONE_THREAD.unsigned_abs(), 0)?])?];
    for namespace in NAMESPACES.map(i32::unsigned_abs) {
        clone.push(rule(&[has(0, namespace, namespace)?])?);
    }
    rules.insert(libc::SYS_clone, clone);
    // Libraries of graphics cards ask the kernel what devices there are.
    let netlink = [
        rule(&[is_not(0, libc::AF_NETLINK.unsigned_abs())?])?,
        rule(&[is_not(2, NETLINK_KOBJECT_UEVENT)?])?,
    ];
    rules.insert(libc::SYS_socket, netlink.into());
    // Two ends of one's own; not what can be sent to an address.
    let pair = [
        rule(&[is_not(0, libc::AF_UNIX.unsigned_abs())?])?,
        rule(&[has(1, SOCKET_TYPE, libc::SOCK_DGRAM.unsigned_abs())?])?,
        rule(&[has(1, SOCKET_TYPE, libc::SOCK_RAW.unsigned_abs())?])?,
    ];
    rules.insert(libc::SYS_socketpair, pair.into());
    // Its own limits may be asked for; those of others may not be changed.
    rules.insert(libc::SYS_prlimit64, vec![rule(&[is_not(0, 0)?])?]);
    // A process that aborts signals itself.
    rules.insert(libc::SYS_tgkill, vec![rule(&[is_not(0, own)?])?]);
    // Whether two of its files are one.
    let kcmp = [rule(&[is_not(0, own)?])?, rule(&[is_not(1, own)?])?];
    rules.insert(libc::SYS_kcmp, kcmp.into());
    for call in SCHEDULING {
        rules.insert(call, vec![rule(&[is_not(0, 0)?, is_not(0, own)?])?]);
    }
    for (call, process) in [
        (libc::SYS_setpriority, libc::PRIO_PROCESS),
        (libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS),
    ] {
        let whose = [
            rule(&[is_not(0, process)?])?,
            rule(&[is_not(1, 0)?, is_not(1, own)?])?,
        ];
        rules.insert(call, whose.into());
    }
    // It ends with the server, and its memory is not written to a disk.
    let kept = [libc::PR_SET_PDEATHSIG, libc::PR_SET_DUMPABLE].map(i32::unsigned_abs);
    rules.insert(libc::SYS_prctl, any(0, kept)?);
    rules.insert(
        libc::SYS_fcntl,
        any(1, FCNTL_SIGNALS.map(i32::unsigned_abs))?,
    );
    rules.insert(libc::SYS_ioctl, any(1, IOCTL_SIGNALS)?);
    refuse_uncounted_memory(&mut rules, shares_memory)?;
    Ok(rules)
}

/// Refuses memory that [`super::limits`] cannot count.
fn refuse_uncounted_memory(
    rules: &mut Rules,
    shares_memory: bool,
) -> Result<(), seccompiler::BackendError> {
    let flags = |mask: i32, flags: i32| has(3, mask.unsigned_abs(), flags.unsigned_abs());
    // A stack that grows is counted as one, against no limit that is asked for when it is made.
    let mut map = vec![rule(&[flags(libc::MAP_GROWSDOWN, libc::MAP_GROWSDOWN)?])?];
    if !shares_memory {
        let kind = libc::MAP_ANONYMOUS | libc::MAP_TYPE;
        for shared in [libc::MAP_SHARED, libc::MAP_SHARED_VALIDATE] {
            map.push(rule(&[flags(kind, libc::MAP_ANONYMOUS | shared)?])?);
        }
        rules.extend(SHARED_MEMORY.map(|call| (call, Vec::new())));
    }
    rules.insert(libc::SYS_mmap, map);
    Ok(())
}

/// Matches what all of `conditions` match.
fn rule(conditions: &[SeccompCondition]) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(conditions.to_vec())
}

/// Matches a call whose argument `index` is one of `values`.
fn any<const N: usize>(
    index: u8,
    values: [u32; N],
) -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
    let is = |value| has(index, u32::MAX, value);
    values
        .map(|value| rule(&[is(value)?]))
        .into_iter()
        .collect()
}

/// Matches a call whose argument `index` is not `value`.
fn is_not(index: u8, value: u32) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(
        index,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::Ne,
        value.into(),
    )
}

/// Matches a call whose argument `index` is `value` where `mask` has bits.
fn has(index: u8, mask: u32, value: u32) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(
        index,
        SeccompCmpArgLen::Dword,
        SeccompCmpOp::MaskedEq(mask.into()),
        value.into(),
    )
}
