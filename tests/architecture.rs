//! Holds the source tree to the rules of `docs/architecture.md`: who may use whom, what every file
//! says about itself, and how long it may be.
//!
//! Enters: the text of every file under `src/`
//! Leaves: one failure per rule, naming each file and line that breaks it
//! Never:  the compiler: a text scan that forbids the spellings it could not see through

// Tells the lints that helpers, too, are test code.
#![cfg(test)]

use std::fs;
use std::path::{Path, PathBuf};

const FOUNDATION: [&str; 4] = ["time", "id", "media", "codec"];
/// Beside the stages proper, `inspect` stands under the same rule: it judges the others' output.
const STAGES: [&str; 8] = [
    "ingest",
    "demux",
    "transcode",
    "package",
    "store",
    "serve",
    "publish",
    "inspect",
];
/// Lines of a file before its tests.
const MAX_LINES: usize = 600;

/// What a module may use of the crate, besides itself. `config` names stages for their `Config` only.
fn may_use(module: &str, used: &str) -> bool {
    match module {
        "id" => false,
        // The grid turns a time into a segment's number.
        "time" => used == "id",
        "codec" => ["time", "id"].contains(&used),
        "media" => ["time", "id", "codec"].contains(&used),
        "config" => FOUNDATION.contains(&used) || STAGES.contains(&used),
        "main" => ["app", "config"].contains(&used),
        "app" | "lib" => true,
        stage if STAGES.contains(&stage) => FOUNDATION.contains(&used),
        unknown => panic!("src/{unknown} has no row in the table of tests/architecture.rs"),
    }
}

struct Source {
    path: PathBuf,
    /// The first folder or file name below `src/`.
    module: String,
    /// Folders between `src/` and the items of the file: what `super` climbs.
    depth: usize,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(source(&root, &path));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "only {} files under src/", found.len());
    found
}

fn source(root: &Path, path: &Path) -> Source {
    let inner = path.strip_prefix(root).unwrap();
    let parts: Vec<_> = inner
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_str().unwrap().to_owned())
        .collect();
    let is_mod = parts.last().is_some_and(|name| name == "mod");
    Source {
        path: Path::new("src").join(inner),
        module: parts[0].clone(),
        depth: parts.len() - usize::from(is_mod),
        text: fs::read_to_string(path).unwrap(),
    }
}

impl Source {
    /// The lines of code with their numbers: no comments, no text.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, without_text_and_comment(line)))
    }

    fn at(&self, line: usize, what: &str) -> String {
        format!("{}:{line}: {what}", self.path.display())
    }

    /// How many lines stand before the tests.
    fn length(&self) -> usize {
        self.text
            .lines()
            .position(|line| line.starts_with("#[cfg(test)]"))
            .filter(|at| {
                self.text
                    .lines()
                    .nth(at + 1)
                    .is_some_and(|next| next.ends_with('{'))
            })
            .unwrap_or_else(|| self.text.lines().count())
    }

    fn is_test(&self) -> bool {
        let stem = self
            .path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        stem == "tests"
            || stem.ends_with("_tests")
            || self.path.components().any(|c| c.as_os_str() == "tests")
    }
}

/// `line` without what stands in double quotes or after `//`.
fn without_text_and_comment(line: &str) -> String {
    let mut code = String::new();
    let mut in_text = false;
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if in_text => drop(chars.next()),
            '\'' if chars.peek() == Some(&'"') => drop(chars.next()),
            '"' => in_text = !in_text,
            '/' if !in_text && chars.peek() == Some(&'/') => break,
            c if !in_text => code.push(c),
            _ => {}
        }
    }
    code
}

/// The modules that a line of code names as `crate::module` or `headwater::module`.
fn mentions(code: &str) -> Vec<&str> {
    let is_word = |c: char| c.is_alphanumeric() || "_$".contains(c);
    let mut found = Vec::new();
    for root in ["crate::", "headwater::"] {
        for (at, _) in code.match_indices(root) {
            let (before, rest) = code.split_at(at);
            let path = rest.strip_prefix(root).unwrap_or_default();
            if !before.ends_with(is_word) {
                found.extend(
                    path.split(|c| !is_word(c))
                        .next()
                        .filter(|name| !name.is_empty()),
                );
            }
        }
    }
    found
}

