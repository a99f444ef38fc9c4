//! The files of the page, embedded in the binary.
//!
//! Enters: a table of files known when the program is built
//! Leaves: each as a [`Document`], compressed once, when first asked for
//! Never:  reads a disk; a name that is not in the table finds nothing
//! Spec:   none

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::document::Document;
use super::page;

/// One embedded file.
#[derive(Clone, Copy, Debug)]
pub struct Asset {
    /// What follows `/assets/`; empty for the page at `/`.
    pub path: &'static str,
    /// The value of `Content-Type`, with its charset where it is text.
    pub content_type: &'static str,
    /// The file.
    pub bytes: &'static [u8],
    /// Whether the name changes with the content (it holds a version or a hash), so that the file
    /// may be kept for ever.
    pub immutable: bool,
}

/// All embedded files, by path.
#[derive(Debug, Default)]
pub struct Assets {
    by_path: HashMap<&'static str, Entry>,
}

#[derive(Debug)]
struct Entry {
    asset: Asset,
    document: OnceLock<Arc<Document>>,
}

impl Assets {
    /// The files of `table`. Of two with the same path the later one counts.
    #[must_use]
    pub fn new(table: &[Asset]) -> Self {
        let entry = |asset: &Asset| Entry {
            asset: *asset,
            document: OnceLock::new(),
        };
        Self {
            by_path: table
                .iter()
                .map(|asset| (asset.path, entry(asset)))
                .collect(),
        }
    }

    /// The files of the page at `/`.
    #[must_use]
    pub fn of_page() -> Self {
        let asset = |asset: &page::Asset| Asset {
            path: asset
                .path
                .trim_start_matches("/assets")
                .trim_start_matches('/'),
            content_type: asset.content_type,
            bytes: asset.body,
            immutable: false,
        };
        Self::new(&page::ASSETS.iter().map(asset).collect::<Vec<_>>())
    }

    /// The file at `path` and whether it may be kept for ever.
    pub(crate) fn get(&self, path: &str) -> Option<(&Arc<Document>, bool)> {
        let entry = self.by_path.get(path)?;
        let document = entry.document.get_or_init(|| {
            let bytes = Bytes::from_static(entry.asset.bytes);
            Arc::new(Document::new(entry.asset.content_type, bytes))
        });
        Some((document, entry.asset.immutable))
    }
}
