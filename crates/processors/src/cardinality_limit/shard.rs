//! The state, split by metric into shards that each have a lock of their own.

use std::collections::VecDeque;
use std::sync::Arc;

use nyquist_core::wire::{MetricKind, Temporality, put_len_field, put_tag, put_varint};
use parking_lot::Mutex;

use super::admission::Scratch;
use super::hash::Table;
use super::metric::Metric;
use super::output::{Group, Turn};
use super::report::Usage;
use super::scan::Context;
use super::shared::Shared;
use crate::attributes::put_nested;

const SHARDS: usize = 16;
/// How many outputs one lock hold of a flush takes.
const OUTPUTS_PER_LOCK: usize = 1024;

/// All shards.
pub(super) struct Shards(Vec<Mutex<Shard>>);

/// Metrics, and what is to be emitted of them.
#[derive(Default)]
struct Shard {
    metrics: Table<Metric>,
    queue: Queue,
}

/// The outputs that are to be emitted, each once.
#[derive(Default)]
struct Queue(VecDeque<Queued>);

/// The metric's hash, and the index of the output.
type Queued = (u64, u32);

/// What an output takes while it is to be emitted.
pub(super) const QUEUED_BYTES: usize = size_of::<Queued>();

impl Queue {
    fn bytes(&self) -> usize {
        self.0.capacity() * QUEUED_BYTES
    }

    /// Puts `outputs` of the metric `hash` at its end.
    fn extend(&mut self, shared: &Shared, hash: u64, outputs: &mut Vec<u32>) {
        let before = self.bytes();
        if self.0.capacity() - self.0.len() < outputs.len() {
            // They cannot be refused any more; so where memory is short, it grows by no more than it must.
            if shared.fits(before) {
                self.0.reserve(outputs.len());
            } else {
                self.0.reserve_exact(outputs.len());
            }
        }
        self.0.extend(outputs.drain(..).map(|output| (hash, output)));
        shared.resized(before, self.bytes());
    }

    fn relieve(&mut self, shared: &Shared) {
        let before = self.bytes();
        self.0.shrink_to_fit();
        shared.resized(before, self.bytes());
    }
}

/// A point that a flush emits.
pub(super) struct Emission {
    pub(super) group: Arc<Group>,
    point: Vec<u8>,
    /// The points that went into it.
    pub(super) held: usize,
}

impl Default for Shards {
    fn default() -> Self {
        Self((0..SHARDS).map(|_| Mutex::default()).collect())
    }
}

impl Shards {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Works on the state of the context's metric, which is made if it is not there. `None` if
    /// there is no memory for it.
    pub(super) fn with<R>(
        &self,
        shared: &Shared,
        context: &Context<'_>,
        scratch: &mut Scratch,
        work: impl FnOnce(&mut Metric, &mut Scratch) -> R,
    ) -> Option<R> {
        let epoch = shared.epoch();
        let mut shard = self.0.get(context.metric_hash as usize % self.0.len())?.lock();
        let Shard { metrics, queue } = &mut *shard;
        let metric = match metrics.get_mut(&context.metric_hash) {
            Some(metric) => metric,
            None => {
                if !shared.fits(size_of::<Metric>() + 2 * metrics.allocation_size() + 4096) {
                    return None;
                }
                let before = metrics.allocation_size();
                metrics.insert(
                    context.metric_hash,
                    Metric::new(shared, context.metric_hash, context.name, Arc::clone(&context.sender.tenant), epoch),
                );
                shared.resized(before, metrics.allocation_size());
                metrics.get_mut(&context.metric_hash)?
            }
        };
        metric.seen = epoch;
        let series = metric.series.len();
        let result = work(metric, scratch);
        if !scratch.dirty.is_empty() {
            queue.extend(shared, context.metric_hash, &mut scratch.dirty);
        }
        // What only passes changes nothing; what is absorbed is booked by its own lock hold.
        if metric.series.len() != series || scratch.grown {
            metric.book(shared);
            scratch.grown = false;
        }
        Some(result)
    }

