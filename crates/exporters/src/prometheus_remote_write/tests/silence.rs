//! The ends of series that fall silent (`stale_after`).

use std::time::Duration;

use nyquist_core::clock::ManualClock;
use nyquist_core::component::Extensions;
use nyquist_core::proto::metrics::v1::Metric;
use tokio::time::timeout;

use super::protocol::{one, start, start_at};
use super::receiver::{Received, Receiver};
use crate::testing::*;

/// A shutdown is not the end of a series: the next process goes on with it.
#[tokio::test]
async fn a_shutdown_ends_no_series() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let running = start(&receiver, "stale_after: 1h").await;
    running.push(one(1.0, T)).await;
    running.settled(1).await;
    running.shut_down(Duration::from_secs(5)).await;
    let lines = |received: &Received| received.message().timeseries.iter().flat_map(|series| series.lines()).count();
    assert_eq!(receiver.received().iter().map(lines).sum::<usize>(), 1, "the sample, and no stale marker");
}

/// What cannot be ended later, because there is no room to remember it, is counted.
#[tokio::test]
async fn series_without_room_are_counted() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let running = start(&receiver, "{stale_after: 1h, max_stream_state: 1}").await;
    let points = (0..10).map(|n| number(1.0, T, &[("n", &n.to_string())])).collect();
    running.push(push(vec![gauge("x", "", points)])).await;
    running.settled(10).await;
    assert_eq!(running.own("untracked_points", &[]), 9);
}

/// A gauge that is one of a histogram's series was not sent, and when it falls silent it does not end the histogram's.
#[tokio::test]
async fn the_end_of_a_series_that_was_not_sent_is_not_sent() {
    let receiver = Receiver::start(|_| (204, None, "")).await;
    let clock = ManualClock::new(nanos(T));
    let config = "{stale_after: 60s, timeout: 0, target_info: {enabled: false}}";
    let running = start_at(&receiver, config, &Extensions::default(), clock.clone()).await;
    let x = |at| {
        let mut point = histogram_point();
        point.time_unix_nano = nanos(at);
        Metric { name: "x".to_owned(), unit: String::new(), ..histogram(point) }
    };
    let others = ["x.count", "y"].map(|name| gauge(name, "", vec![number(1.0, T, &[])]));
    running.push(push([vec![x(T)], others.into()].concat())).await;
    running.settled(3).await;
    clock.advance(Duration::from_secs(50));
    running.push(push(vec![x(T + 50_000)])).await;
    running.settled(4).await;
    clock.advance(Duration::from_secs(20));
    // From here on waits end at once.
    const DAY: Duration = Duration::from_secs(86_400);
    tokio::time::pause();
    let lines = |received: &[Received]| -> Vec<String> {
        received.iter().flat_map(|request| request.message().timeseries).flat_map(|series| series.lines()).collect()
    };
    let ended = |received: &[Received]| -> Vec<String> {
        lines(received).into_iter().filter(|line| line.contains(" stale@")).collect()
    };
    timeout(DAY, receiver.wait_for(|received| !ended(received).is_empty())).await.unwrap();
    clock.advance(Duration::from_secs(60));
    timeout(DAY, receiver.wait_for(|received| ended(received).len() >= 6)).await.unwrap();
    let ended = ended(&receiver.received());
    let end = |name: &str, after: i64| format!(r#"{name}{{instance="i-1",job="shop/cart"}} stale@{}"#, T + after);
    let of_count: Vec<&String> = ended.iter().filter(|line| line.starts_with("x_count")).collect();
    assert_eq!((&ended[0], of_count), (&end("y", 70_000), vec![&end("x_count", 130_000)]), "{ended:#?}");
}
