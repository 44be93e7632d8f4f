//! The processor's metrics: the Collector's names, and what they do not tell.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use nyquist_core::config::ComponentId;
use nyquist_core::telemetry::{Counter, Histogram, Share, Telemetry, UpDown};

use super::buffer::{Compressed, Settings};
use super::rules::RuleSet;
use super::rules::verdict::Decision;
use super::tally::{Tally, Trigger};

const PREFIX: &str = "otelcol_processor_tail_sampling_";
const AGE_BUCKETS: [f64; 11] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 600.0];
const DELAY_BUCKETS: [f64; 9] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];
const TIMER_BUCKETS: [f64; 12] = [0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 1000.0, 5000.0];

/// One policy's or rule's series.
#[derive(Debug)]
struct Series {
    name: String,
    yes: Counter,
    no: Counter,
    executions: Counter,
    /// In microseconds; the nanoseconds that are left are in the second.
    time: Counter,
    rest: AtomicU64,
    /// By trigger and decision; registered when first counted.
    decisions: [[OnceLock<Counter>; 3]; Trigger::ALL.len()],
}

/// All series of a processor, looked up once.
pub(super) struct Metrics {
    telemetry: Arc<Telemetry>,
    by_name: Vec<Series>,
    unmatched: Series,
    global: [Counter; 3],
    new_traces: Counter,
    late_sampled: Counter,
    late_not_sampled: Counter,
    too_large: Counter,
    bad_trace_states: Counter,
    /// By rule with an adaptive rate.
    adaptive_keys: Vec<Share>,
    evaluation_errors: Counter,
    traces: UpDown,
    spans: UpDown,
    bytes: UpDown,
    removal_age: Histogram,
    pub(super) timer: Histogram,
    delay: Histogram,
    late_age: Histogram,
    late_errors: Counter,
    /// By whether they were decisions to keep.
    forgotten: [Counter; 2],
    without_root: Counter,
    early: [Option<Counter>; Trigger::ALL.len()],
    pub(super) stress: Share,
    pub(super) limit: Share,
    rules_memory: Share,
    pub(super) refused: Counter,
    pub(super) retries: Counter,
    /// If blocks are compressed: what they take, what they took, and chunks that were decompressed.
    compressed: Option<(UpDown, UpDown, Counter)>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(super) fn new(telemetry: &Arc<Telemetry>, id: &ComponentId, settings: &Settings) -> Self {
        let rules = &settings.rules;
        let name = |name: &str| format!("{PREFIX}{name}");
        let counter = |metric: &str, help: &str| telemetry.counter(&name(metric), help, &[]);
        let share = |metric: &str, help: &str| Share::new(telemetry.gauge(&name(metric), help, &[]));
        let policy =
            |policy: &str| if id.name.is_empty() { policy.to_owned() } else { format!("{}.{policy}", id.name) };
        let series = |label: String, is_drop: bool| {
            let votes = |sampled: &str, decision: &str| {
                telemetry.counter(
                    &name("count_traces_sampled"),
                    "Traces by each policy's vote; for rules, by the rule that decided.",
                    &[("policy", &label), ("sampled", sampled), ("decision", decision)],
                )
            };
            let (yes, no) = if is_drop {
                (votes("false", "dropped"), votes("false", "not_sampled"))
            } else {
                (votes("true", "sampled"), votes("false", "not_sampled"))
            };
            let executions = telemetry.counter(
                &name("sampling_policy_execution_count"),
                "How often each policy was asked.",
                &[("policy", &label)],
            );
            let time = telemetry.counter(
                &name("sampling_policy_execution_time_sum"),
                "Microseconds that each policy took: its share, by executions, of what all took together.",
                &[("policy", &label)],
            );
            Series { yes, no, executions, time, rest: AtomicU64::new(0), decisions: Default::default(), name: label }
        };
        let global = Decision::ALL.map(|decision| {
            let sampled = if decision == Decision::Sampled { "true" } else { "false" };
            telemetry.counter(
                &name("global_count_traces_sampled"),
                "Traces by the final decision.",
                &[("sampled", sampled), ("decision", decision.name())],
            )
        });
        let late = |sampled: &str| {
            telemetry.counter(
                &name("early_releases_from_cache_decision"),
                "Late spans that followed the decision on their trace.",
                &[("sampled", sampled)],
            )
        };
        let forgotten = |sampled: &str| {
            telemetry.counter(
                &name("decision_cache_evictions"),
                "Past decisions that were forgotten for newer ones.",
                &[("sampled", sampled)],
            )
        };
        let early = |trigger: Trigger| {
            trigger.is_early().then(|| {
                telemetry.counter(
                    &name("early_decisions"),
                    "Traces that were decided before their time, by cause.",
                    &[("cause", trigger.name())],
                )
            })
        };
        // Nothing is ever lost without a decision; dashboards that look at this one find it at zero.
        counter("sampling_trace_dropped_too_early", "Traces that were lost before their decision: always 0.");
        Self {
            by_name: (0..rules.names.len())
                .map(|index| {
                    let label = rules.names.get(index).map_or("", String::as_str);
                    series(policy(label), rules.is_drop(index))
                })
                .collect(),
            unmatched: Series {
                name: policy("none"),
                yes: detached(),
                no: detached(),
                executions: detached(),
                time: detached(),
                rest: AtomicU64::new(0),
                decisions: Default::default(),
            },
            global,
            new_traces: counter("new_trace_id_received", "Traces that were seen for the first time."),
            late_sampled: late("true"),
            late_not_sampled: late("false"),
            too_large: counter("traces_dropped_too_large", "Traces beyond maximum_trace_size_bytes."),
            bad_trace_states: counter(
                "count_spans_with_unparseable_tracestate",
                "Spans whose tracestate a policy wanted to read, and could not.",
            ),
            adaptive_keys: rules
                .adaptive_keys()
                .map(|(rule, _)| {
                    let label = policy(rules.names.get(rule).map_or("", String::as_str));
                    let help = "Combinations of values that have a percentage of their own.";
                    Share::new(telemetry.gauge(&name("adaptive_keys"), help, &[("policy", &label)]))
                })
                .collect(),
            evaluation_errors: counter(
                "sampling_policy_evaluation_error",
                "Policies that could not be evaluated on a trace, and so had no vote.",
            ),
            traces: telemetry.gauge(&name("sampling_traces_on_memory"), "Traces in the buffer.", &[]),
            spans: telemetry.gauge(&name("spans_on_memory"), "Spans in the buffer, or being handed on.", &[]),
            bytes: telemetry.gauge(&name("bytes_on_memory"), "Bytes of the buffer's memory in use.", &[]),
            removal_age: telemetry.histogram(
                &name("sampling_trace_removal_age"),
                "Seconds from a trace's first span until it left the buffer.",
                &AGE_BUCKETS,
                &[],
            ),
            timer: telemetry.histogram(
                &name("sampling_decision_timer_latency"),
                "Milliseconds that one round of decisions in one shard took.",
                &TIMER_BUCKETS,
                &[],
            ),
            delay: telemetry.histogram(
                &name("decision_delay"),
                "Seconds from when a trace was due until it was decided.",
                &DELAY_BUCKETS,
                &[],
            ),
            late_age: telemetry.histogram(
                &name("sampling_late_span_age"),
                "Seconds from the decision on a trace until spans of it that came later.",
                &AGE_BUCKETS,
                &[],
            ),
            late_errors: counter(
                "late_errors_kept",
                "Traces that were not sampled and are kept from a late error on (late_errors: keep).",
            ),
            forgotten: ["true", "false"].map(forgotten),
            without_root: counter(
                "traces_without_root",
                "Traces that were decided in time and had no root span: if many, their spans go to several gateways.",
            ),
            early: Trigger::ALL.map(early),
            stress: share(
                "stress_active",
                "Samplers that decide new traces by their id because their buffer stays nearly full.",
            ),
            limit: share("memory_limit_bytes", "The byte budgets of the buffers of all samplers."),
            rules_memory: share(
                "rules_memory_bytes",
                "Bytes of lists of values and of tables of adaptive percentages, part of the buffer's budget.",
            ),
            refused: counter("refused_requests", "Requests that found the buffer full."),
            retries: counter(
                "forward_retries",
                "Kept batches that the next stage refused and that were offered again.",
            ),
            compressed: (!settings.compression.is_none()).then(|| {
                (
                    telemetry.gauge(&name("compressed_bytes"), "Bytes that compressed blocks take.", &[]),
                    telemetry.gauge(
                        &name("compressed_original_bytes"),
                        "Bytes of compressed blocks before they were.",
                        &[],
                    ),
                    counter(
                        "decompressed_chunks",
                        "Pieces of about 4 KiB of compressed blocks that were decompressed to read kept spans.",
                    ),
                )
            }),
            telemetry: Arc::clone(telemetry),
        }
    }

