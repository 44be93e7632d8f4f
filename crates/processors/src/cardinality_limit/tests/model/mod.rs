//! Random streams of every kind against the simplest model: what the inputs have grown by.
//!
//! A reader follows what comes out as a backend would: a series grows by the difference to its last value, or by all
//! of its value where it is new or has a new start. Guarantee, whatever the limits, retirements, promotions, idle times,
//! late and repeated points, memory that runs out, restarts, and batches that are refused and come again: the outputs grow by exactly what the
//! inputs grow by, but for the increments of the points that `rebaselined` counts. Deltas lose nothing at all, nor do
//! streams of which none changes sides. Only a crash loses more: what had not been reported by then.
//!
//! How the model knows what a counted point was worth: all points of one batch are worth the same. A point that
//! makes up for one that is late is worth more, and comes alone.

mod gauges;
mod kinds;
mod last_values;
mod reader;

use kinds::{KINDS, Kind, Sent, UNIT};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use reader::{Parts, Reader};

use super::*;

/// What is limited, and how. In the first ones no stream ever changes sides.
const STEADY: usize = 4;
const LIMITS: [&str; 16] = [
    "rules: [{metrics: [c], labels: {u: 3}}]",
    "rules: [{metrics: [c], labels: {u: 0}}]",
    "rules: [{metrics: [c], labels: {u: 0}}], replacement: ''",
    "rules: [{metrics: [c], labels: {u: 4}}], on_exceed: hash_label, hash_buckets: 3",
    "default: {max_series_per_metric: 12}",
    "default: {max_series_per_metric: 12}, on_exceed: hash_label, hash_buckets: 3",
    "default: {max_series_per_metric: 12}, on_exceed: overflow_series",
    "default: {max_series_per_metric: 12}, on_exceed: tag_only",
    "default: {max_series_per_metric: 12}, on_exceed: drop_point",
    "default: {max_series_per_metric: 12}, protect_labels: [m]",
    "default: {max_series_per_metric: 12}, dry_run: true",
    "rules: [{metrics: [c], labels: {u: 4}}], keep: top_k",
    "rules: [{metrics: [c], labels: {u: 8}}], min_sightings: 2",
    "rules: [{metrics: [c], labels: {u: 6}}], keep: top_k, min_sightings: 3, default: {max_series_per_metric: 9}",
    "default: {max_series_per_metric: 14}, tenant_from: 'resource[\"r\"]', max_tenants: 1",
    "default: {max_series_per_metric: 6}, per_resource: true, max_series: 10",
];

/// Long enough for most runs to reset streams and to let them be idle.
const EXPORTS: u64 = 60;
/// So often a snapshot is written, in exports.
const SNAPSHOTS: u64 = 6;
/// What has come waits for no more flushes than this.
const WAITS: usize = 6;

/// How a run is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    Clean,
    /// `kill -9`, just after a report.
    Reported,
    /// `kill -9` at any time.
    Killed,
}

/// What else a run may do.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// Streams pause for longer than `idle_ttl`.
    idles: bool,
    /// Some streams do not tell when they began.
    without_starts: bool,
    /// The stage behind refuses batches now and then, which come again.
    refuses: bool,
    /// Points come late, and twice.
    late: bool,
    /// Memory is short now and then: the limiter forgets half of what it knows of streams.
    starves: bool,
    /// Senders have series that are what others are collapsed to.
    own: bool,
    /// The clocks of some senders are fast.
    fast: bool,
    restarts: Option<Restart>,
}

impl Weather {
    fn of(random: &mut SmallRng) -> Self {
        let restarts = [None, None, Some(Restart::Clean), Some(Restart::Reported), Some(Restart::Killed)];
        let mut weather = Self {
            idles: random.random_bool(0.4),
            without_starts: random.random_bool(0.3),
            refuses: random.random_bool(0.3),
            late: random.random_bool(0.4),
            starves: random.random_bool(0.4),
            own: random.random_bool(0.5),
            fast: false,
            restarts: restarts[random.random_range(0..restarts.len())],
        };
        // Late points of fast clocks cannot be told apart once their streams are forgotten.
        weather.fast = !weather.late && random.random_bool(0.4);
        weather
    }
}

/// A stream of the sender.
struct Stream {
    resource: &'static str,
    labels: String,
    /// Nobody knows when it began.
    has_no_start: bool,
    /// How fast its sender's clock is (nanoseconds).
    skew: u64,
    start: u64,
    value: i64,
    /// What of it has been sent.
    arrived: i64,
    /// Points that are late.
    held: usize,
    /// How far the last delta went.
    until: u64,
    /// It pauses until this export.
    pauses_until: u64,
}

