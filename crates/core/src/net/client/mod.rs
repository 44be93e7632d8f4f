//! Connections to backends: gRPC and HTTP, plaintext and TLS.
//!
//! Every worker has connections of its own, so that a request is sent where it was prepared. The
//! endpoint's name is resolved anew for every connection, and its addresses are tried in turn,
//! beginning with the next one each time: the workers spread over the addresses, and a
//! reconnection goes elsewhere.

mod auth;
mod body;
mod connect;
mod endpoint;
mod headers;
mod http_client;
mod proxy;
mod stream;
#[cfg(test)]
mod tests;

pub use auth::AuthConfig;
pub use body::Chunks;
pub use connect::Connector;
pub use endpoint::{GrpcEndpoint, HttpEndpoint};
pub use headers::{HeadersConfig, user_agent};
pub use http_client::{Client, ClientOptions, Reply, SendError};
pub use proxy::Proxy;
pub use stream::{Socket, Stream};
