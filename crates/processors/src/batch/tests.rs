use nyquist_core::component::ProcessorConfig;
use nyquist_core::config::{Duration, from_str};

use super::BatchConfig;
use crate::test_util::{config, errors};

#[test]
fn an_empty_section_has_the_collectors_defaults() {
    let config: BatchConfig = config("{}");
    assert_eq!(config, BatchConfig::default());
    let batching = config.batching().unwrap();
    assert_eq!((batching.flush_timeout, batching.min_size, batching.max_size), (Duration::from_millis(200), 8192, 0));
}

#[test]
fn the_settings_become_the_exporters_batching() {
    let config: BatchConfig = config("{timeout: 2s, send_batch_size: 100, send_batch_max_size: 150}");
    let batching = config.batching().unwrap();
    assert_eq!((batching.flush_timeout, batching.min_size, batching.max_size), (Duration::from_secs(2), 100, 150));
}

#[test]
fn timeout_zero_sends_at_once() {
    let config: BatchConfig = config("{timeout: 0s}");
    assert_eq!(config.batching().unwrap().min_size, 0);
}

#[test]
fn a_maximum_below_the_trigger_names_both_keys_and_values() {
    let error = &errors::<BatchConfig>("{send_batch_size: 8192, send_batch_max_size: 1000}")[0];
    assert!(error.contains("send_batch_max_size must be greater or equal to send_batch_size"), "{error}");
    assert!(error.contains("1000") && error.contains("8192"), "{error}");
}

#[test]
fn metadata_keys_keep_clients_apart_and_duplicates_do_not_load() {
    let (config, _) = from_str::<BatchConfig>("{metadata_keys: [tenant_id]}").unwrap();
    assert_eq!(config.batching().unwrap().partition.metadata_keys, ["tenant_id"]);
    let error = &errors::<BatchConfig>("{metadata_keys: [tenant_id, Tenant_ID]}")[0];
    assert!(error.contains("duplicate entry in metadata_keys"), "{error}");
}
