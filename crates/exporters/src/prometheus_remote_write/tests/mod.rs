//! Tests of the exporter: configuration, mapping, protocol.

mod bench;
mod config;
mod mapping;
mod prompb;
mod protocol;
mod receiver;
