use nyquist_core::component::ProcessorConfig;
use nyquist_core::config::{Diagnostics, Duration, Location, Node, Tree, decode};

use super::BatchConfig;

fn parse(yaml: &str) -> (Option<BatchConfig>, Diagnostics) {
    let mut diagnostics = Diagnostics::default();
    let config = crate::test_util::decode_yaml(yaml, &mut diagnostics);
    (config, diagnostics)
}

#[test]
fn an_empty_section_has_the_collectors_defaults() {
    let node = Node { tree: Tree::Map(Vec::new()), location: Location::default() };
    let config = decode::<BatchConfig>(&node, &mut Diagnostics::default()).unwrap();
    assert_eq!(config, BatchConfig::default());
    let batching = config.batching().unwrap();
    assert_eq!((batching.flush_timeout, batching.min_size, batching.max_size), (Duration::from_millis(200), 8192, 0));
}

#[test]
fn the_settings_become_the_exporters_batching() {
    let (config, _) = parse("{timeout: 2s, send_batch_size: 100, send_batch_max_size: 150}");
    let batching = config.unwrap().batching().unwrap();
    assert_eq!((batching.flush_timeout, batching.min_size, batching.max_size), (Duration::from_secs(2), 100, 150));
}

#[test]
fn timeout_zero_sends_at_once() {
    let (config, _) = parse("{timeout: 0s}");
    assert_eq!(config.unwrap().batching().unwrap().min_size, 0);
}

#[test]
fn a_maximum_below_the_trigger_names_both_keys_and_values() {
    let (config, diagnostics) = parse("{send_batch_size: 8192, send_batch_max_size: 1000}");
    assert!(config.is_none());
    let error = &diagnostics.errors[0];
    assert!(error.contains("send_batch_max_size must be greater or equal to send_batch_size"), "{error}");
    assert!(error.contains("1000") && error.contains("8192"), "{error}");
}

#[test]
fn metadata_keys_load_with_a_note_and_duplicates_do_not() {
    let (config, diagnostics) = parse("{metadata_keys: [tenant_id]}");
    assert!(config.is_some());
    assert_eq!(diagnostics.warnings.len(), 1);
    let (config, diagnostics) = parse("{metadata_keys: [tenant_id, Tenant_ID]}");
    assert!(config.is_none());
    assert!(diagnostics.errors[0].contains("duplicate entry in metadata_keys"));
}
