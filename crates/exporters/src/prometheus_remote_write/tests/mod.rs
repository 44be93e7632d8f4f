//! Tests of the exporter: configuration, mapping, protocol.

mod answers;
mod any;
mod config;
mod dice;
mod drill;
mod durable;
mod mapping;
mod one_name;
mod prompb;
mod prompb_v2;
mod protocol;
mod receiver;
