//! How media is kept, as an operator decides.
//!
//! Enters: values, checked by whoever read them
//! Leaves: [`Config`]
//! Never:  looks whether anything is there
//! Time:   none
//! Spec:   none

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::archive::Keep;
use super::location::Location;

/// What stands for [`SpoolPlace::Auto`] and [`SpoolPlace::Off`] in a configuration.
const AUTO: &str = "auto";
const OFF: &str = "off";

/// How media is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where: a folder, a `file://` URL of one, `s3://`, `gs://` or `az://` with a bucket and a prefix, or
    /// `memory://`.
    pub url: String,
    /// The address of the service, `https://host:port`; empty for Amazon's, Google's or Azure's own.
    pub endpoint: String,
    /// The region of an S3 bucket; empty for that of the environment or the profile.
    pub region: String,
    /// Where an S3 address names the bucket.
    pub addressing: Addressing,
    /// How long one request to a store across the network may take. What has failed is tried again.
    pub timeout: Duration,
    /// Whether an object counts as stored only when the disk has it, not when the system's memory
    /// has it. Without it a power loss may leave a playlist whose segments are empty files; with it
    /// a segment of 500 kB costs about half a millisecond more, behind the live path.
    pub fsync: bool,
    /// The most bytes that one broadcast may have waiting in memory: at 10 Mbit/s in all,
    /// about a minute.
    pub max_waiting_bytes: u64,
    /// Where what the store has not taken yet is kept on a disk of this machine.
    pub spool: SpoolPlace,
    /// The most bytes that all broadcasts together may have there; then the oldest media is given up.
    pub spool_max_bytes: u64,
    /// How long media waits for the store before it is given up.
    pub spool_age: Duration,
    /// How long what an earlier broadcast of the same name left behind is kept after no stored
    /// playlist names it any more, so that players in the middle of it are not cut off.
    pub leftover_grace: Duration,
    /// How long segments stay after they left the live window.
    pub keep: Keep,
    /// A second store, to which everything is written as well.
    pub second: Option<Second>,
    /// The profile whose credentials an S3 store is used with; empty for what the environment says.
    pub profile: String,
    /// The table of settings that says where this store is, for messages.
    pub table: &'static str,
}

/// Where a second store is. All else is as for the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// As [`Config::url`].
    pub url: String,
    /// As [`Config::endpoint`].
    pub endpoint: String,
    /// As [`Config::region`].
    pub region: String,
    /// As [`Config::addressing`].
    pub addressing: Addressing,
    /// The profile of `~/.aws/credentials` whose credentials it is used with; empty for those of the first store.
    pub profile: String,
}

/// Where the spool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpoolPlace {
    /// In the folder `spool` beside where the program was started for a store across the network; none
    /// for a folder, whose disk would be the same.
    Auto,
    /// Nowhere: what waits is in memory alone.
    Off,
    /// In this folder.
    Folder(PathBuf),
}

/// Where an S3 address names the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// In the path where there is an endpoint, in the host name otherwise.
    #[default]
    Auto,
    /// In the path: what services of one's own understand.
    Path,
    /// In the host name.
    Host,
}

impl Addressing {
    /// All, with the names they have in a configuration.
    pub const ALL: [(&'static str, Self); 3] = [
        ("auto", Self::Auto),
        ("path", Self::Path),
        ("host", Self::Host),
    ];
}

impl fmt::Display for SpoolPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str(AUTO),
            Self::Off => f.write_str(OFF),
            Self::Folder(folder) => write!(f, "{}", folder.display()),
        }
    }
}

impl FromStr for SpoolPlace {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            AUTO => Ok(Self::Auto),
            OFF => Ok(Self::Off),
            _ if text.trim().is_empty() => Err("is empty; use a folder, \"auto\" or \"off\""),
            _ if text.contains("://") => {
                Err("is no folder; use one of this machine, \"auto\" or \"off\"")
            }
            folder => Ok(Self::Folder(folder.into())),
        }
    }
}

impl Config {
    /// What is wrong with a store's URL, as the rest of a sentence that begins with it.
    ///
    /// # Errors
    ///
    /// Just that.
    pub fn check_url(url: &str) -> Result<(), String> {
        url.parse::<Location>().map(drop)
    }

    /// The second store as one of its own, if there is one.
    pub(crate) fn of_second(&self) -> Option<Self> {
        let second = self.second.clone()?;
        Some(Self {
            url: second.url,
            endpoint: second.endpoint,
            region: second.region,
            addressing: second.addressing,
            profile: second.profile,
            second: None,
            table: "store.second",
            ..self.clone()
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "./data".to_owned(),
            endpoint: String::new(),
            region: String::new(),
            addressing: Addressing::Auto,
            timeout: Duration::from_secs(5),
            fsync: true,
            max_waiting_bytes: 64 * 1024 * 1024,
            spool: SpoolPlace::Auto,
            spool_max_bytes: 8 * 1024 * 1024 * 1024,
            spool_age: Duration::from_secs(6 * 60 * 60),
            leftover_grace: Duration::from_secs(60),
            keep: Keep::Window,
            second: None,
            profile: String::new(),
            table: "store",
        }
    }
}
