//! Sinks that are down, slow, full, in a bad mood.

use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::support::{Behaviour, long_run};
use super::*;

const HINT: Duration = Duration::from_secs(1);

/// Scenario: under load, two sinks (gRPC and HTTP) are down, refuse with and without hints, are slow, hang, and break
/// streams off, one after the other. Guarantee: everything acknowledged arrives at both; twice only what a sink took
/// without saying so; a hint is kept.
#[test]
fn sinks_of_every_mood() {
    let storage = TempDir::new().unwrap();
    let mut sinks = [Backend::start(), Backend::start()];
    let exporters =
        grpc(&sinks[0], "retry_resource_exhausted: true") + &delivery(ON_DISK) + "\n" + &http(&sinks[1], "");
    let gateway = Gateway::start(&config(storage.path(), &(exporters + &delivery(ON_DISK)), "otlp, otlp_http"));
    let sent = Arc::new(Sent::default());
    let load = Load::start(&gateway, &sent);
    let mut before = [0, 0];
    // How many requests a sink must get while it is in a mood.
    let enough = if long_run() { 200 } else { 12 };
    for mood in [
        None,
        Some(Behaviour::Unavailable),
        Some(Behaviour::Later(HINT)),
        Some(Behaviour::Exhausted(None)),
        Some(Behaviour::Exhausted(Some(HINT))),
        Some(Behaviour::Slow(Duration::from_millis(200))),
        Some(Behaviour::Hang),
        Some(Behaviour::Reset),
        Some(Behaviour::TakeAndReset),
    ] {
        let mishandled = [&sinks[0], &sinks[1]].map(|sink| sink.mishandled().len());
        let at_start = sent.count();
        match mood {
            None => sinks.iter_mut().for_each(Backend::stop),
            Some(mood) => sinks.iter().for_each(|sink| sink.behave(mood)),
        }
        let is_counted = !matches!(mood, None | Some(Behaviour::Slow(_)));
        eventually("the mood has been felt", || {
            let felt = [0, 1].map(|index| sinks[index].mishandled().len() - mishandled[index]);
            let is_felt = !is_counted || felt.iter().all(|felt| *felt >= enough);
            if is_felt && sent.count() >= at_start + 50 * SPANS { Ok(()) } else { Err((felt, sent.count() - at_start)) }
        });
        match mood {
            None => sinks.iter_mut().for_each(Backend::restart),
            Some(_) => sinks.iter().for_each(|sink| sink.behave(Behaviour::Accept)),
        }
        for (index, sink) in sinks.iter().enumerate() {
            let now = sent.wait_until_all_arrived(sink);
            let doubled = now - before[index];
            before[index] = now;
            println!("{mood:?}, sink {index}: {} spans acknowledged, {doubled} came twice", sent.count() - at_start);
            let unsaid = sink.mishandled().len() - mishandled[index];
            let bound = if mood == Some(Behaviour::TakeAndReset) { unsaid * SPANS } else { 0 };
            assert!(doubled <= bound, "{mood:?}: {doubled} spans came twice, at most {bound} may");
        }
        if matches!(mood, Some(Behaviour::Later(_) | Behaviour::Exhausted(Some(_)))) {
            sinks.iter().zip(mishandled).for_each(|(sink, from)| assert_hints_were_kept(&sink.mishandled()[from..]));
        }
    }
    load.stop();
    for (sink, exporter) in sinks.iter().zip(["otlp", "otlp_http"]) {
        sent.wait_until_all_arrived(sink);
        assert_eq!(settled(&gateway, exporter), 0.0, "{exporter} dropped something");
    }
    assert_eq!(gateway.terminate().code, Some(0));
}

