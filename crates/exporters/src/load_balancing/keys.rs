//! What an item is routed by, and splitting a batch by it.

use bytes::Bytes;
use nyquist_core::batch::Signal;
use nyquist_core::wire::{
    AnyValue, DataPoint, KeyValue, LogRecordView, MetricView, Owned, Owners, Placed, ResourceLogsView, ScopeLogsView,
    SpanView, span_kind_text, split_by_owner,
};

use super::identity::{Digester, Identity};
use super::values::put_value;

/// By what items are spread over the backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Routing {
    /// The trace id. Of a log record without one: the service.
    TraceId,
    /// The resource's `service.name`.
    Service,
    /// These attributes.
    Attributes(Vec<String>),
    /// All attributes of the resource.
    Resource,
    /// The metric's name.
    Metric,
    /// What tells streams of data points apart: resource, scope, metric, attributes of the point.
    Stream,
}

const SERVICE: &str = "service.name";
const HEX: &[u8; 16] = b"0123456789abcdef";

impl Routing {
    /// The names that are known, with the signals that they are for.
    const NAMES: [(&str, &[Signal]); 6] = [
        ("traceID", &[Signal::Traces, Signal::Logs]),
        ("service", &Signal::ALL),
        ("attributes", &Signal::ALL),
        ("resource", &[Signal::Metrics, Signal::Logs]),
        ("metric", &[Signal::Metrics]),
        ("streamID", &[Signal::Metrics]),
    ];

    /// Is it the name of a routing of any signal?
    pub(super) fn is_known(name: &str) -> bool {
        Self::NAMES.iter().any(|(known, _)| *known == name)
    }

    /// The names for `signal`, or all of them, as an error shows them.
    pub(super) fn names(signal: Option<Signal>) -> String {
        let fitting = Self::NAMES.iter().filter(|(_, signals)| signal.is_none_or(|signal| signals.contains(&signal)));
        fitting.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }

    /// The routing called `name`; the signal's default without a name.
    ///
    /// # Errors
    /// If the signal has no such routing.
    pub(super) fn new(name: Option<&str>, attributes: &[String], signal: Signal) -> Result<Self, String> {
        let default = if signal == Signal::Traces { "traceID" } else { "service" };
        let name = name.filter(|name| !name.is_empty()).unwrap_or(default);
        let is_for = |known: &(&str, &[Signal])| known.0 == name && known.1.contains(&signal);
        if !Self::NAMES.iter().any(is_for) {
            return Err(format!(
                "unsupported routing_key {name:?} for {}: use one of {}",
                signal.name(),
                Self::names(Some(signal))
            ));
        }
        Ok(match name {
            "traceID" => Self::TraceId,
            // The Collector spells the key of a trace's service as that of an attribute, and only that.
            "service" if signal == Signal::Traces => Self::Attributes(vec![SERVICE.to_owned()]),
            "service" => Self::Service,
            "attributes" => Self::Attributes(attributes.to_vec()),
            "resource" => Self::Resource,
            "metric" => Self::Metric,
            _ => Self::Stream,
        })
    }

    /// Splits a request by the owners that `owner_of` names for keys. `edge_ids`: what
    /// [`Batch::has_edge_ids`](nyquist_core::batch::Batch::has_edge_ids) says of it.
    pub(super) fn split(
        &self,
        signal: Signal,
        bytes: &Bytes,
        edge_ids: bool,
        owner_of: impl FnMut(&[u8]) -> usize,
    ) -> Vec<Owned> {
        let mut reader = Reader {
            routing: self,
            signal,
            edge_ids,
            owner_of,
            resource: &[],
            found: Vec::new(),
            of_resource: Vec::new(),
            of_item: Vec::new(),
            order: Vec::new(),
            digester: Digester::default(),
            resource_identity: Identity::default(),
            identity: Identity::default(),
            metric: Identity::default(),
            settled: None,
            last_trace: None,
            key: Vec::new(),
        };
        split_by_owner(signal, bytes, &mut reader)
    }
}

