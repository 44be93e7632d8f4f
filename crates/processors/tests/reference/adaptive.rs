//! Percentages that follow a goal. Which percentage a key gets is up to the algorithm; what the documentation says of all of them
//! together is shown here, on random keys of random frequency, under a simulated clock.

use std::collections::BTreeMap;
use std::time::Duration;

use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::trace::v1::{ResourceSpans, ScopeSpans, Span, TracesData};
use serde_json::{Value as Json, json};

use crate::random::{Random, seeds};
use crate::rig::{Rig, strip};
use crate::spans::{attribute, first_value, text};

const INTERVAL: u64 = 5;
/// Seconds until averages have settled.
const WARM: u64 = 12 * INTERVAL;
/// Seconds that are looked at.
const WATCHED: u64 = 20 * INTERVAL;

/// What is brought of a key.
struct Stream {
    key: String,
    /// Traces come each so many seconds ...
    every: u64,
    /// ... so many of them,
    traces: u64,
    /// with so many spans each.
    spans: u64,
}

/// What was kept of a key while it was watched.
#[derive(Default)]
struct Seen {
    came: u64,
    kept: u64,
    kept_spans: u64,
    /// In percent.
    rates: Vec<f64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Goal {
    Percentage(f64),
    Traces(f64),
    Spans(f64),
}

impl Goal {
    fn json(self) -> Json {
        match self {
            Self::Percentage(goal) => json!({ "goal_percentage": goal }),
            Self::Traces(goal) => json!({ "goal_traces_per_second": goal }),
            Self::Spans(goal) => json!({ "goal_spans_per_second": goal }),
        }
    }
}

fn config(random: &mut Random, goal: Goal, max_keys: usize) -> Json {
    let mut adaptive = goal.json();
    adaptive["keys"] = json!(["key"]);
    adaptive["adjustment_interval"] = json!(format!("{INTERVAL}s"));
    adaptive["max_keys"] = json!(max_keys);
    json!({
        "rules": [{ "name": "default", "adaptive": adaptive }],
        "decision_wait": "1s",
        "num_shards": random.between(1, 8),
        "memory_limit_mib": 64,
        "record": "all",
    })
}

fn request(random: &mut Random, key: &str, spans: u64) -> TracesData {
    let id: [u8; 16] = random.bytes();
    let span = |number: u64| Span {
        trace_id: id.to_vec(),
        span_id: (number + 1).to_be_bytes().to_vec(),
        attributes: vec![attribute("key", Some(text(key)))],
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans { spans: (0..spans).map(span).collect(), ..ScopeSpans::default() }];
    TracesData { resource_spans: vec![ResourceSpans { scope_spans, ..ResourceSpans::default() }] }
}

/// Sends all streams through a sampler, second by second.
fn watch(random: &mut Random, config: &Json, streams: &[Stream]) -> BTreeMap<String, Seen> {
    let rig = Rig::new(config);
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    for second in 1..=WARM + WATCHED {
        let is_watched = second > WARM;
        let now = Duration::from_secs(second);
        for stream in streams.iter().filter(|stream| second % stream.every == 0) {
            for _ in 0..stream.traces {
                rig.insert(&request(random, &stream.key, stream.spans), now);
            }
            seen.entry(stream.key.clone()).or_default().came += if is_watched { stream.traces } else { 0 };
        }
        rig.decide(now + Duration::from_millis(1_100));
        let mut ids = std::collections::BTreeSet::new();
        for (placed, recorded) in rig.take(now + Duration::from_millis(1_100)).into_iter().map(strip) {
            let Some(Value::StringValue(key)) = first_value(&placed.span.attributes, "key") else { panic!("no key") };
            if !is_watched {
                continue;
            }
            let seen = seen.get_mut(key).expect("it was sent");
            seen.kept_spans += 1;
            if ids.insert(placed.id()) {
                seen.kept += 1;
                seen.rates.push(recorded.rate.expect("a rate is recorded"));
            }
        }
    }
    assert_eq!(rig.pending(), 0);
    seen
}

fn streams(random: &mut Random) -> Vec<Stream> {
    let mut streams: Vec<Stream> = (0..random.between(3, 12))
        .map(|number| Stream {
            key: format!("key {number}"),
            every: 1,
            traces: random.pick(&[1, 2, 3, 5, 8, 20, 40]),
            spans: random.between(1, 4) as u64,
        })
        .collect();
    // One that is met less than once in each interval.
    streams.push(Stream { key: "rare".to_owned(), every: 2 * INTERVAL, traces: 1, spans: 2 });
    streams
}

#[test]
fn goals_are_met_and_rare_keys_are_kept() {
    for seed in seeds(6) {
        let mut random = Random::new(seed);
        let streams = streams(&mut random);
        let traces: u64 = streams.iter().filter(|stream| stream.every == 1).map(|stream| stream.traces).sum();
        let spans: u64 =
            streams.iter().filter(|stream| stream.every == 1).map(|stream| stream.traces * stream.spans).sum();
        // Below all that comes, above the one of each key that is kept anyway.
        let part = random.pick(&[0.25, 0.4, 0.6]);
        let goal = match seed % 3 {
            0 => Goal::Percentage(100.0 * part),
            1 => Goal::Traces(part * traces as f64),
            _ => Goal::Spans(part * spans as f64),
        };
        let config = config(&mut random, goal, 500);
        let context = format!("NYQUIST_SEED={seed}\n{config:#}");
        let seen = watch(&mut random, &config, &streams);

        let (came, kept): (u64, u64) =
            seen.values().fold((0, 0), |(came, kept), seen| (came + seen.came, kept + seen.kept));
        let kept_spans: u64 = seen.values().map(|seen| seen.kept_spans).sum();
        let (actual, wanted) = match goal {
            Goal::Percentage(goal) => (kept as f64, came as f64 * goal / 100.0),
            Goal::Traces(goal) => (kept as f64, goal * WATCHED as f64),
            Goal::Spans(goal) => (kept_spans as f64, goal * WATCHED as f64),
        };
        // Spans come up to four at a time.
        let chance = 5.0 * (4.0 * wanted).sqrt();
        let off = (actual - wanted).abs();
        assert!(off <= 0.05 * wanted + chance, "{actual} are kept, {wanted} wanted; {context}");

        assert_eq!(seen["rare"].kept, seen["rare"].came, "what is rare is kept whole; {context}");
        for (key, seen) in &seen {
            assert!(seen.kept > 0, "{key}: something of each key is kept; {context}");
            // Each that is kept stands for as many as its rate says.
            let counted: f64 = seen.rates.iter().map(|rate| 100.0 / rate).sum();
            let variance: f64 = seen.rates.iter().map(|rate| (100.0 / rate) * (100.0 / rate - 1.0)).sum();
            let off = (counted - seen.came as f64).abs();
            assert!(off <= 6.0 * variance.sqrt() + 1e-6, "{key}: {counted} are counted of {}; {context}", seen.came);
        }
        if !matches!(goal, Goal::Spans(_)) {
            // More of what is rare: the mean rate falls as more comes.
            let mean = |seen: &Seen| seen.rates.iter().sum::<f64>() / seen.rates.len() as f64;
            for (key, one) in &seen {
                for other in seen.values().filter(|other| other.came > one.came) {
                    assert!(mean(one) > mean(other) - 2.0, "{key}: {} and {}; {context}", mean(one), mean(other));
                }
            }
        }
    }
}

/// Scenario: beside a frequent key, ever new ones, each of which would be kept whole. Guarantee: only so many as have a percentage of
/// their own are; nobody gets around the goal by new keys.
#[test]
fn a_flood_of_keys_does_not_get_around_the_goal() {
    for seed in seeds(3) {
        let mut random = Random::new(seed);
        let max_keys = random.between(10, 40);
        let config = config(&mut random, Goal::Percentage(5.0), max_keys);
        let rig = Rig::new(&config);
        let (mut came, mut kept) = (0, 0);
        for second in 1..=120u64 {
            let now = Duration::from_secs(second);
            for number in 0..150 {
                let key = if number < 50 { "frequent".to_owned() } else { format!("{second} {number}") };
                rig.insert(&request(&mut random, &key, 1), now);
                came += 1;
            }
            rig.decide(now + Duration::from_millis(1_100));
            kept += rig.take(now + Duration::from_millis(1_100)).len();
        }
        let part = kept as f64 / f64::from(came);
        assert!(part < 0.2, "{part} is kept; NYQUIST_SEED={seed}\n{config:#}");
    }
}
