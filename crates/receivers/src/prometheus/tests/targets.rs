//! From configurations to targets.

use std::collections::BTreeMap;

use nyquist_core::config::from_str;

use crate::prometheus::PrometheusConfig;
use crate::prometheus::discovery::Files;
use crate::prometheus::target::{Target, target};

/// The target at `address` for a scrape configuration with `keys`.
fn made(keys: &str, address: &str) -> Result<Option<Target>, String> {
    let text = format!("config:\n  scrape_configs:\n    - job_name: shop\n{keys}");
    let (config, _) = from_str::<PrometheusConfig>(&text).unwrap_or_else(|findings| panic!("{findings:?}"));
    let labels = BTreeMap::from([("zone".to_owned(), "eu".to_owned()), ("__meta_pod".to_owned(), "p-1".to_owned())]);
    target(&config.config.scrape_configs[0], &config.config.global, address, &labels)
}

fn shown(target: &Target) -> String {
    let labels: Vec<String> = target.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let location = &target.location;
    let (scheme, authority) = (location.scheme(), &location.authority);
    format!(
        "{scheme}://{authority}{} {} {:?}/{:?}",
        location.path_and_query,
        labels.join(","),
        target.interval,
        target.timeout
    )
}

#[test]
fn defaults() {
    let target = made("", "shop:8080").expect("a target").expect("kept");
    assert_eq!(shown(&target), "http://shop:8080/metrics instance=shop:8080,job=shop,zone=eu 60s/10s");
    let target = made("      scheme: https\n      scrape_interval: 5s\n", "shop").expect("a target").expect("kept");
    assert_eq!(shown(&target), "https://shop/metrics instance=shop,job=shop,zone=eu 5s/5s");
    assert_eq!(target.location.port, 443);
    let target = made("", "[::1]:9090").expect("a target").expect("kept");
    assert_eq!((target.location.host.as_str(), target.location.port), ("::1", 9090));
}

#[test]
fn relabelling_decides_what_is_scraped_and_where() {
    let keys = r#"
      metrics_path: /probe
      params: {module: [http_2xx], "a b": ["1", "2&3"]}
      relabel_configs:
        - {source_labels: [__address__], target_label: __param_target}
        - {source_labels: [__param_target], target_label: instance}
        - {target_label: __address__, replacement: "blackbox:9115"}
        - {source_labels: [__meta_pod], target_label: pod}
        - {target_label: __scrape_interval__, replacement: 30s}
        - {source_labels: [instance], regex: "drop.*", action: drop}
"#;
    let found = made(keys, "example.com").expect("a target").expect("kept");
    assert_eq!(
        shown(&found),
        "http://blackbox:9115/probe?a%20b=1&a%20b=2%263&module=http_2xx&target=example.com \
         instance=example.com,job=shop,pod=p-1,zone=eu 30s/10s"
    );
    assert_eq!(made(keys, "drop.me"), Ok(None));
}

#[test]
fn targets_that_cannot_be_used_say_why() {
    let without = "      relabel_configs:\n        - {target_label: __address__, replacement: \"\"}\n";
    assert_eq!(made(without, "a:1").unwrap_err(), "no address is left after relabelling");
    let odd = "      relabel_configs:\n        - {target_label: __scheme__, replacement: gopher}\n";
    assert_eq!(made(odd, "a:1").unwrap_err(), "unknown scheme \"gopher\"");
    assert_eq!(made("", "a:99999").unwrap_err(), "\"a:99999\" has no valid port");
    assert_eq!(made("", "a b:1").unwrap_err(), "\"a b:1\" is not a host and a port");
    let path = made("", "http://a:1/metrics").unwrap_err();
    assert!(path.starts_with("\"http://a:1/metrics\" is not a valid hostname"), "{path}");
}

#[test]
fn redirects_are_followed_as_browsers_do() {
    let home = made("      metrics_path: /x/metrics\n", "a:1").expect("a target").expect("kept").location;
    let cases = [
        ("/other?x=1#part", "http://a:1/other?x=1"),
        ("sibling", "http://a:1/x/sibling"),
        ("https://b/m", "https://b/m"),
        ("//c:2", "http://c:2/"),
    ];
    for (target, expected) in cases {
        let found = home.redirected(target).expect(target);
        assert_eq!(format!("{}://{}{}", found.scheme(), found.authority, found.path_and_query), expected);
    }
    assert!(home.redirected("ftp://b/m").is_err());
}

#[test]
fn files_are_read_again_and_a_broken_one_keeps_its_targets() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let patterns = [path("*.json"), path("more.yml")];
    let mut files = Files::default();
    let addresses = |files: &Files| {
        let groups = files.groups();
        assert!(groups.iter().all(|group| group.labels.contains_key("__meta_filepath")));
        groups.into_iter().flat_map(|group| group.targets).collect::<Vec<_>>()
    };
    std::fs::write(path("a.json"), r#"[{"targets": ["a:1", "a:2"], "labels": {"x": "y"}}]"#).expect("written");
    std::fs::write(path("more.yml"), "- targets: [b:1]\n").expect("written");
    assert!(files.refresh(&patterns));
    assert_eq!(addresses(&files), ["a:1", "a:2", "b:1"]);
    assert!(!files.refresh(&patterns));

    std::fs::write(path("a.json"), "[{\"targets\": [").expect("written");
    std::fs::write(path("more.yml"), "- targets: [b:1, b:2]\n  lables: {}\n").expect("written");
    assert!(!files.refresh(&patterns));
    assert_eq!(addresses(&files), ["a:1", "a:2", "b:1"]);

    std::fs::remove_file(path("a.json")).expect("removed");
    std::fs::write(path("more.yml"), "[]\n").expect("written");
    assert!(files.refresh(&patterns));
    assert_eq!(addresses(&files), Vec::<String>::new());
}