/// Reads keys off the wire.
struct Reader<'r, 'a, F> {
    routing: &'r Routing,
    signal: Signal,
    edge_ids: bool,
    owner_of: F,
    resource: &'a [u8],
    /// The values of the routing attributes that resource or scope have.
    found: Vec<Option<AnyValue<'a>>>,
    /// Those of the resource alone.
    of_resource: Vec<Option<AnyValue<'a>>>,
    /// Those of an item, while its key is put together.
    of_item: Vec<Option<AnyValue<'a>>>,
    /// In which order the routing attributes are in the key.
    order: Vec<usize>,
    digester: Digester<'a>,
    resource_identity: Identity,
    /// Of the scope.
    identity: Identity,
    metric: Identity,
    /// The owner of everything in this resource or scope, once it is known.
    settled: Option<usize>,
    last_trace: Option<([u8; 16], usize)>,
    key: Vec<u8>,
}

impl<'a, F: FnMut(&[u8]) -> usize> Reader<'_, 'a, F> {
    fn owner(&mut self) -> usize {
        (self.owner_of)(&self.key)
    }

    /// The owner by `service.name` alone; what has none goes where the empty name goes.
    fn service(&mut self) -> usize {
        self.key.clear();
        let named = resource_attributes(self.resource).find(|attribute| attribute.key == SERVICE.as_bytes());
        if let Some(KeyValue { value: AnyValue::String(name), .. }) = named {
            self.key.extend_from_slice(name);
        }
        self.owner()
    }

    /// Looks for the routing attributes that are not found yet.
    fn look(names: &[String], found: &mut [Option<AnyValue<'a>>], attributes: impl Iterator<Item = KeyValue<'a>>) {
        for attribute in attributes {
            for (name, value) in names.iter().zip(found.iter_mut()) {
                if value.is_none() && attribute.key == name.as_bytes() {
                    *value = Some(attribute.value);
                }
            }
        }
    }

    /// `name=value|` for each routing attribute: the Collector's key.
    fn by_attributes(&mut self, names: &[String], found: &[Option<AnyValue<'a>>]) -> usize {
        self.key.clear();
        for &index in &self.order {
            let (Some(name), Some(value)) = (names.get(index), found.get(index)) else { continue };
            self.key.extend_from_slice(name.as_bytes());
            self.key.push(b'=');
            if let Some(value) = value {
                put_value(&mut self.key, *value);
            }
            self.key.push(b'|');
        }
        self.owner()
    }

    fn settle(&mut self, names: &[String]) {
        self.settled = None;
        if self.found.iter().all(Option::is_some) {
            let found = std::mem::take(&mut self.found);
            self.settled = Some(self.by_attributes(names, &found));
            self.found = found;
        }
    }

    /// What resource and scope leave open, read off an item.
    fn of_item(
        &mut self,
        names: &[String],
        pseudo: impl Fn(&str) -> Option<AnyValue<'a>>,
        attributes: impl Iterator<Item = KeyValue<'a>>,
    ) -> usize {
        let mut found = std::mem::take(&mut self.of_item);
        found.clone_from(&self.found);
        for (name, value) in names.iter().zip(&mut found) {
            if value.is_none() {
                *value = pseudo(name);
            }
        }
        Self::look(names, &mut found, attributes);
        let owner = self.by_attributes(names, &found);
        self.of_item = found;
        owner
    }

    /// As configured; of metrics and logs, the Collector puts first what the resource has, then what the scope has.
    fn put_in_order(&mut self) {
        let level = |index: usize| match self.signal {
            Signal::Traces => 0,
            _ if self.of_resource.get(index).is_some_and(Option::is_some) => 0,
            _ if self.found.get(index).is_some_and(Option::is_some) => 1,
            _ => 2,
        };
        self.order.clear();
        self.order.extend(0..self.found.len());
        self.order.sort_by_key(|index| level(*index));
    }

    fn stream(&mut self, point: DataPoint<'a>) -> usize {
        let stream = self.metric.stream(self.digester.digest(point.attributes()));
        stream.name("stream", &mut self.key);
        self.owner()
    }
}

impl<'a, F: FnMut(&[u8]) -> usize> Owners<'a> for Reader<'_, 'a, F> {
    fn resource(&mut self, resource: &'a [u8]) {
        self.resource = resource;
        match self.routing {
            Routing::Service => self.settled = Some(self.service()),
            Routing::Resource | Routing::Stream => {
                let attributes = self.digester.digest(resource_attributes(resource));
                self.resource_identity = Identity::of_resource(attributes);
                if *self.routing == Routing::Resource {
                    self.resource_identity.name("resource", &mut self.key);
                    self.settled = Some(self.owner());
                }
            }
            Routing::Attributes(names) => {
                self.of_resource.clear();
                self.of_resource.resize(names.len(), None);
                Self::look(names, &mut self.of_resource, resource_attributes(resource));
            }
            Routing::TraceId | Routing::Metric => {}
        }
    }

    fn scope(&mut self, scope: &'a [u8]) {
        let scope = ScopeLogsView::new(scope);
        match self.routing {
            Routing::Attributes(names) => {
                self.found.clone_from(&self.of_resource);
                Self::look(names, &mut self.found, scope.scope_attributes());
                self.put_in_order();
                self.settle(names);
            }
            Routing::Stream => {
                let attributes = self.digester.digest(scope.scope_attributes());
                self.identity = self.resource_identity.scope(scope.scope_name(), scope.scope_version(), attributes);
            }
            _ => {}
        }
    }

    fn item(&mut self, item: &'a [u8]) -> Placed {
        if let Some(owner) = self.settled {
            return Placed::Whole(owner);
        }
        let owner = match (self.routing, self.signal) {
            (Routing::TraceId, Signal::Traces) => {
                let span = SpanView::new(item);
                let id = if self.edge_ids { span.edge_trace_id() } else { span.trace_id() };
                let whole = <[u8; 16]>::try_from(id).ok();
                match self.last_trace {
                    Some((last, owner)) if whole == Some(last) => owner,
                    _ => {
                        let owner = (self.owner_of)(id);
                        self.last_trace = whole.map(|id| (id, owner));
                        owner
                    }
                }
            }
            (Routing::TraceId, _) => match LogRecordView::new(item).fields().trace_id {
                id if id.iter().all(|byte| *byte == 0) => self.service(),
                // Other than in traces, the Collector's key of a log record is the id in hex.
                id => {
                    self.key.clear();
                    for byte in id {
                        self.key.extend(HEX.get(usize::from(byte >> 4)));
                        self.key.extend(HEX.get(usize::from(byte & 15)));
                    }
                    self.owner()
                }
            },
            (Routing::Attributes(names), Signal::Traces) => {
                let span = SpanView::new(item);
                let pseudo = |name: &str| match name {
                    "span.name" => Some(AnyValue::String(span.name())),
                    "span.kind" => Some(AnyValue::String(span_kind_text(span.fields().kind).as_bytes())),
                    _ => None,
                };
                self.of_item(names, pseudo, span.attributes())
            }
            (Routing::Attributes(names), Signal::Logs) => {
                let record = LogRecordView::new(item);
                let pseudo = |name: &str| match name {
                    "log.severity" => Some(AnyValue::String(record.fields().severity_text)),
                    "log.body" => Some(record.body()),
                    _ => None,
                };
                self.of_item(names, pseudo, record.attributes())
            }
            (Routing::Metric, _) => {
                let name = MetricView::new(item).name();
                (self.owner_of)(name)
            }
            _ => {
                if *self.routing == Routing::Stream {
                    self.metric = self.identity.metric(&MetricView::new(item).fields());
                }
                return Placed::ByPoint;
            }
        };
        Placed::Whole(owner)
    }

    fn point(&mut self, point: DataPoint<'a>) -> usize {
        match self.routing {
            Routing::Attributes(names) => self.of_item(names, |_| None, point.attributes()),
            _ => self.stream(point),
        }
    }
}

/// The same for all signals.
fn resource_attributes(resource: &[u8]) -> impl Iterator<Item = KeyValue<'_>> {
    ResourceLogsView::new(resource).resource_attributes()
}