    /// Blocks were compressed, freed or read.
    pub(super) fn compressed(&self, change: Compressed) {
        if let Some((bytes, raw, thaws)) = &self.compressed {
            bytes.add(change.bytes);
            raw.add(change.raw);
            thaws.inc_by(change.thaws);
        }
    }

    pub(super) fn bad_trace_states(&self, spans: usize) {
        if spans > 0 {
            self.bad_trace_states.inc_by(spans as u64);
        }
    }

    /// Shows how many keys adaptive rates know.
    pub(super) fn adaptive(&self, rules: &RuleSet) {
        for (gauge, (_, keys)) in self.adaptive_keys.iter().zip(rules.adaptive_keys()) {
            gauge.set(keys as i64);
        }
    }

    /// Rules take so many bytes beside the buffer.
    pub(super) fn rules_take(&self, bytes: usize) {
        self.rules_memory.set(bytes as i64);
    }

    /// Counts that a list of values in a file has been read again, or could not be.
    pub(super) fn list_read(&self, read: bool) {
        let outcome = if read { "ok" } else { "failed" };
        let help = "Times that a values_file had changed: read again, or not readable.";
        self.telemetry.counter(&format!("{PREFIX}value_list_reloads"), help, &[("outcome", outcome)]).inc();
    }

    pub(super) fn spans(&self, change: i64) {
        self.spans.add(change);
    }

