//! Tests of the exporter: configuration, mapping, protocol.

mod answers;
mod any;
mod bench;
mod config;
mod dice;
mod drill;
mod durable;
mod mapping;
#[path = "../../../../../tests/support/prompb.rs"]
mod messages;
mod one_name;
mod prompb;
mod prompb_v2;
mod protocol;
mod receiver;
mod silence;
mod tenants;

use nyquist_core::config::from_str;

use super::RemoteWriteConfig;

/// Reads `keys` (YAML in braces, or of one key) beside `endpoint`, as from a file.
fn read(endpoint: &str, keys: &str) -> RemoteWriteConfig {
    let keys = keys.strip_prefix('{').and_then(|keys| keys.strip_suffix('}')).unwrap_or(keys);
    let config = from_str(&format!("{{endpoint: '{endpoint}', {keys}}}"));
    config.map(|(config, _)| config).unwrap_or_else(|problems| panic!("{problems}"))
}
