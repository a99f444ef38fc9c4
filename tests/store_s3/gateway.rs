//! A real S3 service of the tests' own.
//!
//! Enters: nothing
//! Leaves: a gateway, buckets in it, and what a client that is not Headwater's finds there
//! Never:  outlives the test
//! Time:   wall clock
//! Spec:   none

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::common::{command, run_ok};

/// The service may need this long to begin on a busy machine; alone it is some fifteen seconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// The checksum of an empty body, which a signed request has to name.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Whose the buckets are that belong to nobody else: access key and secret.
const USER: &str = "AK:SK";

/// A running gateway. It ends with this process at the latest: it watches its standard input.
pub(crate) struct Gateway {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl Gateway {
    /// The one that all tests of this file share.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Gateway> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (port, monitor) = (free_port(), free_port());
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/rgw.sh");
        let mut child = Command::new(script)
            .arg(folder.path())
            .args([port.to_string(), monitor.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = lines.next().and_then(Result::ok);
        let log = || std::fs::read_to_string(folder.path().join("setup.log")).unwrap_or_default();
        assert_eq!(said.as_deref(), Some("ready"), "{}", log());
        Self {
            child,
            folder,
            port,
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A new bucket.
    pub(crate) fn bucket(&self) -> String {
        self.bucket_of(USER)
    }

    fn bucket_of(&self, user: &str) -> String {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("shows-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        self.curl_as(user, &["-X", "PUT"], &name);
        name
    }

    /// A new bucket that anybody may read.
    pub(crate) fn open_bucket(&self) -> String {
        self.open_bucket_of(USER)
    }

    /// The same of a new user, who is called by the access key, which is the secret too.
    pub(crate) fn open_bucket_of_another(&self, key: &str) -> String {
        let mut admin = command("radosgw-admin");
        admin
            .arg("-c")
            .arg(self.folder.path().join("ceph.conf"))
            .args(["user", "create", "--uid", key, "--display-name", key])
            .args(["--access-key", key, "--secret-key", key]);
        run_ok(admin, LIMIT);
        self.open_bucket_of(&format!("{key}:{key}"))
    }

    fn open_bucket_of(&self, user: &str) -> String {
        let name = self.bucket_of(user);
        let may = ("Allow", r#""s3:GetObject","s3:ListBucket""#);
        self.say_who_may(user, &name, may);
        name
    }

    /// Nobody may do `action` in `bucket` from now on.
    pub(crate) fn deny(&self, bucket: &str, action: &str) {
        self.say_who_may(USER, bucket, ("Deny", &format!("\"{action}\"")));
    }

    fn say_who_may(&self, user: &str, name: &str, (effect, actions): (&str, &str)) {
        let policy = format!(
            r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"{effect}","Principal":"*",
            "Action":[{actions}],
            "Resource":["arn:aws:s3:::{name}","arn:aws:s3:::{name}/*"]}}]}}"#
        );
        // A signed request names the checksum of its body.
        let file = self.folder.path().join(format!("{name}.policy"));
        std::fs::write(&file, policy).unwrap();
        let mut sum = command("sha256sum");
        sum.arg(&file);
        let sum = run_ok(sum, LIMIT);
        let sum = sum.split(' ').next().unwrap();
        let mut curl = command("curl");
        curl.args(["-sS", "--fail-with-body", "--user", user, "-X", "PUT"])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3"])
            .args(["-H", &format!("x-amz-content-sha256: {sum}")])
            .args(["--data-binary", &format!("@{}", file.display())])
            .arg(format!("{}/{name}?policy=", self.endpoint()));
        run_ok(curl, LIMIT);
    }

    /// Its address.
    pub(crate) fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What curl gets for `path`, signed.
    pub(crate) fn curl(&self, args: &[&str], path: &str) -> String {
        self.curl_as(USER, args, path)
    }

    fn curl_as(&self, user: &str, args: &[&str], path: &str) -> String {
        let mut curl = command("curl");
        curl.args(["-sS", "--fail-with-body", "--user", user])
            .args(["--aws-sigv4", "aws:amz:us-east-1:s3"])
            .args(["-H", &format!("x-amz-content-sha256: {EMPTY_SHA256}")])
            .args(args)
            .arg(format!("{}/{path}", self.endpoint()));
        run_ok(curl, LIMIT)
    }

    /// The names of all objects in `bucket`.
    pub(crate) fn list(&self, bucket: &str) -> BTreeSet<String> {
        let text = self.curl(&[], &format!("{bucket}?list-type=2"));
        let document = roxmltree::Document::parse(&text).unwrap();
        let is_key = |node: &roxmltree::Node<'_, '_>| {
            node.has_tag_name(("http://s3.amazonaws.com/doc/2006-03-01/", "Key"))
        };
        let keys = document.descendants().filter(is_key);
        keys.filter_map(|node| node.text().map(str::to_owned))
            .collect()
    }

    /// Has the gateway's process stand still, or go on.
    pub(crate) fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(self.folder.path().join("client.rgw.pid")).unwrap();
        let mut kill = command("kill");
        kill.args([name, pid.trim()]);
        run_ok(kill, LIMIT);
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if let Some(mut input) = self.child.stdin.take() {
            let _ = input.flush();
        }
        let _ = self.child.wait();
    }
}

/// A port that was free a moment ago; Ceph cannot choose one itself.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}
