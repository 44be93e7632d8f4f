//! A drill: a receiver that keeps samples as Prometheus does, fails at random, and cannot take some of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nyquist_core::batch::DropReason;
use nyquist_core::clock::SystemClock;
use nyquist_core::component::Extensions;
use nyquist_core::proto::metrics::v1::Metric;
use nyquist_core::telemetry::Entry;
use parking_lot::Mutex;

use super::dice::Dice;
use super::protocol::{start, start_at};
use super::receiver::{Received, Receiver, Reply};
use crate::testing::*;

/// A sample: its series and time.
type Key = (String, i64);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    /// Says that it does not know 2.0.
    V1,
    /// Takes 2.0 for an empty message of 1.0, as old receivers do.
    BlindV1,
    /// Knows 2.0.
    V2,
    /// Knows 2.0 until it is replaced by one that does not.
    Downgraded,
    /// Knows 2.0, and something between here and there loses answers.
    V2Unheard,
    /// The same with 1.0.
    V1Unheard,
}

impl Backend {
    fn is_heard(self) -> bool {
        !matches!(self, Self::V2Unheard | Self::V1Unheard)
    }
}

/// What the receiver has.
#[derive(Default)]
struct Tsdb {
    last: HashMap<String, i64>,
    stored: HashSet<Key>,
    /// What must not come again: it was answered for good.
    settled: HashSet<Key>,
    requests: usize,
}

impl Tsdb {
    /// Can it be taken now?
    fn takes(&self, (series, time): &Key) -> bool {
        !is_bad(series) && self.last.get(series).is_none_or(|last| last < time)
    }

    fn store(&mut self, key: Key) {
        assert!(self.stored.insert(key.clone()), "{key:?} was stored before");
        self.last.insert(key.0, key.1);
    }

    fn answer(&mut self, backend: Backend, request: &Received, dice: &mut Dice) -> Reply {
        self.requests += 1;
        let knows_v2 = match backend {
            Backend::V2 | Backend::V2Unheard => true,
            Backend::Downgraded => self.requests < 100,
            _ => false,
        };
        match dice.below(100) {
            0..12 => return Reply::status(503),
            12..16 => return Reply::status(500),
            16..22 => return Reply { headers: vec![("retry-after", "0".to_owned())], ..Reply::status(429) },
            _ => {}
        }
        if request.is_v2() && !knows_v2 {
            return Reply::status(if backend == Backend::BlindV1 { 204 } else { 415 });
        }
        let all = request.message().timeseries;
        // Whether each is a native histogram, because both are counted on their own.
        let keys: Vec<(Key, bool)> = all
            .iter()
            .flat_map(|series| {
                let name = format!("{}{}", series.name(), super::prompb::labels(&series.labels));
                let samples = series.samples.iter().map(|sample| (sample.timestamp, false));
                let times = samples.chain(series.histograms.iter().map(|histogram| (histogram.timestamp, true)));
                times.map(move |(time, is_native)| ((name.clone(), time), is_native))
            })
            .collect();
        assert!(!keys.is_empty());
        for (key, _) in &keys {
            assert!(!self.settled.contains(key), "{key:?} comes again, although it was answered for good");
        }
        let reply = if request.is_v2() { self.take_good(&keys) } else { self.take_all(&keys) };
        if !backend.is_heard() && dice.chance(8) {
            return Reply::status(502);
        }
        // A request of 1.0 that was refused may come again in parts.
        if request.is_v2() || reply.status == 204 || keys.len() == 1 {
            self.settled.extend(keys.into_iter().map(|(key, _)| key));
        }
        reply
    }

    /// As for 2.0.
    fn take_good(&mut self, keys: &[(Key, bool)]) -> Reply {
        let mut written = [0, 0];
        for (key, is_native) in keys {
            let is_new = self.takes(key);
            if is_new {
                self.store(key.clone());
            }
            if is_new || self.is_repetition(key) {
                written[usize::from(*is_native)] += 1;
            }
        }
        let [samples, histograms] = written;
        Reply::status(if samples + histograms == keys.len() { 204 } else { 400 }).written(samples, histograms, 0)
    }

    /// As for 1.0: one that cannot be taken, and nothing is.
    fn take_all(&mut self, keys: &[(Key, bool)]) -> Reply {
        let mut last = self.last.clone();
        for (key @ (series, time), _) in keys {
            let before = last.insert(series.clone(), *time);
            if is_bad(series) || before.is_some_and(|before| before >= *time && !self.is_repetition(key)) {
                return Reply::status(400);
            }
        }
        for (key, _) in keys {
            if !self.is_repetition(key) {
                self.store(key.clone());
            }
        }
        Reply::status(204)
    }

    /// Is it the newest sample there is?
    fn is_repetition(&self, (series, time): &Key) -> bool {
        self.last.get(series) == Some(time)
    }
}

fn is_bad(series: &str) -> bool {
    series.contains("bad=")
}

/// A receiver that is `backend`, and what it has.
async fn receiver(backend: Backend, seed: u64) -> (Receiver, Arc<Mutex<Tsdb>>) {
    println!("seed {seed}: {backend:?}");
    let tsdb = Arc::new(Mutex::new(Tsdb::default()));
    let (judging, dice) = (Arc::clone(&tsdb), Mutex::new(Dice::new(seed)));
    let answers = move |_, request: &Received| judging.lock().answer(backend, request, &mut dice.lock());
    (Receiver::judging(answers).await, tsdb)
}

