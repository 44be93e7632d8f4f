//! Whole configurations: the Collector's behaviours that a user relies on, numbered as in our notes on
//! it. An empty expectation means that the configuration loads.

use super::*;

const BASE: &str = "
receivers: {otlp: {protocols: {grpc: }}, x: }
processors: {nop: , batch: }
exporters: {debug: , otlp: {endpoint: 'a:1'}}
service: {pipelines: {traces: {receivers: [otlp, x], processors: [nop, batch], exporters: [debug, otlp]}}}
";

struct Case {
    number: u32,
    texts: &'static [&'static str],
    set: &'static [&'static str],
    error: &'static [&'static str],
}

const fn case(number: u32, texts: &'static [&'static str], error: &'static [&'static str]) -> Case {
    Case { number, texts, set: &[], error }
}

const CASES: &[Case] = &[
    case(
        1,
        &[BASE, "processors:"],
        &["service::pipelines::traces: references processor \"nop\" which is not configured"],
    ),
    case(2, &[BASE, "processors: {}"], &[]),
    case(3, &[BASE, "service: {pipelines: {traces: {receivers: [otlp]}}}"], &[]),
    Case {
        number: 5,
        texts: &[BASE],
        set: &["key"],
        error: &["invalid value \"key\" for flag -set: missing equal sign"],
    },
    Case { number: 5, texts: &[BASE], set: &["=1"], error: &["invalid value \"=1\""] },
    case(10, &[BASE, "exporters: {otlp: {endpoint: '${env:hello.world}'}}"], &["has invalid name"]),
    case(14, &[BASE, "exporters: {otlp: {timeout: 5}}"], &[]),
    case(15, &[BASE, "exporters: {otlp: {timeout: '5'}}"], &["missing unit", "exporters.otlp.timeout"]),
    case(
        16,
        &[BASE, "receivers:\n  otlp:\n    protocols:\n      grpc:\n        endpoint:0.0.0.0:4317\n"],
        &["yaml::5:9", "missing space"],
    ),
    case(17, &[BASE, "unknown_section: 1"], &["unknown section \"unknown_section\""]),
    case(
        18,
        &[BASE, "receivers: {otlp: {protocols: {grpc: {foo: 1}}}}"],
        &["(receivers.otlp.protocols.grpc.foo)", "unknown key \"foo\""],
    ),
    case(19, &[BASE, "exporters: {logging: {loglevel: debug}}"], &[]),
    case(
        20,
        &[BASE, "exporters: {otlpgrpc: {}}"],
        &["unknown type: \"otlpgrpc\" for id: \"otlpgrpc\" (valid values: [debug", "did you mean"],
    ),
    case(
        24,
        &[BASE, "service: {pipelines: {traces: {processors: [batch, batch]}}}"],
        &["references processor \"batch\" multiple times"],
    ),
    case(
        25,
        &[BASE, "connectors: {forward: }\nservice: {pipelines: {traces: {exporters: [forward]}}}"],
        &["used as exporter in [traces] pipeline but not used in any supported receiver pipeline"],
    ),
    case(
        26,
        &[
            BASE,
            "connectors: {forward: }\nservice: {pipelines: {traces: {receivers: [forward], exporters: [forward]}}}",
        ],
        &["cycle detected:"],
    ),
    // One that connects other signals than it is used for, at either end.
    case(
        117,
        &[
            BASE,
            "connectors: {spanmetrics: }\nservice: {pipelines: {traces: {exporters: [spanmetrics]}, \
             traces/x: {receivers: [spanmetrics], exporters: [otlp]}}}",
        ],
        &[
            "connector \"spanmetrics\" used as exporter in [traces] pipeline but not used in any supported receiver pipeline",
            "connector \"spanmetrics\" used as receiver in [traces/x] pipeline but not used in any supported exporter pipeline",
            "it connects traces to metrics",
        ],
    ),
    // The same connector for two signals is two: no loop, though a metrics pipeline leads to it again.
    case(
        118,
        &[
            BASE,
            "connectors: {forward: , spanmetrics: }\nservice: {pipelines: {traces: {exporters: [forward]}, \
             traces/x: {receivers: [forward], exporters: [spanmetrics]}, \
             metrics: {receivers: [spanmetrics], exporters: [forward]}, \
             metrics/x: {receivers: [forward], exporters: [otlp]}}}",
        ],
        &[],
    ),
    case(28, &[BASE, "exporters: {otlphttp: , otlp_http: , otlp_grpc/b: }"], &[]),
    // Beyond the numbered ones.
    case(100, &[""], &["empty configuration file"]),
    case(101, &["text"], &["expected sections"]),
    case(102, &["receivers:otlp"], &["write `receivers: otlp`"]),
    case(103, &[BASE, "service: {pipelines: }"], &["service must have at least one pipeline"]),
    case(
        104,
        &[BASE, "receivers:\nservice: {pipelines: {traces: {receivers: []}}}"],
        &["no receiver configuration specified in config"],
    ),
    case(
        105,
        &[BASE, "service: {pipelines: {traces/: {}}}"],
        &["in \"traces/\" id: the part after / should not be empty"],
    ),
    case(106, &[BASE, "service: {pipelines: {traces: {exporters: []}}}"], &["must have at least one exporter"]),
    case(
        107,
        &[BASE, "service: {extensions: [health_check]}"],
        &["service::extensions: references extension \"health_check\" which is not configured"],
    ),
    case(
        108,
        &[BASE, "connectors: {otlp: }"],
        &["connectors::otlp: ambiguous ID: Found both \"otlp\" exporter and \"otlp\" connector"],
    ),
    case(109, &[BASE, "exporters: {'otlp ': }"], &["duplicate name \"otlp\" after unmarshaling"]),
    case(110, &[BASE, "service: {pipelines: {traces: {exporters: 'debug, otlp'}}}"], &[]),
    case(111, &[BASE, "service: {extensions: 5}"], &["expected a list, found the integer 5", "(service.extensions)"]),
    case(
        112,
        &[
            BASE,
            "service: {pipelines: {traces: {exporters: [prometheusremotewrite]}}}\nexporters: {prometheusremotewrite: }",
        ],
        &["exporter \"prometheusremotewrite\" does not support traces"],
    ),
    case(113, &[BASE, "service: {telemetry: {metrics: {readers: []}}}"], &["metrics reader should exist"]),
    case(114, &[BASE, "exporters: {kafka: {brokers: x}}"], &[]),
    case(
        115,
        &[BASE, "exporters: {kafka: {brokers: x}}\nservice: {pipelines: {traces: {exporters: [kafka]}}}"],
        &["exporter \"kafka\": not yet", "nearest is"],
    ),
    case(116, &[BASE, "extensions: {zpages: , pprof: }\nservice: {extensions: [zpages, pprof]}"], &[]),
];

