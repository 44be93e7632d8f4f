//! Answering scrapers.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use nyquist_core::clock::Clock;
use nyquist_core::component::ServerAuth;
use nyquist_core::net::body::Reply;
use nyquist_core::net::server::Handler;
use tokio::sync::Semaphore;

use super::negotiate::{Encoding, Format};
use super::store::Store;
use super::{protobuf, text};

/// Smaller pages are not worth compressing, in bytes.
const WORTH_COMPRESSING: usize = 1024;

/// How many pages are made at once: each one is a copy of all series. Other scrapers wait.
pub(super) const SCRAPES_AT_ONCE: usize = 4;

/// `/metrics`.
pub(super) struct ScrapePage {
    pub(super) store: Arc<Store>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) auth: Option<Arc<dyn ServerAuth>>,
    pub(super) open_metrics: bool,
    pub(super) timestamps: bool,
    pub(super) at_once: Arc<Semaphore>,
    /// Added to every reply.
    pub(super) response_headers: HeaderMap,
}

impl Handler for ScrapePage {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let mut response = Arc::clone(&self).answer(request).await;
        for (name, value) in &self.response_headers {
            response.headers_mut().insert(name, value.clone());
        }
        response
    }
}

impl ScrapePage {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        let (head, _body) = request.into_parts();
        if let Some(Err(message)) = self.auth.as_ref().map(|auth| auth.authenticate(&head.headers)) {
            let mut response = plain(StatusCode::UNAUTHORIZED, message);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic, Bearer"));
            return response;
        }
        if head.uri.path() != "/metrics" {
            return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
        }
        if head.method != Method::GET && head.method != Method::HEAD {
            return plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        }
        let place = Arc::clone(&self.at_once).acquire_owned().await;
        // Large pages take long: not on a worker.
        let page = move || {
            let _place = place;
            self.page(&head.headers)
        };
        let made = tokio::task::spawn_blocking(page).await;
        made.unwrap_or_else(|error| {
            plain(StatusCode::INTERNAL_SERVER_ERROR, format!("cannot make the page: {error}\n"))
        })
    }

    fn page(&self, headers: &HeaderMap) -> Response<Reply> {
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let format = Format::negotiate(header(ACCEPT), self.open_metrics, self.timestamps);
        let (series, families) = self.store.snapshot(self.clock.now());
        let page = match format.encoding {
            Encoding::Protobuf => protobuf::render(format, &series, &families),
            Encoding::Text | Encoding::OpenMetrics => text::render(format, &series, &families),
        };
        let is_gzip = page.len() >= WORTH_COMPRESSING && header(ACCEPT_ENCODING).contains("gzip");
        let compressed = is_gzip.then(|| gzip(&page)).flatten();
        let mut response = Response::new(Reply::new(Bytes::new()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
        if compressed.is_some() {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        *response.body_mut() = Reply::new(compressed.unwrap_or(page).into());
        response
    }
}

fn gzip(page: &[u8]) -> Option<Vec<u8>> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(page).ok()?;
    encoder.finish().ok()
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Reply> {
    let mut response = Response::new(Reply::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
