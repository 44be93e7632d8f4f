//! `nyquist sample`: recorded traces through the configured sampler.

mod expect;
mod table;

use std::fs::File;
use std::io::{self, Read};
use std::process::ExitCode;

use nyquist_core::batch::Signal;
use nyquist_core::config::{self, Diagnostics, Located, Problem, Sources};
use nyquist_core::pipeline::ComponentKind;
use nyquist_processors::tail_sampling::config::TailSamplingConfig;
use nyquist_processors::tail_sampling::replay::{Report, replay};
use nyquist_receivers::otlp::recorded::{self, Recorded};

use super::args::{Format, SampleArgs};
use super::{BROKEN, print};
use expect::Expectations;

/// The largest recording, decompressed.
const MAX_FILE: usize = 1 << 30;

pub(super) fn run(sources: &Sources, args: &SampleArgs) -> ExitCode {
    match sample(sources, args) {
        Ok((report, misses)) => {
            print(&match args.format {
                Format::Table => table::render(&report),
                Format::Json => json(&report),
            });
            for miss in &misses {
                eprintln!("{miss}\n");
            }
            if misses.is_empty() {
                return ExitCode::SUCCESS;
            }
            eprintln!("expectations that are not met: {}", misses.len());
            ExitCode::FAILURE
        }
        Err(diagnostics) => {
            eprint!("{diagnostics}");
            ExitCode::from(BROKEN)
        }
    }
}

/// The outcome, and the expectations that it does not meet.
fn sample(sources: &Sources, args: &SampleArgs) -> Result<(Report, Vec<Problem>), Diagnostics> {
    let chosen = args.processor.as_ref();
    let found = config::component::<TailSamplingConfig>(sources, ComponentKind::Processor, "tail_sampling", chosen);
    let (_, sampler) = found?;
    let expectations: Option<Located<Expectations>> = args.expect.as_deref().map(config::from_file).transpose()?;
    let warnings = expectations.iter().flat_map(|expectations| &expectations.warnings);
    for warning in sampler.warnings.iter().chain(warnings) {
        eprintln!("{warning}\n");
    }
    if let Some(expectations) = &expectations {
        expect::check_names(expectations, &sampler.value)?;
    }

    let mut requests = Vec::new();
    let mut invalid = 0;
    for file in &args.files {
        let recording = read(file).map_err(|message| broken(format!("{file}: {message}")))?;
        if recording.items == 0 {
            let what = if recording.invalid > 0 { "no spans with valid ids" } else { "no spans" };
            return Err(broken(format!("{file}: {what}: OTLP traces are expected")));
        }
        invalid += recording.invalid;
        requests.extend(recording.requests);
    }
    if invalid > 0 {
        eprintln!("{}\n", Problem::warning(format!("left out, as at the receiver: {invalid} spans without valid ids")));
    }
    let report = replay(&sampler.value, &requests, args.pace).map_err(broken)?;
    let misses = expectations.map(|expectations| expect::misses(&expectations, &report)).unwrap_or_default();
    Ok((report, misses))
}

fn read(file: &str) -> Result<Recorded, String> {
    let mut bytes = Vec::new();
    let most = MAX_FILE as u64 + 1;
    let copied = match file {
        "-" => io::copy(&mut io::stdin().lock().take(most), &mut bytes),
        path => File::open(path).and_then(|file| io::copy(&mut file.take(most), &mut bytes)),
    };
    copied.map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() > MAX_FILE {
        return Err(format!("larger than {MAX_FILE} bytes"));
    }
    recorded::read(Signal::Traces, &bytes, MAX_FILE)
}

fn broken(message: String) -> Diagnostics {
    let mut diagnostics = Diagnostics::default();
    diagnostics.push(Problem::error(message));
    diagnostics
}

fn json(report: &Report) -> String {
    match serde_json::to_string_pretty(report) {
        Ok(text) => text + "\n",
        Err(error) => format!("{{\"error\": {:?}}}\n", error.to_string()),
    }
}
