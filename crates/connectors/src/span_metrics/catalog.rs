//! All series: which there are, within which bounds, and what they have counted so far.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use lru::LruCache;
use nyquist_core::table::Table;

use super::plan::Plan;
use super::recorder::Recorder;

/// The series that has what others would have counted beyond a limit.
pub(super) const OVERFLOW: &[u8] = b"otel.metric.overflow";

/// The group of resources that have none of their own.
const SURPLUS: u64 = 0;

/// One series' attributes are not to be longer than this: a span name of a megabyte is a mistake.
const MAX_ATTRIBUTES: usize = 64 << 10;

/// All series, by place and by fingerprint.
pub(super) struct Catalog {
    plan: Arc<Plan>,
    series: Vec<Option<Series>>,
    free: Vec<u32>,
    by_fingerprint: Table<u32>,
    groups: Table<Group>,
    /// Groups that found no room since the last report, no more than there is room for.
    refused_groups: HashSet<u64>,
    /// Fingerprints of series that have gone silent, and when they were last reported.
    remembered: LruCache<u64, u64>,
    bytes: usize,
    /// What one series takes beside its attributes, with its parts in all lanes.
    bytes_per_series: usize,
    /// The time of the last report, Unix nanoseconds.
    last_report: u64,
}

/// What is reported under one resource.
pub(super) struct Group {
    /// The resource as a field of a `ResourceMetrics`; empty if it is left out.
    pub(super) resource: Box<[u8]>,
    /// The places of its series, for each family.
    pub(super) series: Vec<Vec<u32>>,
    /// Of those in `series`, how many are overflow series.
    overflows: Vec<usize>,
    last_seen: Duration,
    is_limited: bool,
}

/// Spans (or events) with the same attributes.
pub(super) struct Series {
    fingerprint: u64,
    group: u64,
    family: usize,
    /// Its attributes, as fields 7.
    pub(super) attributes: Box<[u8]>,
    /// When it began, Unix nanoseconds.
    pub(super) start: u64,
    /// The time of its last report; 0 if there was none.
    pub(super) reported: u64,
    last_seen: Duration,
    /// A lane has asked for it since it was last about to go.
    is_wanted: bool,
    /// Something has come since the last report.
    pub(super) is_active: bool,
    pub(super) recorder: Recorder,
}

impl Series {
    /// Whether a report has it.
    pub(super) fn is_due(&self, plan: &Plan) -> bool {
        if plan.is_delta { self.is_active } else { self.recorder.count > 0 }
    }
}

/// A span's resource, for a series that is perhaps the first of its group.
pub(super) struct GroupSeen<'a> {
    pub(super) key: u64,
    pub(super) service: &'a [u8],
    pub(super) resource: &'a dyn Fn() -> Vec<u8>,
}

/// Why spans are counted in an overflow series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Excess {
    /// `aggregation_cardinality_limit`.
    Series,
    /// `resource_metrics_cache_size`.
    Resources,
    /// `memory_limit_mib`, or attributes too long.
    Memory,
}

impl Excess {
    pub(super) const ALL: [Self; 3] = [Self::Series, Self::Resources, Self::Memory];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Series => "aggregation_cardinality_limit",
            Self::Resources => "resource_metrics_cache_size",
            Self::Memory => "memory_limit_mib",
        }
    }
}

/// Whose attributes are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those of the series.
    Own,
    /// Those of its group's overflow series.
    Overflow,
    /// Those of the overflow series of resources without a group.
    Surplus,
}

/// The series that counts a span.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admitted {
    pub(super) place: u32,
    pub(super) fingerprint: u64,
    /// It is an overflow series.
    pub(super) excess: Option<Excess>,
}

/// The moment of a batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Duration,
    pub(super) unix_nanos: u64,
}

impl Catalog {
    pub(super) fn new(plan: Arc<Plan>, lanes: usize) -> Self {
        let shape = plan.families.iter().any(|family| family.has_durations).then_some(&plan.shape);
        let recorder = Recorder::max_bytes(shape, plan.exemplars);
        // A series, its fingerprint and its place here; a part and a fingerprint in each lane.
        let bytes_per_series = size_of::<Series>() + recorder + 48 + lanes * (recorder + 64);
        let remembered = NonZeroUsize::new(plan.remembered_times).unwrap_or(NonZeroUsize::MIN);
        Self {
            series: Vec::new(),
            free: Vec::new(),
            by_fingerprint: Table::default(),
            groups: Table::default(),
            refused_groups: HashSet::new(),
            remembered: LruCache::new(remembered),
            bytes: 0,
            bytes_per_series,
            last_report: 0,
            plan,
        }
    }

