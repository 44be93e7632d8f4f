//! Clients that take room and do not give it back.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::otlp::{trace, traces_request};
use crate::support::otlp_client::OK;
use crate::support::{Gateway, PATIENCE, http};
use crate::{PROTOBUF, message, runtime};

const CONFIG: &str = "
receivers:
  otlp:
    max_in_flight: 64MiB
    min_body_rate: {bytes_per_second: @RATE@, grace_period: 2s}
    protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}, http: {endpoint: 127.0.0.1:@HTTP@}}
exporters: {nop: {}}
service:
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]}}
  pipelines: {traces: {receivers: [otlp], exporters: [nop]}}
";

const MEBIBYTE: usize = 1 << 20;

/// A request of 16 MiB of which `sent` bytes are sent, from an address of its own.
async fn hoarder(port: u16, address: u8, sent: usize) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((Ipv4Addr::new(127, 0, 1, address), 0).into()).unwrap();
    let mut stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await.unwrap();
    let size = 16 * MEBIBYTE;
    let head =
        format!("POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    // It is refused in the middle if there is no room.
    let _ = stream.write_all(&vec![0; sent]).await;
    stream
}

/// The status that came back, if one came.
async fn status(stream: &mut TcpStream) -> Option<String> {
    let mut answer = [0; 12];
    let read = tokio::time::timeout(Duration::from_millis(50), stream.read_exact(&mut answer)).await;
    read.is_ok_and(|read| read.is_ok()).then(|| String::from_utf8_lossy(&answer).into_owned())
}

fn assert_served(gateway: &Gateway) {
    let mut client = gateway.client();
    for number in 0..20 {
        let outcome = client.traces(&traces_request("good", trace(number, 2)));
        assert_eq!(outcome.status, OK, "{outcome:?}");
        let answer = http::post(gateway.http_port, "/v1/traces", PROTOBUF, "", message("good", number)).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

/// Scenario: forty requests announce 16 MiB each, ten times what may be in flight, and send none of it.
/// Guarantee: what was only announced takes no room; a good client is served.
#[test]
fn what_is_announced_takes_no_room() {
    let gateway = Gateway::start(&CONFIG.replace("@RATE@", "0"));
    let runtime = runtime();
    let open: Vec<_> = (0..40).map(|_| runtime.block_on(hoarder(gateway.http_port, 1, 0))).collect();
    assert_served(&gateway);
    for mut stream in open {
        assert_eq!(runtime.block_on(status(&mut stream)), None, "it may go on");
    }
}

/// Scenario: clients at seven addresses send 15 of 16 MiB, four times each, and keep the rest back.
/// Guarantee: those that ask for more than their share are refused with 503; a good client is served all the while.
#[test]
fn nobody_can_take_all_the_room() {
    let gateway = Gateway::start(&CONFIG.replace("@RATE@", "0"));
    let runtime = runtime();
    let mut open = Vec::new();
    for number in 0..28 {
        open.push(runtime.block_on(hoarder(gateway.http_port, 1 + number % 7, 15 * MEBIBYTE)));
        assert_served(&gateway);
    }
    let (mut refused, deadline) = (0, Instant::now() + PATIENCE);
    while refused < 20 {
        assert!(Instant::now() < deadline, "{refused} are refused, {} wait", open.len());
        open.retain_mut(|stream| match runtime.block_on(status(stream)) {
            None => true,
            Some(answer) => {
                assert_eq!(answer, "HTTP/1.1 503");
                refused += 1;
                false
            }
        });
    }
    assert!(open.len() >= 2, "{} hold their share", open.len());
    assert_served(&gateway);
}

/// Scenario: a client sends a few bytes of its body now and then. Guarantee: it is told that it is too slow once the
/// grace period is over; one that keeps the pace is served, however long it takes.
#[test]
fn slow_bodies_are_cut_off() {
    let gateway = Gateway::start(&CONFIG.replace("@RATE@", "1000"));
    runtime().block_on(async {
        let mut slow = hoarder(gateway.http_port, 1, MEBIBYTE).await;
        let mut sent = 0;
        let answer = loop {
            let _ = slow.write_all(b"x").await;
            sent += 1;
            // This waits: a byte each 50 ms is less than 1000 a second.
            if let Some(answer) = status(&mut slow).await {
                break answer;
            }
            assert!(sent < 1000, "{sent} bytes were taken one by one");
        };
        assert_eq!(answer, "HTTP/1.1 408");
        let mut rest = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, slow.read_to_end(&mut rest)).await.expect("the connection ends");
        let rest = String::from_utf8_lossy(&rest);
        assert!(rest.contains("less than 1000 bytes a second (min_body_rate)"), "{rest}");

        let mut steady = TcpStream::connect(("127.0.0.1", gateway.http_port)).await.unwrap();
        let size = 12_000;
        let head = format!(
            "POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: {PROTOBUF}\r\ncontent-length: {size}\r\n\r\n"
        );
        steady.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..12 {
            steady.write_all(&[0xff; 1000]).await.unwrap();
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let mut answer = [0; 12];
        steady.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 400", "all of it was read: it is no message");
    });
}
