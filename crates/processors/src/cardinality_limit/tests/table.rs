//! The rows of the test plan that are sums and gauges in steps.
//!
//! A step is what is sent and what comes out after a flush. `sum@2 c:5 d:7!` sends cumulative sums of the
//! series `u=c` and `u=d` as export number 2; `!` is a stream that began anew just before, `end` instead of a
//! value is the flag "no recorded value". What comes out are the series with their values, `end` for a flag.
//! Labels other than `u` are written out: `m=get,url=x:5`.

use super::*;

struct Row {
    name: &'static str,
    config: &'static str,
    steps: &'static [(&'static str, &'static str)],
}

const LIMIT: &str = "rules: [{metrics: [c], labels: {u: 2}}]";

const fn row(name: &'static str, config: &'static str, steps: &'static [(&'static str, &'static str)]) -> Row {
    Row { name, config, steps }
}

const ROWS: &[Row] = &[
    row("L1: within the limit nothing changes", "", &[("sum@0 a:1 b:2", "a:1 b:2")]),
    row(
        "L2 to L5: cumulative sums collapse by their increments",
        "",
        &[
            ("sum@0 a:1 b:2", "a:1 b:2"),
            ("sum@1 c:5 d:7", "other:12"),
            ("sum@2 c:8 d:7 e:1", "other:16"),
            ("sum@3 c:2!", "other:18"),
            ("sum@4 c:end", ""),
            ("sum@5 d:8", "other:19"),
        ],
    ),
    row("L6: deltas are added", "", &[("delta@0 a:1 b:2 c:5 d:7", "a:1 b:2 other:12"), ("delta@1 c:3", "other:3")]),
    row(
        "L7: two batches of one export are one point",
        "",
        &[("sum@0 a:1 b:2", "a:1 b:2"), ("more sum@1 c:5", ""), ("sum@1 d:7", "other:12")],
    ),
    row(
        "L8 last",
        "gauge: last",
        &[("gauge@0 a:1 b:2", "a:1 b:2"), ("more gauge@1 c:5", ""), ("gauge@2 d:9", "other:9")],
    ),
    row(
        "L8 max",
        "gauge: max",
        &[("gauge@0 a:1 b:2", "a:1 b:2"), ("more gauge@1 c:11", ""), ("gauge@2 d:9", "other:11")],
    ),
    row(
        "L8 min",
        "gauge: min",
        &[("gauge@0 a:1 b:2", "a:1 b:2"), ("more gauge@1 c:5", ""), ("gauge@2 d:9", "other:5")],
    ),
    row(
        "L8 avg",
        "gauge: avg",
        &[("gauge@0 a:1 b:2", "a:1 b:2"), ("more gauge@1 c:5", ""), ("gauge@2 d:9", "other:7")],
    ),
    row(
        "L8 sum",
        "gauge: sum",
        &[("gauge@0 a:1 b:2", "a:1 b:2"), ("more gauge@1 c:5", ""), ("gauge@2 d:9", "other:14")],
    ),
    row("L8 drop", "gauge: drop", &[("gauge@0 a:1 b:2", "a:1 b:2"), ("gauge@1 c:5 d:9", "")]),
    row(
        "L9: a sum that can fall loses what is idle",
        "idle_ttl: 160s",
        &[
            ("updown@0 a:1 b:1 c:5 d:9", "a:1 b:1 other:14"),
            ("idle 90", ""),
            ("updown@9 a:1 b:1 c:5", "a:1 b:1 other:14"),
            ("idle 90", ""),
            ("updown@18 a:1 b:1 c:5", "a:1 b:1 other:5"),
        ],
    ),
    row(
        "L19: the remainder is one series",
        "default: {max_series_per_metric: 2, max_values_per_label: 100}, protect_labels: [u], rules: []",
        &[("sum@0 a:1 b:2 c:3 d:4", "a:1 b:2 otel.metric.overflow=true:7")],
    ),
    row(
        "L20: exactly the limit does not overflow",
        "default: {max_series_per_metric: 4, max_values_per_label: 100}, rules: []",
        &[("sum@0 a:1 b:2 c:3 d:4", "a:1 b:2 c:3 d:4"), ("sum@1 d:5 c:4 b:3 a:2", "a:2 b:3 c:4 d:5")],
    ),
    row(
        "L21: an idle value gives its slot to a new one",
        "idle_ttl: 160s",
        &[
            ("sum@0 a:1 b:2", "a:1 b:2"),
            ("idle 90", ""),
            ("sum@9 b:2", "b:2"),
            ("idle 90", ""),
            ("sum@18 b:2", "b:2"),
            ("sum@19 b:2 z:5", "b:2 z:5"),
            ("sum@20 a:9", "other:0"),
            ("sum@21 a:11", "other:2"),
        ],
    ),
    row(
        "L22: after a restart with storage the slots are whose they were",
        "storage: place",
        &[
            ("sum@0 a:1 b:2", "a:1 b:2"),
            ("sum@1 z:5", "other:5"),
            ("restart", ""),
            ("sum@2 z:6 b:3 a:2", "a:2 b:3 other:0"),
            ("sum@3 z:9", "other:3"),
        ],
    ),
    row(
        "L23: after a restart without storage the first ones get them",
        "",
        &[
            ("sum@0 a:1 b:2", "a:1 b:2"),
            ("restart", ""),
            ("sum@2 z:6 b:3 a:2", "z:6 b:3 other:0"),
            ("sum@3 a:7", "other:5"),
        ],
    ),
    row(
        "L27: tag_only marks, and changes nothing else",
        "on_exceed: tag_only",
        &[("sum@0 a:1 b:2 c:5", "a:1 b:2 otel.metric.overflow=true,u=c:5")],
    ),
    row(
        "L28: a limit of 0 replaces the label everywhere",
        "rules: [{metrics: [c], labels: {url: 0}}]",
        &[
            ("sum@0 m=get,url=x:1 m=get,url=y:2 m=put,url=x:4", "m=get,url=other:3 m=put,url=other:4"),
            ("sum@1 m=get,url=x:2 m=get,url=z:5", "m=get,url=other:9"),
        ],
    ),
    row(
        "L28 with the label removed",
        "rules: [{metrics: [c], labels: {url: 0}}], replacement: ''",
        &[("delta@0 m=get,url=x:1 m=get,url=y:2 url=z:4", "m=get:3 :4"), ("delta@1 m=get:2 m=get,url=y:2", "m=get:4")],
    ),
    row(
        "a series that loses its slot ends, and only its increments count from then on",
        "default: {max_series_per_metric: 1}, rules: []",
        &[
            ("sum@0 a:10", "a:10"),
            ("sum@1 b:5", "other:5"),
            ("sum@2 a:12", "a:end other:5"),
            ("sum@3 a:15 b:6", "other:9"),
        ],
    ),
    row(
        "min_sightings: a one-shot value takes no slot, and who comes again begins anew there",
        "min_sightings: 2",
        &[
            ("sum@0 a:1", "other:1"),
            ("sum@1 b:4", "other:5"),
            ("sum@2 a:3", "a:2"),
            ("sum@3 b:9 a:4", "a:3 b:5"),
            ("sum@4 c:1", "other:6"),
            ("sum@5 c:2 a:5 b:9", "a:4 b:5 other:7"),
        ],
    ),
    row(
        "min_sightings: two points of a stream in one batch, of which the second gets a slot, count once",
        "min_sightings: 2",
        &[("sum@0 a:3 a:3 b:5", "a:3 other:5"), ("sum@1 a:4 b:6 b:7", "a:4 b:2")],
    ),
    row(
        "min_sightings with deltas",
        "min_sightings: 2",
        &[("delta@0 a:1 b:2", "other:3"), ("delta@1 a:2 b:3 c:1", "a:2 b:3 other:1")],
    ),
    row(
        "min_sightings with sums that can fall: a value counts in one place only",
        "min_sightings: 2",
        &[("updown@0 a:1 b:2", "other:3"), ("updown@1 a:7", "a:7 other:2")],
    ),
    row(
        "top_k with deltas: who has half as much again takes the place",
        "keep: top_k",
        &[
            ("delta@0 a:1 b:1 b:1", "a:1 b:2"),
            ("delta@1 c:1", "other:1"),
            ("delta@2 c:1", "c:1"),
            ("delta@3 a:1 b:1", "a:end b:1 other:1"),
        ],
    ),
    row(
        "top_k with cumulative sums: what was counted stays counted, the new series begins anew",
        "keep: top_k",
        &[
            ("sum@0 a:1 b:1", "a:1 b:1"),
            ("sum@1 b:2 c:5", "b:2 other:5"),
            ("sum@2 b:3 c:9", "b:3 c:4"),
            // The first point after its slot is gone is the flag; what it had is its own.
            ("sum@3 a:3 c:10", "a:end c:5 other:5"),
            ("sum@4 a:4", "other:6"),
        ],
    ),
];

