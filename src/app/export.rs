//! The `export` command: one ordinary MP4 of what is kept of a stream.
//!
//! Enters: a store, a stream, a stretch, renditions
//! Leaves: the file, whole or not at all
//! Never:  writes to the store; overwrites a file; decodes anything
//! Time:   UTC
//! Spec:   docs/recordings.md

use std::borrow::Borrow as _;
use std::fs::File;
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};

use crate::app::shows::{Library, MAX_BYTES};
use crate::id::{RenditionName, SegmentNumber, StreamName};
use crate::media::{Item, ObjectKey};
use crate::package::movie::{MDAT_LENGTH_AT, Movie};
use crate::package::show::{Run, Stretch};
use crate::serve::stretch::Asked;
use crate::store::{self, Store};

/// Segments that are read ahead.
const READ_AHEAD: usize = 8;

/// What is to be exported.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) stream: StreamName,
    pub(super) file: PathBuf,
    /// `None` for all of the newest show.
    pub(super) asked: Option<Asked>,
    /// None for the best picture and the best sound.
    pub(super) renditions: Vec<RenditionName>,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exported {
    pub(super) length: Duration,
    pub(super) bytes: u64,
}

/// Does `job` out of the store that `config` names.
///
/// # Errors
/// What cannot be read, written or found.
pub(super) async fn run(config: store::Config, job: Job) -> anyhow::Result<Exported> {
    if job.file.exists() {
        bail!(
            "{} is there already; it is left as it is",
            job.file.display()
        );
    }
    let store = Store::open_to_read(config).await?;
    let library = Library::new(store.clone(), MAX_BYTES);
    let shows = match job.asked {
        Some(asked) => library.between(&job.stream, asked).await?,
        None => {
            let newest = library.newest(&job.stream).await?;
            newest.map(Into::into).into_iter().collect()
        }
    };
    let stretch = match (job.asked, shows.first()) {
        (_, None) => bail!("nothing of \"{}\" is kept of that time", job.stream),
        (Some(asked), _) => Stretch::between(&shows, asked.start, asked.end)?,
        (None, Some(show)) => Stretch::whole(show.borrow())?,
    };
    let renditions = chosen(&stretch, &job.renditions)?;
    let part = with_suffix(&job.file);
    let opened = File::options().write(true).create_new(true).open(&part);
    let out = opened.with_context(|| match part.exists() {
        true => format!(
            "{} is there already: another export writes it, or one was cut off; remove it if nothing does",
            part.display()
        ),
        false => format!("{} cannot be written", part.display()),
    })?;
    let written = write(&store, &job.stream, (&stretch, &renditions), (out, &part)).await;
    let exported = match written {
        Ok(exported) => exported,
        Err(error) => {
            // Half a file is of no use to anyone.
            let _ = std::fs::remove_file(&part);
            return Err(error);
        }
    };
    name(&part, &job.file)?;
    Ok(exported)
}

/// Gives what is written as `part` the name `file`, but nobody else's: what has come there meanwhile stays.
fn name(part: &Path, file: &Path) -> anyhow::Result<()> {
    let named = match std::fs::hard_link(part, file) {
        Ok(()) => std::fs::remove_file(part),
        // Not every file system has links.
        Err(_) if !file.exists() => std::fs::rename(part, file),
        Err(error) => Err(error),
    };
    named.with_context(|| {
        let (part, file) = (part.display(), file.display());
        format!("{file} cannot be named; what was exported is in {part}")
    })
}

