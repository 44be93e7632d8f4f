//! Gauges, in each of the modes, against what each mode says that a collapsed gauge reports.

use super::*;

const MODES: [&str; 6] = ["last", "max", "min", "sum", "avg", "drop"];

/// Those under which it is certain where each stream is counted: how many values of `u` have slots, and what the others
/// are collapsed to.
const CERTAIN: [(&str, usize, &str); 3] = [
    ("rules: [{metrics: [c], labels: {u: 3}}]", 3, ",u=other"),
    ("rules: [{metrics: [c], labels: {u: 0}}]", 0, ",u=other"),
    ("rules: [{metrics: [c], labels: {u: 0}}], replacement: ''", 0, ""),
];

/// What is known of one collapsed gauge.
#[derive(Default)]
struct Expected {
    /// Time and value of the newest point, of those of one time the largest.
    newest: Option<(u64, i64)>,
    /// Since the last report.
    extremes: Option<(i64, i64)>,
    /// Time and value of each live stream's last point.
    live: BTreeMap<usize, (u64, i64)>,
    /// All had ended at some time since the last flush: who came later began the series anew.
    was_empty: bool,
}

impl Expected {
    /// The stream says `value`, or with `None` that it has ended.
    fn hears(&mut self, stream: usize, time: u64, value: Option<i64>) {
        let Some(value) = value else {
            self.live.remove(&stream);
            self.was_empty |= self.live.is_empty();
            return;
        };
        self.newest = self.newest.max(Some((time, value)));
        let (least, most) = self.extremes.unwrap_or((value, value));
        self.extremes = Some((least.min(value), most.max(value)));
        if self.live.get(&stream).is_none_or(|last| last.0 <= time) {
            self.live.insert(stream, (time, value));
        }
    }

    /// Is it of streams that all have ended?
    fn has_ended(&self, mode: &str) -> bool {
        matches!(mode, "sum" | "avg") && self.live.is_empty()
    }

    /// What a report says now.
    fn value(&self, mode: &str) -> f64 {
        let sum = self.live.values().map(|(_, value)| *value).sum::<i64>() as f64;
        match mode {
            "last" => self.newest.unwrap().1 as f64,
            "min" => self.extremes.unwrap().0 as f64,
            "max" => self.extremes.unwrap().1 as f64,
            "sum" => sum,
            _ => sum / self.live.len() as f64,
        }
    }
}

/// Guarantee: every report of a collapsed gauge says what its mode says of the points that came by then, late and
/// repeated ones, several batches in one export and streams that end included; nothing is left unreported.
#[tokio::test]
async fn collapsed_gauges_say_what_their_mode_says() {
    for seed in seeds() {
        for mode in MODES {
            for certain in CERTAIN {
                Certain::new(seed, mode, certain).run().await;
            }
        }
    }
}

struct Certain {
    context: String,
    mode: &'static str,
    slots: usize,
    replacement: &'static str,
    random: SmallRng,
    bench: Bench,
    /// The values of `u` that have slots.
    admitted: Vec<usize>,
    /// When each stream reported last.
    reported: BTreeMap<usize, u64>,
    expected: BTreeMap<String, Expected>,
    shown: BTreeMap<String, f64>,
    collapsed: u64,
}

