//! From the whole tree to what a gateway is built from.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::expand::{self, join};
use super::known::Known;
use super::problem::{did_you_mean, nearest};
use super::service::{ServiceSection, TelemetryConfig};
use super::{
    ComponentId, Diagnostics, Location, Node, Problem, Sources, connectors, decode, known, links, pipelines, source,
};
use crate::batch::Signal;
use crate::component::{BuildError, Info, Parse, Registry};
use crate::pipeline::{ComponentKind, Plan, PlannedConnector};

/// The sections of a configuration that define components.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Receivers,
    Processors,
    Exporters,
    Connectors,
    Extensions,
}

impl Section {
    pub(super) const ALL: [Self; 5] =
        [Self::Receivers, Self::Processors, Self::Exporters, Self::Connectors, Self::Extensions];

    /// The section's key.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Receivers => "receivers",
            Self::Processors => "processors",
            Self::Exporters => "exporters",
            Self::Connectors => "connectors",
            Self::Extensions => "extensions",
        }
    }

    /// What one of it is called.
    pub(super) fn noun(self) -> &'static str {
        self.key().trim_end_matches('s')
    }
}

/// A configuration that is valid as far as it can be told without building the components.
pub struct GatewayConfig {
    /// The components and how they are connected.
    pub plan: Plan,
    /// The gateway's own logs and metrics.
    pub telemetry: TelemetryConfig,
    /// What deserves a word.
    pub warnings: Vec<Problem>,
    /// The merged and expanded tree.
    pub(super) tree: Node,
    /// Where the values are that were read as secrets.
    pub(super) secrets: Vec<Location>,
}

impl GatewayConfig {
    /// An error of building the component `id`, at its place in the configuration.
    #[must_use]
    pub fn problem(&self, kind: ComponentKind, id: &ComponentId, error: &BuildError) -> Problem {
        let (key, node) = self.section(kind, id).unwrap_or_default();
        let path = error.path.iter().fold(format!("{}.{id}", kind.section()), |path, part| join(&path, part));
        Problem::error(error.message.clone()).at(&node.locate(&error.path, &key), path)
    }

    /// Whether the component `id` is configured the same in `other`: a reload keeps it then.
    #[must_use]
    pub fn is_same(&self, other: &Self, kind: ComponentKind, id: &ComponentId) -> bool {
        match (self.section(kind, id), other.section(kind, id)) {
            (Some((_, one)), Some((_, two))) => one.same_values(&two),
            _ => false,
        }
    }

    fn section(&self, kind: ComponentKind, id: &ComponentId) -> Option<(Location, Node)> {
        let entries = self.tree.get(kind.section())?.entries();
        let (_, at, node) = entries.iter().find(|(key, ..)| key.parse().is_ok_and(|own: ComponentId| own == *id))?;
        Some((at.clone(), node.clone()))
    }
}

/// Reads, merges, expands, decodes and checks a configuration.
///
/// # Errors
/// Everything that is wrong with it, with the warnings.
pub fn load(sources: &Sources, registry: &Registry) -> Result<GatewayConfig, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let config = load_into(sources, registry, &mut diagnostics);
    diagnostics.sort();
    match config {
        Some(mut config) if diagnostics.errors.is_empty() => {
            config.warnings = diagnostics.warnings;
            Ok(config)
        }
        _ => Err(diagnostics),
    }
}

