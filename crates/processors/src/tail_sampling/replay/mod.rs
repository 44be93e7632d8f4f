//! Recorded requests through the sampler, offline: what `nyquist sample` does.
//!
//! The sampler is the one of the gateway, in one shard and under a simulated clock. Either all
//! requests arrive at once and every trace is decided complete; or (`pace`) each arrives when its
//! last span ended, in the order of those times, so that waiting times, late spans, rate limits and
//! the buffer's limits have the effect that they had when it was recorded.

mod summary;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::config::ComponentId;
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_core::wire::{SpanView, TracesView};
use serde::Serialize;

use super::budget;
use super::buffer::DecisionLog;
use super::config::{MAX_LOG, MAX_MEMORY_MIB, Record, TailSamplingConfig};
use super::explain::Decided;
use super::sampler::Sampler;
use super::worker::TICK;

pub use summary::{RuleSummary, Summary};

/// Traces that are decided between two looks at the log of decisions.
const SLICE: usize = 256;
/// What the log has room for beside a request's own traces: all that may be decided early with it.
const LOG_SLACK: usize = 5 << 10;

/// What became of recorded traces.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The traces in the order of their first spans.
    pub traces: Vec<TraceReport>,
    /// All of them together.
    pub summary: Summary,
}

/// What became of one trace.
#[derive(Debug, Clone, Serialize)]
pub struct TraceReport {
    /// Its id, in 32 hexadecimal digits.
    pub trace_id: String,
    /// The name of its root span, if that was recorded.
    pub root: Option<String>,
    /// Recorded spans.
    pub spans: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Spans that are kept; fewer than all where some came after the decision.
    pub kept_spans: u64,
    /// The decisions in order. Several if spans came after an earlier one had been forgotten.
    pub decisions: Vec<Decided>,
    /// The names of its spans.
    #[serde(skip)]
    pub names: BTreeSet<Arc<str>>,
}

impl TraceReport {
    /// Bytes that are kept; of a trace that is kept in part, a proportional share.
    #[must_use]
    pub fn kept_bytes(&self) -> u64 {
        let share = u128::from(self.bytes) * u128::from(self.kept_spans);
        u64::try_from(share / u128::from(self.spans.max(1))).unwrap_or(self.bytes)
    }

    /// Whether any of it is kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.kept_spans > 0 || self.decisions.iter().any(|decided| decided.kept)
    }
}

/// Replays `requests`, encoded `ExportTraceServiceRequest`s that passed the ingress check.
///
/// # Errors
/// If the configuration is not valid, or the buffer's limit is too small for what is recorded.
pub fn replay<M: AsRef<[u8]>>(config: &TailSamplingConfig, requests: &[M], pace: bool) -> Result<Report, String> {
    let mut traces = Traces::default();
    let mut arrivals: Vec<(u64, &[u8])> = Vec::new();
    let mut most_spans = 0;
    for request in requests {
        let request = request.as_ref();
        let (spans, end) = traces.read(request);
        most_spans = most_spans.max(spans);
        arrivals.push((if pace { end } else { 0 }, request));
    }
    arrivals.sort_by_key(|(at, _)| *at);
    let begin = arrivals.iter().map(|(at, _)| *at).find(|at| *at > 0).unwrap_or(0);

    let config = adapted(config, most_spans + LOG_SLACK, pace);
    let telemetry = Telemetry::new();
    let sampler = Sampler::new(&config, &ComponentId::of("tail_sampling"), Ledger::detached(), &telemetry)
        .map_err(|error| error.to_string())?;
    // Of a very long wait, a ten-thousandth is precise enough.
    let tick = TICK.max(config.decision_wait.0 / 10_000);
    let mut run = Run { sampler, traces, now: Duration::ZERO, tick, seen: 0 };
    for (at, request) in arrivals {
        run.advance(Duration::from_nanos(at.saturating_sub(begin)));
        run.insert(request)?;
    }
    run.finish();

    let traces = run.traces.list;
    let summary = Summary::of(&traces);
    Ok(Report { traces, summary })
}

/// The configuration for a replay: decisions are as in the gateway, and all of them are logged.
fn adapted(config: &TailSamplingConfig, log: usize, pace: bool) -> TailSamplingConfig {
    let mut config = config.clone();
    // One shard, so that limits on numbers of traces are exact and replays repeat.
    config.num_shards = 1;
    config.record = Record::None;
    let log = (log as u64).min(MAX_LOG);
    config.decision_log.size = Some(log);
    let log_bytes = log * DecisionLog::BYTES_EACH as u64;
    if pace {
        // The log must not take the room of traces.
        config.memory_limit_mib = ((budget::limit(&config) + log_bytes).div_ceil(1 << 20)).min(MAX_MEMORY_MIB);
    } else {
        config.memory_limit_mib = MAX_MEMORY_MIB;
        config.num_traces = None;
        config.block_on_overflow = false;
        config.stress = None;
    }
    config.memory_limit_percentage = 0;
    config
}

