//! Who a client is, and that it is still known at the other end.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::export;
use crate::support::otlp_client::OK;
use crate::support::{Backend, Gateway, eventually, unix_nanos};

const UNAUTHENTICATED: i32 = 16;

struct Signer {
    id: &'static str,
    key: Ed25519KeyPair,
}

fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    fn new(id: &'static str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id, key: Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap() }
    }

    fn publish(&self, path: &Path) {
        let x = encode(self.key.public_key().as_ref());
        let key = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "kid": self.id, "use": "sig", "alg": "EdDSA"});
        fs::write(path, json!({"keys": [key]}).to_string()).unwrap();
    }

    /// The header that brings these claims.
    fn bearer(&self, claims: &Value) -> String {
        let header = json!({"alg": "EdDSA", "kid": self.id}).to_string();
        let signed = format!("{}.{}", encode(header.as_bytes()), encode(claims.to_string().as_bytes()));
        format!("Bearer {signed}.{}", encode(self.key.sign(signed.as_bytes()).as_ref()))
    }
}

fn claims(tenant: &str, seconds: i64) -> Value {
    let now = i64::try_from(unix_nanos() / 1_000_000_000).unwrap();
    json!({"iss": "https://id", "aud": "telemetry", "exp": now + seconds, "sub": format!("agent of {tenant}"), "tenant": tenant})
}

/// The header `name` of what arrived, with how many requests had it.
fn arrived(backend: &Backend, name: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for headers in backend.headers() {
        let value = headers.get(name).map_or("", |value| value.to_str().unwrap());
        *counts.entry(value.to_owned()).or_default() += 1;
    }
    counts
}

const TOKENS: &str = "
extensions:
  oidc: {providers: [{issuer_url: 'https://id', audience: telemetry, public_keys_file: @KEYS@}]}
  headers_setter: {headers: [{key: X-Scope-OrgID, from_attribute: claims.tenant}]}
receivers:
  otlp:
    protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@, auth: {authenticator: oidc}, include_metadata: true, metadata_keys: [x-none]}}
    client_limits: [{per: auth.claims.tenant, requests_per_second: 0.001, burst: 3000s}]
exporters: {otlp: {endpoint: 127.0.0.1:@BACKEND@, tls: {insecure: true}, auth: {authenticator: headers_setter}}}
service:
  extensions: [oidc, headers_setter]
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}
";

/// Guarantee: who brings a good token gets in, its claim becomes the tenant of what goes out, and its limit is
/// its tenant's; tokens that are bad in any way do not get in; keys are replaced while it runs.
#[test]
fn tokens_decide_who_comes_in_and_whose_data_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.json");
    let (signer, stranger, successor) = (Signer::new("one"), Signer::new("one"), Signer::new("two"));
    signer.publish(&keys);
    let backend = Backend::start();
    let config = TOKENS.replace("@KEYS@", &keys.display().to_string()).replace("@BACKEND@", &backend.port.to_string());
    let gateway = Gateway::start(&config);
    let port = gateway.grpc_port;
    let status = |number, token: &str| export(port, number, &[("authorization", token)]).status;

    assert_eq!(status(1, &signer.bearer(&claims("red", 60))), OK);
    assert_eq!(status(2, &signer.bearer(&claims("blue", 60))), OK);
    let mut elsewhere = claims("red", 60);
    elsewhere["aud"] = json!("somebody else");
    let bad = [
        signer.bearer(&claims("red", -3600)),
        stranger.bearer(&claims("red", 60)),
        successor.bearer(&claims("red", 60)),
        signer.bearer(&elsewhere),
        "Bearer a.b.c".to_owned(),
        "Basic eDp5".to_owned(),
    ];
    for (number, token) in (3..).zip(&bad) {
        assert_eq!(status(number, token), UNAUTHENTICATED, "{token}");
    }
    assert_eq!(export(port, 20, &[]).status, UNAUTHENTICATED, "none at all");
    assert_eq!(status(21, &signer.bearer(&claims("red", 60))), OK);
    assert_eq!(status(22, &signer.bearer(&claims("red", 61))), OK);
    assert_eq!(status(23, &signer.bearer(&claims("red", 62))), 8, "red has had its three");
    assert_eq!(status(24, &signer.bearer(&claims("blue", 60))), OK, "blue has not");

    successor.publish(&keys);
    eventually("the new key is in use", || match status(25, &successor.bearer(&claims("blue", 60))) {
        OK => Ok(()),
        other => Err(other),
    });
    assert_eq!(status(26, &signer.bearer(&claims("green", 60))), UNAUTHENTICATED, "the old one is not");
    eventually("all arrives under its tenant", || {
        let found = arrived(&backend, "x-scope-orgid");
        if found == BTreeMap::from([("red".to_owned(), 3), ("blue".to_owned(), 3)]) { Ok(()) } else { Err(found) }
    });
    assert_eq!(arrived(&backend, "authorization").len(), 1, "{:?}", arrived(&backend, "authorization"));
    assert!(!gateway.process.output().contains("Bearer"), "no token in the log");
}

