//! gRPC and HTTP servers and clients, TLS, compression with caps.

pub mod client;
pub mod compression;
pub mod grpc;
pub mod page;
pub mod tls;
