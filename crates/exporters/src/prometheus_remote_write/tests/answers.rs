//! The cases of the protocol that are about answers (P3 to P9), as a table: what the backend answers, which requests
//! it gets, and what becomes of five points.

use nyquist_core::batch::DropReason;
use nyquist_core::telemetry::Entry;

use super::protocol::start;
use super::receiver::{Receiver, Reply};
use crate::testing::*;

/// How a receiver behaves.
#[derive(Clone, Copy)]
enum Says {
    /// Status, without the headers of 2.0.
    Status(u16),
    /// Status and `Retry-After`.
    After(u16, &'static str),
    /// Status and how many samples were written.
    Written(u16, usize),
    /// Status and a header that is not about samples.
    OtherHeader(u16),
}

use Says::{After, OtherHeader, Status, Written};

impl Says {
    fn reply(self) -> Reply {
        let (Status(status) | After(status, _) | Written(status, _) | OtherHeader(status)) = self;
        let reply = Reply { status, body: "because", ..Reply::default() };
        match self {
            Status(_) => reply,
            After(_, wait) => Reply { headers: vec![("retry-after", wait.to_owned())], ..reply },
            Written(_, samples) => reply.written(samples, 0, 0),
            OtherHeader(_) => {
                let headers = vec![("X-Prometheus-Remote-Write-Exemplars-Written", "0".to_owned())];
                Reply { headers, ..reply }
            }
        }
    }
}

struct Case {
    id: &'static str,
    /// YAML without braces.
    config: &'static str,
    /// The last one is repeated.
    answers: &'static [Says],
    /// The versions of the requests, in order, with `=` where the bytes are those of the one before.
    requests: &'static str,
    exported: u64,
    lost: &'static [(DropReason, u64)],
    /// `written_samples`.
    written: u64,
}

const V1: &str = "protobuf_message: prometheus.WriteRequest";
const V2: &str = "protobuf_message: io.prometheus.write.v2.Request";
const BRIEF: &str = "retry_on_failure: {initial_interval: 1ms, max_interval: 2ms, max_elapsed_time: 50ms}";
const REJECTED: &[(DropReason, u64)] = &[(DropReason::Rejected, 5)];
const EXHAUSTED: &[(DropReason, u64)] = &[(DropReason::RetriesExhausted, 5)];

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { id: "2.0 is taken", config: "", answers: &[Written(204, 5)], requests: "2", exported: 5, lost: &[], written: 5 },
    Case { id: "P3 in 2.0", config: "", answers: &[Status(503), Status(500), Written(200, 5)], requests: "2==", exported: 5, lost: &[], written: 5 },
    Case { id: "P3 in 1.0", config: V1, answers: &[Status(503), Status(500), Status(204)], requests: "1==", exported: 5, lost: &[], written: 0 },
    Case { id: "P3 without retries", config: "retry_on_failure: {enabled: false}", answers: &[Status(503)], requests: "2", exported: 0, lost: EXHAUSTED, written: 0 },
    Case { id: "P4 in 2.0: nothing was written", config: "", answers: &[Written(400, 0)], requests: "2", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "P4: other refusals", config: V1, answers: &[Status(401)], requests: "1", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "P4: in 2.0, too", config: "", answers: &[Status(403)], requests: "2", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "redirects are not followed", config: "", answers: &[Status(307)], requests: "2", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "P5", config: "", answers: &[After(429, "1"), Written(204, 5)], requests: "2=", exported: 5, lost: &[], written: 5 },
    Case { id: "P5: no longer than allowed, and one last attempt", config: BRIEF, answers: &[After(429, "3600")], requests: "2=", exported: 0, lost: EXHAUSTED, written: 0 },
    Case { id: "P5: the last attempt may pass", config: BRIEF, answers: &[After(429, "301"), Written(204, 5)], requests: "2=", exported: 5, lost: &[], written: 5 },
    Case { id: "P5: if it is wanted", config: "retry_on_429: false", answers: &[After(429, "0")], requests: "2", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "P6", config: "", answers: &[After(503, "Sun, 06 Nov 1994 08:49:37 GMT"), Written(204, 5)], requests: "2=", exported: 5, lost: &[], written: 5 },
    Case { id: "P7", config: "", answers: &[Status(415), Status(204)], requests: "21", exported: 5, lost: &[], written: 0 },
    Case { id: "P7: 1.0 is retried as usual", config: "", answers: &[Status(415), Status(503), Status(204)], requests: "21=", exported: 5, lost: &[], written: 0 },
    Case { id: "P7: neither is taken", config: "", answers: &[Status(415)], requests: "21", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "P7: 2.0 and nothing else", config: V2, answers: &[Status(415)], requests: "2", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "P8", config: "", answers: &[Status(204)], requests: "21", exported: 5, lost: &[], written: 0 },
    Case { id: "P8: 2.0 and nothing else", config: V2, answers: &[Status(204)], requests: "2", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "P9", config: "", answers: &[Written(400, 3)], requests: "2", exported: 3, lost: &[(DropReason::PartlyRejected, 2)], written: 3 },
    Case { id: "P9 with success", config: "", answers: &[Written(204, 4)], requests: "2", exported: 4, lost: &[(DropReason::PartlyRejected, 1)], written: 4 },
    Case { id: "P9: none at all", config: "", answers: &[Written(204, 0)], requests: "2", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "P9: missing headers count as 0", config: "", answers: &[OtherHeader(200)], requests: "2", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "P9: more than was sent", config: "", answers: &[Written(204, 7)], requests: "2", exported: 5, lost: &[], written: 7 },
    Case { id: "P9 in 2.0 alone", config: V2, answers: &[Written(400, 3)], requests: "2", exported: 3, lost: &[(DropReason::PartlyRejected, 2)], written: 3 },
    Case { id: "400 from a backend that may not know 2.0", config: "", answers: &[Status(400), Status(204)], requests: "21", exported: 5, lost: &[], written: 0 },
    Case { id: "406 as well", config: "", answers: &[Status(406), Status(204)], requests: "21", exported: 5, lost: &[], written: 0 },
    Case { id: "406 to 2.0 and nothing else", config: V2, answers: &[Status(406)], requests: "2", exported: 0, lost: REJECTED, written: 0 },
    Case { id: "406 in both", config: "", answers: &[Status(406)], requests: "21", exported: 0, lost: REJECTED, written: 0 },
];

