//! What the exporters that speak HTTP have in common: their settings, and the client that these make.

mod config;
mod cookies;
#[cfg(test)]
mod tests;

pub use config::{CompressionParams, CookiesConfig, HttpClientConfig, KeepaliveConfig, MiddlewareConfig};

use std::time::{Duration, UNIX_EPOCH};

use http::header::{CONNECTION, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Request};
use nyquist_core::net::client::{Chunks, Client, Reply, SendError};

use cookies::Jar;

/// A client of one endpoint.
pub(crate) struct HttpClient {
    client: Client,
    jar: Option<Jar>,
    /// A connection for each request.
    closes: bool,
}

impl HttpClient {
    /// Sends `request` and reads the answer.
    ///
    /// # Errors
    /// If there is no connection, or it breaks before the answer is complete.
    pub(crate) async fn send(&self, mut request: Request<Chunks>) -> Result<Reply, SendError> {
        if self.closes {
            request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let Some(jar) = &self.jar else { return self.client.send(request).await };
        jar.give(request.headers_mut());
        let reply = self.client.send(request).await?;
        jar.take(&reply.headers);
        Ok(reply)
    }
}

/// How long `Retry-After` asks to be left alone at `now`, the time since 1970: seconds, or a date. A date that has passed asks
/// for nothing.
pub(crate) fn retry_after(headers: &HeaderMap, now: Duration) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?.duration_since(UNIX_EPOCH).ok()?;
    date.checked_sub(now).filter(|wait| !wait.is_zero())
}
