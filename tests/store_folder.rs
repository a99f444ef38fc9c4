//! The store on a real folder: layout, restart, removal, and what is said when it cannot work.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use headwater::id::{SegmentNumber, StreamName};
use headwater::media::{ObjectKey, Payload};
use headwater::store::{BroadcastWriter, Config, Left, Put, SpoolPlace, Store};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

fn stream() -> StreamName {
    "demo".parse().expect("a name")
}

fn key(path: &str) -> ObjectKey {
    format!("live/demo/{path}").parse().expect("a key")
}

fn put(path: &str, body: &str) -> Put {
    Put {
        key: key(path),
        body: Payload::new(body.as_bytes().chunks(3).map(Bytes::copy_from_slice)),
        content_type: "video/mp4".into(),
        cache_control: "public, max-age=31536000, immutable".into(),
    }
}

async fn open(folder: &Path) -> Store {
    let config = Config {
        url: folder.display().to_string(),
        leftover_grace: Duration::ZERO,
        ..Config::default()
    };
    Store::open(config).await.expect("opens")
}

async fn finish(writer: BroadcastWriter) {
    assert_eq!(writer.finish(PATIENCE).await, Left::default());
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "{what}");
}

/// The number of the last stored segment.
async fn highest(store: &Store) -> Option<SegmentNumber> {
    let inventory = store.broadcast(stream()).inventory(PATIENCE).await;
    assert!(inventory.is_known());
    inventory.highest_segment()
}

/// One whole small broadcast whose only segment is `number`.
async fn write_broadcast(store: &Store, number: u64) -> BroadcastWriter {
    let mut writer = store.broadcast(stream());
    writer.begin();
    let playlist = format!("#EXT-X-MAP:URI=\"init-{number}.mp4\"\n#EXTINF:2,\n{number}.m4s\n");
    writer.put(put(&format!("v720/init-{number}.mp4"), "init"));
    writer.put(put(&format!("v720/{number}.m4s"), "0123456789"));
    writer.put(put("v720/index.m3u8", &playlist));
    writer.put(put("index.m3u8", "v720/index.m3u8\n"));
    writer.put(put("manifest.mpd", "<MPD/>"));
    writer
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path.strip_prefix(folder).expect("inside").to_owned());
            }
        }
    }
    files.sort();
    files
}

#[tokio::test]
async fn a_broadcast_lies_on_disk_under_its_addresses_and_reads_back() {
    let folder = TempDir::new().expect("a folder");
    let store = open(&folder.path().join("made/for/it")).await;
    finish(write_broadcast(&store, 7).await).await;
    let found = files(&folder.path().join("made/for/it"));
    let names: Vec<_> = found.iter().map(|path| path.to_string_lossy()).collect();
    assert_eq!(
        names,
        [
            "headwater-store.json",
            "live/demo/index.m3u8",
            "live/demo/manifest.mpd",
            "live/demo/v720/7.m4s",
            "live/demo/v720/index.m3u8",
            "live/demo/v720/init-7.mp4",
        ]
    );
    let segment = store.get(&key("v720/7.m4s")).await.expect("read");
    assert_eq!(segment.expect("there").to_bytes(), "0123456789");
    let range = store
        .get_range(&key("v720/7.m4s"), 2..5)
        .await
        .expect("read");
    assert_eq!(range.expect("there").to_bytes(), "234");
    assert!(
        store
            .get(&key("v720/8.m4s"))
            .await
            .expect("asked")
            .is_none()
    );
    assert_eq!(store.health().borrow().stored, 5);
    assert_eq!(store.health().borrow().waiting_objects, 0);
}