fn parse_point(text: &str, export: u64) -> NumberDataPoint {
    let (labels, value) = text.rsplit_once(':').unwrap();
    let labels = if labels.contains('=') { labels.to_owned() } else { format!("u={labels}") };
    if value == "end" {
        return end(&labels, at(export));
    }
    match value.strip_suffix('!') {
        Some(value) => NumberDataPoint {
            start_time_unix_nano: at(export) - 1,
            ..point(&labels, value.parse().unwrap(), at(export))
        },
        None => point(&labels, value.parse().unwrap(), at(export)),
    }
}

fn parse(input: &str) -> MetricsData {
    let mut words = input.split_whitespace();
    let (kind, export) = words.next().unwrap().split_once('@').unwrap();
    let export = export.parse().unwrap();
    let mut points: Vec<_> = words.map(|word| parse_point(word, export)).collect();
    request(match kind {
        "sum" => cumulative(points),
        "updown" => up_down(points),
        "gauge" => gauge(points),
        "delta" => {
            points.iter_mut().for_each(|point| point.start_time_unix_nano = at(export) - SECOND);
            delta(points)
        }
        other => panic!("{other}"),
    })
}

fn show(points: &[Point]) -> String {
    let mut totals: BTreeMap<String, String> = BTreeMap::new();
    let mut sums: BTreeMap<String, f64> = BTreeMap::new();
    for point in points {
        let name = point.attributes.strip_prefix("u=").filter(|rest| !rest.contains(',')).unwrap_or(&point.attributes);
        if point.is_end {
            totals.insert(name.to_owned(), "end".to_owned());
            continue;
        }
        let is_delta = matches!(&point.data, Data::Sum(sum) if sum.aggregation_temporality == AggregationTemporality::Delta as i32);
        let sum = sums.entry(name.to_owned()).or_default();
        *sum = if is_delta { *sum + point.value } else { point.value };
        totals.insert(name.to_owned(), sum.to_string());
    }
    totals.iter().map(|(name, value)| format!("{name}:{value}")).collect::<Vec<_>>().join(" ")
}