fn streams(weather: Weather) -> Vec<Stream> {
    let stream = |index: usize, resource, labels| Stream {
        resource,
        labels,
        has_no_start: weather.without_starts && index % 7 == 3,
        skew: 0,
        start: START,
        value: 0,
        arrived: 0,
        held: 0,
        until: START,
        pauses_until: 0,
    };
    // The start of a stream whose clock is a bit fast can be after a restart before which it was counted.
    let skews: &[u64] = if weather.restarts.is_some() { &[80, 120] } else { &[40, 80, 120] };
    let usual = (0..40).map(|index| {
        let resource = if index % 5 == 0 { "2" } else { "1" };
        let skew = if weather.fast && index % 4 == 1 { skews[index / 4 % skews.len()] * SECOND } else { 0 };
        Stream { skew, ..stream(index, resource, format!("m={},u={}", index % 2, index / 2)) }
    });
    let own = ["m=0,u=other", "u=other-1,m=1", "m=1", "otel.metric.overflow=true"];
    let own = own.iter().filter(|_| weather.own).enumerate();
    usual.chain(own.map(|(index, labels)| stream(index, "1", (*labels).to_owned()))).collect()
}

/// A point that is late.
struct Held {
    /// The export in which it comes.
    until: u64,
    stream: usize,
    point: Sent,
}

/// One run of one kind against one configuration.
struct Run {
    context: String,
    yaml: String,
    seed: u64,
    is_steady: bool,
    bench: Bench,
    directories: Vec<tempfile::TempDir>,
    random: SmallRng,
    kind: Kind,
    is_delta: bool,
    weather: Weather,
    streams: Vec<Stream>,
    held: Vec<Held>,
    reader: Reader,
    /// What the inputs have grown by; and what of it was lost with points that were counted.
    grown: Parts,
    lost: Parts,
    /// What has come, by the flushes that followed: the last one is what has come since the last flush.
    arrived: Vec<Parts>,
    /// A crash may have lost so much more.
    unreported: Parts,
    /// Points that were counted.
    rebaselined: u64,
    /// Seconds from the beginning.
    elapsed: u64,
}

impl Run {
    async fn new(seed: u64, limits: usize, kind: Kind, is_delta: bool) -> Self {
        let mut random = SmallRng::seed_from_u64(seed * 1000 + limits as u64);
        let weather = Weather::of(&mut random);
        let context = format!("seed {seed}: {kind:?}, delta {is_delta}, {weather:?}, {}", LIMITS[limits]);
        let idle_ttl = if weather.idles { "160s" } else { "1h" };
        let mut yaml = format!("{{{}, idle_ttl: {idle_ttl}}}", LIMITS[limits]);
        let mut directories = Vec::new();
        let bench = if weather.restarts.is_some() {
            yaml.insert_str(1, "storage: place, ");
            directories.push(tempfile::tempdir().unwrap());
            Bench::stored_and_seeded(&yaml, directories[0].path(), BEGIN, seed).await
        } else {
            Bench::seeded(&yaml, &Extensions::default(), BEGIN, seed)
        };
        let mut run = Self {
            context,
            yaml,
            seed,
            is_steady: limits < STEADY,
            bench,
            directories,
            random,
            kind,
            is_delta,
            weather,
            streams: streams(weather),
            held: Vec::new(),
            // After a restart, reports are as late as a fast clock was early before it.
            reader: Reader::new(kind, is_delta, weather.late || (weather.fast && weather.restarts.is_some())),
            grown: kind.parts(0),
            lost: kind.parts(0),
            arrived: vec![kind.parts(0)],
            unreported: kind.parts(0),
            rebaselined: 0,
            elapsed: 0,
        };
        // From here on a bit later than the senders' clock says.
        run.pass_time(12);
        run
    }

    async fn run(mut self) {
        let restarts_at = self.random.random_range(5..EXPORTS - 5);
        for export in 0..EXPORTS {
            self.send_held(export).await;
            let mut due: Vec<usize> = (0..self.streams.len()).filter(|index| self.reports(*index, export)).collect();
            due.shuffle(&mut self.random);
            while !due.is_empty() {
                let count =
                    if self.random.random_bool(0.5) { due.len() } else { self.random.random_range(1..=due.len()) };
                let batch: Vec<usize> = due.drain(..count).collect();
                self.report(&batch, export).await;
                if self.random.random_bool(0.4) {
                    if self.weather.starves && self.random.random_bool(0.2) {
                        self.bench.limiter.shared.starve();
                    }
                    self.flush(false).await;
                }
            }
            self.read();
            self.pass_time(5);
            if let Some(place) = self.bench.place.clone()
                && export % SNAPSHOTS == 0
            {
                place.save(&self.bench.limiter).await;
            }
            if let Some(restart) = self.weather.restarts
                && export == restarts_at
            {
                self.restart(restart).await;
            }
            self.pass_time(5);
        }
        self.send_held(u64::MAX).await;
        self.flush(true).await;
        self.read();
        self.check();
    }