const TENANTS: &str = "
extensions:
  headers_setter: {headers: [{key: X-Scope-OrgID, from_context: X-Scope-OrgID, default_value: nobody}]}
  file_storage: {directory: @DIR@/queue, create_directory: true}
receivers:
  otlp: {protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@, include_metadata: true, metadata_keys: [X-Scope-OrgID]}}}
exporters:
  otlp:
    endpoint: 127.0.0.1:@BACKEND@
    tls: {insecure: true}
    auth: {authenticator: headers_setter}
    retry_on_failure: {initial_interval: 100ms, max_interval: 200ms, max_elapsed_time: 0}
    sending_queue: {storage: file_storage, batch: {flush_timeout: 200ms, min_size: 1000, sizer: items}}
service:
  extensions: [headers_setter, file_storage]
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [otlp]}}
";

/// Guarantee: each tenant's data arrives under its own name, through batching, a queue on disk, an outage and a
/// kill; of the headers only those that are asked for are kept: no secret is on the disk, nor in the most talkative log.
#[test]
fn tenants_are_kept_apart_through_a_queue_on_disk() {
    check_tenants(TENANTS);
}

/// The same through a sampler whose buffer is on disk, with a receiver that keeps all headers: on disk are only
/// those that the exporter reads.
#[test]
fn tenants_are_kept_apart_through_a_sampler_on_disk() {
    let sampler = "
processors:
  tail_sampling:
    storage: file_storage
    decision_wait: 2s
    memory_limit_mib: 64
    rules: [{name: all, sampling_percentage: 100}]
exporters:
";
    let config = TENANTS
        .replace(", metadata_keys: [X-Scope-OrgID]", "")
        .replace("\nexporters:\n", sampler)
        .replace("receivers: [otlp], exporters", "receivers: [otlp], processors: [tail_sampling], exporters");
    assert!(config.contains("processors: [tail_sampling]") && config.contains("include_metadata: true}"));
    check_tenants(&config);
}

/// Guarantee: credentials of clients are not written to disk even if something behind asks for them: the
/// configuration is refused, with the place and the header.
#[test]
fn credentials_are_not_asked_for_behind_a_disk() {
    let config = TENANTS.replace("from_context: X-Scope-OrgID", "from_context: Authorization");
    let (code, output) = Gateway::fail_to_start(&config.replace("@BACKEND@", "4317"));
    assert_eq!(code, Some(1), "{output}");
    assert!(output.contains("exporters.otlp.sending_queue.storage"), "{output}");
    assert!(output.contains("\"authorization\" is needed behind it"), "{output}");
}

fn check_tenants(config: &str) {
    let storage = tempfile::tempdir().unwrap();
    let mut backend = Backend::stopped();
    let config =
        config.replace("@DIR@", &storage.path().display().to_string()).replace("@BACKEND@", &backend.port.to_string());
    let gateway = Gateway::start_with(&config, &[("NYQUIST_LOG", "trace")]);
    for number in 0..30 {
        let tenant = ["red", "blue", ""][number as usize % 3];
        let mut headers = vec![("authorization", "Bearer hunter2"), ("x-other", "hunter2")];
        if !tenant.is_empty() {
            headers.push(("x-scope-orgid", tenant));
        }
        assert_eq!(export(gateway.grpc_port, number, &headers).status, OK);
    }
    eventually("the log is talkative", || {
        let log = gateway.process.output();
        assert!(!log.contains("hunter2"), "{:?}", log.lines().find(|line| line.contains("hunter2")));
        if log.contains("TRACE") { Ok(()) } else { Err(log.len()) }
    });
    gateway.kill();
    for file in files(storage.path()) {
        let content = fs::read(&file).unwrap();
        assert!(!content.windows(7).any(|bytes| bytes == b"hunter2"), "{}", file.display());
    }
    let _gateway = Gateway::start(&config);
    backend.restart();
    eventually("all spans arrive", || match backend.spans().len() {
        60 => Ok(()),
        other => Err(other),
    });
    let tenant_of = |number: usize| ["red", "blue", "nobody"][number % 3];
    let owners: BTreeMap<Vec<u8>, &str> =
        (0..30).map(|number| (crate::support::otlp::trace_id(number as u64), tenant_of(number))).collect();
    for (request, headers) in backend.traces().iter().zip(backend.headers()) {
        let tenant = headers["x-scope-orgid"].to_str().unwrap();
        for (trace, _) in crate::support::otlp::span_keys(request) {
            assert_eq!(owners[&trace], tenant, "a tenant's data under another's name");
        }
        assert!(!headers.contains_key("authorization") && !headers.contains_key("x-other"));
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