#[tokio::test]
async fn after_a_restart_the_numbers_go_on_and_what_was_left_goes() {
    let folder = TempDir::new().expect("a folder");
    let store = open(folder.path()).await;
    assert_eq!(highest(&store).await, None);
    finish(write_broadcast(&store, 7).await).await;
    drop(store);
    let rendition = folder.path().join("live/demo/v720");
    std::fs::write(rendition.join("6.m4s"), "not named").expect("written");
    std::fs::write(rendition.join("8.m4s#3"), "half").expect("written");
    std::fs::write(rendition.join("notes.txt"), "not ours").expect("written");

    let store = open(folder.path()).await;
    assert_eq!(highest(&store).await, Some(SegmentNumber::new(7)));
    let writer = write_broadcast(&store, 9).await;
    until("the old broadcast is gone", || {
        files(&rendition)
            .iter()
            .map(|path| path.to_string_lossy().into_owned())
            .eq(["9.m4s", "index.m3u8", "init-9.mp4", "notes.txt"])
    })
    .await;
    finish(writer).await;
}

#[tokio::test]
async fn what_left_the_window_goes_when_its_time_has_come() {
    let folder = TempDir::new().expect("a folder");
    let store = open(folder.path()).await;
    let writer = write_broadcast(&store, 7).await;
    writer.delete_after(key("v720/7.m4s"), Duration::from_millis(50));
    let path = folder.path().join("live/demo/v720/7.m4s");
    until("the segment is stored", || path.exists()).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(path.exists(), "the stored playlist still names it");
    writer.put(put("v720/8.m4s", "x"));
    writer.put(put("v720/index.m3u8", "#EXTINF:2,\n8.m4s\n"));
    until("the segment is removed", || !path.exists()).await;
    finish(writer).await;
}

#[tokio::test]
async fn a_path_that_cannot_be_written_is_reported_and_tried_again() {
    let folder = TempDir::new().expect("a folder");
    let store = open(folder.path()).await;
    // A folder where the segment should be: refused whoever runs the test.
    let obstacle = folder.path().join("live/demo/v720/7.m4s");
    std::fs::create_dir_all(obstacle.join("x")).expect("made");
    let writer = write_broadcast(&store, 7).await;
    let mut health = store.health();
    let failing = health.wait_for(|health| !health.is_well());
    let seen = tokio::time::timeout(PATIENCE, failing).await;
    let reason = seen.expect("in time").expect("open").failing[&stream()]
        .reason
        .clone();
    assert!(reason.contains("irectory"), "{reason}");
    assert!(!folder.path().join("live/demo/v720/index.m3u8").exists());
    std::fs::remove_dir_all(&obstacle).expect("removed");
    finish(writer).await;
    assert!(store.health().borrow().is_well());
    assert!(folder.path().join("live/demo/v720/index.m3u8").exists());
}

#[tokio::test]
async fn a_second_writer_of_a_stream_takes_over_from_the_first() {
    let folder = TempDir::new().expect("a folder");
    let store = open(folder.path()).await;
    let first = write_broadcast(&store, 7).await;
    let second = write_broadcast(&store, 9).await;
    first.put(put("index.m3u8", "late"));
    finish(second).await;
    let top = store.get(&key("index.m3u8")).await.expect("read");
    assert_eq!(top.expect("there").to_bytes(), "v720/index.m3u8\n");
    drop(first);
}

