//! The `prometheus_remote_write` receiver: what Prometheus and its agents send, 1.0 and 2.0.
//!
//! A request is read in place (`decode`), translated series by series (`translate`) and handed to the pipeline; the
//! answer waits for the pipeline's.

mod config;
mod decode;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod infos;
mod metadata;
mod server;
#[cfg(test)]
mod tests;
mod translate;

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use nyquist_core::batch::Signal;
use nyquist_core::component::{
    BuildError, Component, Host, Info, Receiver, ReceiverConfig, ReceiverContext, ReceiverFactory, Stability,
    StartError, receiver,
};
use nyquist_core::delivery::Status;
use nyquist_core::net::admission::Admission;
use nyquist_core::net::server::{Server, Settings, in_container};
use nyquist_core::net::tls::{ServerTls, ServerTlsConfig};
use parking_lot::Mutex;
use tokio::time::Instant;

pub use config::RemoteWriteConfig;

use crate::otlp::client::Keep;
use crate::otlp::{family, nonzero};
use server::{Lane, WriteHandler};

/// The `prometheus_remote_write` receiver's factory.
#[must_use]
pub fn factory() -> ReceiverFactory {
    receiver::<RemoteWriteConfig>(Info {
        name: "prometheus_remote_write",
        aliases: &["prometheusremotewrite"],
        signals: &[Signal::Metrics],
        stability: Stability::Beta,
    })
}

impl ReceiverConfig for RemoteWriteConfig {
    fn build(&self, context: ReceiverContext<'_>) -> Result<Arc<dyn Receiver>, BuildError> {
        Ok(Arc::new(RemoteWriteReceiver::new(self, &context)?))
    }
}

/// The `prometheus_remote_write` receiver.
pub struct RemoteWriteReceiver {
    id: String,
    settings: Settings,
    tls: Option<ServerTlsConfig>,
    admission: Arc<Admission>,
    /// Not there if no pipeline takes metrics from it.
    handler: Option<Arc<WriteHandler>>,
    server: Mutex<Option<Server>>,
}

impl RemoteWriteReceiver {
    /// A receiver as `config` describes it.
    ///
    /// # Errors
    /// If the authenticator is not there.
    pub fn new(config: &RemoteWriteConfig, context: &ReceiverContext<'_>) -> Result<Self, BuildError> {
        let id = context.id.to_string();
        let admission = Admission::of_receiver(config.max_in_flight);
        let auth = config.auth.as_ref().map(|auth| context.extensions.server_auth(&auth.authenticator));
        let auth = auth.transpose().map_err(|message| BuildError::new(&["auth", "authenticator"], message))?;
        let mut settings = Settings::new(&config.endpoint);
        settings.family = family(&config.transport).unwrap_or_default();
        settings.reuse_http1 = config.keep_alives_enabled;
        settings.write_timeout = nonzero(config.write_timeout);
        settings.keepalive.max_idle = nonzero(config.idle_timeout);
        if let Some(head_timeout) = config.read_header_timeout {
            settings.head_timeout = nonzero(head_timeout);
        }
        if let Some(most) = config.max_connections {
            settings.max_connections = most;
        }
        let handler = context.outputs.get(Signal::Metrics).map(|next| {
            Arc::new(WriteHandler {
                lane: Arc::new(Lane::new(&id, Arc::clone(next), &context.telemetry)),
                admission: Arc::clone(&admission),
                gates: context.outputs.gates(Signal::Metrics).to_vec(),
                keep: Keep::new(config.include_metadata, &[], auth.as_ref()),
                auth,
                max_body: config.max_body(),
                read_timeout: nonzero(config.read_timeout),
                families: metadata::Families::default(),
                infos: infos::Infos::default(),
            })
        });
        Ok(Self { id, settings, tls: config.tls.clone(), admission, handler, server: Mutex::new(None) })
    }

    /// Where it listens, once started.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.lock().as_ref().map(Server::address)
    }
}

#[async_trait]
impl Component for RemoteWriteReceiver {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let Some(handler) = &self.handler else { return Ok(()) };
        let mut settings = self.settings.clone();
        if let Some(tls) = &self.tls {
            let tls = ServerTls::new(tls, &["h2", "http/1.1"]);
            settings.tls = Some(tls.map_err(|error| StartError(format!("tls: {error}")))?);
        }
        let server = Server::start(settings, Arc::clone(handler), &host.runtimes).await;
        let server = server.map_err(|error| StartError(error.to_string()))?;
        let address = server.address();
        tracing::info!(receiver = self.id, endpoint = %address, path = server::PATH, "listening");
        if address.ip().is_loopback() && in_container() {
            tracing::warn!(
                receiver = self.id,
                endpoint = self.settings.endpoint.as_str(),
                "listening on the loopback interface of a container: nobody outside it can connect; \
                 set the endpoint to 0.0.0.0 and the same port if that is not what you want"
            );
        }
        *self.server.lock() = Some(server);
        Ok(())
    }

    fn status(&self) -> Option<Status> {
        self.server.lock().as_ref().map(Server::status)
    }

    async fn shutdown(&self, deadline: Instant) {
        let server = self.server.lock().take();
        if let Some(server) = server {
            server.shutdown(deadline).await;
        }
        // Batches whose senders have left are still on their way into the pipelines.
        if tokio::time::timeout_at(deadline, self.admission.idle()).await.is_err() {
            let bytes = self.admission.used();
            tracing::warn!(receiver = self.id, bytes, "requests were still being processed at the deadline");
        }
    }
}

impl Receiver for RemoteWriteReceiver {}
