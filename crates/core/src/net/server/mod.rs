//! A listener and its connections.
//!
//! One task accepts; each socket goes to the worker runtime with the fewest open connections of
//! this listener and stays there. Long-lived gRPC connections are few, so that chance would pile
//! them up on one core. The protocol (HTTP/1.1, or HTTP/2 with prior knowledge or by ALPN) is read
//! off the connection's first bytes.
//!
//! Bounds: connections, bytes and time of a request's head, streams per connection. The bodies
//! are the handler's to bound ([`super::body`]). Who breaks the rules waits with the next connection.

mod connection;
mod container;
mod frames;
mod listen;
mod places;
mod sniff;
mod socket;
mod suspects;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub use container::in_container;
pub use listen::{BindError, Family};

use super::body::Reply;
use super::no_longer_listens;
use super::tls::ServerTls;
use crate::component::Trouble;
use crate::delivery::Status;
use crate::runtime::Runtimes;
use places::{Full, Place, Places};
use socket::Bound;
use suspects::Suspects;

/// What answers requests. Its future may be dropped when the client goes away.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Response<Reply>> + Send;
}

/// Where a request comes from: an extension of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

/// The network of a client with `address`: itself, or of IPv6 its /64, since who has one address of those has at least
/// 2^64 of them.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// How long connections live, and how dead ones are found. `None`: for ever, or never.
#[derive(Debug, Clone)]
pub struct Keepalive {
    /// A connection without requests for this long is closed.
    pub max_idle: Option<Duration>,
    /// A connection of this age (give or take 10 %) is closed when its requests are done.
    pub max_age: Option<Duration>,
    /// How long after `max_age` its requests may go on.
    pub max_age_grace: Option<Duration>,
    /// An HTTP/2 connection that was silent for this long is asked whether it is alive.
    pub time: Option<Duration>,
    /// How long it may take to answer.
    pub timeout: Duration,
}

impl Default for Keepalive {
    fn default() -> Self {
        Self {
            max_idle: None,
            max_age: None,
            max_age_grace: None,
            time: Some(Duration::from_secs(2 * 60 * 60)),
            timeout: Duration::from_secs(20),
        }
    }
}

/// What a server is made of.
#[derive(Clone)]
pub struct Settings {
    /// `host:port`; an empty host means all interfaces, port 0 a free one. Of a Unix socket, its path.
    pub endpoint: String,
    /// What kind of address the endpoint is.
    pub family: Family,
    /// TLS, if it is on.
    pub tls: Option<Arc<ServerTls>>,
    /// How many connections may be open; further ones are closed at once. One address cannot have all of them.
    pub max_connections: usize,
    /// How long a connection's first bytes, its TLS handshake and each request's head may take. In HTTP/1 this is
    /// also how long a connection may wait for its next request, in HTTP/2 how long any frame may take.
    pub head_timeout: Option<Duration>,
    /// How long a write may find no taker.
    pub write_timeout: Option<Duration>,
    /// How many requests one HTTP/2 connection may have open.
    pub max_concurrent_streams: u32,
    /// How long connections live.
    pub keepalive: Keepalive,
    /// May HTTP/1 connections carry more than one request?
    pub reuse_http1: bool,
}