#[tokio::test]
async fn answers_mean_what_the_specification_says() {
    for case in CASES {
        let &Case { id, config, answers, requests, exported, lost, written } = case;
        let receiver = Receiver::judging(move |n, _| answers.get(n).or(answers.last()).unwrap().reply()).await;
        let retry = "{initial_interval: 1ms, max_interval: 2ms}";
        let retry =
            if config.contains("retry_on_failure") { String::new() } else { format!(", retry_on_failure: {retry}") };
        let config = format!("{{max_batch_request_parallelism: 1{retry}, {config}}}");
        let running = start(&receiver, &config).await;
        let points = (0..5).map(|step| number(step as f64, T + step, &[])).collect();
        running.push(push(vec![gauge("x", "", points)])).await;
        running.settled(5).await;

        let received = receiver.received();
        let mut seen = String::new();
        for (n, request) in received.iter().enumerate() {
            let is_repeated = n > 0 && received[n - 1].body == request.body;
            seen.push(if is_repeated {
                '='
            } else if request.is_v2() {
                '2'
            } else {
                '1'
            });
            let times: Vec<i64> =
                request.message().timeseries.iter().map(|series| series.samples[0].timestamp).collect();
            assert_eq!(times, (T..T + 5).collect::<Vec<_>>(), "{id}: the same data");
        }
        assert_eq!(seen, requests, "{id}");
        assert_eq!(running.ledger.count(Entry::Exported), exported, "{id}");
        for reason in DropReason::ALL {
            let expected = lost.iter().find(|(known, _)| *known == reason).map_or(0, |(_, points)| *points);
            assert_eq!(running.ledger.dropped_count(reason), expected, "{id}: {}", reason.name());
            if expected > 0 {
                assert_eq!(running.own("dropped_points", &[("reason", reason.name())]), expected, "{id}");
            }
        }
        assert_eq!(running.own("written_samples", &[]), written, "{id}");
        // What neither version passes with says nothing about versions, unless the backend does.
        let fell_back = u64::from(requests.contains("21") && id != "406 in both");
        assert_eq!(running.own("fallbacks", &[]), fell_back, "{id}");
    }
}