    /// The series with `fingerprint`, which is made if there is room for it; or the overflow series that
    /// stands in for it. `attributes` writes its attributes.
    pub(super) fn admit(
        &mut self,
        fingerprint: u64,
        family: usize,
        seen: &GroupSeen<'_>,
        moment: Moment,
        attributes: &dyn Fn(Whose) -> Vec<u8>,
    ) -> Admitted {
        if let Some(&place) = self.by_fingerprint.get(&fingerprint) {
            self.touch(place, moment.now);
            return Admitted { place, fingerprint, excess: None };
        }
        let (group, excess) = match self.enter(seen, moment) {
            Ok(()) => (seen.key, self.excess(seen.key, family)),
            Err(excess) => (SURPLUS, Some(excess)),
        };
        let excess = match excess {
            Some(excess) => excess,
            None => {
                let attributes = attributes(Whose::Own);
                if attributes.len() <= MAX_ATTRIBUTES {
                    let place = self.insert(fingerprint, group, family, attributes, moment);
                    return Admitted { place, fingerprint, excess: None };
                }
                Excess::Memory
            }
        };
        self.overflow(group, family, excess, seen, moment, attributes)
    }

    /// Makes the group, if there is room for it.
    fn enter(&mut self, seen: &GroupSeen<'_>, moment: Moment) -> Result<(), Excess> {
        if self.groups.contains_key(&seen.key) {
            return Ok(());
        }
        let own = self.groups.len() - usize::from(self.groups.contains_key(&SURPLUS));
        let excess = if own >= self.plan.group_limit {
            Some(Excess::Resources)
        } else {
            let resource = (seen.resource)();
            let is_fit = resource.len() <= MAX_ATTRIBUTES && self.bytes + resource.len() < self.plan.memory_limit;
            if is_fit {
                self.add_group(seen.key, resource, moment.now);
            }
            (!is_fit).then_some(Excess::Memory)
        };
        let Some(excess) = excess else { return Ok(()) };
        if self.refused_groups.len() < self.plan.group_limit {
            self.refused_groups.insert(seen.key);
        }
        if !self.groups.contains_key(&SURPLUS) {
            self.add_group(SURPLUS, Vec::new(), moment.now);
            let service = String::from_utf8_lossy(seen.service);
            tracing::warn!(
                %service,
                limit = excess.name(),
                "there is no room for the span metrics of a further resource: its spans, and those of others that \
                 come later, are counted under otel.metric.overflow without a resource"
            );
        }
        Err(excess)
    }

    fn add_group(&mut self, key: u64, resource: Vec<u8>, now: Duration) {
        self.bytes += resource.len() + size_of::<Group>();
        let families = self.plan.families.len();
        let group = Group {
            resource: resource.into(),
            series: vec![Vec::new(); families],
            overflows: vec![0; families],
            last_seen: now,
            is_limited: false,
        };
        self.groups.insert(key, group);
    }

    /// Whether a further series of `family` is beyond a limit.
    fn excess(&self, group: u64, family: usize) -> Option<Excess> {
        if self.bytes + self.bytes_per_series > self.plan.memory_limit {
            return Some(Excess::Memory);
        }
        let group = self.groups.get(&group)?;
        let own = group.series.get(family)?.len() - group.overflows.get(family)?;
        (own >= self.plan.series_limit).then_some(Excess::Series)
    }

    /// The overflow series of `family` in `group`.
    fn overflow(
        &mut self,
        group: u64,
        family: usize,
        excess: Excess,
        seen: &GroupSeen<'_>,
        moment: Moment,
        attributes: &dyn Fn(Whose) -> Vec<u8>,
    ) -> Admitted {
        let fingerprint = self.plan.overflow_fingerprint(group, family);
        if let Some(&place) = self.by_fingerprint.get(&fingerprint) {
            self.touch(place, moment.now);
            return Admitted { place, fingerprint, excess: Some(excess) };
        }
        let attributes = attributes(if group == SURPLUS { Whose::Surplus } else { Whose::Overflow });
        let place = self.insert(fingerprint, group, family, attributes, moment);
        if let Some(group) = self.groups.get_mut(&group) {
            if let Some(overflows) = group.overflows.get_mut(family) {
                *overflows += 1;
            }
            if !std::mem::replace(&mut group.is_limited, true) && excess != Excess::Resources {
                let service = String::from_utf8_lossy(seen.service);
                tracing::warn!(
                    %service,
                    limit = excess.name(),
                    "span metrics have reached a limit: further combinations of attributes are counted under \
                     otel.metric.overflow; look for a dimension, or a span name, with too many values"
                );
            }
        }
        Admitted { place, fingerprint, excess: Some(excess) }
    }