    async fn flush(&mut self, is_last: bool) {
        self.bench.limiter.flush(is_last).await;
        self.arrived.push(self.kind.parts(0));
    }

    fn pass_time(&mut self, seconds: u64) {
        self.bench.pass_time(seconds);
        self.elapsed += seconds;
    }

    /// Does the stream report in this export?
    fn reports(&mut self, index: usize, export: u64) -> bool {
        let Some(stream) = self.streams.get_mut(index) else { return false };
        if export < stream.pauses_until || self.random.random_bool(0.3) {
            return false;
        }
        if self.weather.idles && self.random.random_bool(0.03) {
            stream.pauses_until = export + 25;
        }
        true
    }

    /// Reports streams in one batch. All of them grow by the same.
    async fn report(&mut self, batch: &[usize], export: u64) {
        let time = at(export);
        let more = UNIT * self.random.random_range(0..6);
        let (mut together, mut alone) = (Vec::new(), Vec::new());
        for &index in batch {
            let stream = &mut self.streams[index];
            // That of a stream without a start shows only where the value falls.
            let shows = !stream.has_no_start || more < stream.value;
            let restarts = shows && stream.held == 0 && self.random.random_bool(0.02);
            if restarts {
                (stream.start, stream.value, stream.arrived) = (time - 1, 0, 0);
            }
            stream.value += more;
            let (start, value) = if self.is_delta { (stream.until, more) } else { (stream.start, stream.value) };
            let start = if stream.has_no_start { 0 } else { start + stream.skew };
            stream.until = time;
            let time = time + stream.skew;
            let point = Sent { resource: stream.resource, labels: stream.labels.clone(), start, time, value };
            self.grown.add(&self.kind.parts(more));
            // If the point whose value has fallen came late, nothing would show it.
            let shows_a_restart = restarts && stream.has_no_start;
            let is_late = self.weather.late && self.random.random_bool(0.08) && !shows_a_restart;
            let is_repeated = self.weather.late && !self.is_delta && self.random.random_bool(0.05);
            if is_late || is_repeated {
                let until = export + self.random.random_range(1..4);
                self.held.push(Held { until, stream: index, point: point.clone() });
                stream.held += 1;
            }
            if is_late {
                continue;
            }
            if self.is_delta || stream.arrived + more == stream.value {
                stream.arrived = stream.value;
                together.push(point);
            } else {
                alone.push((index, point));
            }
        }
        self.send(&together, more).await;
        for (stream, point) in alone {
            self.send_alone(stream, point).await;
        }
    }

    /// Sends what was to come late by now.
    async fn send_held(&mut self, export: u64) {
        for held in self.held.extract_if(.., |held| held.until <= export).collect::<Vec<_>>() {
            self.streams[held.stream].held -= 1;
            self.send_alone(held.stream, held.point).await;
        }
    }

    async fn send_alone(&mut self, stream: usize, point: Sent) {
        let stream = &mut self.streams[stream];
        let more = if self.is_delta { point.value } else { (point.value - stream.arrived).max(0) };
        stream.arrived += more;
        self.send(&[point], more).await;
    }

    /// Sends points that are worth `more` each.
    async fn send(&mut self, points: &[Sent], more: i64) {
        if points.is_empty() {
            return;
        }
        points.iter().for_each(|_| self.arrived.last_mut().unwrap().add(&self.kind.parts(more)));
        let data = kinds::data(self.kind, self.is_delta, points);
        let before = self.bench.limiter.shared.report.rebaselined.get();
        let is_refused = self.weather.refuses && self.random.random_bool(0.1);
        if !is_refused || self.send_and_refuse(&data).await {
            self.bench.send(&data).await;
        }
        let counted = self.bench.limiter.shared.report.rebaselined.get() - before;
        self.rebaselined += counted;
        (0..counted).for_each(|_| self.lost.add(&self.kind.parts(more)));
    }

