use nyquist_core::proto::metrics::v1::{Exemplar, exemplar};

use super::*;

/// Guarantee: a point that comes late is no baseline, also where nothing is known of its stream any more because memory
/// was short or it has ended: what came after it was counted, and is not counted again.
#[tokio::test]
async fn late_points_of_forgotten_streams_count_nothing() {
    for ends in [false, true] {
        let bench = Bench::new("{rules: [{metrics: [c], labels: {u: 0}}]}");
        let names: Vec<String> = (0..20).map(|user| format!("user{user}")).collect();
        let all = |value, time| {
            let values: Vec<_> = names.iter().map(|name| (name.as_str(), value)).collect();
            request(cumulative(users(&values, time)))
        };
        assert_eq!(values(&bench.step(&all(100, at(0))).await)["u=other"], 2000.0);
        assert_eq!(values(&bench.step(&all(120, at(2))).await)["u=other"], 2400.0);
        bench.pass_time(30);
        if ends {
            let points = names.iter().map(|name| end(&format!("u={name}"), at(3))).collect();
            bench.step(&request(cumulative(points))).await;
        } else {
            bench.limiter.shared.starve();
            bench.limiter.flush(false).await;
            assert!(bench.own("evictions") >= 10.0);
        }
        // One that was sent before the second one.
        let late = bench.step(&all(110, at(1))).await;
        let before = bench.own("rebaselined");
        let step = bench.step(&all(121, at(4))).await;
        let grown = step.iter().chain(&late).map(|point| point.value).fold(0.0, f64::max);
        // After the flag the series begins anew.
        let had = if ends { 0.0 } else { 2400.0 };
        assert_eq!(grown + bench.own("rebaselined") - before, had + 20.0, "each has grown by one; ends {ends}");
        assert_eq!(before, if ends { 20.0 } else { 10.0 }, "the late ones were counted; ends {ends}");
    }
}

/// Scenario: the first point of a stream without a start comes when memory was just short, so that it may be a late one of a stream that is
/// forgotten, and counts nothing; then the stream earns a slot of its own. Guarantee: there it begins anew. What
/// `rebaselined` has counted does not come out after all.
#[tokio::test]
async fn what_was_skipped_does_not_come_out_later() {
    let bench = Bench::new("{rules: [{metrics: [c], labels: {u: 50}}], min_sightings: 2}");
    let points = (0..20).map(|user| point(&format!("u={user}"), 1, at(0))).collect();
    bench.step(&request(cumulative(points))).await;
    bench.limiter.shared.starve();
    bench.limiter.flush(false).await;
    let unknown = |value, time| NumberDataPoint { start_time_unix_nano: 0, ..point("u=z", value, time) };
    for (value, export, expected, rebaselined) in [(30, 0, None, 1.0), (54, 1, Some(0.0), 2.0), (60, 2, Some(6.0), 2.0)]
    {
        let step = bench.step(&request(cumulative(vec![unknown(value, at(export))]))).await;
        assert_eq!(values(&step).get("u=z").copied(), expected, "{value}");
        assert_eq!(bench.own("rebaselined"), rebaselined, "{value}");
    }
}

async fn two_users() -> Bench {
    let bench = Bench::new(&format!("{{{TWO_USERS}}}"));
    let first = bench.step(&request(cumulative(users(&[("a", 1), ("b", 2)], at(0))))).await;
    assert_eq!(values(&first), map(&[("u=a", 1.0), ("u=b", 2.0)]), "L1");
    bench
}

