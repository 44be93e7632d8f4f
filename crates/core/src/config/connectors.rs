//! Connectors: ids, both ends, and loops. None is built yet, but a configuration that would be wrong
//! with them is told so at once.

use std::collections::{BTreeMap, BTreeSet};

use super::gateway::{Definitions, Section};
use super::{ComponentId, Diagnostics, Problem};
use crate::pipeline::Pipeline;

/// Checks the connectors that are defined against the pipelines.
pub(super) fn check(definitions: &Definitions<'_>, pipelines: &[Pipeline], diagnostics: &mut Diagnostics) {
    let Some(connectors) = definitions.get(&Section::Connectors) else { return };
    for (id, definition) in connectors {
        let path = format!("connectors.{id}");
        for section in [Section::Receivers, Section::Exporters] {
            let Some(other) = definitions.get(&section).and_then(|definitions| definitions.get(id)) else { continue };
            let noun = section.noun();
            let message = format!(
                "connectors::{id}: ambiguous ID: Found both \"{id}\" {noun} and \"{id}\" connector. Change one of the \
                 components' IDs to eliminate ambiguity (e.g. rename \"{id}\" connector to \"{id}/connector\")"
            );
            let problem = Problem::error(message).at(definition.key, &path);
            diagnostics.push(problem.relate(other.key, format!("the {noun} of the same name")));
        }
        let names = |uses: &dyn Fn(&Pipeline) -> bool| {
            let names: Vec<String> = pipelines.iter().filter(|one| uses(one)).map(|one| one.id.to_string()).collect();
            names.join(" ")
        };
        let as_exporter = names(&|pipeline| pipeline.exporters.contains(id));
        let as_receiver = names(&|pipeline| pipeline.receivers.contains(id));
        let message = match (as_exporter.as_str(), as_receiver.as_str()) {
            ("", "") => continue,
            (there, "") => format!(
                "connector \"{id}\" used as exporter in [{there}] pipeline but not used in any supported receiver pipeline"
            ),
            ("", there) => format!(
                "connector \"{id}\" used as receiver in [{there}] pipeline but not used in any supported exporter pipeline"
            ),
            _ => continue,
        };
        diagnostics.push(Problem::error(message).at(definition.key, &path));
    }
    if let Some(cycle) = find_cycle(connectors.keys(), pipelines) {
        let names: Vec<String> = cycle
            .iter()
            .map(|(connector, pipeline)| format!("connector \"{connector}\" -> pipeline \"{pipeline}\""))
            .collect();
        let first = &cycle[0].0;
        let message = format!("cycle detected: {} -> connector \"{first}\"", names.join(" -> "));
        if let Some(definition) = connectors.get(first) {
            diagnostics.push(Problem::error(message).at(definition.key, format!("connectors.{first}")));
        }
    }
}

/// The first loop of connectors and the pipelines they feed.
fn find_cycle<'a>(
    connectors: impl Iterator<Item = &'a ComponentId>,
    pipelines: &'a [Pipeline],
) -> Option<Vec<(&'a ComponentId, &'a ComponentId)>> {
    let connectors: BTreeSet<&ComponentId> = connectors.collect();
    // From a connector, through each pipeline it feeds, to the connectors that the pipeline feeds.
    let mut next: BTreeMap<&ComponentId, Vec<(&ComponentId, &ComponentId)>> = BTreeMap::new();
    for pipeline in pipelines {
        for from in pipeline.receivers.iter().filter(|id| connectors.contains(id)) {
            for to in pipeline.exporters.iter().filter(|id| connectors.contains(id)) {
                next.entry(from).or_default().push((&pipeline.id, to));
            }
        }
    }
    let mut cleared: BTreeSet<&ComponentId> = BTreeSet::new();
    for &start in &connectors {
        // Depth first without recursion; `path` is the way from `start`, each step with its next edge.
        let mut path: Vec<(&ComponentId, usize)> = vec![(start, 0)];
        while let Some(&mut (at, ref mut edge)) = path.last_mut() {
            let step = next.get(at).and_then(|edges| edges.get(*edge)).copied();
            *edge += 1;
            let Some((_, to)) = step else {
                cleared.insert(at);
                path.pop();
                continue;
            };
            if let Some(begin) = path.iter().position(|(id, _)| *id == to) {
                let steps = path[begin..].iter().filter_map(|(id, edge)| {
                    let (pipeline, _) = next.get(id)?.get(edge - 1)?;
                    Some((*id, *pipeline))
                });
                return Some(steps.collect());
            }
            if !cleared.contains(to) {
                path.push((to, 0));
            }
        }
    }
    None
}