impl Settings {
    /// A plain server on `endpoint`, everything else as by default.
    #[must_use]
    pub fn new(endpoint: impl Into<String>) -> Self {
        Self {
            endpoint: endpoint.into(),
            family: Family::Any,
            tls: None,
            max_connections: 8192,
            head_timeout: Some(Duration::from_secs(90)),
            write_timeout: None,
            max_concurrent_streams: 1024,
            keepalive: Keepalive::default(),
            reuse_http1: true,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Running,
    /// Nothing new; what is in flight goes on.
    Draining,
    /// The end.
    Closed,
}

/// A running server. Dropping it closes it at once.
pub struct Server {
    address: SocketAddr,
    trouble: Arc<Trouble>,
    tls: Option<Arc<ServerTls>>,
    phase: watch::Sender<Phase>,
    /// Each task of the server holds a sender; the channel closes when the last one ends.
    alive: Mutex<Option<mpsc::Receiver<()>>>,
}

impl Server {
    /// Binds the endpoint of `settings` and serves it with `handler` on `runtimes`. If the socket dies later, that is
    /// fatal to the component that `runtimes` belong to ([`Runtimes::fail`]).
    ///
    /// # Errors
    /// If the endpoint cannot be resolved or bound.
    pub async fn start<H: Handler>(
        settings: Settings,
        handler: Arc<H>,
        runtimes: &Arc<Runtimes>,
    ) -> Result<Self, BindError> {
        let listener = listen::bind(&settings.endpoint, settings.family).await?;
        let address = listener.address().map_err(|error| BindError::new(&settings.endpoint, &error))?;
        let (phase, watched) = watch::channel(Phase::Running);
        let (task, alive) = mpsc::channel(1);
        let (trouble, tls) = (Arc::<Trouble>::default(), settings.tls.clone());
        let shared = Arc::new(Shared {
            handler,
            trouble: Arc::clone(&trouble),
            places: Places::new(runtimes.workers(), settings.max_connections),
            suspects: Suspects::default(),
            runtimes: Arc::clone(runtimes),
            phase: watched,
            settings,
        });
        let accept = {
            let accepting = Arc::clone(&shared);
            async move { accepting.accept(listener, task).await }
        };
        shared.runtimes.spawn(accept);
        Ok(Self { address, trouble, tls, phase, alive: Mutex::new(Some(alive)) })
    }

    /// Where it listens: with the port that the system chose, if the endpoint said 0. `0.0.0.0:0` on a Unix
    /// socket.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How it is doing: connections that it cannot take, certificates that it cannot reload.
    #[must_use]
    pub fn status(&self) -> Status {
        let tls = self.tls.as_ref().map(|tls| tls.status()).unwrap_or_default();
        self.trouble.status().and(tls)
    }

    /// Stops accepting and tells connections to finish (`GOAWAY`), waits for their requests until
    /// `deadline`, then closes what is left.
    pub async fn shutdown(&self, deadline: Instant) {
        self.phase.send_replace(Phase::Draining);
        let Some(mut alive) = self.alive.lock().take() else { return };
        if tokio::time::timeout_at(deadline, alive.recv()).await.is_err() {
            tracing::warn!(endpoint = %self.address, "requests were still open at the deadline: closing them");
        }
        self.phase.send_replace(Phase::Closed);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Closed);
    }
}

/// Until so long after a connection was turned away that the trouble is over.
async fn quiet(turned_away: Option<Instant>) {
    const QUIET: Duration = Duration::from_secs(1);
    if let Some(last) = turned_away {
        tokio::time::sleep_until(last + QUIET).await;
    }
}

/// Held by each task of a server.
type Alive = mpsc::Sender<()>;

struct Shared<H> {
    settings: Settings,
    handler: Arc<H>,
    trouble: Arc<Trouble>,
    runtimes: Arc<Runtimes>,
    /// Where connections are counted.
    places: Arc<Places>,
    /// Whose connections wait before they are served.
    suspects: Suspects,
    phase: watch::Receiver<Phase>,
}

/// What an open connection belongs to.
struct Slot<H> {
    shared: Arc<Shared<H>>,
    place: Place,
    _alive: Alive,
}

impl<H: Handler> Shared<H> {
    async fn accept(self: Arc<Self>, listener: Bound, alive: Alive) {
        let endpoint = self.settings.endpoint.clone();
        let listener = match listener.into_listener() {
            Ok(listener) => listener,
            Err(error) => return self.runtimes.fail(format!("cannot listen on {endpoint}: {error}")),
        };
        // When a connection was turned away last, for as long as that counts.
        let mut turned_away: Option<Instant> = None;
        let mut phase = self.phase.clone();
        let mut last_warning: Option<Instant> = None;
        let mut warn = |endpoint: &str, problem: &dyn std::fmt::Display| {
            if last_warning.is_none_or(|last| last.elapsed() > Duration::from_secs(10)) {
                last_warning = Some(Instant::now());
                tracing::warn!(endpoint, %problem, "cannot take a connection");
            }
        };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = quiet(turned_away), if turned_away.is_some() => {
                    turned_away = None;
                    self.trouble.end();
                    continue;
                }
                _ = phase.wait_for(|phase| *phase != Phase::Running) => return,
            };
            let problem = match accepted {
                Ok((socket, peer)) => match self.places.take(peer) {
                    Ok(place) => {
                        let worker = place.worker();
                        let slot = Slot { shared: Arc::clone(&self), place, _alive: alive.clone() };
                        self.runtimes.spawn_on(worker, connection::run(socket, slot));
                        continue;
                    }
                    // Who takes too much is no reason for others to think the server ill.
                    Err(share @ Full::Share { .. }) => {
                        warn(&endpoint, &share);
                        continue;
                    }
                    Err(full) => full.to_string(),
                },
                Err(error) if no_longer_listens(&error) => {
                    return self.runtimes.fail(format!("no longer listens on {endpoint}: {error}"));
                }
                Err(error) => {
                    // Out of file descriptors, most likely: nothing gets better by trying at once.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    error.to_string()
                }
            };
            turned_away = Some(Instant::now());
            self.trouble.begin(format!("cannot take connections on {endpoint}: {problem}"));
            warn(&endpoint, &problem);
        }
    }
}
