//! Where configuration comes from, and how several sources become one tree.

use std::io::Read;
use std::sync::Arc;

use super::{Diagnostics, Location, Node, Problem, Scalar, Source, Tree, yaml};

/// Looks an environment variable up.
pub type Environment = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the command line names: `--config` and `--set`.
#[derive(Clone)]
pub struct Sources {
    /// URIs, in order: `file:path`, a bare path, `env:NAME`, `yaml:text`.
    pub config: Vec<String>,
    /// `key.sub=value`, applied after all of `config`.
    pub set: Vec<String>,
    /// The environment; the process's own unless a test says otherwise.
    pub environment: Environment,
}

impl Sources {
    /// The sources of the process.
    #[must_use]
    pub fn new(config: Vec<String>, set: Vec<String>) -> Self {
        Self { config, set, environment: Arc::new(|name| std::env::var(name).ok()) }
    }
}

/// Reads and merges all sources; no `${...}` is expanded yet. `None` if one could not be read.
pub(super) fn read(sources: &Sources, diagnostics: &mut Diagnostics) -> Option<Node> {
    let mut root = Node::empty_map(Location::default());
    let mut complete = true;
    for uri in &sources.config {
        let read = retrieve(uri, &sources.environment).and_then(|source| read_one(&source, diagnostics));
        match read {
            Ok(node) => merge(&mut root, node),
            Err(problem) => {
                diagnostics.push(*problem);
                complete = false;
            }
        }
    }
    for setting in &sources.set {
        match read_setting(setting, diagnostics) {
            Ok(node) => merge(&mut root, node),
            Err(problem) => {
                diagnostics.push(*problem);
                complete = false;
            }
        }
    }
    complete.then_some(root)
}

fn retrieve(uri: &str, environment: &Environment) -> Result<Arc<Source>, Box<Problem>> {
    let failure = |message: String| Box::new(Problem::error(message));
    match scheme(uri) {
        Some(("env", name)) => match environment(name) {
            Some(text) => Ok(Source::new(uri, text)),
            None => Err(failure(format!("environment variable {name:?} is not set: --config {uri} finds nothing"))),
        },
        Some(("yaml", text)) => Ok(Source::new("yaml:", text)),
        Some(("file", path)) => read_file(path).map(|text| Source::new(path, text)).map_err(failure),
        Some((other, _)) if uri.contains("://") || matches!(other, "http" | "https") => {
            Err(failure(format!("cannot read {uri}: the schemes are file:, env: and yaml:")))
        }
        _ => read_file(uri).map(|text| Source::new(uri, text)).map_err(failure),
    }
}

/// Splits `scheme:rest`. A scheme has two characters at least, so that a drive letter is none.
pub(super) fn scheme(uri: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = uri.split_once(':')?;
    let mut letters = scheme.chars();
    let starts_well = letters.next()?.is_ascii_alphabetic();
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '.' | '-');
    (starts_well && scheme.len() > 1 && letters.all(is_part)).then_some((scheme, rest))
}

/// Reads a file of at most [`yaml::MAX_BYTES`].
pub(super) fn read_file(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let limit = yaml::MAX_BYTES as u64 + 1;
    let read = std::fs::File::open(path).and_then(|file| file.take(limit).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() > yaml::MAX_BYTES => Err(format!("{path:?} is larger than {} bytes", yaml::MAX_BYTES)),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot read {path:?}: {error}")),
    }
}

fn read_one(source: &Arc<Source>, diagnostics: &mut Diagnostics) -> Result<Node, Box<Problem>> {
    let document = yaml::parse(source)?;
    document.problems.into_iter().for_each(|problem| diagnostics.push(problem));
    let root = document.root;
    match root.tree {
        Tree::Map(_) => Ok(root),
        Tree::Scalar(Scalar::Null) => Ok(Node::empty_map(root.location)),
        _ => {
            let hint = root.as_text().and_then(yaml::missing_space).map(|fixed| format!("write `{fixed}`"));
            let message = format!("expected sections (receivers, exporters, service, ...), found {}", root.describe());
            Err(Box::new(Problem::error(message).at(&root.location, "").suggest_some(hint)))
        }
    }
}

/// `processors.batch.timeout=2s` as a tree.
fn read_setting(setting: &str, diagnostics: &mut Diagnostics) -> Result<Node, Box<Problem>> {
    let failure = |what: &str| {
        let message = format!("invalid value {setting:?} for flag -set: {what}");
        Box::new(Problem::error(message).suggest("write --set section.component.key=value"))
    };
    let (keys, value) = setting.split_once('=').ok_or_else(|| failure("missing equal sign"))?;
    let keys: Vec<&str> = keys.split("::").flat_map(|part| part.split('.')).map(str::trim).collect();
    if keys.iter().any(|key| key.is_empty()) || keys.len() > yaml::MAX_DEPTH / 2 {
        return Err(failure("the key has an empty part, or too many"));
    }

    let document = yaml::parse(&Source::new("--set", value))?;
    document.problems.into_iter().for_each(|problem| diagnostics.push(problem));
    let source = Source::new("--set", setting);
    let shift = setting.chars().count() - value.chars().count();
    let mut node = document.root;
    relocate(&mut node, &mut |location| {
        location.source = source.clone();
        location.column += if location.line == 1 { shift } else { 0 };
    });
    let whole = Location { source, line: 1, column: 1, length: shift.saturating_sub(1) };
    for key in keys.iter().rev() {
        node = Node::new(Tree::Map(vec![((*key).to_owned(), whole.clone(), node)]), whole.clone());
    }
    Ok(node)
}

fn relocate(node: &mut Node, change: &mut dyn FnMut(&mut Location)) {
    change(&mut node.location);
    match &mut node.tree {
        Tree::Scalar(_) => {}
        Tree::List(items) => items.iter_mut().for_each(|item| relocate(item, change)),
        Tree::Map(entries) => {
            for (_, key, value) in entries {
                change(key);
                relocate(value, change);
            }
        }
    }
}

/// Lays `over` on `base`: mappings merge by key, everything else (null too) replaces.
pub(super) fn merge(base: &mut Node, over: Node) {
    let Tree::Map(new) = over.tree else {
        *base = over;
        return;
    };
    let Tree::Map(old) = &mut base.tree else {
        *base = Node { tree: Tree::Map(new), ..over };
        return;
    };
    for (key, at, value) in new {
        match old.iter_mut().find(|(name, ..)| *name == key) {
            Some((_, place, existing)) => {
                *place = at;
                merge(existing, value);
            }
            None => old.push((key, at, value)),
        }
    }
}