#[tokio::test]
async fn cumulative_sums_collapse_by_their_increments() {
    let bench = two_users().await;
    let step = bench.step(&request(cumulative(users(&[("a", 1), ("b", 2), ("c", 5), ("d", 7)], at(1))))).await;
    assert_eq!(values(&step), map(&[("u=a", 1.0), ("u=b", 2.0), ("u=other", 12.0)]), "L2");
    let other = step.iter().find(|point| point.attributes == "u=other").unwrap();
    assert_eq!((other.start, other.time), (START, at(1)), "L2");
    assert_eq!(other.resource, "r=1", "L2");

    let step = bench.step(&request(cumulative(users(&[("c", 8), ("d", 7), ("e", 1)], at(2))))).await;
    assert_eq!(values(&step), map(&[("u=other", 16.0)]), "L3");

    let restarted = NumberDataPoint { start_time_unix_nano: at(2) + 1, ..point("u=c", 2, at(3)) };
    let step = bench.step(&request(cumulative(vec![restarted]))).await;
    assert_eq!(values(&step), map(&[("u=other", 18.0)]), "L4");
    assert_eq!((step[0].start, step[0].time), (START, at(3)), "L4: the start stays");

    let step = bench.step(&request(cumulative(vec![end("u=c", at(4))]))).await;
    assert_eq!(step, [], "L5: the end of one contributor is not the end of the sum");
    let step = bench.step(&request(cumulative(users(&[("d", 9)], at(5))))).await;
    assert_eq!(values(&step), map(&[("u=other", 20.0)]), "L5");
    // The output ends when nobody is left.
    let ends = vec![end("u=d", at(6)), end("u=e", at(6))];
    let step = bench.step(&request(cumulative(ends))).await;
    assert!(step.len() == 1 && step[0].is_end && step[0].attributes == "u=other", "{step:?}");
}

#[tokio::test]
async fn delta_sums_add_up_once_a_flush() {
    let bench = Bench::new(&format!("{{{TWO_USERS}}}"));
    let step = bench.step(&request(delta(users(&[("a", 1), ("b", 2), ("c", 5), ("d", 7)], at(0))))).await;
    assert_eq!(values(&step)["u=other"], 12.0, "L6");
    let next = NumberDataPoint { start_time_unix_nano: at(0), ..point("u=c", 3, at(1)) };
    let step = bench.step(&request(delta(vec![next]))).await;
    assert_eq!(values(&step), map(&[("u=other", 3.0)]), "L6");
    assert_eq!((step[0].start, step[0].time), (at(0), at(1)), "L6");
    bench.limiter.flush(false).await;
    assert_eq!(bench.emitted(), [], "nothing new, nothing to say");
}

#[tokio::test]
async fn an_export_in_two_batches_gives_one_point() {
    let bench = two_users().await;
    bench.send(&request(cumulative(users(&[("c", 5)], at(1))))).await;
    let step = bench.step(&request(cumulative(users(&[("d", 7)], at(1))))).await;
    assert_eq!(values(&step), map(&[("u=other", 12.0)]), "L7");
    assert_eq!((step.len(), step[0].time), (1, at(1)), "L7");

    // A part that comes after the flush waits for a newer time ...
    let step = bench.step(&request(cumulative(users(&[("e", 1)], at(1))))).await;
    assert_eq!(step, []);
    assert_eq!(bench.ledger.held_count(), 1);
    let step = bench.step(&request(cumulative(users(&[("c", 6)], at(2))))).await;
    assert_eq!(values(&step), map(&[("u=other", 14.0)]));
    // ... but not for ever.
    bench.send(&request(cumulative(users(&[("f", 1)], at(2))))).await;
    let mut late = Vec::new();
    for _ in 0..10 {
        bench.limiter.flush(false).await;
        late.extend(bench.emitted());
    }
    assert_eq!(values(&late), map(&[("u=other", 15.0)]));
    assert_eq!((late.len(), late[0].time), (1, at(2) + 1_000_000));
}

#[tokio::test]
async fn gauges_report_what_is_asked_for() {
    for (mode, expected) in [("last", 9.0), ("max", 9.0), ("min", 5.0), ("avg", 7.0), ("sum", 14.0)] {
        let bench = Bench::new(&format!("{{{TWO_USERS}, gauge: {mode}}}"));
        let mut points = users(&[("a", 1), ("b", 2), ("c", 5)], at(1));
        points.push(point("u=d", 9, at(1) + SECOND));
        let step = bench.step(&request(gauge(points))).await;
        assert_eq!(values(&step)["u=other"], expected, "L8 {mode}");
        let other = step.iter().find(|point| point.attributes == "u=other").unwrap();
        assert_eq!((other.start, other.time), (0, at(1) + SECOND), "L8 {mode}");
    }
}

/// Scenario: all streams of a mean or a sum of gauges end before what they said last has been reported. Guarantee: it ends, and shows
/// no value that is nobody's, neither after other reports nor as its first; what waited is accounted for.
#[tokio::test]
async fn gauges_of_nobody_have_no_value() {
    for mode in ["avg", "sum"] {
        all_end_at_once(&Bench::new(&format!("{{{TWO_USERS}, gauge: {mode}}}"))).await;
    }
}