fn sorted(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words
}

#[tokio::test]
async fn the_rows_of_the_plan() {
    for Row { name, config, steps } in ROWS {
        let directory = tempfile::tempdir().unwrap();
        let yaml = match (config.contains("rules"), config.is_empty()) {
            (true, _) => format!("{{{config}}}"),
            (false, true) => format!("{{{LIMIT}}}"),
            (false, false) => format!("{{{LIMIT}, {config}}}"),
        };
        let is_stored = config.contains("storage");
        let mut bench = if is_stored { Bench::stored(&yaml, directory.path(), BEGIN).await } else { Bench::new(&yaml) };
        let mut last: BTreeMap<String, u64> = BTreeMap::new();
        for (index, (input, expected)) in steps.iter().enumerate() {
            let context = format!("{name}, step {index}: {input}");
            if let Some(seconds) = input.strip_prefix("idle ") {
                bench.pass_time(seconds.parse().unwrap());
                continue;
            }
            if *input == "restart" {
                bench.stop().await;
                bench.emitted();
                let now = BEGIN + 25 * SECOND;
                bench = if is_stored {
                    Bench::stored(&yaml, directory.path(), now).await
                } else {
                    Bench::at(&yaml, &Extensions::default(), now)
                };
                continue;
            }
            if let Some(input) = input.strip_prefix("more ") {
                bench.send(&parse(input)).await;
                continue;
            }
            let points = bench.step(&parse(input)).await;
            assert_eq!(sorted(&show(&points)), sorted(expected), "{context}");
            // Times of a series rise.
            for point in &points {
                let before = last.insert(point.series(), point.time);
                let is_delta = input.starts_with("delta");
                assert!(is_delta || before.is_none_or(|before| point.time > before), "{context}: {point:?}");
                assert!(point.start <= point.time, "{context}: {point:?}");
            }
        }
    }
}
