//! Removes the half-written files that a crash left in a folder.
//!
//! Enters: a folder, a stream
//! Leaves: the same without them
//! Never:  a file that is being written: nothing is while this runs
//! Time:   none
//! Spec:   none

use std::path::Path;

use crate::id::StreamName;
use crate::media::ObjectKey;

/// Removes those in the folder of `stream`: a `#` and a number follow their name, and no listing shows them.
pub(crate) async fn sweep(root: &Path, stream: &StreamName) {
    let mut folders = vec![root.join(ObjectKey::folder(stream))];
    while let Some(folder) = folders.pop() {
        let Ok(mut entries) = tokio::fs::read_dir(&folder).await else {
            continue;
        };
        while let Ok(Some(entry)) = entries.next_entry().await {
            let name = entry.file_name();
            let staged = name.to_str().and_then(|name| name.rsplit_once('#'));
            let is_staged =
                staged.is_some_and(|(_, n)| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
            let is_folder = entry.file_type().await.is_ok_and(|kind| kind.is_dir());
            if is_folder {
                folders.push(entry.path());
            } else if is_staged && let Err(error) = tokio::fs::remove_file(entry.path()).await {
                tracing::warn!(%stream, %error, "a half-written file stays");
            }
        }
    }
}
