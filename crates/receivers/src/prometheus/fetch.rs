//! Getting a page: one HTTP/1.1 connection a target, kept from scrape to scrape.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use nyquist_core::config::Secret;
use nyquist_core::net::admission::Admitted;
use nyquist_core::net::body::read_all;
use nyquist_core::net::client::{Connector, user_agent};
use nyquist_core::net::compression::decode::{Encoding, decode};
use nyquist_core::net::tls::{ClientTls, ClientTlsConfig};
use parking_lot::Mutex;

use super::config::{Protocol, ScrapeConfig};
use super::exposition::Format;
use super::target::{Location, Target};

/// How often a target may point elsewhere.
const MAX_REDIRECTS: usize = 10;
/// Compressed pages from this size are unpacked on a thread of their own.
const UNPACK_APART: usize = 256 << 10;
/// What a page may have if nothing is said, in bytes.
pub(crate) const DEFAULT_BODY_LIMIT: usize = 256 << 20;

/// Why a page is not read when others take all the room.
pub(crate) const NO_MEMORY: &str = "data refused due to high memory usage";
pub(crate) const NO_ROOM: &str = "too many bytes of pages are being read";

/// A page.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) format: Format,
    pub(crate) body: Bytes,
}

/// How the pages of a scrape configuration are asked for.
pub(crate) struct Requests {
    headers: HeaderMap,
    credentials: Credentials,
    tls: Tls,
    follows_redirects: bool,
    unpacks: bool,
    fallback: Protocol,
    body_limit: usize,
}

enum Credentials {
    None,
    Basic { user: Text, password: Text },
    Scheme { scheme: String, credentials: Text },
}

/// Text from the configuration or from a file, which is read for every scrape.
enum Text {
    Inline(Secret),
    File(String),
}

impl Text {
    fn new(inline: Secret, file: &str) -> Self {
        if file.is_empty() { Self::Inline(inline) } else { Self::File(file.to_owned()) }
    }

    async fn read(&self) -> Result<String, String> {
        match self {
            Self::Inline(text) => Ok(text.expose().to_owned()),
            Self::File(path) => {
                let text = tokio::fs::read_to_string(path).await;
                text.map(|text| text.trim().to_owned()).map_err(|error| format!("cannot read {path}: {error}"))
            }
        }
    }
}

/// TLS that is made when the first connection needs it.
struct Tls {
    config: ClientTlsConfig,
    ready: Mutex<Option<Arc<ClientTls>>>,
}

impl Tls {
    fn get(&self) -> Result<Arc<ClientTls>, String> {
        let mut ready = self.ready.lock();
        if let Some(tls) = &*ready {
            return Ok(Arc::clone(tls));
        }
        let tls = ClientTls::new(&self.config, &["http/1.1"]).map_err(|error| format!("tls_config: {error}"))?;
        Ok(Arc::clone(ready.insert(tls)))
    }
}

impl Requests {
    /// As `config` says, with what `global` says of formats and sizes.
    pub(crate) fn new(config: &ScrapeConfig, global: &super::config::Global) -> Result<Self, String> {
        let protocols = config.protocols(global);
        let mut headers = HeaderMap::new();
        let escaping = match config.metric_name_escaping_scheme.as_str() {
            "" => "allow-utf-8",
            scheme => scheme,
        };
        let accept = accept(protocols, escaping);
        let encoding = if config.enable_compression { "gzip" } else { "identity" };
        for (name, value) in [
            (header::ACCEPT, accept.as_str()),
            (header::ACCEPT_ENCODING, encoding),
            (header::USER_AGENT, &user_agent()),
        ] {
            headers.insert(name, HeaderValue::from_str(value).map_err(|_| format!("{value:?} cannot be sent"))?);
        }
        for (name, header) in &config.http_headers {
            let values = header.values.iter().map(String::as_str).chain(header.secrets.iter().map(Secret::expose));
            for value in values {
                let invalid = || format!("http_headers: {name} cannot be sent");
                let name = HeaderName::try_from(name).map_err(|_| invalid())?;
                headers.append(name, HeaderValue::from_str(value).map_err(|_| invalid())?);
            }
        }
        let limit = config.body_size_limit.unwrap_or(global.body_size_limit).0;
        let body_limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Ok(Self {
            headers,
            credentials: credentials(config),
            tls: Tls { config: config.tls_config.client(), ready: Mutex::new(None) },
            follows_redirects: config.follow_redirects,
            unpacks: config.enable_compression,
            fallback: config.fallback_scrape_protocol.unwrap_or(Protocol::PrometheusText004),
            body_limit: if body_limit == 0 { DEFAULT_BODY_LIMIT } else { body_limit },
        })
    }

