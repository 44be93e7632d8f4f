//! Telemetry as lines for people, laid out as the Collector does.

mod common;
mod logs;
mod metrics;
mod traces;

use nyquist_core::batch::Signal;
use nyquist_core::delivery::Request;
use nyquist_core::proto::logs::v1::LogsData;
use nyquist_core::proto::metrics::v1::MetricsData;
use nyquist_core::proto::trace::v1::TracesData;
use prost::Message;

use super::{Verbosity, Written};

/// What `request` reads like.
pub(super) fn write(request: &Request, verbosity: Verbosity) -> Result<Written, String> {
    let message = request.bytes();
    let error = |error: prost::DecodeError| format!("cannot decode the request: {error}");
    let items = request.items();
    Ok(match request.signal() {
        Signal::Traces => {
            let data = TracesData::decode(message).map_err(error)?;
            let summary = format!(r#"{{"resource spans": {}, "spans": {items}}}"#, data.resource_spans.len());
            let details = match verbosity {
                Verbosity::Basic => String::new(),
                Verbosity::Normal => traces::lines(&data),
                Verbosity::Detailed => traces::details(&data),
            };
            Written { title: "Traces", summary, details }
        }
        Signal::Metrics => {
            let data = MetricsData::decode(message).map_err(error)?;
            let scopes = data.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
            let metrics: usize = scopes.map(|scope| scope.metrics.len()).sum();
            let resources = data.resource_metrics.len();
            let summary =
                format!(r#"{{"resource metrics": {resources}, "metrics": {metrics}, "data points": {items}}}"#);
            let details = match verbosity {
                Verbosity::Basic => String::new(),
                Verbosity::Normal => metrics::lines(&data),
                Verbosity::Detailed => metrics::details(&data),
            };
            Written { title: "Metrics", summary, details }
        }
        Signal::Logs => {
            let data = LogsData::decode(message).map_err(error)?;
            let summary = format!(r#"{{"resource logs": {}, "log records": {items}}}"#, data.resource_logs.len());
            let details = match verbosity {
                Verbosity::Basic => String::new(),
                Verbosity::Normal => logs::lines(&data),
                Verbosity::Detailed => logs::details(&data),
            };
            Written { title: "Logs", summary, details }
        }
    })
}
