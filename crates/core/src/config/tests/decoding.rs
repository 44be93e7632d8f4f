//! Nodes to typed configurations.

use super::*;

fn good(text: &str) -> Anything {
    from_str::<Anything>(text).map(|(value, _)| value).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

fn bad(text: &str) -> Vec<String> {
    let diagnostics = from_str::<Anything>(text).map(|(value, _)| value).expect_err("must not be valid");
    diagnostics.errors.iter().map(ToString::to_string).collect()
}

fn one(text: &str) -> String {
    let errors = bad(text);
    assert_eq!(errors.len(), 1, "{text}: {errors:#?}");
    errors.into_iter().next().unwrap()
}

/// Guarantee: all errors come at once, each with its place and path.
#[test]
fn every_error_at_once() {
    let text = "\
endpoint: 5
timeout: soon
number: \"12\"
flag: yes
names: [a, 5, {b: c}]
protocols:
  grpc: {port: 70000, prot: 1}
  htp:
verbosity: loud
headers: {a: 1}
";
    let errors = bad(text);
    let wanted = [
        ("config.yaml:1:11", "expected text, found the integer 5"),
        ("config.yaml:2:10", "invalid duration \"soon\""),
        ("config.yaml:3:9", "expected an integer, found the text \"12\""),
        ("config.yaml:4:7", "expected true or false, found the text \"yes\""),
        ("config.yaml:5:12", "expected text, found the integer 5"),
        ("config.yaml:5:", "expected text, found a mapping"),
        ("config.yaml:7:16", "70000 is out of range"),
        ("config.yaml:7:23", "unknown key \"prot\""),
        ("config.yaml:8:3", "unknown key \"htp\""),
        ("config.yaml:9:12", "unknown value \"loud\": accepted are basic, normal, detailed"),
        ("config.yaml:10:14", "expected text, found the integer 1"),
    ];
    for (place, words) in wanted {
        assert!(errors.iter().any(|error| error.contains(place) && error.contains(words)), "{words}: {errors:#?}");
    }
    assert_eq!(errors.len(), wanted.len(), "{errors:#?}");
}

#[test]
fn a_finding_looks_like_this() {
    let error = one("protocols:\n  grpc:\n    endpont: x\n");
    assert_eq!(
        error,
        "error: unknown key \"endpont\"\n --> config.yaml:3:5 (protocols.grpc.endpont)\n  |\n3 |     endpont: x\n  |     \
         ^^^^^^^ did you mean \"endpoint\"?"
    );
}

#[test]
fn types_are_not_mixed() {
    assert!(one("number: true").contains("expected an integer, found the boolean true"));
    assert!(one("number: 1.5").contains("expected an integer, found the number 1.5"));
    assert!(one("endpoint: 0123").contains("write it in quotes: \"0123\""));
    assert!(one("number: '5'").contains("remove the quotes"));
    assert!(one("timeout: '5'").contains("missing unit in duration \"5\""));
    assert!(one("protocols: text").contains("expected a mapping, found the text \"text\""));
    assert!(one("names: {a: b}").contains("expected a list, found a mapping"));
    assert_eq!(good("number: 1e3").number, 1000);
    assert_eq!(good("number: 0x10").number, 16);
    assert_eq!(good("names: a, b").names, ["a", "b"]);
}

/// A missing space is recognized in each of its shapes.
#[test]
fn missing_spaces() {
    assert!(one("protocols:\n  grpc:\n    endpoint:0.0.0.0:4317\n").contains("write `endpoint: 0.0.0.0:4317`"));
    assert!(one("protocols: {grpc: {endpoint:0.0.0.0:4317}}").contains("missing space after the colon"));
}

/// Null: the default, or the block with its defaults. `enabled: false`: off, whatever else it says.
#[test]
fn nulls_and_optional_blocks() {
    let config =
        good("endpoint:\nnumber:\nnames:\nprotocols: {grpc: , http: {enabled: false, nonsense: 1}}\nchoice: ~\n");
    assert_eq!(config.protocols, Protocols { grpc: Enabled::On(Protocol::default()), http: Enabled::Off });
    assert_eq!(good("protocols: {http: {enabled: true, port: 1}}").protocols.http.as_ref().unwrap().port, 1);
    assert_eq!(good("{}").protocols, Protocols::default());
    assert_eq!(good("").number, 0);
    assert!(one("protocols: {grpc: {enabled: 5}}").contains("expected true or false, found the integer 5"));
}

#[test]
fn enums() {
    assert_eq!(good("verbosity: normal").verbosity, Verbosity::Normal);
    assert_eq!(good("choice: never").choice, Some(Choice::Never));
    assert_eq!(good("choice: {ratio: 1}").choice, Some(Choice::Ratio(1.0)));
    assert_eq!(good("choice: {window: {size: 3}}").choice, Some(Choice::Window { size: 3 }));
    assert!(one("choice: {window: {size: x}}").contains("expected an integer"));
    assert!(one("choice: ratio").contains("needs a value"));
    assert!(one("verbosity: detaild").contains("did you mean \"detailed\"?"));
    assert!(one("verbosity: 1.3").contains("expected text, found the number 1.3"));
}

/// A bare number is that many nanoseconds, as in the Collector, and that is said.
#[test]
fn durations_without_a_unit() {
    let (config, diagnostics) = from_str::<Anything>("timeout: 5\nendpoint: x\n").unwrap();
    assert_eq!(config.timeout.0.as_nanos(), 5);
    assert!(diagnostics.warnings[0].to_string().contains("did you mean 5s?"), "{diagnostics}");
    assert!(from_str::<Anything>("timeout: 0").unwrap().1.warnings.is_empty());
}

/// What a validation finds is shown at its key, or where its key should be.
#[test]
fn validation() {
    let error = one("endpoint: x\nnumber: -5\n");
    assert!(error.contains("config.yaml:2:9 (number)") && error.contains("-5 must not be negative"), "{error}");
    assert_eq!(bad("number: -5\nfoo: 1").len(), 2, "unknown keys do not hide it");
}

/// What a reference brought goes as text or as what it reads as.
#[test]
fn references_fit_either_type() {
    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Fields {
        text: String,
        maybe: Option<String>,
        number: i64,
        list: Vec<String>,
        unset: String,
        unset_number: i64,
        unset_maybe: Option<String>,
    }
    impl Validate for Fields {}
    let text = "{text: '${X}', maybe: '${N}', number: '${X}', list: '${L}', unset: '${U}', unset_number: '${U}', unset_maybe: '${U}'}";
    let (root, mut diagnostics) = tree(&[text], &[("X", "0123"), ("L", "[a,b]"), ("N", "#null")]);
    let fields: Fields = decode(&root, &mut diagnostics).unwrap();
    let wanted = Fields {
        text: "0123".into(),
        maybe: Some("#null".into()),
        number: 83,
        list: vec!["a".into(), "b".into()],
        ..Fields::default()
    };
    assert_eq!(fields, wanted);
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Outer {
    endpoint: String,
    #[serde(rename = "nyquist::flat")]
    inner: Inner,
    block: Enabled<Block>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Block {
    #[serde(rename = "nyquist::flat")]
    inner: Inner,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(default)]
struct Inner {
    endpoint: String,
    timeout: Duration,
    protocol: Protocol,
}

impl Default for Inner {
    fn default() -> Self {
        Self { endpoint: "unseen".to_owned(), timeout: Duration::from_secs(5), protocol: Protocol::default() }
    }
}

impl Validate for Outer {
    fn validate(&self, check: &mut Check<'_>) {
        if self.inner.protocol.port == 1 {
            check.error(&["protocol", "port"], "too small");
        }
    }
}

/// The keys of a struct may stand among those of another, with their places and without gaps between the two.
#[test]
fn keys_of_two_structs_stand_together() {
    let read = |text: &str| from_str::<Outer>(text).map(|(value, _)| value);
    let outer = read("{endpoint: a, timeout: 7s, protocol: {port: 2}, block: {enabled: true, timeout: 1s}}").unwrap();
    assert_eq!((outer.endpoint.as_str(), outer.inner.endpoint.as_str()), ("a", "unseen"));
    assert_eq!((outer.inner.timeout, outer.inner.protocol.port), (Duration::from_secs(7), 2));
    let Enabled::On(block) = outer.block else { panic!("the block is on") };
    assert_eq!(block.inner.timeout, Duration::from_secs(1));
    assert_eq!(read("{}").unwrap(), Outer::default());

    let errors = |text: &str| -> Vec<String> {
        read(text).unwrap_err().errors.iter().map(|error| error.to_string().replace('\n', " ")).collect()
    };
    let text = "timeuot: 1s\nendpont: a\ntimeout: soon\nprotocol: {port: x, prt: 1}\nblock: {enbled: true}\n'nyquist::flat': 1\n";
    let found = errors(text);
    let wanted = [
        ("1:1 (timeuot)", "did you mean \"timeout\""),
        ("2:1 (endpont)", "did you mean \"endpoint\""),
        ("3:10 (timeout)", "invalid duration"),
        ("4:18 (protocol.port)", "expected an integer"),
        ("4:21 (protocol.prt)", "did you mean \"port\""),
        ("5:9 (block.enbled)", "did you mean \"enabled\""),
        ("6:1 (nyquist::flat)", "the keys here are endpoint, block, timeout, protocol"),
    ];
    for (place, words) in wanted {
        assert!(found.iter().any(|error| error.contains(place) && error.contains(words)), "{words}: {found:#?}");
    }
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    assert!(errors("{protocol: {port: 1}}")[0].contains("(protocol.port)"));
}
