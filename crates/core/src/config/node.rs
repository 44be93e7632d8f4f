//! The located tree.

use super::Location;

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

/// The text that a value was read from, where that matters.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Original {
    /// The value says it all.
    #[default]
    None,
    /// A scalar that was written in the file and reads as something other than text: `0123`.
    Written(String),
    /// What a `${...}` reference brought: a text field takes it as it is, whatever it reads as.
    Referenced(String),
}

/// A value with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The value.
    pub tree: Tree,
    /// Where it was written.
    pub location: Location,
    /// The text it was read from.
    pub original: Original,
}

impl Default for Node {
    fn default() -> Self {
        Self::new(Tree::Scalar(Scalar::Null), Location::default())
    }
}

impl Node {
    /// A value at a place.
    #[must_use]
    pub fn new(tree: Tree, location: Location) -> Self {
        Self { tree, location, original: Original::None }
    }

    /// An empty mapping.
    pub(crate) fn empty_map(location: Location) -> Self {
        Self::new(Tree::Map(Vec::new()), location)
    }

    /// Whether it is null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self.tree, Tree::Scalar(Scalar::Null))
    }

    /// The text that a text field gets from it.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        match (&self.original, &self.tree) {
            (Original::Referenced(text), _) | (_, Tree::Scalar(Scalar::String(text))) => Some(text),
            _ => None,
        }
    }

    /// The text as it was written, for messages and for printing.
    pub(crate) fn written(&self) -> Option<&str> {
        match &self.original {
            Original::Written(text) => Some(text),
            _ => self.as_text(),
        }
    }

    /// Its entries if it is a mapping, otherwise none.
    #[must_use]
    pub fn entries(&self) -> &[(String, Location, Node)] {
        match &self.tree {
            Tree::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Its items if it is a list, otherwise none.
    #[must_use]
    pub fn items(&self) -> &[Node] {
        match &self.tree {
            Tree::List(items) => items,
            _ => &[],
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The value of `key`, and where the key is.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<(&Location, &Node)> {
        self.entries().iter().find(|(name, ..)| name == key).map(|(_, at, value)| (at, value))
    }

    /// The place to point at for `path` (keys, and indices of lists): the value at its end if it is
    /// a scalar, otherwise the key; of the deepest part of the path that exists. `key` is where the
    /// node itself is named.
    #[must_use]
    pub fn locate<S: AsRef<str>>(&self, path: &[S], key: &Location) -> Location {
        let mut node = self;
        let mut place = node.place(key);
        for part in path {
            let part = part.as_ref();
            let next = match &node.tree {
                Tree::Map(_) => node.entry(part),
                Tree::List(items) => {
                    part.parse().ok().and_then(|index: usize| items.get(index)).map(|item| (&item.location, item))
                }
                Tree::Scalar(_) => None,
            };
            let Some((at, child)) = next else { break };
            node = child;
            place = node.place(at);
        }
        place
    }

    /// The place to point at for this node, whose key is at `key`.
    pub(crate) fn place(&self, key: &Location) -> Location {
        match &self.tree {
            Tree::Scalar(scalar) if *scalar != Scalar::Null && self.location.is_known() => self.location.clone(),
            _ if key.is_known() => key.clone(),
            _ => self.location.clone(),
        }
    }

    /// Whether it holds the same values as `other`, wherever they were written: what a reload asks.
    #[must_use]
    pub fn same_values(&self, other: &Node) -> bool {
        self.as_text() == other.as_text()
            && match (&self.tree, &other.tree) {
                (Tree::Scalar(one), Tree::Scalar(two)) => one == two,
                (Tree::List(one), Tree::List(two)) => {
                    one.len() == two.len() && one.iter().zip(two).all(|(one, two)| one.same_values(two))
                }
                (Tree::Map(one), Tree::Map(two)) => {
                    let in_other = |(key, _, value): &(String, Location, Node)| {
                        other.get(key).is_some_and(|two| value.same_values(two))
                    };
                    one.len() == two.len() && one.iter().all(in_other)
                }
                _ => false,
            }
    }

    /// What it is, in a message: `the integer 5`, `a list`.
    pub(crate) fn describe(&self) -> String {
        let text = || self.written().map(shorten);
        match &self.tree {
            Tree::Scalar(Scalar::Null) => "nothing".to_owned(),
            Tree::Scalar(Scalar::Bool(value)) => format!("the boolean {}", text().unwrap_or_else(|| value.to_string())),
            Tree::Scalar(Scalar::Int(value)) => format!("the integer {}", text().unwrap_or_else(|| value.to_string())),
            Tree::Scalar(Scalar::Float(value)) => format!("the number {}", text().unwrap_or_else(|| value.to_string())),
            Tree::Scalar(Scalar::String(value)) => format!("the text {:?}", shorten(value)),
            Tree::List(_) => "a list".to_owned(),
            Tree::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// `text` cut to what fits into a message.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 60;
    if text.chars().count() <= MOST {
        return text.to_owned();
    }
    text.chars().take(MOST).chain(['.', '.', '.']).collect()
}
