//! Reading one thing, where the rest of a gateway does not matter: a component of a configuration,
//! or a file of its own format.

use serde::de::DeserializeOwned;

use super::expand::join;
use super::problem::did_you_mean;
use super::{
    ComponentId, Diagnostics, Location, Node, Problem, Source, Sources, Validate, decode, expand, source, yaml,
};
use crate::pipeline::ComponentKind;

/// A value with the text it was read from.
#[derive(Debug)]
pub struct Located<C> {
    /// The value.
    pub value: C,
    /// What deserves a word about it.
    pub warnings: Vec<Problem>,
    node: Node,
    key: Location,
    path: String,
}

impl<C> Located<C> {
    /// An error at `path` below the value: keys, and indices of lists in digits.
    #[must_use]
    pub fn problem(&self, path: &[&str], message: impl Into<String>) -> Problem {
        let shown = path.iter().fold(self.path.clone(), |shown, part| {
            if part.parse::<usize>().is_ok() { format!("{shown}[{part}]") } else { join(&shown, part) }
        });
        Problem::error(message).at(&self.node.locate(path, &self.key), shown)
    }
}

/// Reads a YAML file of its own format.
///
/// # Errors
/// All findings, if there is an error among them.
pub fn from_file<C: DeserializeOwned + Validate>(path: &str) -> Result<Located<C>, Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let document = source::read_file(path)
        .map_err(|message| Box::new(Problem::error(message)))
        .and_then(|text| yaml::parse(&Source::new(path, text)));
    match document {
        Ok(document) => {
            document.problems.into_iter().for_each(|problem| diagnostics.push(problem));
            let value = decode(&document.root, &mut diagnostics);
            finish(value, document.root, Location::default(), String::new(), diagnostics)
        }
        Err(problem) => {
            diagnostics.push(*problem);
            Err(diagnostics)
        }
    }
}

/// Reads one component of a configuration, which need not be complete otherwise: the one whose id is
/// `chosen`, or the only one of type `kind`.
///
/// # Errors
/// All findings about it, if there is an error among them.
pub fn component<C: DeserializeOwned + Validate>(
    sources: &Sources,
    section: ComponentKind,
    kind: &str,
    chosen: Option<&ComponentId>,
) -> Result<(ComponentId, Located<C>), Diagnostics> {
    let mut diagnostics = Diagnostics::default();
    let Some(mut tree) = source::read(sources, &mut diagnostics) else { return Err(diagnostics) };
    if !diagnostics.errors.is_empty() {
        return Err(diagnostics);
    }
    let mut expanding = Diagnostics::default();
    expand::expand(&mut tree, &sources.environment, &mut expanding);

    let (id, key, node) = match find(&tree, section, kind, chosen) {
        Ok(found) => found,
        Err(problem) => {
            // What it was to be found in may be what could not be expanded.
            let own = expanding.errors.into_iter().filter(|error| error.path == section.section());
            own.for_each(|error| diagnostics.push(error));
            diagnostics.push(*problem);
            return Err(diagnostics);
        }
    };
    let path = format!("{}.{id}", section.section());
    for problem in expanding.errors.into_iter().chain(expanding.warnings) {
        let below = problem.path.strip_prefix(&path);
        if below.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])) {
            diagnostics.push(problem);
        }
    }
    let value = diagnostics.within(path.clone(), &key, |diagnostics| decode(&node, diagnostics));
    Ok((id, finish(value, node, key, path, diagnostics)?))
}

fn finish<C>(
    value: Option<C>,
    node: Node,
    key: Location,
    path: String,
    mut diagnostics: Diagnostics,
) -> Result<Located<C>, Diagnostics> {
    diagnostics.sort();
    match value {
        Some(value) if diagnostics.errors.is_empty() => {
            Ok(Located { value, warnings: diagnostics.warnings, node, key, path })
        }
        _ => Err(diagnostics),
    }
}

