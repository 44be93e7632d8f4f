//! What people are told: log lines, and metrics that name offenders.

use std::fmt::{Debug, Write};

use nyquist_core::batch::DropReason;
use parking_lot::Mutex;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};

use super::*;

/// Log lines of this thread: the message, then the fields.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target().contains("cardinality_limit") && *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        self.0.lock().push(format!("{}{}", line.message, line.fields));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            name => write!(self.fields, " {name}={value:?}").unwrap(),
        }
    }
}

/// Records the log lines of this thread until the guard goes.
fn lines() -> (Lines, tracing::subscriber::DefaultGuard) {
    let lines = Lines::default();
    (lines.clone(), tracing::subscriber::set_default(lines))
}

/// Users of the metric `name`, one point each at `time`.
fn metric(name: &str, users: std::ops::Range<u64>, time: u64) -> MetricsData {
    let points = users.map(|user| point(&format!("m={},u=user-{user}", user % 2), 1, time)).collect();
    let mut data = request(delta(points));
    data.resource_metrics[0].scope_metrics[0].metrics[0].name = name.to_owned();
    data
}

/// Guarantee: one line when a label is collapsed, with the label, the limit, what the collapse of each label would leave and some of
/// its values; one when the label is released; none in between.
#[tokio::test]
async fn a_collapse_and_its_end_are_one_line_each() {
    for samples in [3, 0] {
        let (lines, _guard) = lines();
        let bench = Bench::new(&format!(
            "{{default: {{max_series_per_metric: 100}}, idle_ttl: 160s, report: {{sample_values: {samples}}}}}"
        ));
        for export in 0..3 {
            bench.step(&metric("c", 0..1000, at(export))).await;
        }
        let told = lines.take();
        assert_eq!(told.len(), 1, "{told:?}");
        let begin = "series budget is used up: the label is collapsed metric=\"c\" label=\"u\" series=100 limit=100 ";
        assert!(told[0].starts_with(begin), "{told:?}");
        assert!(told[0].contains("without=[\"u: 2 of 1") && told[0].contains(", \"m: 1"), "{told:?}");
        assert_eq!(told[0].matches("user-").count(), samples, "{told:?}");
        assert!(told[0].contains("dry_run=false"), "{told:?}");
        // Later a few users are there.
        for export in 10..70 {
            bench.pass_time(10);
            bench.step(&metric("c", 0..10, at(export))).await;
        }
        let told = lines.take();
        let end = "series budget has room again: label is no longer collapsed metric=\"c\" label=\"u\"";
        assert_eq!(told, [end]);
        // And are series of their own again.
        let step = bench.step(&metric("c", 0..10, at(70))).await;
        assert_eq!(values(&step).len(), 10, "{step:?}");
        assert!(!values(&step).keys().any(|series| series.contains("other")), "{step:?}");
    }
}

/// The same of a label's own limit.
#[tokio::test]
async fn a_full_label_is_one_line_and_so_is_its_room() {
    let (lines, _guard) = lines();
    let bench = Bench::new("{default: {max_values_per_label: 20}, idle_ttl: 160s}");
    for export in 0..3 {
        bench.step(&metric("c", 0..30, at(export))).await;
    }
    let told = lines.take();
    assert_eq!(told.len(), 1, "{told:?}");
    let begin =
        "label has too many values: further ones are collapsed metric=\"c\" label=\"u\" limit=20 samples=[\"user-";
    assert!(told[0].starts_with(begin), "{told:?}");
    for export in 10..40 {
        bench.pass_time(10);
        bench.step(&metric("c", 0..5, at(export))).await;
    }
    assert_eq!(lines.take(), ["label has room for values again metric=\"c\" label=\"u\""]);
}

/// What else is over a limit says so once a metric, until it has room again.
#[tokio::test]
async fn other_actions_are_one_line_each() {
    let cases = [
        ("tag_only", "points of this metric are over a limit; they pass, marked metric=\"c\" series=3 limit=3"),
        ("drop_point", "points of this metric are over a limit; they are dropped metric=\"c\" series=3 limit=3"),
        (
            "overflow_series",
            "limits are used up: the surplus of this metric goes to its overflow series metric=\"c\" series=3 limit=3",
        ),
    ];
    for (action, begin) in cases {
        let (lines, _guard) = lines();
        let bench = Bench::new(&format!("{{default: {{max_series_per_metric: 3}}, on_exceed: {action}}}"));
        for export in 0..3 {
            bench.step(&metric("c", 0..30, at(export))).await;
        }
        let told = lines.take();
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].starts_with(begin), "{told:?}");
    }
}

/// Scenario: a hundred metrics explode at once. Guarantee: twenty lines until the next flush, which tells how many more there were.
#[tokio::test]
async fn an_explosion_does_not_fill_the_log() {
    let (lines, _guard) = lines();
    let bench = Bench::new("{default: {max_values_per_label: 5}}");
    for name in 0..100 {
        bench.send(&metric(&format!("m{name}"), 0..10, at(0))).await;
    }
    assert_eq!(lines.take().len(), 20);
    bench.limiter.flush(false).await;
    assert_eq!(lines.take(), ["more labels were collapsed than are logged suppressed=80"]);
    bench.send(&metric("later", 0..10, at(0))).await;
    assert_eq!(lines.take().len(), 1);
}

