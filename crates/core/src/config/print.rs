//! The effective configuration as YAML.

use std::fmt::Write;

use super::gateway::GatewayConfig;
use super::problem::sounds_secret;
use super::{Location, Node, Scalar, Tree, scalar};

const REDACTED: &str = "\"[REDACTED]\"";

impl GatewayConfig {
    /// The configuration after merging and expansion, as YAML that can be loaded again. Unless
    /// `with_secrets`, headers and whatever is read as a secret, or sounds like one, is redacted.
    #[must_use]
    pub fn to_yaml(&self, with_secrets: bool) -> String {
        let mut printer =
            Printer { secrets: if with_secrets { None } else { Some(&self.secrets) }, out: String::new() };
        printer.children(&self.tree, 0, false);
        printer.out
    }
}

struct Printer<'a> {
    /// Places of secrets; `None` to print them.
    secrets: Option<&'a [Location]>,
    out: String,
}

impl Printer<'_> {
    /// The entries or items of `node`, each on lines of its own.
    fn children(&mut self, node: &Node, indent: usize, is_secret: bool) {
        for (key, _, value) in node.entries() {
            let is_secret = self.secrets.is_some() && (is_secret || key == "headers" || sounds_secret(key));
            self.pad(indent);
            self.out.push_str(&quoted(key));
            self.out.push(':');
            self.value(value, indent, is_secret);
        }
        for item in node.items() {
            self.pad(indent);
            self.out.push('-');
            self.value(item, indent, is_secret);
        }
    }

    /// What follows a key or a dash.
    fn value(&mut self, node: &Node, indent: usize, is_secret: bool) {
        match &node.tree {
            Tree::Scalar(_) => {
                let is_marked = self.secrets.is_some_and(|secrets| secrets.contains(&node.location));
                let text =
                    if (is_secret || is_marked) && !node.is_null() { REDACTED.to_owned() } else { written(node) };
                let _ = writeln!(self.out, "{}{text}", if text.is_empty() { "" } else { " " });
            }
            Tree::List(items) if items.is_empty() => self.out.push_str(" []\n"),
            Tree::Map(entries) if entries.is_empty() => self.out.push_str(" {}\n"),
            _ => {
                self.out.push('\n');
                self.children(node, indent + 2, is_secret);
            }
        }
    }

    fn pad(&mut self, indent: usize) {
        self.out.extend(std::iter::repeat_n(' ', indent));
    }
}

/// A scalar in YAML. A dollar sign is doubled, so that it is not expanded again.
fn written(node: &Node) -> String {
    match &node.tree {
        Tree::Scalar(Scalar::String(text)) => quoted(&text.replace('$', "$$")),
        Tree::Scalar(Scalar::Bool(value)) => value.to_string(),
        Tree::Scalar(Scalar::Int(value)) => value.to_string(),
        Tree::Scalar(Scalar::Float(value)) => format!("{value:?}"),
        _ => String::new(),
    }
}

/// `text` so that YAML reads it as text again: plain where that is safe.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.' | '/' | '$');
    let starts_plain =
        text.starts_with(|first: char| first.is_ascii_alphanumeric() || matches!(first, '/' | '_' | '$'));
    let reads_as_text = matches!(scalar::resolve(text), Scalar::String(_));
    if starts_plain
        && reads_as_text
        && text.chars().all(|letter| is_plain(letter) || letter == ':')
        && !text.ends_with(':')
    {
        return text.to_owned();
    }
    serde_json::to_string(text).unwrap_or_default()
}