    /// What the metrics of shard `index` are found by.
    pub(super) fn identities(&self, index: usize) -> Vec<u64> {
        self.0.get(index).map(|shard| shard.lock().metrics.keys().copied().collect()).unwrap_or_default()
    }

    /// Reads the state of one metric of shard `index`.
    pub(super) fn read(&self, index: usize, identity: u64, read: impl FnOnce(&Metric)) {
        if let Some(metric) = self.0.get(index).map(Mutex::lock).as_ref().and_then(|shard| shard.metrics.get(&identity))
        {
            read(metric);
        }
    }

    /// Puts in what was restored.
    pub(super) fn insert(&self, shared: &Shared, identity: u64, metric: Metric) {
        let Some(shard) = self.0.get(identity as usize % self.0.len()) else { return };
        let metrics = &mut shard.lock().metrics;
        let before = metrics.allocation_size();
        metrics.insert(identity, metric);
        shared.resized(before, metrics.allocation_size());
    }

    /// How many outputs of shard `index` are to be emitted.
    pub(super) fn queued(&self, index: usize) -> usize {
        self.0.get(index).map_or(0, |shard| shard.lock().queue.0.len())
    }

    /// Takes the first `left` outputs that are to be emitted from shard `index`, at most so many as one lock hold may,
    /// and tells how many of them are left then. What waits for a newer time goes to the end.
    pub(super) fn take(&self, shared: &Shared, index: usize, left: &mut usize, is_last: bool) -> Vec<Emission> {
        let mut taken = Vec::new();
        let Some(shard) = self.0.get(index) else { return taken };
        let mut shard = shard.lock();
        let Shard { metrics, queue } = &mut *shard;
        let count = queue.0.len().min(*left).min(OUTPUTS_PER_LOCK);
        for _ in 0..count {
            let Some((hash, output)) = queue.0.pop_front() else { break };
            if let Some(metric) = metrics.get_mut(&hash)
                && take_output(shared, metric, output, is_last, &mut taken)
            {
                queue.0.push_back((hash, output));
            }
        }
        *left = if count == 0 { 0 } else { *left - count };
        taken
    }

    /// Bytes that all of it takes now, as they should be booked.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        let one = |shard: &Shard| {
            let metrics = shard.metrics.values().map(Metric::bytes).sum::<usize>();
            metrics + shard.metrics.allocation_size() + shard.queue.bytes()
        };
        self.0.iter().map(|shard| one(&shard.lock())).sum()
    }

    /// Gives up what is idle, and half of what can be given up if somebody needs memory.
    pub(super) fn sweep(&self, shared: &Shared, is_due: bool, is_starved: bool) {
        let epoch = shared.epoch();
        let mut dirty = Vec::new();
        for shard in &self.0 {
            let hashes: Vec<u64> = shard.lock().metrics.keys().copied().collect();
            if is_starved {
                shard.lock().queue.relieve(shared);
            }
            // One metric a lock hold.
            for hash in hashes {
                let mut shard = shard.lock();
                let Shard { metrics, queue } = &mut *shard;
                let Some(metric) = metrics.get_mut(&hash) else { continue };
                let last_seen = metric.seen;
                metric.seen = epoch;
                if is_due {
                    metric.sweep(shared, &mut dirty);
                }
                if is_starved {
                    metric.relieve(shared, &mut dirty);
                }
                metric.book(shared);
                metric.seen = last_seen;
                queue.extend(shared, hash, &mut dirty);
                if metric.is_empty() && shared.is_idle(last_seen, epoch) {
                    metric.unbook(shared);
                    metrics.remove(&hash);
                }
            }
        }
    }

    /// How the metrics are doing, first those that have or would have the most series; of all but `most` of them only
    /// how many they have.
    pub(super) fn usage(&self, most: usize) -> Vec<Usage> {
        let mut busiest: Vec<(usize, u64, usize, usize)> = Vec::new();
        for (index, shard) in self.0.iter().enumerate() {
            let shard = shard.lock();
            busiest.extend(shard.metrics.iter().map(|(hash, metric)| (metric.weight(), *hash, metric.used, index)));
        }
        busiest.sort_unstable_by(|one, other| other.cmp(one));
        let mut usage = Vec::new();
        let rest = busiest.split_off(most.min(busiest.len()));
        for (_, hash, _, index) in busiest {
            let mut shard = self.0.get(index).map(Mutex::lock);
            if let Some(metric) = shard.as_mut().and_then(|shard| shard.metrics.get_mut(&hash)) {
                usage.push(metric.usage());
            }
        }
        // One sum.
        usage.push(Usage { series: rest.iter().map(|(_, _, series, _)| series).sum(), ..Usage::default() });
        usage
    }
}

