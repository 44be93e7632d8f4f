//! The `otlp` receiver: traces, metrics and logs over gRPC and HTTP.
//!
//! A request's bytes are read under a cap, checked in one pass and handed to the pipelines as
//! they are. The reply waits for the pipelines' answer: what is acknowledged is theirs.

pub(crate) mod client;
mod config;
mod cors;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
mod grpc;
mod http;
mod intake;
pub(crate) mod json;
mod limits;
pub mod recorded;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;

use ::http::{HeaderMap, HeaderName, HeaderValue};
use async_trait::async_trait;
use nyquist_core::batch::Signal;
use nyquist_core::component::{
    BuildError, Component, Extensions, Host, Info, Receiver, ReceiverConfig, ReceiverContext, ReceiverFactory,
    ServerAuth, Stability, StartError, receiver,
};
use nyquist_core::delivery::Status;
use nyquist_core::net::admission::Admission;
use nyquist_core::net::compression::decode::Encoding;
use nyquist_core::net::server::{Family, Keepalive, Server, Settings, in_container};
use nyquist_core::net::tls::{ServerTls, ServerTlsConfig};
use parking_lot::Mutex;
use tokio::time::Instant;

use client::Keep;
pub use config::{
    AuthConfig, CorsConfig, EnforcementPolicy, GrpcConfig, HttpConfig, Keepalive as KeepaliveConfig, Middleware,
    OtlpConfig, Protocols, ServerParameters,
};
pub(crate) use config::{family, nonzero};
use cors::Cors;
use grpc::GrpcHandler;
use http::HttpHandler;
pub(crate) use http::drain;
pub(crate) use intake::{Lane, to_completion};
pub use limits::ClientLimit;
use limits::Limits;

/// What each request is charged beside its bytes: what an open stream of HTTP/2 was measured to take
/// (`tests/edge/floods.rs`).
const REQUEST_OVERHEAD: usize = 4 << 10;

/// The `otlp` receiver's factory.
#[must_use]
pub fn factory() -> ReceiverFactory {
    receiver::<OtlpConfig>(Info { name: "otlp", aliases: &[], signals: &Signal::ALL, stability: Stability::Stable })
}

impl ReceiverConfig for OtlpConfig {
    fn build(&self, context: ReceiverContext<'_>) -> Result<Arc<dyn Receiver>, BuildError> {
        Ok(Arc::new(OtlpReceiver::new(self, &context)?))
    }
}

/// One listener's settings and what answers there.
struct Listener<H> {
    settings: Settings,
    tls: Option<ServerTlsConfig>,
    /// What to offer in a TLS handshake.
    alpn: &'static [&'static str],
    handler: Arc<H>,
}

/// The `otlp` receiver.
pub struct OtlpReceiver {
    id: String,
    admission: Arc<Admission>,
    grpc: Option<Listener<GrpcHandler>>,
    http: Option<Listener<HttpHandler>>,
    servers: Mutex<Vec<Arc<Server>>>,
    addresses: Mutex<Addresses>,
}

/// Where a receiver listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct Addresses {
    /// OTLP/gRPC, if it is on and started.
    pub grpc: Option<SocketAddr>,
    /// OTLP/HTTP, if it is on and started.
    pub http: Option<SocketAddr>,
}

impl OtlpReceiver {
    /// A receiver as `config` describes it.
    ///
    /// # Errors
    /// If an authenticator is not there, or a header cannot be sent.
    pub fn new(config: &OtlpConfig, context: &ReceiverContext<'_>) -> Result<Self, BuildError> {
        let id = context.id.to_string();
        let admission = Admission::of_receiver(config.max_in_flight);
        let max_connections = config.max_connections;
        let lanes = |transport| Lane::all(&id, transport, &context.outputs, &context.telemetry);
        let limits =
            Limits::new(&id, &admission, config.min_body_rate.rate(), &config.client_limits, &context.telemetry);
        let grpc = config.grpc().map(|grpc| grpc_listener(grpc, lanes("grpc"), &limits, context.extensions));
        let http = config.http().map(|http| http_listener(http, lanes("http"), &limits, context.extensions));
        let (mut grpc, mut http) = (grpc.transpose()?, http.transpose()?);
        if let Some(most) = max_connections {
            grpc.iter_mut().for_each(|listener| listener.settings.max_connections = most);
            http.iter_mut().for_each(|listener| listener.settings.max_connections = most);
        }
        Ok(Self { id, admission, grpc, http, servers: Mutex::default(), addresses: Mutex::default() })
    }

    /// Where it listens, once started: with the ports that the system chose where the endpoint
    /// says 0.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        *self.addresses.lock()
    }

    async fn listen<H>(&self, protocol: &str, listener: &Listener<H>, host: &Host) -> Result<SocketAddr, StartError>
    where
        H: nyquist_core::net::server::Handler,
    {
        let mut settings = listener.settings.clone();
        if let Some(tls) = &listener.tls {
            let tls = ServerTls::new(tls, listener.alpn);
            let tls = tls.map_err(|error| StartError(format!("protocols.{protocol}.tls: {error}")))?;
            settings.tls = Some(tls);
        }
        let server = Server::start(settings, Arc::clone(&listener.handler), &host.runtimes)
            .await
            .map_err(|error| StartError(error.to_string()))?;
        let address = server.address();
        if listener.settings.family == Family::Unix {
            tracing::info!(receiver = self.id, protocol, endpoint = listener.settings.endpoint, "listening");
            self.servers.lock().push(Arc::new(server));
            return Ok(address);
        }
        tracing::info!(receiver = self.id, protocol, endpoint = %address, "listening");
        if address.ip().is_loopback() && in_container() {
            let configured = listener.settings.endpoint.as_str();
            tracing::warn!(
                receiver = self.id,
                protocol,
                endpoint = configured,
                "listening on the loopback interface of a container: nobody outside it can connect; \
                 set the endpoint to 0.0.0.0 and the same port if that is not what you want"
            );
        }
        self.servers.lock().push(Arc::new(server));
        Ok(address)
    }
}

