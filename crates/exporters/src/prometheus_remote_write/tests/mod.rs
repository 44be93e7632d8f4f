//! Tests of the exporter: configuration, mapping, protocol.

mod answers;
mod bench;
mod config;
mod durable;
mod mapping;
mod prompb;
mod prompb_v2;
mod protocol;
mod receiver;
