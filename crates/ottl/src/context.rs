//! What an expression is about: which paths there are, and their values.
//!
//! The engine knows nothing of spans. A signal is added by a [`Schema`] (a table of paths) and a
//! [`Context`] (where the values come from); see [`crate::traces`].

use std::fmt::Debug;

use crate::value::Value;

/// The data that an expression looks at.
pub trait Context {
    /// Names a field; the schema maps paths to it.
    type Field: Copy + Debug + PartialEq + Send + Sync + 'static;

    /// The value of `field`, with no more of the data read than that takes.
    fn get(&self, field: Self::Field) -> Value<'_>;

    /// How many bytes [`Context::get`] reads for `field`, at most, each time.
    fn cost(&self, _field: Self::Field) -> usize {
        0
    }

    /// Takes from what may be read. Once this is false, evaluation ends with an error: a hostile
    /// request, such as a million spans below one huge resource, cannot make reading it again for
    /// each of them take for ever.
    fn spend(&self, _bytes: usize) -> bool {
        true
    }
}

/// Which paths, enums and converters there are.
#[derive(Debug)]
pub struct Schema<F: 'static> {
    /// The context of paths that name none.
    pub default: &'static str,
    /// All contexts that paths may name.
    pub contexts: &'static [Paths<F>],
    /// The values of enums.
    pub enums: &'static [(&'static str, i64)],
    /// Converters without arguments that are fields in truth, such as `IsRootSpan()`.
    pub converters: &'static [(&'static str, F)],
}

/// The paths of one context.
#[derive(Debug)]
pub struct Paths<F: 'static> {
    /// What stands before the first dot.
    pub name: &'static str,
    /// Another name for it.
    pub alias: Option<&'static str>,
    /// The paths.
    pub fields: &'static [PathEntry<F>],
}

/// One path.
#[derive(Debug)]
pub struct PathEntry<F> {
    /// The path below its context.
    pub path: &'static str,
    /// What it leads to.
    pub field: F,
    /// May keys follow?
    pub keyed: bool,
}

impl<F> PathEntry<F> {
    /// A path without keys.
    #[must_use]
    pub const fn plain(path: &'static str, field: F) -> Self {
        Self { path, field, keyed: false }
    }

    /// A path that keys may follow.
    #[must_use]
    pub const fn keyed(path: &'static str, field: F) -> Self {
        Self { path, field, keyed: true }
    }
}

impl<F> Paths<F> {
    pub(crate) fn is_called(&self, name: &str) -> bool {
        self.name == name || self.alias == Some(name)
    }
}
