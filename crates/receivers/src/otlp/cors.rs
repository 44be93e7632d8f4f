//! Cross-origin requests (<https://fetch.spec.whatwg.org/#http-cors-protocol>): what browsers need
//! to be told before pages may send.

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use nyquist_core::net::body::Reply;

use super::config::CorsConfig;

/// The rules of a server.
pub(super) struct Cors {
    /// Text before and after the `*`; without one, the text before is all of it.
    origins: Vec<(String, Option<String>)>,
    any_header: bool,
    headers: Vec<String>,
    exposed: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

/// Always allowed, as in the Collector.
const SAFE_HEADERS: [&str; 6] =
    ["accept", "accept-language", "content-language", "content-type", "origin", "x-requested-with"];

impl Cors {
    /// The rules of `config`; `None` if no origin is allowed, which leaves CORS out.
    pub(super) fn new(config: &CorsConfig) -> Option<Self> {
        if config.allowed_origins.is_empty() {
            return None;
        }
        let origins = config.allowed_origins.iter().map(|origin| {
            let origin = origin.to_ascii_lowercase();
            match origin.split_once('*') {
                Some((before, after)) => (before.to_owned(), Some(after.to_owned())),
                None => (origin, None),
            }
        });
        let headers = config.allowed_headers.iter().map(|name| name.to_ascii_lowercase());
        Some(Self {
            origins: origins.collect(),
            any_header: config.allowed_headers.iter().any(|name| name == "*"),
            headers: headers.chain(SAFE_HEADERS.map(str::to_owned)).collect(),
            exposed: list(&config.exposed_headers),
            max_age: (config.max_age > 0).then(|| HeaderValue::from(config.max_age)),
        })
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        let origin = origin.as_bytes().to_ascii_lowercase();
        self.origins.iter().any(|(before, after)| match after {
            None => origin == before.as_bytes(),
            Some(after) => {
                origin.len() >= before.len() + after.len()
                    && origin.starts_with(before.as_bytes())
                    && origin.ends_with(after.as_bytes())
            }
        })
    }

    /// The answer to a preflight request; `None` if `request` is none.
    pub(super) fn preflight<B>(&self, request: &Request<B>) -> Option<Response<Reply>> {
        let wanted = request.headers();
        let method = wanted.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if request.method() != Method::OPTIONS {
            return None;
        }
        let mut response = Response::new(Reply::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        let vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        headers.insert(header::VARY, HeaderValue::from_static(vary));
        let origin = wanted.get(header::ORIGIN).filter(|origin| self.allows(origin));
        let is_possible = ["POST", "GET", "HEAD"].iter().any(|known| method == known);
        if let Some(origin) = origin
            && is_possible
            && self.allows_headers(wanted)
        {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
            headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method.clone());
            if let Some(names) = wanted.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
            }
            if let Some(max_age) = &self.max_age {
                headers.insert(header::ACCESS_CONTROL_MAX_AGE, max_age.clone());
            }
        }
        Some(response)
    }

    fn allows_headers(&self, wanted: &HeaderMap) -> bool {
        let Some(names) = wanted.get(header::ACCESS_CONTROL_REQUEST_HEADERS) else { return true };
        let Ok(names) = names.to_str() else { return false };
        let mut names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        self.any_header || names.all(|name| self.headers.iter().any(|known| known.eq_ignore_ascii_case(name)))
    }

    /// Adds to the reply to an actual request that came from `origin`.
    pub(super) fn decorate(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
        let Some(origin) = origin.filter(|origin| self.allows(origin)) else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        if let Some(exposed) = &self.exposed {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }
}

fn list(names: &[String]) -> Option<HeaderValue> {
    let names: Vec<_> = names.iter().filter(|name| *name == "*" || HeaderName::try_from(*name).is_ok()).collect();
    if names.is_empty() {
        return None;
    }
    let joined = names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    HeaderValue::try_from(joined).ok()
}
