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
