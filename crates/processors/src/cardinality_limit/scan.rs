//! The first pass over a batch: which points pass, and what becomes of the others.
//!
//! Attributes are hashed where they are, before any lock is taken; a lock hold decides on a
//! bounded number of points of one metric. Nothing is decoded.

use nyquist_core::batch::Metadata;
use nyquist_core::wire::{Fields, KeyValue, MetricFields, MetricKind, MetricsView, Temporality, Value};

use super::admission::{Decision, Incoming, Scratch};
use super::metric::{Attribute, Names};
use super::output::Group;
use super::shard::Shards;
use super::shared::{Sender, Shared};
use crate::accumulate::write::attributes_field;
use crate::skew::SkewLimit;

/// How many points one lock hold decides on.
pub(super) const POINTS_PER_LOCK: usize = 256;

/// Where a point belongs.
#[derive(Debug, Clone)]
pub(super) struct Context<'a> {
    /// The hash of all that follows.
    pub(super) hash: u64,
    pub(super) sender: Sender,
    pub(super) resource_hash: u64,
    pub(super) scope_hash: u64,
    /// The hash of what budgets are kept for: the metric's name, and whose it is.
    pub(super) metric_hash: u64,
    pub(super) name: &'a [u8],
    pub(super) kind: MetricKind,
    /// Up to when the times of its points are believed.
    pub(super) skew_limit: SkewLimit,
    /// The `ResourceMetrics`, `ScopeMetrics` and `Metric`.
    resource: &'a [u8],
    scope: &'a [u8],
    metric: &'a [u8],
}

impl Context<'_> {
    /// A copy for outputs, which outlive the batch.
    pub(super) fn group(&self) -> Group {
        Group {
            context: self.hash,
            sender: self.sender.hash,
            metadata: self.sender.metadata.clone(),
            resource_hash: self.resource_hash,
            scope_hash: self.scope_hash,
            kind: self.kind,
            resource: without(self.resource, &[2]),
            scope: without(self.scope, &[2]),
            metric: without(self.metric, &[5, 7, 9, 10, 11]),
        }
    }
}

/// `message` without its length-delimited fields `numbers`.
fn without(message: &[u8], numbers: &[u32]) -> Box<[u8]> {
    let mut out = Vec::new();
    crate::attributes::rewrite(message, &mut out, |number, _, _| numbers.contains(&number));
    out.into_boxed_slice()
}

/// A point that does not pass as it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Action {
    /// Where in the batch the point is.
    pub(super) offset: usize,
    pub(super) len: usize,
    pub(super) fingerprint: u64,
    pub(super) decision: Decision,
    /// The index of its context.
    pub(super) context: usize,
}

/// What is to be done with a batch.
#[derive(Default)]
pub(super) struct Plan<'a> {
    /// Of the points that do not pass.
    pub(super) contexts: Vec<(Context<'a>, Names)>,
    /// In the order of the batch.
    pub(super) actions: Vec<Action>,
}

/// A point, before it is decided on.
struct Candidate<'a> {
    fingerprint: u64,
    point: &'a [u8],
    time: u64,
    /// Where its attributes end; they begin where the last point's end.
    attributes_end: usize,
}

/// Decides on all points of the batch in `bytes`.
pub(super) fn plan<'a>(shared: &Shared, shards: &Shards, metadata: &Metadata, bytes: &'a [u8]) -> Plan<'a> {
    let mut pass = Pass {
        shared,
        shards,
        base: bytes,
        plan: Plan::default(),
        candidates: Vec::new(),
        attributes: Vec::new(),
        scratch: Scratch::default(),
    };
    let known_sender = shared.sender(metadata);
    let skew_limit = shared.skew_limit();
    for resource in MetricsView::new(bytes).resource_metrics() {
        let resource_hash = sum_of_hashes(shared, resource.resource_attributes());
        let sender = known_sender.clone().unwrap_or_else(|| shared.sender_of(resource.resource_attributes()));
        let owner = (sender.tenant.hash != 0).then_some(sender.tenant.hash);
        let owner = owner.into_iter().chain(shared.per_resource.then_some(resource_hash)).fold(0, u64::wrapping_add);
        for scope in resource.scope_metrics() {
            let scope_hash = shared.hashes.mix(&[
                shared.hashes.bytes(scope.scope_name()),
                shared.hashes.bytes(scope.scope_version()),
                sum_of_hashes(shared, scope.scope_attributes()),
            ]);
            for metric in scope.metrics() {
                let fields = metric.fields();
                let Some(kind) = fields.kind else { continue };
                let name_hash = shared.hashes.bytes(fields.name);
                let unit_hash = shared.hashes.bytes(fields.unit);
                let identity = [sender.hash, resource_hash, scope_hash, name_hash, unit_hash, kind_code(kind)];
                let metric_hash = if owner == 0 { name_hash } else { shared.hashes.mix(&[owner, name_hash]) };
                let context = Context {
                    hash: shared.hashes.mix(&identity),
                    sender: sender.clone(),
                    resource_hash,
                    scope_hash,
                    metric_hash,
                    name: fields.name,
                    kind,
                    skew_limit,
                    resource: resource.bytes(),
                    scope: scope.bytes(),
                    metric: metric.bytes(),
                };
                pass.metric(&context, &fields);
            }
        }
    }
    pass.plan
}

