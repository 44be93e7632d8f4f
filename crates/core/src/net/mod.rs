//! gRPC and HTTP servers and clients, TLS, compression with caps.

pub mod admission;
pub mod body;
pub mod client;
pub mod compression;
#[cfg(any(test, feature = "fuzzing"))]
pub mod fuzzing;
pub mod grpc;
pub mod page;
pub mod server;
pub mod tls;
pub mod turns;

/// Does this error of `accept` say that the socket does not listen any more? All others may pass: a client that has
/// gone already, no file descriptors.
fn no_longer_listens(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::BADF | Errno::NOTSOCK))
}
