//! What head samplers have left in `tracestate`, and what a sampler leaves there: the `ot` entry
//! (<https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/>).

use std::collections::BTreeMap;

use crate::conditions::low_bits;
use crate::policies::trace_state;
use crate::spans::{Id, Placed};

/// What happens to the spans of a kept trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Change {
    /// Nothing.
    Stay,
    /// They were kept with this threshold: the stricter one counts.
    Stricter(u64),
    /// Nobody knows how many they stand for.
    Erase,
}

/// A `tracestate`, taken apart.
struct State {
    /// The fields of the `ot` entry.
    ot: BTreeMap<String, String>,
    others: Vec<(String, String)>,
}

impl State {
    /// None if it is malformed.
    fn read(header: &str) -> Option<Self> {
        let mut ot = BTreeMap::new();
        let mut others = trace_state(header.trim())?;
        if let Some(place) = others.iter().position(|(key, _)| key == "ot") {
            for field in others.remove(place).1.split(';') {
                let (key, value) = field.split_once(':')?;
                let digits = value.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c));
                let is_sound = match key {
                    "th" => digits && (1..=14).contains(&value.len()),
                    "rv" => digits && value.len() == 14,
                    _ => !key.is_empty(),
                };
                if !is_sound {
                    return None;
                }
                ot.insert(key.to_owned(), value.to_owned());
            }
        }
        Some(Self { ot, others })
    }

    fn threshold(&self) -> Option<u64> {
        let digits = self.ot.get("th")?;
        u64::from_str_radix(&format!("{digits:0<14}"), 16).ok()
    }

    fn write(&self) -> String {
        let fields: Vec<String> = self.ot.iter().map(|(key, value)| format!("{key}:{value}")).collect();
        let ot = (!fields.is_empty()).then(|| format!("ot={}", fields.join(";")));
        let others = self.others.iter().map(|(key, value)| format!("{key}={value}"));
        ot.into_iter().chain(others).collect::<Vec<_>>().join(",")
    }
}

/// The randomness of a trace: the first that a span brings, or that of its id.
pub(crate) fn randomness(spans: &[Placed], id: Id) -> u64 {
    let given = |placed: &Placed| {
        let digits = State::read(&placed.span.trace_state)?.ot.get("rv")?.clone();
        u64::from_str_radix(&digits, 16).ok()
    };
    spans.iter().find_map(given).unwrap_or_else(|| low_bits(id))
}

/// The same for whom it counts only that a sampler has been there before; none if there was none.
pub(crate) fn given_randomness(spans: &[Placed], id: Id) -> Option<u64> {
    let has_been_sampled = spans
        .iter()
        .filter_map(|placed| State::read(&placed.span.trace_state))
        .any(|state| state.ot.contains_key("rv") || state.ot.contains_key("th"));
    has_been_sampled.then(|| randomness(spans, id))
}

/// The span as it should leave.
pub(crate) fn changed(mut placed: Placed, change: Change) -> Placed {
    let Some(mut state) = State::read(&placed.span.trace_state) else {
        return placed;
    };
    match change {
        Change::Stay => return placed,
        Change::Stricter(threshold) => {
            let strictest = state.threshold().unwrap_or(0).max(threshold);
            state.ot.insert("th".to_owned(), format!("{strictest:014x}"));
        }
        Change::Erase => {
            state.ot.remove("th");
        }
    }
    placed.span.trace_state = state.write();
    placed
}

/// The span with its `tracestate` as it is compared: whatever the order of fields, and of the threshold the first 40 bits, as
/// percentages are no exact numbers.
pub(crate) fn comparable(mut placed: Placed) -> Placed {
    if let Some(mut state) = State::read(&placed.span.trace_state) {
        if let Some(threshold) = state.threshold() {
            state.ot.insert("th".to_owned(), format!("{:x}", (threshold + (1 << 15)) >> 16));
        }
        placed.span.trace_state = state.write();
    }
    placed
}
