//! Pages for scrapers without UTF-8 names: escaped, different names may become one.

use std::collections::HashSet;

use super::*;

const UTF8: &str = "text/plain; version=1.0.0; escaping=allow-utf-8";

fn running() -> Running {
    exporter_with("translation_strategy: NoTranslation\nenable_open_metrics: true")
}

/// The samples, without the labels of the resource; the page says nothing twice.
fn samples(page: &str) -> Vec<String> {
    let mut types = HashSet::new();
    let mut said = HashSet::new();
    let mut samples = Vec::new();
    for line in page.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let name = family.split(' ').next().unwrap();
            assert!(types.insert(name), "{name} is there twice:\n{page}");
        } else if !line.starts_with('#') {
            let (series, value) = line.rsplit_once(' ').unwrap();
            assert!(said.insert(series), "{series} is there twice:\n{page}");
            let rest = series.replace(&format!("{SHOP_LABELS},"), "").replace(&format!(",{SHOP_LABELS}"), "");
            samples.push(format!("{} {value}", rest.replace(SHOP_LABELS, "").replace("{}", "")));
        }
    }
    samples
}

/// Scenario: two gauges whose names are one once they are escaped. Guarantee: one family, in each of the formats; of
/// series that are equal the one with this very name stays, the other is counted for each page; scrapers that read
/// UTF-8 get all.
#[tokio::test]
async fn metrics_of_one_name_share_a_family() {
    let running = running();
    let own = number(2.0, T, &[]);
    let other = [number(1.0, T, &[]), number(3.0, T, &[("n", "3")])];
    let apart = [number(5.0, T, &[("n", "5")])];
    running
        .push(push(vec![
            gauge("a.b", "", other.to_vec()),
            gauge("a_b", "", vec![own]),
            gauge("a-b", "", apart.to_vec()),
        ]))
        .await;
    let expected = ["a_b 2", "a_b{n=\"3\"} 3", "a_b{n=\"5\"} 5"];
    assert_eq!(samples(&running.page("")), expected);
    assert_eq!(samples(&running.page(OPEN_METRICS)), expected);
    let families = running.protobuf();
    let found: Vec<(&str, usize)> = families.iter().map(|family| (&*family.name, family.metric.len())).collect();
    assert_eq!(found, [("a_b", 3)]);
    assert_eq!(running.telemetry.sum("otelcol_exporter_prometheus_clashing_series", &[]), 3, "one for each page");
    assert_eq!(running.page(UTF8).lines().filter(|line| !line.starts_with('#')).count(), 4);
    assert_eq!(running.telemetry.sum("otelcol_exporter_prometheus_clashing_series", &[]), 3);
}

/// Scenario: their types differ. Guarantee: the page has the one with this very name, or else the first.
#[tokio::test]
async fn of_several_types_one_stays() {
    let running = running();
    let one = |at: &str| vec![number(1.0, T, &[("at", at)])];
    running
        .push(push(vec![
            sum("a.b", "", true, CUMULATIVE, one("a.b")),
            gauge("a_b", "", one("a_b")),
            gauge("c-d", "", one("c-d")),
            sum("c.d", "", true, CUMULATIVE, one("c.d")),
            gauge("e", "", one("e")),
        ]))
        .await;
    let page = running.page("");
    assert_eq!(samples(&page), ["a_b{at=\"a_b\"} 1", "c_d{at=\"c-d\"} 1", "e{at=\"e\"} 1"]);
    assert!(page.contains("# HELP a_b What it is\n# TYPE a_b gauge\n"), "{page}");
    assert!(page.contains("# HELP c_d What it is\n# TYPE c_d gauge\n"), "{page}");
    assert_eq!(running.telemetry.sum("otelcol_exporter_prometheus_clashing_series", &[]), 2);
}

/// Scenario: labels of a point whose names are one once they are escaped. Guarantee: they are joined as everywhere else,
/// and those of exemplars too; `__name__` is the metric's.
#[tokio::test]
async fn labels_of_one_name_are_joined() {
    let running = running();
    let mut point = int(7, T);
    point.attributes =
        attributes(&[("x.y", "1"), ("x_y", "3"), ("x-y", "2"), ("z.z", "4"), ("z_z", "4"), ("._name__", "n")]);
    point.exemplars = vec![an_exemplar(2.0, &[("u.v", "1"), ("u_v", "2")])];
    running.push(push(vec![sum("c", "", true, CUMULATIVE, vec![point])])).await;
    assert_eq!(samples(&running.page("")), ["c{x_y=\"2;1;3\",z_z=\"4\"} 7"]);
    assert!(running.page(OPEN_METRICS).contains(r#",u_v="1;2"} 2 "#), "{}", running.page(OPEN_METRICS));
    let lost = |what: &str| running.telemetry.sum(&format!("otelcol_exporter_prometheus_{what}"), &[]);
    // Two pages: two of x_y, one each of z_z and u_v.
    assert_eq!((lost("joined_labels"), lost("overwritten_labels"), lost("clashing_series")), (8, 2, 0));
}

/// Scenario: points whose labels differ only by names that are escaped alike. Guarantee: the one whose names are its own
/// stays, on every page.
#[tokio::test]
async fn series_of_equal_labels_are_one() {
    let running = running();
    let points = ["x_y", "x.y", "x-y"].map(|name| number(name.len() as f64, T, &[(name, "1")])).to_vec();
    let mut points = points;
    points[0].value = int(9, T).value;
    running.push(push(vec![gauge("g", "", points)])).await;
    for page in 1..4 {
        assert_eq!(samples(&running.page("")), ["g{x_y=\"1\"} 9"]);
        assert_eq!(running.telemetry.sum("otelcol_exporter_prometheus_clashing_series", &[]), page * 2);
    }
}
