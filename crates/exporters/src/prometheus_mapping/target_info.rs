//! `target_info`: the attributes of a resource as the labels of one series.
//!
//! A sample is due when the labels are new or changed, and then at least a minute (or as set) after the one
//! before; timestamps of a series strictly increase, and resources of one push are merged. When the
//! labels of a target (`job` and `instance`) change, or a target has been silent for five minutes,
//! the old series ends with a stale marker. Where several resources share a target, their series
//! alternate without being ended. When there are too many, those that were heard of longest ago end.
//!
//! Each series has an [`Owner`], whoever is to get its samples: a stale marker that another one's push, or the clock,
//! makes due, goes to the owner and nobody else.

use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;

use super::exemplars::Exemplars;
use super::family::Family;
use super::kinds::{Kind, MetricType};
use super::labels::PointLabels;
use super::seed::HashSeed;
use super::{Point, PointValue, STALE_NAN_BITS, Sink, Target};

/// Time between samples of unchanged labels, unless another one is set: of the data, not the clock.
const INTERVAL: Duration = Duration::from_secs(60);

/// After this time without data a target is gone, unless another one is set.
const IDLE: Duration = Duration::from_secs(300);

/// What the labels of all remembered series may take together between pushes, in bytes, unless another limit is set.
const MAX_BYTES: usize = 16 << 20;

/// What a remembered series takes besides its labels, roughly.
const ENTRY_BYTES: usize = 200;

const HELP: &[u8] = b"Target metadata";

/// Whom a target belongs to.
pub trait Owner: Clone {
    /// What it takes in memory, roughly, in bytes.
    fn bytes(&self) -> usize;
}

/// All belong to one.
impl Owner for () {
    fn bytes(&self) -> usize {
        0
    }
}

struct Series<O> {
    hash: u64,
    labels: PointLabels,
    owner: O,
    target: u64,
    last_sample: Option<i64>,
    is_stale: bool,
    seen: Duration,
}

impl<O: Owner> Series<O> {
    fn bytes(&self) -> usize {
        self.labels.encoded().len() + self.owner.bytes() + ENTRY_BYTES
    }
}

struct Current {
    series: u64,
    is_shared: bool,
}

/// A sample that is due.
struct Due<'a> {
    hash: u64,
    labels: &'a PointLabels,
    /// In milliseconds since the epoch.
    time: i64,
    is_stale: bool,
}

impl<'a> Due<'a> {
    fn point(&self, family: &'a Arc<Family>, exemplars: &'a Exemplars) -> Point<'a> {
        let value = if self.is_stale { f64::from_bits(STALE_NAN_BITS) } else { 1.0 };
        Point {
            family,
            labels: self.labels,
            hash: family.hash() ^ self.hash,
            time: self.time,
            start: 0,
            is_delta: false,
            is_stale: self.is_stale,
            items: 0,
            value: PointValue::Number(value),
            exemplars,
        }
    }
}

struct Seen {
    series: u64,
    newest: i64,
}

/// What is known of the targets.
pub struct TargetInfo<O = ()> {
    family: Arc<Family>,
    series: LruCache<u64, Series<O>>,
    targets: LruCache<u64, Current>,
    bytes: usize,
    seen: Vec<Seen>,
    /// In milliseconds.
    interval: i64,
    idle: Duration,
    max_bytes: usize,
    last_sweep: Duration,
    no_exemplars: Exemplars,
}

/// A [`Target`] that outlives the walk.
#[derive(Debug)]
pub struct OwnedTarget {
    id: u64,
    labels: PointLabels,
    hash: u64,
    newest: i64,
}

impl From<&Target<'_>> for OwnedTarget {
    fn from(&Target { id, labels, hash, newest }: &Target<'_>) -> Self {
        Self { id, labels: labels.clone(), hash, newest }
    }
}

