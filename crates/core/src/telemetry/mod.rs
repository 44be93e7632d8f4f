//! The gateway's own metrics, ledger and logs.

mod ledger;
pub mod logs;
mod losses;
mod process;
mod server;
mod share;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

pub use ledger::{Entry, Ledger, Left, left};
pub use losses::LossLog;
pub use process::{ProcessMetrics, resident_bytes};
use prometheus::proto::MetricType;
pub use prometheus::{Gauge, Histogram, IntCounter as Counter, IntGauge as UpDown};
pub use server::MetricsPage;
pub use share::Share;

/// The metrics of one process. Families are registered on first use; asking twice for the same
/// name and labels gives the same series.
#[derive(Default)]
pub struct Telemetry {
    registry: Registry,
    counters: Mutex<HashMap<String, IntCounterVec>>,
    gauges: Mutex<HashMap<String, IntGaugeVec>>,
    floats: Mutex<HashMap<String, GaugeVec>>,
    histograms: Mutex<HashMap<String, HistogramVec>>,
}

/// Label names and values.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

impl Telemetry {
    /// An empty set of metrics.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A counter. All series of a name have the same label names.
    pub fn counter(&self, name: &str, help: &str, labels: Labels<'_>) -> IntCounter {
        let mut families = self.counters.lock();
        let family = families.entry(name.to_owned()).or_insert_with(|| {
            let family = IntCounterVec::new(Opts::new(name, help), &names(labels)).unwrap_or_else(|_| invalid());
            self.register(name, Box::new(family.clone()));
            family
        });
        family.get_metric_with(&labels.iter().copied().collect::<HashMap<_, _>>()).unwrap_or_else(|error| {
            tracing::error!(name, %error, "a metric was asked for with other labels than before");
            IntCounter::new("detached", "detached").unwrap_or_else(|_| invalid())
        })
    }

    /// A gauge that counts whole things.
    pub fn gauge(&self, name: &str, help: &str, labels: Labels<'_>) -> IntGauge {
        let mut families = self.gauges.lock();
        let family = families.entry(name.to_owned()).or_insert_with(|| {
            let family = IntGaugeVec::new(Opts::new(name, help), &names(labels)).unwrap_or_else(|_| invalid());
            self.register(name, Box::new(family.clone()));
            family
        });
        family.get_metric_with(&labels.iter().copied().collect::<HashMap<_, _>>()).unwrap_or_else(|error| {
            tracing::error!(name, %error, "a metric was asked for with other labels than before");
            IntGauge::new("detached", "detached").unwrap_or_else(|_| invalid())
        })
    }

    /// A gauge of a measured value.
    pub fn float_gauge(&self, name: &str, help: &str, labels: Labels<'_>) -> Gauge {
        let mut families = self.floats.lock();
        let family = families.entry(name.to_owned()).or_insert_with(|| {
            let family = GaugeVec::new(Opts::new(name, help), &names(labels)).unwrap_or_else(|_| invalid());
            self.register(name, Box::new(family.clone()));
            family
        });
        family.get_metric_with(&labels.iter().copied().collect::<HashMap<_, _>>()).unwrap_or_else(|error| {
            tracing::error!(name, %error, "a metric was asked for with other labels than before");
            Gauge::new("detached", "detached").unwrap_or_else(|_| invalid())
        })
    }

    /// Takes the counter or gauge of `name` with these labels away: it is not shown any more, and one that is asked for later
    /// begins anew.
    pub fn remove(&self, name: &str, labels: Labels<'_>) {
        let labels = labels.iter().copied().collect::<HashMap<_, _>>();
        // It may be gone already: two components of one name have taken it away.
        if let Some(family) = self.counters.lock().get(name) {
            let _ = family.remove(&labels);
        }
        if let Some(family) = self.gauges.lock().get(name) {
            let _ = family.remove(&labels);
        }
    }

    /// A histogram with the upper bounds `buckets`.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64], labels: Labels<'_>) -> Histogram {
        let mut families = self.histograms.lock();
        let family = families.entry(name.to_owned()).or_insert_with(|| {
            let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
            let family = HistogramVec::new(options, &names(labels)).unwrap_or_else(|_| invalid());
            self.register(name, Box::new(family.clone()));
            family
        });
        family.get_metric_with(&labels.iter().copied().collect::<HashMap<_, _>>()).unwrap_or_else(|error| {
            tracing::error!(name, %error, "a metric was asked for with other labels than before");
            Histogram::with_opts(HistogramOpts::new("detached", "detached")).unwrap_or_else(|_| invalid())
        })
    }

    /// Everything in the Prometheus text format, `counter_suffix` behind the names of counters.
    #[must_use]
    pub fn render(&self, counter_suffix: &str) -> String {
        let mut text = String::new();
        let mut families = self.registry.gather();
        let counters = families.iter_mut().filter(|family| family.get_field_type() == MetricType::COUNTER);
        counters.for_each(|family| family.set_name(format!("{}{counter_suffix}", family.name())));
        if let Err(error) = prometheus::TextEncoder::new().encode_utf8(&families, &mut text) {
            tracing::error!(%error, "cannot encode own metrics");
        }
        text
    }

    /// The sum over the series of a counter whose labels include all of `labels`.
    #[must_use]
    pub fn sum(&self, name: &str, labels: Labels<'_>) -> u64 {
        let families = self.registry.gather();
        let series = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
        let wanted = series.filter(|series| {
            let has = |(key, value): &(&str, &str)| {
                series.get_label().iter().any(|label| label.name() == *key && label.value() == *value)
            };
            labels.iter().all(has)
        });
        wanted.map(|series| series.get_counter().get_value() as u64).sum()
    }

    /// Publishes what this process is (`target_info`): the attributes of its resource, with label
    /// names in which other characters than letters, digits and underscores are underscores. Of
    /// attributes that come to the same name, the last one is there.
    pub fn target_info(&self, attributes: &[(String, String)]) {
        let is_fine = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        let name = |key: &str| {
            let name: String = key.chars().map(|letter| if is_fine(letter) { letter } else { '_' }).collect();
            if name.starts_with(|first: char| first.is_ascii_alphabetic()) { name } else { format!("key_{name}") }
        };
        let labels: BTreeMap<String, &str> =
            attributes.iter().map(|(key, value)| (name(key), value.as_str())).collect();
        let labels: Vec<(&str, &str)> = labels.iter().map(|(key, value)| (key.as_str(), *value)).collect();
        self.gauge("target_info", "What this process is.", &labels).set(1);
    }

    fn register(&self, name: &str, family: Box<dyn prometheus::core::Collector>) {
        if let Err(error) = self.registry.register(family) {
            tracing::error!(name, %error, "cannot register a metric");
        }
    }
}

fn names<'a>(labels: Labels<'a>) -> Vec<&'a str> {
    labels.iter().map(|(name, _)| *name).collect()
}

/// Metric and label names are literals in the code, so an invalid one is a bug that the first
/// test of the component meets.
fn invalid() -> ! {
    unreachable!("a metric or label name in the code is not valid")
}