#[test]
fn cases() {
    for case in CASES {
        let mut sources = sources(case.texts, &[]);
        sources.set = case.set.iter().map(ToString::to_string).collect();
        let text = errors(&sources);
        assert_eq!(text.is_empty(), case.error.is_empty(), "case {}: {text}", case.number);
        for words in case.error {
            assert!(text.contains(words), "case {} should say {words:?}, but says: {text}", case.number);
        }
    }
}

fn loaded(texts: &[&str], set: &[&str]) -> GatewayConfig {
    let mut sources = sources(texts, &[]);
    sources.set = set.iter().map(ToString::to_string).collect();
    load(&sources, &registry()).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

/// Case 3: lists are replaced. Case 4: `--set` comes after all files.
#[test]
fn later_sources_win() {
    let config = loaded(&[BASE, "service: {pipelines: {traces: {receivers: [otlp]}}}"], &[]);
    assert_eq!(config.plan.pipelines[0].receivers, [ComponentId::of("otlp")]);
    let (root, _) = tree(&[BASE], &[]);
    assert!(root.get("processors").unwrap().get("batch").unwrap().is_null());
    let mut with_set = sources(&[BASE, "processors: {batch: {timeout: 1s}}"], &[]);
    with_set.set = vec!["processors.batch.timeout=2s".into(), "exporters::otlp::names=[a, b]".into()];
    let merged = source::read(&with_set, &mut Diagnostics::default()).unwrap();
    assert_eq!(merged.get("processors").unwrap().get("batch").unwrap().get("timeout").unwrap().as_text(), Some("2s"));
    assert_eq!(merged.get("exporters").unwrap().get("otlp").unwrap().get("names").unwrap().items().len(), 2);
}

/// What loads, but deserves a word: each warning with its place.
#[test]
fn warnings() {
    let more = "
exporters: {logging: {loglevel: debug}, otlp: {timeout: 5}, kafka: }
extensions: {zpages: , health_check: }
service: {extensions: [zpages], telemetry: {metrics: {address: ':9999'}, traces: {processors: [{batch: }]}}}
";
    let config = loaded(&[BASE, more], &[]);
    let text: String = config.warnings.iter().map(|warning| format!("{warning}\n")).collect();
    for words in [
        "the logging exporter has been deprecated, use the debug exporter instead",
        "no pipeline uses exporter \"logging\"",
        "did you mean 5s?",
        "exporter \"kafka\": not yet; ignored, since nothing uses it",
        "extension \"zpages\" is not yet there and is left out",
        "extension \"health_check\" is not in service.extensions",
        "replaced by readers in newer Collectors",
        "the gateway sends no traces of itself",
    ] {
        assert!(text.contains(words), "{words} is missing in:\n{text}");
    }
    assert!(config.warnings.iter().all(|warning| warning.location.is_known()));
    assert!(config.plan.extensions.is_empty());
    assert_eq!(config.telemetry.metrics.endpoint.as_deref(), Some("0.0.0.0:9999"));
}

#[test]
fn own_telemetry() {
    let config = loaded(&[BASE], &[]);
    assert_eq!(config.telemetry.metrics.endpoint.as_deref(), Some("localhost:8888"));
    assert_eq!(config.telemetry.log_level, LogLevel::Info);
    let config = loaded(&[BASE], &["service.telemetry.metrics.level=none", "service.telemetry.logs.level=WARN"]);
    assert_eq!(config.telemetry.metrics.endpoint, None);
    assert_eq!(config.telemetry.log_level, LogLevel::Warn);
    let reader = "service: {telemetry: {resource: {a: 1, b: }, metrics: {readers: [{pull: {exporter: {prometheus: {host: '::1', port: 1, without_type_suffix: false}}}}]}}}";
    let config = loaded(&[BASE, reader], &[]);
    assert_eq!(config.telemetry.metrics.endpoint.as_deref(), Some("[::1]:1"));
    assert!(!config.telemetry.metrics.without_type_suffix && config.telemetry.metrics.without_units);
    assert_eq!(config.telemetry.resource, [("a".to_owned(), Some("1".to_owned())), ("b".to_owned(), None)]);
}

/// An error of building is shown at its key; a reload sees what changed.
#[test]
fn built_and_reloaded() {
    use crate::pipeline::ComponentKind::Exporter;
    let config = loaded(&[BASE], &[]);
    let id = ComponentId::of("otlp");
    let problem = config.problem(Exporter, &id, &BuildError::new(&["endpoint", "deeper"], "no"));
    assert_eq!((problem.location.line, problem.path.as_str()), (4, "exporters.otlp.endpoint.deeper"));
    assert!(config.is_same(&loaded(&[BASE, "{}"], &[]), Exporter, &id));
    assert!(!config.is_same(&loaded(&[BASE], &["exporters.otlp.number=5"]), Exporter, &id));
}

/// Every spelling in the table leads to one row of its section, and every row has advice or is built.
#[test]
fn the_table_of_known_types_is_in_order() {
    for section in Section::ALL {
        let names: Vec<&str> = known::names(section).collect();
        let distinct: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(names.len(), distinct.len(), "{section:?}");
        for name in names {
            assert!(name.parse::<ComponentId>().is_ok(), "{name}");
        }
    }
}