impl OwnedTarget {
    /// The target again.
    #[must_use]
    pub fn view(&self) -> Target<'_> {
        let Self { id, ref labels, hash, newest } = *self;
        Target { id, labels, hash, newest }
    }
}

fn family(namespace: &str, seed: &HashSeed) -> Arc<Family> {
    let name = if namespace.is_empty() { "target_info".to_owned() } else { format!("{namespace}_target_info") };
    Arc::new(Family::new(name, String::new(), Kind::Gauge, MetricType::Gauge, seed))
}

impl TargetInfo {
    /// Notes a target that a push holds. `now` is the clock's.
    pub fn note(&mut self, target: &Target<'_>, now: Duration) {
        self.note_of(target, &(), now);
    }

    /// At the end of a push: hands what is due to `sink`. `now` and `unix_millis` are the clock's.
    pub fn emit<S: Sink>(&mut self, now: Duration, unix_millis: i64, sink: &mut S) {
        self.emit_noted(sink);
        self.end_silent(now, unix_millis, sink, |_, ()| {});
    }
}

impl<O: Owner> TargetInfo<O> {
    /// `target_info` under `namespace` (empty for none).
    #[must_use]
    pub fn new(namespace: &str, seed: &HashSeed) -> Self {
        Self {
            family: family(namespace, seed),
            series: LruCache::unbounded(),
            targets: LruCache::unbounded(),
            bytes: 0,
            seen: Vec::new(),
            interval: INTERVAL.as_millis() as i64,
            idle: IDLE,
            max_bytes: MAX_BYTES,
            last_sweep: Duration::ZERO,
            no_exemplars: Exemplars::default(),
        }
    }

