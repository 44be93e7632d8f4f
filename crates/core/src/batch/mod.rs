//! What travels between components.

mod patience;
mod permits;
mod refusal;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message;

pub use patience::{Caller, Patience, while_wanted};
pub use permits::{NoRoom, Permit, Permits, Room};
pub use refusal::{Code, DropReason, Refusal};

use crate::proto::logs::v1::LogsData;
use crate::proto::metrics::v1::{MetricsData, metric::Data};
use crate::proto::trace::v1::TracesData;

/// The three kinds of telemetry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Signal {
    /// Spans.
    Traces,
    /// Data points.
    Metrics,
    /// Log records.
    Logs,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// Its name in YAML and in metric labels: `traces`, `metrics`, `logs`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// What its items are called in metric names: `spans`, `metric_points`, `log_records`.
    #[must_use]
    pub fn items_name(self) -> &'static str {
        match self {
            Self::Traces => "spans",
            Self::Metrics => "metric_points",
            Self::Logs => "log_records",
        }
    }
}

/// What is known of the client that sent a batch.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Request headers that the receiver was told to keep, names in lower case; and, under
    /// [`Metadata::AUTH`], what the authenticator knows of the client.
    pub headers: Vec<(String, String)>,
}

impl Metadata {
    /// What attributes of the authenticator begin with. No header can: clients cannot claim them.
    pub const AUTH: &str = ":auth.";

    /// Headers that carry credentials, in lower case: kept in memory only if they are asked for by name, and never
    /// on disk.
    pub const SECRETS: [&str; 3] = ["authorization", "proxy-authorization", "cookie"];

    /// Does the header carry credentials?
    #[must_use]
    pub fn is_secret(name: &str) -> bool {
        Self::SECRETS.contains(&name)
    }

