//! `service.pipelines`: who feeds whom.

use super::expand::join;
use super::gateway::{Definition, Kind, Loader, Section};
use super::problem::did_you_mean;
use super::{ComponentId, Location, Node, Problem, Tree};
use crate::batch::Signal;
use crate::pipeline::Pipeline;

/// A component's id where it is used.
#[derive(Debug, Clone)]
pub(super) struct Reference {
    pub(super) id: ComponentId,
    pub(super) location: Location,
    pub(super) path: String,
}

/// The ids in a list, or in a text with commas. What is no id has been reported by the decoder.
pub(super) fn references(node: &Node, path: &str) -> Vec<Reference> {
    let mut found = Vec::new();
    let mut take = |text: &str, location: &Location, path: String| {
        found.extend(text.parse().ok().map(|id| Reference { id, location: location.clone(), path }));
    };
    match &node.tree {
        Tree::List(items) => {
            for (index, item) in items.iter().enumerate() {
                take(item.as_text().unwrap_or_default(), &item.location, format!("{path}[{index}]"));
            }
        }
        _ => {
            for piece in node.as_text().unwrap_or_default().split(',').filter(|piece| !piece.trim().is_empty()) {
                take(piece, &node.location, path.to_owned());
            }
        }
    }
    found
}

/// Reads the pipelines, and checks what they refer to.
pub(super) fn read(loader: &mut Loader<'_>) -> Vec<Pipeline> {
    let tree = loader.tree;
    let Some((service_key, service)) = tree.entry("service") else { return Vec::new() };
    let section = service.entry("pipelines");
    let entries = section.map(|(_, node)| node.entries()).unwrap_or_default();
    // A section of another type has been reported by the decoder.
    let is_empty = section.is_none_or(|(_, node)| node.is_null() || matches!(node.tree, Tree::Map(_)));
    if entries.is_empty() && is_empty {
        let at = section.map_or(service_key, |(key, _)| key);
        let problem = Problem::error("service must have at least one pipeline").at(at, "service.pipelines");
        loader.diagnostics.push(problem.suggest("write traces: {receivers: [...], exporters: [...]}"));
    }
    let mut pipelines: Vec<Pipeline> = Vec::new();
    for (name, key, node) in entries {
        let path = join("service.pipelines", name);
        let id: ComponentId = match name.parse() {
            Ok(id) => id,
            Err(message) => {
                loader.diagnostics.push(Problem::error(message).at(key, path));
                continue;
            }
        };
        let Some(signal) = signal(loader, &id, key, &path) else { continue };
        if pipelines.iter().any(|pipeline| pipeline.id == id) {
            let message = format!("duplicate name \"{id}\" after unmarshaling \"pipelines\"");
            loader.diagnostics.push(Problem::error(message).at(key, path));
            continue;
        }
        pipelines.push(pipeline(loader, id, signal, key, node, &path));
    }
    pipelines
}

fn signal(loader: &mut Loader<'_>, id: &ComponentId, key: &Location, path: &str) -> Option<Signal> {
    let signal = Signal::ALL.into_iter().find(|signal| signal.name() == id.kind);
    if signal.is_none() {
        let problem = if id.kind == "profiles" {
            Problem::error("profiles: not yet").suggest("the signals are traces, metrics and logs")
        } else {
            let hint = did_you_mean(&id.kind, Signal::ALL.iter().map(|signal| signal.name()));
            Problem::error(format!("{:?} is not a signal: the signals are traces, metrics and logs", id.kind))
                .suggest_some(hint)
        };
        loader.diagnostics.push(problem.at(key, path));
    }
    signal
}

fn pipeline(
    loader: &mut Loader<'_>,
    id: ComponentId,
    signal: Signal,
    key: &Location,
    node: &Node,
    path: &str,
) -> Pipeline {
    let mut pipeline = Pipeline { id, signal, receivers: Vec::new(), processors: Vec::new(), exporters: Vec::new() };
    for section in [Section::Receivers, Section::Processors, Section::Exporters] {
        let list = node.entry(section.key());
        let list_path = join(path, section.key());
        let references = list.map(|(_, node)| references(node, &list_path)).unwrap_or_default();
        let must_have = section != Section::Processors;
        let is_wrong_type = list.is_some_and(|(_, node)| matches!(node.tree, Tree::Map(_)))
            || (!node.is_null() && !matches!(node.tree, Tree::Map(_)));
        if must_have && references.is_empty() && !is_wrong_type {
            let message = format!("service::pipelines::{}: must have at least one {}", pipeline.id, section.noun());
            let at = list.map_or(key, |(at, _)| at);
            loader.diagnostics.push(Problem::error(message).at(at, list_path));
        }
        let ids = match section {
            Section::Receivers => &mut pipeline.receivers,
            Section::Processors => &mut pipeline.processors,
            _ => &mut pipeline.exporters,
        };
        for reference in references {
            if ids.contains(&reference.id) {
                // The same receiver or exporter twice is one, as in the Collector.
                if section == Section::Processors {
                    let message = format!(
                        "service::pipelines::{}: references processor \"{}\" multiple times",
                        pipeline.id, reference.id
                    );
                    loader.diagnostics.push(Problem::error(message).at(&reference.location, reference.path));
                }
                continue;
            }
            if resolve(loader, &pipeline.id, signal, section, &reference) {
                ids.push(reference.id);
            }
        }
    }
    pipeline
}

/// Whether `reference` leads somewhere.
fn resolve(
    loader: &mut Loader<'_>,
    pipeline: &ComponentId,
    signal: Signal,
    section: Section,
    reference: &Reference,
) -> bool {
    let noun = section.noun();
    let id = &reference.id;
    if loader.definition(section, id).is_none() {
        let may_be_connector = section != Section::Processors;
        if may_be_connector && loader.definition(Section::Connectors, id).is_some() {
            return true;
        }
        let message = format!("service::pipelines::{pipeline}: references {noun} \"{id}\" which is not configured");
        loader.undefined(message, section, reference);
        return false;
    }
    if let Kind::Built(info) = loader.kind(section, &id.kind)
        && !info.signals.contains(&signal)
    {
        let signals: Vec<&str> = info.signals.iter().map(|signal| signal.name()).collect();
        let message = format!("service::pipelines::{pipeline}: {noun} \"{id}\" does not support {}", signal.name());
        let hint = format!("it takes {}", signals.join(", "));
        let problem = Problem::error(message).at(&reference.location, &reference.path).suggest(hint);
        let problem = match loader.definition(section, id) {
            Some(Definition { key, .. }) => problem.relate(key, "defined here"),
            None => problem,
        };
        loader.diagnostics.push(problem);
    }
    true
}