#[tokio::test]
async fn what_is_wrong_with_the_store_is_one_sentence_that_names_the_setting() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("written");
    for (url, words) in [
        (file.display().to_string(), "cannot create the folder"),
        (file.join("below").display().to_string(), "Not a directory"),
        ("/proc/headwater".to_owned(), "cannot create the folder"),
        ("ftp://host/x".to_owned(), "found \"ftp://host/x\""),
        ("file://relative".to_owned(), "found \"file://relative\""),
        (String::new(), "found \"\""),
    ] {
        let config = Config {
            url: url.clone(),
            ..Config::default()
        };
        let error = Store::open(config).await.expect_err(&url).to_string();
        assert!(error.starts_with("store.url"), "{error}");
        assert!(error.contains(words) && error.contains(&url), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
    let open = async |folder: &Path| {
        let url = format!("file://{}", folder.display());
        let config = Config {
            url,
            ..Config::default()
        };
        Store::open(config).await
    };
    // Something else uses it.
    let refused = open(folder.path()).await.expect_err("used").to_string();
    for told in ["store.url: file://", "found \"file\"", "empty folder"] {
        assert!(refused.contains(told), "{refused}");
    }
    assert!(!refused.contains('\n'), "{refused}");
    assert_eq!(
        files(folder.path()),
        [PathBuf::from("file")],
        "the probe leaves nothing"
    );
    let empty = folder.path().join("empty");
    assert!(open(&empty).await.is_ok());
    assert_eq!(
        files(&empty),
        [PathBuf::from("headwater-store.json")],
        "the probe leaves nothing"
    );
}

#[tokio::test]
async fn a_folder_of_an_earlier_release_is_taken_over_and_one_on_a_disk_of_its_own_is_empty() {
    let folder = TempDir::new().expect("a folder");
    let disk = folder.path().join("disk");
    std::fs::create_dir_all(disk.join("lost+found")).expect("made");
    // What removing a stream leaves.
    std::fs::create_dir_all(disk.join("live/demo/v720")).expect("made");
    let store = open(&disk).await;
    finish(write_broadcast(&store, 7).await).await;
    drop(store);
    let marker = disk.join("headwater-store.json");
    std::fs::remove_file(&marker).expect("there");
    std::fs::write(disk.join("index.html"), "a page beside it").expect("written");
    let store = open(&disk).await;
    assert!(marker.exists());
    assert_eq!(highest(&store).await, Some(SegmentNumber::new(7)));
}

/// A disk of its own, with room for a few segments; mounting it takes root.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount(bytes: usize) -> Self {
        let folder = TempDir::new().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"]);
        let status = mount.arg(folder.path()).status().expect("mount");
        assert!(status.success(), "run as root");
        Self(folder)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

const SEGMENT: usize = 100_000;

/// A broadcast on a disk with room for eleven segments.
async fn begin_on_a_small_disk() -> (SmallDisk, Store, BroadcastWriter) {
    let disk = SmallDisk::mount(12 * SEGMENT);
    let store = open(disk.0.path()).await;
    let mut writer = store.broadcast(stream());
    writer.begin();
    writer.put(put("v720/init-1.mp4", "init"));
    (disk, store, writer)
}

/// The playlist of `v720` that lists segments `first` to `last`.
fn listed(first: u64, last: u64) -> Put {
    let mut text = "#EXT-X-MAP:URI=\"init-1.mp4\"\n".to_owned();
    for number in first..=last {
        text.push_str(&format!("#EXTINF:2,\n{number}.m4s\n"));
    }
    put("v720/index.m3u8", &text)
}

#[tokio::test]
async fn a_full_disk_is_said() {
    let (_disk, store, writer) = begin_on_a_small_disk().await;
    let body = "x".repeat(SEGMENT);
    // All are listed: nothing may go.
    for number in 1_u64..=12 {
        writer.put(put(&format!("v720/{number}.m4s"), &body));
        writer.put(listed(1, number));
    }
    let mut health = store.health();
    let failing = health.wait_for(|health| !health.is_well());
    let seen = tokio::time::timeout(PATIENCE, failing).await;
    let seen = seen.expect("in time").expect("open").failing[&stream()].clone();
    assert!(seen.reason.contains("No space left"), "{}", seen.reason);
    let text = store.health().borrow().to_string();
    assert!(
        text.contains("No space left") && text.contains("live goes on"),
        "{text}"
    );
}

#[tokio::test]
async fn on_a_full_disk_what_has_left_the_window_goes_first() {
    let (disk, store, writer) = begin_on_a_small_disk().await;
    let body = "x".repeat(SEGMENT);
    // Four are listed; the others are kept for those who have an older list, for as long as there is room.
    for number in 1_u64..=20 {
        if let Some(old) = number.checked_sub(12).filter(|old| *old > 0) {
            writer.delete_after(key(&format!("v720/{old}.m4s")), PATIENCE);
        }
        writer.put(put(&format!("v720/{number}.m4s"), &body));
        writer.put(listed(number.saturating_sub(3).max(1), number));
    }
    finish(writer).await;
    let health = store.health().borrow().clone();
    assert!(health.is_well() && health.lost == 0, "{health:?}");
    assert!(health.failures > 0, "the disk was never full: {health:?}");
    let folder = disk.0.path().join("live/demo/v720");
    let text = std::fs::read_to_string(folder.join("index.m3u8")).expect("there");
    for number in 17..=20 {
        assert!(text.contains(&format!("\n{number}.m4s")), "{text}");
        let len = std::fs::metadata(folder.join(format!("{number}.m4s"))).expect("there");
        assert_eq!(len.len(), SEGMENT as u64);
    }
}

#[tokio::test]
async fn a_spool_whose_disk_is_full_is_said_and_what_it_has_is_stored_in_the_end() {
    let (disk, folder) = (
        SmallDisk::mount(8 * SEGMENT),
        TempDir::new().expect("a folder"),
    );
    let config = Config {
        url: folder.path().display().to_string(),
        spool: SpoolPlace::Folder(disk.0.path().to_owned()),
        max_waiting_bytes: 6 * SEGMENT as u64,
        ..Config::default()
    };
    let store = Store::open(config).await.expect("opens");
    // A file where the folder should be: the store takes nothing, whoever runs the test.
    let obstacle = folder.path().join("live/demo/v720");
    std::fs::create_dir_all(folder.path().join("live/demo")).expect("made");
    std::fs::write(&obstacle, "").expect("written");
    let mut writer = store.broadcast(stream());
    writer.begin();
    writer.put(put("v720/init-1.mp4", "init"));
    let body = "x".repeat(SEGMENT);
    let mut text = "#EXT-X-MAP:URI=\"init-1.mp4\"\n".to_owned();
    let health = store.health();
    until("it fails", || !health.borrow().is_well()).await;
    for number in 1_u64..=30 {
        writer.put(put(&format!("v720/{number}.m4s"), &body));
        text.push_str(&format!("#EXTINF:2,\n{number}.m4s\n"));
        writer.put(put("v720/index.m3u8", &text));
        // As long as it takes what comes, it has it before the next.
        let has_it = || {
            let health = health.borrow();
            let all = (number - health.lost) * SEGMENT as u64;
            health.spool_failure.is_some() || health.spooled_bytes >= all
        };
        until("spooled", has_it).await;
    }
    let said = health.borrow().to_string();
    assert!(
        said.contains("the spool fails too: No space left"),
        "{said}"
    );
    until("told", || health.borrow().lost > 10).await;
    let (kept, lost) = {
        let health = health.borrow();
        assert!(health.waiting_bytes <= 6 * SEGMENT as u64, "{health:?}");
        (health.spooled_bytes, health.lost)
    };
    assert!(kept > 4 * SEGMENT as u64, "{kept} bytes");
    std::fs::remove_file(&obstacle).expect("removed");
    finish(writer).await;
    let text = std::fs::read_to_string(obstacle.join("index.m3u8")).expect("there");
    assert_eq!(text.matches("#EXT-X-GAP").count() as u64, lost, "{text}");
    // Nothing that was there is lost for the disk having been full.
    assert_eq!(store.health().borrow().lost, lost);
    let mut gap = false;
    for line in text.lines() {
        if line.ends_with(".m4s") && !std::mem::take(&mut gap) {
            let len = std::fs::metadata(obstacle.join(line)).expect("there").len();
            assert_eq!(len, SEGMENT as u64, "{line}");
        }
        gap |= line == "#EXT-X-GAP";
    }
    until("the spool is empty", || {
        let left = files(disk.0.path());
        left.iter().all(|file| file.components().count() < 3)
    })
    .await;
}
