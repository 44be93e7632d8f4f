//! OTLP/JSON: the one encoding that needs the model.

use bytes::Bytes;
use nyquist_core::batch::Signal;
use nyquist_core::delivery::Request;
use nyquist_core::proto::logs::v1::LogsData;
use nyquist_core::proto::metrics::v1::MetricsData;
use nyquist_core::proto::trace::v1::TracesData;
use prost::Message;
use serde::Serialize;

/// The request as JSON.
pub(super) fn encode(request: &Request) -> Result<Bytes, String> {
    let message = request.bytes();
    match request.signal() {
        Signal::Traces => transcode::<TracesData>(&message),
        Signal::Metrics => transcode::<MetricsData>(&message),
        Signal::Logs => transcode::<LogsData>(&message),
    }
}

fn transcode<M: Message + Default + Serialize>(message: &[u8]) -> Result<Bytes, String> {
    let data = M::decode(message).map_err(|error| format!("cannot decode the request: {error}"))?;
    let json = serde_json::to_vec(&data).map_err(|error| format!("cannot write the request as JSON: {error}"))?;
    Ok(json.into())
}
