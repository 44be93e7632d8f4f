//! Good and bad configurations, and the words for the bad ones (P11 among them).

use nyquist_core::config::from_str;
use nyquist_core::delivery::Sizer;

use crate::prometheus_mapping::CustomBuckets;
use crate::prometheus_mapping::Strategy;
use crate::prometheus_remote_write::{LeFormat, RemoteWriteConfig};

const ENDPOINT: &str = "endpoint: http://prometheus:9090/api/v1/write\n";

fn good(text: &str) -> RemoteWriteConfig {
    from_str::<RemoteWriteConfig>(&format!("{ENDPOINT}{text}")).map_err(|problems| problems.errors).unwrap().0
}

#[track_caller]
fn bad(text: &str, expected: &str) {
    let Err(problems) = from_str::<RemoteWriteConfig>(text) else { panic!("accepted: {text}") };
    let errors: Vec<String> = problems.errors.iter().map(ToString::to_string).collect();
    assert_eq!(errors.len(), 1, "{errors:#?}");
    assert!(errors[0].contains(expected), "{}", errors[0]);
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = good("");
    assert_eq!(config.timeout().as_secs(), 5);
    assert_eq!((config.queue().queue_size, config.shards()), (10_000, 5));
    let retry = config.retry();
    assert_eq!(retry.initial_interval.0.as_millis(), 50);
    assert_eq!((retry.max_interval.0.as_secs(), retry.give_up_after(false).as_secs()), (5, 300));
    let on_disk = good("sending_queue: {storage: file_storage}").retry();
    assert_eq!(on_disk.give_up_after(false).as_secs(), 0, "what is on disk is kept until it is delivered");
    assert_eq!((config.limits().bytes, config.limits().samples), (3_000_000, 2000));
    let mapping = config.mapping();
    assert_eq!(mapping.strategy, Strategy::UnderscoreEscapingWithSuffixes);
    assert!(mapping.scope_labels && mapping.target_info && mapping.resource_labels.is_none());
}

#[test]
fn the_collectors_configurations_load() {
    let config = good(
        "tls: {insecure: true}
headers: {X-Scope-OrgID: me}
external_labels: {cluster.name: c}
add_metric_suffixes: false
resource_to_telemetry_conversion: {enabled: true}
target_info: {enabled: false}
remote_write_queue: {enabled: true, queue_size: 2000, num_consumers: 3}
retry_on_failure: {max_elapsed_time: 120s}
max_batch_size_bytes: 0
max_batch_request_parallelism: 7
",
    );
    assert_eq!((config.queue().queue_size, config.shards(), config.limits().bytes), (2000, 7, 3_000_000));
    assert_eq!(config.retry().initial_interval.0.as_millis(), 50);
    let mapping = config.mapping();
    assert_eq!(mapping.strategy, Strategy::UnderscoreEscapingWithoutSuffixes);
    assert_eq!(mapping.external_labels, [("cluster_name".to_owned(), "c".to_owned())]);
}

/// What only 2.0 has can be asked for where only 2.0 is spoken.
#[test]
fn remote_write_2_has_more() {
    let config = good(
        "protobuf_message: io.prometheus.write.v2.Request
convert_explicit_histograms_to_nhcb: true
keep_classic_histograms: true
translation_strategy: NoTranslation
external_labels: {cluster.name: c}
",
    );
    assert_eq!(config.mapping().custom_buckets, CustomBuckets::Beside);
    assert_eq!(config.mapping().strategy, Strategy::NoTranslation);
    assert_eq!(config.mapping().external_labels, [("cluster.name".to_owned(), "c".to_owned())]);
    assert_eq!(good("").protobuf_message, "auto");
    assert_eq!(
        (good("").le_format, good("le_format: openmetrics").le_format),
        (LeFormat::Plain, LeFormat::OpenMetrics)
    );
}

/// Scenario: the `wal` of the Collector's README, with what stands beside it. Guarantee: it is a queue on disk that nothing in
/// memory bounds and that never gives up, as there; what has no meaning here says so.
#[test]
fn the_collectors_wal_is_a_queue_on_disk() {
    let warnings = |text: &str| {
        let read = from_str::<RemoteWriteConfig>(&format!("{ENDPOINT}{text}")).map_err(|problems| problems.errors);
        let (config, findings) = read.unwrap();
        (config, findings.warnings.into_iter().map(|warning| warning.path).collect::<Vec<_>>())
    };
    let (config, paths) = warnings(
        "wal: {directory: ./prom_rw, buffer_size: 100, truncate_frequency: 45s, lag_record_frequency: 15s}
remote_write_queue: {enabled: true, queue_size: 10, num_consumers: 3}
retry_on_failure: {enabled: false, max_elapsed_time: 120s, max_interval: 7s}
",
    );
    let expected = [
        "remote_write_queue.enabled",
        "remote_write_queue.queue_size",
        "retry_on_failure.enabled",
        "retry_on_failure.max_elapsed_time",
        "wal.buffer_size",
        "wal.lag_record_frequency",
        "wal.truncate_frequency",
    ];
    let mut sorted = paths;
    sorted.sort();
    assert_eq!(sorted, expected);
    let (queue, retry) = (config.queue(), config.retry());
    assert_eq!((queue.queue_size, queue.sizer, queue.max_bytes.0), (10 << 30, Some(Sizer::Bytes), 10 << 30));
    assert_eq!((config.shards(), retry.enabled, retry.max_interval.0.as_secs()), (3, true, 7));
    assert_eq!(retry.give_up_after(false).as_secs(), 0);
    let (config, paths) = warnings("wal: {directory: /tmp}\nsending_queue: {max_bytes: 1GiB}\n");
    assert_eq!((config.queue().max_bytes.0, config.queue().queue_size, paths.len()), (1 << 30, 1000, 0));
    assert_eq!(good("wal:\n").wal, None);
}

