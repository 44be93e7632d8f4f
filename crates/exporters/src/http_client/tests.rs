//! The settings of HTTP clients, and the cookies of one endpoint.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue, SET_COOKIE};
use nyquist_core::clock::ManualClock;
use nyquist_core::component::Extensions;
use nyquist_core::config::{Diagnostics, from_str};
use nyquist_core::net::client::HttpEndpoint;

use super::cookies::Jar;
use super::*;

fn read(text: &str) -> Result<(HttpClientConfig, Diagnostics), String> {
    from_str::<HttpClientConfig>(&format!("{{{text}}}")).map_err(|problems| problems.to_string())
}

fn good(text: &str) -> HttpClientConfig {
    read(text).unwrap().0
}

#[track_caller]
fn bad(text: &str, expected: &str) {
    let Err(problems) = read(text) else { panic!("accepted: {text}") };
    assert!(problems.contains(expected), "{problems}");
}

/// All keys of the Collector's `confighttp.ClientConfig` (v0.161), none of which is unknown.
#[test]
fn the_collectors_keys_are_known() {
    let config = good(
        "endpoint: 'https://b:1/', proxy_url: 'http://p:2', tls: {insecure_skip_verify: true}, read_buffer_size: 1, \
         write_buffer_size: 2, timeout: 3s, headers: {a: b}, auth: {authenticator: basicauth}, compression: zstd, \
         compression_params: {level: 3}, max_conns_per_host: 4, http2_read_idle_timeout: 5s, http2_ping_timeout: 6s, \
         cookies: {enabled: true}, force_attempt_http2: false, middlewares: [], idle_conn_timeout: 7s, max_idle_conns: 8, \
         max_idle_conns_per_host: 9, disable_keep_alives: false",
    );
    assert_eq!(config.compression_params.chosen(), Some(3));
    assert!(config.cookies.is_on() && !good("cookies: {enabled: false}").cookies.is_on() && !good("").cookies.is_on());
    let keepalive = "keepalive: {enabled: true, idle_conn_timeout: 7s, max_idle_conns: 8, max_idle_conns_per_host: 9}";
    let options = good(keepalive).options();
    assert_eq!((options.max_idle, options.idle_timeout), (9, Some(Duration::from_secs(7))));
    let (_, findings) = read("read_buffer_size: 1, write_buffer_size: 2").unwrap();
    let paths: Vec<_> = findings.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(paths, ["read_buffer_size", "write_buffer_size"], "what does nothing says so");
    // 0 is the Collector's word for the default, and -1 Go's.
    assert_eq!([0, -1].map(|level| CompressionParams { level }.chosen()), [None, None]);
}

#[test]
fn connections_are_kept_as_configured() {
    let keys = "max_idle_conns: 7, idle_conn_timeout: 0s, http2_read_idle_timeout: 3s, http2_ping_timeout: 1s";
    let config = good(&format!("{keys}, force_attempt_http2: false"));
    let options = config.options();
    assert_eq!((options.max_idle, options.idle_timeout), (7, None));
    assert_eq!((options.ping_every, options.ping_timeout), (Some(Duration::from_secs(3)), Duration::from_secs(1)));
    assert_eq!(config.alpn(), ["http/1.1"]);
    let options = good("max_idle_conns_per_host: 3").options();
    assert_eq!((options.max_idle, options.ping_every), (3, None));
    assert_eq!(good("").alpn(), ["h2", "http/1.1"]);
    assert_eq!((good("").options().max_idle, good("max_idle_conns: 0").options().max_idle), (100, usize::MAX));
    for closing in ["disable_keep_alives: true", "keepalive: {enabled: false}"] {
        let closing = good(closing);
        assert_eq!((closing.options().max_idle, closing.alpn()), (0, &["http/1.1"][..]));
    }
    assert_eq!(good("keepalive:").options().max_idle, 100);
}

#[test]
fn mistakes_are_explained() {
    bad("keepalive: {max_idle_conns: 1}, idle_conn_timeout: 1s", "keepalive is set, too, and says the same");
    bad("keepalive: {max_idle: 1}", "did you mean \"max_idle_conns\"");
    bad("cookies: {enable: true}", "did you mean \"enabled\"");
    bad("middlewares: [{}]", "needs the id of an extension");
    bad("middlewares: [limit]", "found the text");
    bad("proxy_url: https://user:secret@proxy:3128", "only http:// proxies are supported");
    bad("compression_params: {levl: 1}", "did you mean \"level\"");
}

#[test]
fn no_extension_is_a_middleware() {
    let error = good("middlewares: [{id: limit}]").extensions(&["http"], &Extensions::default()).err().unwrap();
    assert_eq!(error.path, ["http", "middlewares", "0", "id"]);
    assert!(error.message.contains("extension \"limit\" is no middleware"), "{error}");
    assert!(good("middlewares: []").extensions(&[], &Extensions::default()).is_ok_and(|auth| auth.is_none()));
}

struct Backend {
    jar: Jar,
    clock: Arc<ManualClock>,
}

impl Backend {
    fn at(url: &str) -> Self {
        let clock = ManualClock::new(1_700_000_000_000_000_000);
        Self { jar: Jar::new(&HttpEndpoint::parse(url).unwrap(), clock.clone()), clock }
    }

