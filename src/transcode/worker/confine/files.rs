//! Which files this process may open.
//!
//! Enters: whether it needs a graphics card
//! Leaves: rules of landlock, for all threads to come
//! Never:  anything that is secret
//! Time:   none
//! Spec:   docs/resilience.md

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access, AccessFs, BitFlags, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetStatus,
    Scope, path_beneath_rules,
};

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
/// Devices that may be used. Not `/dev/zero`: what is mapped of it is memory that no limit counts.
const DEVICES: [&str; 3] = ["/dev/null", "/dev/urandom", "/dev/random"];
/// What the names of graphics cards in `/dev` begin with.
const CARDS: [&str; 3] = ["dri", "nvidia", "mfx"];

/// Leaves to this process what it runs, and if it `needs_card` the graphics cards. Signals to others are refused here too.
pub(super) fn confine(needs_card: bool) -> Result<RulesetStatus, landlock::RulesetError> {
    let all = AccessFs::from_all(ABI::V5);
    let run = AccessFs::from_read(ABI::V5);
    let status = Ruleset::default()
        .handle_access(all)?
        .scope(Scope::from_all(ABI::V6))?
        .create()?
        .add_rules(path_beneath_rules(readable(), run))?
        .add_rules(path_beneath_rules(devices(needs_card), device_access()))?
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

fn devices(needs_card: bool) -> Vec<PathBuf> {
    let all = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let is_card = |name: &str| CARDS.iter().any(|start| name.starts_with(start));
    let cards = all.filter(|entry| entry.file_name().to_str().is_some_and(is_card));
    let cards = cards.map(|entry| entry.path()).filter(|_| needs_card);
    DEVICES.iter().map(PathBuf::from).chain(cards).collect()
}