fn assert_none(rule: &str, broken: &[String]) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// A worker ends with the thread that started it. Those of tokio live as long as the server, but for one that blocks
/// in place: another takes its tasks over, and it ends when it has been idle.
#[test]
fn no_thread_that_starts_workers_is_given_up() {
    let call = concat!("block_in_", "place");
    let all = sources();
    let found: Vec<_> = all
        .iter()
        .filter(|source| source.text.contains(call))
        .collect();
    let paths: Vec<_> = found.iter().map(|source| &source.path).collect();
    assert!(paths.is_empty(), "{paths:?}");
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let mut broken = Vec::new();
    for source in sources() {
        for (line, code) in source.code() {
            for used in mentions(&code) {
                if used != source.module && !may_use(&source.module, used) {
                    broken.push(source.at(line, &format!("{} uses {used}", source.module)));
                }
            }
        }
    }
    assert_none("a module uses another that it must not know", &broken);
}

#[test]
fn imports_are_spelled_so_that_they_can_be_scanned() {
    let mut broken = Vec::new();
    for source in sources() {
        for (line, code) in source.code() {
            let squeezed: String = code.split_whitespace().collect();
            if squeezed.contains("crate::{") || squeezed.contains("headwater::{") {
                broken.push(source.at(line, "a group of the crate's own modules; one `use` each"));
            }
            if squeezed.contains("crate::*") || squeezed.contains("crateas") {
                broken.push(source.at(line, "the crate as a whole"));
            }
        }
    }
    assert_none("an import hides what it uses", &broken);
}

#[test]
fn super_stays_inside_its_stage() {
    let mut broken = Vec::new();
    for source in sources() {
        // A `mod tests` at the end of a file is one level deeper than the file's own items.
        let levels = source.depth - 1;
        for (line, code) in source.code() {
            let climbs = longest_climb(&code);
            let inside = usize::from(line > source.length());
            if climbs > levels + inside {
                broken.push(source.at(line, "climbs out of its stage; say crate::"));
            }
        }
    }
    assert_none("`super` leaves the stage", &broken);
}

/// The most `super::` in a row.
fn longest_climb(code: &str) -> usize {
    let mut longest = 0;
    let mut climbs = 0;
    let mut pieces = code.split("super::").peekable();
    while let Some(piece) = pieces.next() {
        climbs = if piece.is_empty() { climbs } else { 0 };
        climbs += usize::from(pieces.peek().is_some());
        longest = longest.max(climbs);
    }
    longest
}

#[test]
fn every_file_says_what_enters_and_what_leaves() {
    let mut broken = Vec::new();
    for source in sources() {
        // The two roots introduce the crate and the command instead; tests introduce themselves.
        if source.is_test() || ["lib", "main"].contains(&source.module.as_str()) {
            continue;
        }
        let doc: Vec<&str> = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .collect();
        if doc.is_empty() {
            broken.push(source.at(1, "no module doc"));
            continue;
        }
        for label in ["Enters:", "Leaves:", "Never:"] {
            if !doc
                .iter()
                .any(|line| line.starts_with(&format!("//! {label}")))
            {
                broken.push(source.at(1, &format!("the module doc has no `{label}` line")));
            }
        }
    }
    assert_none("a file does not introduce itself", &broken);
}

#[test]
fn no_file_outgrows_its_reader() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|source| !source.is_test() && source.length() > MAX_LINES)
        .map(|source| {
            source.at(
                source.length(),
                &format!("{MAX_LINES} lines before the tests, at most"),
            )
        })
        .collect();
    assert_none("a file is to be split", &broken);
}

#[test]
fn a_folder_is_a_mod_rs() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|source| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR"));
            root.join(source.path.with_extension("")).is_dir()
        })
        .filter(|source| !source.path.ends_with("lib.rs"))
        .map(|source| source.at(1, "stands beside a folder of its name; use mod.rs"))
        .collect();
    assert_none("two forms of module", &broken);
}

#[test]
fn the_scan_sees_through_the_usual_spellings() {
    assert_eq!(mentions("use crate::time::Ticks;"), ["time"]);
    assert_eq!(
        mentions("x(crate::id::A, crate::media::B)"),
        ["id", "media"]
    );
    assert_eq!(mentions("pub(crate) use headwater::app;"), ["app"]);
    assert!(mentions("$crate::x or mycrate::y").is_empty());
    assert_eq!(
        without_text_and_comment(r#"a("x // y") // crate::b"#),
        "a() "
    );
    assert_eq!(without_text_and_comment(r#"['"', "\"c"]"#), "[', ]");
    for (code, climbs) in [
        ("use super::super::x; super::y", 2),
        ("super::super::super::x", 3),
        ("a(super::b)", 1),
        ("use super::", 1),
        ("superb", 0),
    ] {
        assert_eq!(longest_climb(code), climbs, "{code}");
    }
}
