//! From spans to series to reports.

use std::sync::Arc;

use nyquist_core::clock::Clock;
use nyquist_core::runtime::Runtimes;
use nyquist_core::wire::{Field, Fields, TracesView, Value};
use parking_lot::{Mutex, MutexGuard};

use super::catalog::{Catalog, GroupSeen, Moment, Whose};
use super::encode::Report;
use super::lane::Lane;
use super::metrics::OwnMetrics;
use super::plan::Plan;
use super::reader::Reader;

/// Spans that are counted before a report may come in between.
const SPANS_PER_LOCK: usize = 256;
/// Series that are collected, or reported, under one lock.
const SERIES_PER_LOCK: usize = 256;
/// A request is not made longer than this by a further part.
const REQUEST_BYTES: usize = 1 << 20;

/// All that is counted.
pub(super) struct State {
    pub(super) plan: Arc<Plan>,
    lanes: Box<[Mutex<Lane>]>,
    catalog: Mutex<Catalog>,
    clock: Arc<dyn Clock>,
    own: OwnMetrics,
}

/// What became of the spans of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    pub(super) counted: usize,
    /// Of resources without a service name.
    pub(super) skipped: usize,
}

impl State {
    pub(super) fn new(plan: Plan, lanes: usize, clock: Arc<dyn Clock>, own: OwnMetrics) -> Self {
        let plan = Arc::new(plan);
        let catalog = Mutex::new(Catalog::new(Arc::clone(&plan), lanes.max(1)));
        let lanes = (0..lanes.max(1)).map(|_| Mutex::default()).collect();
        Self { plan, lanes, catalog, clock, own }
    }

    /// Counts the spans in `message`, an `ExportTraceServiceRequest`.
    pub(super) fn take(&self, message: &[u8]) -> Taken {
        self.take_on(Runtimes::current_index(), message)
    }

    /// `take`, on the lane of core `core`.
    pub(super) fn take_on(&self, core: usize, message: &[u8]) -> Taken {
        let mut taken = Taken::default();
        let mut reader = Reader::new(&self.plan);
        let lane = &self.lanes[core % self.lanes.len()];
        let counts_events = self.plan.families.iter().any(|family| family.is_events);
        for resource in TracesView::new(message).resource_spans() {
            if !reader.enter_resource(resource) {
                taken.skipped += resource.scope_spans().map(|scope| scope.spans().count()).sum::<usize>();
                continue;
            }
            for scope in resource.scope_spans() {
                reader.enter_scope(scope);
                let mut lane = lane.lock();
                for span in scope.spans() {
                    reader.enter_span(span);
                    self.count(&mut lane, &reader, false);
                    if counts_events {
                        for Field { number, value } in Fields::new(span.bytes()) {
                            if let (11, Value::Len(event)) = (number, value) {
                                reader.enter_event(event);
                                self.count(&mut lane, &reader, true);
                            }
                        }
                    }
                    taken.counted += 1;
                    if taken.counted.is_multiple_of(SPANS_PER_LOCK) {
                        MutexGuard::bump(&mut lane);
                    }
                }
            }
        }
        if taken.skipped > 0 {
            self.own.skipped.inc_by(taken.skipped as u64);
        }
        taken
    }

    /// Counts the span, or the event, that `reader` is at.
    #[inline]
    fn count(&self, lane: &mut Lane, reader: &Reader<'_>, is_event: bool) {
        let plan = &*self.plan;
        for (index, family) in plan.families.iter().enumerate() {
            if family.is_events != is_event {
                continue;
            }
            let fingerprint = reader.fingerprint(index, family);
            let part = match lane.find(fingerprint) {
                Some(part) => part,
                None => self.admit(lane, reader, index, fingerprint),
            };
            lane.record(part, &plan.shape, reader.seen.spell, plan.exemplars, || reader.exemplar());
        }
    }

    /// Asks the catalog for the series that a lane does not know.
    #[cold]
    fn admit(&self, lane: &mut Lane, reader: &Reader<'_>, index: usize, fingerprint: u64) -> u32 {
        let family = &self.plan.families[index];
        let moment = Moment { now: self.clock.now(), unix_nanos: self.clock.unix_nanos() };
        let resource = || reader.resource_field();
        let seen = GroupSeen { key: reader.group, service: reader.service, resource: &resource };
        let attributes = |whose: Whose| reader.attributes(family, whose);
        let admitted = self.catalog.lock().admit(fingerprint, index, &seen, moment, &attributes);
        lane.adopt(fingerprint, admitted, family.has_durations.then_some(&self.plan.shape))
    }

    /// Brings together what the lanes have counted, and begins a report.
    pub(super) fn begin_report(&self) -> Reporting {
        let now = self.clock.now();
        for lane in &self.lanes {
            let mut lane = lane.lock();
            loop {
                let mut catalog = self.catalog.lock();
                let overflown = |excess, spans| self.own.overflown(excess, spans);
                if !lane.collect(&mut catalog, now, SERIES_PER_LOCK, overflown) {
                    break;
                }
                drop(catalog);
                MutexGuard::bump(&mut lane);
            }
        }
        let mut catalog = self.catalog.lock();
        let time = catalog.report_time(self.clock.unix_nanos());
        Reporting { now, time, groups: catalog.group_keys(), group: 0, family: 0, series: 0 }
    }

    /// The next part of a report; `None` after the last.
    pub(super) fn next_report(&self, at: &mut Reporting) -> Option<Report> {
        let mut report = Report::default();
        while report.bytes.len() < REQUEST_BYTES {
            let Some(&key) = at.groups.get(at.group) else { break };
            let mut catalog = self.catalog.lock();
            let Some(group) = catalog.group(key) else {
                at.next_group();
                continue;
            };
            let mut room = SERIES_PER_LOCK;
            let mut places: Vec<&[u32]> = vec![&[]; group.series.len()];
            while room > 0 {
                let Some(own) = group.series.get(at.family) else { break };
                let rest = own.get(at.series..).unwrap_or_default();
                let part = rest.get(..room).unwrap_or(rest);
                if let Some(place) = places.get_mut(at.family) {
                    *place = part;
                }
                room -= part.len();
                at.series += part.len();
                if at.series >= own.len() {
                    (at.family, at.series) = (at.family + 1, 0);
                }
            }
            let is_done = at.family >= group.series.len();
            report.append(&self.plan, &catalog, &group.resource, &places, at.time);
            let reported: Vec<u32> = places.concat();
            for place in reported {
                catalog.reported(place, at.time);
            }
            if is_done {
                at.next_group();
            }
        }
        (report.points > 0).then_some(report)
    }

    /// Gives up what has been silent for too long, after a report.
    pub(super) fn expire(&self, at: &Reporting) {
        let mut places = self.catalog.lock().expired(at.now, self.plan.flush_interval);
        if !places.is_empty() {
            for lane in &self.lanes {
                lane.lock().forget(&mut places);
            }
            let removed = self.catalog.lock().remove(&places);
            self.own.expired.inc_by(removed as u64);
        }
        let catalog = self.catalog.lock();
        self.own.state(catalog.series_count(), catalog.group_count(), catalog.bytes());
    }
}

/// How far a report has come.
pub(super) struct Reporting {
    now: std::time::Duration,
    /// Its time, Unix nanoseconds.
    time: u64,
    groups: Vec<u64>,
    group: usize,
    family: usize,
    series: usize,
}

impl Reporting {
    fn next_group(&mut self) {
        self.group += 1;
        (self.family, self.series) = (0, 0);
    }
}
