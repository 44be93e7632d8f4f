//! `nyquist explain`: what a running gateway knows of a trace.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use http::header::HOST;
use http::{Request, StatusCode};
use nyquist_core::component::Registry;
use nyquist_core::config::{self, Sources};
use nyquist_core::net::client::{Chunks, Client, ClientOptions, Connector, HttpEndpoint};
use nyquist_core::net::tls::{ClientTls, ClientTlsConfig};
use nyquist_core::pipeline::{Account, EXPLAIN_PATH};
use nyquist_processors::tail_sampling::explain::{Coverage, Decided, Explanation, Remembered, Status, Undecided};

use super::args::ExplainArgs;
use super::output::{bytes, count, millis, percent, printable, seconds};
use super::{BROKEN, print};

/// How long the gateway may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where a gateway serves its metrics unless its configuration says otherwise.
const DEFAULT_ENDPOINT: &str = "http://localhost:8888";

/// What one processor says.
struct Answer {
    pipeline: String,
    processor: String,
    explanation: Explanation,
}

/// `sources` is the gateway's configuration, if it is given.
pub(super) fn run(args: &ExplainArgs, sources: Option<&Sources>, registry: &Registry) -> ExitCode {
    match endpoint(args, sources, registry).and_then(|endpoint| ask(args.trace_id, &endpoint)) {
        Ok((body, answers)) => {
            print(&if args.json { pretty(&body) } else { render(args.trace_id, &answers) });
            ExitCode::from(code(&answers))
        }
        Err(message) => {
            eprintln!("{}", message.trim_end());
            ExitCode::from(BROKEN)
        }
    }
}

/// Where to ask: what the command line says, else what the configuration does.
fn endpoint(args: &ExplainArgs, sources: Option<&Sources>, registry: &Registry) -> Result<String, String> {
    if let Some(endpoint) = &args.endpoint {
        return Ok(endpoint.clone());
    }
    let Some(sources) = sources else { return Ok(DEFAULT_ENDPOINT.to_owned()) };
    let config = config::load(sources, registry).map_err(|diagnostics| diagnostics.to_string())?;
    let endpoint = config.telemetry.metrics.endpoint.ok_or(
        "error: this configuration turns the gateway's own metrics off (service.telemetry.metrics.level: none), and with \
         them the page that explains",
    )?;
    // A gateway that listens on every address is asked here.
    let address = match endpoint.rsplit_once(':') {
        Some(("" | "0.0.0.0" | "[::]", port)) => format!("localhost:{port}"),
        _ => endpoint,
    };
    Ok(format!("http://{address}"))
}

/// Several samplers may have seen the trace: kept by one is kept.
fn code(answers: &[Answer]) -> u8 {
    let has = |status: Status| answers.iter().any(|answer| answer.explanation.status == status);
    match () {
        () if has(Status::Kept) => 0,
        () if has(Status::Undecided) => 3,
        () if has(Status::Dropped) => 1,
        () => 4,
    }
}

fn pretty(body: &str) -> String {
    let value: Result<serde_json::Value, _> = serde_json::from_str(body);
    value.map_or_else(|_| body.to_owned(), |value| format!("{value:#}\n"))
}

fn hex(id: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}