    /// With another time between samples of unchanged labels.
    #[must_use]
    pub fn every(mut self, interval: Duration) -> Self {
        self.interval = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX);
        self
    }

    /// With another time without data after which a target is gone.
    #[must_use]
    pub fn gone_after(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// With another limit of what all may take, in bytes.
    #[cfg(test)]
    pub(crate) fn within(mut self, max_bytes: usize) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// How often silent targets are looked for, at the most.
    #[must_use]
    pub fn sweep_interval(&self) -> Duration {
        self.idle / 10
    }

    /// Notes a target of `owner` that a push holds; its hashes are in the owner's partition. `now` is the clock's.
    pub fn note_of(&mut self, target: &Target<'_>, owner: &O, now: Duration) {
        if let Some(known) = self.series.get_mut(&target.hash) {
            known.seen = now;
        } else {
            let new = Series {
                hash: target.hash,
                labels: target.labels.clone(),
                owner: owner.clone(),
                target: target.id,
                last_sample: None,
                is_stale: false,
                seen: now,
            };
            self.bytes += new.bytes();
            self.series.put(target.hash, new);
        }
        match self.seen.iter_mut().find(|seen| seen.series == target.hash) {
            Some(seen) => seen.newest = seen.newest.max(target.newest),
            None => self.seen.push(Seen { series: target.hash, newest: target.newest }),
        }
    }

    /// At the end of a push: hands what its targets make due to `sink`. All of it belongs to their owner.
    pub fn emit_noted<S: Sink>(&mut self, sink: &mut S) {
        let (family, exemplars) = (Arc::clone(&self.family), std::mem::take(&mut self.no_exemplars));
        let mut is_first = true;
        self.emit_due(|due| {
            if std::mem::take(&mut is_first) {
                sink.metric(&family, HELP);
            }
            sink.point(&due.point(&family, &exemplars));
        });
        self.no_exemplars = exemplars;
    }

    /// Ends the series of silent targets, and those that were noted longest ago if all take too much memory. Before
    /// the stale markers of an owner `address` is called with it. `now` and `unix_millis` are the clock's.
    pub fn end_silent<S: Sink>(
        &mut self,
        now: Duration,
        unix_millis: i64,
        sink: &mut S,
        mut address: impl FnMut(&mut S, &O),
    ) {
        let (family, exemplars) = (Arc::clone(&self.family), std::mem::take(&mut self.no_exemplars));
        let mut due = |gone: &mut Series<O>| {
            end(gone, unix_millis, |due, owner| {
                address(sink, owner);
                sink.metric(&family, HELP);
                sink.point(&due.point(&family, &exemplars));
            });
        };
        if now.saturating_sub(self.last_sweep) >= self.sweep_interval() {
            self.last_sweep = now;
            self.sweep(now, &mut due);
        }
        let forgotten = self.make_room(&mut due);
        self.no_exemplars = exemplars;
        if forgotten > 0 {
            sink.targets_forgotten(forgotten);
        }
    }

    /// Ends those that were noted longest ago, until the others are within the bounds. Returns how many.
    fn make_room(&mut self, due: &mut impl FnMut(&mut Series<O>)) -> usize {
        let before = self.series.len();
        while self.bytes > self.max_bytes && self.series.len() > 1 {
            let Some((hash, mut gone)) = self.series.pop_lru() else { break };
            due(&mut gone);
            self.forget(hash, &gone);
        }
        before - self.series.len()
    }

    fn forget(&mut self, hash: u64, gone: &Series<O>) {
        self.bytes = self.bytes.saturating_sub(gone.bytes());
        if self.targets.peek(&gone.target).is_some_and(|target| target.series == hash) {
            self.targets.pop(&gone.target);
        }
    }

    fn emit_due(&mut self, mut due: impl FnMut(Due<'_>)) {
        let mut seen = std::mem::take(&mut self.seen);
        for &Seen { series: hash, newest } in &seen {
            let ended = self.claim_target(hash, &seen);
            if let Some(old) = ended.and_then(|hash| self.series.peek_mut(&hash)) {
                end(old, newest, |marker, _| due(marker));
            }
            let Some(series) = self.series.peek_mut(&hash) else { continue };
            let is_due = match series.last_sample {
                None => true,
                Some(last) if series.is_stale => newest > last,
                Some(last) => newest.saturating_sub(last) >= self.interval,
            };
            if is_due {
                series.last_sample = Some(newest);
                series.is_stale = false;
                due(Due { hash: series.hash, labels: &series.labels, time: newest, is_stale: false });
            }
        }
        seen.clear();
        self.seen = seen;
    }

    /// Makes the series `hash` the current one of its target. Returns the one that it ends.
    fn claim_target(&mut self, hash: u64, seen: &[Seen]) -> Option<u64> {
        let series = self.series.peek(&hash)?;
        let has_come_back = series.is_stale;
        let Some(target) = self.targets.get_mut(&series.target) else {
            self.targets.put(series.target, Current { series: hash, is_shared: false });
            return None;
        };
        if target.series == hash {
            return None;
        }
        // Labels that were ended and are there again, or both in one push: several resources
        // share this target.
        target.is_shared |= has_come_back || seen.iter().any(|seen| seen.series == target.series);
        let old = std::mem::replace(&mut target.series, hash);
        (!target.is_shared).then_some(old)
    }

    fn sweep(&mut self, now: Duration, due: &mut impl FnMut(&mut Series<O>)) {
        // Least recently used first: the first that is not idle ends the sweep.
        while let Some((_, oldest)) = self.series.peek_lru() {
            if now.saturating_sub(oldest.seen) < self.idle {
                break;
            }
            let Some((hash, mut gone)) = self.series.pop_lru() else { break };
            due(&mut gone);
            self.forget(hash, &gone);
        }
    }
}

/// Ends a series with a stale marker, later than its last sample.
fn end<O>(series: &mut Series<O>, at: i64, due: impl FnOnce(Due<'_>, &O)) {
    let Some(last) = series.last_sample.filter(|_| !series.is_stale) else { return };
    let time = at.max(last.saturating_add(1));
    series.last_sample = Some(time);
    series.is_stale = true;
    due(Due { hash: series.hash, labels: &series.labels, time, is_stale: true }, &series.owner);
}