/// Takes one output's report. True if it waits.
fn take_output(shared: &Shared, metric: &mut Metric, index: u32, is_last: bool, taken: &mut Vec<Emission>) -> bool {
    let Some(output) = metric.outputs.get_mut(index as usize).filter(|output| output.is_dirty) else { return false };
    let group = Arc::clone(&output.group);
    let before = output.heap();
    let is_news = (output.is_active() || output.pending > 0) && !output.is_of_nobody(shared.gauge);
    if is_news {
        let time = match output.turn(is_last) {
            Turn::Wait => return true,
            Turn::Report(time) => time,
        };
        let held = output.pending as usize;
        let point = output.report(time, shared.gauge);
        taken.push(Emission { group: Arc::clone(&group), point, held });
    }
    output.is_dirty = false;
    let is_over = output.is_closing();
    if is_over && (output.was_reported() || output.pending > 0) && !output.is_delta() {
        let held = output.pending as usize;
        taken.push(Emission { group, point: output.end(), held });
    }
    let after = output.heap();
    metric.heap = metric.heap + after - before;
    if is_over {
        metric.free_output(index);
    }
    false
}

/// Sorts `emissions` as [`encode`] wants them.
pub(super) fn sort(emissions: &mut [Emission]) {
    emissions
        .sort_by_key(|Emission { group, .. }| (group.sender, group.resource_hash, group.scope_hash, group.context));
}

/// The message of all `emissions`, each under its resource, scope and metric.
pub(super) fn encode(emissions: &[Emission]) -> Vec<u8> {
    let mut out = Vec::new();
    for resource in emissions.chunk_by(|one, other| one.group.resource_hash == other.group.resource_hash) {
        put_nested(&mut out, 1, |out| {
            put_first(out, resource, |group| &group.resource);
            for scope in resource.chunk_by(|one, other| one.group.scope_hash == other.group.scope_hash) {
                put_nested(out, 2, |out| {
                    put_first(out, scope, |group| &group.scope);
                    for metric in scope.chunk_by(|one, other| one.group.context == other.group.context) {
                        put_nested(out, 2, |out| put_metric(out, metric));
                    }
                });
            }
        });
    }
    out
}

fn put_first(out: &mut Vec<u8>, emissions: &[Emission], part: impl Fn(&Group) -> &[u8]) {
    if let Some(first) = emissions.first() {
        out.extend_from_slice(part(&first.group));
    }
}

fn put_metric(out: &mut Vec<u8>, points: &[Emission]) {
    let Some(first) = points.first() else { return };
    let kind = first.group.kind;
    out.extend_from_slice(&first.group.metric);
    put_nested(out, kind.field_number(), |out| {
        for point in points {
            put_len_field(out, 1, &point.point);
        }
        let (temporality, monotonic) = match kind {
            MetricKind::Sum { temporality, monotonic } => (temporality, monotonic),
            MetricKind::Histogram { temporality } | MetricKind::ExponentialHistogram { temporality } => {
                (temporality, false)
            }
            MetricKind::Gauge | MetricKind::Summary => return,
        };
        put_tag(out, 2, 0);
        put_varint(
            out,
            match temporality {
                Temporality::Unspecified => 0,
                Temporality::Delta => 1,
                Temporality::Cumulative => 2,
            },
        );
        if monotonic {
            put_tag(out, 3, 0);
            put_varint(out, 1);
        }
    });
}
