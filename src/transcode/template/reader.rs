//! Reads a TOML table key by key and remembers every mistake instead of stopping at the first.
//!
//! Enters: a parsed TOML table and its path in the file
//! Leaves: typed values, and problems in the list that all readers of a file share
//! Never:  defaults
//! Spec:   TOML 1.0

use std::ops::RangeInclusive;

use toml::{Table, Value};

use super::Problem;

/// One table being read. Keys that are taken are known; what remains at [`Self::finish`] is not.
pub(super) struct Reader<'a> {
    path: String,
    table: Table,
    problems: &'a mut Vec<Problem>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(path: String, table: Table, problems: &'a mut Vec<Problem>) -> Self {
        Self {
            path,
            table,
            problems,
        }
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// Notes that the value of `key` is wrong.
    pub(super) fn problem(&mut self, key: &str, what: &str) {
        let (path, what) = (self.path_of(key), what.to_owned());
        self.problems.push(Problem { path, what });
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let value = self.table.remove(key);
        if value.is_none() {
            self.problem(key, "missing");
        }
        value
    }

    /// The text of `key` without taking it; `None` if it is absent or no text.
    pub(super) fn peek_text(&self, key: &str) -> Option<String> {
        let value = self.table.get(key).and_then(Value::as_str);
        value.map(str::to_owned)
    }

    /// Whether there is `key`, not taken yet.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Takes `key` without reading it.
    pub(super) fn skip(&mut self, key: &str) {
        self.table.remove(key);
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) if !text.trim().is_empty() => Some(text),
            Value::String(_) => {
                self.problem(key, "must not be empty");
                None
            }
            other => self.mistyped(key, "text", &other),
        }
    }

    /// As [`Self::text`], for a key that may be absent.
    pub(super) fn optional_text(&mut self, key: &str) -> Option<String> {
        if self.table.contains_key(key) {
            self.text(key)
        } else {
            None
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(value) => Some(value),
            other => self.mistyped(key, "true or false", &other),
        }
    }

    pub(super) fn integer(&mut self, key: &str, range: RangeInclusive<u32>) -> Option<u32> {
        match self.take(key)? {
            Value::Integer(value) => {
                let fits = u32::try_from(value).ok().filter(|v| range.contains(v));
                if fits.is_none() {
                    let (from, to) = range.into_inner();
                    self.problem(key, &format!("{from} to {to}, found {value}"));
                }
                fits
            }
            other => self.mistyped(key, "a whole number", &other),
        }
    }

    pub(super) fn choice<T: Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> Option<T> {
        let text = self.text(key)?;
        let found = choices.iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
            self.problem(key, &format!("one of {}, found {text:?}", names.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    pub(super) fn table(&mut self, key: &str) -> Option<Reader<'_>> {
        match self.take(key)? {
            Value::Table(table) => Some(Reader::new(self.path_of(key), table, self.problems)),
            other => self.mistyped(key, "a table", &other),
        }
    }

    /// Reads every table of the list `key` by `read`; `None` if one of them has a mistake.
    pub(super) fn tables<T>(
        &mut self,
        key: &str,
        max: usize,
        read: impl Fn(Reader<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let list = match self.take(key)? {
            Value::Array(list) => list,
            other => return self.mistyped(key, "a list of tables", &other),
        };
        if list.is_empty() || list.len() > max {
            self.problem(key, &format!("1 to {max} entries, found {}", list.len()));
        }
        let mut all = Some(Vec::new());
        for (index, value) in list.into_iter().take(max).enumerate() {
            let key = format!("{key}[{index}]");
            let one = if let Value::Table(table) = value {
                read(Reader::new(self.path_of(&key), table, self.problems))
            } else {
                self.mistyped(&key, "a table", &value)
            };
            all = all.zip(one).map(|(mut list, one)| {
                list.push(one);
                list
            });
        }
        all
    }

    /// Notes every key that was never taken.
    pub(super) fn finish(mut self) {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for key in unknown {
            self.problem(&key, "unknown key");
        }
    }

    fn mistyped<T>(&mut self, key: &str, wanted: &str, found: &Value) -> Option<T> {
        self.problem(
            key,
            &format!("must be {wanted}, found {}", found.type_str()),
        );
        None
    }
}