    /// True if it was refused.
    async fn send_and_refuse(&mut self, data: &MetricsData) -> bool {
        self.bench.sink.refuse.store(1, std::sync::atomic::Ordering::SeqCst);
        let mut batch = Batch::from_metrics(data.clone());
        let (items, bytes) = (batch.items(), batch.wire().clone());
        let refused = self.bench.limiter.consume(Batch::from_wire(Signal::Metrics, bytes, items)).await.is_err();
        self.bench.sink.refuse.store(0, std::sync::atomic::Ordering::SeqCst);
        if !refused {
            // All of it was collapsed: there was nothing to refuse.
            self.bench.accepted.fetch_add(items, std::sync::atomic::Ordering::SeqCst);
        }
        refused
    }

    async fn restart(&mut self, restart: Restart) {
        match restart {
            Restart::Clean => self.bench.stop().await,
            Restart::Reported => self.flush(true).await,
            Restart::Killed => {
                self.arrived.iter().rev().take(WAITS).for_each(|arrived| self.unreported.add(arrived));
            }
        }
        self.read();
        if restart != Restart::Clean {
            // What `kill -9` leaves.
            let left = tempfile::tempdir().unwrap();
            for entry in std::fs::read_dir(self.directories[0].path()).unwrap() {
                let path = entry.unwrap().path();
                std::fs::copy(&path, left.path().join(path.file_name().unwrap())).unwrap();
            }
            self.directories.insert(0, left);
        }
        let begin = BEGIN + self.elapsed * SECOND;
        self.bench = Bench::stored_and_seeded(&self.yaml, self.directories[0].path(), begin, self.seed + 1).await;
        assert_eq!(self.bench.own_with("snapshots", "restored"), 1.0, "{}", self.context);
    }

    /// What has come out. It is never more than what has gone in by then.
    fn read(&mut self) {
        let emitted = self.bench.emitted();
        self.reader.read(&emitted, &self.context);
        let (grown, context) = (&self.grown, &self.context);
        let accounted = self.accounted();
        assert!(
            accounted.is_at_most(grown),
            "{context}: more came out by {} s: {accounted:?} of {grown:?}",
            self.elapsed
        );
    }

    /// What has come out, and what was lost with points that were counted.
    fn accounted(&self) -> Parts {
        let mut accounted = self.reader.grown.clone();
        accounted.add(&self.lost);
        accounted
    }

    fn check(&self) {
        let Self { context, grown, lost, rebaselined, unreported, .. } = self;
        let mut accounted = self.accounted();
        let context = format!("{context}: with {lost:?} of {rebaselined} points that set only a baseline");
        let has_late_reports = self.weather.fast && self.weather.restarts.is_some();
        if self.yaml.contains("drop_point") || has_late_reports {
            // What is dropped, or out of order for a backend, is not accounted for here, and `read` has seen that no
            // more came out.
        } else if self.weather.restarts == Some(Restart::Killed) {
            accounted.add(unreported);
            assert!(grown.is_at_most(&accounted), "{context}: {accounted:?} of {grown:?}, {unreported:?} unreported");
        } else {
            assert_eq!(accounted, *grown, "{context}");
        }
        let Weather { idles, without_starts, starves, own, fast, restarts, .. } = self.weather;
        let forgets = idles || starves || restarts.is_some();
        if self.is_delta || (self.is_steady && !forgets && !without_starts && !own && !fast) {
            assert_eq!(*rebaselined, 0, "{context}");
        }
    }
}

/// A few; many with `NYQUIST_LONG=1`; the one of `NYQUIST_SEED`, which a failure tells.
fn seeds() -> std::ops::Range<u64> {
    if let Some(seed) = std::env::var("NYQUIST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return seed..seed + 1;
    }
    if std::env::var_os("NYQUIST_LONG").is_some() { 0..600 } else { 0..16 }
}

/// Every kind and temporality.
fn kinds() -> Vec<(Kind, bool)> {
    KINDS
        .iter()
        .flat_map(|kind| [(*kind, false), (*kind, true)])
        .filter(|(kind, is_delta)| kind.has(*is_delta))
        .collect()
}

#[tokio::test]
async fn what_comes_out_is_what_came_in_but_for_what_is_counted() {
    let (kinds, mut failed) = (kinds(), 0);
    for seed in seeds() {
        for limits in 0..LIMITS.len() {
            // Each seed has another kind for each limit, so that so many seeds as there are kinds try everything.
            let (kind, is_delta) = kinds[(seed as usize + limits) % kinds.len()];
            // In a task of its own, so that all that fail are told.
            let run = tokio::spawn(async move { Run::new(seed, limits, kind, is_delta).await.run().await });
            failed += usize::from(run.await.is_err());
        }
    }
    assert_eq!(failed, 0, "runs have failed, see above; NYQUIST_SEED runs one seed alone");
}