    fn sets(&self, cookies: &[&str]) {
        let mut headers = HeaderMap::new();
        for cookie in cookies {
            headers.append(SET_COOKIE, HeaderValue::from_bytes(cookie.as_bytes()).unwrap());
        }
        self.jar.take(&headers);
    }

    fn gets(&self) -> String {
        let mut headers = HeaderMap::new();
        self.jar.give(&mut headers);
        headers.get(COOKIE).map_or("", |value| value.to_str().unwrap()).to_owned()
    }
}

/// Which cookies come back: one set, at a URL, and the header of the next request.
#[test]
fn cookies_come_back_to_whom_they_belong() {
    const URL: &str = "http://a.example.com:4318/v1/traces";
    let cases = [
        (URL, "a=1", "a=1"),
        (URL, "a=1; HttpOnly; SameSite=Lax; Unheard=of", "a=1"),
        (URL, "a=\"1 2\"", "a=\"1 2\""),
        (URL, "a=", "a="),
        (URL, "nonsense", ""),
        (URL, "=1", ""),
        (URL, "a=1; Secure", ""),
        ("https://a.example.com", "a=1; Secure", "a=1"),
        (URL, "a=1; Domain=example.com", "a=1"),
        (URL, "a=1; Domain=.A.Example.com", "a=1"),
        (URL, "a=1; Domain=ample.com", ""),
        (URL, "a=1; Domain=other.com", ""),
        (URL, "a=1; Domain=b.a.example.com", ""),
        ("http://10.0.0.1", "a=1; Domain=0.0.1", ""),
        ("http://[::1]:80", "a=1; Domain=::1", "a=1"),
        (URL, "a=1; Path=/", "a=1"),
        (URL, "a=1; Path=/v1", "a=1"),
        (URL, "a=1; Path=/v1/", "a=1"),
        (URL, "a=1; Path=/v1/traces", "a=1"),
        (URL, "a=1; Path=/v", ""),
        (URL, "a=1; Path=/v1/metrics", ""),
        (URL, "a=1; Path=relative", "a=1"),
        (URL, "a=1; Max-Age=60", "a=1"),
        (URL, "a=1; Max-Age=0", ""),
        (URL, "a=1; Max-Age=-1", ""),
        (URL, "a=1; Max-Age=999999999999999999999", "a=1"),
        (URL, "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT", ""),
        (URL, "a=1; Expires=Fri, 01-Jan-2100 00:00:00 GMT", "a=1"),
        (URL, "a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=60", "a=1"),
        (URL, "a=1; Expires=some day", "a=1"),
        (URL, "a=\u{e9}", ""),
    ];
    for (url, set, expected) in cases {
        let backend = Backend::at(url);
        backend.sets(&[set]);
        assert_eq!(backend.gets(), expected, "{set} from {url}");
    }
}

#[test]
fn cookies_are_replaced_and_end() {
    let backend = Backend::at("http://b/v1/traces");
    assert_eq!(backend.gets(), "");
    backend.sets(&["a=1", "b=2; Max-Age=10", "a=3; Path=/v1/traces"]);
    assert_eq!(backend.gets(), "a=3; a=1; b=2", "the more special path first, then the older one");
    backend.sets(&["a=4", "b=5; Max-Age=20"]);
    assert_eq!(backend.gets(), "a=3; a=4; b=5");
    backend.clock.advance(Duration::from_secs(19));
    assert_eq!(backend.gets(), "a=3; a=4; b=5");
    backend.clock.advance(Duration::from_secs(1));
    assert_eq!(backend.gets(), "a=3; a=4");
    backend.sets(&["a=; Max-Age=0"]);
    assert_eq!(backend.gets(), "a=3");
}

/// The user's own cookies win.
#[test]
fn configured_cookies_stay() {
    let backend = Backend::at("http://b/");
    backend.sets(&["a=1"]);
    let mut headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_static("own=1"))]);
    backend.jar.give(&mut headers);
    assert_eq!(headers[COOKIE], "own=1");
}

/// A backend that sets cookies without end takes 50 of 4 KiB.
#[test]
fn cookies_are_bounded() {
    let backend = Backend::at("http://b/");
    for index in 0..1000 {
        backend.sets(&[&format!("c{index}=1"), &format!("long{index}={}", "x".repeat(4096))]);
    }
    let names: Vec<String> = (950..1000).map(|index| format!("c{index}=1")).collect();
    assert_eq!(backend.gets(), names.join("; "));
    let many: Vec<String> = (0..1000).map(|index| format!("m{index}=1")).collect();
    backend.sets(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert!(backend.gets().ends_with("m49=1"), "one answer has as many at the most");
}

#[test]
fn retry_after_is_seconds_or_a_date_to_come() {
    let after = |value: &str, now: u64| {
        let mut headers = http::HeaderMap::new();
        headers.insert("retry-after", value.parse().unwrap());
        retry_after(&headers, Duration::from_secs(now)).map(|wait| wait.as_secs())
    };
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    assert_eq!([784_111_770, 784_111_777, 784_111_800].map(|now| after(date, now)), [Some(7), None, None]);
    assert_eq!(after("Thu, 29 Feb 2024 12:00:00 GMT", 1_709_207_000), Some(1000));
    assert_eq!((after(" 2", 0), after("18446744073709551615", 0)), (Some(2), Some(u64::MAX)));
    assert_eq!((after("tomorrow", 0), after("-1", 0), after("", 0)), (None, None, None));
}
