//! What the exporters that speak HTTP have in common: their settings, and the client that these make.

mod config;
mod cookies;
#[cfg(test)]
mod tests;

pub use config::{CompressionParams, CookiesConfig, HttpClientConfig, KeepaliveConfig, MiddlewareConfig};

use http::Request;
use http::header::{CONNECTION, HeaderValue};
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
