//! Places in configuration sources.

use std::sync::Arc;

/// A text that configuration came from.
#[derive(Debug, Default)]
pub struct Source {
    /// The file as the user named it, or `--set`, `env:NAME`, `yaml:`.
    pub name: String,
    /// Its text, for showing the line that an error is about.
    pub text: String,
    /// The `${...}` reference that brought it in; `None` for what was named on the command line.
    pub referenced_at: Option<Location>,
    /// Its text may be a secret: what is wrong with it is shown at the reference.
    pub hidden: bool,
}

impl Source {
    /// A source that stands on its own.
    #[must_use]
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { name: name.into(), text: text.into(), ..Self::default() })
    }

    /// Line `number` (from 1), without its end.
    pub(crate) fn line(&self, number: usize) -> Option<&str> {
        self.text.lines().nth(number.checked_sub(1)?)
    }
}

/// Sources are one and the same, or different: their texts are never compared.
impl PartialEq for Source {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Source {}

/// A place in a configuration source. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Location {
    /// The file or other source.
    pub source: Arc<Source>,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
    /// How many characters it spans on that line; 0 if that is unknown.
    pub length: usize,
}

impl Location {
    /// Whether this is a place at all: a default `Location` is not.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.line > 0
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}:{}", self.source.name, self.line, self.column)
    }
}