async fn all_end_at_once(bench: &Bench) {
    let mut points = users(&[("a", 1), ("b", 2), ("c", 5)], at(1));
    let step = bench.step(&request(gauge(points.clone()))).await;
    assert_eq!(values(&step)["u=other"], 5.0);
    for (said, ended) in [(2, 2), (4, 5)] {
        bench.send(&request(gauge(vec![point("u=d", 9, at(said)), point("u=c", 7, at(said))]))).await;
        assert_eq!(bench.ledger.held_count(), 2);
        let step = bench.step(&request(gauge(vec![end("u=c", at(ended)), end("u=d", at(ended))]))).await;
        assert!(step.len() == 1 && step[0].is_end && step[0].attributes == "u=other", "{step:?}");
        assert!(step[0].time > at(said - 1), "{step:?}");
        assert_eq!(bench.ledger.held_count(), 0);
    }
    points.truncate(2);
    let step = bench.step(&request(gauge(points))).await;
    assert!(!values(&step).contains_key("u=other"), "{step:?}");
}

#[tokio::test]
async fn a_sum_that_can_fall_loses_what_is_idle() {
    let bench = Bench::new(&format!("{{{TWO_USERS}, idle_ttl: 160s}}"));
    let step = bench.step(&request(up_down(users(&[("a", 1), ("b", 1), ("c", 5), ("d", 9)], at(0))))).await;
    assert_eq!(values(&step)["u=other"], 14.0, "L9");
    let mut last = step;
    for export in 1..20 {
        bench.pass_time(20);
        last = bench.step(&request(up_down(users(&[("a", 1), ("b", 1), ("c", 5)], at(2 * export))))).await;
    }
    assert_eq!(values(&last)["u=other"], 5.0, "L9");
    // A flag takes a value out at once.
    bench.step(&request(up_down(users(&[("d", 9)], at(39))))).await;
    bench.send(&request(up_down(vec![end("u=c", at(40))]))).await;
    let step = bench.step(&request(up_down(users(&[("d", 8)], at(41))))).await;
    assert_eq!(values(&step), map(&[("u=other", 8.0)]));
}

#[tokio::test]
async fn a_stream_that_may_have_been_counted_before_sets_a_baseline() {
    let bench = two_users().await;
    let old = |value, time| NumberDataPoint { start_time_unix_nano: BEGIN - 1, ..point("u=c", value, time) };
    let step = bench.step(&request(cumulative(vec![old(100, at(1))]))).await;
    assert_eq!(values(&step), map(&[("u=other", 0.0)]));
    assert_eq!(bench.own("rebaselined"), 1.0);
    let step = bench.step(&request(cumulative(vec![old(130, at(2))]))).await;
    assert_eq!(values(&step), map(&[("u=other", 30.0)]));
    // Without a start nothing is known of what came before either.
    let unknown = |value, time| NumberDataPoint { start_time_unix_nano: 0, ..point("u=d", value, time) };
    let step = bench.step(&request(cumulative(vec![unknown(7, at(3))]))).await;
    assert_eq!(values(&step), map(&[("u=other", 30.0)]));
    let step = bench.step(&request(cumulative(vec![unknown(9, at(4))]))).await;
    assert_eq!(values(&step), map(&[("u=other", 32.0)]));
}

#[tokio::test]
async fn late_and_repeated_points_change_nothing() {
    let bench = two_users().await;
    bench.step(&request(cumulative(users(&[("c", 5)], at(3))))).await;
    bench.send(&request(cumulative(users(&[("c", 5)], at(3))))).await;
    let step = bench.step(&request(cumulative(users(&[("c", 2)], at(2))))).await;
    assert_eq!(step, []);
    let step = bench.step(&request(cumulative(users(&[("c", 6)], at(4))))).await;
    assert_eq!(values(&step), map(&[("u=other", 6.0)]));
}