/// No request came again before it was asked to.
fn assert_hints_were_kept(refused: &[(SpanKey, Instant)]) {
    for (index, (key, when)) in refused.iter().enumerate() {
        let again = refused[index + 1..].iter().find(|(other, _)| other == key);
        // A little for the time between the sink's clock and its answer.
        let early = again.filter(|(_, again)| *again - *when < HINT - Duration::from_millis(50));
        assert!(early.is_none(), "came again after {:?}", early.map(|(_, again)| *again - *when));
    }
}

/// Scenario: `RESOURCE_EXHAUSTED` without a hint, nothing said about it. Guarantee: as OTLP has it, the request is given
/// up, counted and logged; the rest arrives.
#[test]
fn resource_exhausted_without_a_hint_is_final_by_default() {
    let storage = TempDir::new().unwrap();
    let sink = Backend::start();
    sink.behave(Behaviour::Exhausted(None));
    let gateway = Gateway::start(&config(storage.path(), &(grpc(&sink, "") + &delivery(ON_DISK)), "otlp"));
    let (refused, sent) = (Sent::default(), Sent::default());
    let mut client = gateway.client();
    (0..10).for_each(|_| refused.send(&mut client).unwrap());
    assert_eq!(settled(&gateway, "otlp"), (10 * SPANS) as f64);
    let labels = [("account", "exporter/otlp"), ("signal", "traces"), ("reason", "rejected")];
    assert_eq!(gateway.metrics().sum("nyquist_ledger_dropped_items", &labels), (10 * SPANS) as f64);
    sink.behave(Behaviour::Accept);
    sent.next.store(1000, Ordering::Relaxed);
    (0..10).for_each(|_| sent.send(&mut client).unwrap());
    assert_eq!(sent.wait_until_all_arrived(&sink), 0);
    let ended = gateway.terminate();
    assert!(ended.output.contains("Exporting failed. Dropping data."), "{}", ended.output);
}

/// Scenario: a sink answers `OUT_OF_RANGE` to more requests than are on their way at once, and takes the others. Guarantee: they
/// are tried again, but not for ever, though nothing else gives up what is on disk: they are dropped as rejected, with the
/// sink's words in the log, and the others come through.
#[test]
fn what_is_out_of_range_makes_room_for_the_rest() {
    let storage = TempDir::new().unwrap();
    let sink = Backend::start();
    sink.behave(Behaviour::OutOfRange);
    let gateway = Gateway::start(&config(storage.path(), &(grpc(&sink, "") + &delivery(ON_DISK)), "otlp"));
    let (refused, sent) = (Sent::default(), Sent::default());
    let mut client = gateway.client();
    (0..2 * CONSUMERS).for_each(|_| refused.send(&mut client).unwrap());
    assert_eq!(settled(&gateway, "otlp"), (2 * CONSUMERS * SPANS) as f64);
    assert_eq!(sink.mishandled().len(), 2 * CONSUMERS * 20);
    let labels = [("account", "exporter/otlp"), ("signal", "traces"), ("reason", "rejected")];
    assert_eq!(gateway.metrics().sum("nyquist_ledger_dropped_items", &labels), (2 * CONSUMERS * SPANS) as f64);
    sink.behave(Behaviour::Accept);
    sent.next.store(1000, Ordering::Relaxed);
    (0..10).for_each(|_| sent.send(&mut client).unwrap());
    assert_eq!(sent.wait_until_all_arrived(&sink), 0);
    let ended = gateway.terminate();
    let tells = |line: &str| line.contains("Exporting failed. Dropping data.") && line.contains("too far back");
    assert!(ended.output.lines().any(tells), "{}", ended.output);
}

