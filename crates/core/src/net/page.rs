//! Small HTTP/1 servers for pages that people and scrapers read: own metrics, health, scrape pages.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, lookup_host};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;

use super::no_longer_listens;
use crate::runtime::Runtimes;

/// More connections than this wait: a page is read by a handful of clients.
const MAX_CONNECTIONS: usize = 64;
/// A client that has not sent its request head by then is cut off.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a [`PageServer`] shows.
pub trait Page: Send + Sync + 'static {
    /// Answers one request. Bodies of requests are ignored.
    fn respond(&self, request: &Request<Incoming>) -> Response<Bytes>;
}

/// A plain-text answer.
#[must_use]
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let kind = http::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
    response
}

/// A running server; it stops when dropped.
#[derive(Debug)]
pub struct PageServer {
    address: SocketAddr,
    acceptor: Mutex<Option<AbortHandle>>,
}

impl PageServer {
    /// Binds `endpoint` (`host:port`; an empty host means all interfaces) and serves `page`. If the socket dies later, that
    /// is fatal to the component that `runtimes` belong to.
    ///
    /// # Errors
    /// If the endpoint cannot be resolved or bound; the message names it.
    pub async fn start(runtimes: &Arc<Runtimes>, endpoint: &str, page: Arc<dyn Page>) -> Result<Self, String> {
        let listener = bind(endpoint).await.map_err(|error| format!("cannot listen on {endpoint:?}: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let task = runtimes.spawn(accept(listener, page, Arc::clone(runtimes)));
        Ok(Self { address, acceptor: Mutex::new(Some(task.abort_handle())) })
    }

    /// The bound address, with the port that was chosen for port 0.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting; requests that are being answered finish.
    pub fn stop(&self) {
        if let Some(acceptor) = self.acceptor.lock().take() {
            acceptor.abort();
        }
    }
}

impl Drop for PageServer {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn bind(endpoint: &str) -> std::io::Result<TcpListener> {
    let endpoint = if endpoint.starts_with(':') { format!("0.0.0.0{endpoint}") } else { endpoint.to_owned() };
    let mut last = std::io::Error::other("the name has no address");
    for address in lookup_host(&endpoint).await? {
        match TcpListener::bind(address).await {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn accept(listener: TcpListener, page: Arc<dyn Page>, runtimes: Arc<Runtimes>) {
    let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&connections).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) if no_longer_listens(&error) => {
                return runtimes.fail(format!("no longer listens for those who read its page: {error}"));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let page = Arc::clone(&page);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = page.respond(&request);
                async move { Ok::<_, Infallible>(response.map(Full::new)) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
            // A client that goes away is no event.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}
