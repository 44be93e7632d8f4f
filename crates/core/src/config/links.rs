//! What components share: extensions they refer to, and ports they listen on.

use std::collections::BTreeSet;

use super::gateway::{Definition, Kind, Loader, Section};
use super::pipelines::Reference;
use super::{ComponentId, Location, Node, Problem, Scalar, Tree};
use crate::pipeline::Pipeline;

/// Component types that listen at the `endpoint`s in their sections.
const LISTENERS: [(Section, &str); 6] = [
    (Section::Receivers, "otlp"),
    (Section::Receivers, "jaeger"),
    (Section::Receivers, "zipkin"),
    (Section::Exporters, "prometheus"),
    (Section::Extensions, "health_check"),
    (Section::Extensions, "zpages"),
];

/// Checks the components that are used.
pub(super) fn check(loader: &mut Loader<'_>, pipelines: &[Pipeline], extensions: &[ComponentId]) {
    let mut used: BTreeSet<(Section, ComponentId)> = BTreeSet::new();
    for pipeline in pipelines {
        used.extend(pipeline.receivers.iter().map(|id| (Section::Receivers, id.clone())));
        used.extend(pipeline.processors.iter().map(|id| (Section::Processors, id.clone())));
        used.extend(pipeline.exporters.iter().map(|id| (Section::Exporters, id.clone())));
    }
    used.extend(extensions.iter().map(|id| (Section::Extensions, id.clone())));

    let mut ports: Vec<Port> = Vec::new();
    for (section, id) in used {
        let Some(Definition { node, key }) = loader.definition(section, &id) else { continue };
        if !matches!(loader.kind(section, &id.kind), Kind::Built(_)) {
            continue;
        }
        let path = format!("{}.{id}", section.key());
        let mut found = Vec::new();
        collect(node, "", &path, &mut found);
        for reference in found {
            extension(loader, extensions, &reference);
        }
        if LISTENERS.contains(&(section, id.kind.as_str())) {
            listen(node, key, &path, &mut ports);
        }
    }
    for pipeline in pipelines {
        let behind = exporters_behind(loader, pipelines, pipeline);
        for processor in &pipeline.processors {
            durable_sampler(loader, pipeline, &behind, processor);
        }
    }
    for (index, port) in ports.iter().enumerate() {
        if let Some(other) = ports.iter().take(index).find(|other| other.clashes(port)) {
            let message = format!("{} and {} both listen on port {}", other.path, port.path, port.number);
            let problem = Problem::error(message).at(&port.location, &port.path);
            loader.diagnostics.push(problem.relate(&other.location, "the same port here"));
        }
    }
}

/// Finds `auth.authenticator`, `storage` and the `id`s of `middlewares` below `node`, whose key is `key`.
fn collect(node: &Node, key: &str, path: &str, found: &mut Vec<Reference>) {
    for (name, _, value) in node.entries() {
        let path = super::expand::join(path, name);
        let is_authenticator = key == "auth" && name == "authenticator";
        let is_storage = name == "storage" && matches!(key, "" | "sending_queue" | "queue");
        let is_middleware = key == "middlewares" && name == "id";
        if (is_authenticator || is_storage || is_middleware)
            && let Some(id) = value.as_text().and_then(|text| text.parse().ok())
        {
            found.push(Reference { id, location: value.location.clone(), path });
            continue;
        }
        collect(value, name, &path, found);
    }
    for (index, item) in node.items().iter().enumerate() {
        collect(item, key, &format!("{path}[{index}]"), found);
    }
}

fn extension(loader: &mut Loader<'_>, enabled: &[ComponentId], reference: &Reference) {
    let id = &reference.id;
    if enabled.contains(id) {
        return;
    }
    match loader.definition(Section::Extensions, id) {
        Some(Definition { key, .. }) => {
            let message = format!("extension \"{id}\" is defined but not enabled");
            let problem = Problem::error(message)
                .at(&reference.location, &reference.path)
                .suggest("add it to service.extensions")
                .relate(key, "defined here");
            loader.diagnostics.push(problem);
        }
        None => loader.undefined(format!("extension \"{id}\" is not defined"), Section::Extensions, reference),
    }
}

