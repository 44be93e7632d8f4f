//! Floods that only HTTP/2 knows: headers that are a byte each, blocks without an end, requests that are taken back.

use crate::runtime;
use crate::support::http2::{
    CANCEL, CONTINUATION, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frame, GOAWAY, HEADERS, LAST, RST_STREAM, Raw,
    call, frame, remembered,
};
use crate::support::otlp::{trace, traces_request};
use crate::support::otlp_client::{OK, OtlpClient, TRACES, call_over};
use crate::support::{Gateway, eventually};

const CONFIG: &str = "
receivers:
  otlp:
    max_in_flight: 64MiB
    min_body_rate: {bytes_per_second: 0}
    protocols: {grpc: {endpoint: 127.0.0.1:@GRPC@}}
exporters: {nop: {}}
service:
  telemetry: {metrics: {readers: [{pull: {exporter: {prometheus: {host: 127.0.0.1, port: @METRICS@}}}}]}}
  pipelines: {traces: {receivers: [otlp], exporters: [nop]}}
";

/// What floods the port that it is given; it gives what was said.
type Flood = fn(u16) -> Vec<Frame>;

/// Sends `bytes` over a new connection, which does not outlive them; gives what was said before its end.
fn flood(port: u16, bytes: &[u8]) -> Vec<Frame> {
    let mut raw = Raw::connect(port, 9);
    let _ = raw.send(bytes);
    let (frames, settled) = raw.settle();
    assert_eq!(settled, None, "the connection is over: {frames:?}");
    frames
}

/// The code of the GOAWAY. Without one, the connection broke off: what the server had not read can do that.
fn farewell(frames: &[Frame]) -> Option<u32> {
    frames.iter().find(|frame| frame.kind == GOAWAY).map(Frame::code)
}

/// Under load the farewell may get lost; what must not come is another one.
pub(crate) fn assert_calm(frames: &[Frame]) {
    assert!(farewell(frames).is_none_or(|code| code == ENHANCE_YOUR_CALM), "{frames:?}");
}

/// A block of headers without an end, in CONTINUATION frames of a byte each.
pub(crate) fn continuations(port: u16) -> Vec<Frame> {
    let more = frame(CONTINUATION, 0, 1, &[LAST]).repeat(20);
    flood(port, &[frame(HEADERS, 0, 1, &[call(TRACES), remembered("a", "")].concat()), more].concat())
}

/// 4 KiB that are remembered and repeated, a byte each time, in one block of headers.
pub(crate) fn header_bomb(port: u16) -> Vec<Frame> {
    let bomb = [call(TRACES), remembered("x", &"y".repeat(4000)), vec![LAST; 1000]].concat();
    flood(port, &frame(HEADERS, END_HEADERS, 1, &bomb))
}

