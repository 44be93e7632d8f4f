//! What is proved here: both protocols are served on one port, connections spread over workers,
//! bounds on connections, heads and ages hold, shutdown waits for requests and no longer than
//! its deadline.

use std::collections::HashSet;
use std::thread::ThreadId;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Notify;

use super::*;

/// Answers with its worker's thread; `/wait` waits to be released first.
#[derive(Default)]
struct Echo {
    threads: Mutex<HashSet<ThreadId>>,
    waiting: Notify,
    release: Notify,
}

impl Handler for Echo {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<Reply> {
        self.threads.lock().insert(std::thread::current().id());
        if request.uri().path() == "/wait" {
            self.waiting.notify_one();
            self.release.notified().await;
        }
        Response::new(Reply::new(Bytes::from_static(b"hello")))
    }
}

type H2 = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;
type H1 = hyper::client::conn::http1::SendRequest<Empty<Bytes>>;

async fn http2(address: SocketAddr) -> (H2, tokio::task::JoinHandle<hyper::Result<()>>) {
    let io = TokioIo::new(TcpStream::connect(address).await.expect("connects"));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("shakes hands");
    (sender, tokio::spawn(connection))
}

async fn http1(address: SocketAddr) -> (H1, tokio::task::JoinHandle<hyper::Result<()>>) {
    let io = TokioIo::new(TcpStream::connect(address).await.expect("connects"));
    let (sender, connection) = hyper::client::conn::http1::handshake(io).await.expect("shakes hands");
    (sender, tokio::spawn(connection))
}

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(format!("http://test{path}")).body(Empty::new()).expect("a request")
}

async fn start(settings: Settings, runtimes: &Arc<Runtimes>) -> (Server, Arc<Echo>) {
    let echo = Arc::new(Echo::default());
    let server = Server::start(settings, Arc::clone(&echo), runtimes).await.expect("binds");
    (server, echo)
}

fn local() -> Settings {
    Settings::new("localhost:0")
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[tokio::test]
async fn both_protocols_are_served_on_one_port() {
    let (server, _) = start(local(), &Runtimes::current()).await;
    let (mut one, _) = http1(server.address()).await;
    let (mut two, _) = http2(server.address()).await;
    for response in [one.send_request(get("/")).await, two.send_request(get("/")).await] {
        let body = response.expect("an answer").into_body().collect().await.expect("a body");
        assert_eq!(body.to_bytes(), "hello");
    }
}

#[tokio::test]
async fn connections_spread_evenly_over_the_workers() {
    let runtimes = Runtimes::start(3, tokio::sync::mpsc::unbounded_channel().0).expect("threads");
    let (server, echo) = start(local(), &runtimes).await;
    let mut open = Vec::new();
    for _ in 0..3 {
        let (mut sender, connection) = http2(server.address()).await;
        sender.send_request(get("/")).await.expect("an answer");
        open.push((sender, connection));
    }
    assert_eq!(echo.threads.lock().len(), 3);
    server.shutdown(soon()).await;
    runtimes.stop();
}

#[tokio::test]
async fn connections_beyond_the_bound_are_closed_at_once() {
    let mut settings = local();
    settings.max_connections = 1;
    let (server, _) = start(settings, &Runtimes::current()).await;
    let (mut first, first_connection) = http1(server.address()).await;
    first.send_request(get("/")).await.expect("an answer");
    let mut second = TcpStream::connect(server.address()).await.expect("connects");
    assert_eq!(second.read(&mut [0; 1]).await.expect("an end, not an error"), 0);
    // The place is free again once the first one has left.
    drop(first);
    first_connection.await.expect("no panic").expect("a clean end");
    loop {
        let (mut third, _) = http1(server.address()).await;
        if third.send_request(get("/")).await.is_ok() {
            break;
        }
    }
}

/// Scenario: an address opens as many connections as it gets; then somebody comes from another one.
/// Guarantee: what goes beyond the share is closed at once, the other one is served, and the server is not called ill.
#[tokio::test]
async fn no_address_keeps_the_others_out() {
    let mut settings = local();
    settings.max_connections = 32;
    let (server, _) = start(settings, &Runtimes::current()).await;
    let mut held = Vec::new();
    for _ in 0..30 {
        let (mut sender, connection) = http2(server.address()).await;
        sender.send_request(get("/")).await.expect("an answer");
        held.push((sender, connection));
    }
    for _ in 0..5 {
        let mut refused = TcpStream::connect(server.address()).await.expect("connects");
        assert_eq!(refused.read(&mut [0; 1]).await.expect("an end, not an error"), 0);
    }
    assert_eq!(server.status(), Status::default());
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 2], 0))).expect("binds");
    let io = TokioIo::new(socket.connect(server.address()).await.expect("connects"));
    let (mut other, connection) = hyper::client::conn::http1::handshake(io).await.expect("shakes hands");
    tokio::spawn(connection);
    other.send_request(get("/")).await.expect("an answer");
}