fn backend(seed: u64) -> Backend {
    use Backend::{BlindV1, Downgraded, V1, V1Unheard, V2, V2Unheard};
    [V1, BlindV1, V2, Downgraded, V1Unheard, V2Unheard][seed as usize % 6]
}

const CONFIG: &str = "{max_batch_request_parallelism: 3, max_samples_per_send: 25, \
                      retry_on_failure: {initial_interval: 1ms, max_interval: 2ms}}";
const PUSHES: i64 = 150;
const B: &str = r#"instance="i-1",job="shop/cart""#;

/// Eight points of a gauge, of which one in fifty has a label that makes the receiver refuse it; the others are expected.
fn gauges(dice: &mut Dice, at: i64, expected: &mut HashSet<Key>, bad: &mut u64) -> Metric {
    let mut points = Vec::new();
    for n in 0..8 {
        let n = n.to_string();
        let labels: &[(&str, &str)] = if dice.chance(2) { &[("bad", "1"), ("n", &n)] } else { &[("n", &n)] };
        *bad += labels.len() as u64 - 1;
        points.push(number(1.0, at, labels));
        if labels.len() == 1 {
            expected.insert((format!(r#"x{{{B},n="{n}"}}"#), at));
        }
    }
    gauge("x", "", points)
}

/// Scenario: pushes of many series through several shards to a backend that fails every fifth request and cannot take one
/// sample in fifty. Guarantee, for backends of both versions, for one that is replaced in the middle, and where answers get
/// lost: what can be taken is taken, each series in order; nothing is sent again that was answered for good; the account
/// says so (where answers are lost, samples that are there already are refused as older ones, and count as lost).
#[tokio::test]
async fn what_can_be_kept_is_kept() {
    for seed in 0..24 {
        let backend = backend(seed);
        let (receiver, tsdb) = receiver(backend, seed).await;
        let running = start(&receiver, CONFIG).await;
        let mut dice = Dice::new(!seed);
        let (mut expected, mut bad) = (HashSet::new(), 0);
        for step in 0..PUSHES {
            running.push(push(vec![gauges(&mut dice, T + step, &mut expected, &mut bad)])).await;
        }
        running.settled(PUSHES as u64 * 8).await;
        let tsdb = tsdb.lock();
        assert_eq!(tsdb.stored, expected, "seed {seed}");
        let dropped = |reason| running.ledger.dropped_count(reason);
        let dropped = dropped(DropReason::Rejected) + dropped(DropReason::PartlyRejected);
        let exported = running.ledger.count(Entry::Exported);
        assert_eq!(exported + dropped, PUSHES as u64 * 8, "seed {seed}: nothing was given up");
        if backend.is_heard() {
            assert_eq!((exported, dropped), (expected.len() as u64, bad), "seed {seed}");
        }
        assert!(bad > 5, "seed {seed}");
    }
}

/// The same with histograms in both forms, whose points are several samples or native ones, and with the `target_info` of
/// a resource that moves to another host every ten pushes: each host's series ends before, or as, the next one begins.
/// Only where points are single samples the account can be exact.
#[tokio::test]
async fn all_kinds_of_points_are_kept() {
    for seed in 0..12 {
        let backend = backend(seed);
        let (receiver, tsdb) = receiver(backend, seed).await;
        let clock = Arc::new(SystemClock::default());
        let running = start_at(&receiver, CONFIG, &Extensions::default(), clock).await;
        let mut dice = Dice::new(!seed);
        let (mut expected, mut bad) = (HashSet::new(), 0);
        for step in 0..PUSHES {
            let at = T + step;
            let mut classic = histogram_point();
            classic.time_unix_nano = nanos(at);
            let mut native = exponential(3, 0, &[1, 2]);
            native.time_unix_nano = nanos(at);
            let metrics =
                vec![gauges(&mut dice, at, &mut expected, &mut bad), histogram(classic), exponentials(native)];
            let native = metrics[2].name.clone();
            let host = step / 10;
            running.push(push_from(&[SHOP, &[("host.name", &host.to_string())]].concat(), metrics)).await;
            let of_classic = ["count", "sum"].map(|part| format!("h_seconds_{part}{{{B}}}"));
            let buckets = ["0.5", "1", "+Inf"].map(|le| format!(r#"h_seconds_bucket{{{B},le="{le}"}}"#));
            expected.extend(of_classic.into_iter().chain(buckets).map(|series| (series, at)));
            expected.insert((format!("{native}{{{B}}}"), at));
            if step % 10 == 0 {
                let target = |host| (format!(r#"target_info{{host_name="{host}",{B}}}"#), at);
                expected.insert(target(host));
                if host > 0 {
                    expected.insert(target(host - 1));
                }
            }
        }
        running.settled(PUSHES as u64 * 10).await;
        assert_eq!(tsdb.lock().stored, expected, "seed {seed}");
        let dropped = |reason| running.ledger.dropped_count(reason);
        let (alone, partly) = (dropped(DropReason::Rejected), dropped(DropReason::PartlyRejected));
        let exported = running.ledger.count(Entry::Exported);
        assert_eq!(exported + alone + partly, PUSHES as u64 * 10, "seed {seed}: nothing was given up");
        if matches!(backend, Backend::V1 | Backend::BlindV1) {
            assert_eq!((alone, partly), (bad, 0), "seed {seed}");
        } else if backend.is_heard() {
            assert!((1..=bad).contains(&(alone + partly)), "seed {seed}: {alone} and {partly} of {bad}");
        }
    }
}
