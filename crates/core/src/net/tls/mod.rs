//! TLS with the Collector's keys, on rustls with the ring provider.
//!
//! Certificates are read when a component starts, and again after `reload_interval`: checked when
//! a connection is made, so that there is no task and no file watch. Open connections stay as they
//! are. Files that cannot be read at a reload leave the old certificates in place.

mod client;
mod config;
mod material;
mod reload;
mod server;
mod skip_verify;
#[cfg(test)]
mod tests;

pub use client::ClientTls;
pub use config::{ClientTlsConfig, ServerTlsConfig, TpmConfig};
pub use server::ServerTls;

/// TLS cannot be set up: which setting, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(pub String);
