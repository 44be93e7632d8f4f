//! The located tree, and typed reading of it.

use std::sync::Arc;

use serde::de::DeserializeOwned;

/// A place in a configuration source. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Location {
    /// The file, or another name for the source (`env:NAME`, `--set`).
    pub source: Arc<str>,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

/// A value of the tree without children.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// A number with a fraction or exponent.
    Float(f64),
    /// Text.
    String(String),
}

/// The shape of a node.
#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    /// A scalar.
    Scalar(Scalar),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in source order, with each key's own location.
    Map(Vec<(String, Location, Node)>),
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub tree: Tree,
    /// Where it was written.
    pub location: Location,
}

/// The problems found so far; all are reported at once.
#[derive(Debug, Default)]
pub struct Diagnostics {
    /// What prevents a start.
    pub errors: Vec<String>,
    /// What deserves a word.
    pub warnings: Vec<String>,
}

/// Checks beyond types: bounds, and rules between keys.
pub trait Validate {
    /// Reports what is wrong with `self`.
    fn validate(&self, check: &mut Check<'_>) {
        let _ = check;
    }
}

/// Where a [`Validate`] implementation reports. Paths are relative to the value being checked.
pub struct Check<'a> {
    diagnostics: &'a mut Diagnostics,
}

impl Check<'_> {
    /// An error at `path` below the checked value: `["retry_on_failure", "multiplier"]`.
    pub fn error(&mut self, path: &[&str], message: impl Into<String>) {
        self.diagnostics.errors.push(format!("{}: {}", path.join("."), message.into()));
    }

    /// A warning at `path` below the checked value.
    pub fn warning(&mut self, path: &[&str], message: impl Into<String>) {
        self.diagnostics.warnings.push(format!("{}: {}", path.join("."), message.into()));
    }

    /// Checks `value`, which stands at `path`.
    pub fn nested(&mut self, path: &[&str], value: &impl Validate) {
        let _ = path;
        value.validate(self);
    }
}

/// Reads `node` as a `C`, then validates it. `None` if there were errors.
pub fn decode<C: DeserializeOwned + Validate>(node: &Node, diagnostics: &mut Diagnostics) -> Option<C> {
    let value: C =
        serde_json::from_value(to_json(node)).map_err(|error| diagnostics.errors.push(error.to_string())).ok()?;
    let errors = diagnostics.errors.len();
    value.validate(&mut Check { diagnostics });
    (diagnostics.errors.len() == errors).then_some(value)
}

fn to_json(node: &Node) -> serde_json::Value {
    match &node.tree {
        Tree::Scalar(Scalar::Null) => serde_json::Value::Null,
        Tree::Scalar(Scalar::Bool(value)) => (*value).into(),
        Tree::Scalar(Scalar::Int(value)) => (*value).into(),
        Tree::Scalar(Scalar::Float(value)) => (*value).into(),
        Tree::Scalar(Scalar::String(value)) => value.clone().into(),
        Tree::List(items) => items.iter().map(to_json).collect(),
        Tree::Map(entries) => entries.iter().map(|(key, _, value)| (key.clone(), to_json(value))).collect(),
    }
}
