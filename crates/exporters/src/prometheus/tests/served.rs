//! How the page is served: over real connections, in the format that is asked for, as configured.

use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;

use super::*;

#[tokio::test]
async fn a_scraper_gets_it_over_http() {
    let running = exporter_with("");
    let address = running.listen().await;
    running.push(push(vec![x(1.0, T)])).await;
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<bytes::Bytes>>();
    let get = |path: &str| client.get(format!("http://{address}{path}").parse().unwrap());
    let response = get("/metrics").await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, running.page("").as_bytes());
    assert_eq!(get("/").await.unwrap().status(), 404);
    running.exporter.shutdown(Instant::now() + Duration::from_secs(1)).await;
    assert!(get("/metrics").await.is_err());
}

#[test]
fn the_format_with_the_highest_weight_wins() {
    use negotiate::Encoding::{OpenMetrics, Protobuf, Text};
    const PROTO: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
    // What Prometheus 3 sends, without and with native histograms.
    const TEXT_FIRST: &str = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
        application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
        text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    let proto_first = format!("{PROTO};q=0.7,{TEXT_FIRST}");
    let cases = [
        ("", (Text, false), (Text, false)),
        ("*/*", (Text, false), (Text, false)),
        ("image/png", (Text, false), (Text, false)),
        (TEXT_FIRST, (OpenMetrics, true), (Text, true)),
        (&proto_first, (Protobuf, true), (Protobuf, true)),
        (PROTO, (Protobuf, false), (Protobuf, false)),
        (
            "text/plain;version=0.0.4;q=0.3,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.2",
            (Text, false),
            (Text, false),
        ),
        ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", (Text, false), (Text, false)),
        ("application/vnd.google.protobuf;proto=other;encoding=delimited,*/*;q=0", (Text, false), (Text, false)),
        ("application/openmetrics-text;q=0,text/plain", (Text, false), (Text, false)),
        ("application/openmetrics-text; version=1.0.0; escaping=underscores", (OpenMetrics, false), (Text, false)),
    ];
    for (accept, with_open_metrics, without) in cases {
        for (is_enabled, expected) in [(true, with_open_metrics), (false, without)] {
            let format = negotiate::Format::negotiate(accept, is_enabled, false);
            assert_eq!((format.encoding, format.utf8_names), expected, "{accept:?}, enabled: {is_enabled}");
        }
    }
}

#[tokio::test]
async fn the_page_over_tls_with_the_headers_that_are_set() {
    use nyquist_core::net::client::{Chunks, Client as OurClient, ClientOptions, Connector};
    use nyquist_core::net::tls::{ClientTls, ClientTlsConfig};
    let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (directory.path().join("cert.pem"), directory.path().join("key.pem"));
    std::fs::write(&cert, own.cert.pem()).unwrap();
    std::fs::write(&key, own.signing_key.serialize_pem()).unwrap();
    let (cert, key) = (cert.display(), key.display());
    let running = exporter_with(&format!(
        "tls: {{cert_file: '{cert}', key_file: '{key}'}}\nresponse_headers: {{Strict-Transport-Security: max-age=1}}"
    ));
    let port = running.listen().await.port();
    running.push(push(vec![x(1.0, T)])).await;
    let trusting: ClientTlsConfig = serde_yaml::from_str(&format!("{{ca_file: '{cert}'}}")).unwrap();
    let tls = ClientTls::new(&trusting, &["http/1.1"]).unwrap();
    let client = OurClient::new(1, &Connector::new("localhost", port, Some(tls)), &ClientOptions::default());
    let request = http::Request::get(format!("https://localhost:{port}/metrics")).body(Chunks::new(&[], &[])).unwrap();
    let reply = client.send(request).await.unwrap();
    assert_eq!(reply.status, 200);
    assert_eq!(reply.headers["strict-transport-security"], "max-age=1");
}

#[test]
fn the_collectors_server_keys_are_known() {
    let text = "endpoint: ':1'\ntransport: tcp4\nresponse_headers: {X-A: b}\nread_header_timeout: 1s\n\
        write_timeout: 1s\nidle_timeout: 1s\nkeep_alives_enabled: false";
    let (config, warnings) = from_str::<PrometheusConfig>(text).map_err(|problems| problems.errors).unwrap();
    assert_eq!(config.headers()["x-a"], "b");
    assert!(warnings.warnings.is_empty());
    let text = "endpoint: ':1'\nread_timeout: 1s\nmax_request_body_size: 5\ncompression_algorithms: [gzip]\n\
        include_metadata: true";
    let (_, warnings) = from_str::<PrometheusConfig>(text).map_err(|problems| problems.errors).unwrap();
    assert_eq!(warnings.warnings.len(), 4, "accepted, and said to have no effect");
}

#[test]
fn mistakes_are_explained() {
    let cases = [
        ("namespace: a", "requires a non-empty \"endpoint\""),
        ("endpoint: localhost", "must be host:port"),
        ("endpoint: ':1'\ntranslation_strategy: x", "unknown translation_strategy"),
        ("endpoint: ':1'\nconst_labels: {a: ''}", "needs a value"),
        ("endpoint: ':1'\nmetric_expiration: 0s", "must be positive"),
        ("endpoint: ':1'\nmax_series: 0", "must be positive"),
        ("endpoint: ':1'\nmax_size: 0", "must be positive"),
        ("endpoint: ':1'\ntransport: udp", "use tcp, tcp4 or tcp6"),
        ("endpoint: ':1'\nresponse_headers: {'a b': c}", "not a header name"),
        ("endpoint: ':1'\nsend_timestamp: true", "send_timestamps"),
        ("endpoint: ':1'\ncors: {allowed_origins: ['*']}", "cors is not supported"),
        ("endpoint: ':1'\nmiddlewares: [{id: a}]", "middlewares is not supported"),
    ];
    for (text, expected) in cases {
        let Err(problems) = from_str::<PrometheusConfig>(text) else { panic!("accepted: {text}") };
        let errors: Vec<String> = problems.errors.iter().map(ToString::to_string).collect();
        assert!(errors.len() == 1 && errors[0].contains(expected), "{errors:#?}");
    }
    assert!(from_str::<PrometheusConfig>("endpoint: ':1'\nmiddlewares: []").is_ok(), "none are none");
}