#[tokio::test]
async fn a_connection_that_sends_no_head_is_closed() {
    for start_with in ["", "PRI * HT", "POST /v1/traces HTTP/1.1\r\nhost: a\r\n"] {
        let mut settings = local();
        settings.head_timeout = Some(Duration::from_millis(100));
        let (server, _) = start(settings, &Runtimes::current()).await;
        let mut slow = TcpStream::connect(server.address()).await.expect("connects");
        slow.write_all(start_with.as_bytes()).await.expect("writes");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{start_with:?}");
    }
}

#[tokio::test]
async fn shutdown_lets_requests_end_and_takes_no_new_ones() {
    let (server, echo) = start(local(), &Runtimes::current()).await;
    let address = server.address();
    let (mut one, _) = http1(address).await;
    let (mut two, _) = http2(address).await;
    let mut answers = Vec::new();
    for response in [tokio::spawn(one.send_request(get("/wait"))), tokio::spawn(two.send_request(get("/wait")))] {
        echo.waiting.notified().await;
        answers.push(response);
    }
    let mut stopping = Box::pin(server.shutdown(soon()));
    let early = tokio::time::timeout(Duration::from_millis(50), &mut stopping).await;
    assert!(early.is_err(), "two requests are open");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
    echo.release.notify_waiters();
    for answer in answers {
        let response = answer.await.expect("no panic").expect("an answer");
        assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "hello");
    }
    stopping.await;
}

#[tokio::test]
async fn shutdown_ends_at_its_deadline() {
    let (server, echo) = start(local(), &Runtimes::current()).await;
    let (mut sender, _) = http2(server.address()).await;
    let answer = tokio::spawn(sender.send_request(get("/wait")));
    echo.waiting.notified().await;
    server.shutdown(Instant::now() + Duration::from_millis(50)).await;
    assert!(answer.await.expect("no panic").is_err(), "the request was cut off");
}

#[tokio::test]
async fn old_and_idle_connections_are_asked_to_leave() {
    let by_age = Keepalive { max_age: Some(Duration::from_millis(100)), ..Keepalive::default() };
    let by_idleness = Keepalive { max_idle: Some(Duration::from_millis(100)), ..Keepalive::default() };
    for keepalive in [by_age, by_idleness] {
        let mut settings = local();
        settings.keepalive = keepalive;
        let (server, _) = start(settings, &Runtimes::current()).await;
        let (mut sender, connection) = http2(server.address()).await;
        sender.send_request(get("/")).await.expect("an answer");
        let ended = tokio::time::timeout(Duration::from_secs(20), connection).await.expect("it ends");
        ended.expect("no panic").expect("with a GOAWAY, not with an error");
    }
}

#[tokio::test]
async fn requests_of_an_old_connection_go_on_until_the_grace_ends() {
    let mut settings = local();
    settings.keepalive.max_age = Some(Duration::from_millis(50));
    settings.keepalive.max_age_grace = Some(Duration::from_millis(100));
    let (server, echo) = start(settings, &Runtimes::current()).await;
    let (mut sender, _) = http2(server.address()).await;
    let answer = tokio::spawn(sender.send_request(get("/wait")));
    echo.waiting.notified().await;
    let cut_off = tokio::time::timeout(Duration::from_secs(20), answer).await.expect("it ends").expect("no panic");
    assert!(cut_off.is_err());
}

#[tokio::test]
async fn endpoints_that_cannot_be_used_say_why() {
    let (server, _) = start(local(), &Runtimes::current()).await;
    let taken = Settings::new(format!("localhost:{}", server.address().port()));
    let error = Server::start(taken, Arc::new(Echo::default()), &Runtimes::current()).await.err().expect("refused");
    let message = error.to_string();
    assert!(message.starts_with("cannot listen on localhost:"), "{message}");
    assert!(message.ends_with("another process listens there"), "{message}");
    let error = Server::start(Settings::new(":x"), Arc::new(Echo::default()), &Runtimes::current()).await.err();
    assert!(error.expect("refused").to_string().contains("port is not a number"));
}

#[tokio::test]
async fn an_empty_host_means_all_interfaces() {
    let (server, _) = start(Settings::new(":0"), &Runtimes::current()).await;
    assert!(server.address().ip().is_unspecified());
    let port = server.address().port();
    let (mut sender, _) = http2(SocketAddr::from(([127, 0, 0, 1], port))).await;
    sender.send_request(get("/")).await.expect("an answer");
}

/// Guarantee: a socket whose process is gone is replaced, one that is in use is not, and its file goes with the
/// server.
#[tokio::test]
async fn unix_sockets_are_served() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("otlp.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("binds"));
    assert!(path.exists(), "left behind");
    let mut settings = Settings::new(path.display().to_string());
    settings.family = Family::Unix;
    let (server, _) = start(settings.clone(), &Runtimes::current()).await;
    let error = Server::start(settings, Arc::new(Echo::default()), &Runtimes::current()).await.err();
    assert!(error.expect("refused").to_string().ends_with("another process listens there"));
    let io = TokioIo::new(UnixStream::connect(&path).await.expect("connects"));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.expect("shakes hands");
    tokio::spawn(connection);
    let response = sender.send_request(get("/")).await.expect("an answer");
    assert_eq!(response.into_body().collect().await.expect("a body").to_bytes(), "hello");
    drop(sender);
    server.shutdown(soon()).await;
    assert!(!path.exists(), "its file is gone");
}