/// Scenario: sinks take a part of each request. Guarantee: the rest is counted, to the span; nothing comes again.
#[test]
fn partial_success_is_counted_and_not_repeated() {
    let storage = TempDir::new().unwrap();
    let sinks = [Backend::start(), Backend::start()];
    sinks.iter().for_each(|sink| sink.behave(Behaviour::Partly(2)));
    let exporters = grpc(&sinks[0], "") + &delivery(ON_DISK) + "\n" + &http(&sinks[1], "");
    let gateway = Gateway::start(&config(storage.path(), &(exporters + &delivery(ON_DISK)), "otlp, otlp_http"));
    let sent = Sent::default();
    let mut client = gateway.client();
    (0..50).for_each(|_| sent.send(&mut client).unwrap());
    for (sink, exporter) in sinks.iter().zip(["otlp", "otlp_http"]) {
        assert_eq!(settled(&gateway, exporter), 100.0);
        assert_eq!(compare(&sent.acknowledged.lock().unwrap(), sink), (100, 0));
        let labels = [("account", &*format!("exporter/{exporter}")), ("reason", "partly_rejected")];
        assert_eq!(gateway.metrics().sum("nyquist_ledger_dropped_items", &labels), 100.0);
    }
}

/// Scenario: sinks whose limit is a small part of what a request has. Guarantee: it arrives in pieces, each span once.
#[test]
fn what_is_larger_than_a_sinks_limit_arrives_in_pieces() {
    let storage = TempDir::new().unwrap();
    let sinks = [Backend::start(), Backend::start()];
    sinks.iter().for_each(|sink| sink.behave(Behaviour::Small(10_000)));
    let exporters = grpc(&sinks[0], "") + &delivery(ON_DISK) + "\n" + &http(&sinks[1], "");
    let gateway = Gateway::start(&config(storage.path(), &(exporters + &delivery(ON_DISK)), "otlp, otlp_http"));
    let sent = Sent::default();
    let mut client = gateway.client();
    for number in 0..5 {
        let request = traces_request("faults", trace(number, 400));
        assert!(request.encoded_len() > 40_000);
        assert_eq!(client.traces(&request).status, OK);
        sent.acknowledged.lock().unwrap().extend(span_keys(&request));
    }
    for (sink, exporter) in sinks.iter().zip(["otlp", "otlp_http"]) {
        assert_eq!(sent.wait_until_all_arrived(sink), 0);
        assert_eq!(settled(&gateway, exporter), 0.0);
    }
}

/// Scenario: two exporters with queues on disk; one sink is dead for a while (minutes in the long form), and the gateway
/// is killed in the middle of it. Guarantee: the other sink goes on receiving; in the end both have everything; the dead
/// one nothing twice, the other one only what was on its way when the gateway was killed.
#[test]
fn one_of_two_sinks_is_dead() {
    let outage = Duration::from_secs(if long_run() { 180 } else { 3 });
    let storage = TempDir::new().unwrap();
    let (living, mut dead) = (Backend::start(), Backend::stopped());
    let exporters = grpc(&living, "") + &delivery(ON_DISK) + "\n" + &http(&dead, "");
    let config = config(storage.path(), &(exporters + &delivery(ON_DISK)), "otlp, otlp_http");
    let sent = Arc::new(Sent::default());
    let mut gateway = Gateway::start(&config);
    for half in 0..2 {
        let load = Load::start(&gateway, &sent);
        let began = Instant::now();
        while began.elapsed() < outage / 2 {
            let before = living.span_count();
            eventually("the living sink receives", || match living.span_count() {
                now if now > before => Ok(()),
                now => Err(now),
            });
        }
        if half == 0 {
            gateway.kill();
            gateway = Gateway::start(&config);
        }
        load.stop();
    }
    dead.restart();
    assert_eq!(sent.wait_until_all_arrived(&dead), 0, "nothing was on its way to the dead sink");
    let doubled = sent.wait_until_all_arrived(&living);
    println!("{} spans acknowledged, {doubled} came twice to the living sink", sent.count());
    // Those on their way, and four times as many whose outcome was known and not on disk yet.
    assert!(doubled <= 5 * CONSUMERS * SPANS, "{doubled}");
    for exporter in ["otlp", "otlp_http"] {
        assert_eq!(settled(&gateway, exporter), 0.0);
    }
    assert_eq!(gateway.terminate().code, Some(0));
}
