//! Reading, expanding, decoding, and whole configurations with components of the tests' own.

mod cases;
mod decoding;
mod expansion;
mod hostile;
mod yaml_reading;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::*;
use crate::batch::Signal;
use crate::component::*;

/// Sources of YAML texts, with these environment variables.
fn sources(texts: &[&str], variables: &[(&str, &str)]) -> Sources {
    let variables: BTreeMap<String, String> =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources {
        config: texts.iter().map(|text| format!("yaml:{text}")).collect(),
        set: Vec::new(),
        environment: Arc::new(move |name| variables.get(name).cloned()),
    }
}

/// The merged and expanded tree.
fn tree(texts: &[&str], variables: &[(&str, &str)]) -> (Node, Diagnostics) {
    let sources = sources(texts, variables);
    let mut diagnostics = Diagnostics::default();
    let mut root = source::read(&sources, &mut diagnostics).unwrap_or_default();
    expand::expand(&mut root, &sources.environment, &mut diagnostics);
    (root, diagnostics)
}

/// The errors of a whole configuration, rendered.
fn errors(sources: &Sources) -> String {
    match load(sources, &registry()) {
        Ok(_) => String::new(),
        Err(diagnostics) => diagnostics.errors.iter().map(|problem| format!("{problem}\n\n")).collect(),
    }
}

/// A component for all purposes.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Anything {
    endpoint: String,
    timeout: Duration,
    number: i64,
    flag: bool,
    names: Vec<String>,
    headers: BTreeMap<String, Secret>,
    protocols: Protocols,
    verbosity: Verbosity,
    choice: Option<Choice>,
    loglevel: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Protocols {
    grpc: Enabled<Protocol>,
    http: Enabled<Protocol>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default)]
struct Protocol {
    endpoint: String,
    port: u16,
}

impl Default for Protocol {
    fn default() -> Self {
        Self { endpoint: "localhost".to_owned(), port: 4317 }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verbosity {
    #[default]
    Basic,
    Normal,
    Detailed,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Choice {
    Never,
    Ratio(f64),
    Window { size: u32 },
}

impl Validate for Anything {
    fn validate(&self, check: &mut Check<'_>) {
        if self.number < 0 {
            check.error(&["number"], format!("{} must not be negative", self.number));
        }
    }
}

fn nothing_to_build() -> BuildError {
    BuildError::new(&[], "not in tests")
}

impl ReceiverConfig for Anything {
    fn build(&self, _: ReceiverContext<'_>) -> Result<Arc<dyn Receiver>, BuildError> {
        Err(nothing_to_build())
    }
}

impl ProcessorConfig for Anything {
    fn build(&self, _: ProcessorContext<'_>) -> Result<Arc<dyn Processor>, BuildError> {
        Err(nothing_to_build())
    }
}

impl ExporterConfig for Anything {
    fn build(&self, _: ExporterContext<'_>) -> Result<Arc<dyn Exporter>, BuildError> {
        Err(nothing_to_build())
    }
}

impl ConnectorConfig for Anything {
    fn build(&self, _: ConnectorContext<'_>) -> Result<Arc<dyn Connector>, BuildError> {
        Err(nothing_to_build())
    }
}

impl ExtensionConfig for Anything {
    fn build(&self, _: ExtensionContext) -> Result<Arc<dyn Extension>, BuildError> {
        Err(nothing_to_build())
    }
}

/// All these take anything.
fn registry() -> Registry {
    let info = |name, aliases| Info { name, aliases, signals: &Signal::ALL, stability: Stability::Stable };
    Registry {
        receivers: vec![receiver::<Anything>(info("otlp", &[])), receiver::<Anything>(info("x", &[]))],
        processors: vec![processor::<Anything>(info("nop", &[])), processor::<Anything>(info("batch", &[]))],
        exporters: vec![
            exporter::<Anything>(info("otlp", &["otlp_grpc"])),
            exporter::<Anything>(info("otlp_http", &[])),
            exporter::<Anything>(info("debug", &[])),
            exporter::<Anything>(Info { signals: &[Signal::Metrics], ..info("prometheus_remote_write", &[]) }),
        ],
        connectors: vec![
            connector::<Anything>(
                info("forward", &[]),
                &[(Signal::Traces, Signal::Traces), (Signal::Metrics, Signal::Metrics)],
            ),
            connector::<Anything>(info("span_metrics", &[]), &[(Signal::Traces, Signal::Metrics)]),
        ],
        extensions: vec![extension::<Anything>(info("health_check", &[]))],
    }
}
