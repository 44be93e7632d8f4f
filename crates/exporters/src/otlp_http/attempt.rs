//! One POST.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT};
use http::{HeaderMap, Method, Request as HttpRequest, Uri};
use nyquist_core::batch::Code;
use nyquist_core::clock::Clock;
use nyquist_core::component::{BuildError, ClientAuth, ExporterContext, Host, StartError};
use nyquist_core::delivery::{Attempt, Outcome, Request};
use nyquist_core::net::client::{Chunks, HttpEndpoint, user_agent};
use nyquist_core::net::compression::encode::Compression;

use super::reply::outcome;
use super::{Encoding, OtlpHttpConfig};
use crate::http_client::{HttpClient, HttpClientConfig};

/// Posts requests of one signal.
pub(super) struct HttpAttempt {
    endpoint: HttpEndpoint,
    /// As the request names it: with the `Host` header's authority, if there is one.
    uri: Uri,
    settings: HttpClientConfig,
    headers: HeaderMap,
    auth: Option<Arc<dyn ClientAuth>>,
    encoding: Encoding,
    compression: Compression,
    level: Option<i32>,
    clock: Arc<dyn Clock>,
    client: OnceLock<HttpClient>,
}

impl HttpAttempt {
    pub(super) fn new(
        config: &OtlpHttpConfig,
        endpoint: HttpEndpoint,
        context: &ExporterContext<'_>,
    ) -> Result<Self, BuildError> {
        let compression = config.compression().map_err(|error| BuildError::new(&["compression"], error))?;
        let auth = config.client.extensions(&[], context.extensions)?;
        let mut headers = config.client.headers.to_map().map_err(|error| BuildError::new(&["headers"], error))?;
        let uri = match headers.remove(HOST) {
            None => endpoint.uri.clone(),
            Some(host) => {
                with_authority(&endpoint.uri, &host).map_err(|error| BuildError::new(&["headers", "Host"], error))?
            }
        };
        common_headers(&mut headers, config, compression);
        Ok(Self {
            endpoint,
            uri,
            settings: config.client.clone(),
            headers,
            auth,
            encoding: config.encoding,
            compression,
            level: config.client.compression_params.chosen(),
            clock: Arc::clone(&context.clock),
            client: OnceLock::new(),
        })
    }
}

fn with_authority(uri: &Uri, host: &HeaderValue) -> Result<Uri, String> {
    let mut parts = uri.clone().into_parts();
    let authority = host.to_str().map_err(|error| error.to_string())?;
    parts.authority = Some(authority.parse().map_err(|_| format!("{authority:?} is not a host"))?);
    Uri::from_parts(parts).map_err(|error| error.to_string())
}

/// What all requests have in common.
fn common_headers(headers: &mut HeaderMap, config: &OtlpHttpConfig, compression: Compression) {
    let content_type = match config.encoding {
        Encoding::Proto => "application/x-protobuf",
        Encoding::Json => "application/json",
    };
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    if compression != Compression::None {
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(compression.name()));
    }
    if let (false, Ok(agent)) = (headers.contains_key(USER_AGENT), HeaderValue::try_from(user_agent())) {
        headers.insert(USER_AGENT, agent);
    }
}

#[async_trait]
impl Attempt for HttpAttempt {
    type Encoded = Chunks;

    async fn start(&self, host: &Host) -> Result<(), StartError> {
        let client = self.settings.connect(&self.endpoint, host.runtimes.workers(), &self.clock)?;
        self.client.set(client).map_err(|_| StartError("started twice".to_owned()))
    }

    fn metadata_keys(&self) -> Vec<String> {
        self.auth.as_ref().map(|auth| auth.metadata_keys()).unwrap_or_default()
    }

    fn encode(&self, request: &Request) -> Result<Chunks, Outcome> {
        let refused = |message| Outcome::Refused { code: Code::Internal, message };
        let json;
        let parts = match self.encoding {
            Encoding::Proto => request.parts(),
            Encoding::Json => {
                json = [super::json::encode(request).map_err(refused)?];
                &json
            }
        };
        if self.compression == Compression::None {
            return Ok(Chunks::new(&[], parts).of_client(request.metadata()));
        }
        let mut body = Vec::new();
        self.compression
            .encode(self.level, parts, &mut body)
            .map_err(|error| refused(format!("cannot compress: {error}")))?;
        Ok(Chunks::from(body).of_client(request.metadata()))
    }

    async fn attempt(&self, body: &Chunks) -> Outcome {
        let Some(client) = self.client.get() else {
            let message = "the exporter has not been started".to_owned();
            return Outcome::Refused { code: Code::Internal, message };
        };
        let mut request = HttpRequest::new(body.clone());
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Some(auth) = &self.auth {
            body.authenticate(&**auth, request.headers_mut());
        }
        match client.send(request).await {
            Ok(reply) => outcome(&reply, self.clock.unix_nanos()),
            Err(error) => Outcome::Retry { code: Code::Unavailable, after: None, message: error.0 },
        }
    }
}
