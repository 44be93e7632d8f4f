//! Making a connection.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpStream, UnixStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::GrpcEndpoint;
use super::proxy::Proxy;
use super::stream::{Socket, Stream};
use crate::net::tls::ClientTls;

/// How long one address may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged before the connection counts as dead: without it a
/// peer that vanished is noticed after a quarter of an hour.
const USER_TIMEOUT: Duration = Duration::from_secs(20);
/// When an idle connection is probed.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Connects to one backend, whatever the URI of a request says.
#[derive(Clone)]
pub struct Connector {
    backend: Arc<Backend>,
    /// Which of the backend's addresses, in order, it connects to; `None`: to any.
    way: Option<usize>,
}

/// Addresses of one name that a [`super::Client`] spreads requests over, at most.
pub(super) const MOST_WAYS: usize = 32;

struct Backend {
    /// For people.
    name: String,
    host: String,
    port: u16,
    /// Where it listens, if it is a Unix socket.
    socket: Option<PathBuf>,
    tls: Option<Arc<ClientTls>>,
    rotates: bool,
    proxy: Option<Proxy>,
    next: AtomicUsize,
    /// How many addresses the name had when it was resolved last.
    addresses: AtomicUsize,
    /// What the name resolves to.
    #[cfg(test)]
    fixed: Vec<SocketAddr>,
}

impl Backend {
    fn new(name: String, host: String, port: u16, tls: Option<Arc<ClientTls>>) -> Self {
        Self {
            name,
            host,
            port,
            socket: None,
            tls,
            rotates: true,
            proxy: None,
            next: AtomicUsize::new(0),
            addresses: AtomicUsize::new(1),
            #[cfg(test)]
            fixed: Vec::new(),
        }
    }

    /// The same, not used yet, and to be changed.
    fn renewed(&self) -> Self {
        let new = Self::new(self.name.clone(), self.host.clone(), self.port, self.tls.clone());
        Self {
            socket: self.socket.clone(),
            rotates: self.rotates,
            proxy: self.proxy.clone(),
            #[cfg(test)]
            fixed: self.fixed.clone(),
            ..new
        }
    }
}

impl Connector {
    /// A connector to `host` (IPv6 addresses in brackets) and `port`; plaintext without `tls`.
    #[must_use]
    pub fn new(host: &str, port: u16, tls: Option<Arc<ClientTls>>) -> Self {
        let name = format!("{host}:{port}");
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Self { backend: Arc::new(Backend::new(name, host, port, tls)), way: None }
    }

    /// A connector to a gRPC backend; plaintext without `tls`.
    #[must_use]
    pub fn grpc(endpoint: &GrpcEndpoint, tls: Option<Arc<ClientTls>>) -> Self {
        let Self { backend, way } = Self::new(&endpoint.host, endpoint.port, tls);
        let (name, socket) = (endpoint.to_string(), endpoint.socket.clone());
        Self { backend: Arc::new(Backend { name, socket, ..backend.renewed() }), way }
    }

    /// Whether each connection begins with the next address (the default), or all with the first.
    #[must_use]
    pub fn rotating(self, rotates: bool) -> Self {
        Self { backend: Arc::new(Backend { rotates, ..self.backend.renewed() }), way: None }
    }

    /// Goes through `proxy`, if there is one.
    #[must_use]
    pub fn through(self, proxy: Option<Proxy>) -> Self {
        if let Some(proxy) = &proxy {
            tracing::info!(%proxy, backend = self.backend.name, "connecting through a proxy");
        }
        Self { backend: Arc::new(Backend { proxy, ..self.backend.renewed() }), way: None }
    }

    /// The same with a name that resolves to `addresses`.
    #[cfg(test)]
    pub(super) fn resolving_to(self, addresses: &[SocketAddr]) -> Self {
        Self { backend: Arc::new(Backend { fixed: addresses.to_vec(), ..self.backend.renewed() }), way: None }
    }

    /// How many ways there are to the backend: one for each of its addresses, as they were when it was
    /// resolved last, if connections rotate and no proxy chooses.
    pub(super) fn ways(&self) -> usize {
        if !self.backend.rotates || self.backend.proxy.is_some() {
            return 1;
        }
        self.backend.addresses.load(Ordering::Relaxed).clamp(1, MOST_WAYS)
    }

    /// A connector for one of the ways: to the same address as long as the name has the same.
    pub(super) fn way(&self, way: usize) -> Self {
        Self { backend: Arc::clone(&self.backend), way: Some(way) }
    }

