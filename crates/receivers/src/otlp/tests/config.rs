//! Configurations that work, and what is said of those that do not.

use nyquist_core::config::{Diagnostics, from_str};

use super::*;

fn parse(text: &str) -> Result<(OtlpConfig, Diagnostics), Diagnostics> {
    from_str(text)
}

fn good(text: &str) -> OtlpConfig {
    parse(text).unwrap_or_else(|findings| panic!("{text}: {findings:?}")).0
}

/// The errors of a configuration, as one text.
fn errors(text: &str) -> String {
    let findings = parse(text).expect_err("a bad configuration");
    findings.errors.iter().map(|problem| format!("{problem}\n")).collect()
}

#[test]
fn a_key_with_nothing_after_it_is_the_protocol_with_its_defaults() {
    let config = good("protocols:\n  grpc:\n");
    assert_eq!(config.grpc(), Some(&GrpcConfig::default()));
    assert_eq!(config.http(), None);
    let config = good("protocols:\n  grpc:\n    enabled: false\n  http:\n");
    assert_eq!(config.grpc(), None);
    assert_eq!(config.http().map(|http| http.endpoint.as_str()), Some("localhost:4318"));
}

#[test]
fn one_protocol_is_needed() {
    for text in ["", "protocols:", "protocols: {}", "protocols: {grpc: {enabled: false}}"] {
        assert!(errors(text).contains("must specify at least one protocol when using the OTLP receiver"), "{text}");
    }
}

#[test]
fn every_key_of_the_collector_is_read() {
    let config = good(
        r#"
protocols:
  grpc:
    endpoint: 0.0.0.0:4317
    transport: tcp4
    max_recv_msg_size_mib: 16
    max_concurrent_streams: 100
    read_buffer_size: 1024
    write_buffer_size: 1024
    include_metadata: true
    auth: {authenticator: basicauth}
    middlewares: []
    keepalive:
      server_parameters:
        max_connection_idle: 11s
        max_connection_age: 12s
        max_connection_age_grace: 13s
        time: 30s
        timeout: 5s
      enforcement_policy: {min_time: 10s, permit_without_stream: true}
  http:
    endpoint: 0.0.0.0:4318
    max_request_body_size: 1000
    traces_url_path: traces
    metrics_url_path: /metrics
    logs_url_path: /logs
    include_metadata: true
    auth: {authenticator: basicauth, request_params: [token]}
    cors: {allowed_origins: ["https://*.example.com"], allowed_headers: [X-A], exposed_headers: [X-B], max_age: 7200}
    response_headers: {x-served-by: nyquist}
    compression_algorithms: ["", gzip, zstd]
    read_timeout: 10s
    read_header_timeout: 5s
    write_timeout: 10s
    idle_timeout: 1m
    keep_alives_enabled: false
max_in_flight: 256MiB
max_connections: 100
"#,
    );
    let (grpc, http) = (config.grpc().expect("on"), config.http().expect("on"));
    assert_eq!(grpc.max_message(), 16 << 20);
    assert_eq!((http.max_body(), http.paths()[0].as_str()), (1000, "/traces"));
}

#[test]
fn defaults_are_the_collectors() {
    assert_eq!(GrpcConfig::default().max_message(), 4 << 20);
    assert_eq!(HttpConfig::default().max_body(), 20 << 20);
    assert_eq!(HttpConfig::default().paths(), ["/v1/traces", "/v1/metrics", "/v1/logs"]);
}

#[test]
fn bad_values_are_named_with_what_to_do() {
    let cases = [
        ("grpc: {foo: 1}", "foo"),
        ("grpc: {max_recv_msg_size_mib: -1}", "invalid max_recv_msg_size_mib value, must be between 1 and 4095"),
        ("grpc: {read_buffer_size: -1}", "invalid read_buffer_size value: -1"),
        ("grpc: {endpoint: localhost}", "is not host:port"),
        ("grpc: {endpoint: 'localhost:99999'}", "is not host:port"),
        ("grpc: {transport: unix}", "is not the path of a socket"),
        ("grpc: {transport: npipe}", "use tcp or unix"),
        ("grpc: {transport: udp}", "there are tcp, tcp4, tcp6 and unix"),
        ("grpc: {auth: {}}", "name the extension"),
        ("grpc: {middlewares: [{id: a}]}", "no middleware extensions"),
        ("grpc: {tls: {}}", "cert_file"),
        ("http: {max_request_body_size: -1}", "invalid max_request_body_size value: -1"),
        ("http: {traces_url_path: /v1/logs}", "is the path of two signals"),
        ("http: {traces_url_path: 'a b'}", "is not a path"),
        ("http: {traces_url_path: '/a?b'}", "is not a path"),
        ("http: {compression_algorithms: [br]}", "unknown algorithm \"br\""),
        ("http: {response_headers: {'a b': c}}", "is not a header name"),
        ("http: {cors: {allowed_origins: ['https://*.*.a']}}", "more than one *"),
    ];
    for (section, expected) in cases {
        let found = errors(&format!("protocols: {{{section}}}"));
        assert!(found.contains(expected), "{section}: {found}");
    }
    assert!(errors("protocols: {grpc: }\nmax_in_flight: 0").contains("nothing could come in"));
    assert!(errors("protocols: {grpc: }\nmax_connections: 0").contains("nobody could connect"));
}

