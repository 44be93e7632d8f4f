//! The tables.

use std::fmt::Write;
use std::process::Command;

use crate::scenario::{Outcome, Scenario, bytes_per_item};

/// The table of one scenario: a row for each run, then the ratios.
pub fn table(scenario: &Scenario, outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "## {}\n", scenario.title);
    let load =
        if scenario.rate == 0 { "closed loop".to_owned() } else { format!("{} {}s/s", scenario.rate, scenario.item) };
    let _ = writeln!(
        text,
        "`bench/configs/{}`, {load}, {:.0} bytes a {} with its share of the resource.\n",
        scenario.config,
        bytes_per_item(scenario.signal),
        scenario.item
    );
    let memory = if scenario.memory { " resident over wire bytes |" } else { "" };
    let _ = writeln!(
        text,
        "| run | CPU ns/{0} | {0}s/s | cores used | by the load | resident MiB |{memory} export p50 ms | p99 ms | delivered | refused calls |",
        scenario.item
    );
    let _ = writeln!(text, "|---|---|---|---|---|---|---|---|---|---|{}", if scenario.memory { "---|" } else { "" });
    for outcome in outcomes {
        let ratio = outcome.resident_ratio.map_or(String::new(), |ratio| format!(" {ratio:.2} |"));
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.0} | {:.2} | {:.2} | {:.0} |{ratio} {:.2} | {:.2} | {:.3} | {} |",
            outcome.program,
            outcome.cpu_per_item.as_nanos() as f64,
            outcome.items_per_second,
            outcome.cores_used,
            outcome.load_cores_used,
            outcome.resident as f64 / f64::from(1 << 20),
            outcome.p50.as_secs_f64() * 1e3,
            outcome.p99.as_secs_f64() * 1e3,
            outcome.delivered,
            outcome.refused,
        );
    }
    text.push('\n');
    if scenario.beside_collector {
        text.push_str(&ratios(scenario, outcomes));
    }
    text
}

/// What more cores give. Where the load generator has no core of its own the throughput says little;
/// the CPU time an item costs then says what the cores could do if nothing waits.
pub fn scaling(one: &[Outcome], many: &[Outcome], cores: usize) -> String {
    let mean = |outcomes: &[Outcome], value: &dyn Fn(&Outcome) -> f64| {
        let values: Vec<f64> = outcomes.iter().filter(|run| run.program == "nyquist").map(value).collect();
        values.iter().sum::<f64>() / values.len() as f64
    };
    let cpu = |outcome: &Outcome| outcome.cpu_per_item.as_secs_f64();
    let rate = |outcome: &Outcome| outcome.items_per_second;
    let by_cost = cores as f64 * mean(one, &cpu) / mean(many, &cpu);
    let by_rate = mean(many, &rate) / mean(one, &rate);
    let machine = Command::new("nproc").arg("--all").output();
    let machine = machine.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    format!(
        "- {cores} cores over one: {by_cost:.2} by CPU time an item, {by_rate:.2} by throughput (on {machine} cores; the load \
         generator and the backend need one of their own for the second figure to mean something)\n"
    )
}

/// What Nyquist spends on an item, and how many it takes, beside the runs called `name`.
pub fn over(name: &str, outcomes: &[Outcome]) -> String {
    let of = |program: &str, value: &dyn Fn(&Outcome) -> f64| {
        let times: Vec<f64> = outcomes.iter().filter(|run| run.program == program).map(value).collect();
        let low = times.iter().copied().fold(f64::INFINITY, f64::min);
        let high = times.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        (low, times.iter().sum::<f64>() / times.len() as f64, high)
    };
    let over = |value: &dyn Fn(&Outcome) -> f64| {
        let (base, more) = (of(name, value), of("nyquist", value));
        format!("{:.2} (spread {:.2} to {:.2})", more.1 / base.1, more.0 / base.2, more.2 / base.0)
    };
    let cpu = over(&|outcome| outcome.cpu_per_item.as_secs_f64());
    let rate = over(&|outcome| outcome.items_per_second);
    format!("- over {name}: CPU time an item {cpu}, throughput {rate}\n")
}

fn ratios(scenario: &Scenario, outcomes: &[Outcome]) -> String {
    let cpu = |outcome: &Outcome| outcome.cpu_per_item.as_secs_f64();
    let mut text = String::new();
    let mut line = |what: &str, value: &dyn Fn(&Outcome) -> f64| {
        let of = |program: &str| {
            let values: Vec<f64> = outcomes.iter().filter(|run| run.program == program).map(value).collect();
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            (!values.is_empty()).then(|| (low, values.iter().sum::<f64>() / values.len() as f64, high))
        };
        let (Some(collector), Some(nyquist)) = (of("collector"), of("nyquist")) else { return };
        let _ = writeln!(
            text,
            "- {what}: the Collector has {:.2} times Nyquist's (spread {:.2} to {:.2})",
            collector.1 / nyquist.1,
            collector.0 / nyquist.2,
            collector.2 / nyquist.0
        );
    };
    line(&format!("CPU time a {}", scenario.item), &cpu);
    line("resident memory", &|outcome| outcome.resident as f64);
    line("p99 of the export call", &|outcome| outcome.p99.as_secs_f64());
    line("throughput", &|outcome| outcome.items_per_second);
    text.push('\n');
    text
}
