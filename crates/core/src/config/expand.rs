//! `${...}` references.
//!
//! Every text is scanned once, left to right: `$$` is a dollar sign, `${...}` a reference, any other
//! `$` stays. The first `}` ends the innermost reference. What a reference brings is scanned in the
//! same way before it takes the reference's place, to [`MAX_ROUNDS`] levels. A value that is one
//! reference and nothing else becomes whatever the text reads as in YAML, and remembers the text for
//! fields that want text; anything else has the text spliced in.

use std::collections::HashSet;
use std::sync::Arc;

use super::source::{self, Environment};
use super::{Diagnostics, Location, Node, Original, Problem, Scalar, Source, Tree, yaml};

/// How often what a reference brings may itself hold references.
const MAX_ROUNDS: usize = 20;
/// The most references of a configuration.
const MAX_REFERENCES: usize = 10_000;

/// Expands all references in `root`.
pub(super) fn expand(root: &mut Node, environment: &Environment, diagnostics: &mut Diagnostics) {
    let mut expander =
        Expander { environment, diagnostics, unset: HashSet::new(), references: 0, weight: 0, silent: false };
    expander.node(root, "", 0, 0);
}

struct Expander<'a> {
    environment: &'a Environment,
    diagnostics: &'a mut Diagnostics,
    unset: HashSet<(String, String)>,
    references: usize,
    weight: usize,
    silent: bool,
}

/// A piece of a text.
enum Part {
    Text(String),
    /// What stands between `${` and `}`.
    Reference(Vec<Part>),
    /// `$${`, which the Collector stops at.
    Escaped,
}

/// Where a text stands.
#[derive(Clone, Copy)]
struct Place<'a> {
    location: &'a Location,
    path: &'a str,
    rounds: usize,
    depth: usize,
}

/// A reference cannot be followed.
struct Failed;