    /// Resolves, connects, shakes hands.
    ///
    /// # Errors
    /// What failed, naming the backend.
    pub async fn connect(&self) -> io::Result<Stream> {
        let socket = match &self.backend.socket {
            None => Socket::Tcp(self.connect_tcp().await?),
            Some(path) => {
                let connected = timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await;
                let answer = connected.map_err(|_| self.failed("cannot connect to", &"no answer"))?;
                Socket::Unix(answer.map_err(|error| self.failed("cannot connect to", &error))?)
            }
        };
        let Some(tls) = &self.backend.tls else { return Ok(Stream::Plain(socket)) };
        let name = tls.server_name(&self.backend.host).map_err(|error| io::Error::other(error.0))?;
        let handshake = TlsConnector::from(tls.current()).connect(name, socket);
        let stream = timeout(CONNECT_TIMEOUT, handshake)
            .await
            .map_err(|_| self.failed("TLS handshake with", &"no answer"))?
            .map_err(|error| self.failed("TLS handshake with", &explain(&error)))?;
        Ok(Stream::Tls(Box::new(stream)))
    }

    async fn connect_tcp(&self) -> io::Result<TcpStream> {
        let backend = &self.backend;
        #[cfg(test)]
        if !backend.fixed.is_empty() {
            return self.connect_resolved(backend.fixed.clone()).await;
        }
        let (host, port) = match &backend.proxy {
            Some(proxy) => (proxy.host.as_str(), proxy.port),
            None => (backend.host.as_str(), backend.port),
        };
        let resolved = lookup_host((host, port)).await;
        let found = resolved.map_err(|error| match &backend.proxy {
            Some(proxy) => io::Error::other(format!("cannot resolve the proxy {proxy}: {error}")),
            None => self.failed("cannot resolve", &error),
        })?;
        self.connect_resolved(found.collect()).await
    }

    async fn connect_resolved(&self, mut addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
        self.backend.addresses.store(addresses.len(), Ordering::Relaxed);
        if self.ways() > 1
            && let Some(way) = self.way
        {
            // Name servers like to turn the order.
            addresses.sort_unstable();
            addresses = vec![addresses[way % addresses.len()]];
        }
        self.connect_any(&addresses).await
    }

    /// Connects to one of `addresses`: to the next one each time (the first, if it does not rotate), and if it does not
    /// answer to those behind it.
    ///
    /// # Errors
    /// What the last of them said.
    pub async fn connect_any(&self, addresses: &[SocketAddr]) -> io::Result<TcpStream> {
        let backend = &self.backend;
        let first = if backend.rotates { backend.next.fetch_add(1, Ordering::Relaxed) } else { 0 };
        let mut last_error = self.failed("cannot resolve", &"the name has no address");
        for index in 0..addresses.len() {
            let address = addresses[(first + index) % addresses.len()];
            match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
                Ok(Ok(mut stream)) => {
                    configure(&stream)?;
                    if let Some(proxy) = &backend.proxy {
                        let tunnel = proxy.tunnel(&mut stream, &backend.host, backend.port);
                        let no_answer = |_| self.failed("no tunnel to", &format_args!("no answer from {proxy}"));
                        timeout(CONNECT_TIMEOUT, tunnel).await.map_err(no_answer)??;
                    }
                    return Ok(stream);
                }
                Ok(Err(error)) => last_error = self.failed("cannot connect to", &error),
                Err(_) => last_error = self.failed("cannot connect to", &format_args!("no answer from {address}")),
            }
        }
        Err(last_error)
    }

    fn failed(&self, what: &str, error: &dyn std::fmt::Display) -> io::Error {
        io::Error::other(format!("{what} {}: {error}", self.backend.name))
    }
}

/// The commonest causes of a failed handshake, with what to do about them.
fn explain(error: &io::Error) -> String {
    use rustls::{CertificateError, Error};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    let hint = match cause {
        Some(Error::InvalidMessage(_)) => "; if the backend speaks plaintext, set tls.insecure: true",
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "; if the backend speaks plaintext, set tls.insecure: true"
        }
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "; set tls.ca_file to the certificate that signed the backend's"
        }
        Some(Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        )) => "; set tls.server_name_override to a name in the backend's certificate",
        _ => "",
    };
    format!("{error}{hint}")
}

fn configure(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(())
}

/// For hyper-util's client.
impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
    }
}
