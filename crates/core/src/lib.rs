//! What every Nyquist component is built on.
//!
//! - [`wire`]: reading and reshaping OTLP messages without decoding them;
//! - [`otlp_json`]: OTLP messages as JSON;
//! - [`batch`]: what travels between components;
//! - [`component`]: the contracts of receivers, processors, exporters and extensions;
//! - [`config`]: located YAML and the types that configurations share;
//! - [`pipeline`]: the graph: fan-out, start and drain order;
//! - [`delivery`]: queue, batching and retry, shared by every exporter;
//! - [`net`]: gRPC and HTTP servers and clients, TLS, compression with caps;
//! - [`telemetry`]: the gateway's own metrics, ledger and logs;
//! - [`storage`]: the log of what must survive the process;
//! - [`runtime`]: one single-threaded runtime per core;
//! - [`table`]: tables keyed by hashes;
//! - [`clock`]: time that tests can drive.

pub mod batch;
pub mod clock;
pub mod component;
pub mod config;
pub mod delivery;
pub mod net;
pub mod otlp_json;
pub mod pipeline;
pub mod runtime;
pub mod storage;
pub mod table;
pub mod telemetry;
pub mod wire;

/// The prost types of OTLP, for code that needs the model: `nyquist_core::proto::trace::v1::Span`.
pub use opentelemetry_proto::tonic as proto;