fn find(
    tree: &Node,
    section: ComponentKind,
    kind: &str,
    chosen: Option<&ComponentId>,
) -> Result<(ComponentId, Location, Node), Box<Problem>> {
    let name = section.section();
    let entries = tree.get(name).map(Node::entries).unwrap_or_default();
    let ids = entries.iter().filter_map(|(key, at, node)| Some((key.parse::<ComponentId>().ok()?, at, node)));
    let of_kind: Vec<_> = ids.filter(|(id, ..)| id.kind == kind).collect();
    let names: Vec<String> = of_kind.iter().map(|(id, ..)| id.to_string()).collect();
    let found = match chosen {
        Some(chosen) => of_kind.iter().find(|(id, ..)| id == chosen),
        None => of_kind.first(),
    };
    let list = tree.entry(name).map(|(at, _)| at.clone()).unwrap_or_default();
    let Some((id, at, node)) = found else {
        let message = match chosen {
            Some(chosen) => format!("there is no {kind} named \"{chosen}\" under {name}"),
            None => format!("there is no {kind} under {name}"),
        };
        let near = chosen.and_then(|chosen| did_you_mean(&chosen.to_string(), names.iter().map(String::as_str)));
        let defined = match names.as_slice() {
            [] => None,
            [only] => Some(format!("there is only {only}")),
            several => Some(format!("there are {}", several.join(", "))),
        };
        return Err(Box::new(Problem::error(message).at(&list, name).suggest_some(near.or(defined))));
    };
    if chosen.is_none() && of_kind.len() > 1 {
        let message = format!("there are several {kind} under {name}: {}", names.join(", "));
        return Err(Box::new(Problem::error(message).at(&list, name).suggest("name the one that is meant")));
    }
    Ok((id.clone(), (*at).clone(), (*node).clone()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    struct Batch {
        size: u64,
        name: String,
    }

    impl Validate for Batch {}

    fn read(yaml: &str, chosen: Option<&str>) -> Result<(ComponentId, Located<Batch>), String> {
        let mut sources = Sources::new(vec![format!("yaml:{yaml}")], Vec::new());
        sources.environment = Arc::new(|name| (name == "SIZE").then(|| "7".to_owned()));
        let chosen = chosen.map(|id| id.parse().unwrap());
        component(&sources, ComponentKind::Processor, "batch", chosen.as_ref()).map_err(|errors| errors.to_string())
    }

    /// Nothing else in the file matters: neither other sections nor other components.
    #[test]
    fn a_component_alone() {
        let (id, found) = read(
            "{processors: {batch: {size: '${env:SIZE}'}, other: {name: '${bad ref}'}}, exporters: 5, nonsense: 1}",
            None,
        )
        .unwrap();
        assert_eq!((id.to_string().as_str(), found.value.size), ("batch", 7));
        let problem = found.problem(&["size"], "too large").to_string();
        assert!(problem.contains("processors.batch.size") && problem.contains("yaml::1:"), "{problem}");
    }

    #[test]
    fn which_one() {
        let yaml = "{processors: {batch/a: {size: 1}, batch/b: {size: 2}}}";
        assert_eq!(read(yaml, Some("batch/b")).unwrap().1.value.size, 2);
        let error = read(yaml, None).unwrap_err();
        assert!(error.contains("several batch under processors: batch/a, batch/b"), "{error}");
        let error = read(yaml, Some("batch/bb")).unwrap_err();
        assert!(error.contains("did you mean \"batch/b\"?"), "{error}");
        let error = read("{receivers: {}}", None).unwrap_err();
        assert!(error.contains("there is no batch under processors"), "{error}");
    }

    /// Errors within it are located as in a whole configuration.
    #[test]
    fn errors_are_located() {
        let error = read("{processors: {batch: {sise: 1, name: '${env:'}}}", None).unwrap_err();
        assert!(error.contains("processors.batch.sise") && error.contains("did you mean \"size\"?"), "{error}");
    }

    #[test]
    fn a_file_of_its_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("batch.yaml");
        let path = path.to_str().unwrap();
        std::fs::write(path, "size: 3\nname: x\n").unwrap();
        let found = from_file::<Batch>(path).unwrap();
        assert_eq!((found.value.size, found.value.name.as_str()), (3, "x"));
        assert!(found.problem(&["name"], "wrong").to_string().contains("batch.yaml:2:"));
        std::fs::write(path, "sise: 3\n").unwrap();
        let error = from_file::<Batch>(path).unwrap_err().to_string();
        assert!(error.contains("batch.yaml:1:1"), "{error}");
        assert!(from_file::<Batch>("/there/is/no/such.yaml").unwrap_err().to_string().contains("such.yaml"));
    }
}
