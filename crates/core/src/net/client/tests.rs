use bytes::Bytes;
use http_body::Body;

use super::*;

fn grpc(text: &str) -> Result<(String, u16, bool), String> {
    GrpcEndpoint::parse(text).map(|endpoint| (endpoint.host, endpoint.port, endpoint.is_https))
}

#[test]
fn grpc_endpoints_in_all_spellings() {
    let plain = |host: &str| Ok((host.to_owned(), 4317, false));
    for text in ["b:4317", "http://b:4317", "http://b:4317/", "dns:///b:4317", "passthrough:///b:4317", " b:4317 "] {
        assert_eq!(grpc(text), plain("b"), "{text}");
    }
    assert_eq!(grpc("https://b:4317"), Ok(("b".to_owned(), 4317, true)));
    assert_eq!(grpc("[::1]:4317"), plain("[::1]"));
    assert_eq!(grpc("10.0.0.1:4317"), plain("10.0.0.1"));
}

/// Faults B10 and B11, and their kin.
#[test]
fn grpc_endpoint_faults_say_what_to_do() {
    for (text, message) in [
        ("", "requires a non-empty \"endpoint\""),
        ("host", "port missing; 4317 is usual: host:4317"),
        ("https://host", "port missing; 4317 is usual"),
        ("[::1]", "port missing"),
        ("::1:4317", "brackets"),
        ("host:http", "invalid port \"http\""),
        ("host:0", "invalid port"),
        ("host:70000", "invalid port"),
        (":4317", "host missing"),
        ("http://h:4318/v1/traces", "this looks like OTLP/HTTP: use the otlp_http exporter"),
        ("unix:", "names no socket"),
        ("unix:///run/", "names no socket"),
        ("unix://host/x.sock", "with three slashes"),
        ("dns://8.8.8.8/b:4317", "three slashes"),
        ("ftp://b:1", "unsupported scheme"),
        ("a b:4317", "not a host and a port"),
    ] {
        let error = grpc(text).unwrap_err();
        assert!(error.contains(message), "{text:?}: {error}");
    }
}

#[test]
fn unix_sockets_as_grpc_spells_them() {
    for (text, path) in
        [("unix:///run/x.sock", "/run/x.sock"), ("unix:/run/x.sock", "/run/x.sock"), ("unix:run/x.sock", "run/x.sock")]
    {
        let endpoint = GrpcEndpoint::parse(text).unwrap();
        assert_eq!(endpoint.socket.as_deref(), Some(std::path::Path::new(path)), "{text}");
        assert_eq!((endpoint.authority(), endpoint.to_string()), ("localhost".to_owned(), format!("unix:{path}")));
    }
}

