use std::time::Duration;

use http::HeaderMap;
use nyquist_core::clock::SystemClock;
use nyquist_core::component::{Extension, ExtensionConfig, ExtensionContext, Host};
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::Telemetry;

use super::*;

fn extension_of(yaml: &str) -> Arc<dyn Extension> {
    let (config, _) = from_str::<BearerTokenConfig>(yaml).unwrap();
    let context = ExtensionContext {
        id: ComponentId::of("bearertokenauth"),
        telemetry: Telemetry::new(),
        clock: Arc::new(SystemClock::default()),
    };
    config.build(context).unwrap()
}

async fn start(extension: &dyn Extension) -> Result<(), StartError> {
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    let clock = Arc::new(SystemClock::default());
    extension.start(&Host { runtimes: Runtimes::current(), clock, telemetry: Telemetry::new(), fatal }).await
}

fn sent_by(extension: &dyn Extension) -> HeaderMap {
    let mut headers = HeaderMap::new();
    extension.client_auth().unwrap().apply(&mut headers);
    headers
}

#[test]
fn what_the_client_sends_the_server_takes() {
    for yaml in ["{token: secret}", "{token: secret, scheme: ''}", "{tokens: [secret, old], header: X-Key}"] {
        let extension = extension_of(yaml);
        let headers = sent_by(&*extension);
        extension.server_auth().unwrap().authenticate(&headers).unwrap();
    }
    assert_eq!(sent_by(&*extension_of("{token: secret}"))["authorization"], "Bearer secret");
    assert_eq!(sent_by(&*extension_of("{token: secret, scheme: ''}"))["authorization"], "secret");
}

#[test]
fn a_server_takes_any_of_its_tokens_and_no_other() {
    let server = extension_of("{tokens: [new, old]}").server_auth().unwrap();
    let with = |value: &'static str| {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_static(value));
        server.authenticate(&headers)
    };
    with("Bearer old").unwrap();
    with("Bearer new").unwrap();
    for wrong in ["Bearer ne", "Bearer newer", "new", "bearer", "Basic new"] {
        assert!(with(wrong).unwrap_err().contains("does not match"), "{wrong}");
    }
    assert!(server.authenticate(&HeaderMap::new()).unwrap_err().contains("missing or empty"));
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_is_read_again() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    let extension = extension_of(&format!("{{filename: '{}'}}", file.path().display()));
    start(&*extension).await.unwrap();
    assert_eq!(sent_by(&*extension)["authorization"], "Bearer first");
    std::fs::write(file.path(), "second-token\nthird\n").unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(sent_by(&*extension)["authorization"], "Bearer second-token");
    std::fs::write(file.path(), "").unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(sent_by(&*extension)["authorization"], "Bearer second-token", "an empty file changes nothing");
}

#[test]
fn exactly_one_source_of_tokens() {
    let errors = |yaml: &str| format!("{:?}", from_str::<BearerTokenConfig>(yaml).unwrap_err().errors);
    assert!(errors("{}").contains("set one of token, tokens and filename"));
    assert!(errors("{token: a, tokens: [b]}").contains("exclude each other"));
    assert!(errors("{filename: /no/such/file}").contains("No such file"));
    assert!(errors("{token: a, header: 'a b'}").contains("not the name of a header"));
}
