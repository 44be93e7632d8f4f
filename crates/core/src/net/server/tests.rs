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

/// What an HTTP/2 client begins with: the preface, and its settings (none).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Some HEADERS of stream 1 that are continued (END_HEADERS is not set), and all of an empty CONTINUATION.
const HEADERS: &[u8] = &[0, 0, 2, 1, 0, 0, 0, 0, 1, 0x83, 0x86];
const CONTINUATION: &[u8] = &[0, 0, 0, 9, 0, 0, 0, 0, 1];

/// Guarantee: a client that begins and does not go on is closed once the time for a head is over, wherever it stops,
/// and however it dribbles; one that has begun nothing stays, and is served afterwards.
#[tokio::test]
async fn an_http2_connection_that_does_not_go_on_is_closed() {
    let mut settings = local();
    settings.head_timeout = Some(Duration::from_millis(200));
    let (server, _) = start(settings, &Runtimes::current()).await;
    let (mut idle, idle_connection) = http2(server.address()).await;
    idle.ready().await.expect("it is open");
    let beginnings: [(&str, &[&[u8]]); 6] = [
        ("the preface alone", &[PREFACE]),
        ("a ping for settings", &[PREFACE, &[0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]]),
        ("half of the settings", &[PREFACE, &SETTINGS[..5]]),
        ("half of a frame", &[PREFACE, SETTINGS, &HEADERS[..10]]),
        ("half of a block", &[PREFACE, SETTINGS, HEADERS]),
        ("half of a long block", &[PREFACE, SETTINGS, HEADERS, CONTINUATION, CONTINUATION]),
    ];
    for (what, bytes) in beginnings {
        let mut slow = TcpStream::connect(server.address()).await.expect("connects");
        slow.write_all(&bytes.concat()).await.expect("writes");
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(20), slow.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{what}");
    }
    // A byte of a long frame now and then does not help.
    let mut slow = TcpStream::connect(server.address()).await.expect("connects");
    slow.write_all(&[PREFACE, SETTINGS, &[0, 0x20, 0, 1, 4, 0, 0, 0, 1]].concat()).await.expect("writes");
    let dribbled = async {
        while slow.write_all(&[0x82]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), dribbled).await.expect("it is closed");
    assert!(!idle_connection.is_finished(), "nothing is unfinished there");
    idle.send_request(get("/")).await.expect("an answer");
}

/// Guarantee: what a connection has been waiting for in vain does not count against what comes later.
#[tokio::test]
async fn frames_in_pieces_are_served_for_as_long_as_each_ends() {
    let mut settings = local();
    settings.head_timeout = Some(Duration::from_millis(400));
    let (server, _) = start(settings, &Runtimes::current()).await;
    let mut slow = TcpStream::connect(server.address()).await.expect("connects");
    slow.write_all(&[PREFACE, SETTINGS].concat()).await.expect("writes");
    let ping = [0, 0, 8, 6, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    // Each ping takes a part of the time, all together more than twice of it.
    for _ in 0..10 {
        for half in [&ping[..10], &ping[10..]] {
            slow.write_all(half).await.expect("it is open");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    let mut pongs = 0;
    while pongs < 10 {
        let mut head = [0; 9];
        slow.read_exact(&mut head).await.expect("it is open");
        pongs += usize::from(head[3] == 6);
        let length = usize::from(head[1]) << 8 | usize::from(head[2]);
        slow.read_exact(&mut vec![0; length]).await.expect("it is open");
    }
}

/// Guarantee: more than 100 headers over HTTP/1, and more than 16 KiB of them over HTTP/2, as it counts them, are refused
/// with 431; the connection of HTTP/2 goes on.
#[tokio::test]
async fn headers_are_bounded() {
    let (server, _) = start(local(), &Runtimes::current()).await;
    for (count, expected) in [(99, "HTTP/1.1 200"), (101, "HTTP/1.1 431")] {
        let mut stream = TcpStream::connect(server.address()).await.expect("connects");
        let headers = "x: y\r\n".repeat(count);
        stream.write_all(format!("GET / HTTP/1.1\r\n{headers}\r\n").as_bytes()).await.expect("writes");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(str::from_utf8(&answer), Ok(expected), "{count} headers");
    }
    let (mut sender, _connection) = http2(server.address()).await;
    for (count, expected) in [(15, 200), (17, 431), (15, 200)] {
        let mut request = get("/");
        for number in 0..count {
            let name = http::HeaderName::try_from(format!("x-{number:02}")).expect("a name");
            request.headers_mut().insert(name, "y".repeat(1024 - 32 - 4).parse().expect("a value"));
        }
        let response = sender.send_request(request).await.expect("an answer");
        assert_eq!(response.status().as_u16(), expected, "{count} KiB");
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

/// Guarantee: who breaks the rules waits with the next connection, and those that are open go on.
#[tokio::test]
async fn who_breaks_the_rules_waits_with_the_next_connection() {
    let (server, _) = start(local(), &Runtimes::current()).await;
    let (mut open, _) = http1(server.address()).await;
    assert!(open.send_request(get("/")).await.is_ok());
    let mut foul = TcpStream::connect(server.address()).await.expect("connects");
    foul.write_all(b"what is this?\r\n\r\n").await.expect("it is read");
    foul.read_to_end(&mut Vec::new()).await.expect("the end");
    let begun = Instant::now();
    let (mut next, _) = http1(server.address()).await;
    assert!(next.send_request(get("/")).await.is_ok());
    assert!(begun.elapsed() >= suspects::PAUSE, "{:?}", begun.elapsed());
    assert!(open.send_request(get("/")).await.is_ok());
}