struct Run {
    sampler: Sampler,
    traces: Traces,
    now: Duration,
    /// How often due traces are looked for.
    tick: Duration,
    /// The number of the next decision to be read.
    seen: u64,
}

impl Run {
    fn insert(&mut self, request: &[u8]) -> Result<(), String> {
        // As in the gateway, senders wait for room, or come again.
        loop {
            let may_wait = self.sampler.pending() > 0;
            if !may_wait || !self.sampler.must_wait() {
                match self.sampler.insert(request, self.now) {
                    Err(refusal) if refusal.is_retryable() && may_wait => {}
                    outcome => {
                        self.collect();
                        return outcome.map_err(|refusal| refusal.to_string());
                    }
                }
            }
            self.tick();
        }
    }

    /// Lets time pass as the gateway's tasks see it; where nothing waits, all at once.
    fn advance(&mut self, to: Duration) {
        while self.now < to && self.sampler.pending() > 0 {
            self.now = to.min(self.now + self.tick);
            self.decide();
        }
        self.now = self.now.max(to);
    }

    fn tick(&mut self) {
        self.now += self.tick;
        self.decide();
    }

    fn decide(&mut self) {
        while self.sampler.decide(0, self.now, SLICE) {
            self.collect();
        }
        self.collect();
    }

    /// Lets everything that waits be decided in its time.
    fn finish(&mut self) {
        while self.sampler.pending() > 0 {
            self.tick();
        }
    }

    /// Reads what has been decided and what is kept.
    fn collect(&mut self) {
        let (decisions, next) = self.sampler.decisions_since(0, self.seen, self.now);
        self.seen = next;
        for decided in decisions {
            self.traces.decided(decided);
        }
        while let Some(out) = self.sampler.take(0, self.now) {
            self.traces.kept(out.batch().wire());
            out.accepted();
        }
    }
}

/// What is known of the recorded traces.
#[derive(Default)]
struct Traces {
    list: Vec<TraceReport>,
    by_id: HashMap<[u8; 16], usize>,
    /// Names of spans, each stored once.
    names: HashSet<Arc<str>>,
}

impl Traces {
    /// Notes the spans of a request; returns how many, and the latest end.
    fn read(&mut self, request: &[u8]) -> (usize, u64) {
        let (mut spans, mut latest) = (0, 0);
        for span in spans_of(request) {
            let fields = span.fields();
            let Ok(id) = <[u8; 16]>::try_from(fields.trace_id) else { continue };
            spans += 1;
            latest = latest.max(fields.end_time);
            let name = self.name(fields.name);
            let index = *self.by_id.entry(id).or_insert_with(|| {
                self.list.push(TraceReport {
                    trace_id: hex::encode(id),
                    root: None,
                    spans: 0,
                    bytes: 0,
                    kept_spans: 0,
                    decisions: Vec::new(),
                    names: BTreeSet::new(),
                });
                self.list.len() - 1
            });
            let Some(trace) = self.list.get_mut(index) else { continue };
            trace.spans += 1;
            trace.bytes += span.bytes().len() as u64;
            if fields.parent_span_id.iter().all(|&byte| byte == 0) && trace.root.is_none() {
                trace.root = Some(name.to_string());
            }
            trace.names.insert(name);
        }
        (spans, latest)
    }

    fn name(&mut self, name: &[u8]) -> Arc<str> {
        let name = String::from_utf8_lossy(name);
        if let Some(known) = self.names.get(&*name) {
            return Arc::clone(known);
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        name
    }

    fn trace(&mut self, id: &[u8]) -> Option<&mut TraceReport> {
        let index = *self.by_id.get(id)?;
        self.list.get_mut(index)
    }

    fn decided(&mut self, decided: Decided) {
        let id = hex::decode(&decided.trace_id).unwrap_or_default();
        if let Some(trace) = self.trace(&id) {
            trace.decisions.push(decided);
        }
    }

    fn kept(&mut self, batch: &[u8]) {
        for span in spans_of(batch) {
            if let Some(trace) = self.trace(span.trace_id()) {
                trace.kept_spans += 1;
            }
        }
    }
}

fn spans_of(request: &[u8]) -> impl Iterator<Item = SpanView<'_>> {
    let scopes = TracesView::new(request).resource_spans().flat_map(|resource| resource.scope_spans());
    scopes.flat_map(|scope| scope.spans())
}
