//! Connectors: ids, both ends, and loops.

use std::collections::{BTreeMap, BTreeSet};

use super::gateway::{Loader, Section};
use super::{ComponentId, Problem};
use crate::batch::Signal;
use crate::pipeline::Pipeline;

/// Checks the connectors that are defined against the pipelines.
pub(super) fn check(loader: &mut Loader<'_>, pipelines: &[Pipeline]) {
    let Some(connectors) = loader.definitions.get(&Section::Connectors).cloned() else { return };
    for (id, definition) in &connectors {
        let path = format!("connectors.{id}");
        for section in [Section::Receivers, Section::Exporters] {
            let Some(other) = loader.definition(section, id) else { continue };
            let noun = section.noun();
            let message = format!(
                "connectors::{id}: ambiguous ID: Found both \"{id}\" {noun} and \"{id}\" connector. Change one of the \
                 components' IDs to eliminate ambiguity (e.g. rename \"{id}\" connector to \"{id}/connector\")"
            );
            let problem = Problem::error(message).at(definition.key, &path);
            loader.diagnostics.push(problem.relate(other.key, format!("the {noun} of the same name")));
        }
        for message in loose_ends(id, loader.pairs(&id.kind), pipelines) {
            let hint = loader.pairs(&id.kind).map(|pairs| {
                let pairs = pairs.iter().map(|(from, to)| format!("{} to {}", from.name(), to.name()));
                format!("it connects {}", pairs.collect::<Vec<_>>().join(", "))
            });
            loader.diagnostics.push(Problem::error(message).at(definition.key, &path).suggest_some(hint));
        }
    }
    let is_connection = |id: &ComponentId, from: Signal, to: Signal| {
        connectors.contains_key(id) && loader.pairs(&id.kind).is_none_or(|pairs| pairs.contains(&(from, to)))
    };
    if let Some(cycle) = find_cycle(pipelines, &is_connection) {
        let names: Vec<String> = cycle
            .iter()
            .map(|(connector, pipeline)| format!("connector \"{connector}\" -> pipeline \"{pipeline}\""))
            .collect();
        let first = cycle[0].0;
        let message = format!("cycle detected: {} -> connector \"{first}\"", names.join(" -> "));
        if let Some(definition) = connectors.get(first) {
            loader.diagnostics.push(Problem::error(message).at(definition.key, format!("connectors.{first}")));
        }
    }
}

/// What is wrong with the ends of the connector `id`, which makes `pairs` (any, if that is not known).
fn loose_ends(id: &ComponentId, pairs: Option<&[(Signal, Signal)]>, pipelines: &[Pipeline]) -> Vec<String> {
    let connects = |from: Signal, to: Signal| pairs.is_none_or(|pairs| pairs.contains(&(from, to)));
    let users = |signal: Signal, ids: fn(&Pipeline) -> &[ComponentId]| {
        let of_signal = pipelines.iter().filter(move |pipeline| pipeline.signal == signal);
        of_signal.filter(|pipeline| ids(pipeline).contains(id)).map(|one| one.id.to_string()).collect::<Vec<_>>()
    };
    let leading = |signal| users(signal, |pipeline| &pipeline.exporters);
    let led_to = |signal| users(signal, |pipeline| &pipeline.receivers);
    let mut messages = Vec::new();
    for signal in Signal::ALL {
        let (there, other) = (leading(signal), Signal::ALL.into_iter());
        if !there.is_empty() && !other.clone().any(|to| connects(signal, to) && !led_to(to).is_empty()) {
            messages.push(format!(
                "connector \"{id}\" used as exporter in [{}] pipeline but not used in any supported receiver pipeline",
                there.join(" ")
            ));
        }
        let there = led_to(signal);
        if !there.is_empty() && !other.clone().any(|from| connects(from, signal) && !leading(from).is_empty()) {
            messages.push(format!(
                "connector \"{id}\" used as receiver in [{}] pipeline but not used in any supported exporter pipeline",
                there.join(" ")
            ));
        }
    }
    messages
}

/// A connector where it begins pipelines of a signal.
type Place<'a> = (&'a ComponentId, Signal);

/// The first loop of connectors and the pipelines they feed.
fn find_cycle<'a>(
    pipelines: &'a [Pipeline],
    is_connection: &dyn Fn(&ComponentId, Signal, Signal) -> bool,
) -> Option<Vec<(&'a ComponentId, &'a ComponentId)>> {
    // From a place, through each pipeline that begins there, to the places that the pipeline leads to.
    let mut next: BTreeMap<Place<'_>, Vec<(&ComponentId, Place<'_>)>> = BTreeMap::new();
    for pipeline in pipelines {
        for from in &pipeline.receivers {
            for to in &pipeline.exporters {
                for signal in Signal::ALL.into_iter().filter(|&signal| is_connection(to, pipeline.signal, signal)) {
                    next.entry((from, pipeline.signal)).or_default().push((&pipeline.id, (to, signal)));
                }
            }
        }
    }
    let mut cleared: BTreeSet<Place<'_>> = BTreeSet::new();
    for &start in next.keys() {
        // Depth first without recursion; `path` is the way from `start`, each step with its next edge.
        let mut path: Vec<(Place<'_>, usize)> = vec![(start, 0)];
        while let Some(&mut (at, ref mut edge)) = path.last_mut() {
            let step = next.get(&at).and_then(|edges| edges.get(*edge)).copied();
            *edge += 1;
            let Some((_, to)) = step else {
                cleared.insert(at);
                path.pop();
                continue;
            };
            if let Some(begin) = path.iter().position(|(place, _)| *place == to) {
                let steps = path[begin..].iter().filter_map(|(place, edge)| {
                    let (pipeline, _) = next.get(place)?.get(edge - 1)?;
                    Some((place.0, *pipeline))
                });
                return Some(steps.collect());
            }
            if !cleared.contains(&to) {
                path.push((to, 0));
            }
        }
    }
    None
}
