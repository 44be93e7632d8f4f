//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use nyquist_core::config::{Duration, Sources};

/// An OpenTelemetry gateway collector: tail sampling, cardinality limiting, and nothing acknowledged
/// is lost.
#[derive(Debug, Parser)]
#[command(name = "nyquist", disable_version_flag = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<Command>,

    #[command(flatten)]
    pub(super) sources: SourceArgs,

    /// How long a shutdown may take to deliver what is held.
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
    /// What to load.
    pub(super) fn sources(&self) -> Sources {
        let default = || vec!["pipeline.yaml".to_owned()];
        let config = if self.config.is_empty() { default() } else { self.config.clone() };
        Sources::new(config, self.set.clone())
    }
}