impl Expander<'_> {
    fn node(&mut self, node: &mut Node, path: &str, rounds: usize, depth: usize) {
        match &mut node.tree {
            Tree::Scalar(Scalar::String(text)) => {
                if text.contains('$') {
                    let text = std::mem::take(text);
                    let location = node.location.clone();
                    let place = Place { location: &location, path, rounds, depth };
                    // Text that failed is reported; the rest of the file is still looked at.
                    *node = self.scalar(&text, place).unwrap_or_else(|Failed| Node {
                        original: Original::Referenced(String::new()),
                        ..Node::new(Tree::Scalar(Scalar::Null), location.clone())
                    });
                }
            }
            Tree::Scalar(_) => {}
            Tree::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.node(item, &format!("{path}[{index}]"), rounds, depth + 1);
                }
            }
            Tree::Map(entries) => {
                for (key, at, value) in entries {
                    let child = join(path, key);
                    if !value.location.is_known() {
                        value.location = at.clone();
                    }
                    self.node(value, &child, rounds, depth + 1);
                }
            }
        }
    }

    /// The value that `text` stands for.
    fn scalar(&mut self, text: &str, place: Place<'_>) -> Result<Node, Failed> {
        let parts = parse(text);
        if let [Part::Reference(inner)] = parts.as_slice() {
            return self.reference(inner, place);
        }
        self.warn_of_readings(text, &parts, place);
        let expanded = self.splice(&parts, place)?;
        Ok(Node::new(Tree::Scalar(Scalar::String(expanded)), place.location.clone()))
    }

    /// `parts` as one text.
    fn splice(&mut self, parts: &[Part], place: Place<'_>) -> Result<String, Failed> {
        let mut text = String::new();
        for part in parts {
            match part {
                Part::Text(piece) => text.push_str(piece),
                Part::Escaped => text.push_str("${"),
                Part::Reference(inner) => match self.reference(inner, place)?.original {
                    Original::Referenced(piece) => text.push_str(&piece),
                    Original::None | Original::Written(_) => {}
                },
            }
            self.charge(text.len(), place)?;
        }
        Ok(text)
    }

    /// What `${inner}` brings; its `original` is always the text.
    fn reference(&mut self, inner: &[Part], place: Place<'_>) -> Result<Node, Failed> {
        self.references += 1;
        if place.rounds >= MAX_ROUNDS || self.references > MAX_REFERENCES {
            return self.fail("too many recursive expansions: does a variable refer to itself?", place);
        }
        let is_dollar = |part: &Part| matches!(part, Part::Text(text) if text.contains('$'));
        if inner.iter().any(|part| is_dollar(part) || matches!(part, Part::Escaped)) {
            return self.fail("a $ inside of ${...} that does not start another ${...}", place);
        }
        let uri = match inner.first() {
            // A default that is not needed is not looked at: what it refers to may be unset.
            Some(Part::Text(text)) if self.is_set_before_default(text) => text.clone(),
            _ => self.splice(inner, place)?,
        };
        // A bare NAME:-default, where the Collector wants env: in front.
        let has_default = uri
            .split_once(":-")
            .is_some_and(|(name, _)| !name.contains(':') && !matches!(name, "env" | "file" | "yaml"));
        let (source, text) = match source::scheme(&uri) {
            _ if has_default => self.variable(&uri, place)?,
            None if !uri.contains(':') => self.variable(&uri, place)?,
            Some(("env", variable)) => self.variable(variable, place)?,
            Some(("yaml", text)) => (format!("yaml:{text}"), Some(text.to_owned())),
            Some(("file", path)) => match source::read_file(path) {
                Ok(text) => (path.to_owned(), Some(text)),
                Err(error) => return self.fail(&error, place),
            },
            _ => {
                let scheme = uri.split(':').next().unwrap_or_default();
                let message = format!("scheme {scheme:?} is not supported in ${{{uri}}}: use env:, file: or yaml:");
                return self.fail(&message, place);
            }
        };
        let is_file = matches!(source::scheme(&uri), Some(("file", _)));
        self.bring(source, text, is_file, place)
    }

    /// Whether `text` is `env:NAME:-...` with a variable that is set.
    fn is_set_before_default(&self, text: &str) -> bool {
        let variable = text.strip_prefix("env:").unwrap_or(text);
        variable.split_once(":-").is_some_and(|(name, _)| (self.environment)(name).is_some())
    }

    /// The value of `NAME` or `NAME:-default`, with a name for its origin.
    fn variable(&mut self, variable: &str, place: Place<'_>) -> Result<(String, Option<String>), Failed> {
        let (name, default) = match variable.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (variable, None),
        };
        let mut letters = name.chars();
        let starts_well = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
        if !starts_well || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == '_') {
            let mut message =
                format!("environment variable {name:?} has invalid name: must match regex ^[a-zA-Z_][a-zA-Z0-9_]*$");
            if !name.is_empty() && name.bytes().all(|letter| letter.is_ascii_digit()) {
                message = format!("{message}; for group {name} of a regular expression write $${{{name}}}");
            }
            return self.fail(&message, place);
        }
        match ((self.environment)(name), default) {
            (Some(value), _) => Ok((format!("env:{name}"), Some(value))),
            (None, Some(default)) => Ok((format!("default:{name}"), Some(default.to_owned()))),
            (None, None) => {
                if !self.silent && self.unset.insert((name.to_owned(), place.path.to_owned())) {
                    let message = format!("environment variable {name:?} is not set: ${{{name}}} stands for nothing");
                    let hint = format!("set it, or write ${{env:{name}:-a default}}");
                    self.diagnostics.push(Problem::warning(message).at(place.location, place.path).suggest(hint));
                }
                Ok((format!("env:{name}"), None))
            }
        }
    }

    /// `text` as a value, with its own references expanded.
    fn bring(&mut self, name: String, text: Option<String>, is_file: bool, place: Place<'_>) -> Result<Node, Failed> {
        let text = text.unwrap_or_default();
        self.charge(text.len(), place)?;
        let referenced_at = Some(place.location.clone());
        let shown = if is_file { text.clone() } else { String::new() };
        let root = match yaml::parse(&Source::new(name.clone(), text.clone())) {
            Ok(document) => {
                if is_file {
                    document.problems.into_iter().for_each(|problem| self.diagnostics.push(problem));
                }
                document.root
            }
            Err(problem) if is_file && (name.ends_with(".yaml") || name.ends_with(".yml")) => {
                self.diagnostics.push(*problem);
                return Err(Failed);
            }
            // What is not YAML is text.
            Err(_) => text_node(&text, place.location),
        };
        let is_tree = matches!(root.tree, Tree::Map(_) | Tree::List(_));
        let source = Arc::new(Source { name, text: shown, referenced_at, hidden: !(is_file && is_tree) });
        let start = Location { source: source.clone(), line: 1, column: 1, length: 0 };
        let inner = Place { location: &start, rounds: place.rounds + 1, ..place };

        let expanded = if text.contains('$') {
            let was_silent = std::mem::replace(&mut self.silent, true);
            let expanded = self.splice(&parse(&text), inner);
            self.silent = was_silent;
            expanded?
        } else {
            text.clone()
        };
        let mut node = match root.tree {
            Tree::Scalar(Scalar::Null) if !text.is_empty() && !is_yaml_null(&text) => text_node(&text, &start),
            // Text is kept byte for byte, quotes and line ends included.
            Tree::Scalar(Scalar::String(_)) => text_node(&text, &start),
            Tree::Scalar(_) => Node { location: start.clone(), ..root },
            Tree::List(_) | Tree::Map(_) => {
                if place.depth + yaml::depth(&root) > yaml::MAX_DEPTH {
                    return self.fail("nested too deep", place);
                }
                self.charge(yaml::weight(&root), place)?;
                with_source(root, &source)
            }
        };
        if text.contains('$') {
            self.node(&mut node, place.path, place.rounds + 1, place.depth);
        }
        node.original = Original::Referenced(expanded);
        Ok(node)
    }

    fn charge(&mut self, bytes: usize, place: Place<'_>) -> Result<(), Failed> {
        self.weight = self.weight.saturating_add(bytes);
        if self.weight > yaml::MAX_WEIGHT {
            return self.fail("the references of this configuration expand to more than 64 MiB", place);
        }
        Ok(())
    }

    fn fail<T>(&mut self, message: &str, place: Place<'_>) -> Result<T, Failed> {
        let problem = Problem::error(message).at(place.location, place.path);
        let is_new = |known: &Problem| known.message != problem.message || known.path != problem.path;
        if self.diagnostics.errors.iter().all(is_new) {
            self.diagnostics.push(problem);
        }
        Err(Failed)
    }

    /// Warns where a text may not say what it seems to.
    fn warn_of_readings(&mut self, text: &str, parts: &[Part], place: Place<'_>) {
        if self.silent {
            return;
        }
        let escaped = parts.iter().position(|part| matches!(part, Part::Escaped));
        if escaped.is_some_and(|at| parts.iter().skip(at).any(|part| matches!(part, Part::Reference(_)))) {
            let message = "the Collector leaves what follows an escaped $${...} unexpanded: here it is expanded";
            self.diagnostics.push(Problem::warning(message).at(place.location, place.path));
        }
        for (before, word) in text.match_indices('$').map(|(at, _)| (&text[..at], &text[at + 1..])) {
            let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
            let name = &word[..word.find(|letter| !is_name(letter)).unwrap_or(word.len())];
            let is_upper = name.len() > 1 && name.starts_with(|first: char| first.is_ascii_uppercase());
            if is_upper && !before.ends_with('$') && (self.environment)(name).is_some() {
                let message = format!("${name} is not expanded");
                let hint = format!("write ${{env:{name}}}, or $${name} for the text itself");
                self.diagnostics.push(Problem::warning(message).at(place.location, place.path).suggest(hint));
            }
        }
    }
}