/// Exporters that queue in memory unless told otherwise.
const QUEUEING: [&str; 3] = ["otlp", "otlp_http", "otlphttp"];

/// The exporters that what leaves `pipeline` comes to, over connectors that pass it on too.
fn exporters_behind(loader: &Loader<'_>, pipelines: &[Pipeline], pipeline: &Pipeline) -> BTreeSet<ComponentId> {
    let signal = pipeline.signal;
    let mut found: BTreeSet<ComponentId> = BTreeSet::new();
    let mut waiting: Vec<&ComponentId> = pipeline.exporters.iter().collect();
    while let Some(id) = waiting.pop() {
        let passes_on = loader.definition(Section::Connectors, id).is_some()
            && loader.pairs(&id.kind).is_some_and(|pairs| pairs.contains(&(signal, signal)));
        if found.insert(id.clone()) && passes_on {
            let fed = pipelines.iter().filter(|fed| fed.signal == signal && fed.receivers.contains(id));
            waiting.extend(fed.flat_map(|fed| &fed.exporters));
        }
    }
    found
}

/// A sampler whose buffer survives the process needs exporters that do not acknowledge to their memory.
fn durable_sampler(loader: &mut Loader<'_>, pipeline: &Pipeline, exporters: &BTreeSet<ComponentId>, id: &ComponentId) {
    if id.kind != "tail_sampling" {
        return;
    }
    let Some(sampler) = loader.definition(Section::Processors, id) else { return };
    let Some(storage) = sampler.node.get("storage").filter(|storage| !storage.is_null()) else { return };
    let (name, location) = (storage.as_text().unwrap_or("file_storage").to_owned(), storage.location.clone());
    for exporter in exporters {
        let Some(Definition { node, key }) = loader.definition(Section::Exporters, exporter) else { continue };
        let queue = node.get("sending_queue").filter(|queue| !queue.is_null());
        let is = |key: &str, value: bool| {
            queue.and_then(|queue| queue.get(key)).is_some_and(|node| node.tree == Tree::Scalar(Scalar::Bool(value)))
        };
        let has_storage = queue.and_then(|queue| queue.get("storage")).is_some_and(|storage| !storage.is_null());
        let answers_itself = is("enabled", false) || is("wait_for_result", true);
        let has_queue = queue.is_some() || QUEUEING.contains(&exporter.kind.as_str());
        if has_storage || answers_itself || !has_queue {
            continue;
        }
        let message = format!(
            "pipeline \"{}\": exporter \"{exporter}\" queues in memory what this sampler has on disk: a crash would lose it",
            pipeline.id
        );
        let problem = Problem::error(message)
            .at(&location, format!("processors.{id}.storage"))
            .suggest(format!("write `sending_queue: {{storage: {name}}}` in exporters.{exporter}, or `sending_queue: {{enabled: false}}`"))
            .relate(key, "this exporter");
        loader.diagnostics.push(problem);
    }
}

struct Port {
    host: String,
    number: u16,
    location: Location,
    path: String,
}

impl Port {
    fn clashes(&self, other: &Self) -> bool {
        let is_any = |host: &str| matches!(host, "" | "0.0.0.0" | "::");
        let name = |host: &str| if host == "127.0.0.1" { "localhost".to_owned() } else { host.to_owned() };
        let same_host = name(&self.host) == name(&other.host) || is_any(&self.host) || is_any(&other.host);
        self.number == other.number && self.number != 0 && same_host
    }
}

/// Finds the `endpoint`s below `node`.
fn listen(node: &Node, key: &Location, path: &str, ports: &mut Vec<Port>) {
    for (name, at, value) in node.entries() {
        let path = super::expand::join(path, name);
        if name != "endpoint" || matches!(value.tree, Tree::Map(_)) {
            listen(value, at, &path, ports);
            continue;
        }
        let Some((host, number)) = value.as_text().and_then(|text| text.rsplit_once(':')) else { continue };
        let Ok(number) = number.parse() else { continue };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        ports.push(Port { host, number, location: value.place(key), path });
    }
}
