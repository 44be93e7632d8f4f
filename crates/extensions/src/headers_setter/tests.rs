//! Every action with every source, and what of them reaches the exporter's batching.

use nyquist_core::clock::SystemClock;
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::telemetry::Telemetry;

use super::*;

fn auth(yaml: &str) -> Arc<dyn ClientAuth> {
    let (config, _) = from_str::<HeadersSetterConfig>(yaml).unwrap();
    let id = ComponentId::of("headers_setter");
    let context = ExtensionContext { id, telemetry: Telemetry::new(), clock: Arc::new(SystemClock::default()) };
    config.build(context).unwrap().client_auth().unwrap()
}

fn errors(yaml: &str) -> String {
    from_str::<HeadersSetterConfig>(yaml).map_or_else(|faults| format!("{:?}", faults.errors), |_| String::new())
}

fn client(headers: &[(&str, &str)]) -> Metadata {
    Metadata { headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect() }
}

fn sent(auth: &dyn ClientAuth, before: &[(&'static str, &'static str)], client: &Metadata) -> Vec<(String, String)> {
    let mut headers = HeaderMap::new();
    for (name, value) in before {
        headers.insert(*name, HeaderValue::from_static(value));
    }
    auth.apply_for(&mut headers, client);
    let pair = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
    let mut sent: Vec<_> = headers.iter().map(pair).collect();
    sent.sort();
    sent
}

/// Scenario: a tenant's header comes in. Guarantee: it goes out, under the name and with the fallback that
/// the configuration says, and is not logged.
#[test]
fn the_tenant_of_the_client_is_passed_on() {
    let auth = auth("{headers: [{key: X-Scope-OrgID, from_context: X-Tenant, default_value: anonymous}]}");
    let of = |tenant| vec![("x-scope-orgid".to_owned(), str::to_owned(tenant))];
    assert_eq!(sent(&*auth, &[], &client(&[("x-tenant", "blue")])), of("blue"));
    assert_eq!(sent(&*auth, &[("x-scope-orgid", "old")], &client(&[("x-tenant", "blue")])), of("blue"));
    assert_eq!(sent(&*auth, &[], &client(&[("other", "blue")])), of("anonymous"));
    assert_eq!(sent(&*auth, &[], &client(&[("x-tenant", "a\nb")])), of("anonymous"), "no header can hold that");
    assert_eq!(auth.metadata_keys(), ["x-tenant"]);
    let mut headers = HeaderMap::new();
    auth.apply_for(&mut headers, &client(&[("x-tenant", "blue")]));
    assert!(headers["x-scope-orgid"].is_sensitive());
}

/// Guarantee: what the authenticator knows cannot be claimed by a header.
#[test]
fn attributes_of_the_authenticator_are_not_headers() {
    let auth = auth("{headers: [{key: x-user, from_attribute: subject}]}");
    let known = client(&[("auth.subject", "mallory"), ("subject", "mallory"), (":auth.subject", "alice")]);
    assert_eq!(sent(&*auth, &[], &known), [("x-user".to_owned(), "alice".to_owned())]);
    assert_eq!(sent(&*auth, &[], &client(&[("subject", "mallory")])), []);
    assert!(HeaderName::try_from(":auth.subject").is_err(), "no client can send it");
}

#[test]
fn actions_do_what_their_names_say() {
    for (action, without, with) in
        [("insert", Some("new"), Some("old")), ("update", None, Some("new")), ("upsert", Some("new"), Some("new"))]
    {
        let auth = auth(&format!("{{headers: [{{key: a, action: {action}, value: ' new '}}]}}"));
        let expected = |value: Option<&str>| value.map(|value| ("a".to_owned(), value.to_owned())).into_iter();
        assert_eq!(sent(&*auth, &[], &client(&[])), expected(without).collect::<Vec<_>>(), "{action}");
        assert_eq!(sent(&*auth, &[("a", "old")], &client(&[])), expected(with).collect::<Vec<_>>(), "{action}");
        assert_eq!(auth.metadata_keys(), Vec::<String>::new());
    }
    let delete = auth("{headers: [{key: a, action: delete}]}");
    assert_eq!(sent(&*delete, &[("a", "old")], &client(&[])), []);
}

#[test]
fn faults_are_named() {
    for (yaml, message) in [
        ("{}", "missing headers configuration"),
        ("{headers: [{value: a}]}", "missing header name"),
        ("{headers: [{key: 'a b', value: a}]}", "not the name of a header"),
        ("{headers: [{key: a}]}", "missing header source"),
        ("{headers: [{key: a, value: b, from_context: c}]}", "must be one of"),
        ("{headers: [{key: a, value: b, default_value: c}]}", "goes with from_context"),
        ("{headers: [{key: a, action: delete, value: b}]}", "delete takes no value"),
        ("{headers: [{key: a, action: add, value: b}]}", "add"),
        ("{headers: [{key: a, value: \"b\\nc\"}]}", "characters"),
        ("{headers: [{key: a, from_context: 'b c'}]}", "not the name of a header"),
    ] {
        let found = errors(yaml);
        assert!(found.contains(message), "{yaml}: {found}");
    }
}