/// Guarantee: what is accepted and does nothing says so.
#[test]
fn what_has_no_effect_deserves_a_word() {
    for (section, path) in [
        ("http: {cors: {allowed_headers: [X-A]}}", "http.cors"),
        ("grpc: {read_buffer_size: 524288}", "grpc.read_buffer_size"),
        ("grpc: {write_buffer_size: 1}", "grpc.write_buffer_size"),
        ("grpc: {keepalive: {enforcement_policy: {min_time: 10s}}}", "grpc.keepalive.enforcement_policy"),
        ("grpc: {metadata_keys: [x-a]}", "grpc.metadata_keys"),
    ] {
        let (_, findings) = parse(&format!("protocols: {{{section}}}")).expect("it starts");
        let found: Vec<_> =
            findings.warnings.iter().map(|problem| (problem.path.clone(), problem.to_string())).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].0 == format!("protocols.{path}") && found[0].1.contains("no effect"), "{found:?}");
    }
    let (_, findings) = parse("protocols: {grpc: {keepalive: {server_parameters: {time: 1m}}}}").expect("it starts");
    assert!(findings.warnings.is_empty());
}

#[test]
fn an_authenticator_must_be_there() {
    let config = good("protocols: {grpc: {auth: {authenticator: nobody}}}");
    let context = ReceiverContext {
        id: ComponentId::of("otlp"),
        outputs: Outputs::default(),
        extensions: &Extensions::default(),
        telemetry: Telemetry::new(),
        clock: Arc::new(SystemClock::default()),
    };
    let error = OtlpReceiver::new(&config, &context).err().expect("refused");
    assert_eq!(error.path, ["protocols", "grpc", "auth", "authenticator"]);
}

/// Guarantee: limits that limit nothing, or nobody, are refused with what to do.
#[test]
fn client_limits_say_what_is_wrong() {
    let with = |limit: &str| errors(&format!("protocols: {{grpc: }}\nclient_limits: [{{{limit}}}]"));
    let cases = [
        ("per: tenant, requests_per_second: 1", "\"tenant\" is not what makes a client"),
        ("per: client.address", "limits nothing: set requests_per_second"),
        ("per: client.address, requests_per_second: 0", "must be a number above 0"),
        ("per: client.address, bytes_per_second: 0", "nothing could come in"),
        ("per: client.address, max_in_flight: 1MiB, max_clients: 0", "must be at least 1"),
        ("per: client.address, max_in_flight: 1MiB, burst: 0s", "must be more than 0s"),
        ("per: auth.subject, items_per_second: 5", "needs auth.authenticator in each protocol"),
        ("per: metadata., items_per_second: 5", "is not what makes a client"),
    ];
    for (limit, expected) in cases {
        let found = with(limit);
        assert!(found.contains(expected), "{limit}: {found}");
    }
    let good = "{per: metadata.X-Scope-OrgID, items_per_second: 5e4, bytes_per_second: 10MiB}";
    assert!(parse(&format!("protocols: {{grpc: }}\nclient_limits: [{good}]")).is_ok());
}

/// Guarantee: what is kept of a client's headers is what was asked for, and secrets only by their name.
#[test]
fn secrets_are_not_kept_with_the_data() {
    use super::client::Keep;
    use nyquist_core::component::Identity;
    let headers: HeaderMap = [("authorization", "Bearer x"), ("cookie", "y"), ("x-scope-orgid", "red"), ("a", "b")]
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .into_iter()
        .collect();
    let kept = |keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let keep = Keep::new(true, &keys, None).expect("it is on");
        let mut names: Vec<_> =
            keep.metadata(&headers, &Identity::default()).headers.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names
    };
    assert_eq!(kept(&[]), ["a", "x-scope-orgid"]);
    assert_eq!(kept(&["X-Scope-OrgID"]), ["x-scope-orgid"]);
    assert_eq!(kept(&["Authorization"]), ["authorization"]);
    assert!(Keep::new(false, &["a".to_owned()], None).is_none());
}
