//! Old spellings of whole components.

use super::gateway::Definition;
use super::{Diagnostics, Location, Node, Original, Problem, Scalar, Tree};

/// The section of a `logging` exporter as one of `debug`: `loglevel` becomes `verbosity`.
pub(super) fn debug_of_logging(definition: Definition<'_>, path: &str, diagnostics: &mut Diagnostics) -> Node {
    let message = "the logging exporter has been deprecated, use the debug exporter instead";
    let problem = Problem::warning(message).at(definition.key, path).suggest("taken as debug");
    diagnostics.push(problem);
    let rename = |(key, at, value): &(String, Location, Node)| {
        if !matches!(key.as_str(), "loglevel" | "logLevel" | "log_level") {
            return (key.clone(), at.clone(), value.clone());
        }
        let verbosity = match value.as_text().map(str::to_ascii_lowercase).as_deref() {
            Some("debug") => "detailed",
            Some("info") => "normal",
            _ => "basic",
        };
        let tree = Tree::Scalar(Scalar::String(verbosity.to_owned()));
        ("verbosity".to_owned(), at.clone(), Node { tree, location: value.location.clone(), original: Original::None })
    };
    match &definition.node.tree {
        Tree::Map(entries) => Node {
            tree: Tree::Map(entries.iter().map(rename).collect()),
            location: definition.node.location.clone(),
            original: Original::None,
        },
        _ => definition.node.clone(),
    }
}
