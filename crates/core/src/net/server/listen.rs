//! Binding.

use std::io;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, TcpKeepalive, Type};

use super::socket::Bound;

/// What kind of address an endpoint is: `transport` `tcp`, `tcp4`, `tcp6`, `unix`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Family {
    /// Whatever there is.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// The path of a Unix socket.
    Unix,
}

impl Family {
    fn includes(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
            Self::Unix => false,
        }
    }
}

/// An endpoint cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {endpoint}: {reason}")]
pub struct BindError {
    endpoint: String,
    reason: String,
}

impl BindError {
    pub(super) fn new(endpoint: &str, error: &io::Error) -> Self {
        let mut reason = error.to_string();
        match error.kind() {
            io::ErrorKind::AddrInUse => reason.push_str("; another process listens there"),
            io::ErrorKind::PermissionDenied => reason.push_str("; ports below 1024 need privileges"),
            io::ErrorKind::AddrNotAvailable => reason.push_str("; this host does not have that address"),
            _ => {}
        }
        Self { endpoint: endpoint.to_owned(), reason }
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

/// Listens on the first address of `endpoint` (`host:port`; an empty host means all interfaces), or at that path.
pub(super) async fn bind(endpoint: &str, family: Family) -> Result<Bound, BindError> {
    let failed = |error: io::Error| BindError::new(endpoint, &error);
    if family == Family::Unix {
        return Bound::unix(Path::new(endpoint)).map_err(failed);
    }
    let mut last = io::Error::other("the name has no address of that kind");
    for address in resolve(endpoint, family).await.map_err(failed)? {
        match listen(address) {
            Ok(listener) => return Ok(Bound::Tcp(listener)),
            Err(error) => last = error,
        }
    }
    Err(failed(last))
}

async fn resolve(endpoint: &str, family: Family) -> io::Result<Vec<SocketAddr>> {
    if let Some(port) = endpoint.strip_prefix(':') {
        let port = port.parse().map_err(|_| io::Error::other("the port is not a number from 0 to 65535"))?;
        // On machines without IPv6 the first one fails and the second one serves.
        let all = [SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)), SocketAddr::from(([0, 0, 0, 0], port))];
        return Ok(all.into_iter().filter(|address| family.includes(address)).collect());
    }
    let mut addresses: Vec<_> =
        tokio::net::lookup_host(endpoint).await?.filter(|address| family.includes(address)).collect();
    // `localhost` is 127.0.0.1 where it is both, as with the Collector.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    Ok(addresses)
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let SocketAddr::V6(v6) = address {
        socket.set_only_v6(!v6.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit these.
    socket.set_tcp_nodelay(true)?;
    let probe = Duration::from_secs(15);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(probe).with_interval(probe))?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}