#[tokio::test]
async fn a_static_rule_replaces_the_label_everywhere() {
    let bench = Bench::new("{rules: [{metrics: ['http.*', c], labels: {http.url: 0}}]}");
    let labels = |index: i64| format!("http.url=/{index},m=get");
    let points = (0..100).map(|index| point(&labels(index), index, at(0))).collect();
    let step = bench.step(&request(delta(points))).await;
    assert_eq!(values(&step), map(&[("http.url=other,m=get", 4950.0)]), "L28");

    let removing = Bench::new("{rules: [{metrics: [c], labels: {http.url: 0}}], replacement: ''}");
    let points = (0..3).map(|index| point(&labels(index), 1, at(0))).collect();
    let step = removing.step(&request(delta(points))).await;
    assert_eq!(values(&step), map(&[("m=get", 3.0)]));
}

#[tokio::test]
async fn a_senders_own_series_called_other_joins_the_collapsed_one() {
    let bench = Bench::new(&format!("{{{TWO_USERS}}}"));
    let step = bench.step(&request(cumulative(users(&[("a", 1), ("other", 10)], at(0))))).await;
    assert_eq!(values(&step), map(&[("u=a", 1.0), ("u=other", 10.0)]));
    let step = bench.step(&request(cumulative(users(&[("other", 11), ("c", 5)], at(1))))).await;
    // Its own point of this time has passed: the collapsed one waits for a newer time.
    assert_eq!(values(&step), map(&[("u=other", 11.0)]));
    assert_eq!(step.len(), 1, "{step:?}");
    // From now on there is one series of that name; what the sender had is a baseline.
    let step = bench.step(&request(cumulative(users(&[("other", 15), ("c", 6)], at(2))))).await;
    assert_eq!(values(&step), map(&[("u=other", 6.0)]));
    let step = bench.step(&request(cumulative(users(&[("other", 18), ("c", 6)], at(3))))).await;
    assert_eq!(values(&step), map(&[("u=other", 9.0)]));
}

/// Scenario: the same; then all of them are silent until nothing of the collapsed series is left, and the sender's own series comes
/// again. Guarantee: what it had said before counts once; it begins anew.
#[tokio::test]
async fn a_senders_own_series_comes_again_when_the_collapsed_one_is_forgotten() {
    let bench = Bench::new(&format!("{{{TWO_USERS}, idle_ttl: 160s}}"));
    let step = bench.step(&request(cumulative(users(&[("a", 1), ("other", 30)], at(0))))).await;
    assert_eq!(values(&step), map(&[("u=a", 1.0), ("u=other", 30.0)]));
    bench.step(&request(cumulative(users(&[("c", 5)], at(1))))).await;
    let mut last = Vec::new();
    for export in 2..80 {
        bench.pass_time(10);
        last.extend(bench.step(&request(cumulative(users(&[("a", 1)], at(export))))).await);
    }
    last.retain(|point| point.attributes == "u=other");
    assert!(last.len() == 2 && last[0].value == 5.0 && last[1].is_end, "{last:?}");
    // Of what it had said, and of what it has grown by in between, nothing counts.
    let step = bench.step(&request(cumulative(users(&[("other", 36)], at(80))))).await;
    assert_eq!(step, [], "it was reported before, and waits for a newer time");
    assert_eq!(bench.own("rebaselined"), 1.0);
    let step = bench.step(&request(cumulative(users(&[("other", 40)], at(81))))).await;
    assert_eq!(values(&step), map(&[("u=other", 4.0)]));
    assert!(step[0].start > last[1].time, "{step:?}");
}

#[tokio::test]
async fn outputs_never_mix_resources() {
    let bench = Bench::new(&format!("{{{TWO_USERS}}}"));
    for resource in ["1", "2"] {
        bench.step(&of(resource, delta(users(&[("a", 1), ("b", 1)], at(0))))).await;
    }
    bench.send(&of("1", delta(users(&[("c", 5)], at(1))))).await;
    let step = bench.step(&of("2", delta(users(&[("d", 7)], at(1))))).await;
    let series: BTreeMap<String, f64> = step.iter().map(|point| (point.series(), point.value)).collect();
    assert_eq!(series, map(&[("r=1/c{u=other}", 5.0), ("r=2/c{u=other}", 7.0)]), "L30");
}

