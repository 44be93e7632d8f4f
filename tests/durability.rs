//! docs/durability.md says what can be lost, and which tests show it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::path::Path;

/// Guarantee: each row of its tables names tests by file and function, and each of them is there and is a test.
#[test]
fn each_row_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/durability.md")).unwrap();
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|---") && !line.contains("| shown by |");
    let mut named = 0;
    for row in page.lines().filter(is_row) {
        let shown_by = row.trim_end_matches([' ', '|']).rsplit(" | ").next().unwrap();
        let tests: Vec<(&str, &str)> = shown_by.split('`').filter_map(|part| part.split_once(".rs::")).collect();
        assert!(!tests.is_empty(), "no test shows: {row}");
        for (file, test) in tests {
            let path = root.join(format!("{file}.rs"));
            let code = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(is_test(&code, test), "there is no test {test} in {file}.rs");
            named += 1;
        }
    }
    assert!(named >= 40, "{named}");
}

/// Is there a function `name` in `code` that is run as a test?
fn is_test(code: &str, name: &str) -> bool {
    let Some((before, _)) = code.split_once(&format!("fn {name}(")) else { return false };
    let above = before.rsplit_once('\n').map_or("", |(above, _)| above).lines().rev().map(str::trim);
    let mut attributes = above.take_while(|line| line.starts_with("#[") || line.starts_with("///"));
    attributes.any(|line| line == "#[test]" || line.starts_with("#[tokio::test"))
}

#[test]
fn what_is_no_test_is_not_taken_for_one() {
    let code =
        "fn helper() {}\n\n#[test]\nfn one() {}\n\n/// Two.\n#[tokio::test(start_paused = true)]\nasync fn two() {}\n";
    assert!(is_test(code, "one") && is_test(code, "two"));
    assert!(!is_test(code, "helper") && !is_test(code, "three") && !is_test(code, "tw"));
}
