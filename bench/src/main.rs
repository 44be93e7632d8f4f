//! Measures Nyquist beside the OpenTelemetry Collector: same load, same configuration, same run.
//!
//! The measured process has core 0 (taskset); load generator and backend share the last core. `bench/run`
//! builds what is needed and calls this.

mod load;
mod payload;
mod peer;
mod report;
mod scenario;
mod sink;

use std::path::{Path, PathBuf};
use std::time::Duration;

use peer::Program;
use scenario::{Beside, Outcome, Scenario, Signal, Times};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const TAIL: Scenario = Scenario {
    name: "tail_sampling",
    title: "Tail sampling: 5 s wait, important 100 %, errors 100 %, slow 50 %, rest 10 %",
    config: "tail_sampling.yaml",
    item: "span",
    signal: Signal::Traces,
    wait: Duration::from_secs(5),
    rate: 0,
    cores: 1,
    beside_collector: true,
    beside: &[],
    fsync: "false",
    memory: false,
};

const PASSTHROUGH: &str = "passthrough.yaml";
const DURABLE: &str = "passthrough_durable.yaml";

const SCENARIOS: [Scenario; 16] = [
    Scenario {
        name: "passthrough",
        title: "Passthrough: OTLP to OTLP",
        config: PASSTHROUGH,
        wait: Duration::ZERO,
        ..TAIL
    },
    Scenario {
        name: "passthrough_durable",
        title: "Passthrough with a queue on disk, without fsync",
        config: DURABLE,
        wait: Duration::ZERO,
        ..TAIL
    },
    Scenario {
        name: "queue_levels",
        title: "Passthrough with a queue on disk without fsync, in turns with one in memory and the other levels (Nyquist only)",
        config: DURABLE,
        wait: Duration::ZERO,
        beside_collector: false,
        beside: &[
            Beside { name: "in memory", config: PASSTHROUGH, fsync: "false" },
            Beside { name: "fsync: 1s", config: DURABLE, fsync: "1s" },
            Beside { name: "fsync: 100ms", config: DURABLE, fsync: "100ms" },
            Beside { name: "fsync: true", config: DURABLE, fsync: "true" },
        ],
        ..TAIL
    },
    Scenario {
        name: "load_balancing",
        title: "Load balancing: OTLP to three backends by trace id, in turns with the passthrough (Nyquist only)",
        config: "load_balancing.yaml",
        wait: Duration::ZERO,
        beside_collector: false,
        beside: &[Beside { name: "passthrough", config: PASSTHROUGH, fsync: "false" }],
        ..TAIL
    },
    TAIL,
    Scenario {
        name: "tail_sampling_rules",
        title: "The same sampling as ordered rules (Nyquist only)",
        config: "tail_sampling_rules.yaml",
        beside_collector: false,
        ..TAIL
    },
    Scenario {
        name: "tail_sampling_durable",
        title: "The same policies with buffer and queue on disk, without fsync, in turns with memory (Nyquist only)",
        config: "tail_sampling_durable.yaml",
        beside_collector: false,
        beside: &[Beside { name: "in memory", config: "tail_sampling.yaml", fsync: "false" }],
        ..TAIL
    },
    Scenario {
        name: "tail_sampling_durable_rate",
        title: "Buffer and queue on disk, without fsync, in turns with memory, at a rate that the disk sustains (Nyquist only)",
        config: "tail_sampling_durable.yaml",
        rate: 400_000,
        beside_collector: false,
        beside: &[Beside { name: "in memory", config: "tail_sampling.yaml", fsync: "false" }],
        ..TAIL
    },
    Scenario {
        name: "tail_sampling_all",
        title: "Tail sampling: 5 s wait, everything kept",
        config: "tail_sampling_all.yaml",
        ..TAIL
    },
    Scenario {
        name: "memory",
        title: "Memory and latency: tail sampling with 10 s wait, both at half of the Collector's maximum",
        wait: Duration::from_secs(10),
        rate: 40_000,
        memory: true,
        ..TAIL
    },
    Scenario {
        name: "latency",
        title: "Latency: passthrough, both at half of the Collector's maximum",
        config: PASSTHROUGH,
        wait: Duration::ZERO,
        rate: 100_000,
        ..TAIL
    },
    Scenario {
        name: "metrics",
        title: "Metrics: OTLP to Prometheus remote write 1.0",
        config: "metrics.yaml",
        item: "point",
        signal: Signal::Metrics,
        wait: Duration::ZERO,
        ..TAIL
    },
    Scenario {
        name: "receive",
        title: "Receive: OTLP to nowhere",
        config: "receive.yaml",
        wait: Duration::ZERO,
        ..TAIL
    },
    Scenario {
        name: "span_metrics",
        title: "Span metrics: OTLP to calls and durations by route and method, reported every second; less `receive` is the connector's part",
        config: "span_metrics.yaml",
        wait: Duration::ZERO,
        ..TAIL
    },
    Scenario {
        name: "two_cores_passthrough",
        title: "Passthrough on two cores (Nyquist only)",
        config: PASSTHROUGH,
        wait: Duration::ZERO,
        cores: 2,
        beside_collector: false,
        ..TAIL
    },
    Scenario {
        name: "two_cores_tail_sampling",
        title: "Tail sampling on two cores (Nyquist only)",
        cores: 2,
        beside_collector: false,
        ..TAIL
    },
];

