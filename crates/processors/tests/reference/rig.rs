//! The sampler under test, and what it has kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::proto::common::v1::any_value::Value;
use nyquist_core::proto::trace::v1::TracesData;
use nyquist_core::telemetry::{Ledger, Telemetry};
use nyquist_processors::tail_sampling::config::TailSamplingConfig;
use nyquist_processors::tail_sampling::sampler::Sampler;
use prost::Message;
use serde_json::Value as Json;

use crate::spans::{Placed, first_value, flatten};

/// What the sampler writes on spans begins with one of these.
const OURS: [&str; 2] = ["nyquist.sampling.", "tailsampling."];

pub(crate) struct Rig {
    sampler: Sampler,
    telemetry: Arc<Telemetry>,
}

impl Rig {
    pub(crate) fn new(config: &Json) -> Self {
        Self::of_yaml(&config.to_string())
    }

    pub(crate) fn of_yaml(yaml: &str) -> Self {
        let (config, _) = from_str::<TailSamplingConfig>(yaml)
            .unwrap_or_else(|problems| panic!("the configuration is refused: {problems}\n{yaml}"));
        let telemetry = Telemetry::new();
        let sampler = Sampler::new(&config, &ComponentId::of("tail_sampling"), Ledger::detached(), &telemetry).unwrap();
        Self { sampler, telemetry }
    }

    pub(crate) fn insert(&self, request: &TracesData, now: Duration) {
        self.insert_bytes(&request.encode_to_vec(), now);
    }

    pub(crate) fn insert_bytes(&self, request: &[u8], now: Duration) {
        self.sampler.insert(request, now).expect("there is room");
    }

    pub(crate) fn decide(&self, now: Duration) {
        for shard in 0..self.sampler.shards() {
            while self.sampler.decide(shard, now, 5) {}
        }
    }

    /// As a shutdown does.
    pub(crate) fn decide_all(&self, now: Duration, discard: bool) {
        for shard in 0..self.sampler.shards() {
            while self.sampler.decide_all(shard, now, 5, discard) {}
        }
    }

    /// What is kept so far and was not taken yet.
    pub(crate) fn take(&self, now: Duration) -> Vec<Placed> {
        let mut kept = Vec::new();
        for shard in 0..self.sampler.shards() {
            while let Some(out) = self.sampler.take(shard, now) {
                let batch = out.batch();
                let items = batch.items();
                let message = batch.into_wire();
                let spans = flatten(TracesData::decode(message).expect("what is kept is valid protobuf"));
                assert_eq!(spans.len(), items, "the batch knows how many spans it holds");
                kept.extend(spans);
                out.accepted();
            }
        }
        kept
    }

    pub(crate) fn pending(&self) -> usize {
        self.sampler.pending()
    }

    pub(crate) fn counter(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.telemetry.counter(&format!("otelcol_processor_tail_sampling_{name}"), "", labels).get()
    }
}

/// What the sampler says about a span that it kept.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Recorded {
    pub(crate) rule: Option<String>,
    pub(crate) rate: Option<f64>,
    pub(crate) policy: Option<String>,
    pub(crate) trigger: Option<String>,
    /// What would have been decided, and the rule that would have, if it is one that only tries.
    pub(crate) dry_run: Option<String>,
    pub(crate) tried_by: Option<String>,
    pub(crate) late: bool,
    pub(crate) incomplete: bool,
}

/// The span as it came, and what the sampler has written on it.
pub(crate) fn strip(mut kept: Placed) -> (Placed, Recorded) {
    let text = |key: &str| match first_value(&kept.span.attributes, key) {
        Some(Value::StringValue(text)) => Some(text.clone()),
        None => None,
        other => panic!("{key} is no text: {other:?}"),
    };
    let rate = match first_value(&kept.span.attributes, "nyquist.sampling.rate") {
        Some(Value::DoubleValue(rate)) => Some(*rate),
        None => None,
        other => panic!("the rate is no number: {other:?}"),
    };
    let is_true = |key: &str| first_value(&kept.span.attributes, key) == Some(&Value::BoolValue(true));
    let recorded = Recorded {
        rule: text("nyquist.sampling.rule"),
        rate,
        policy: text("tailsampling.policy"),
        trigger: text("nyquist.sampling.trigger"),
        dry_run: text("nyquist.sampling.dry_run"),
        tried_by: text("nyquist.sampling.dry_run.rule"),
        late: is_true("nyquist.sampling.late") || is_true("tailsampling.cached_decision"),
        incomplete: is_true("nyquist.sampling.incomplete"),
    };
    kept.span.attributes.retain(|attribute| !OURS.iter().any(|prefix| attribute.key.starts_with(prefix)));
    (kept, recorded)
}

/// How often each thing comes.
pub(crate) fn count<T: Ord>(things: impl IntoIterator<Item = T>) -> BTreeMap<T, usize> {
    let mut counts = BTreeMap::new();
    for thing in things {
        *counts.entry(thing).or_default() += 1;
    }
    counts
}