fn load_into(sources: &Sources, registry: &Registry, diagnostics: &mut Diagnostics) -> Option<GatewayConfig> {
    let mut tree = source::read(sources, diagnostics)?;
    expand::expand(&mut tree, &sources.environment, diagnostics);
    let mut loader = Loader { registry, definitions: BTreeMap::new(), tree: &tree, diagnostics };
    if tree.entries().is_empty() {
        loader.diagnostics.push(Problem::error("empty configuration file"));
        return None;
    }
    loader.sections();
    let telemetry = loader.service();

    let pipelines = pipelines::read(&mut loader);
    connectors::check(&mut loader, &pipelines);
    let extensions = loader.extensions();
    links::check(&mut loader, &pipelines, &extensions);

    let mut used: BTreeMap<Section, BTreeSet<ComponentId>> = BTreeMap::new();
    for pipeline in &pipelines {
        for (section, ids) in [
            (Section::Receivers, &pipeline.receivers),
            (Section::Processors, &pipeline.processors),
            (Section::Exporters, &pipeline.exporters),
        ] {
            used.entry(section).or_default().extend(ids.iter().cloned());
        }
        let ends = pipeline.exporters.iter().chain(&pipeline.receivers);
        used.entry(Section::Connectors).or_default().extend(ends.cloned());
    }
    used.entry(Section::Extensions).or_default().extend(extensions.iter().cloned());
    let mut used_of = |section| used.remove(&section).unwrap_or_default();

    let receivers = loader.decode(Section::Receivers, &used_of(Section::Receivers), |registry: &Registry, kind| {
        find(&registry.receivers, kind, Section::Receivers, |factory| (factory.info, factory.parse))
    });
    let processors = loader.decode(Section::Processors, &used_of(Section::Processors), |registry: &Registry, kind| {
        find(&registry.processors, kind, Section::Processors, |factory| (factory.info, factory.parse))
    });
    let exporters = loader.decode(Section::Exporters, &used_of(Section::Exporters), |registry: &Registry, kind| {
        find(&registry.exporters, kind, Section::Exporters, |factory| (factory.info, factory.parse))
    });
    let connectors = loader.decode(Section::Connectors, &used_of(Section::Connectors), |registry: &Registry, kind| {
        find(&registry.connectors, kind, Section::Connectors, |factory| (factory.info, factory.parse))
    });
    let connectors = connectors.into_iter().map(|(id, config)| {
        let pairs = loader.pairs(&id.kind).unwrap_or_default();
        (id, PlannedConnector { pairs, config })
    });
    let connectors = connectors.collect();
    let mut decoded = loader.decode(Section::Extensions, &used_of(Section::Extensions), |registry: &Registry, kind| {
        find(&registry.extensions, kind, Section::Extensions, |factory| (factory.info, factory.parse))
    });
    let extensions = extensions.into_iter().filter_map(|id| decoded.remove_entry(&id)).collect();

    let secrets = std::mem::take(&mut diagnostics.secrets);
    let plan = Plan { extensions, receivers, processors, exporters, connectors, pipelines };
    Some(GatewayConfig { plan, telemetry, warnings: Vec::new(), tree, secrets })
}

/// The factory that `kind` names, by one of its own names or by another spelling of one of them.
fn find<F, C: ?Sized>(
    factories: &[F],
    kind: &str,
    section: Section,
    parts: impl Fn(&F) -> (Info, Parse<C>),
) -> Option<(Info, Parse<C>)> {
    let has_name =
        |name: &str| factories.iter().map(&parts).find(|(info, _)| info.name == name || info.aliases.contains(&name));
    let other_spellings = || known::find(section, kind)?.names.iter().find_map(|name| has_name(name));
    // The debug exporter took the place of logging, and most of its keys.
    let successor = || if kind == "logging" && section == Section::Exporters { has_name("debug") } else { None };
    has_name(kind).or_else(other_spellings).or_else(successor)
}

/// What a type is, so far as it is known.
pub(super) enum Kind {
    Built(Info),
    NotYet(&'static Known),
    Unknown,
}

/// A component as its section defines it.
#[derive(Clone, Copy)]
pub(super) struct Definition<'a> {
    pub(super) key: &'a Location,
    pub(super) node: &'a Node,
}

pub(super) type Definitions<'a> = BTreeMap<Section, BTreeMap<ComponentId, Definition<'a>>>;

/// The work in progress.
pub(super) struct Loader<'a> {
    pub(super) registry: &'a Registry,
    pub(super) tree: &'a Node,
    pub(super) definitions: Definitions<'a>,
    pub(super) diagnostics: &'a mut Diagnostics,
}