fn with_suffix(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

/// The renditions that are asked for, or the first picture and the first sound: they are listed best first.
fn chosen(stretch: &Stretch<'_>, asked: &[RenditionName]) -> anyhow::Result<Vec<RenditionName>> {
    let there = stretch.renditions();
    if let Some(missing) = asked.iter().find(|name| !there.contains(name)) {
        let names: Vec<_> = there.iter().map(RenditionName::as_str).collect();
        bail!(
            "there is no rendition {missing}; there are {}",
            names.join(", ")
        );
    }
    if !asked.is_empty() {
        return Ok(asked.to_vec());
    }
    let first = |letter: char| there.iter().find(|name| name.as_str().starts_with(letter));
    Ok([first('v'), first('a')]
        .into_iter()
        .flatten()
        .cloned()
        .collect())
}

async fn write(
    store: &Store,
    name: &StreamName,
    (stretch, renditions): (&Stretch<'_>, &[RenditionName]),
    (file, path): (File, &Path),
) -> anyhow::Result<Exported> {
    let failed = || format!("{} cannot be written", path.display());
    let mut out = BufWriter::new(file);
    let (mut movie, head) = Movie::new(renditions.len());
    out.write_all(&head).with_context(failed)?;
    let runs: Vec<Run<'_>> = stretch.runs().collect();
    let count: u64 = runs
        .iter()
        .map(|run| run.numbers.end - run.numbers.start)
        .sum();
    let bar = progress_bar(count);
    let mut before = 0;
    for run in &runs {
        movie.begin_section(run.begins);
        for (index, rendition) in renditions.iter().enumerate() {
            if run.has(rendition) {
                let init = get(store, name, Item::Init(rendition.clone(), run.period)).await?;
                movie.init(index, &init)?;
            }
        }
        let wanted = run.numbers.clone().flat_map(|number| {
            let there = renditions.iter().enumerate();
            let there = there.filter(move |(_, rendition)| run.has_segment(rendition, number));
            there.map(move |(index, rendition)| (number, index, rendition.clone()))
        });
        let read = |(number, index, rendition): (u64, usize, RenditionName)| async move {
            let item = Item::Segment(rendition, SegmentNumber::new(number));
            (number, index, get(store, name, item).await)
        };
        let mut segments = stream::iter(wanted.map(read)).buffered(READ_AHEAD);
        while let Some((number, index, segment)) = segments.next().await {
            for piece in movie.segment(index, &segment?)? {
                out.write_all(&piece).with_context(failed)?;
            }
            // Of this number something may be missing yet.
            bar.set_position(before + (number - run.numbers.start));
        }
        before += run.numbers.end - run.numbers.start;
    }
    bar.finish();
    let (moov, length) = movie.finish()?;
    out.write_all(&moov).with_context(failed)?;
    out.seek(SeekFrom::Start(MDAT_LENGTH_AT))
        .with_context(failed)?;
    out.write_all(&length.to_be_bytes()).with_context(failed)?;
    out.flush().with_context(failed)?;
    let file = out
        .into_inner()
        .map_err(|error| anyhow!("{}: {}", failed(), error.error()))?;
    file.sync_all().with_context(failed)?;
    bar.finish_and_clear();
    Ok(Exported {
        length: stretch.length(),
        bytes: file.metadata().with_context(failed)?.len(),
    })
}

async fn get(store: &Store, stream: &StreamName, item: Item) -> anyhow::Result<Bytes> {
    let key = ObjectKey::new(stream.clone(), item);
    let found = store.get(&key).await?;
    let found = found.ok_or_else(|| anyhow!("{key} is not in the store any more"))?;
    Ok(found.to_bytes())
}

fn progress_bar(segments: u64) -> ProgressBar {
    let bar = ProgressBar::new(segments);
    // The template is a constant; a bar without its style still counts.
    if let Ok(style) =
        ProgressStyle::with_template("{bar:40} {percent:>3} %  {pos} of {len} segments")
    {
        bar.set_style(style);
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_came_while_another_was_written_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let (part, file) = (folder.path().join("a.part"), folder.path().join("a"));
        std::fs::write(&part, "new").expect("written");
        std::fs::write(&file, "old").expect("written");
        let error = name(&part, &file).expect_err("it is there").to_string();
        assert!(error.contains("what was exported is in"), "{error}");
        assert_eq!(std::fs::read(&file).expect("there"), b"old");
        std::fs::remove_file(&file).expect("removed");
        name(&part, &file).expect("named");
        assert_eq!(std::fs::read(&file).expect("there"), b"new");
        assert!(!part.exists());
    }
}