fn text_node(text: &str, at: &Location) -> Node {
    Node::new(Tree::Scalar(Scalar::String(text.to_owned())), at.clone())
}

fn is_yaml_null(text: &str) -> bool {
    matches!(text.trim(), "" | "~" | "null" | "Null" | "NULL")
}

/// The nodes of `root`, at the same places of another source.
fn with_source(mut root: Node, source: &Arc<Source>) -> Node {
    root.location.source = source.clone();
    root.tree = match root.tree {
        Tree::List(items) => Tree::List(items.into_iter().map(|item| with_source(item, source)).collect()),
        Tree::Map(entries) => {
            let entries = entries.into_iter().map(|(key, mut at, value)| {
                at.source = source.clone();
                (key, at, with_source(value, source))
            });
            Tree::Map(entries.collect())
        }
        scalar @ Tree::Scalar(_) => scalar,
    };
    root
}

/// Splits `text` into its parts. A `${` without its `}` is text.
fn parse(text: &str) -> Vec<Part> {
    // One list of parts for each reference that is open; the outermost is the text's own.
    let mut open: Vec<Vec<Part>> = vec![Vec::new()];
    let mut rest = text;
    while let Some(at) = rest.find(['$', '}']) {
        let (before, from) = rest.split_at(at);
        push(&mut open, before);
        if let Some(after) = from.strip_prefix("$${") {
            last(&mut open).push(Part::Escaped);
            rest = after;
        } else if let Some(after) = from.strip_prefix("$$") {
            push(&mut open, "$");
            rest = after;
        } else if from.starts_with("${") && open.len() < MAX_ROUNDS {
            open.push(Vec::new());
            rest = &from[2..];
        } else if from.starts_with('}') && open.len() > 1 {
            let inner = open.pop().unwrap_or_default();
            last(&mut open).push(Part::Reference(inner));
            rest = &from[1..];
        } else {
            push(&mut open, &from[..1]);
            rest = &from[1..];
        }
    }
    push(&mut open, rest);
    while open.len() > 1 {
        let inner = open.pop().unwrap_or_default();
        push(&mut open, "${");
        last(&mut open).extend(inner);
    }
    let parts = open.pop().unwrap_or_default();
    parts.into_iter().filter(|part| !matches!(part, Part::Text(text) if text.is_empty())).collect()
}

fn last(open: &mut [Vec<Part>]) -> &mut Vec<Part> {
    let last = open.len() - 1;
    &mut open[last]
}

fn push(open: &mut [Vec<Part>], text: &str) {
    match last(open).last_mut() {
        Some(Part::Text(before)) => before.push_str(text),
        _ if text.is_empty() => {}
        _ => last(open).push(Part::Text(text.to_owned())),
    }
}

/// `path.key`, or `key` at the top.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
