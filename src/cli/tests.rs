//! The command line without a process.

use super::*;

fn exit_of(args: &[&str]) -> bool {
    let args = std::iter::once("nyquist").chain(args.iter().copied()).map(OsString::from);
    main_from(args, &crate::components::registry()) == ExitCode::SUCCESS
}

#[test]
fn what_succeeds_and_what_fails() {
    assert!(exit_of(&["--version"]));
    assert!(exit_of(&["--help"]));
    assert!(exit_of(&["components"]));
    assert!(!exit_of(&["--no-such-flag"]));
    assert!(!exit_of(&["validate", "--config", "/there/is/no/such.yaml"]));
    assert!(!exit_of(&["validate", "--config", "yaml:{}", "--set", "key"]));
}

#[test]
fn components_are_valid_yaml() {
    let text = components::list(&crate::components::registry());
    let value: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    let names = |section: &str| -> Vec<String> {
        let list = value[section].as_sequence().unwrap();
        list.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    assert!(names("extensions").contains(&"health_check".to_owned()));
    assert!(names("processors").contains(&"tail_sampling".to_owned()));
    assert!(names("processors").is_sorted());
    assert_eq!(value["buildinfo"]["command"], "nyquist");
}