impl<'a> Loader<'a> {
    /// Takes the top level apart.
    fn sections(&mut self) {
        let keys = || Section::ALL.iter().map(|section| section.key()).chain(["service"]);
        let tree = self.tree;
        for (key, at, node) in tree.entries() {
            let section_of = |key: &str| Section::ALL.into_iter().find(|section| section.key() == key);
            if let Some(section) = section_of(key) {
                self.define(section, at, node);
            } else if key != "service" {
                // What a misspelt section defines is there all the same: one error is enough.
                let meant = nearest(key, keys()).and_then(section_of);
                if let Some(meant) = meant.filter(|meant| tree.get(meant.key()).is_none()) {
                    self.define(meant, at, node);
                }
                let message = format!("unknown section {key:?}");
                let hint = did_you_mean(key, keys())
                    .unwrap_or_else(|| format!("the sections are {}", keys().collect::<Vec<_>>().join(", ")));
                self.diagnostics.push(Problem::error(message).at(at, key.as_str()).suggest(hint));
            }
        }
        for section in [Section::Receivers, Section::Exporters] {
            // A misspelt section is already reported.
            let is_absent = self.definitions.get(&section).is_none_or(BTreeMap::is_empty);
            if is_absent && self.diagnostics.errors.is_empty() {
                let noun = section.noun();
                let message = format!("no {noun} configuration specified in config");
                let hint = format!("add a {} section", section.key());
                let (at, path) = match tree.entry(section.key()) {
                    Some((at, _)) => (at.clone(), section.key()),
                    None => (Location::default(), ""),
                };
                self.diagnostics.push(Problem::error(message).at(&at, path).suggest(hint));
            }
        }
    }

    /// Takes a section apart, whose key is at `at`.
    fn define(&mut self, section: Section, at: &Location, node: &'a Node) {
        if !node.is_null() && !matches!(node.tree, super::Tree::Map(_)) {
            let message = format!("expected {} by id, found {}", section.key(), node.describe());
            let place = node.place(at);
            self.diagnostics.push(Problem::error(message).at(&place, section.key()));
            return;
        }
        let mut definitions: BTreeMap<ComponentId, Definition<'a>> = BTreeMap::new();
        for (name, key, node) in node.entries() {
            let path = join(section.key(), name);
            let id: ComponentId = match name.parse() {
                Ok(id) => id,
                Err(message) => {
                    self.diagnostics.push(Problem::error(message).at(key, path));
                    continue;
                }
            };
            if let Some(first) = definitions.get(&id) {
                let message = format!("duplicate name \"{id}\" after unmarshaling {:?}", section.noun());
                self.diagnostics.push(Problem::error(message).at(key, path).relate(first.key, "first defined here"));
                continue;
            }
            definitions.insert(id, Definition { key, node });
        }
        self.definitions.insert(section, definitions);
    }

    /// Decodes `service`; references in it are followed elsewhere.
    fn service(&mut self) -> TelemetryConfig {
        let Some((key, node)) = self.tree.entry("service") else {
            if self.diagnostics.errors.is_empty() {
                let problem = Problem::error("service must have at least one pipeline");
                self.diagnostics.push(problem.suggest("add service.pipelines"));
            }
            return TelemetryConfig::default();
        };
        let read = |diagnostics: &mut Diagnostics| decode::<ServiceSection>(node, diagnostics);
        let section = self.diagnostics.within("service".to_owned(), key, read);
        section.map_or_else(TelemetryConfig::default, |section| section.telemetry.into_config())
    }

