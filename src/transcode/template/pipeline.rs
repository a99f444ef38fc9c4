//! Tells a pipeline file that encodes from one that only copies.
//!
//! Enters: the text of a pipeline file, shipped or an operator's own
//! Leaves: a [`Pipeline`], or all mistakes with their paths
//! Never:  files: the caller reads them
//! Time:   none
//! Spec:   pipelines/README.md

use super::reader::Reader;
use super::{COPY, Invalid, Template};

/// What a pipeline file asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pipeline {
    /// The source's own samples, as they come.
    Copy {
        /// The file's name without its ending.
        name: String,
        /// One sentence for people.
        summary: String,
    },
    /// A ladder of rungs that are encoded.
    Encode(Box<Template>),
}

impl Pipeline {
    /// Parses the shipped file called `name`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] if no such file is shipped; it lists those that are.
    pub fn named(name: &str) -> Result<Self, Invalid> {
        if name == COPY.0 {
            return Self::parse(&format!("pipelines/{name}.toml"), COPY.1);
        }
        Ok(Self::Encode(Box::new(Template::named(name)?)))
    }

    /// Parses `text`, the contents of `file`.
    ///
    /// # Errors
    ///
    /// [`Invalid`] with every mistake.
    pub fn parse(file: &str, text: &str) -> Result<Self, Invalid> {
        // What is no TOML is told of as a ladder's file.
        let table: Option<toml::Table> = text.parse().ok();
        let Some(table) = table.filter(|table| table.contains_key("copy")) else {
            return Ok(Self::Encode(Box::new(Template::parse(file, text)?)));
        };
        let mut problems = Vec::new();
        let mut root = Reader::new(String::new(), table, &mut problems);
        let summary = root.text("summary");
        if root.boolean("copy") == Some(false) {
            root.problem("copy", "true, or leave it out");
        }
        for key in ["video", "audio", "latency_ms"] {
            if root.has(key) {
                root.skip(key);
                root.problem(
                    key,
                    "has no place beside copy = true, which encodes nothing",
                );
            }
        }
        root.finish();
        match summary {
            Some(summary) if problems.is_empty() => {
                let name = super::name_of(file);
                Ok(Self::Copy { name, summary })
            }
            _ => Err(Invalid {
                file: file.to_owned(),
                problems,
            }),
        }
    }

    /// The file's name without its ending.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Copy { name, .. } => name,
            Self::Encode(template) => &template.name,
        }
    }

    /// Every GStreamer element that it needs, sorted, each once.
    #[must_use]
    pub fn elements(&self) -> Vec<String> {
        match self {
            Self::Copy { .. } => Vec::new(),
            Self::Encode(template) => template.elements(),
        }
    }

    /// The same with nothing held back.
    ///
    /// # Errors
    ///
    /// As for [`Template::into_low_delay`].
    pub fn into_low_delay(self) -> Result<Self, Invalid> {
        match self {
            Self::Copy { .. } => Ok(self),
            Self::Encode(template) => Ok(Self::Encode(Box::new(template.into_low_delay()?))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copy_is_shipped_and_needs_nothing() {
        let copy = Pipeline::named("copy").expect("shipped");
        assert!(matches!(copy, Pipeline::Copy { .. }));
        assert_eq!((copy.name(), copy.elements()), ("copy", Vec::new()));
        assert_eq!(copy.clone().into_low_delay(), Ok(copy));
        assert!(matches!(Pipeline::named("auto"), Ok(Pipeline::Encode(_))));
        let unknown = Pipeline::named("cpoy")
            .expect_err("no such file")
            .to_string();
        assert!(unknown.contains("copy"), "{unknown}");
    }

    #[test]
    fn what_encodes_has_no_place_beside_copy() {
        let text =
            "summary = \"both\"\ncopy = true\nlatency_ms = 1\n[video]\ncodec = \"h264\"\n[extra]\n";
        let problems = Pipeline::parse("mine.toml", text)
            .expect_err("refused")
            .problems;
        let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["video", "latency_ms", "extra"]);
        let off = Pipeline::parse("mine.toml", "copy = false").expect_err("refused");
        let paths: Vec<&str> = off.problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, ["summary", "copy"]);
    }
}
