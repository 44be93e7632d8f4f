use super::*;
use crate::config::{Validate, from_str};
use crate::delivery::{BatchConfig, Partition, Sizer};

/// All errors of `yaml` as a `C`, in one text.
fn errors<C: Validate + serde::de::DeserializeOwned>(yaml: &str) -> String {
    match from_str::<C>(yaml) {
        Ok(_) => "[]".to_owned(),
        Err(diagnostics) => format!("{:?}", diagnostics.errors),
    }
}

fn queue_errors(yaml: &str) -> String {
    errors::<QueueConfig>(yaml)
}

#[test]
fn defaults_are_the_collectors() {
    let queue = queue("{}");
    assert!(queue.enabled && !queue.block_on_overflow && !queue.wait_for_result);
    assert_eq!((queue.num_consumers, queue.queue_size), (10, 1000));
    assert_eq!(queue_errors("{}"), "[]");
    assert_eq!(queue_errors("{batch: {}}"), "[]");
    assert_eq!(errors::<RetryConfig>("{}"), "[]");
}

/// Every key that the Collector's exporterhelper and configretry (v0.161) have, and what it becomes.
#[test]
fn all_keys_of_the_collector_are_read() {
    let yaml = "{enabled: true, num_consumers: 3, queue_size: 77, sizer: bytes, block_on_overflow: true, \
                wait_for_result: true, storage: file_storage/q, batch: {flush_timeout: 7s, min_size: 5, max_size: 9, \
                sizer: items, partition: {metadata_keys: [X-Tenant]}}}";
    let batch = BatchConfig {
        flush_timeout: crate::config::Duration::from_secs(7),
        min_size: 5,
        max_size: 9,
        sizer: Some(Sizer::Items),
        partition: Partition { metadata_keys: vec!["X-Tenant".to_owned()] },
    };
    let expected = QueueConfig {
        enabled: true,
        num_consumers: 3,
        queue_size: 77,
        sizer: Some(Sizer::Bytes),
        block_on_overflow: true,
        wait_for_result: true,
        storage: Some("file_storage/q".to_owned()),
        batch: Some(batch),
        ..QueueConfig::default()
    };
    assert_eq!(queue(yaml), expected);
    let yaml = "{enabled: false, initial_interval: 2s, randomization_factor: 0.25, multiplier: 3, max_interval: 40s, \
                max_elapsed_time: 50s}";
    let seconds = crate::config::Duration::from_secs;
    let expected = RetryConfig {
        enabled: false,
        initial_interval: seconds(2),
        randomization_factor: 0.25,
        multiplier: 3.0,
        max_interval: seconds(40),
        max_elapsed_time: Some(seconds(50)),
    };
    assert_eq!(retry(yaml), expected);
}

#[test]
fn the_collectors_rules_hold() {
    // Cases 62 and 65.
    let both = queue_errors("{wait_for_result: true, storage: file_storage}");
    assert!(both.contains("`wait_for_result` is not supported with a persistent queue configured with `storage`"));
    assert!(queue_errors("{batch: {sizer: requests}}").contains("`batch` supports only `items` or `bytes` sizer"));
    let larger = queue_errors("{sizer: items, queue_size: 10, batch: {min_size: 11}}");
    assert!(larger.contains("`min_size` must be less than or equal to `queue_size`"), "{larger}");
    assert_eq!(queue_errors("{sizer: requests, queue_size: 10, batch: {min_size: 11}}"), "[]", "other units");
    let smaller = queue_errors("{batch: {min_size: 20, max_size: 10}}");
    assert!(smaller.contains("`max_size` (10) must be greater or equal to `min_size` (20)"), "{smaller}");
    assert!(queue_errors("{batch: {flush_timeout: 0s}}").contains("flush_timeout"));
    assert!(queue_errors("{batch: {partition: {metadata_keys: [A, a]}}}").contains("duplicate"));
    assert!(queue_errors("{num_consumers: 0}").contains("`num_consumers` must be positive"));
    assert!(queue_errors("{queue_size: 0}").contains("`queue_size` must be positive"));
    assert_eq!(queue_errors("{enabled: false, queue_size: 0}"), "[]");
    assert!(queue_errors("{on_full: drop, block_on_overflow: true}").contains("choose one"));
}

#[test]
fn retry_is_checked_even_when_it_is_off() {
    let message = errors::<RetryConfig>("{enabled: false, max_elapsed_time: 1s, initial_interval: 5s}");
    assert!(message.contains("'max_elapsed_time' must not be less than 'initial_interval'"), "{message}");
    assert!(message.contains("1s is less than 5s"), "{message}");
    assert!(message.contains("'max_interval'"), "{message}");
    assert_eq!(errors::<RetryConfig>("{max_elapsed_time: 0}"), "[]");
    assert!(errors::<RetryConfig>("{randomization_factor: 1.5}").contains("within [0, 1]"));
    assert!(errors::<RetryConfig>("{multiplier: -1}").contains("'multiplier'"));
}

/// Guarantee: how long a request is tried is compared with the waits as it applies: without end where the queue is on disk
/// and nothing else is said.
#[test]
fn retry_is_checked_beside_the_queue() {
    let check = |retry: &str, queue: &str| {
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default)]
        struct Both {
            retry: RetryConfig,
            queue: QueueConfig,
        }
        impl Validate for Both {
            fn validate(&self, check: &mut crate::config::Check<'_>) {
                check.nested(&["retry"], &self.retry.beside(&self.queue));
            }
        }
        errors::<Both>(&format!("{{retry: {retry}, queue: {queue}}}"))
    };
    let slow = "{max_interval: 10m}";
    assert_eq!(check(slow, "{storage: file_storage}"), "[]");
    let in_memory = check(slow, "{}");
    assert!(in_memory.contains("300s (its default; 0 tries for ever) is less than 600s"), "{in_memory}");
    let off = check(slow, "{enabled: false, storage: file_storage}");
    assert!(off.contains("is less than 600s"), "{off}");
    let said = check("{max_interval: 10m, max_elapsed_time: 1m}", "{storage: file_storage}");
    assert!(said.contains("60s is less than 600s"), "{said}");
}
