//! YAML text to located nodes.
//!
//! The parser's events are put together without recursion. Bounds: [`MAX_BYTES`] of text,
//! [`MAX_DEPTH`] levels, and [`MAX_WEIGHT`] for what aliases multiply. What a reader can pass over (a
//! duplicate key) is reported and reading goes on; a syntax error ends it.

use std::collections::HashMap;
use std::sync::Arc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};

use super::{Location, Node, Original, Problem, Scalar, Source, Tree, scalar};

/// The longest configuration text.
pub(super) const MAX_BYTES: usize = 8 << 20;
/// The deepest nesting, aliases and `${...}` included.
pub(super) const MAX_DEPTH: usize = 64;
/// The most that a document holds: its text, and 64 a node, with everything aliases repeat.
pub(super) const MAX_WEIGHT: usize = 64 << 20;

/// A document, and what deserves mention about it.
pub(super) struct Document {
    pub(super) root: Node,
    pub(super) problems: Vec<Problem>,
}

/// Reads the first document of `source`. The error is what ended the reading.
pub(super) fn parse(source: &Arc<Source>) -> Result<Document, Box<Problem>> {
    if source.text.len() > MAX_BYTES {
        return Err(Box::new(Problem::error(format!("{} is larger than {MAX_BYTES} bytes", source.name))));
    }
    let mut builder = Builder::new(source);
    let mut parser = Parser::new_from_str(&source.text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| Box::new(syntax_error(source, &error)))?;
        if builder.take(event, span)? {
            break;
        }
    }
    // Whether there is another document; a fault in it does not matter.
    if let Some(Ok((Event::DocumentStart(_), span))) = parser.next_event() {
        let at = builder.location(span);
        let message = "only the first document of a file is read: this one is ignored";
        builder.problems.push(Problem::warning(message).at(&at, ""));
    }
    Ok(Document { root: builder.root.unwrap_or_default(), problems: builder.problems })
}

struct Builder<'a> {
    source: &'a Arc<Source>,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Node>,
    weight: usize,
    root: Option<Node>,
    problems: Vec<Problem>,
}

struct Frame {
    anchor: usize,
    location: Location,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        entries: Vec<(String, Location, Node)>,
        index: HashMap<String, usize>,
        key: Option<(String, Location, bool)>,
        merged: Vec<Node>,
    },
}

impl<'a> Builder<'a> {
    fn new(source: &'a Arc<Source>) -> Self {
        Self { source, stack: Vec::new(), anchors: HashMap::new(), weight: 0, root: None, problems: Vec::new() }
    }

