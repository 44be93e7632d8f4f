//! What OTLP and Prometheus call the types of metrics.

/// What a metric is in OTLP, as far as names and values depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A gauge.
    Gauge,
    /// A monotonic sum.
    Counter,
    /// A sum that may go down; a gauge in Prometheus.
    UpDown,
    /// A monotonic sum that is one of the series of a classic histogram or summary (`_bucket`, `_sum`, `_count`), as
    /// the remote-write receiver has them. It keeps its name.
    Part,
    /// A histogram with explicit bounds.
    Histogram,
    /// An exponential histogram, native in Prometheus.
    Exponential,
    /// A summary.
    Summary,
}

/// A metric's type in Prometheus, with its number in remote write's metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum MetricType {
    Unknown = 0,
    Counter = 1,
    Gauge = 2,
    Histogram = 3,
    Summary = 5,
    Info = 6,
    StateSet = 7,
}

impl Kind {
    /// The type that a metric of this kind has unless its metadata says otherwise.
    #[must_use]
    pub fn metric_type(self) -> MetricType {
        match self {
            Self::Gauge | Self::UpDown => MetricType::Gauge,
            Self::Counter | Self::Part => MetricType::Counter,
            Self::Histogram | Self::Exponential => MetricType::Histogram,
            Self::Summary => MetricType::Summary,
        }
    }

    /// The kind of the metric `name` whose metadata has `prometheus.type`.
    #[must_use]
    pub(super) fn noted(self, name: &[u8], prometheus_type: &[u8]) -> Self {
        let is_part = |suffixes: &[&str]| suffixes.iter().any(|suffix| name.ends_with(suffix.as_bytes()));
        match (self, prometheus_type) {
            (Self::Counter, b"histogram") if is_part(&["_bucket", "_sum", "_count"]) => Self::Part,
            (Self::Counter, b"summary") if is_part(&["_sum", "_count"]) => Self::Part,
            _ => self,
        }
    }

    /// The type of a metric whose metadata has `prometheus.type`: what OTLP has no kind for is a
    /// gauge or a sum with this note.
    #[must_use]
    pub fn typed(self, prometheus_type: &[u8]) -> MetricType {
        match (self, prometheus_type) {
            (Self::Part, b"histogram") => MetricType::Histogram,
            (Self::Part, b"summary") => MetricType::Summary,
            (Self::Gauge | Self::UpDown, b"unknown") => MetricType::Unknown,
            (Self::Gauge | Self::UpDown, b"info") => MetricType::Info,
            (Self::Gauge | Self::UpDown, b"stateset") => MetricType::StateSet,
            _ => self.metric_type(),
        }
    }

    /// Do its values count from a start on?
    #[must_use]
    pub fn has_start(self) -> bool {
        !matches!(self, Self::Gauge | Self::UpDown)
    }
}

impl MetricType {
    /// The word in OpenMetrics' `# TYPE` line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
            Self::Info => "info",
            Self::StateSet => "stateset",
        }
    }

    /// The number in remote write's metadata, 1.0 and 2.0.
    #[must_use]
    pub fn number(self) -> u64 {
        self as u64
    }
}
