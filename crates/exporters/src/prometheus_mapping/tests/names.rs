//! Names, units and labels against what the reference library gives: `testdata` was written by
//! running `github.com/prometheus/otlptranslator` v1.0.0.

use crate::prometheus_mapping::{Kind, LabelRules, Strategy, config, label_name, metric_name, unit_name};

const STRATEGIES: [Strategy; 4] = [
    Strategy::UnderscoreEscapingWithSuffixes,
    Strategy::UnderscoreEscapingWithoutSuffixes,
    Strategy::NoUTF8EscapingWithSuffixes,
    Strategy::NoTranslation,
];

fn rows(table: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    table.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}

fn kind(text: &str) -> Kind {
    match text {
        "gauge" => Kind::Gauge,
        "counter" => Kind::Counter,
        "updown" => Kind::UpDown,
        "histogram" => Kind::Histogram,
        "summary" => Kind::Summary,
        other => panic!("no such kind: {other}"),
    }
}

#[test]
fn metric_names() {
    let mut count = 0;
    let mut wrong = Vec::new();
    for row in rows(include_str!("../testdata/names.tsv")) {
        let [namespace, name, unit, kind_name, expected @ ..] = row.as_slice() else { panic!("{row:?}") };
        for (strategy, expected) in STRATEGIES.into_iter().zip(expected) {
            let ours = config::namespace(namespace, strategy);
            if strategy == STRATEGIES[0] && ours != *namespace {
                // The reference lets the namespace through as it is, and the name is no name.
                continue;
            }
            let got = metric_name(strategy, &ours, name, unit, kind(kind_name));
            let got = got.unwrap_or_else(|_| "!".to_owned());
            // No series can be without a name; the reference leaves that to others.
            let expected = if expected.is_empty() { &"!" } else { expected };
            if got != *expected {
                wrong.push(format!(
                    "{namespace:?} {name:?} in {unit:?}, {kind_name}, {strategy:?}: {got:?}, not {expected:?}"
                ));
            }
            count += 1;
        }
    }
    assert!(count > 3000);
    assert!(wrong.is_empty(), "{} of {count}:\n{}", wrong.len(), wrong.join("\n"));
}

/// The one deliberate deviation: the reference takes `total` off together with whatever letter
/// stands before it, and makes `su_total` of `subtotal`.
#[test]
fn only_delimiters_are_cut_off() {
    let name = |name| metric_name(Strategy::NoUTF8EscapingWithSuffixes, "", name, "", Kind::Counter).unwrap();
    assert_eq!(name("subtotal"), "subtotal_total");
    assert_eq!(name("sub.total"), "sub_total");
    assert_eq!(name("sub_total"), "sub_total");
}

#[test]
fn units() {
    for row in rows(include_str!("../testdata/units.tsv")) {
        let [unit, expected] = row.as_slice() else { panic!("{row:?}") };
        assert_eq!(unit_name(unit), *expected, "{unit:?}");
    }
}

#[test]
fn labels() {
    let rules = [(true, false), (true, true), (false, false)]
        .map(|(escape, collapse_underscores)| LabelRules { escape, collapse_underscores });
    for row in rows(include_str!("../testdata/labels.tsv")) {
        let [key, expected @ ..] = row.as_slice() else { panic!("{row:?}") };
        for (rules, expected) in rules.into_iter().zip(expected) {
            let got = label_name(key, rules);
            assert_eq!(got.as_deref().unwrap_or("!"), *expected, "{key:?} by {rules:?}");
        }
    }
}
