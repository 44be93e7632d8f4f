//! Types of families, which senders of 1.0 say apart from series, once a minute. Until then histograms and summaries
//! are known by the labels of their series.

use std::collections::HashMap;

use parking_lot::RwLock;

use super::decode::Metadata;
use crate::prometheus::exposition::MetricType;
use crate::prometheus::labels::{Labels, NAME};

/// So many families are remembered; further ones go by their names.
const MAX_FAMILIES: usize = 20_000;
/// Longer names and helps are not remembered, in bytes.
const MAX_TEXT: usize = 1024;

/// One family.
#[derive(Debug, Clone)]
pub(super) struct Family {
    pub(super) kind: MetricType,
    pub(super) help: String,
    pub(super) unit: String,
}

/// The families that senders have described.
#[derive(Default)]
pub(super) struct Families(RwLock<HashMap<String, Family>>);

impl Families {
    /// Learns from a request.
    pub(super) fn learn<'a>(&self, metadata: impl Iterator<Item = Metadata<'a>>) {
        for own in metadata {
            let is_short = [own.family, own.help, own.unit].iter().all(|text| text.len() <= MAX_TEXT);
            if own.family.is_empty() || own.kind == MetricType::Unknown || !is_short {
                continue;
            }
            let is_same =
                |family: &Family| family.kind == own.kind && family.help == own.help && family.unit == own.unit;
            if !self.0.read().get(own.family).is_some_and(is_same) {
                let family = Family { kind: own.kind, help: own.help.to_owned(), unit: own.unit.to_owned() };
                self.remember(own.family, family);
            }
        }
    }

    /// Learns from the labels of a series of no known type: only the buckets of a histogram have `le`, and only the
    /// quantiles of a summary `quantile`. Their `_sum` and `_count` show nothing, and may come in other requests.
    pub(super) fn learn_from(&self, labels: &Labels<'_>) {
        let name = labels.get(NAME);
        let (family, kind) = match name.strip_suffix("_bucket") {
            Some(family) if !labels.get("le").is_empty() => (family, MetricType::Histogram),
            _ if !labels.get("quantile").is_empty() => (name, MetricType::Summary),
            _ => return,
        };
        // What senders say goes first.
        let is_known = || [family, name].iter().any(|name| self.0.read().contains_key(*name));
        if family.is_empty() || family.len() > MAX_TEXT || is_known() {
            return;
        }
        self.remember(family, Family { kind, help: String::new(), unit: String::new() });
    }

    fn remember(&self, name: &str, family: Family) {
        let mut families = self.0.write();
        if families.len() < MAX_FAMILIES || families.contains_key(name) {
            families.insert(name.to_owned(), family);
        }
    }

    /// The family that the series `name` belongs to.
    pub(super) fn of(&self, name: &str) -> Option<Family> {
        let families = self.0.read();
        if families.is_empty() {
            return None;
        }
        if let Some(family) = families.get(name) {
            return Some(family.clone());
        }
        let suffixes = ["_bucket", "_sum", "_count", "_total", "_info", "_created"];
        let bases = suffixes.iter().filter_map(|suffix| name.strip_suffix(suffix));
        bases.filter_map(|base| families.get(base)).next().cloned()
    }
}
