//! Tests of the exporter: configuration, mapping, protocol.

mod answers;
mod any;
mod bench;
mod config;
mod dice;
mod drill;
mod durable;
mod mapping;
mod prompb;
mod prompb_v2;
mod protocol;
mod receiver;