    /// Counts what happened; `tally` is for the caller to clear.
    pub(super) fn count(&self, tally: &Tally) {
        for (counter, count) in [
            (&self.new_traces, tally.new_traces),
            (&self.late_sampled, tally.late_sampled),
            (&self.late_not_sampled, tally.late_not_sampled),
            (&self.too_large, tally.too_large),
            (&self.late_errors, tally.late_errors),
            (&self.forgotten[0], tally.forgotten[0]),
            (&self.forgotten[1], tally.forgotten[1]),
            (&self.without_root, tally.roots[0]),
            (&self.evaluation_errors, tally.votes.1),
        ] {
            if count > 0 {
                counter.inc_by(count);
            }
        }
        if tally.traces != 0 {
            self.traces.add(tally.traces);
        }
        if tally.bytes != 0 {
            self.bytes.add(tally.bytes);
        }
        observe(&self.removal_age, &tally.ages);
        observe(&self.late_age, &tally.late_ages);
        observe(&self.delay, &tally.delays);
        if tally.decided == 0 {
            return;
        }
        self.share_time(tally);
        for (series, [yes, no]) in self.by_name.iter().zip(&tally.votes.0) {
            if yes + no > 0 {
                series.yes.inc_by(*yes);
                series.no.inc_by(*no);
                series.executions.inc_by(yes + no);
            }
        }
        for (series, decisions) in self.by_name.iter().chain([&self.unmatched]).zip(&tally.decisions) {
            for (trigger, by_decision) in Trigger::ALL.into_iter().zip(decisions) {
                for (decision, &count) in Decision::ALL.into_iter().zip(by_decision) {
                    if count > 0 {
                        self.decided(series, trigger, decision, count);
                    }
                }
            }
        }
    }

    /// Shares the time that asking all policies took among them, by how often each was asked.
    fn share_time(&self, tally: &Tally) {
        let total: u64 = tally.votes.0.iter().flatten().sum();
        let nanos = u64::try_from(tally.judging.as_nanos()).unwrap_or(u64::MAX);
        if total == 0 || nanos == 0 {
            return;
        }
        for (series, votes) in self.by_name.iter().zip(&tally.votes.0) {
            let share = nanos.saturating_mul(votes.iter().sum()) / total;
            // Shards add at the same time: only whoever takes the whole microseconds out may count them.
            let whole = |rest: u64| rest.wrapping_add(share);
            let before =
                series.rest.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |rest| Some(whole(rest) % 1000));
            let (Ok(before) | Err(before)) = before;
            series.time.inc_by(whole(before) / 1000);
        }
    }

    fn decided(&self, series: &Series, trigger: Trigger, decision: Decision, count: u64) {
        self.global[decision as usize].inc_by(count);
        if let Some(early) = &self.early[trigger as usize] {
            early.inc_by(count);
        }
        let counter = series.decisions[trigger as usize][decision as usize].get_or_init(|| {
            self.telemetry.counter(
                &format!("{PREFIX}decisions"),
                "Decisions by the policy or rule that made them, and by what triggered them.",
                &[("policy", &series.name), ("trigger", trigger.name()), ("decision", decision.name())],
            )
        });
        counter.inc_by(count);
    }
}

/// Adds values to a histogram together: each alone would be four additions to what all threads share.
fn observe(histogram: &Histogram, values: &[f64]) {
    if values.is_empty() {
        return;
    }
    let local = histogram.local();
    for &value in values {
        local.observe(value);
    }
    local.flush();
}

/// A counter that nobody reads: no policy is asked where none matched.
fn detached() -> Counter {
    Telemetry::default().counter("detached", "detached", &[])
}
