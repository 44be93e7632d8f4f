//! Configurations that work, and what is said of those that do not.

use nyquist_core::config::from_str;

use crate::prometheus::PrometheusConfig;

fn good(text: &str) -> PrometheusConfig {
    from_str(text).unwrap_or_else(|findings| panic!("{text}: {findings:?}")).0
}

/// The errors of a configuration, as one text.
fn errors(text: &str) -> String {
    let findings = from_str::<PrometheusConfig>(text).expect_err("a bad configuration");
    findings.errors.iter().map(|problem| format!("{problem}\n")).collect()
}

/// The errors of a scrape configuration with `keys` beside its name.
fn scrape_errors(keys: &str) -> String {
    errors(&format!("config:\n  scrape_configs:\n    - job_name: shop\n      {keys}\n"))
}

#[test]
fn every_key_that_is_built_is_read() {
    let config = good(
        r#"
trim_metric_suffixes: true
report_extra_scrape_metrics: true
config:
  global:
    scrape_interval: 1d
    scrape_timeout: 5s
    scrape_protocols: [OpenMetricsText1.0.0, PrometheusText0.0.4]
    evaluation_interval: 30s
    external_labels: {region: eu}
    body_size_limit: 10MB
    sample_limit: 1
    target_limit: 2
    label_limit: 3
    label_name_length_limit: 4
    label_value_length_limit: 5
    keep_dropped_targets: 1
  scrape_configs:
    - job_name: shop
      scrape_interval: 15s
      scrape_timeout: 1500ms
      scrape_protocols: [PrometheusProto, PrometheusText1.0.0]
      fallback_scrape_protocol: OpenMetricsText0.0.1
      metrics_path: /m
      scheme: https
      params: {a: [b]}
      honor_labels: true
      honor_timestamps: false
      track_timestamps_staleness: true
      static_configs: [{targets: ["a:1"], labels: {zone: x}}]
      file_sd_configs: [{files: [targets/*.yaml], refresh_interval: 1m}]
      relabel_configs: [{source_labels: [a], separator: "-", regex: "x(.*)", target_label: b, replacement: $1, action: replace}]
      metric_relabel_configs: [{source_labels: [a], modulus: 8, target_label: b, action: hashmod}]
      basic_auth: {username: u, password_file: /dev/null}
      tls_config: {ca_file: /dev/null, server_name: s, insecure_skip_verify: true, min_version: TLS12}
      http_headers: {x-a: {values: [b], secrets: [c]}}
      follow_redirects: false
      enable_http2: false
      enable_compression: false
      body_size_limit: 1KB
      sample_limit: 1
      target_limit: 2
      label_limit: 3
      label_name_length_limit: 4
      label_value_length_limit: 5
      keep_dropped_targets: 1
      metric_name_validation_scheme: utf8
      metric_name_escaping_scheme: underscores
      scrape_native_histograms: true
      always_scrape_classic_histograms: true
    - job_name: token
      authorization: {type: Token, credentials: x}
      sample_limit: null
    - job_name: old
      bearer_token_file: /dev/null
"#,
    );
    assert_eq!(config.config.global.scrape_interval.to_string(), "1d");
    let shop = &config.config.scrape_configs[0];
    assert_eq!(shop.scrape_timeout.expect("set").to_string(), "1s500ms");
    assert_eq!(shop.body_size_limit.expect("set").0, 1024);
    assert_eq!(config.config.global.body_size_limit.0, 10 << 20);
    assert_eq!(config.config.scrape_configs[2].timeout(&config.config.global).to_string(), "5s");
}

/// What is accepted for Prometheus' sake and does nothing is told, where it is written; nothing is said of a file without it.
#[test]
fn what_has_no_effect_is_told() {
    let warnings = |text: &str| -> String {
        let (_, findings) = from_str::<PrometheusConfig>(text).expect("a good configuration");
        findings.warnings.iter().map(|problem| format!("{problem}\n")).collect()
    };
    let all = warnings(
        "config:
  global: {keep_dropped_targets: 1, evaluation_interval: 1m}
  scrape_configs:
    - job_name: shop
      enable_http2: true
      keep_dropped_targets: 2
      file_sd_configs: [{files: [a.yaml], refresh_interval: 5m}]
",
    );
    for (path, count) in
        [("keep_dropped_targets", 2), ("evaluation_interval", 1), ("enable_http2", 1), ("refresh_interval", 1)]
    {
        let lines = all.lines().filter(|line| line.ends_with(&format!(".{path})"))).count();
        assert_eq!(lines, count, "{path}: {all}");
    }
    assert_eq!(warnings("config: {scrape_configs: [{job_name: a, file_sd_configs: [{files: [a.yaml]}]}]}"), "");
}

#[test]
fn what_others_say_gives_way() {
    let config = good(
        "config: {global: {scrape_timeout: 30s}, scrape_configs: [{job_name: a, scrape_interval: 15s, \
         relabel_configs: [{regex: , target_label: a}]}]}",
    );
    let shop = &config.config.scrape_configs[0];
    assert_eq!(shop.timeout(&config.config.global).to_string(), "15s");
    assert_eq!(shop.relabel_configs[0].regex.regex().as_str(), "^(?s:(.*))$");
}

#[test]
fn what_is_not_built_is_refused_by_name() {
    let cases = [
        ("kubernetes_sd_configs: [{role: pod}]", "kubernetes_sd_configs is not supported", "file_sd_configs"),
        ("consul_sd_configs: []", "consul_sd_configs is not supported", "static_configs"),
        ("oauth2: {client_id: x}", "oauth2 is not supported", "authorization"),
        ("proxy_url: http://p", "proxy_url is not supported", "directly"),
        ("proxy_from_environment: true", "proxy_from_environment is not supported", "directly"),
        (
            "convert_classic_histograms_to_nhcb: true",
            "convert_classic_histograms_to_nhcb is not supported",
            "remove it",
        ),
        ("http_headers: {a: {files: [b]}}", "files is not supported", "${file:...}"),
    ];
    for (keys, message, advice) in cases {
        let errors = scrape_errors(keys);
        assert!(errors.contains(message) && errors.contains(advice), "{keys}: {errors}");
    }
    for (text, message) in [
        ("config: {rule_files: [a], scrape_configs: [{job_name: a}]}", "rule_files is not supported"),
        ("config: {remote_write: [], scrape_configs: [{job_name: a}]}", "remote_write is not supported"),
        ("config: {scrape_config_files: [a], scrape_configs: [{job_name: a}]}", "scrape_config_files is not supported"),
        ("target_allocator: {}\nconfig: {scrape_configs: [{job_name: a}]}", "target_allocator is not supported"),
        (
            "use_start_time_metric: true\nconfig: {scrape_configs: [{job_name: a}]}",
            "use_start_time_metric is not supported",
        ),
    ] {
        let errors = errors(text);
        assert!(errors.contains(message), "{text}: {errors}");
    }
}

#[test]
fn mistakes_are_explained() {
    let cases = [
        ("metric_path: /x", "unknown key \"metric_path\"", "metrics_path"),
        ("scrape_interval: 15", "missing unit in duration 15", "15s"),
        ("scrape_interval: fast", "invalid duration \"fast\"", "1d"),
        ("scrape_interval: 0s", "must be longer than 0", ""),
        ("scrape_timeout: 2m", "the scrape_timeout 2m is longer than the scrape_interval 1m", ""),
        ("scheme: ftp", "unknown scheme \"ftp\"", "http and https"),
        ("static_configs: [{targets: ['http://a:1/m']}]", "\"http://a:1/m\" is not a valid hostname", "host:port"),
        ("static_configs: [{target: ['a:1']}]", "unknown key \"target\"", "targets"),
        ("file_sd_configs: [{files: [a.txt]}]", "\"a.txt\" must end with", ".yaml"),
        ("file_sd_configs: [{files: ['*/a.yml']}]", "one * may stand in the last part", ""),
        ("relabel_configs: [{action: replcae}]", "unknown value \"replcae\"", "replace"),
        ("relabel_configs: [{regex: 'a('}]", "invalid regular expression \"a(\"", "unclosed group"),
        ("relabel_configs: [{source_labels: [a]}]", "the action replace needs a target_label", ""),
        ("relabel_configs: [{action: hashmod, target_label: a}]", "needs a modulus", ""),
        ("relabel_configs: [{action: labeldrop, source_labels: [a]}]", "takes no source_labels: only regex", ""),
        ("relabel_configs: [{action: keepequal, target_label: a, regex: b}]", "takes no regex", ""),
        ("basic_auth: {username: a}\n      bearer_token: b", "at most one of basic_auth, bearer_token", ""),
        ("authorization: {type: Basic}", "use the basic_auth block", ""),
        ("tls_config: {cert_file: a}", "the client's certificate is set alone", "key_file"),
        ("tls_config: {min_version: '1.2'}", "unknown TLS version \"1.2\"", "TLS12"),
        ("http_headers: {Host: {values: [a]}}", "the header Host cannot be set here", ""),
        ("body_size_limit: lots", "invalid size \"lots\"", "10MB"),
        (
            "scrape_native_histograms: true\n      scrape_protocols: [PrometheusText0.0.4]",
            "only PrometheusProto has native histograms",
            "",
        ),
        ("scrape_protocols: []", "name at least one", ""),
        ("fallback_scrape_protocol: text", "unknown value \"text\"", "PrometheusText0.0.4"),
    ];
    for (keys, message, advice) in cases {
        let errors = scrape_errors(keys);
        assert!(errors.contains(message) && errors.contains(advice), "{keys}: {errors}");
    }
    let global = errors("config: {global: {scrape_timeout: 2m}, scrape_configs: [{job_name: a}]}");
    assert!(global.contains("the scrape_timeout 2m is longer than the scrape_interval 1m"), "{global}");
    assert!(errors("config: {}").contains("there is nothing to scrape"));
    assert!(errors("config: {scrape_configs: [{}]}").contains("job_name is missing"));
    let twice = errors("config: {scrape_configs: [{job_name: a}, {job_name: a}]}");
    assert!(twice.contains("two scrape configurations with the job_name \"a\""), "{twice}");
}