fn ask(trace_id: [u8; 16], endpoint: &str) -> Result<(String, Vec<Answer>), String> {
    let broken = |what: String| format!("error: {what}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| broken(format!("cannot start a runtime: {error}")))?;
    let body = runtime.block_on(async {
        let answer = tokio::time::timeout(PATIENCE, fetch(trace_id, endpoint)).await;
        answer.unwrap_or_else(|_| Err(format!("{endpoint}: no answer within {PATIENCE:?}"))).map_err(broken)
    })?;
    let foreign = |error: serde_json::Error| broken(format!("{endpoint}: not the answer of a gateway: {error}"));
    let accounts: Vec<Account> = serde_json::from_str(&body).map_err(foreign)?;
    let mut answers = Vec::new();
    for Account { pipeline, processor, account } in accounts {
        let explanation = serde_json::from_value(account).map_err(foreign)?;
        answers.push(Answer { pipeline, processor, explanation });
    }
    Ok((body, answers))
}

async fn fetch(trace_id: [u8; 16], asked: &str) -> Result<String, String> {
    let endpoint = HttpEndpoint::parse(asked)?;
    let tls = endpoint.is_https.then(|| ClientTls::new(&ClientTlsConfig::default(), &[]));
    let tls = tls.transpose().map_err(|error| error.to_string())?;
    let connector = Connector::new(&endpoint.host, endpoint.port, tls);
    let client = Client::new(1, &connector, &ClientOptions::default());
    let base = asked.trim().trim_end_matches('/').trim_end_matches("/metrics");
    let request = Request::get(format!("{base}{EXPLAIN_PATH}?trace_id={}", hex(trace_id)))
        .header(HOST, endpoint.uri.authority().map_or("localhost", |authority| authority.as_str()))
        .body(Chunks::from(Vec::new()))
        .map_err(|error| format!("{asked:?}: {error}"))?;
    let reply = client.send(request).await.map_err(|error| {
        format!(
            "{asked}: {error}; is the gateway running, and is this the address of its own metrics \
             (service.telemetry.metrics)? --endpoint names another, or --config the gateway's configuration"
        )
    })?;
    let body = String::from_utf8_lossy(&reply.body).into_owned();
    match reply.status {
        StatusCode::OK if reply.body.len() >= Client::MAX_REPLY => {
            Err(format!("{asked}: the answer is longer than {} bytes", Client::MAX_REPLY))
        }
        StatusCode::OK => Ok(body),
        status => Err(format!(
            "{asked}: {status}: {}; is it the address of the gateway's own metrics (service.telemetry.metrics)?",
            printable(body.trim())
        )),
    }
}

fn render(trace_id: [u8; 16], answers: &[Answer]) -> String {
    let mut out = format!("trace {}\n", hex(trace_id));
    if answers.is_empty() {
        out.push_str("\nno processor of this gateway decides on traces: it drops none\n");
    }
    for Answer { pipeline, processor, explanation } in answers {
        let _ = writeln!(out, "\n{}: {}", printable(pipeline), printable(processor));
        tell(&mut out, explanation);
    }
    out
}

fn tell(out: &mut String, explanation: &Explanation) {
    if let Some(undecided) = &explanation.undecided {
        tell_undecided(out, undecided);
    }
    for decided in &explanation.decisions {
        tell_decided(out, decided);
    }
    let forgotten = explanation.decisions.is_empty();
    match &explanation.remembered {
        _ if explanation.late_error && !forgotten => {
            out.push_str("  since then a late span was an error: late spans are kept (late_errors: keep)\n");
        }
        _ if explanation.late_error => {
            out.push_str(
                "  dropped at first; then a late span was an error: late spans are kept (late_errors: keep)\n",
            );
            let _ = writeln!(out, "  the rest of it is older than the log{}", covers(&explanation.log));
        }
        Some(remembered) => tell_remembered(out, remembered, &explanation.log),
        None => {}
    }
    if explanation.decisions.len() > 1 {
        let _ = writeln!(
            out,
            "  decided {} times: spans came after a decision had been forgotten",
            explanation.decisions.len()
        );
    }
    if explanation.status == Status::Unknown {
        let _ = writeln!(out, "  not known: it never arrived, or is older than the log{}", covers(&explanation.log));
    }
}

fn covers(log: &Coverage) -> String {
    if log.is_off {
        return ", which is off (decision_log.size: 0)".to_owned();
    }
    if log.decisions == 0 {
        return ", which is empty".to_owned();
    }
    format!(", which covers the last {} of its shard ({})", count(log.decisions, "decision"), seconds(log.seconds))
}

/// Who or what decided.
fn by(rule: Option<&str>, sub_policy: Option<&str>, trigger: Option<&str>) -> String {
    match (rule, trigger) {
        (_, Some("stress")) => "by its id alone".to_owned(),
        (Some(rule), _) => match sub_policy {
            Some(sub_policy) => format!("by {:?}, its sub-policy {:?}", printable(rule), printable(sub_policy)),
            None => format!("by {:?}", printable(rule)),
        },
        (None, Some("size")) => "without asking policies".to_owned(),
        (None, _) => "because no rule matched".to_owned(),
    }
}

fn tell_undecided(out: &mut String, undecided: &Undecided) {
    let root = if undecided.has_root { "with" } else { "without" };
    let _ = writeln!(
        out,
        "  still undecided: {} ({}), {root} its root, the first {} ago; decided in at most {}",
        count(undecided.spans, "span"),
        bytes(undecided.bytes),
        seconds(undecided.waiting_seconds),
        seconds(undecided.decided_in_seconds)
    );
}

fn tell_remembered(out: &mut String, remembered: &Remembered, log: &Coverage) {
    let what = if remembered.kept { "kept" } else { "dropped" };
    let _ = match remembered.rules_changed {
        true => write!(out, "  {what} by a rule that is not there any more"),
        false => write!(
            out,
            "  {what} {}",
            by(remembered.rule.as_deref(), remembered.sub_policy.as_deref(), remembered.trigger.as_deref())
        ),
    };
    if let Some(decided_by) = &remembered.trigger {
        let _ = write!(out, ": {}", trigger(decided_by));
    }
    out.push('\n');
    if let (Some(percentage), Some(threshold)) = (remembered.sampling_percentage, &remembered.threshold) {
        let _ = writeln!(out, "  its rate is {}: the threshold {}", percent(percentage), printable(threshold));
    }
    let _ = writeln!(out, "  the rest of it is older than the log{}", covers(log));
}

fn tell_decided(out: &mut String, decided: &Decided) {
    let what = if decided.kept { "kept" } else { "dropped" };
    let by = by(decided.rule.as_deref(), decided.sub_policy.as_deref(), Some(&decided.trigger));
    let _ = writeln!(out, "  {what} {by} ({})", decided.decision);
    if decided.kept && decided.decision != "sampled" {
        out.push_str("  dry_run is on: otherwise it would have been dropped\n");
    }
    let at = decided.decided_at.as_deref().map(|at| format!(" ({})", printable(at))).unwrap_or_default();
    let _ = writeln!(
        out,
        "  decided {} ago{at}, {} after its first span: {}",
        seconds(decided.seconds_ago),
        seconds(decided.waited_seconds),
        trigger(&decided.trigger)
    );
    let _ = writeln!(
        out,
        "  had {}, {}, {} from the earliest start to the latest end",
        count(decided.spans, "span"),
        bytes(decided.bytes),
        millis(decided.duration_ms)
    );
    if let (Some(percentage), Some(threshold), Some(randomness)) =
        (decided.sampling_percentage, &decided.threshold, &decided.randomness)
    {
        let relation = if decided.kept { "at least" } else { "less than" };
        let (randomness, threshold) = (printable(randomness), printable(threshold));
        let _ = writeln!(
            out,
            "  its rate is {}: its randomness {randomness} is {relation} the threshold {threshold}",
            percent(percentage)
        );
    }
    let widest = decided.votes.iter().map(|vote| vote.rule.chars().count()).max().unwrap_or(0);
    for vote in &decided.votes {
        let matched = if vote.matched { "match" } else { "no match" };
        let mark = if decided.rule.as_ref() == Some(&vote.rule) { "  <- decides" } else { "" };
        let _ = writeln!(out, "    {:widest$}  {matched}{mark}", printable(&vote.rule));
    }
}

fn trigger(name: &str) -> String {
    match name {
        "wait" => "decision_wait was over",
        "root" => "decision_wait_after_root_received was over",
        "ingest" => "as its spans came (sampling_strategy: span-ingest)",
        "idle" => "decision_wait_after_last_span was over",
        "spans" => "at once, because it had reached span_limit",
        "stress" => "at its first spans, by its id alone, because the buffer was overloaded (stress)",
        "memory" => "early, because the buffer was nearly full (memory_limit_mib)",
        "count" => "early, because there were more undecided traces than num_traces",
        "size" => "at once, because it had grown beyond maximum_trace_size_bytes",
        "shutdown" => "early, because the gateway shut down",
        other => return printable(other),
    }
    .to_owned()
}