/// Scenario: `top_n` metrics are there for long before another one explodes, and after that it goes. Guarantee: the offender is named
/// while it is one, with what the collapse of each label would save; there are never more names than `top_n`, and of
/// what a sender calls things no more than 64 bytes are kept.
#[tokio::test]
async fn who_explodes_late_is_named_while_it_does() {
    let bench = Bench::new("{default: {max_series_per_metric: 50}, idle_ttl: 160s, report: {top_n: 3}}");
    let of = |name: &str, metric: &str| bench.own_with(name, &format!("metric=\"{metric}\""));
    let names = |name: &str| {
        let page = bench.telemetry.render("");
        let begin = format!("otelcol_processor_cardinality_limit_{name}{{");
        page.lines().filter(|line| line.starts_with(&begin)).count()
    };
    let long = "n".repeat(10_000);
    let usual = async |export| {
        for metric_name in ["a", "b", "d", &long] {
            bench.send(&metric(metric_name, 0..40, at(export))).await;
        }
    };
    usual(0).await;
    bench.limiter.flush(false).await;
    assert_eq!((names("series"), of("series", "other")), (4, 40.0));
    assert!(bench.telemetry.render("").lines().all(|line| line.len() < 400));

    usual(1).await;
    bench.step(&metric("exploding", 0..5000, at(1))).await;
    let near = |value: f64, expected: f64| (value - expected).abs() < 0.15 * expected;
    assert!(near(of("wanted_series", "exploding"), 5000.0), "{}", of("wanted_series", "exploding"));
    let pair = |label: &str| format!("label=\"{label}\",metric=\"exploding\"");
    let without = |label: &str| bench.own_with("wanted_series_without", &pair(label));
    assert!(near(without("u"), 2.0) && near(without("m"), 5000.0), "{} {}", without("u"), without("m"));
    assert_eq!((names("series"), of("series", "other")), (4, 80.0));
    assert!(of("collapsed_points", "exploding") > 4900.0);
    // The values that got slots before it was collapsed.
    assert!(of("new_label_values", "exploding") >= 50.0, "{}", of("new_label_values", "exploding"));

    for export in 2..40 {
        bench.pass_time(10);
        usual(export).await;
        bench.limiter.flush(false).await;
    }
    for name in ["series", "wanted_series", "wanted_series_without", "label_values", "new_label_values"] {
        let page = bench.telemetry.render("");
        let begin = format!("otelcol_processor_cardinality_limit_{name}{{");
        let shown = page.lines().filter(|line| line.starts_with(&begin) && line.contains("exploding"));
        assert_eq!(shown.count(), 0, "{name}");
    }
    assert_eq!(names("series"), 4);
}

/// Guarantee: of many offenders `top_n` are counted by name, the others together; nothing is missing.
#[tokio::test]
async fn collapsed_points_are_counted_by_name_up_to_top_n() {
    let bench = Bench::new("{default: {max_values_per_label: 5}, report: {top_n: 2}}");
    for name in ["a", "b", "d", "e"] {
        bench.step(&metric(name, 0..10, at(0))).await;
    }
    let of = |metric: &str| bench.own_with("collapsed_points", &format!("metric=\"{metric}\""));
    assert_eq!(["a", "b", "d", "e", "other"].map(of), [5.0, 5.0, 0.0, 0.0, 10.0]);
    let action = bench.own_with("collapsed_points", "action=\"collapse_label\",label=\"u\"");
    assert_eq!(action, 10.0);
}

/// Scenario: tenants come and go. Guarantee: those with the most series are named, and none that has gone.
#[tokio::test]
async fn tenants_that_have_gone_are_not_shown() {
    let bench = Bench::new("{tenant_from: 'resource[\"r\"]', idle_ttl: 160s, report: {top_n: 2}}");
    for round in 0..5 {
        for tenant in 0..5 {
            let points = (0..=tenant).map(|user| point(&format!("u={user}"), 1, at(round))).collect();
            bench.send(&of(&format!("{round}-{tenant}"), delta(points))).await;
        }
        bench.limiter.flush(false).await;
        assert_eq!(bench.own("tenants"), 5.0 + f64::from(u8::from(round > 0)));
        for _ in 0..40 {
            bench.pass_time(10);
            bench.send(&of("steady", delta(vec![point("u=1", 1, at(round))]))).await;
            bench.limiter.flush(false).await;
            bench.emitted();
        }
        let page = bench.telemetry.render("");
        let shown = page.lines().filter(|line| line.contains("tenant_series{"));
        let shown: Vec<&str> = shown.filter_map(|line| line.split("tenant=\"").nth(1)?.split('"').next()).collect();
        assert_eq!(shown, ["other", "steady"], "round {round}");
    }
}

/// Scenario: there is no memory for any metric. Guarantee: what is lost is counted under its reason.
#[tokio::test]
async fn what_there_is_no_memory_for_is_counted() {
    let bench = Bench::new("{memory_limit_mib: 1, max_series: 10000000}");
    for name in 0..3000 {
        bench.send(&metric(&format!("m{name}"), 0..2, at(0))).await;
    }
    bench.limiter.flush(false).await;
    let passed = bench.emitted().len() as u64;
    let lost = bench.ledger.dropped_count(DropReason::MemoryPressure);
    assert!(lost > 0 && passed > 0, "{passed} {lost}");
    assert!(bench.own("state_bytes") <= 1024.0 * 1024.0);
}