    /// Reads the certificates, so that what is wrong with them is known at once.
    pub(crate) fn load_tls(&self) -> Result<(), String> {
        self.tls.get().map(drop)
    }

    async fn authorization(&self) -> Result<Option<HeaderValue>, String> {
        let text = match &self.credentials {
            Credentials::None => return Ok(None),
            Credentials::Basic { user, password } => {
                let pair = format!("{}:{}", user.read().await?, password.read().await?);
                format!("Basic {}", STANDARD.encode(pair))
            }
            Credentials::Scheme { scheme, credentials } => format!("{scheme} {}", credentials.read().await?),
        };
        let mut value =
            HeaderValue::try_from(text).map_err(|_| "the credentials have characters that cannot be sent")?;
        value.set_sensitive(true);
        Ok(Some(value))
    }
}

fn credentials(config: &ScrapeConfig) -> Credentials {
    if let Some(basic) = &config.basic_auth {
        return Credentials::Basic {
            user: Text::new(basic.username.clone().into(), &basic.username_file),
            password: Text::new(basic.password.clone(), &basic.password_file),
        };
    }
    let bearer = || "Bearer".to_owned();
    if let Some(authorization) = &config.authorization {
        let scheme = authorization.r#type.trim();
        return Credentials::Scheme {
            scheme: if scheme.is_empty() { bearer() } else { scheme.to_owned() },
            credentials: Text::new(authorization.credentials.clone(), &authorization.credentials_file),
        };
    }
    if !config.bearer_token.expose().is_empty() || !config.bearer_token_file.is_empty() {
        let credentials = Text::new(config.bearer_token.clone(), &config.bearer_token_file);
        return Credentials::Scheme { scheme: bearer(), credentials };
    }
    Credentials::None
}

/// The `Accept` header: the formats, each a little less welcome than the one before it.
fn accept(protocols: &[Protocol], escaping: &str) -> String {
    let mut accept = String::new();
    for (rank, protocol) in protocols.iter().enumerate() {
        let media_type = protocol.media_type();
        let escaping = match protocol {
            Protocol::PrometheusText004 | Protocol::OpenMetricsText001 => String::new(),
            _ => format!(";escaping={escaping}"),
        };
        accept.push_str(&format!("{media_type}{escaping};q=0.{},", 9_usize.saturating_sub(rank).max(2)));
    }
    accept.push_str("*/*;q=0.1");
    accept
}

type Sender = SendRequest<Empty<Bytes>>;

/// Gets the pages of one target.
pub(crate) struct Fetcher {
    requests: Arc<Requests>,
    location: Location,
    timeout: HeaderValue,
    /// The connection of the last scrape.
    kept: Option<Sender>,
}

impl Fetcher {
    pub(crate) fn new(requests: Arc<Requests>, target: &Target) -> Self {
        let timeout = target.timeout.as_secs_f64().to_string();
        let timeout = HeaderValue::try_from(timeout).unwrap_or_else(|_| HeaderValue::from_static("10"));
        Self { requests, location: target.location.clone(), timeout, kept: None }
    }

    /// Gets the page. It is charged to `room` as it comes.
    pub(crate) async fn fetch(&mut self, room: &mut Admitted) -> Result<Page, String> {
        let kept = self.kept.take();
        let (sender, response) = self.request(kept).await?;
        let status = response.status();
        if status != StatusCode::OK {
            return Err(format!("server returned HTTP status {status}"));
        }
        let (head, mut body) = response.into_parts();
        let format = self.format(&head.headers)?;
        let limit = self.requests.body_limit;
        let read = read_all(&mut body, limit, room).await;
        let body = read.map_err(|error| match error {
            nyquist_core::net::body::ReadError::TooLarge => too_large(limit),
            nyquist_core::net::body::ReadError::NoRoom => NO_ROOM.to_owned(),
            other => format!("cannot read the page: {other}"),
        })?;
        self.kept = sender;
        let body = self.unpacked(&head.headers, body, room).await?;
        Ok(Page { format, body })
    }

