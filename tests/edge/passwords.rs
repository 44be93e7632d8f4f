//! Passwords and tokens: who gets in, and what a new file changes.

use std::fs;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Request;

use crate::support::otlp_client::OK;
use crate::support::{Backend, Gateway, eventually, http};
use crate::{export, message};

const UNAUTHENTICATED: i32 = 16;

const CONFIG: &str = "
extensions:
  basicauth: {htpasswd: {file: @FILES@/users}}
  bearertokenauth: {filename: @FILES@/tokens}
  headers_setter: {headers: [{key: X-User, from_attribute: username}, {key: X-Subject, from_attribute: subject}]}
receivers:
  otlp/basic:
    protocols:
      grpc: {endpoint: 127.0.0.1:@GRPC@, auth: {authenticator: basicauth}, include_metadata: true, metadata_keys: [x-none]}
  otlp/bearer:
    protocols:
      http: {endpoint: 127.0.0.1:@HTTP@, auth: {authenticator: bearertokenauth}}
exporters: {otlp: {endpoint: 127.0.0.1:@BACKEND@, tls: {insecure: true}, auth: {authenticator: headers_setter}}}
service:
  extensions: [basicauth, bearertokenauth, headers_setter]
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]}}
  pipelines: {traces: {receivers: [otlp/basic, otlp/bearer], exporters: [otlp]}}
";

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// The status of a trace that is sent over HTTP with this `Authorization`, if there is one.
fn post(port: u16, number: u64, authorization: Option<&str>) -> u16 {
    let request = Request::post("/v1/traces").header("host", "a").header("content-type", "application/x-protobuf");
    let request = authorization.into_iter().fold(request, |request, value| request.header("authorization", value));
    let body = http_body_util::Full::new(message(number).into());
    http::send(port, request.body(body).unwrap()).unwrap().status
}

/// Guarantee: the right password gets in (bcrypt and plain), and who it was is known at the other end; a wrong one, a
/// wrong user and none do not; the same for tokens, whose file is read again when it changes, and stays in use as it
/// was when it becomes unreadable. Nothing of who did not get in arrives or is counted as accepted; no secret is in
/// the log.
#[test]
fn passwords_and_tokens_decide_who_comes_in() {
    let folder = tempfile::tempdir().unwrap();
    // bcrypt of "b-word" at cost 4.
    let users = "bee:$2b$04$abcdefghijklmnopqrstuuywPt0ZdJE6DtGwYTCdJHUdhy3hY.8pq\npia:p-word\n";
    fs::write(folder.path().join("users"), users).unwrap();
    fs::write(folder.path().join("tokens"), "first\nsecond\n").unwrap();
    let backend = Backend::start();
    let config =
        CONFIG.replace("@FILES@", &folder.path().display().to_string()).replace("@BACKEND@", &backend.port.to_string());
    let gateway = Gateway::start(&config);

    let login = |number, user: &str, password: &str| {
        export(gateway.grpc_port, number, &[("authorization", &basic(user, password))]).status
    };
    assert_eq!(login(1, "bee", "b-word"), OK);
    assert_eq!(login(2, "bee", "b-word"), OK, "from memory");
    assert_eq!(login(3, "pia", "p-word"), OK);
    for (user, password) in [("bee", "wrong"), ("pia", "b-word"), ("nobody", "p-word"), ("", "")] {
        assert_eq!(login(4, user, password), UNAUTHENTICATED, "{user}:{password}");
    }
    let none = export(gateway.grpc_port, 4, &[]);
    assert_eq!((none.status, none.message.replace("%20", " ").as_str()), (UNAUTHENTICATED, "no basic auth provided"));
    let other = export(gateway.grpc_port, 4, &[("authorization", "Bearer first")]);
    assert_eq!(other.status, UNAUTHENTICATED);

    let token = |number, token: &str| post(gateway.http_port, number, Some(&format!("Bearer {token}")));
    assert_eq!((token(5, "first"), token(6, "second")), (200, 200));
    assert_eq!((token(7, "third"), token(7, "")), (401, 401));
    assert_eq!(post(gateway.http_port, 7, None), 401);
    assert_eq!(post(gateway.http_port, 7, Some("first")), 401, "without its scheme");
    fs::write(folder.path().join("tokens"), "third\n").unwrap();
    eventually("the new token is in use", || match token(7, "third") {
        200 => Ok(()),
        other => Err(other),
    });
    assert_eq!(token(8, "first"), 401, "the old one is not");
    fs::remove_file(folder.path().join("tokens")).unwrap();
    eventually("the fault is told", || {
        assert_eq!(token(9, "third"), 200, "what was read last stays in use");
        let output = gateway.process.output();
        if output.contains("cannot reload bearer tokens") { Ok(()) } else { Err(output) }
    });

    eventually("all of it arrives, and nothing else", || {
        let traces: std::collections::BTreeSet<_> = backend.spans().into_keys().map(|(trace, _)| trace).collect();
        if traces.len() == 7 { Ok(()) } else { Err(traces.len()) }
    });
    let users: Vec<_> = backend
        .headers()
        .iter()
        .filter_map(|headers| Some((headers.get("x-user")?.clone(), headers.get("x-subject")?.clone())))
        .collect();
    assert_eq!(users.len(), 3, "who came with a token has no name");
    for (name, count) in [("bee", 2), ("pia", 1)] {
        assert_eq!(users.iter().filter(|(user, subject)| user == name && subject == name).count(), count, "{users:?}");
    }
    let accepted = gateway.metrics().sum("otelcol_receiver_accepted_spans", &[("receiver", "otlp/basic")]);
    assert_eq!(accepted, 6.0);
    let output = gateway.process.output();
    for secret in ["b-word", "p-word", "Bearer", "second"] {
        assert!(!output.contains(secret), "{secret} is in the log: {output}");
    }
}