/// 1000 requests, each taken back at once (CVE-2023-44487).
pub(crate) fn resets(port: u16) -> Vec<Frame> {
    let requests = (0..1000).flat_map(|number| {
        let stream = 2 * number + 1;
        let request = frame(HEADERS, END_HEADERS, stream, &call(TRACES));
        [request, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
    });
    flood(port, &requests.collect::<Vec<u8>>())
}

/// Guarantee: who floods a connection is told to be calm, and it is over; the next one is served. The log has one line
/// on all of it: who floods the port does not flood the log.
#[test]
fn floods_end_their_connection() {
    let gateway = Gateway::start(CONFIG);
    let floods: [(&str, Flood); 3] =
        [("continuations", continuations), ("a header bomb", header_bomb), ("resets", resets)];
    for (what, flood) in floods {
        let code = eventually(what, || farewell(&flood(gateway.grpc_port)).ok_or("no farewell"));
        assert_eq!(code, ENHANCE_YOUR_CALM, "{what}");
    }
    let output = gateway.process.output();
    let lines: Vec<_> = output.lines().filter(|line| line.contains("WARN") && !line.contains("loopback")).collect();
    assert!(matches!(lines[..], [line] if line.contains("breaks the rules of HTTP")), "{lines:?}");
    assert_eq!(gateway.client().traces(&traces_request("good", trace(1, 2))).status, OK);
}

/// Scenario: eight connections open a thousand requests each and keep the bodies back; each request has 450 headers,
/// which come as one byte each and would be some 40 KiB in memory: 300 MiB together.
/// Guarantee: no more of them is let in than `max_in_flight` allows, the others are told to come back, what is let in
/// does not keep its headers, and a good client at another address is served.
#[test]
fn headers_of_a_byte_each_take_little_memory() {
    let gateway = Gateway::start(CONFIG);
    let mut good = gateway.client();
    assert_eq!(good.traces(&traces_request("good", trace(1, 2))).status, OK);
    let (before, _) = gateway.process.resident();
    let mut open = Vec::new();
    let mut refused = 0;
    for _ in 0..8 {
        let mut raw = Raw::connect(gateway.grpc_port, 1);
        for number in 0..1000 {
            let first = if number == 0 { remembered("a", "") } else { vec![LAST] };
            let block = [call(TRACES), first, vec![LAST; 449]].concat();
            raw.send(&frame(HEADERS, END_HEADERS, 2 * number + 1, &block)).expect("it is read");
            if number % 100 == 99 {
                let (frames, settled) = raw.settle();
                assert_eq!(settled, Some(()), "{frames:?}");
                refused += frames.iter().filter(|frame| is_refusal(frame)).count();
            }
        }
        open.push(raw);
    }
    assert_eq!(good.traces(&traces_request("good", trace(2, 2))).status, OK);
    // A client alone gets two thirds of 64 MiB: room for 700. The answers to others may still be on their way.
    eventually("the others are refused", || {
        refused += refusals(&mut open);
        if refused > 6900 { Ok(()) } else { Err(refused) }
    });
    assert!(refused < 8000, "some are let in");
    let (after, peak) = gateway.process.resident();
    let mebibytes = |bytes: u64| bytes.saturating_sub(before) >> 20;
    eprintln!("{refused} of 8000 refused; {} MiB more, {} at the peak", mebibytes(after), mebibytes(peak));
    assert!(mebibytes(peak) < 64, "{} MiB more at the peak", mebibytes(peak));
    drop(open);
}

/// How many refusals have come since the last time.
fn refusals(open: &mut [Raw]) -> usize {
    let of = |raw: &mut Raw| raw.settle().0.iter().filter(|frame| is_refusal(frame)).count();
    open.iter_mut().map(of).sum()
}

/// Is it the head of an answer that is over with it? gRPC refuses so.
fn is_refusal(frame: &Frame) -> bool {
    frame.kind == HEADERS && frame.flags & END_STREAM != 0
}

/// Scenario: the same number of requests, each with the fewest headers there can be. Guarantee: what they are charged
/// covers what they take.
#[test]
fn open_requests_take_what_they_are_charged() {
    let gateway = Gateway::start(CONFIG);
    assert_eq!(gateway.client().traces(&traces_request("good", trace(1, 2))).status, OK);
    let (before, _) = gateway.process.resident();
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..20 {
        let mut raw = Raw::connect(gateway.grpc_port, 1);
        for batch in 0..10 {
            let requests =
                (0..100).flat_map(|number| frame(HEADERS, END_HEADERS, 2 * (100 * batch + number) + 1, &call(TRACES)));
            raw.send(&requests.collect::<Vec<u8>>()).expect("it is read");
            let (frames, settled) = raw.settle();
            assert_eq!(settled, Some(()), "{frames:?}");
            refused += frames.iter().filter(|frame| is_refusal(frame)).count();
        }
        open.push(raw);
    }
    eventually("what has no room is refused", || {
        refused += refusals(&mut open);
        if refused > 9000 { Ok(()) } else { Err(refused) }
    });
    let (after, _) = gateway.process.resident();
    let (taken, let_in) = (after.saturating_sub(before), 20_000 - refused as u64);
    eprintln!("{let_in} requests are open: {} bytes each", taken / let_in);
    assert!(let_in > 5000, "{let_in} are let in");
    assert!(taken < 64 << 20, "{} MiB for {let_in} requests", taken >> 20);
}

/// Guarantee: headers over 16 KiB are refused by themselves: the connection goes on.
#[test]
fn too_many_headers_are_refused() {
    let gateway = Gateway::start(CONFIG);
    let long = "y".repeat(17 << 10);
    let answer = runtime().block_on(async {
        let stream = tokio::net::TcpStream::connect(("127.0.0.1", gateway.grpc_port)).await.unwrap();
        call_over(stream, TRACES, &[("x-long", &long)], bytes::Bytes::new()).await
    });
    assert!(answer.is_err(), "431 is no answer of gRPC: {answer:?}");
    let mut client = OtlpClient::connect(gateway.grpc_port);
    assert_eq!(client.traces(&traces_request("good", trace(1, 2))).status, OK);
}