    fn insert(&mut self, fingerprint: u64, group: u64, family: usize, attributes: Vec<u8>, moment: Moment) -> u32 {
        let shape = self.plan.families.get(family).filter(|family| family.has_durations).map(|_| &self.plan.shape);
        self.bytes += self.bytes_per_series + attributes.len();
        let series = Series {
            fingerprint,
            group,
            family,
            attributes: attributes.into(),
            start: self.remembered.pop(&fingerprint).unwrap_or(moment.unix_nanos),
            reported: 0,
            last_seen: moment.now,
            is_wanted: true,
            is_active: false,
            recorder: Recorder::new(shape),
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.series[place as usize] = Some(series);
                place
            }
            None => {
                self.series.push(Some(series));
                self.series.len() as u32 - 1
            }
        };
        self.by_fingerprint.insert(fingerprint, place);
        if let Some(places) = self.groups.get_mut(&group).and_then(|group| group.series.get_mut(family)) {
            places.push(place);
        }
        place
    }

    fn touch(&mut self, place: u32, now: Duration) {
        if let Some(Some(series)) = self.series.get_mut(place as usize) {
            series.last_seen = now;
            series.is_wanted = true;
        }
    }

    /// Adds what a lane has counted of the series at `place`.
    pub(super) fn add(&mut self, place: u32, part: &Recorder, now: Duration) {
        let Some(Some(series)) = self.series.get_mut(place as usize) else { return };
        series.recorder.merge(part, self.plan.exemplars);
        series.is_active = true;
        series.last_seen = now;
        if let Some(group) = self.groups.get_mut(&series.group) {
            group.last_seen = now;
        }
    }

    /// The time of a report that is due at `unix_nanos`: always later than the last.
    pub(super) fn report_time(&mut self, unix_nanos: u64) -> u64 {
        self.last_report = unix_nanos.max(self.last_report + 1_000_000);
        self.last_report
    }

    /// The keys of all groups.
    pub(super) fn group_keys(&self) -> Vec<u64> {
        self.groups.keys().copied().collect()
    }

    pub(super) fn group(&self, key: u64) -> Option<&Group> {
        self.groups.get(&key)
    }

    pub(super) fn series(&self, place: u32) -> Option<&Series> {
        self.series.get(place as usize)?.as_ref()
    }

    /// Notes that the series at `place` was reported at `time`, if it was due.
    pub(super) fn reported(&mut self, place: u32, time: u64) {
        let Some(Some(series)) = self.series.get_mut(place as usize) else { return };
        if !series.is_due(&self.plan) {
            return;
        }
        series.reported = time;
        series.is_active = false;
        series.recorder.exemplars.clear();
        if self.plan.is_delta {
            series.recorder.clear();
        }
    }

    /// The places of series that are to go: those that have been silent for too long, and those of groups
    /// that make room for others. They stay until [`Catalog::remove`].
    pub(super) fn expired(&mut self, now: Duration, interval: Duration) -> HashSet<u32> {
        let is_over = |last_seen: Duration, expiry: Option<Duration>| {
            expiry.is_some_and(|expiry| now.saturating_sub(last_seen) >= expiry)
        };
        let mut going: HashSet<u64> = HashSet::new();
        let mut idle: Vec<(Duration, u64)> = Vec::new();
        for (&key, group) in &self.groups {
            if is_over(group.last_seen, self.plan.group_expiry) {
                going.insert(key);
            } else if key != SURPLUS && now.saturating_sub(group.last_seen) >= 2 * interval {
                idle.push((group.last_seen, key));
            }
        }
        let wanted = self.refused_groups.len().saturating_sub(going.len());
        if wanted > 0 {
            idle.sort_unstable();
            going.extend(idle.iter().take(wanted).map(|(_, key)| *key));
        }
        self.refused_groups.clear();
        let mut places = HashSet::new();
        for (place, series) in self.series.iter_mut().enumerate() {
            let Some(series) = series else { continue };
            let is_silent = self.plan.is_delta && series.last_seen < now;
            if is_silent || is_over(series.last_seen, self.plan.series_expiry) || going.contains(&series.group) {
                series.is_wanted = false;
                places.insert(place as u32);
            }
        }
        places
    }

    /// Removes the series of `places` that no lane has asked for meanwhile. No lane knows them any more.
    /// Returns how many went.
    pub(super) fn remove(&mut self, places: &HashSet<u32>) -> usize {
        let mut gone: HashSet<u32> = HashSet::new();
        let mut touched: HashSet<u64> = HashSet::new();
        for &place in places {
            let Some(slot) = self.series.get_mut(place as usize) else { continue };
            let Some(series) = slot.take_if(|series| !series.is_wanted && !series.is_active) else { continue };
            gone.insert(place);
            touched.insert(series.group);
            self.free.push(place);
            self.by_fingerprint.remove(&series.fingerprint);
            self.bytes -= self.bytes_per_series + series.attributes.len();
            if self.plan.is_delta {
                self.remembered.put(series.fingerprint, series.reported);
            }
            let is_overflow = series.fingerprint == self.plan.overflow_fingerprint(series.group, series.family);
            let group = self.groups.get_mut(&series.group);
            if is_overflow && let Some(overflows) = group.and_then(|group| group.overflows.get_mut(series.family)) {
                *overflows -= 1;
            }
        }
        for key in touched {
            let Some(group) = self.groups.get_mut(&key) else { continue };
            for places in &mut group.series {
                places.retain(|place| !gone.contains(place));
            }
            if group.series.iter().all(Vec::is_empty) {
                self.bytes -= group.resource.len() + size_of::<Group>();
                self.groups.remove(&key);
            }
        }
        gone.len()
    }

    pub(super) fn series_count(&self) -> usize {
        self.by_fingerprint.len()
    }

    pub(super) fn group_count(&self) -> usize {
        self.groups.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}
