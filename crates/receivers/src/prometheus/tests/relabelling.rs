//! Rules in, labels out: as Prometheus' own `model/relabel` has them.

use crate::prometheus::config::RelabelConfig;
use crate::prometheus::labels::Labels;
use crate::prometheus::relabel::relabel;

/// The labels after `rules`, as text; `dropped` if they drop it.
fn after(labels: &[(&'static str, &'static str)], rules: &str) -> String {
    let rules: Vec<RelabelConfig> = serde_json::from_str(rules).expect(rules);
    let mut labels: Labels<'_> = labels.iter().copied().collect();
    if !relabel(&rules, &mut labels) {
        return "dropped".to_owned();
    }
    labels.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}

/// Labels, rules, and the labels after them.
type Case = (&'static [(&'static str, &'static str)], &'static str, &'static str);

#[test]
fn actions() {
    let abc: &'static [(&str, &str)] = &[("a", "foo"), ("b", "bar"), ("c", "baz")];
    let cases: &[Case] = &[
        (
            abc,
            r#"[{"source_labels": ["a"], "regex": "f(.*)", "target_label": "d", "separator": ";", "replacement": "ch${1}-ch${1}"}]"#,
            "a=foo,b=bar,c=baz,d=choo-choo",
        ),
        (
            abc,
            r#"[{"source_labels": ["a", "b"], "regex": "f(.*);(.*)r", "target_label": "a", "replacement": "b${1}${2}m"},
               {"source_labels": ["c", "a"], "regex": "(b).*b(.*)ba(.*)", "target_label": "d", "replacement": "$1$2$2$3"}]"#,
            "a=boobam,b=bar,c=baz,d=boooom",
        ),
        (abc, r#"[{"source_labels": ["a"], "regex": ".*o.*", "action": "drop"}]"#, "dropped"),
        // Both ends are anchored.
        (abc, r#"[{"source_labels": ["a"], "regex": "o", "action": "drop"}]"#, "a=foo,b=bar,c=baz"),
        (abc, r#"[{"source_labels": ["a"], "regex": "no-match", "action": "keep"}]"#, "dropped"),
        (abc, r#"[{"source_labels": ["a"], "regex": "f.*", "action": "Keep"}]"#, "a=foo,b=bar,c=baz"),
        // What does not match is left alone; an empty replacement removes.
        (
            abc,
            r#"[{"source_labels": ["a"], "regex": "x", "target_label": "a", "replacement": "y"}]"#,
            "a=foo,b=bar,c=baz",
        ),
        (
            abc,
            r#"[{"source_labels": ["a"], "regex": "f", "target_label": "b", "replacement": "b"}]"#,
            "a=foo,b=bar,c=baz",
        ),
        (abc, r#"[{"source_labels": ["a"], "target_label": "b", "replacement": ""}]"#, "a=foo,c=baz"),
        (abc, r#"[{"target_label": "x", "replacement": "fixed"}]"#, "a=foo,b=bar,c=baz,x=fixed"),
        (
            abc,
            r#"[{"source_labels": ["a"], "regex": "some-([^-]+)-(.*)", "target_label": "${1}", "replacement": "${2}"}]"#,
            "a=foo,b=bar,c=baz",
        ),
        (
            &[("a", "some-name-value")],
            r#"[{"source_labels": ["a"], "regex": "some-([^-]+)-([^,]+)", "target_label": "${1}", "replacement": "${2}"}]"#,
            "a=some-name-value,name=value",
        ),
        // The sums are those of Prometheus' own tests.
        (
            abc,
            r#"[{"source_labels": ["c"], "target_label": "d", "separator": ";", "action": "hashmod", "modulus": 1000}]"#,
            "a=foo,b=bar,c=baz,d=976",
        ),
        (
            &[("a", "foo\nbar")],
            r#"[{"source_labels": ["a"], "target_label": "b", "separator": ";", "action": "hashmod", "modulus": 1000}]"#,
            "a=foo\nbar,b=734",
        ),
        (
            &[("a", "foo"), ("b1", "bar"), ("b2", "baz")],
            r#"[{"regex": "(b.*)", "replacement": "bar_${1}", "action": "labelmap"}]"#,
            "a=foo,b1=bar,b2=baz,bar_b1=bar,bar_b2=baz",
        ),
        (
            &[("__meta_my_bar", "aaa"), ("__meta_my_baz", "bbb"), ("a", "foo")],
            r#"[{"regex": "__meta_(my.*)", "action": "labelmap"}]"#,
            "__meta_my_bar=aaa,__meta_my_baz=bbb,a=foo,my_bar=aaa,my_baz=bbb",
        ),
        (&[("a", "foo"), ("b1", "bar"), ("b2", "baz")], r#"[{"regex": "(b.*)", "action": "labeldrop"}]"#, "a=foo"),
        (
            &[("a", "foo"), ("b1", "bar"), ("b2", "baz")],
            r#"[{"regex": "(b.*)", "action": "labelkeep"}]"#,
            "b1=bar,b2=baz",
        ),
        (
            &[("foo", "bAr123Foo")],
            r#"[{"source_labels": ["foo"], "action": "uppercase", "target_label": "up"}, {"source_labels": ["foo"], "action": "lowercase", "target_label": "low"}]"#,
            "foo=bAr123Foo,low=bar123foo,up=BAR123FOO",
        ),
        (
            &[("p", "1234"), ("q", "1234")],
            r#"[{"source_labels": ["p"], "action": "keepequal", "target_label": "q"}]"#,
            "p=1234,q=1234",
        ),
        (
            &[("p", "1234"), ("q", "5678")],
            r#"[{"source_labels": ["p"], "action": "keepequal", "target_label": "q"}]"#,
            "dropped",
        ),
        (
            &[("p", "1234"), ("q", "1234")],
            r#"[{"source_labels": ["p"], "action": "dropequal", "target_label": "q"}]"#,
            "dropped",
        ),
        (
            &[("p", "1234"), ("q", "5678")],
            r#"[{"source_labels": ["p"], "action": "dropequal", "target_label": "q"}]"#,
            "p=1234,q=5678",
        ),
    ];
    for (labels, rules, expected) in cases {
        assert_eq!(after(labels, rules), *expected, "{rules}");
    }
}
