//! The command line: `nyquist`, `nyquist validate`, `nyquist components`, `nyquist print-config`,
//! `nyquist sample`, `nyquist explain`.
//!
//! Exit codes are the Collector's: 0 after a clean shutdown or a successful command, 1 after any
//! error or if a fault ended the process; and 3 if a shutdown that was asked for left data behind that is
//! lost. `sample` and `explain` answer by theirs, and exit with 2 after an error.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command line prints; everything else logs")]

mod args;
mod components;
mod explain;
mod output;
mod sample;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use clap::error::ErrorKind;
use nyquist_core::clock::{Clock, SystemClock};
use nyquist_core::component::Registry;
use nyquist_core::config::{self, Diagnostics, GatewayConfig, Problem, Sources};
use nyquist_core::pipeline::Graph;
use nyquist_core::telemetry::{Telemetry, logs};

use self::args::{Cli, Command, Mode};
use crate::run::{Settings, run};

/// The exit code of `sample` and `explain` after an error: their others are answers.
const BROKEN: u8 = 2;

/// The whole program, with the components of `registry`: what `main` is made of.
#[must_use]
pub fn main_with(registry: Registry) -> ExitCode {
    main_from(std::env::args_os(), &registry)
}

fn main_from(args: impl IntoIterator<Item = OsString>, registry: &Registry) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            let answers_by_code = args.get(1).is_some_and(|command| command == "sample" || command == "explain");
            return match error.kind() {
                ErrorKind::DisplayHelp => ExitCode::SUCCESS,
                _ if answers_by_code => ExitCode::from(BROKEN),
                _ => ExitCode::FAILURE,
            };
        }
    };
    if cli.version {
        return print(&format!("nyquist version {}\n", env!("CARGO_PKG_VERSION")));
    }
    let sources = cli.sources.sources();
    match cli.command {
        None => start(&cli, &sources, registry),
        Some(Command::Validate) => validate(&sources, registry),
        Some(Command::Components) => print(&components::list(registry)),
        Some(Command::PrintConfig { mode }) => match check(&sources, registry) {
            Ok(config) => print(&config.to_yaml(mode == Mode::Unredacted)),
            Err(diagnostics) => report(&diagnostics),
        },
        Some(Command::Sample(args)) => sample::run(&sources, &args),
        Some(Command::Explain(args)) => explain::run(&args, cli.sources.are_given().then_some(&sources), registry),
    }
}

/// Loads the configuration and builds its components, which has no side effects.
///
/// # Errors
/// Everything that is wrong, each finding at its place.
pub fn check(sources: &Sources, registry: &Registry) -> Result<GatewayConfig, Diagnostics> {
    let config = config::load(sources, registry)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
    let Err(errors) = Graph::build(&config.plan, &Telemetry::new(), &clock) else { return Ok(config) };
    let mut diagnostics = Diagnostics::default();
    for error in errors {
        diagnostics.push(config.problem(error.kind, &error.id, &error.source));
    }
    config.warnings.into_iter().for_each(|warning| diagnostics.push(warning));
    Err(diagnostics)
}

fn validate(sources: &Sources, registry: &Registry) -> ExitCode {
    match check(sources, registry) {
        Ok(config) => {
            for warning in &config.warnings {
                eprintln!("{warning}\n");
            }
            ExitCode::SUCCESS
        }
        Err(diagnostics) => report(&diagnostics),
    }
}

fn start(cli: &Cli, sources: &Sources, registry: &Registry) -> ExitCode {
    let config = match check(sources, registry) {
        Ok(config) => config,
        Err(diagnostics) => return report(&diagnostics),
    };
    logs::init(config.telemetry.log_level.name(), config.telemetry.log_encoding);
    for warning in &config.warnings {
        log(warning);
    }
    if !cli.sources.feature_gates.is_empty() {
        tracing::warn!(gates = ?cli.sources.feature_gates, "there are no feature gates here: ignored");
    }
    let settings = Settings { telemetry: config.telemetry.clone(), drain_timeout: cli.drain_timeout.0 };
    match run(&config.plan, &settings) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

/// A warning as one line of the log.
fn log(warning: &Problem) {
    let advice = warning.suggestion.as_deref().unwrap_or_default();
    let at = if warning.location.is_known() { warning.location.to_string() } else { String::new() };
    tracing::warn!(path = warning.path, at, advice, "{}", warning.message);
}

/// Shows what is wrong, and fails.
fn report(diagnostics: &Diagnostics) -> ExitCode {
    let count = diagnostics.errors.len();
    let errors = if count == 1 { "1 error".to_owned() } else { format!("{count} errors") };
    eprint!("{diagnostics}");
    eprintln!("the configuration is not used: {errors}");
    ExitCode::FAILURE
}

/// Prints a command's result; a reader that has gone (`| head`) is no error.
fn print(text: &str) -> ExitCode {
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}
