//! `cookies`: what a backend sets is sent back to it, as load balancers ask for that keep a client at one backend.
//!
//! RFC 6265, but for one endpoint only: a cookie that would not go to it is not kept at all. So no list of public
//! suffixes is needed.

use std::net::IpAddr;
use std::sync::Arc;

use cookie::Cookie;
use http::HeaderMap;
use http::header::{COOKIE, HeaderValue, SET_COOKIE};
use nyquist_core::clock::Clock;
use nyquist_core::net::client::HttpEndpoint;
use parking_lot::Mutex;

/// How many cookies are kept, the newest: what section 6.1 of the RFC asks for.
const MAX_COOKIES: usize = 50;

/// How long a cookie may be, with its attributes, in bytes: the same.
const MAX_COOKIE: usize = 4096;

/// The cookies of one endpoint.
pub(super) struct Jar {
    /// In lower case.
    host: String,
    path: String,
    is_https: bool,
    clock: Arc<dyn Clock>,
    /// In the order in which they were set first.
    kept: Mutex<Vec<Kept>>,
}

struct Kept {
    name: String,
    value: String,
    /// Of several cookies of one name each has its own domain or path.
    domain: String,
    path: String,
    /// In nanoseconds since 1970; `None` for as long as the process runs.
    until: Option<i128>,
}

impl Jar {
    pub(super) fn new(endpoint: &HttpEndpoint, clock: Arc<dyn Clock>) -> Self {
        let host = endpoint.host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let path = match endpoint.uri.path() {
            "" => "/".to_owned(),
            path => path.to_owned(),
        };
        Self { host, path, is_https: endpoint.is_https, clock, kept: Mutex::default() }
    }

    /// Adds the cookies to a request, unless it has some already.
    pub(super) fn give(&self, headers: &mut HeaderMap) {
        if headers.contains_key(COOKIE) {
            return;
        }
        let now = self.now();
        let mut kept = self.kept.lock();
        kept.retain(|cookie| cookie.until.is_none_or(|until| until > now));
        let mut cookies: Vec<&Kept> = kept.iter().collect();
        // The more special ones first, then the older ones.
        cookies.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let pairs: Vec<String> = cookies.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        if let (false, Ok(mut value)) = (pairs.is_empty(), HeaderValue::try_from(pairs.join("; "))) {
            value.set_sensitive(true);
            headers.insert(COOKIE, value);
        }
    }

    /// Keeps the cookies of an answer.
    pub(super) fn take(&self, headers: &HeaderMap) {
        let set = headers.get_all(SET_COOKIE).iter().take(MAX_COOKIES);
        let texts = set.filter(|text| text.len() <= MAX_COOKIE).filter_map(|text| text.to_str().ok());
        texts.filter_map(|text| Cookie::parse(text).ok()).for_each(|cookie| self.keep(&cookie));
    }

    fn keep(&self, cookie: &Cookie<'_>) {
        let domain = cookie.domain().map(|domain| domain.trim_start_matches('.').to_ascii_lowercase());
        let domain = domain.unwrap_or_default();
        let path = match cookie.path() {
            Some(path) if path.starts_with('/') => path,
            _ => directory(&self.path),
        };
        let is_secret = cookie.secure() == Some(true);
        if (is_secret && !self.is_https) || !self.is_in(&domain) || !is_below(&self.path, path) {
            return;
        }
        let now = self.now();
        let until = match (cookie.max_age(), cookie.expires_datetime()) {
            (Some(age), _) => Some(now.saturating_add(age.whole_nanoseconds())),
            (None, Some(date)) => Some(date.unix_timestamp_nanos()),
            (None, None) => None,
        };
        let mut kept = self.kept.lock();
        let there =
            kept.iter().position(|other| other.name == cookie.name() && other.domain == domain && other.path == path);
        if until.is_some_and(|until| until <= now) {
            there.map(|index| kept.remove(index));
            return;
        }
        match there.and_then(|index| kept.get_mut(index)) {
            Some(there) => (there.value, there.until) = (cookie.value().to_owned(), until),
            None => {
                if kept.len() == MAX_COOKIES {
                    kept.remove(0);
                }
                let (name, value) = (cookie.name().to_owned(), cookie.value().to_owned());
                kept.push(Kept { name, value, domain, path: path.to_owned(), until });
            }
        }
    }

    /// Whether the host belongs to `domain`; an empty one is the host's own.
    fn is_in(&self, domain: &str) -> bool {
        let is_below = || {
            let parent = self.host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
            parent && self.host.parse::<IpAddr>().is_err()
        };
        domain.is_empty() || self.host == domain || is_below()
    }

    fn now(&self) -> i128 {
        i128::from(self.clock.unix_nanos())
    }
}

/// The path of the cookies that name none: the request's up to its last slash.
fn directory(path: &str) -> &str {
    match path.rfind('/') {
        Some(end @ 1..) => path.get(..end).unwrap_or("/"),
        _ => "/",
    }
}

/// Whether requests to `path` get the cookies of `parent`.
fn is_below(path: &str, parent: &str) -> bool {
    path.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || parent.ends_with('/') || rest.starts_with('/'))
}