#[test]
fn the_http_block_wins() {
    let text = "endpoint: http://a/\nhttp: {endpoint: 'http://b/', timeout: 7s}\n";
    let config = from_str::<RemoteWriteConfig>(text).map_err(|problems| problems.errors).unwrap().0;
    assert_eq!((config.client().endpoint.as_str(), config.timeout().as_secs()), ("http://b/", 7));
    let beside = "http: {endpoint: 'http://b/'}\ntimeout: 7s\n";
    let (config, findings) = from_str::<RemoteWriteConfig>(beside).map_err(|problems| problems.errors).unwrap();
    assert_eq!((config.timeout().as_secs(), findings.warnings.len()), (7, 0));
    let (_, findings) = from_str::<RemoteWriteConfig>(text).map_err(|problems| problems.errors).unwrap();
    assert!(findings.warnings[0].to_string().contains("those beside it, except timeout, have no effect"));
    bad("http: {endpoint: 'http://b/', endpont: x}\n", "(http.endpont)");
}

#[test]
fn mistakes_are_explained() {
    bad("timeout: 5s\n", "requires a non-empty \"endpoint\"");
    bad("endpoint: prometheus:9090\n", "http://");
    let with = |text: &str| format!("{ENDPOINT}{text}\n");
    for header in ["Content-Type", "content-encoding", "X-Prometheus-Remote-Write-Version", "USER-AGENT"] {
        bad(&with(&format!("headers: {{{header}: x}}")), "belongs to the remote write protocol");
        bad(&with(&format!("include_metadata_keys: [{header}]")), "belongs to the remote write protocol");
    }
    bad(&with("protobuf_message: v3"), "unknown message \"v3\": use auto, io.prometheus.write.v2.Request or");
    let v2 = "protobuf_message: io.prometheus.write.v2.Request";
    bad(
        &with(&format!("{v2}\nnative_histograms: false\nconvert_explicit_histograms_to_nhcb: true")),
        "remove one of the two",
    );
    // E31 and E40.
    for message in ["auto", "prometheus.WriteRequest"] {
        let with = |text: &str| with(&format!("protobuf_message: {message}\n{text}"));
        bad(&with("convert_explicit_histograms_to_nhcb: true"), "must not be sent with remote write 1.0");
        bad(&with("translation_strategy: NoTranslation"), "need remote write 2.0");
    }
    bad(&with("translation_strategy: underscores"), "UnderscoreEscapingWithSuffixes");
    bad(&with("external_labels: {é: x}"), "cannot be the name of a label");
    bad(&with("external_labels: {a: ''}"), "needs a value");
    bad(&with("proxy_url: https://user:secret@proxy:3128"), "only http:// proxies are supported");
    bad(&with("http: {endpoint: 'http://a/', proxy_url: 'http://'}"), "write http://host:port");
    bad(&with("compression: gzip"), "always compressed with snappy");
    bad(&with("max_samples_per_send: 0"), "from 1 to 10000");
    bad(&with("max_batch_request_parallelism: 0"), "must be positive");
    bad(&with("drop_out_of_order: {enabled: true, max_series: 0}"), "must be positive");
    bad(&with("delta: sum"), "write drop or accumulate");
    bad(&with("le_format: float"), "openmetrics");
    bad(&with("delta_max_stale: 0s"), "must be positive");
    bad(&with("max_stream_state: 0"), "must be positive");
    bad(&with("stale_after: 1m\ninclude_metadata_keys: [x-scope-orgid]"), "cannot be used with include_metadata_keys");
    bad(&with("remote_write_queue: {queue_size: 0}"), "remote_write_queue: {enabled: false}");
    bad(&with("remote_write_queue: {num_consumers: 0}"), "must be positive");
    bad(&with("wal: {}"), "(wal.directory)");
    bad(&with("wal: {directory: /etc/hostname}"), "/etc/hostname is not a directory");
    let both = with("wal: {directory: /tmp}\nsending_queue: {storage: file_storage}");
    bad(&both, "keeps the queue on disk, too: remove one of the two\n --> config.yaml:2:1 (wal)");
    bad(&with("wal: {directory: /tmp}\nsending_queue: {enabled: false}"), "(sending_queue.enabled)");
    bad(&with("wal: {directory: /tmp}\nsending_queue: {wait_for_result: true}"), "(sending_queue.wait_for_result)");
    bad(&with("wal: {directory: /tmp, bufer_size: 1}"), "did you mean \"buffer_size\"");
    bad(
        &with("resource_constant_labels: {included: [a]}\nresource_to_telemetry_conversion: {enabled: true}"),
        "both set",
    );
    bad(&with("external_label: {a: b}"), "external_labels");
    bad(&with("timeuot: 5s"), "did you mean \"timeout\"");
    bad(&with("compression: snappy\ncompression_params: {level: 1}"), "snappy, which has no levels");
}

/// As in the Collector, which refuses a level only beside a `compression` that has none.
#[test]
fn snappy_has_no_levels() {
    let warnings = |text: &str| {
        let (_, findings) =
            from_str::<RemoteWriteConfig>(&format!("{ENDPOINT}{text}")).map_err(|problems| problems.errors).unwrap();
        findings.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(warnings("compression_params: {level: 3}")[0].contains("snappy, which has no levels; remove the setting"));
    assert!(warnings("compression: snappy\ncompression_params: {level: 0}").is_empty());
}