#[async_trait]
impl Component for OtlpReceiver {
    async fn start(&self, host: &Host) -> Result<(), StartError> {
        if let Some(grpc) = &self.grpc {
            let address = self.listen("grpc", grpc, host).await?;
            self.addresses.lock().grpc = Some(address);
        }
        if let Some(http) = &self.http {
            let address = self.listen("http", http, host).await?;
            self.addresses.lock().http = Some(address);
        }
        Ok(())
    }

    fn status(&self) -> Option<Status> {
        self.servers.lock().iter().map(|server| server.status()).reduce(Status::and)
    }

    async fn shutdown(&self, deadline: Instant) {
        let servers = std::mem::take(&mut *self.servers.lock());
        let stopping: Vec<_> =
            servers.into_iter().map(|server| tokio::spawn(async move { server.shutdown(deadline).await })).collect();
        for stopped in stopping {
            let _ = stopped.await;
        }
        // Batches whose clients have left are still on their way into the pipelines.
        if tokio::time::timeout_at(deadline, self.admission.idle()).await.is_err() {
            let bytes = self.admission.used();
            tracing::warn!(receiver = self.id, bytes, "requests were still being processed at the deadline");
        }
    }
}

impl Receiver for OtlpReceiver {}

type Lanes = [Option<Arc<Lane>>; 3];

fn authenticator(
    protocol: &str,
    config: Option<&AuthConfig>,
    extensions: &Extensions,
) -> Result<Option<Arc<dyn ServerAuth>>, BuildError> {
    let Some(config) = config else { return Ok(None) };
    let found = extensions.server_auth(&config.authenticator);
    found.map(Some).map_err(|message| BuildError::new(&["protocols", protocol, "auth", "authenticator"], message))
}

fn grpc_listener(
    config: &GrpcConfig,
    lanes: Lanes,
    limits: &Arc<Limits>,
    extensions: &Extensions,
) -> Result<Listener<GrpcHandler>, BuildError> {
    let mut settings = Settings::new(&config.endpoint);
    settings.family = family(&config.transport).unwrap_or_default();
    if config.max_concurrent_streams > 0 {
        settings.max_concurrent_streams = config.max_concurrent_streams;
    }
    if let Some(server) = config.keepalive.as_ref().and_then(|keepalive| keepalive.server_parameters.as_ref()) {
        let defaults = Keepalive::default();
        settings.keepalive = Keepalive {
            max_idle: nonzero(server.max_connection_idle),
            max_age: nonzero(server.max_connection_age),
            max_age_grace: nonzero(server.max_connection_age_grace),
            time: nonzero(server.time).or(defaults.time),
            timeout: nonzero(server.timeout).unwrap_or(defaults.timeout),
        };
    }
    let auth = authenticator("grpc", config.auth.as_ref(), extensions)?;
    let handler = GrpcHandler {
        lanes,
        limits: Arc::clone(limits),
        keep: Keep::new(config.include_metadata, &config.metadata_keys, auth.as_ref()),
        auth,
        max_message: config.max_message(),
    };
    Ok(Listener { settings, tls: config.tls.clone(), alpn: &["h2"], handler: Arc::new(handler) })
}

fn http_listener(
    config: &HttpConfig,
    lanes: Lanes,
    limits: &Arc<Limits>,
    extensions: &Extensions,
) -> Result<Listener<HttpHandler>, BuildError> {
    let mut settings = Settings::new(&config.endpoint);
    settings.family = family(&config.transport).unwrap_or_default();
    settings.reuse_http1 = config.keep_alives_enabled;
    settings.write_timeout = nonzero(config.write_timeout);
    settings.keepalive.max_idle = nonzero(config.idle_timeout);
    if let Some(head_timeout) = config.read_header_timeout {
        settings.head_timeout = nonzero(head_timeout);
    }
    let encodings = config.compression_algorithms.as_ref();
    let auth_params = config.auth.as_ref().map(|auth| auth.request_params.clone()).unwrap_or_default();
    let auth = authenticator("http", config.auth.as_ref(), extensions)?;
    let handler = HttpHandler {
        lanes,
        paths: config.paths(),
        limits: Arc::clone(limits),
        keep: Keep::new(config.include_metadata, &config.metadata_keys, auth.as_ref()),
        auth,
        auth_params,
        max_body: config.max_body(),
        encodings: encodings.map(|names| names.iter().filter_map(|name| Encoding::from_name(name)).collect()),
        read_timeout: nonzero(config.read_timeout),
        cors: config.cors.as_ref().and_then(Cors::new),
        response_headers: response_headers(config)?,
    };
    Ok(Listener { settings, tls: config.tls.clone(), alpn: &["h2", "http/1.1"], handler: Arc::new(handler) })
}

fn response_headers(config: &HttpConfig) -> Result<HeaderMap, BuildError> {
    let mut headers = HeaderMap::new();
    for (name, value) in &config.response_headers {
        let path = ["protocols", "http", "response_headers", name.as_str()];
        let invalid = || BuildError::new(&path, "is not a header that can be sent");
        let parsed_name = HeaderName::try_from(name).map_err(|_| invalid())?;
        let parsed_value = HeaderValue::from_str(value.expose()).map_err(|_| invalid())?;
        headers.insert(parsed_name, parsed_value);
    }
    Ok(headers)
}
