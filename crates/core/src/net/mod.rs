//! gRPC and HTTP servers and clients, TLS, compression with caps.

pub mod page;