    /// May what is under `keys` be written to disk?
    ///
    /// # Errors
    /// What to say of the first key that carries credentials.
    pub fn check_for_disk(keys: &[String]) -> Result<(), String> {
        match keys.iter().find(|key| Self::is_secret(key)) {
            None => Ok(()),
            Some(key) => Err(format!(
                "the clients' header {key:?} is needed behind it, and credentials are never written to disk: take the header \
                 from elsewhere (headers_setter with value, or an authenticator of the exporter), or remove the storage"
            )),
        }
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn footprint(&self) -> usize {
        let text: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        text + size_of_val(self.headers.as_slice())
    }

    /// What there is under `keys`, in their order; a header may have several values.
    pub fn under<'a>(&'a self, keys: &'a [String]) -> impl Iterator<Item = &'a (String, String)> + Clone {
        keys.iter().flat_map(|key| self.headers.iter().filter(move |(name, _)| name == key))
    }

    /// The first value of a header, whose name is in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// What the authenticator knows of the client under `name`: `subject`, `claims.tenant`.
    #[must_use]
    pub fn auth(&self, name: &str) -> Option<&str> {
        let attribute = |(known, _): &&(String, String)| known.strip_prefix(Self::AUTH) == Some(name);
        self.headers.iter().find(attribute).map(|(_, value)| value.as_str())
    }
}

/// A change of a batch to the model was refused: its bytes are not the message they claim to be.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode the batch: {0}")]
pub struct DecodeError(#[from] prost::DecodeError);

#[derive(Debug, Clone)]
enum Payload {
    Wire(Bytes),
    Traces(Box<TracesData>),
    Metrics(Box<MetricsData>),
    Logs(Box<LogsData>),
}

/// Telemetry of one signal, as the OTLP message that came off the wire, or as its prost model
/// once somebody asked to change it.
///
/// Reading goes through the views of [`crate::wire`] over [`Batch::wire`]. Editing in full is
/// [`Batch::traces_mut`] and its siblings, which decode once; the next [`Batch::wire`] encodes.
///
/// A clone shares the bytes (a model is copied) and the permits.
#[derive(Debug, Clone)]
pub struct Batch {
    signal: Signal,
    payload: Payload,
    items: usize,
    has_edge_ids: bool,
    metadata: Arc<Metadata>,
    permits: Permits,
}

impl Batch {
    /// A batch of the OTLP export request (equally the `*Data` message) in `bytes`, which passed
    /// the ingress check, and which holds `items` spans, data points or log records.
    #[must_use]
    pub fn from_wire(signal: Signal, bytes: Bytes, items: usize) -> Self {
        Self::new(signal, Payload::Wire(bytes), items)
    }

    /// A batch of spans.
    #[must_use]
    pub fn from_traces(data: TracesData) -> Self {
        let items = count_spans(&data);
        Self::new(Signal::Traces, Payload::Traces(Box::new(data)), items)
    }

    /// A batch of metrics.
    #[must_use]
    pub fn from_metrics(data: MetricsData) -> Self {
        let items = count_points(&data);
        Self::new(Signal::Metrics, Payload::Metrics(Box::new(data)), items)
    }

    /// A batch of log records.
    #[must_use]
    pub fn from_logs(data: LogsData) -> Self {
        let items = count_logs(&data);
        Self::new(Signal::Logs, Payload::Logs(Box::new(data)), items)
    }

    fn new(signal: Signal, payload: Payload, items: usize) -> Self {
        Self { signal, payload, items, has_edge_ids: false, metadata: Arc::default(), permits: Permits::default() }
    }

    /// The same batch with `metadata`.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Arc<Metadata>) -> Self {
        self.metadata = metadata;
        self
    }

    /// The same batch with what [`Batch::has_edge_ids`] says.
    #[must_use]
    pub fn with_edge_ids(mut self, edge: bool) -> Self {
        self.has_edge_ids = edge;
        self
    }

    /// Whether the trace id of each span is known to be its first or its last field, and the only one: the ingress
    /// check saw it, and nobody has changed the message since.
    #[must_use]
    pub fn has_edge_ids(&self) -> bool {
        self.has_edge_ids && matches!(self.payload, Payload::Wire(_))
    }

    /// Which kind of telemetry this is.
    #[must_use]
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// How many spans, data points or log records it holds.
    #[must_use]
    pub fn items(&self) -> usize {
        match &self.payload {
            Payload::Wire(_) => self.items,
            Payload::Traces(data) => count_spans(data),
            Payload::Metrics(data) => count_points(data),
            Payload::Logs(data) => count_logs(data),
        }
    }

    /// Its encoded size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        match &self.payload {
            Payload::Wire(bytes) => bytes.len(),
            Payload::Traces(data) => data.encoded_len(),
            Payload::Metrics(data) => data.encoded_len(),
            Payload::Logs(data) => data.encoded_len(),
        }
    }

    /// What is known of the client that sent it.
    #[must_use]
    pub fn metadata(&self) -> &Arc<Metadata> {
        &self.metadata
    }

    /// The room that was reserved for it ahead of it; a stage takes its own out.
    pub fn permits_mut(&mut self) -> &mut Permits {
        &mut self.permits
    }

    /// The OTLP message. Encodes first if the batch was changed as a model.
    pub fn wire(&mut self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        self.encode();
        match &self.payload {
            Payload::Wire(bytes) => bytes,
            // `encode` has just replaced every model.
            _ => &EMPTY,
        }
    }

    /// The OTLP message, taken out.
    #[must_use]
    pub fn into_wire(mut self) -> Bytes {
        self.wire().clone()
    }

    /// Replaces the message: `bytes` hold `items` items of the same signal.
    pub fn set_wire(&mut self, bytes: Bytes, items: usize) {
        self.payload = Payload::Wire(bytes);
        self.items = items;
        self.has_edge_ids = false;
    }

    /// The spans, to change them. Decodes on first use; unknown fields do not survive it.
    ///
    /// # Errors
    /// If the batch holds another signal's bytes.
    pub fn traces_mut(&mut self) -> Result<&mut TracesData, DecodeError> {
        if let Payload::Wire(bytes) = &self.payload {
            self.payload = Payload::Traces(Box::new(TracesData::decode(bytes.clone())?));
        }
        match &mut self.payload {
            Payload::Traces(data) => Ok(data),
            _ => Err(wrong_signal(Signal::Traces)),
        }
    }

    /// The metrics, to change them. Decodes on first use; unknown fields do not survive it.
    ///
    /// # Errors
    /// If the batch holds another signal's bytes.
    pub fn metrics_mut(&mut self) -> Result<&mut MetricsData, DecodeError> {
        if let Payload::Wire(bytes) = &self.payload {
            self.payload = Payload::Metrics(Box::new(MetricsData::decode(bytes.clone())?));
        }
        match &mut self.payload {
            Payload::Metrics(data) => Ok(data),
            _ => Err(wrong_signal(Signal::Metrics)),
        }
    }

    /// The log records, to change them. Decodes on first use; unknown fields do not survive it.
    ///
    /// # Errors
    /// If the batch holds another signal's bytes.
    pub fn logs_mut(&mut self) -> Result<&mut LogsData, DecodeError> {
        if let Payload::Wire(bytes) = &self.payload {
            self.payload = Payload::Logs(Box::new(LogsData::decode(bytes.clone())?));
        }
        match &mut self.payload {
            Payload::Logs(data) => Ok(data),
            _ => Err(wrong_signal(Signal::Logs)),
        }
    }

    fn encode(&mut self) {
        let (bytes, items) = match &self.payload {
            Payload::Wire(_) => return,
            Payload::Traces(data) => (data.encode_to_vec(), count_spans(data)),
            Payload::Metrics(data) => (data.encode_to_vec(), count_points(data)),
            Payload::Logs(data) => (data.encode_to_vec(), count_logs(data)),
        };
        self.set_wire(bytes.into(), items);
    }
}

fn wrong_signal(wanted: Signal) -> DecodeError {
    #[expect(deprecated, reason = "prost offers no other way to make the error")]
    DecodeError(prost::DecodeError::new(format!("the batch does not hold {}", wanted.name())))
}

fn count_spans(data: &TracesData) -> usize {
    data.resource_spans.iter().flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len()).sum()
}

fn count_logs(data: &LogsData) -> usize {
    data.resource_logs.iter().flat_map(|resource| &resource.scope_logs).map(|scope| scope.log_records.len()).sum()
}

fn count_points(data: &MetricsData) -> usize {
    data.resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics)
        .flat_map(|scope| &scope.metrics)
        .map(|metric| match &metric.data {
            None => 0,
            Some(Data::Gauge(gauge)) => gauge.data_points.len(),
            Some(Data::Sum(sum)) => sum.data_points.len(),
            Some(Data::Histogram(histogram)) => histogram.data_points.len(),
            Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
            Some(Data::Summary(summary)) => summary.data_points.len(),
        })
        .sum()
}