/// P7 and P8: what was learned is remembered, for all shards.
#[tokio::test]
async fn the_version_is_remembered() {
    for turns_down in [415, 204] {
        let receiver =
            Receiver::judging(move |_, request| Reply::status(if request.is_v2() { turns_down } else { 204 })).await;
        let running = start(&receiver, "{max_batch_request_parallelism: 3}").await;
        let mut items = 0;
        for step in 0..50 {
            let points = (0..10).map(|n| number(1.0, T + step, &[("n", &n.to_string())])).collect();
            running.push(push(vec![gauge("x", "", points)])).await;
            items += 10;
            running.settled(items).await;
        }
        let asked = receiver.received().iter().filter(|request| request.is_v2()).count();
        assert!((1..=3).contains(&asked), "each shard asks at most once: {asked}");
        assert_eq!(running.ledger.count(Entry::Exported), items);
        assert_eq!(running.own("fallbacks", &[]), 1);
    }
}

/// Once a backend has shown that it knows 2.0, a 400 of something in between is about the content: the request is sent
/// again in halves, as 2.0.
#[tokio::test]
async fn a_refusal_without_headers_is_cut_once_2_is_proven() {
    let receiver = Receiver::judging(|n, request| {
        let is_bad = request.message().timeseries.iter().any(|series| series.samples[0].timestamp == T + 3);
        match is_bad && n > 0 {
            true => Reply { status: 400, body: "firewall", ..Reply::default() },
            false => Reply::status(204).all_or_nothing(request),
        }
    })
    .await;
    let running = start(&receiver, "{max_batch_request_parallelism: 1}").await;
    running.push(super::protocol::one(1.0, T - 1)).await;
    running.settled(1).await;
    let points = (0..5).map(|step| number(step as f64, T + step, &[])).collect();
    running.push(push(vec![gauge("x", "", points)])).await;
    running.settled(6).await;
    assert!(receiver.received().iter().all(super::receiver::Received::is_v2));
    assert_eq!(running.ledger.dropped_count(DropReason::Rejected), 1);
    assert_eq!(running.ledger.count(Entry::Exported), 5);
}

/// A partial write of a request that several pushes share: none of it is sent again, and each bears its part.
#[tokio::test]
async fn partial_writes_are_shared() {
    let receiver = Receiver::judging(|n, request| {
        let samples = request.message().timeseries.len();
        if n < 3 {
            Reply::status(503)
        } else {
            Reply { body: "some are bad", ..Reply::status(400) }.written(samples / 2, 0, 0)
        }
    })
    .await;
    let running =
        start(&receiver, "{max_batch_request_parallelism: 1, retry_on_failure: {initial_interval: 20ms}}").await;
    for step in 0..20 {
        let points = (0..10).map(|n| number(1.0, T + step, &[("n", &n.to_string())])).collect();
        running.push(push(vec![gauge("x", "", points)])).await;
    }
    running.settled(200).await;
    let received = receiver.received();
    assert!(received.len() < 20, "pushes shared requests");
    let all = received.iter().filter(|request| request.status == 400).map(|request| request.message().timeseries.len());
    assert_eq!(all.sum::<usize>(), 200, "each sample was sent once");
    assert_eq!(running.ledger.count(Entry::Exported), running.own("written_samples", &[]));
    assert_eq!(running.ledger.dropped_count(DropReason::PartlyRejected), 200 - running.ledger.count(Entry::Exported));
}

/// Points of several samples, of which a backend has taken any number: the points that are lost are those samples' part of
/// all, rounded up, and at least one is there if any sample was taken.
#[tokio::test]
async fn partial_writes_of_histograms() {
    const POINTS: u64 = 4;
    const SAMPLES: u64 = 5 * POINTS;
    for written in 0..=SAMPLES {
        let status = if written == SAMPLES { 204 } else { 400 };
        let receiver = Receiver::judging(move |_, _| Reply::status(status).written(written as usize, 0, 0)).await;
        let running = start(&receiver, "{max_batch_request_parallelism: 1}").await;
        let points = (0..POINTS as i64).map(|step| {
            let mut point = histogram_point();
            point.time_unix_nano = nanos(T + step);
            histogram(point)
        });
        running.push(push(points.collect())).await;
        running.settled(POINTS).await;
        assert_eq!(receiver.received().len(), 1, "{written}");
        let lost = ((SAMPLES - written) * POINTS).div_ceil(SAMPLES);
        let (rejected, partly) = if written == 0 { (POINTS, 0) } else { (0, lost) };
        assert_eq!(running.ledger.dropped_count(DropReason::Rejected), rejected, "{written}");
        assert_eq!(running.ledger.dropped_count(DropReason::PartlyRejected), partly, "{written}");
        assert_eq!(running.ledger.count(Entry::Exported), POINTS - rejected - partly, "{written}");
    }
}