#[test]
fn http_endpoints() {
    let port = |text: &str| HttpEndpoint::parse(text).map(|endpoint| (endpoint.port, endpoint.is_https));
    assert_eq!(port("http://b"), Ok((80, false)));
    assert_eq!(port("https://b/x"), Ok((443, true)));
    assert_eq!(port("http://[::1]:4318"), Ok((4318, false)));
    for wrong in ["b:4318", "b", "grpc://b", "/v1/traces"] {
        assert!(port(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn headers_are_a_map_or_a_list_and_stay_secret() {
    for yaml in ["{X-A: \" b\\n\", x-c: d}", "[{name: X-A, value: b}, {name: x-c, value: d}]"] {
        let headers: HeadersConfig = serde_yaml::from_str(yaml).unwrap();
        assert!(!format!("{headers:?}").contains("\"b"), "{headers:?}");
        let map = headers.to_map().unwrap();
        assert_eq!((map["x-a"].as_bytes(), map["x-c"].as_bytes()), (&b"b"[..], &b"d"[..]));
        assert!(map["x-a"].is_sensitive());
    }
    let wrong: HeadersConfig = serde_yaml::from_str("{'a b': c}").unwrap();
    assert!(wrong.to_map().unwrap_err().contains("not the name of a header"));
    let wrong: HeadersConfig = serde_yaml::from_str("{a: \"b\\nc\"}").unwrap();
    assert!(wrong.to_map().unwrap_err().contains("cannot be sent"));
}

/// Guarantee: connections spread over all addresses of a name; one that does not answer is passed over.
#[tokio::test]
async fn connections_go_round_the_addresses() {
    use tokio::net::TcpListener;
    let first = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [first.local_addr().unwrap(), second.local_addr().unwrap()];
    let reached = async |connector: &Connector, count: usize| {
        let mut found = Vec::new();
        for _ in 0..count {
            let peer = connector.connect_any(&addresses).await.unwrap().peer_addr().unwrap();
            found.push(addresses.iter().position(|address| *address == peer).unwrap());
        }
        found
    };
    let connector = Connector::new("backend", 1, None);
    assert_eq!(reached(&connector, 4).await, [0, 1, 0, 1]);
    assert_eq!(reached(&connector.clone().rotating(false), 3).await, [0, 0, 0]);
    drop(first);
    assert_eq!(reached(&connector, 3).await, [1, 1, 1]);
    drop(second);
    let error = connector.connect_any(&addresses).await.unwrap_err().to_string();
    assert!(error.starts_with("cannot connect to backend:1: "), "{error}");
}

/// Counts the requests that come over one address.
#[derive(Default)]
struct Counting(std::sync::atomic::AtomicUsize);

impl crate::net::server::Handler for Counting {
    async fn handle(
        self: std::sync::Arc<Self>,
        _: http::Request<hyper::body::Incoming>,
    ) -> http::Response<crate::net::body::Reply> {
        self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        http::Response::new(crate::net::body::Reply::new(Bytes::from_static(b"yes")))
    }
}

/// Scenario: a name has two addresses, 127.0.0.1 and 127.0.0.2, with a server at each; one goes away and comes back.
/// Guarantee: requests of one worker take the addresses in turn, although all of HTTP/2 shares connections; no request
/// fails while one of the two is there, and the other one has its share again some time after it is back.
#[tokio::test]
async fn requests_go_round_the_addresses() {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use crate::net::server::{Server, Settings};
    use crate::runtime::Runtimes;
    let runtimes = Runtimes::current();
    let counts = [Arc::<Counting>::default(), Arc::<Counting>::default()];
    let start = async |address: String, count: &Arc<Counting>| {
        Server::start(Settings::new(address), Arc::clone(count), &runtimes).await.unwrap()
    };
    let first = start("127.0.0.1:0".to_owned(), &counts[0]).await;
    let port = first.address().port();
    let second_address = format!("127.0.0.2:{port}");
    let second = start(second_address.clone(), &counts[1]).await;
    let connector = Connector::new("backend", port, None).resolving_to(&[second.address(), first.address()]);
    let options = ClientOptions { http2_only: true, ..ClientOptions::default() };
    let client = Client::new(1, &connector, &options);
    let send = async |requests: usize| {
        let before = [0, 1].map(|index: usize| counts[index].0.load(Ordering::Relaxed));
        for _ in 0..requests {
            let request = http::Request::post(format!("http://backend:{port}/")).body(Chunks::new(b"what", &[]));
            assert_eq!(client.send(request.unwrap()).await.unwrap().body, "yes");
        }
        [0, 1].map(|index: usize| counts[index].0.load(Ordering::Relaxed) - before[index])
    };
    // The first request finds out how many there are.
    send(1).await;
    assert_eq!(send(10).await, [5, 5]);

    second.shutdown(tokio::time::Instant::now()).await;
    drop(second);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert_eq!(send(10).await, [10, 0], "none is lost");
    let _second = start(second_address, &counts[1]).await;
    tokio::time::pause();
    tokio::time::advance(std::time::Duration::from_secs(6)).await;
    tokio::time::resume();
    let [one, other] = send(10).await;
    assert!(other >= 4 && one >= 4, "both again: {one} and {other}");

    let pinned = Client::new(1, &connector.rotating(false), &options);
    for _ in 0..3 {
        let request = http::Request::post(format!("http://backend:{port}/")).body(Chunks::new(b"", &[])).unwrap();
        pinned.send(request).await.unwrap();
    }
    assert_eq!(counts[1].0.load(Ordering::Relaxed) - other - 5, 3, "pick_first: that of the list");
}

async fn pieces(mut body: Chunks) -> Vec<Bytes> {
    use http_body_util::BodyExt;
    let mut pieces = Vec::new();
    while let Some(frame) = body.frame().await {
        pieces.push(frame.unwrap().into_data().unwrap());
    }
    assert!(body.is_end_stream() && body.is_empty());
    pieces
}

#[tokio::test]
async fn large_pieces_are_shared_and_small_ones_joined() {
    let large = Bytes::from(vec![1; 10_000]);
    let body = Chunks::new(b"head", &[large.clone(), large.clone()]);
    assert_eq!(body.len(), 20_004);
    let found = pieces(body.clone()).await;
    assert_eq!(found.len(), 3);
    assert_eq!(found[1].as_ptr(), large.as_ptr(), "not copied");
    assert_eq!(pieces(body).await.concat().len(), 20_004, "a clone starts over");
    let small: Vec<Bytes> = (0..100).map(|_| Bytes::from_static(b"abc")).collect();
    assert_eq!(pieces(Chunks::new(b"head", &small)).await.len(), 1);
    assert!(pieces(Chunks::new(b"", &[])).await.concat().is_empty());
}