impl Certain {
    fn new(seed: u64, mode: &'static str, (limits, slots, replacement): (&str, usize, &'static str)) -> Self {
        Self {
            context: format!("seed {seed}, gauge {mode}, {limits}"),
            mode,
            slots,
            replacement,
            random: SmallRng::seed_from_u64(seed),
            bench: Bench::seeded(&format!("{{{limits}, gauge: {mode}}}"), &Extensions::default(), BEGIN, seed),
            admitted: Vec::new(),
            reported: BTreeMap::new(),
            expected: BTreeMap::new(),
            shown: BTreeMap::new(),
            collapsed: 0,
        }
    }

    async fn run(mut self) {
        for export in 0..40 {
            // All of them at first: those that never end are then there for certain.
            let mut due: Vec<usize> = (0..24).filter(|_| export == 0 || self.random.random_bool(0.5)).collect();
            due.shuffle(&mut self.random);
            while !due.is_empty() {
                let count = self.random.random_range(1..=due.len());
                let mut batch: Vec<usize> = due.drain(..count).collect();
                // In the order in which they stand in the request.
                batch.sort_by_key(|stream| stream % 2);
                self.send(&batch, export).await;
                if self.random.random_bool(0.4) {
                    self.flush().await;
                }
            }
            self.bench.pass_time(10);
        }
        // What waits for a newer time does not wait for ever.
        for _ in 0..10 {
            self.flush().await;
        }
        let dropped = self.bench.ledger.dropped_count(nyquist_core::batch::DropReason::OverLimit);
        if self.mode == "drop" {
            assert_eq!((self.shown.len(), dropped), (0, self.collapsed), "{}", self.context);
            return;
        }
        assert_eq!((self.shown.len(), dropped), (self.expected.len(), 0), "{}", self.context);
        for (series, expected) in &self.expected {
            if matches!(self.mode, "max" | "min") {
                assert_eq!(expected.extremes, None, "{}: {series}: not all was reported", self.context);
            } else if !expected.has_ended(self.mode) {
                assert_eq!(self.shown[series], expected.value(self.mode), "{}: {series}", self.context);
            }
        }
    }

    async fn send(&mut self, batch: &[usize], export: u64) {
        let mut by_resource = [Vec::new(), Vec::new()];
        let mut passing = Vec::new();
        for &stream in batch {
            let (resource, m, u) = (stream % 2, stream / 2 % 2, stream / 4);
            let is_late = export > 2 && self.random.random_bool(0.1);
            let time = at(if is_late { export - self.random.random_range(0..3) } else { export });
            // The first value of each series never ends. A flag is not late.
            let reported = self.reported.get(&stream).copied();
            let may_end = u > 0 && reported.is_some_and(|before| before <= time);
            let ends = may_end && !is_late && self.random.random_bool(0.1);
            let value = (!ends).then(|| self.random.random_range(-50..50));
            self.reported.insert(stream, reported.unwrap_or(0).max(time));
            if !self.admitted.contains(&u) && self.admitted.len() < self.slots {
                self.admitted.push(u);
            }
            let labels = format!("m={m},u={u}");
            let sent = value.map_or_else(|| end(&labels, time), |value| point(&labels, value, time));
            by_resource[resource].push(sent);
            if self.admitted.contains(&u) {
                passing.push((format!("r={resource}/c{{{labels}}}"), value.map(|value| value as f64)));
                continue;
            }
            self.collapsed += 1;
            if self.mode != "drop" {
                let series = format!("r={resource}/c{{m={m}{}}}", self.replacement);
                self.expected.entry(series).or_default().hears(stream, time, value);
            }
        }
        let mut data = MetricsData::default();
        for (resource, points) in by_resource.into_iter().enumerate().filter(|(_, points)| !points.is_empty()) {
            data.resource_metrics.extend(of(&resource.to_string(), gauge(points)).resource_metrics);
        }
        self.bench.send(&data).await;
        let passed = self.bench.emitted();
        let mut passed: Vec<_> =
            passed.iter().map(|point| (point.series(), (!point.is_end).then_some(point.value))).collect();
        passed.sort_by(|one, other| one.partial_cmp(other).unwrap());
        passing.sort_by(|one, other| one.partial_cmp(other).unwrap());
        assert_eq!(passed, passing, "{}: what has a slot passes as it is", self.context);
    }

    async fn flush(&mut self) {
        self.bench.limiter.flush(false).await;
        for point in self.bench.emitted() {
            let series = point.series();
            let Some(expected) = self.expected.get_mut(&series) else { panic!("{}: {point:?}", self.context) };
            if point.is_end {
                assert!(expected.has_ended(self.mode) || expected.was_empty, "{}: {point:?}", self.context);
                self.shown.entry(series).or_default();
                continue;
            }
            assert_eq!(point.value, expected.value(self.mode), "{}: {point:?}", self.context);
            expected.extremes = None;
            self.shown.insert(series, point.value);
        }
        self.expected.values_mut().for_each(|expected| expected.was_empty = false);
    }
}

/// Guarantee, whatever the limits: of streams that all report at once the largest (smallest) value comes out, and
/// nothing that nobody said; means are between the two.
#[tokio::test]
async fn extremes_come_through_whatever_the_limits() {
    for seed in seeds() {
        for (index, limits) in LIMITS.iter().enumerate() {
            // What only drops points does not show them.
            if !limits.contains("drop_point") {
                let mode = ["last", "max", "min", "avg"][(seed as usize + index) % 4];
                all_at_once(seed, limits, mode).await;
            }
        }
    }
}

async fn all_at_once(seed: u64, limits: &str, mode: &str) {
    let context = format!("seed {seed}, gauge {mode}, {limits}");
    let bench = Bench::seeded(&format!("{{{limits}, gauge: {mode}}}"), &Extensions::default(), BEGIN, seed);
    let mut random = SmallRng::seed_from_u64(seed);
    for export in 0..30 {
        let is_whole = export % 5 == 4;
        let streams: Vec<usize> = (0..30).filter(|_| is_whole || random.random_bool(0.6)).collect();
        let said: Vec<i64> = streams.iter().map(|_| random.random_range(-50..50)).collect();
        let one =
            |(stream, value): (&usize, &i64)| point(&format!("m={},u={}", stream % 2, stream / 2), *value, at(export));
        let points = streams.iter().zip(&said).map(one).collect();
        if is_whole {
            // What waits is reported first.
            for _ in 0..10 {
                bench.limiter.flush(false).await;
            }
            bench.emitted();
        }
        bench.pass_time(10);
        bench.send(&request(gauge(points))).await;
        for _ in 0..10 {
            bench.limiter.flush(false).await;
        }
        let shown: Vec<f64> = bench.emitted().iter().filter(|point| !point.is_end).map(|point| point.value).collect();
        let (least, most) = (*said.iter().min().unwrap() as f64, *said.iter().max().unwrap() as f64);
        let (shown_least, shown_most) = (
            shown.iter().copied().fold(f64::INFINITY, f64::min),
            shown.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        );
        if !is_whole {
            continue;
        }
        let context = format!("{context}, export {export}: {said:?} and {shown:?}");
        match mode {
            "avg" => assert!(least <= shown_least && shown_most <= most, "{context}"),
            "min" => assert_eq!(shown_least, least, "{context}"),
            _ => assert_eq!(shown_most, most, "{context}"),
        }
        assert!(mode == "avg" || shown.iter().all(|shown| said.contains(&(*shown as i64))), "{context}");
    }
}