fn sum_of_hashes<'a>(shared: &Shared, attributes: impl Iterator<Item = KeyValue<'a>>) -> u64 {
    attributes.fold(0, |sum, attribute| sum.wrapping_add(shared.hashes.attribute(&attribute)))
}

fn kind_code(kind: MetricKind) -> u64 {
    let temporality = |temporality| match temporality {
        Temporality::Unspecified => 0,
        Temporality::Delta => 1,
        Temporality::Cumulative => 2,
    };
    match kind {
        MetricKind::Gauge => 0,
        MetricKind::Summary => 1,
        MetricKind::Sum { temporality: own, monotonic } => 0x10 | temporality(own) << 1 | u64::from(monotonic),
        MetricKind::Histogram { temporality: own } => 0x20 | temporality(own),
        MetricKind::ExponentialHistogram { temporality: own } => 0x30 | temporality(own),
    }
}

struct Pass<'a, 's> {
    shared: &'s Shared,
    shards: &'s Shards,
    base: &'a [u8],
    plan: Plan<'a>,
    candidates: Vec<Candidate<'a>>,
    attributes: Vec<Attribute<'a>>,
    scratch: Scratch,
}

impl<'a> Pass<'a, '_> {
    fn metric(&mut self, context: &Context<'a>, fields: &MetricFields<'a>) {
        let attributes_field = attributes_field(context.kind);
        for point in fields.point_bytes() {
            let (mut fingerprint, mut time) = (context.hash, 0);
            for field in Fields::new(point) {
                match field.value {
                    Value::Len(encoded) if field.number == attributes_field => {
                        let attribute = KeyValue::new(encoded);
                        let hash = self.shared.hashes.attribute(&attribute);
                        fingerprint = fingerprint.wrapping_add(hash);
                        self.attributes.push(Attribute { hash, key: attribute.key, value: attribute.value });
                    }
                    Value::Fixed64(value) if field.number == 3 => time = value,
                    _ => {}
                }
            }
            self.candidates.push(Candidate { fingerprint, point, time, attributes_end: self.attributes.len() });
            if self.candidates.len() >= POINTS_PER_LOCK {
                self.decide(context);
            }
        }
        self.decide(context);
    }

    fn decide(&mut self, context: &Context<'a>) {
        if self.candidates.is_empty() {
            return;
        }
        let before = self.plan.actions.len();
        let index = self.plan.contexts.len();
        let names = self.shards.with(self.shared, context, &mut self.scratch, |metric, scratch| {
            let mut start = 0;
            for candidate in &self.candidates {
                let attributes = self.attributes.get(start..candidate.attributes_end).unwrap_or_default();
                start = candidate.attributes_end;
                let Candidate { fingerprint, point, time, .. } = *candidate;
                let incoming = Incoming { context, fingerprint, attributes, point, time };
                let decision = metric.decide(self.shared, &incoming, scratch);
                let decision = if self.shared.dry_run { metric.note(self.shared, decision) } else { decision };
                if decision != Decision::Pass {
                    self.plan.actions.push(action(self.base, candidate, decision, index));
                }
            }
            if self.plan.actions.len() > before { Names::clone(&metric.names) } else { Names::default() }
        });
        let names = names.unwrap_or_else(|| {
            for candidate in &self.candidates {
                let decision = without_memory(self.shared);
                if decision != Decision::Pass {
                    self.plan.actions.push(action(self.base, candidate, decision, index));
                }
            }
            Names::default()
        });
        if self.plan.actions.len() > before {
            self.plan.contexts.push((context.clone(), names));
        }
        self.candidates.clear();
        self.attributes.clear();
    }
}

fn action(base: &[u8], candidate: &Candidate<'_>, decision: Decision, context: usize) -> Action {
    let offset = super::edit::offset(base, candidate.point);
    Action { offset, len: candidate.point.len(), fingerprint: candidate.fingerprint, decision, context }
}

/// What becomes of the points of a metric for which there is no memory.
fn without_memory(shared: &Shared) -> Decision {
    shared.starve();
    if shared.dry_run {
        return Decision::Pass;
    }
    match shared.on_exceed {
        super::config::OnExceed::TagOnly => Decision::Tag,
        _ => Decision::Drop(nyquist_core::batch::DropReason::MemoryPressure),
    }
}
