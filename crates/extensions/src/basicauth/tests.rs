use nyquist_core::clock::SystemClock;
use nyquist_core::config::{ComponentId, from_str};
use nyquist_core::runtime::Runtimes;
use nyquist_core::telemetry::Telemetry;

use super::*;

async fn started(yaml: &str) -> Arc<dyn Extension> {
    let (config, _) = from_str::<BasicAuthConfig>(yaml).unwrap();
    let clock = Arc::new(SystemClock::default());
    let id = ComponentId::of("basicauth");
    let extension = config.build(ExtensionContext { id, telemetry: Telemetry::new(), clock: clock.clone() }).unwrap();
    let (fatal, _) = tokio::sync::mpsc::unbounded_channel();
    let host = Host { runtimes: Runtimes::current(), clock, telemetry: Telemetry::new(), fatal };
    extension.start(&host).await.unwrap();
    extension
}

async fn try_login(server: &dyn Extension, user: &str, password: &str) -> Result<(), String> {
    let yaml = format!("{{client_auth: {{username: '{user}', password: '{password}'}}}}");
    let client = started(&yaml).await;
    let mut headers = HeaderMap::new();
    client.client_auth().unwrap().apply(&mut headers);
    server.server_auth().unwrap().authenticate(&headers)
}

#[tokio::test]
async fn every_kind_of_password_is_checked() {
    let hash = bcrypt::hash("b-word", 4).unwrap();
    // The digest is that of "s-word".
    let sha = BASE64_STANDARD.encode(<sha1::Sha1 as sha1::Digest>::digest(b"s-word"));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("# users\nbee:{hash}\nsha:{{SHA}}{sha}\nold:from-file\n")).unwrap();
    let path = file.path().display();
    let server =
        started(&format!("{{htpasswd: {{file: '{path}', inline: \"pia:p:word\\nold:from-inline\\n\"}}}}")).await;
    for (user, password) in [("bee", "b-word"), ("sha", "s-word"), ("pia", "p:word"), ("old", "from-inline")] {
        for _ in 0..2 {
            try_login(&*server, user, password).await.unwrap();
        }
        let wrong = try_login(&*server, user, "wrong").await;
        assert_eq!(wrong.unwrap_err(), "invalid credentials");
    }
    assert!(try_login(&*server, "nobody", "x").await.is_err());
    assert!(try_login(&*server, "old", "from-file").await.is_err());
    assert!(server.client_auth().is_none());
}

#[tokio::test]
async fn foreign_headers_are_refused() {
    let server = started("{htpasswd: {inline: 'a:b'}}").await.server_auth().unwrap();
    assert_eq!(server.authenticate(&HeaderMap::new()).unwrap_err(), "no basic auth provided");
    for value in ["", "Basic", "Basic !!!", "Bearer YTpi", "Basic YQ==", "Basic /w=="] {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_static(value));
        assert_eq!(server.authenticate(&headers).unwrap_err(), "invalid authorization format", "{value}");
    }
}

/// Guarantee: a password that bcrypt must look at is looked at away from the worker, once; others at once.
#[tokio::test]
async fn slow_passwords_do_not_keep_the_worker() {
    let hash = bcrypt::hash("right", 4).unwrap();
    let server = started(&format!("{{htpasswd: {{inline: \"bee:{hash}\\nplain:right\"}}}}")).await;
    let server = server.server_auth().unwrap();
    let headers = |user: &str, password: &str| {
        let mut headers = HeaderMap::new();
        let encoded = BASE64_STANDARD.encode(format!("{user}:{password}"));
        headers.insert(AUTHORIZATION, HeaderValue::try_from(format!("Basic {encoded}")).unwrap());
        headers
    };
    assert!(!server.is_slow(&headers("plain", "wrong")) && !server.is_slow(&headers("nobody", "right")));
    assert!(server.is_slow(&headers("bee", "right")) && server.is_slow(&headers("bee", "wrong")));
    assert_eq!(server.admit(&headers("bee", "wrong")).await.unwrap_err(), "invalid credentials");
    let identity = server.admit(&headers("bee", "right")).await.unwrap();
    assert_eq!((identity.get("username"), identity.get("subject")), (Some("bee"), Some("bee")));
    assert!(!server.is_slow(&headers("bee", "right")), "remembered");
    assert!(server.is_slow(&headers("bee", "wrong")));
}

#[test]
fn faults_are_named() {
    let errors = |yaml: &str| format!("{:?}", from_str::<BasicAuthConfig>(yaml).unwrap_err().errors);
    assert!(errors("{}").contains("set htpasswd (for a server) or client_auth"));
    assert!(errors("{htpasswd: {inline: 'a:b'}, client_auth: {username: a, password: b}}").contains("exclude"));
    assert!(errors("{htpasswd: {inline: \"a:b\\nnonsense\"}}").contains("line 2 is not user:password"));
    assert!(errors("{htpasswd: {inline: 'a:$apr1$x$y'}}").contains("bcrypt"));
    assert!(errors("{htpasswd: {file: /no/such}}").contains("No such file"));
    assert!(errors("{client_auth: {username: a}}").contains("the password is missing"));
}
