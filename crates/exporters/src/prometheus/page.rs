//! Answering scrapers.

use std::sync::Arc;

use super::negotiate::{Encoding, Format};
use super::pages::{Form, NoPage, Page, Pages};
use super::store::Store;
use super::{Stats, escape, protobuf, text};
use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use nyquist_core::clock::Clock;
use nyquist_core::component::ServerAuth;
use nyquist_core::net::body::Reply;
use nyquist_core::net::server::Handler;

/// Smaller pages are not worth compressing, in bytes.
const WORTH_COMPRESSING: usize = 1024;

/// `/metrics`.
pub(super) struct ScrapePage {
    pub(super) store: Arc<Store>,
    pub(super) stats: Arc<Stats>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) auth: Option<Arc<dyn ServerAuth>>,
    pub(super) open_metrics: bool,
    pub(super) timestamps: bool,
    pub(super) pages: Arc<Pages>,
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
        let form = self.form(&head.headers);
        let pages = Arc::clone(&self.pages);
        let Page { bytes, is_compressed } = match pages.get(form, move || self.make(form)).await {
            Ok(page) => page,
            Err(problem) => {
                let status = match problem {
                    NoPage::TooManyUnread => StatusCode::SERVICE_UNAVAILABLE,
                    NoPage::Failed => StatusCode::INTERNAL_SERVER_ERROR,
                };
                return plain(status, problem.to_string());
            }
        };
        let mut response = Response::new(Reply::new(bytes));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(form.format.content_type()));
        if is_compressed {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }

    /// What the scraper reads.
    fn form(&self, headers: &HeaderMap) -> Form {
        let header = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
        let format = Format::negotiate(header(ACCEPT), self.open_metrics, self.timestamps);
        Form { format, gzip: header(ACCEPT_ENCODING).contains("gzip") }
    }

    /// The page as it is now.
    pub(super) fn render(&self, format: Format) -> Vec<u8> {
        let mut snapshot = self.store.snapshot(self.clock.now());
        if !format.utf8_names {
            self.stats.clashing(&escape::escape_names(&mut snapshot));
        }
        match format.encoding {
            Encoding::Protobuf => protobuf::render(format, &snapshot),
            Encoding::Text | Encoding::OpenMetrics => text::render(format, &snapshot),
        }
    }

    /// Makes a page; `true`: it is compressed.
    fn make(&self, Form { format, gzip: may_compress }: Form) -> (Vec<u8>, bool) {
        let page = self.render(format);
        let is_worth_it = may_compress && page.len() >= WORTH_COMPRESSING;
        match is_worth_it.then(|| gzip(&page)).flatten() {
            Some(compressed) => (compressed, true),
            None => (page, false),
        }
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