    /// Follows redirects to the answer; the connection to keep comes with it.
    async fn request(&self, kept: Option<Sender>) -> Result<(Option<Sender>, Response<Incoming>), String> {
        let authorization = self.requests.authorization().await?;
        let mut location = self.location.clone();
        let mut kept = kept;
        for redirects in 0..=MAX_REDIRECTS {
            let is_home = redirects == 0;
            let mut request = Request::new(Empty::new());
            *request.uri_mut() = location
                .path_and_query
                .parse()
                .map_err(|error| format!("{:?} is not a path: {error}", location.path_and_query))?;
            *request.headers_mut() = self.requests.headers.clone();
            let host = HeaderValue::try_from(&location.authority).map_err(|_| "the host cannot be sent")?;
            request.headers_mut().insert(header::HOST, host);
            request.headers_mut().insert("x-prometheus-scrape-timeout-seconds", self.timeout.clone());
            // Credentials are for the target, not for whoever it points at.
            if let Some(value) = authorization.as_ref().filter(|_| self.is_trusted(&location)) {
                request.headers_mut().insert(header::AUTHORIZATION, value.clone());
            }
            let (sender, response) = self.send(&location, kept.take(), request).await?;
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            if !is_redirect || !self.requests.follows_redirects {
                return Ok((is_home.then_some(sender), response));
            }
            let target = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
            let target = target.ok_or("redirected without a location")?;
            location = location.redirected(target)?;
        }
        Err(format!("redirected more than {MAX_REDIRECTS} times"))
    }

    /// Whether the target's credentials may go to `location`: the same host, and not in the clear where the
    /// target itself is reached by TLS.
    fn is_trusted(&self, location: &Location) -> bool {
        location.host == self.location.host && (location.is_https || !self.location.is_https)
    }

    /// Sends one request, over `kept` if that still works.
    async fn send(
        &self,
        location: &Location,
        kept: Option<Sender>,
        request: Request<Empty<Bytes>>,
    ) -> Result<(Sender, Response<Incoming>), String> {
        if let Some(mut sender) = kept {
            // The target may have closed it since.
            if sender.ready().await.is_ok()
                && let Ok(response) = sender.send_request(request.clone()).await
            {
                return Ok((sender, response));
            }
        }
        let tls = if location.is_https { Some(self.requests.tls.get()?) } else { None };
        let connector = Connector::new(&location.host, location.port, tls);
        let stream = connector.connect().await.map_err(|error| error.to_string())?;
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|error| format!("cannot speak HTTP: {error}"))?;
        tokio::spawn(connection);
        let sent = sender.send_request(request).await;
        let response = sent.map_err(|error| format!("{}://{}: {error}", location.scheme(), location.authority))?;
        Ok((sender, response))
    }

    fn format(&self, headers: &HeaderMap) -> Result<Format, String> {
        let written = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let media_type = written.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match media_type.as_str() {
            "text/plain" => Ok(Format::Text),
            "application/openmetrics-text" => Ok(Format::OpenMetrics),
            "application/vnd.google.protobuf" if is_delimited_families(written) => Ok(Format::Protobuf),
            "application/vnd.google.protobuf" => Err(format!("the target answers with {written}, which is not spoken")),
            _ => match self.requests.fallback {
                Protocol::PrometheusProto => Ok(Format::Protobuf),
                Protocol::OpenMetricsText001 | Protocol::OpenMetricsText100 => Ok(Format::OpenMetrics),
                _ => Ok(Format::Text),
            },
        }
    }

    async fn unpacked(&self, headers: &HeaderMap, body: Bytes, room: &mut Admitted) -> Result<Bytes, String> {
        let name = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let limit = self.requests.body_limit;
        let encoding = Encoding::from_name(name);
        let encoding = match encoding {
            Some(Encoding::Identity) => return Ok(body),
            Some(encoding) if self.requests.unpacks => encoding,
            _ => return Err(format!("the page is encoded as {name:?}, which was not asked for")),
        };
        let unpack = move || {
            decode(encoding, &body, limit).map_err(|error| match error {
                nyquist_core::net::compression::decode::DecodeError::TooLarge { .. } => too_large(limit),
                other => other.to_string(),
            })
        };
        let apart = room.bytes() >= UNPACK_APART;
        let unpacked = if apart {
            tokio::task::spawn_blocking(unpack).await.map_err(|_| "the page could not be unpacked")??
        } else {
            unpack()?
        };
        if !room.grow_to(unpacked.len()) {
            return Err(NO_ROOM.to_owned());
        }
        Ok(unpacked)
    }
}

/// Whether a content type names families of metrics, each with its length in front.
fn is_delimited_families(content_type: &str) -> bool {
    let has = |wanted: &str| content_type.split(';').any(|part| part.trim().eq_ignore_ascii_case(wanted));
    has("proto=io.prometheus.client.MetricFamily") && has("encoding=delimited")
}

fn too_large(limit: usize) -> String {
    format!("body size limit exceeded: the page has more than {limit} bytes (body_size_limit)")
}