    /// `service.extensions`: what of it is there to be built, in order.
    fn extensions(&mut self) -> Vec<ComponentId> {
        let tree = self.tree;
        let listed = tree.get("service").and_then(|service| service.get("extensions"));
        let references = listed.map(|node| pipelines::references(node, "service.extensions")).unwrap_or_default();
        let mut enabled: Vec<ComponentId> = Vec::new();
        for reference in references {
            let Some(definition) = self.definition(Section::Extensions, &reference.id) else {
                let message =
                    format!("service::extensions: references extension \"{}\" which is not configured", reference.id);
                self.undefined(message, Section::Extensions, &reference);
                continue;
            };
            match self.kind(Section::Extensions, &reference.id.kind) {
                Kind::NotYet(known) if known.dispensable => {
                    let message = format!("extension \"{}\" is not yet there and is left out", reference.id);
                    let hint = format!("nearest is {}", known.nearest);
                    let problem = Problem::warning(message).at(definition.key, format!("extensions.{}", reference.id));
                    self.diagnostics.push(problem.suggest(hint));
                }
                _ if enabled.contains(&reference.id) => {
                    let message = format!("extension \"{}\" is listed twice", reference.id);
                    self.diagnostics.push(Problem::warning(message).at(&reference.location, reference.path));
                }
                _ => enabled.push(reference.id),
            }
        }
        enabled
    }

