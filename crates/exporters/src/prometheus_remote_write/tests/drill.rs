//! A drill: a receiver that keeps samples as Prometheus does, fails at random, and cannot take some of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use nyquist_core::batch::DropReason;
use nyquist_core::telemetry::Entry;
use parking_lot::Mutex;

use super::dice::Dice;
use super::protocol::start;
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
        let backend = match backend {
            Backend::Downgraded if self.requests < 100 => Backend::V2,
            Backend::Downgraded => Backend::V1,
            other => other,
        };
        match dice.below(100) {
            0..12 => return Reply::status(503),
            12..16 => return Reply::status(500),
            16..22 => return Reply { headers: vec![("retry-after", "0".to_owned())], ..Reply::status(429) },
            _ => {}
        }
        if request.is_v2() && backend != Backend::V2 {
            return Reply::status(if backend == Backend::V1 { 415 } else { 204 });
        }
        let keys: Vec<Key> = request
            .message()
            .timeseries
            .iter()
            .flat_map(|series| {
                let name = super::prompb::labels(&series.labels);
                series.samples.iter().map(move |sample| (name.clone(), sample.timestamp))
            })
            .collect();
        assert!(!keys.is_empty());
        for key in &keys {
            assert!(!self.settled.contains(key), "{key:?} comes again, although it was answered for good");
        }
        if request.is_v2() {
            self.settled.extend(keys.iter().cloned());
            let before = self.stored.len();
            for key in keys.iter().cloned() {
                if self.takes(&key) {
                    self.store(key);
                }
            }
            let written = self.stored.len() - before;
            return Reply::status(if written == keys.len() { 204 } else { 400 }).written(written, 0, 0);
        }
        // One that cannot be taken, and nothing is.
        let mut last = self.last.clone();
        let is_good = |(series, time): &Key| {
            !is_bad(series) && last.insert(series.clone(), *time).is_none_or(|last| last < *time)
        };
        if !keys.iter().all(is_good) {
            if keys.len() == 1 {
                self.settled.extend(keys);
            }
            return Reply::status(400);
        }
        self.settled.extend(keys.iter().cloned());
        keys.into_iter().for_each(|key| self.store(key));
        Reply::status(204)
    }
}

fn is_bad(series: &str) -> bool {
    series.contains("bad=")
}

/// Scenario: pushes of many series through several shards to a backend that fails every fifth request and cannot take one
/// sample in forty. Guarantee, for backends of both versions, and for one that is replaced in the middle: what can be taken
/// is taken, once, each series in order; nothing is sent again that was answered for good; the account says so.
#[tokio::test]
async fn what_can_be_kept_is_kept() {
    const PUSHES: i64 = 150;
    for seed in 0..16 {
        let backend = [Backend::V1, Backend::BlindV1, Backend::V2, Backend::Downgraded][seed as usize % 4];
        println!("seed {seed}: {backend:?}");
        let tsdb = Arc::new(Mutex::new(Tsdb::default()));
        let receiver = {
            let (tsdb, dice) = (Arc::clone(&tsdb), Mutex::new(Dice::new(seed)));
            Receiver::judging(move |_, request| tsdb.lock().answer(backend, request, &mut dice.lock())).await
        };
        let config = "{max_batch_request_parallelism: 3, max_samples_per_send: 25, \
                      retry_on_failure: {initial_interval: 1ms, max_interval: 2ms}}";
        let running = start(&receiver, config).await;
        let mut dice = Dice::new(!seed);
        let (mut expected, mut bad) = (HashSet::new(), 0);
        for step in 0..PUSHES {
            let mut points = Vec::new();
            for n in 0..8 {
                let n = n.to_string();
                let labels: &[(&str, &str)] = if dice.chance(2) { &[("bad", "1"), ("n", &n)] } else { &[("n", &n)] };
                bad += labels.len() as u64 - 1;
                points.push(number(step as f64, T + step, labels));
                if labels.len() == 1 {
                    let series = format!(r#"{{instance="i-1",job="shop/cart",n="{n}"}}"#);
                    expected.insert((series, T + step));
                }
            }
            running.push(push(vec![gauge("x", "", points)])).await;
        }
        running.settled(PUSHES as u64 * 8).await;
        let tsdb = tsdb.lock();
        assert_eq!(tsdb.stored, expected, "seed {seed}");
        assert_eq!(running.ledger.count(Entry::Exported), expected.len() as u64, "seed {seed}");
        let dropped = |reason| running.ledger.dropped_count(reason);
        assert_eq!(dropped(DropReason::Rejected) + dropped(DropReason::PartlyRejected), bad, "seed {seed}");
        assert!(bad > 5, "seed {seed}");
    }
}
