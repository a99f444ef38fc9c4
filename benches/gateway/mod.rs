//! The S3 service that benches of the store measure with: a Ceph gateway on this machine, its objects in memory.

#![allow(dead_code, reason = "every bench uses its own part of this")]
#![allow(clippy::expect_used, reason = "a bench may fail loudly")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::peer::free_port;

/// The bucket that there is.
pub(crate) const BUCKET: &str = "bench";

/// Credentials, as the environment says them.
pub(crate) const CREDENTIALS: [(&str, &str); 2] =
    [("AWS_ACCESS_KEY_ID", "AK"), ("AWS_SECRET_ACCESS_KEY", "SK")];

/// A running gateway. Its script ends its daemons when its input closes.
pub(crate) struct Gateway {
    child: Child,
    folder: PathBuf,
    pub(crate) port: u16,
}

impl Gateway {
    /// One with an empty bucket, whose files go to `folder`.
    pub(crate) fn start(folder: &Path) -> Self {
        let port = free_port();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rgw.sh");
        let mut command = Command::new(script);
        command
            .arg(folder)
            .args([port.to_string(), free_port().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child: Child = command.spawn().expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let said = lines.next().and_then(Result::ok);
        assert_eq!(said.as_deref(), Some("ready"), "the gateway");
        let gateway = Self {
            child,
            folder: folder.to_owned(),
            port,
        };
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        gateway.curl(&["-X", "PUT"], empty, "");
        gateway
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Stores `file` as `key`.
    pub(crate) fn upload(&self, file: &Path, key: &str) {
        let file = file.to_str().expect("text");
        self.curl(&["-T", file], "UNSIGNED-PAYLOAD", key);
    }

    fn curl(&self, args: &[&str], checksum: &str, key: &str) {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--fail", "--user", "AK:SK"])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3"])
            .args(["-H", &format!("x-amz-content-sha256: {checksum}")])
            .args(args)
            .arg(format!("{}/{BUCKET}/{key}", self.endpoint()).trim_end_matches('/'));
        assert!(curl.status().expect("curl").success());
    }

    /// How many objects have been asked of it, by its own count.
    pub(crate) fn gets(&self) -> u64 {
        let mut ceph = Command::new("ceph");
        ceph.arg("--admin-daemon")
            .arg(self.folder.join("client.rgw.asok"))
            .args(["perf", "dump", "rgw"]);
        let output = ceph.output().expect("ceph");
        let text = String::from_utf8_lossy(&output.stdout);
        let rest = text.split_once("\"get\": ").map(|(_, rest)| rest);
        let count = rest.and_then(|rest| rest.split(',').next());
        let count = count.and_then(|count| count.trim().parse().ok());
        count.expect("the gateway counts")
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}