    /// Takes one event; true at the end of the document.
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<bool, Box<Problem>> {
        let location = self.location(span);
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.charge(text.len(), &location)?;
                if self.takes_key(&text, style, &location) {
                    return Ok(false);
                }
                let mut node = read_scalar(&text, style, tag.as_deref(), location);
                if node.is_null() && text.is_empty() {
                    // An absent value has no place of its own.
                    node.location.length = 0;
                }
                self.value(node, anchor)?;
            }
            Event::SequenceStart(anchor, _) => self.open(anchor, location, Content::List(Vec::new()))?,
            Event::MappingStart(anchor, _) => {
                let content =
                    Content::Map { entries: Vec::new(), index: HashMap::new(), key: None, merged: Vec::new() };
                self.open(anchor, location, content)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(anchor) => {
                let Some(node) = self.anchors.get(&anchor).cloned() else {
                    return Err(Box::new(Problem::error("an alias inside its own anchor").at(&location, "")));
                };
                self.charge(weight(&node), &location)?;
                if self.stack.len() + depth(&node) > MAX_DEPTH {
                    return Err(too_deep(&location));
                }
                self.value(node, 0)?;
            }
            Event::DocumentEnd => return Ok(true),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) => {}
        }
        Ok(false)
    }

    /// If a key is due, takes `text` as one.
    fn takes_key(&mut self, text: &str, style: ScalarStyle, location: &Location) -> bool {
        match self.stack.last_mut() {
            Some(Frame { content: Content::Map { key: key @ None, .. }, .. }) => {
                *key = Some((text.to_owned(), location.clone(), style == ScalarStyle::Plain));
                true
            }
            _ => false,
        }
    }

    fn open(&mut self, anchor: usize, location: Location, content: Content) -> Result<(), Box<Problem>> {
        self.charge(0, &location)?;
        if let Some(Frame { content: Content::Map { key: None, .. }, .. }) = self.stack.last() {
            return Err(Box::new(self.complex_key(&location)));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(too_deep(&location));
        }
        self.stack.push(Frame { anchor, location, content });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Box<Problem>> {
        let Some(Frame { anchor, mut location, content }) = self.stack.pop() else { return Ok(()) };
        let tree = match content {
            Content::List(items) => Tree::List(items),
            Content::Map { mut entries, mut index, merged, .. } => {
                if let (0 | 1, Some((_, first, _))) = (location.length, entries.first()) {
                    location.length = first.length;
                }
                for (key, at, value) in merged.into_iter().flat_map(|node| match node.tree {
                    Tree::Map(entries) => entries,
                    _ => Vec::new(),
                }) {
                    if !index.contains_key(&key) {
                        index.insert(key.clone(), entries.len());
                        entries.push((key, at, value));
                    }
                }
                Tree::Map(entries)
            }
        };
        self.value(Node::new(tree, location), anchor)
    }

    /// Puts a finished value where it belongs.
    fn value(&mut self, node: Node, anchor: usize) -> Result<(), Box<Problem>> {
        if anchor != 0 {
            self.charge(weight(&node), &node.location)?;
            self.anchors.insert(anchor, node.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut frame.content {
            Content::List(items) => items.push(node),
            Content::Map { entries, index, key, merged } => {
                let Some((name, at, plain)) = key.take() else {
                    // Only an alias gets here without a key: a scalar anchor may be one.
                    match node.as_text() {
                        Some(text) => *key = Some((text.to_owned(), node.location.clone(), false)),
                        None => return Err(Box::new(self.complex_key(&node.location))),
                    }
                    return Ok(());
                };
                if plain && name == "<<" {
                    match &node.tree {
                        Tree::Map(_) => merged.push(node),
                        Tree::List(items) if items.iter().all(|item| matches!(item.tree, Tree::Map(_))) => {
                            merged.extend(items.iter().cloned());
                        }
                        _ => {
                            let message = format!("<< merges mappings, and this is {}", node.describe());
                            self.problems.push(Problem::error(message).at(&at, ""));
                        }
                    }
                    return Ok(());
                }
                match index.get(&name) {
                    Some(&first) => {
                        let first = &entries[first].1;
                        let message = format!("key {name:?} is already defined on line {}", first.line);
                        let problem = Problem::error(message).at(&at, "").relate(first, "first defined here");
                        self.problems.push(problem.suggest("defined again: keep one of the two"));
                    }
                    None => {
                        index.insert(name.clone(), entries.len());
                        entries.push((name, at, node));
                    }
                }
            }
        }
        Ok(())
    }

    fn charge(&mut self, bytes: usize, at: &Location) -> Result<(), Box<Problem>> {
        self.weight += 64 + bytes;
        if self.weight <= MAX_WEIGHT {
            return Ok(());
        }
        Err(Box::new(Problem::error("too much content: aliases multiply it beyond 64 MiB").at(at, "")))
    }

    fn location(&self, span: Span) -> Location {
        let length = if span.start.line() == span.end.line() {
            span.end.col().saturating_sub(span.start.col())
        } else {
            // Up to the end of the line.
            let line = self.source.line(span.start.line()).unwrap_or_default().trim_end();
            line.chars().count().saturating_sub(span.start.col())
        };
        Location { source: self.source.clone(), line: span.start.line().max(1), column: span.start.col() + 1, length }
    }

    fn complex_key(&self, at: &Location) -> Problem {
        let line = self.source.line(at.line).unwrap_or_default();
        Problem::error("a key must be text, not a mapping or a list").at(at, "").suggest_some(template_hint(line))
    }
}

fn too_deep(at: &Location) -> Box<Problem> {
    Box::new(Problem::error(format!("nested more than {MAX_DEPTH} levels deep")).at(at, ""))
}

pub(super) fn depth(node: &Node) -> usize {
    let children = node.items().iter().chain(node.entries().iter().map(|(.., value)| value));
    1 + children.map(depth).max().unwrap_or(0)
}

pub(super) fn weight(node: &Node) -> usize {
    let own = match &node.tree {
        Tree::Scalar(Scalar::String(text)) => text.len(),
        Tree::Map(entries) => entries.iter().map(|(key, ..)| key.len()).sum(),
        _ => 0,
    };
    let children = node.items().iter().chain(node.entries().iter().map(|(.., value)| value));
    64 + own + children.map(weight).sum::<usize>()
}

fn read_scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, location: Location) -> Node {
    let string = || Scalar::String(text.to_owned());
    let core = tag.filter(|tag| tag.is_yaml_core_schema()).map(|tag| tag.suffix.as_str());
    let value = match core {
        Some("str" | "binary") => string(),
        Some("null") => Scalar::Null,
        Some("float") => text.parse().map_or_else(|_| string(), Scalar::Float),
        Some("int" | "bool") => scalar::resolve(text),
        _ if style == ScalarStyle::Plain => scalar::resolve(text),
        _ => string(),
    };
    let original = if matches!(value, Scalar::String(_) | Scalar::Null) {
        Original::None
    } else {
        Original::Written(text.to_owned())
    };
    Node { tree: Tree::Scalar(value), location, original }
}

/// What the parser says, in words that help.
fn syntax_error(source: &Arc<Source>, error: &ScanError) -> Problem {
    let marker = error.marker();
    let line = marker.line().max(1);
    let column = marker.col() + 1;
    let at = |line, column, length| Location { source: source.clone(), line, column, length };
    let text = |number: usize| source.line(number).unwrap_or_default();

    // The fault that the parser meets is often one line below the one that causes it.
    for number in [line, line.saturating_sub(1)] {
        let indent: String = text(number).chars().take_while(|letter| letter.is_whitespace()).collect();
        if let Some(tab) = indent.find('\t') {
            let place = at(number, indent[..tab].chars().count() + 1, 1);
            return Problem::error("a tab in the indentation: YAML is indented with spaces only").at(&place, "");
        }
    }
    for number in [line, line.saturating_sub(1)] {
        if let Some(hint) = template_hint(text(number)) {
            return Problem::error(format!("not valid YAML: {}", error.info()))
                .at(&at(line, column, 1), "")
                .suggest(hint);
        }
    }
    for number in [line.saturating_sub(1), line] {
        let content = text(number).trim_start();
        let indent = text(number).chars().count() - content.chars().count();
        let entry = content.trim_start_matches("- ");
        let skipped = content.len() - entry.len();
        if let Some(fixed) = missing_space(entry.trim_end()) {
            let place = at(number, indent + skipped + 1, entry.trim_end().chars().count());
            return Problem::error("missing space after the colon").at(&place, "").suggest(format!("write `{fixed}`"));
        }
    }
    Problem::error(format!("not valid YAML: {}", error.info())).at(&at(line, column, 1), "")
}

fn template_hint(line: &str) -> Option<String> {
    line.contains("{{").then(|| "this looks like a template: render it first".to_owned())
}

/// `key: value` for a text like `key:value` that was meant to be an entry of a mapping.
pub(super) fn missing_space(text: &str) -> Option<String> {
    let (key, value) = text.split_once(':')?;
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let looks_like_key = key.starts_with(|first: char| first.is_ascii_lowercase()) && key.chars().all(is_name);
    let looks_like_value = !value.is_empty() && !value.starts_with([' ', '/', ':']) && !value.contains(": ");
    (looks_like_key && looks_like_value).then(|| format!("{key}: {value}"))
}
