//! docs/durability.md says what can be lost, and which tests show it.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::path::Path;

/// Guarantee: each row of its tables names a test, and all that it names exist.
#[test]
fn each_row_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/durability.md")).unwrap();
    let is_row = |line: &&str| line.starts_with('|') && !line.starts_with("|---") && !line.contains("| shown by |");
    let mut named = 0;
    for row in page.lines().filter(is_row) {
        let tests: Vec<(&str, &str)> = row.split('`').filter_map(|part| part.split_once(".rs::")).collect();
        assert!(!tests.is_empty() || row.contains("the same two"), "no test shows: {row}");
        for (file, test) in tests {
            let path = root.join(format!("{file}.rs"));
            let code = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(code.contains(&format!("fn {test}(")), "there is no {test} in {file}.rs");
            named += 1;
        }
    }
    assert!(named >= 40, "{named}");
}