/// Guarantee: what is collapsed in two scopes is two series, each in its own.
#[tokio::test]
async fn outputs_never_mix_scopes() {
    use nyquist_core::proto::common::v1::InstrumentationScope;
    let bench = Bench::new("{rules: [{metrics: [c], labels: {u: 0}}]}");
    let scoped = |name: &str, values: &[(&str, i64)]| {
        let mut data = request(delta(users(values, at(0))));
        let scope = InstrumentationScope { name: name.to_owned(), ..InstrumentationScope::default() };
        data.resource_metrics[0].scope_metrics[0].scope = Some(scope);
        data
    };
    bench.send(&scoped("one", &[("a", 1), ("b", 2)])).await;
    bench.send(&scoped("two", &[("a", 10), ("d", 20)])).await;
    bench.limiter.flush(false).await;
    let mut seen = BTreeMap::new();
    for mut batch in bench.sink.take() {
        let data = batch.metrics_mut().unwrap().clone();
        for scope in data.resource_metrics.into_iter().flat_map(|resource| resource.scope_metrics) {
            let name = scope.scope.clone().unwrap_or_default().name;
            let Some(Data::Sum(sum)) = &scope.metrics[0].data else { panic!("{scope:?}") };
            assert_eq!((scope.metrics.len(), sum.data_points.len()), (1, 1));
            assert!(seen.insert(name, number(&sum.data_points[0])).is_none());
        }
    }
    assert_eq!(seen, map(&[("one", 3.0), ("two", 30.0)]));
}

/// L32: an exemplar of a collapsed point goes with the sum, and keeps the label that was taken from the series.
#[tokio::test]
async fn exemplars_go_with_the_sum_and_keep_the_label() {
    let exemplar = |value: i64, time| Exemplar {
        time_unix_nano: time,
        filtered_attributes: attributes("path=/x"),
        trace_id: vec![7; 16],
        value: Some(exemplar::Value::AsInt(value)),
        ..Exemplar::default()
    };
    let exemplars = |step: &[Point]| match &step.iter().find(|point| point.attributes == "u=other").unwrap().data {
        Data::Sum(sum) => sum.data_points[0].exemplars.clone(),
        other => panic!("{other:?}"),
    };
    let bench = Bench::new(&format!("{{{TWO_USERS}}}"));
    let mut sent = users(&[("a", 1), ("b", 2), ("c", 5)], at(0));
    sent[0].exemplars = vec![exemplar(1, at(0))];
    sent[2].exemplars = vec![exemplar(5, at(0))];
    let step = bench.step(&request(cumulative(sent))).await;
    let mut expected = exemplar(5, at(0));
    expected.filtered_attributes = attributes("path=/x,u=c");
    assert_eq!(exemplars(&step), [expected], "L32");
    assert_eq!(bench.own("dropped_exemplars"), 0.0, "L32");
    // The newest four; once.
    let mut sent = users(&[("c", 6), ("d", 1)], at(1));
    sent[0].exemplars = (0..10).map(|index| exemplar(index, at(0) + index as u64)).collect();
    sent[1].exemplars = vec![exemplar(99, at(1))];
    let mut times: Vec<u64> =
        exemplars(&bench.step(&request(cumulative(sent))).await).iter().map(|one| one.time_unix_nano).collect();
    times.sort_unstable();
    assert_eq!(times, [at(0) + 7, at(0) + 8, at(0) + 9, at(1)], "L32");
    assert_eq!(bench.own("dropped_exemplars"), 7.0, "L32");
    let step = bench.step(&request(cumulative(users(&[("c", 7)], at(2))))).await;
    assert_eq!(exemplars(&step), [], "L32");
}

/// Scenario: a collapsed sum is NaN or infinite for once. Guarantee: it goes on from where it was, and counts nothing
/// twice.
#[tokio::test]
async fn what_is_no_number_is_no_baseline() {
    let kinds = [("cumulative", cumulative as fn(_) -> Data, 101.0), ("up_down", up_down, 101.0)];
    for (kind, data, expected) in kinds {
        for odd in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let bench = Bench::new("{rules: [{metrics: [c], labels: {u: 0}}]}");
            let mut last = Vec::new();
            for (n, value) in (0..).zip([100.0, odd, 101.0]) {
                let value = Some(number_data_point::Value::AsDouble(value));
                last = bench.step(&request(data(vec![NumberDataPoint { value, ..point("u=c", 0, at(n)) }]))).await;
            }
            assert_eq!(values(&last), map(&[("u=other", expected)]), "{kind}: {odd}");
            assert_eq!(bench.own("rebaselined"), 0.0, "{kind}: {odd}");
        }
    }
}
