//! Tests of the exporter: configuration, mapping, protocol.

mod config;
mod mapping;
mod prompb;
mod protocol;
mod receiver;