/// P2: each of several requests has a symbol table of its own texts; none is empty, none is too large. (What a table
/// must be is checked wherever a request is read.)
#[tokio::test]
async fn each_request_has_its_own_symbols() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let running = start(&receiver, "{max_batch_request_parallelism: 1, max_samples_per_send: 40}").await;
    let points = |metric: &str| (0..50).map(|n| number(1.0, T, &[(metric, &format!("{metric}-{n}"))])).collect();
    running.push(push(vec![gauge("a", "s", points("a")), gauge("b", "By", points("b"))])).await;
    running.settled(100).await;
    let sizes: Vec<usize> = receiver.received().iter().map(|request| request.message().timeseries.len()).collect();
    assert_eq!(sizes, [40, 40, 20]);
}

/// Descriptions, which 1.0 does not send, count: a request of 2.0 that grows too large because of them is cut.
#[tokio::test]
async fn long_descriptions_do_not_make_requests_too_large() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let running = start(&receiver, "{max_batch_request_parallelism: 1, max_batch_size_bytes: 5000}").await;
    let metrics = (0..20).map(|n| nyquist_core::proto::metrics::v1::Metric {
        description: n.to_string().repeat(1000),
        ..gauge(&format!("x{n}"), "", vec![number(1.0, T, &[])])
    });
    running.push(push(metrics.collect())).await;
    running.settled(20).await;
    assert_eq!(running.ledger.count(Entry::Exported), 20);
    let sizes: Vec<usize> =
        receiver.received().iter().map(|request| snap::raw::decompress_len(&request.body).unwrap()).collect();
    assert!(sizes.iter().all(|size| (1..=5000).contains(size)), "{sizes:?}");
    assert_eq!(running.own("split_requests", &[]), 0, "nothing was refused");
}

/// Samples that are not later than what their series was delivered with are left out, if that is asked for; what was not
/// delivered does not count.
#[tokio::test]
async fn older_samples_are_left_out() {
    let is_bad = |time: i64| time == T + 1000;
    let receiver = Receiver::judging(move |_, request| {
        let is_bad = request.message().timeseries.iter().any(|series| is_bad(series.samples[0].timestamp));
        Reply::status(if is_bad { 400 } else { 204 }).all_or_nothing(request)
    })
    .await;
    let config = "{drop_out_of_order: {enabled: true}, max_batch_request_parallelism: 1, max_samples_per_send: 2}";
    let running = start(&receiver, config).await;
    let mut sent = 0;
    for step in [5, 4, 5, 1000, 6, 3, 7] {
        let other = number(1.0, T + sent, &[("n", "other")]);
        for point in [number(1.0, T + step, &[]), other] {
            running.push(push(vec![gauge("x", "", vec![point])])).await;
            sent += 1;
            running.settled(sent as u64).await;
        }
    }
    let taken = |name: &str| -> Vec<i64> {
        let received = receiver.received();
        let series =
            received.iter().filter(|request| request.status == 204).flat_map(|request| request.message().timeseries);
        let chosen =
            series.filter(|series| super::prompb::labels(&series.labels).contains("other") == (name == "other"));
        chosen.map(|series| series.samples[0].timestamp - T).collect()
    };
    assert_eq!(taken("x"), [5, 6, 7]);
    assert_eq!(taken("other"), [0, 2, 4, 6, 8, 10, 12]);
    assert_eq!(running.own("dropped_points", &[("reason", "out_of_order")]), 3);
    assert_eq!(running.ledger.dropped_count(DropReason::Untranslatable), 3);
    assert_eq!(running.ledger.dropped_count(DropReason::Rejected), 1);
}
