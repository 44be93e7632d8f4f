//! One unary `Export` call.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use http::{HeaderMap, Method, Request as HttpRequest, Uri};
use nyquist_core::batch::{Code, Signal};
use nyquist_core::component::{BuildError, ClientAuth, ExporterContext, Host, StartError};
use nyquist_core::delivery::{Attempt, Outcome, Request};
use nyquist_core::net::client::{Chunks, Client, ClientOptions, Connector, GrpcEndpoint, Proxy, user_agent};
use nyquist_core::net::compression::encode::Compression;
use nyquist_core::net::grpc::{CONTENT_TYPE_GRPC, HEADER_LEN, header};
use nyquist_core::net::tls::{ClientTls, ClientTlsConfig};

use super::OtlpConfig;
use super::reply::outcome;

/// Calls `Export` of one signal's service.
pub(crate) struct GrpcAttempt {
    endpoint: GrpcEndpoint,
    /// `None`: plaintext.
    tls: Option<ClientTlsConfig>,
    options: ClientOptions,
    rotates: bool,
    uri: Uri,
    headers: HeaderMap,
    auth: Option<Arc<dyn ClientAuth>>,
    compression: Compression,
    retry_resource_exhausted: bool,
    client: OnceLock<Client>,
}

impl GrpcAttempt {
    pub(crate) fn new(
        config: &OtlpConfig,
        endpoint: &GrpcEndpoint,
        context: &ExporterContext<'_>,
    ) -> Result<Self, BuildError> {
        let compression = Compression::parse(&config.compression, OtlpConfig::COMPRESSIONS)
            .map_err(|error| BuildError::new(&["compression"], error))?;
        let auth = config.auth.as_ref().map(|auth| context.extensions.client_auth(&auth.authenticator));
        let auth = auth.transpose().map_err(|error| BuildError::new(&["auth", "authenticator"], error))?;
        let has_tls = endpoint.is_https || !config.tls.insecure || config.tls.has_ca();
        let authority = if config.authority.is_empty() { endpoint.authority() } else { config.authority.clone() };
        let uri = Uri::builder()
            .scheme(if has_tls { "https" } else { "http" })
            .authority(authority)
            .path_and_query(path(context.signal))
            .build()
            .map_err(|error| BuildError::new(&["authority"], error.to_string()))?;
        let keepalive = config.keepalive.clone();
        let options = ClientOptions {
            http2_only: true,
            ping_every: keepalive.as_ref().map(|keepalive| keepalive.time.0),
            ping_timeout: keepalive.as_ref().map_or(Duration::from_secs(10), |keepalive| keepalive.timeout.0),
            ping_idle: keepalive.is_some_and(|keepalive| keepalive.permit_without_stream),
            idle_timeout: None,
            ..ClientOptions::default()
        };
        Ok(Self {
            endpoint: endpoint.clone(),
            tls: has_tls.then(|| config.tls.clone()),
            options,
            rotates: config.balancer_name != "pick_first",
            uri,
            headers: headers(config, compression).map_err(|error| BuildError::new(&["headers"], error))?,
            auth,
            compression,
            retry_resource_exhausted: config.retry_resource_exhausted,
            client: OnceLock::new(),
        })
    }
}

impl GrpcAttempt {
    pub(super) fn connector(&self, tls: Option<Arc<ClientTls>>) -> Result<Connector, StartError> {
        // As with the Collector, plaintext gRPC looks at HTTPS_PROXY too.
        let proxy = match &self.endpoint {
            GrpcEndpoint { socket: Some(_), .. } => None,
            GrpcEndpoint { host, port, .. } => Proxy::from_env(true, host, *port).map_err(StartError)?,
        };
        Ok(Connector::grpc(&self.endpoint, tls).rotating(self.rotates).through(proxy))
    }
}

fn path(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        Signal::Logs => "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    }
}

/// What all requests have in common.
fn headers(config: &OtlpConfig, compression: Compression) -> Result<HeaderMap, String> {
    let mut headers = config.headers.to_map()?;
    headers.insert(CONTENT_TYPE, CONTENT_TYPE_GRPC);
    headers.insert(TE, HeaderValue::from_static("trailers"));
    let agent = if config.user_agent.is_empty() { user_agent() } else { config.user_agent.clone() };
    headers.insert(USER_AGENT, HeaderValue::try_from(agent).map_err(|error| error.to_string())?);
    if compression != Compression::None {
        let name = HeaderName::from_static("grpc-encoding");
        headers.insert(name, HeaderValue::from_static(compression.name()));
    }
    if !config.timeout.0.is_zero() {
        // At most eight digits: a day in milliseconds, beyond that seconds.
        let millis = config.timeout.0.as_millis();
        let value = if millis < 100_000_000 { format!("{millis}m") } else { "99999999S".to_owned() };
        let value = HeaderValue::try_from(value).map_err(|error| error.to_string())?;
        headers.insert(HeaderName::from_static("grpc-timeout"), value);
    }
    Ok(headers)
}

#[async_trait]
impl Attempt for GrpcAttempt {
    type Encoded = Chunks;

    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let tls = self.tls.as_ref().map(|tls| ClientTls::new(tls, &["h2"]));
        let tls = tls.transpose().map_err(|error| StartError(format!("tls: {error}")))?;
        let client = Client::new(host.runtimes.workers(), &self.connector(tls)?, &self.options);
        self.client.set(client).map_err(|_| StartError("started twice".to_owned()))
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.auth.as_ref().map(|auth| auth.metadata_keys()).unwrap_or_default()
    }

    fn encode(&self, request: &Request) -> Result<Chunks, Outcome> {
        if self.compression == Compression::None {
            let header = frame_header(false, request.size())?;
            return Ok(Chunks::new(&header, request.parts()).of_client(request.metadata()));
        }
        let mut framed = vec![0; HEADER_LEN];
        let encoded = match self.compression {
            // What gRPC calls snappy is its framing format.
            Compression::Snappy => Compression::SnappyFramed,
            other => other,
        };
        encoded
            .encode(None, request.parts(), &mut framed)
            .map_err(|error| refused(format!("cannot compress: {error}")))?;
        let header = frame_header(true, framed.len() - HEADER_LEN)?;
        if let Some(room) = framed.first_chunk_mut::<HEADER_LEN>() {
            *room = header;
        }
        Ok(Chunks::from(framed).of_client(request.metadata()))
    }

    async fn attempt(&self, body: &Chunks) -> Outcome {
        let Some(client) = self.client.get() else {
            return refused("the exporter has not been started".to_owned());
        };
        let mut request = HttpRequest::new(body.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.version_mut() = http::Version::HTTP_2;
        *request.headers_mut() = self.headers.clone();
        if let Some(auth) = &self.auth {
            body.authenticate(&**auth, request.headers_mut());
        }
        match client.send(request).await {
            Ok(reply) => outcome(&reply, self.retry_resource_exhausted),
            Err(error) => Outcome::Retry { code: Code::Unavailable, after: None, message: error.0 },
        }
    }
}

fn frame_header(compressed: bool, len: usize) -> Result<[u8; HEADER_LEN], Outcome> {
    let len = u32::try_from(len)
        .map_err(|_| Outcome::TooLarge { message: format!("{len} bytes do not fit into one gRPC message") })?;
    Ok(header(compressed, len))
}

fn refused(message: String) -> Outcome {
    Outcome::Refused { code: Code::Internal, message }
}
