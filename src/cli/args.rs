//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use nyquist_core::config::{ComponentId, Duration, Sources};
use nyquist_core::pipeline::parse_trace_id;

/// An OpenTelemetry gateway collector: tail sampling, cardinality limiting, and nothing acknowledged
/// is lost.
#[derive(Debug, Parser)]
#[command(name = "nyquist", disable_version_flag = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) sources: SourceArgs,

    /// How long a shutdown may take to deliver what is held. If some of it is lost, the exit code is 3.
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub(super) drain_timeout: Duration,

    /// Print the version.
    #[arg(long, short = 'v')]
    pub(super) version: bool,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Check the configuration and build every component, without starting any.
    Validate,
    /// List the component types of this binary.
    Components,
    /// Print the configuration after merging and expansion.
    #[command(alias = "print-initial-config")]
    PrintConfig {
        /// Whether secrets are shown.
        #[arg(long, value_enum, default_value = "redacted")]
        mode: Mode,
    },
    /// Run recorded traces through the configured sampler, and show what it keeps and why. Exits with
    /// 0; with 1 if an expectation is not met; with 2 if something cannot be read.
    Sample(SampleArgs),
    /// Ask a running gateway why a trace was kept or dropped. Exits with 0 if it was kept, 1 if it was
    /// dropped, 3 if it is undecided, 4 if it is not known; with 2 if there is no answer.
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
pub(super) struct SampleArgs {
    /// Recorded OTLP traces: JSON, JSON lines or protobuf (also several messages with their lengths),
    /// also compressed with gzip or zstd; - for standard input.
    #[arg(value_name = "FILE", required = true)]
    pub(super) files: Vec<String>,

    /// Which processor, if the configuration has several: tail_sampling/name.
    #[arg(long, value_name = "ID")]
    pub(super) processor: Option<ComponentId>,

    /// What is expected of the outcome: a YAML file, see docs/sampling-tests.md.
    #[arg(long, value_name = "FILE")]
    pub(super) expect: Option<String>,

    /// Let requests arrive when their spans ended, so that waiting times, late spans, rate limits
    /// and the limits of the buffer have their effect. Otherwise all arrive at once.
    #[arg(long)]
    pub(super) pace: bool,

    /// How the outcome is written.
    #[arg(long, value_enum, default_value = "table")]
    pub(super) format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// The trace: 32 hexadecimal digits.
    #[arg(long, value_name = "ID", value_parser = parse_trace_id)]
    pub(super) trace_id: [u8; 16],

    /// Where the gateway's own metrics are. Default: where --config says (service.telemetry.metrics); without
    /// --config, http://localhost:8888.
    #[arg(long, value_name = "URL")]
    pub(super) endpoint: Option<String>,

    /// Write the answer as JSON.
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    Redacted,
    Unredacted,
}

#[derive(Debug, Args)]
pub(super) struct SourceArgs {
    /// A configuration: a path, file:path, env:NAME or yaml:text. Repeatable; later ones are merged
    /// over earlier ones. Default: pipeline.yaml.
    #[arg(long, value_name = "URI", global = true)]
    config: Vec<String>,

    /// A single value, applied after all files: --set processors.batch.timeout=2s. Repeatable.
    #[arg(long, value_name = "KEY=VALUE", global = true)]
    set: Vec<String>,

    /// The Collector's feature gates, which this gateway does not have: accepted and ignored.
    #[arg(long, value_name = "GATES", global = true)]
    pub(super) feature_gates: Vec<String>,
}

impl SourceArgs {
    /// Is there anything to load but the default?
    pub(super) fn are_given(&self) -> bool {
        !self.config.is_empty() || !self.set.is_empty()
    }

    /// What to load.
    pub(super) fn sources(&self) -> Sources {
        let default = || vec!["pipeline.yaml".to_owned()];
        let config = if self.config.is_empty() { default() } else { self.config.clone() };
        Sources::new(config, self.set.clone())
    }
}