/// A count rather than a measurement; only by name.
const EXACT: &str = "ten_million";

const USAGE: &str = "usage: nyquist-bench --configs DIR --work DIR [--collector FILE] [--nyquist FILE] [--rounds N] \
                     [--warm-up SECONDS] [--window SECONDS] [--rate SPANS] [SCENARIO...]";

struct Options {
    configs: PathBuf,
    work: PathBuf,
    programs: Vec<Program>,
    rounds: usize,
    times: Times,
    rate: Option<u64>,
    scenarios: Vec<String>,
}

fn main() {
    let options = options();
    let is_known = |wanted: &str| wanted == EXACT || SCENARIOS.iter().any(|scenario| scenario.name == wanted);
    let unknown = options.scenarios.iter().find(|wanted| !is_known(wanted));
    if let Some(unknown) = unknown {
        let names: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
        fail(&format!("no scenario is called {unknown}; there are {EXACT}, {}", names.join(", ")));
    }
    if options.scenarios.iter().any(|name| name == EXACT) {
        count_exactly(&options);
    }
    let mut one_core = Vec::new();
    for scenario in SCENARIOS {
        let wanted = options.scenarios.is_empty() || options.scenarios.iter().any(|name| name == scenario.name);
        if !wanted {
            continue;
        }
        let outcomes = measure(scenario, &options);
        if outcomes.is_empty() {
            continue;
        }
        println!("{}", report::table(&scenario, &outcomes));
        for beside in scenario.beside {
            println!("{}", report::over(beside.name, &outcomes));
        }
        if scenario.cores == 1 && scenario.rate == 0 {
            one_core.push((scenario.config, outcomes));
        } else if scenario.cores > 1
            && let Some((_, alone)) = one_core.iter().find(|(config, _)| *config == scenario.config)
        {
            println!("{}", report::scaling(alone, &outcomes, scenario.cores));
        }
    }
}

/// What is accepted arrives once: with the steady state of `tail_sampling_all`.
fn count_exactly(options: &Options) {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == "tail_sampling_all").unwrap_or(&TAIL);
    println!("## Ten million spans through tail sampling, everything kept\n");
    println!("| run | accepted | arrived | sent in |\n|---|---|---|---|");
    for program in options.programs.iter().filter(|program| program.name == "nyquist" || options.programs.len() == 1) {
        let (accepted, arrived, elapsed) =
            scenario::count_exactly(scenario, program, 10_000_000, &options.configs, &options.work);
        println!("| {} | {accepted} | {arrived} | {:.1} s |", program.name, elapsed.as_secs_f64());
    }
    println!();
}

/// A B A B: what changes in the machine over time changes for both.
fn measure(mut scenario: Scenario, options: &Options) -> Vec<Outcome> {
    if let (Some(rate), true) = (options.rate, scenario.rate > 0) {
        scenario.rate = rate;
    }
    let mut outcomes = Vec::new();
    for round in 1..=options.rounds {
        for program in &options.programs {
            if program.name == "collector" && !scenario.beside_collector {
                continue;
            }
            eprintln!("{} with {} (round {round} of {})", scenario.name, program.name, options.rounds);
            let run =
                |scenario: &Scenario| scenario::run(scenario, program, options.times, &options.configs, &options.work);
            for &Beside { name, config, fsync } in scenario.beside {
                outcomes.push(Outcome { program: name, ..run(&Scenario { config, fsync, ..scenario }) });
            }
            outcomes.push(run(&scenario));
        }
    }
    outcomes
}

fn options() -> Options {
    let mut options = Options {
        configs: PathBuf::from("configs"),
        work: std::env::temp_dir(),
        programs: Vec::new(),
        rounds: 2,
        times: Times { warm_up: Duration::from_secs(5), window: Duration::from_secs(15) },
        rate: None,
        scenarios: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| fail(USAGE));
        match argument.as_str() {
            "--configs" => options.configs = value().into(),
            "--work" => options.work = value().into(),
            "--collector" => options.programs.push(program("collector", &value())),
            "--nyquist" => options.programs.push(program("nyquist", &value())),
            "--rounds" => options.rounds = number(&value()) as usize,
            "--warm-up" => options.times.warm_up = Duration::from_secs(number(&value())),
            "--window" => options.times.window = Duration::from_secs(number(&value())),
            "--rate" => options.rate = Some(number(&value())),
            name if !name.starts_with('-') => options.scenarios.push(name.to_owned()),
            _ => fail(USAGE),
        }
    }
    options
}

fn program(name: &'static str, path: &str) -> Program {
    let path = Path::new(path).canonicalize().unwrap_or_else(|error| fail(&format!("{path}: {error}")));
    Program { name, path }
}

fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| fail(&format!("{text} is not a whole number")))
}

fn fail(message: &str) -> ! {
    eprintln!("{message}");
    std::process::exit(2);
}