    pub(super) fn definition(&self, section: Section, id: &ComponentId) -> Option<Definition<'a>> {
        self.definitions.get(&section)?.get(id).copied()
    }

    /// An error about a reference to what its section does not define, with what is near.
    pub(super) fn undefined(&mut self, message: String, section: Section, reference: &pipelines::Reference) {
        let mut problem = Problem::error(message).at(&reference.location, &reference.path);
        let elsewhere = Section::ALL
            .into_iter()
            .filter(|other| *other != section)
            .find_map(|other| Some((other, self.definition(other, &reference.id)?)));
        if let Some((other, definition)) = elsewhere {
            problem = problem
                .suggest(format!("it is defined under {}, not under {}", other.key(), section.key()))
                .relate(definition.key, format!("defined here, as {}", article(other.noun())));
        } else {
            let defined = self.definitions.get(&section).into_iter().flatten();
            let defined: Vec<String> = defined.map(|(id, _)| id.to_string()).collect();
            let hint = did_you_mean(&reference.id.to_string(), defined.iter().map(String::as_str));
            problem = problem.suggest(hint.unwrap_or_else(|| match defined.as_slice() {
                [] => format!("define it under {}: none is defined there", section.key()),
                _ => format!("define it under {}: defined are {}", section.key(), defined.join(", ")),
            }));
        }
        self.diagnostics.push(problem);
    }

    /// What the type `kind` of `section` is.
    pub(super) fn kind(&self, section: Section, kind: &str) -> Kind {
        let registry = self.registry;
        let info = match section {
            Section::Receivers => find(&registry.receivers, kind, section, |f| (f.info, f.parse)).map(|found| found.0),
            Section::Processors => {
                find(&registry.processors, kind, section, |f| (f.info, f.parse)).map(|found| found.0)
            }
            Section::Exporters => find(&registry.exporters, kind, section, |f| (f.info, f.parse)).map(|found| found.0),
            Section::Extensions => {
                find(&registry.extensions, kind, section, |f| (f.info, f.parse)).map(|found| found.0)
            }
            Section::Connectors => {
                find(&registry.connectors, kind, section, |f| (f.info, f.parse)).map(|found| found.0)
            }
        };
        match (info, known::find(section, kind)) {
            (Some(info), _) => Kind::Built(info),
            (None, Some(known)) => Kind::NotYet(known),
            (None, None) => Kind::Unknown,
        }
    }

    /// What the connector type `kind` takes and makes of it; `None` if it is not built.
    pub(super) fn pairs(&self, kind: &str) -> Option<&'static [(Signal, Signal)]> {
        let Kind::Built(info) = self.kind(Section::Connectors, kind) else { return None };
        self.registry.connectors.iter().find(|factory| factory.info.name == info.name).map(|factory| factory.pairs)
    }

    /// Decodes the components of a section by its factories.
    fn decode<C: ?Sized>(
        &mut self,
        section: Section,
        used: &BTreeSet<ComponentId>,
        find: impl Fn(&Registry, &str) -> Option<(Info, Parse<C>)>,
    ) -> HashMap<ComponentId, Box<C>> {
        let mut configs = HashMap::new();
        let definitions: Vec<_> =
            self.definitions.get(&section).into_iter().flatten().map(|(id, at)| (id.clone(), *at)).collect();
        // What uses a component may be what is wrong.
        let has_broken_pipelines = self.diagnostics.errors.iter().any(|error| error.path.starts_with("service"));
        for (id, definition) in definitions {
            let path = format!("{}.{id}", section.key());
            let is_used = used.contains(&id);
            let Some((_, parse)) = find(self.registry, &id.kind) else {
                self.refuse(section, &id, definition, is_used);
                continue;
            };
            if !is_used && !has_broken_pipelines {
                let message = match section {
                    Section::Extensions => format!("extension \"{id}\" is not in service.extensions: it does not run"),
                    _ => format!("no pipeline uses {} \"{id}\"", section.noun()),
                };
                self.diagnostics.push(Problem::warning(message).at(definition.key, &path));
            }
            let renamed = if section == Section::Exporters && id.kind == "logging" {
                Some(super::legacy::debug_of_logging(definition, &path, self.diagnostics))
            } else {
                None
            };
            let node = renamed.as_ref().unwrap_or(definition.node);
            let config = self.diagnostics.within(path, definition.key, |diagnostics| parse(node, diagnostics));
            configs.extend(config.map(|config| (id, config)));
        }
        configs
    }

    /// Reports a component whose type is not built.
    fn refuse(&mut self, section: Section, id: &ComponentId, definition: Definition<'_>, is_used: bool) {
        let path = format!("{}.{id}", section.key());
        let noun = section.noun();
        let problem = match self.kind(section, &id.kind) {
            Kind::NotYet(known) => {
                // Extensions left out with a warning have been spoken of.
                if known.dispensable && self.is_listed(id) {
                    return;
                }
                let message = format!("{noun} {:?}: not yet", id.kind);
                let problem = if is_used {
                    Problem::error(message)
                } else {
                    Problem::warning(format!("{message}; ignored, since nothing uses it"))
                };
                let nearest =
                    if known.nearest.is_empty() { None } else { Some(format!("nearest is {}", known.nearest)) };
                problem.at(definition.key, path).suggest_some(nearest)
            }
            Kind::Built(_) => return,
            Kind::Unknown => {
                let built = self.built(section);
                let message =
                    format!("unknown type: {:?} for id: \"{id}\" (valid values: [{}])", id.kind, built.join(" "));
                let elsewhere = Section::ALL
                    .into_iter()
                    .filter(|other| *other != section)
                    .find(|&other| !matches!(self.kind(other, &id.kind), Kind::Unknown));
                let hint = match elsewhere {
                    Some(other) => {
                        Some(format!("{:?} is {}: define it under {}", id.kind, article(other.noun()), other.key()))
                    }
                    None => did_you_mean(&id.kind, built.into_iter().chain(known::names(section))),
                };
                Problem::error(message).at(definition.key, path).suggest_some(hint)
            }
        };
        self.diagnostics.push(problem);
    }

    fn is_listed(&self, id: &ComponentId) -> bool {
        let listed = self.tree.get("service").and_then(|service| service.get("extensions"));
        listed.is_some_and(|node| pipelines::references(node, "").iter().any(|reference| reference.id == *id))
    }

    /// The names of the built types of a section.
    fn built(&self, section: Section) -> Vec<&'static str> {
        let registry = self.registry;
        let mut names: Vec<&'static str> = match section {
            Section::Receivers => registry.receivers.iter().map(|factory| factory.info.name).collect(),
            Section::Processors => registry.processors.iter().map(|factory| factory.info.name).collect(),
            Section::Exporters => registry.exporters.iter().map(|factory| factory.info.name).collect(),
            Section::Extensions => registry.extensions.iter().map(|factory| factory.info.name).collect(),
            Section::Connectors => registry.connectors.iter().map(|factory| factory.info.name).collect(),
        };
        names.sort_unstable();
        names
    }
}

/// `a receiver`, `an exporter`.
pub(super) fn article(noun: &str) -> String {
    if noun.starts_with(['a', 'e', 'i', 'o', 'u']) { format!("an {noun}") } else { format!("a {noun}") }
}
