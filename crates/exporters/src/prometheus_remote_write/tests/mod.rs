//! Tests of the exporter: configuration, mapping, protocol.

mod bench;
mod config;
mod durable;
mod mapping;
mod prompb;
mod protocol;
mod receiver;
